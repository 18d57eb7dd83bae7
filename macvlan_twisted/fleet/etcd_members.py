"""Requests to an etcd cluster: which member is asked, how long, what is tried next."""

from __future__ import annotations

import errno
from collections.abc import Coroutine, Iterable
from ipaddress import ip_address
from typing import Any, Protocol, cast
from urllib.parse import urlsplit

from treq.client import HTTPClient
from twisted.internet.defer import (
    CancelledError,
    Deferred,
    DeferredSemaphore,
    TimeoutError,
    ensureDeferred,
    fail,
    succeed,
)
from twisted.internet.error import ConnectError, ConnectingCancelledError, DNSLookupError
from twisted.web.iweb import IBodyProducer
from zope.interface import implementer

from ..http_requests import cancellable, read_body
from .etcd_answers import CannotServe, StaleToken, decode_answer
from .etcd_values import EtcdRefused, EtcdUnavailable, Json

AT_ONCE = 8
"""Requests in flight; further ones wait in order."""
MEMBER_LIST_TIMEOUT = 5.0
"""Seconds."""
_NOT_SENT = (ConnectError, ConnectingCancelledError, DNSLookupError)
_FORBIDDEN = (errno.EAFNOSUPPORT, errno.EPERM)
"""What RestrictAddressFamilies= and IPAddressDeny= of systemd answer."""


class Tokens(Protocol):
    """Proofs of authentication, for etcd with names and passwords."""

    async def current(self, timeout: float) -> str:
        """
        :param timeout: in seconds.
        :return: empty if none is needed.
        """

    def forget(self, token: str) -> None:
        """etcd does not accept this token."""


class EtcdMembers:
    """
    The members of one cluster, the one that answered last first; one that fails goes to the end of the queue.

    :param urls: those that are configured; more are learnt from the cluster with :meth:`learn`.
    :param agent: ``IAgent``
    :param clock: ``IReactorTime``
    """

    def __init__(self, urls: Iterable[str], agent: Any, clock: Any) -> None:
        self._configured = tuple(urls)
        self._queue = list(self._configured)
        self._client = HTTPClient(agent, data_to_body_producer=cast(Any, _Body))
        self._clock = clock
        self._permits = DeferredSemaphore(AT_ONCE)
        self._running: set[Deferred[Any]] = set()
        self._is_stopped = False
        self._answered_last = ""

    @property
    def preferred(self) -> str:
        """The URL of the member to ask next."""
        return self._queue[0]

    async def ask(
        self, path: str, body: Json, timeout: float, tokens: Tokens, *, repeatable: bool = True
    ) -> Json:
        """
        Ask the members in turn until one answers; each but the last has half of the time that remains.

        :param timeout: in seconds, for everything.
        :param repeatable: whether it does no harm if two members carry out the same request.
        :raises EtcdUnavailable: :raises EtcdRefused:
        """
        deadline = self._clock.seconds() + timeout
        try:
            await self._permits.acquire().addTimeout(timeout, self._clock)
        except TimeoutError:
            raise EtcdUnavailable(
                f"{AT_ONCE} earlier requests to etcd were not answered within {timeout:g} s"
            ) from None
        try:
            token = await tokens.current(deadline - self._clock.seconds())
            try:
                return await self.try_each(path, body, deadline, token, repeatable=repeatable)
            except StaleToken:
                tokens.forget(token)
                token = await tokens.current(deadline - self._clock.seconds())
                return await self.try_each(path, body, deadline, token, repeatable=repeatable)
        finally:
            self._permits.release()

    async def try_each(
        self, path: str, body: Json, deadline: float, token: str, *, repeatable: bool = True
    ) -> Json:
        """
        As :meth:`ask`, with a token, and without waiting for others.

        :param deadline: by our clock.
        """
        failures = []
        is_outcome_unknown = False
        members = tuple(self._queue)
        for left, url in zip(range(len(members), 0, -1), members, strict=True):
            remaining = deadline - self._clock.seconds()
            if remaining <= 0:
                break
            limit = remaining / 2 if repeatable and left > 1 else remaining
            try:
                answer = await self.ask_member(url, path, body, limit, token)
            except CannotServe as failure:
                self.demote(url)
                failures.append(f"{url} {failure}")
                is_outcome_unknown |= failure.was_sent
                if is_outcome_unknown and not repeatable:
                    break
                continue
            except StaleToken:
                raise
            except EtcdRefused as refusal:
                if is_outcome_unknown:  # by a member that was asked before, and may have done it
                    raise EtcdUnavailable(str(refusal), is_outcome_unknown=True) from refusal
                raise
            self._note_answer(url, token)
            return answer
        reasons = "; ".join(failures) or "no time is left"
        raise EtcdUnavailable(f"etcd is unavailable: {reasons}", is_outcome_unknown=is_outcome_unknown)

    async def ask_member(self, url: str, path: str, body: Json, limit: float, token: str) -> Json:
        """
        :param limit: in seconds.
        :raises CannotServe: :raises EtcdRefused:
        """

        async def exchange() -> tuple[int, bytes]:
            response = await self._post(url, path, body, token)
            return response.code, await read_body(response)

        status, raw = await self._limited(exchange(), limit)
        return decode_answer(status, raw)

    async def open_stream(self, url: str, path: str, body: Json, limit: float, token: str) -> Any:
        """
        :param limit: in seconds, until the answer begins.
        :return: the response, whose body nobody reads yet.
        :raises CannotServe: :raises EtcdRefused:
        """

        async def opened() -> Any:
            response = await self._post(url, path, body, token)
            return (
                response if response.code == 200 else decode_answer(response.code, await read_body(response))
            )

        return await self._limited(opened(), limit)

    def demote(self, url: str) -> None:
        """Ask the other members first from now on."""
        if url in self._queue:
            self._queue.remove(url)
            self._queue.append(url)

    def learn(self, urls: Iterable[str]) -> None:
        """
        Ask these members, too. URLs of another scheme are left out, and those of loopback addresses unless one is configured:
        they are etcd's default, and mean another host.
        """
        scheme = urlsplit(self._configured[0]).scheme
        is_local = any(map(_is_loopback, self._configured))
        usable = [
            each for each in urls if urlsplit(each).scheme == scheme and (is_local or not _is_loopback(each))
        ]
        known = dict.fromkeys((*self._configured, *(each.rstrip("/") for each in usable)))
        self._queue = [each for each in self._queue if each in known]
        self._queue += [each for each in known if each not in self._queue]

    def run(self, work: Coroutine[Any, Any, Any]) -> Deferred[Any]:
        """
        Start something that :meth:`stop` ends.

        :return: fails by :exc:`EtcdUnavailable` then.
        """
        if self._is_stopped:
            work.close()
            return fail(EtcdUnavailable("the connection to etcd was closed"))
        running = cancellable(ensureDeferred(work))
        self._running.add(running)

        def finish(outcome: Any) -> Any:
            self._running.discard(running)
            if self._is_stopped and getattr(outcome, "type", None) is CancelledError:
                raise EtcdUnavailable("the connection to etcd was closed", is_outcome_unknown=True)
            return outcome

        return running.addBoth(finish)

    def stop(self) -> None:
        """End everything that :meth:`run` has started."""
        self._is_stopped = True
        for each in tuple(self._running):
            each.cancel()

    def _post(self, url: str, path: str, body: Json, token: str) -> Deferred[Any]:
        # etcd ends a watch at a member that has lost its leader only if the client asks for that.
        headers: dict[bytes | str, bytes | str] = (
            {"Grpc-Metadata-hasleader": "true"} if path == "/v3/watch" else {}
        )
        if token:
            headers["Authorization"] = token
        return self._client.post(
            url + path,
            json=body,
            headers=headers,
            unbuffered=True,
            allow_redirects=False,
            reactor=self._clock,
        )

    async def _limited(self, work: Coroutine[Any, Any, Any], limit: float) -> Any:
        running = ensureDeferred(_with_reasons(work))
        timer = self._clock.callLater(limit, running.cancel)
        try:
            return await cancellable(running)
        finally:
            if timer.active():
                timer.cancel()

    def _note_answer(self, url: str, token: str) -> None:
        """After a (re)connection the members may be others than before."""
        if url != self._answered_last:
            self._answered_last = url
            self.run(self._learn_from(url, token)).addErrback(lambda _: None)

    async def _learn_from(self, url: str, token: str) -> None:
        answer = await self.ask_member(url, "/v3/cluster/member/list", {}, MEMBER_LIST_TIMEOUT, token)
        self.learn(each for member in answer.get("members", ()) for each in member.get("clientURLs", ()))


