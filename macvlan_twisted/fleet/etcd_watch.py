"""A stream of changes from etcd that survives the loss of the member it comes from."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from random import Random
from typing import Any, cast

from attrs import define
from twisted.internet.defer import CancelledError, Deferred, ensureDeferred
from twisted.internet.protocol import Protocol, connectionDone
from twisted.internet.task import deferLater
from twisted.python.failure import Failure

from .etcd_answers import CannotServe, JsonLines, StaleToken, decode_message, watch_refusal
from .etcd_members import EtcdMembers, Tokens
from .etcd_values import EtcdRefused, EtcdUnavailable, Event, Header, Json, Refusal, encode_range

CHECK_INTERVAL = 5.0
"""
Seconds between two looks whether the member lives. A frozen one sends nothing, yet its kernel answers keepalive packets; and
etcd's own progress messages come every 10 minutes. A member that has lost its leader ends the stream itself.
"""
PATIENCE = 2.0
"""Seconds within which a member has to answer."""
SHORTEST_WAIT, FIRST_WAIT, LONGEST_WAIT = 0.1, 0.5, 8.0
"""Seconds before the next attempt: at random from the shortest one to one that doubles."""
_STEADY = 10.0
"""Seconds after which a stream is not taken for a failed attempt."""

OnEvents = Callable[[Sequence[Event]], None]


@define
class _Position:
    """What the caller knows."""

    cluster_id: int
    revision: int


class EtcdWatch:
    """
    :param clock: ``IReactorTime``
    :param random: keeps hosts that lost a member together from coming back together.
    """

    def __init__(self, members: EtcdMembers, tokens: Tokens, clock: Any, random: Random) -> None:
        self._members = members
        self._tokens = tokens
        self._clock = clock
        self._random = random

    async def follow(
        self, prefix: str, since: Header, on_events: OnEvents, on_connection: Callable[[str], None]
    ) -> None:
        """See :meth:`.EtcdGateway.watch`."""
        position = _Position(since.cluster_id, since.revision)
        waits = self._waits()
        while True:
            url = self._members.preferred
            began = self._clock.seconds()
            try:
                await self._follow_once(url, prefix, position, on_events, on_connection)
            except (CannotServe, EtcdUnavailable) as failure:
                reason = f"{url} {failure}" if isinstance(failure, CannotServe) else str(failure)
            self._members.demote(url)
            on_connection(reason)
            if self._clock.seconds() - began > _STEADY:
                waits = self._waits()
            await deferLater(self._clock, next(waits))

    async def _follow_once(
        self,
        url: str,
        prefix: str,
        position: _Position,
        on_events: OnEvents,
        on_connection: Callable[[str], None],
    ) -> None:
        """
        Use one connection, until it ends.

        :raises CannotServe: :raises EtcdUnavailable: :raises EtcdRefused:
        """
        token = await self._tokens.current(PATIENCE)
        create = {**encode_range(prefix, prefix=True), "start_revision": str(position.revision + 1)}
        response = await self._members.open_stream(
            url, "/v3/watch", {"create_request": create}, PATIENCE, token
        )
        created: Deferred[Json] = Deferred()

        def on_message(result: Json) -> None:
            if result.get("created"):
                created.callback(result)
                return
            events = [Event.decode(each) for each in result.get("events", ())]
            if events:
                position.revision = events[-1].pair.mod_revision
                on_events(events)

        stream = _Stream(on_message)
        response.deliverBody(stream)
        checking = ensureDeferred(self._check(url, token, stream))
        checking.addErrback(lambda failure: failure.trap(CancelledError))
        try:
            # The answer begins with this message, except where it is a refusal.
            await self._compare(Header.decode(await _first(created, stream.ended)), position, token)
            on_connection("")
            await stream.ended
        except StaleToken as failure:
            self._tokens.forget(token)
            raise CannotServe(str(failure)) from failure
        finally:
            checking.cancel()
            stream.close()

    async def _compare(self, header: Header, position: _Position, token: str) -> None:
        """
        A watch from a revision that etcd has not reached yet is silent until it has.

        :raises EtcdRefused: the history is another one than that of *position*.
        """
        revision = header.revision
        if revision < position.revision and header.cluster_id == position.cluster_id:
            # This member may lag behind: ask for the revision of the cluster.
            deadline = self._clock.seconds() + PATIENCE
            body = {**encode_range("/", prefix=False), "count_only": True}
            revision = Header.decode(
                await self._members.try_each("/v3/kv/range", body, deadline, token)
            ).revision
        if revision < position.revision or header.cluster_id != position.cluster_id:
            raise EtcdRefused(
                Refusal.REPLACED,
                "etcd was restored from an older snapshot, or is another cluster than before",
            )

    async def _check(self, url: str, token: str, stream: _Stream) -> None:
        """Close the stream when its member does not answer any more."""
        while True:
            await deferLater(self._clock, CHECK_INTERVAL)
            try:
                await self._members.ask_member(url, "/v3/maintenance/status", {}, PATIENCE, token)
            except CannotServe as failure:
                stream.fail(failure)
                return
            except EtcdRefused:  # it lives
                continue

    def _waits(self) -> Iterator[float]:
        longest = FIRST_WAIT
        while True:
            yield self._random.uniform(SHORTEST_WAIT, longest)
            longest = min(longest * 2, LONGEST_WAIT)


async def _first(created: Deferred[Json], ended: Deferred[None]) -> Json:
    """The result of *created*, unless the stream ends before."""
    ended.addErrback(lambda failure: failure if created.called else created.errback(failure))
    return await created


class _Stream(Protocol):
    """The body of a watch; *ended* fails when it ends, for whatever reason."""

    def __init__(self, on_message: Callable[[Json], None]) -> None:
        self._on_message = on_message
        self._lines = JsonLines()
        self.ended: Deferred[None] = Deferred()

    def dataReceived(self, data: bytes) -> None:
        self._handle(lambda: self._lines.feed(data))

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        # The last message may be the reason, on a line without an end.
        self._handle(self._lines.finish)
        self.fail(CannotServe("closed the watch"))

    def _handle(self, read: Callable[[], list[Any]]) -> None:
        try:
            for message in read():
                if self.ended.called:
                    return
                result = decode_message(message)
                refusal = watch_refusal(result)
                if refusal:
                    raise refusal
                self._on_message(result)
        except ValueError as error:
            self.fail(CannotServe(f"sent something other than JSON: {error}"))
        except Exception as error:
            self.fail(error)

    def fail(self, error: Exception) -> None:
        if not self.ended.called:
            self.ended.errback(error)

    def close(self) -> None:
        self.ended.addErrback(lambda _: None)
        self.ended.cancel()
        # A response has no transport any more when it has ended.
        if self.transport is not None:
            cast(Any, self.transport).loseConnection()
