"""Our client of etcd on the reactor of the tests, with connections that start in a place of a throw-away LAN."""

import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random
from typing import Any, Self

from pyroute2.netns import setns
from twisted.internet.defer import CancelledError, Deferred, ensureDeferred
from twisted.internet.task import deferLater
from zope.interface import directlyProvides, providedBy

from macvlan_twisted.fleet.etcd_credentials import TlsFiles
from macvlan_twisted.fleet.etcd_gateway import EtcdGateway
from macvlan_twisted.fleet.etcd_values import EtcdRefused, Event, Header
from macvlan_twisted.fleet.location import parse_etcd_location
from tests.lab.commands import SLACK, TookTooLong
from tests.lab.etcd import Cluster
from tests.lab.lan import Lan


class _ReactorInPlace:
    """The reactor, but for TCP connections: their sockets are made in a network namespace."""

    def __init__(self, reactor: Any, namespace: str) -> None:
        self._reactor = reactor
        self._namespace = namespace
        directlyProvides(self, *providedBy(reactor))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reactor, name)

    def connectTCP(self, *arguments: Any, **options: Any) -> Any:
        with open("/proc/thread-self/ns/net", "rb") as ours:
            setns(self._namespace)
            try:
                return self._reactor.connectTCP(*arguments, **options)
            finally:
                setns(ours)


@asynccontextmanager
async def gateway_to(
    lan: Lan, cluster: Cluster, *, tls: TlsFiles | None = None, login: Path | None = None, members: int = 3
) -> AsyncIterator[EtcdGateway]:
    """Open a client on the docker host that is configured with the first `members` of a cluster."""
    from twisted.internet import reactor

    hosts = ",".join(url.partition("://")[2] for url in cluster.endpoints[:members])
    place = _ReactorInPlace(reactor, lan.namespace_path("host"))
    gateway = EtcdGateway.connect(
        place, parse_etcd_location(f"etcd://{hosts}"), Random(1), tls=tls, login=login
    )
    try:
        yield gateway
    finally:
        await gateway.stop()


class Follower:
    """A watch that runs between ``with Follower(etcd, prefix, since)`` and the end of that block."""

    def __init__(self, etcd: EtcdGateway, prefix: str, since: Header) -> None:
        self._etcd = etcd
        self._prefix = prefix
        self._since = since
        self._ended: Deferred[None]
        self.events: list[Event] = []
        self.connections: list[str] = []
        self.member = ""
        """The URL of the member that the stream comes from."""

    def __enter__(self) -> Self:
        watch = self._etcd.watch(self._prefix, self._since, self.events.extend, self._note)
        self._ended = ensureDeferred(watch)
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.addErrback(lambda failure: failure.trap(CancelledError))
        self._ended.cancel()

    @property
    def interruptions(self) -> list[str]:
        """Why the stream broke, each time."""
        return [each for each in self.connections if each]

    def _note(self, reason: str) -> None:
        self.connections.append(reason)
        self.member = self._etcd._members.preferred

    async def established(self) -> None:
        await eventually(lambda: self.connections[-1:] == [""])

    async def has_seen(self, count: int) -> None:
        """Wait until there were so many events."""
        await eventually(lambda: len(self.events) >= count)
        assert len(self.events) == count

    async def refusal(self) -> EtcdRefused:
        """Wait for the end of the watch."""
        try:
            await self._ended
        except EtcdRefused as refused:
            return refused
        raise AssertionError("the watch ended by itself")


async def eventually(is_so: Callable[[], bool | Awaitable[bool]], seconds: float = 12.0) -> None:
    """Let the reactor work until something is so, for `seconds` times the slack at most."""
    from twisted.internet import reactor

    clock: Any = reactor
    deadline = time.monotonic() + seconds * SLACK
    while True:
        found = is_so()
        if found if isinstance(found, bool) else await found:
            return
        if time.monotonic() > deadline:
            raise TookTooLong(f"waited {seconds * SLACK:g} seconds in vain")
        await deferLater(clock, 0.05)