async def _with_reasons(work: Coroutine[Any, Any, Any]) -> Any:
    """Let all troubles with a connection be :exc:`CannotServe`."""
    try:
        return await work
    except (CannotServe, EtcdRefused):
        raise
    except Exception as error:  # refused, reset, cut off, TLS, or our own time limit
        raise CannotServe(_reason(error), was_sent=not isinstance(error, _NOT_SENT)) from error


def _reason(error: BaseException) -> str:
    # An exchange that breaks off carries the reasons; TLS carries a list of (library, function, reason).
    inner = [each.value for each in getattr(error, "reasons", ())]
    if inner:
        return _reason(inner[0])
    if isinstance(error, CancelledError | ConnectingCancelledError):
        return "does not answer in time"
    if type(error).__name__ == "VerificationError":  # of service_identity, which may be missing
        return "shows a certificate for another server"
    if error.args and isinstance(error.args[0], list):
        return f"cannot be reached with TLS: {', '.join(str(each[-1]) for each in error.args[0])}"
    if getattr(error, "osError", None) in _FORBIDDEN:
        return (
            "cannot be reached, since this service may not use IP, or not with that address: install the systemd unit's drop-in "
            "fleet.conf, and allow the address there"
        )
    return f"cannot be reached: {error}"


def _is_loopback(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    try:
        return ip_address(host).is_loopback or ip_address(host).is_unspecified
    except ValueError:
        return host == "localhost"


@implementer(IBodyProducer)
class _Body:
    """A short body, written at once; treq's own producer needs the global reactor."""

    def __init__(self, body: bytes) -> None:
        self._body = body
        self.length = len(body)

    def startProducing(self, consumer: Any) -> Deferred[None]:
        consumer.write(self._body)
        return succeed(None)

    def pauseProducing(self) -> None: ...

    def resumeProducing(self) -> None: ...

    def stopProducing(self) -> None: ...
