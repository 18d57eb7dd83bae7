"""
A client of etcd, version 3.4 or later, over its JSON gateway. It knows nothing of addresses.

https://etcd.io/docs/v3.5/dev-guide/api_grpc_gateway/
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from random import Random
from typing import Any, Self, TypeVar

from twisted.internet.defer import Deferred
from twisted.web.client import Agent, HTTPConnectionPool

from .etcd_credentials import MemberEndpoints, TlsFiles
from .etcd_members import AT_ONCE, EtcdMembers
from .etcd_tokens import LoginTokens, NoTokens
from .etcd_values import (
    Comparison,
    EtcdUnavailable,
    Event,
    Header,
    Json,
    KeyValue,
    Lease,
    Member,
    MemberStatus,
    Operation,
    RangeAnswer,
    TxnAnswer,
    encode_range,
)
from .etcd_watch import EtcdWatch
from .location import EtcdLocation

T = TypeVar("T")

TIMEOUT = 1.0
"""Seconds for one request, with everything that is tried."""
PAGE = 1000
"""Keys in one answer. The service does nothing else while it reads one."""


class EtcdGateway:
    """
    One cluster. All methods fail by :exc:`EtcdUnavailable` and :exc:`EtcdRefused`.

    :param members: whom to ask.
    :param pool: of the connections, to be closed at the end.
    :param clock: ``IReactorTime``
    :param random: spreads what several hosts would do at the same moment.
    :param login: the file with name and password; ``None`` without authentication.
    """

    def __init__(
        self,
        members: EtcdMembers,
        pool: HTTPConnectionPool | None,
        clock: Any,
        random: Random,
        login: Path | None,
    ) -> None:
        self._members = members
        self._pool = pool
        self._tokens = LoginTokens(login, members, clock) if login else NoTokens()
        self._watch = EtcdWatch(members, self._tokens, clock, random)

    @classmethod
    def connect(
        cls,
        reactor: Any,
        location: EtcdLocation,
        random: Random,
        *,
        tls: TlsFiles | None = None,
        login: Path | None = None,
    ) -> Self:
        """
        Connections are made when they are needed.

        :param reactor: as for :class:`MemberEndpoints`.
        :param tls: ``None`` without encryption.
        """
        pool = HTTPConnectionPool(reactor)
        pool.maxPersistentPerHost = AT_ONCE
        pool.retryAutomatically = False
        agent = Agent.usingEndpointFactory(reactor, MemberEndpoints(reactor, tls), pool=pool)
        members = EtcdMembers(location.urls(encrypted=tls is not None), agent, reactor)
        return cls(members, pool, reactor, random, login)

    async def stop(self) -> None:
        """Close all connections; requests and watches that are still there fail by :exc:`EtcdUnavailable`."""
        self._members.stop()
        if self._pool:
            await self._pool.closeCachedConnections()

    async def get(self, key: str, *, timeout: float = TIMEOUT) -> KeyValue | None:
        """:param timeout: in seconds, as for all methods."""
        pairs = (await self._page(key, 0, timeout, prefix=False)).pairs
        return pairs[0] if pairs else None

    async def range(self, prefix: str, *, timeout: float = TIMEOUT) -> RangeAnswer:
        """
        All keys that begin with *prefix*, in order, as they were at one revision.

        :param timeout: in seconds, for each :data:`PAGE` keys.
        """
        answer = page = await self._page(prefix, 0, timeout, prefix=True)
        while len(page.pairs) == PAGE:
            revision = answer.header.revision
            page = await self._page(prefix, revision, timeout, prefix=True, after=page.pairs[-1].key)
            answer = RangeAnswer(answer.header, answer.pairs + page.pairs)
        return answer

    async def _page(
        self, key: str, revision: int, timeout: float, *, prefix: bool, after: str = ""
    ) -> RangeAnswer:
        body = {**encode_range(key, prefix=prefix), "limit": str(PAGE)}
        if after:  # the next key
            body["key"] = encode_range(after + "\0", prefix=False)["key"]
        if revision:
            body["revision"] = str(revision)
        return await self._ask(
            "/v3/kv/range",
            body,
            timeout,
            lambda answer: RangeAnswer(
                Header.decode(answer), tuple(map(KeyValue.decode, answer.get("kvs", ())))
            ),
        )

    async def txn(
        self,
        compare: Sequence[Comparison],
        success: Sequence[Operation],
        failure: Sequence[Operation] = (),
        *,
        repeatable: bool,
        timeout: float = TIMEOUT,
    ) -> TxnAnswer:
        """
        Carry out one branch, as a whole.

        :param repeatable: whether it may be sent to another member when one does not answer in time. Then
            *failure* may be taken only because *success* was taken before, at the first one: the caller has to see to that.
        :raises EtcdUnavailable: its ``is_outcome_unknown`` says whether it may be carried out nevertheless.
        """
        body = {
            "compare": [each.encode() for each in compare],
            "success": [each.encode() for each in success],
            "failure": [each.encode() for each in failure],
        }
        return await self._ask("/v3/kv/txn", body, timeout, TxnAnswer.decode, repeatable=repeatable)

    async def grant_lease(self, seconds: int, *, timeout: float = TIMEOUT) -> Lease:
        """If this fails there may be a lease that nobody uses; it expires."""
        return await self._ask(
            "/v3/lease/grant",
            {"TTL": str(seconds)},
            timeout,
            lambda answer: Lease(Header.decode(answer), int(answer["ID"]), int(answer["TTL"])),
        )

    async def keep_alive(self, lease: int, *, timeout: float = TIMEOUT) -> int:
        """:return: the seconds until it expires; 0 if it has."""
        return await self._ask(
            "/v3/lease/keepalive", {"ID": str(lease)}, timeout, lambda answer: int(answer.get("TTL", 0))
        )

    async def revoke_lease(self, lease: int, *, timeout: float = TIMEOUT) -> None:
        """
        Delete all keys that are attached to it.

        :raises EtcdRefused: by ``Refusal.NO_LEASE`` if it has expired, or another member was quicker.
        """
        await self._ask("/v3/lease/revoke", {"ID": str(lease)}, timeout, lambda _: None)

    async def status(self, *, timeout: float = TIMEOUT) -> MemberStatus:
        """Of the member that answers first: members without a leader answer, too."""
        return await self._ask("/v3/maintenance/status", {}, timeout, _decode_status)

    async def members(self, *, timeout: float = TIMEOUT) -> tuple[Member, ...]:
        return await self._ask(
            "/v3/cluster/member/list",
            {},
            timeout,
            lambda answer: tuple(
                Member(each.get("name", ""), tuple(each.get("clientURLs", ())))
                for each in answer.get("members", ())
            ),
        )

    async def watch(
        self,
        prefix: str,
        since: Header,
        on_events: Callable[[Sequence[Event]], None],
        on_connection: Callable[[str], None] = lambda reason: None,
    ) -> None:
        """
        Follow the changes of all keys that begin with *prefix*, for ever, at one member or another.

        :param since: of the answer that the caller knows: changes after it are reported, each once, in order.
        :param on_events: called with the changes of one or more whole transactions; should not raise.
        :param on_connection: called with an empty text when the watch is established, again after each interruption, and with
            the reason when it is interrupted.
        :raises EtcdRefused: by ``Refusal.COMPACTED`` or ``Refusal.REPLACED`` if changes were missed: read everything anew.
        :raises EtcdUnavailable: only after :meth:`stop`.
        """
        await self._members.run(self._watch.follow(prefix, since, on_events, on_connection))

    async def _ask(
        self, path: str, body: Json, timeout: float, decode: Callable[[Json], T], *, repeatable: bool = True
    ) -> T:
        asked: Coroutine[Any, Any, Json] = self._members.ask(
            path, body, timeout, self._tokens, repeatable=repeatable
        )
        running: Deferred[Json] = self._members.run(asked)
        answer = await running
        try:
            return decode(answer)
        except (KeyError, TypeError, ValueError) as error:
            raise EtcdUnavailable(
                f"etcd's answer to {path} cannot be parsed: {error!r}", is_outcome_unknown=True
            ) from error


def _decode_status(answer: Json) -> MemberStatus:
    return MemberStatus(
        Header.decode(answer),
        str(answer.get("version", "")),
        answer.get("leader", "0") != "0",
        int(answer.get("dbSize", 0)),
        tuple(str(each).strip() for each in answer.get("errors", ())),
    )
