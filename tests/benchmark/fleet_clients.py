"""Many hosts of a fleet in one process, each with a connection to etcd of its own, for the part ``fleet``.

``python -m tests.benchmark.fleet_clients claim|follow|connect ETCD HOSTS NUMBER`` prints JSON, one object on a line.
"""

import json
import sys
import time
from collections.abc import Awaitable, Callable, Iterable
from ipaddress import IPv4Address
from itertools import count
from random import Random
from typing import Any

from twisted.internet.defer import Deferred, ensureDeferred, gatherResults
from twisted.internet.task import deferLater

from macvlan_twisted.addresses import IPAddress
from macvlan_twisted.fleet.address_users import AddressUse
from macvlan_twisted.fleet.etcd_claims import EtcdClaims
from macvlan_twisted.fleet.etcd_gateway import EtcdGateway
from macvlan_twisted.fleet.interfaces import Claim, ClaimState, FleetUnavailable, Host, HostRecord
from macvlan_twisted.fleet.location import parse_etcd_location
from macvlan_twisted.fleet.mirror import Mirror
from macvlan_twisted.fleet.own_claims import OwnClaims
from macvlan_twisted.fleet.rows import ClaimRows
from macvlan_twisted.fleet.session import FleetSession
from macvlan_twisted.testing.state import MemoryHostRecords

LAN = "default"
FIRST = IPv4Address("10.0.0.2")
Report = Callable[..., None]


class LightHost:
    """What a host has of a fleet, without networks, containers and disk."""

    def __init__(self, reactor: Any, location: str, number: int) -> None:
        """Connect to nothing yet."""
        where, host = parse_etcd_location(location), Host(f"light-{number}", f"instance-{number}")
        self.record = HostRecord(host, f"session-{number}", f"boot-{number}")
        self.claims = EtcdClaims(EtcdGateway.connect(reactor, where, Random(number)), where.prefix, reactor)
        self.ids = count(1)
        rows, self.mirror = ClaimRows(MemoryHostRecords()), Mirror(host)
        self.own_claims = OwnClaims(
            host, self.claims, rows, self.mirror, lambda: f"{number}-{next(self.ids)}", reactor
        )
        self.session = FleetSession(
            self.record, self.claims, self.own_claims, Unused(), Random(number), reactor
        )

    async def claim(self, address: IPAddress) -> None:
        """Claim an address as a host does whose reserve is not full."""
        await self.claims.claim(
            Claim(LAN, address, self.record.host, f"{self.record.host.name}-{next(self.ids)}")
        )


class Unused:
    """Nobody on this host uses an address."""

    def use_of(self, lan: str, address: IPAddress) -> AddressUse:
        """Held for the next container."""
        return AddressUse(ClaimState.RESERVE)

    def take(self, lan: str, address: IPAddress) -> bool:
        """Nothing holds it."""
        return True

    def is_shared(self, lan: str, address: IPAddress) -> bool:
        """No pool reserves anything."""
        return False

    def allocated(self) -> Iterable[tuple[str, IPAddress]]:
        """Nothing."""
        return ()

    def reserved(self) -> Iterable[tuple[str, IPAddress]]:
        """Nothing."""
        return ()

    surplus = allocated

    async def is_abandoned(self, claim: Claim) -> bool:
        """It may be another process's."""
        return False

    async def is_silent(self, claim: Claim) -> bool:
        """It may be another process's."""
        return False

    def refill(self) -> None:
        """Nothing is to be held."""


async def claim(reactor: Any, hosts: list[LightHost], number: int, report: Report) -> None:
    """Have all hosts together claim so many addresses, each host one after the other."""
    numbers = iter(range(number))
    waits = []

    async def one(host: LightHost) -> None:
        for each in numbers:
            began = time.perf_counter()
            while not await is_claimed(host, FIRST + each):
                pass
            waits.append(time.perf_counter() - began)

    async def is_claimed(host: LightHost, address: IPAddress) -> bool:
        try:
            await host.claim(address)
            return True
        except FleetUnavailable:  # etcd has more to do than it can within a second
            return False

    began = time.perf_counter()
    await all_of(one(host) for host in hosts)
    report(seconds=time.perf_counter() - began, waits=sorted(waits)[:: max(1, len(waits) // 100)])


async def follow(reactor: Any, hosts: list[LightHost], number: int, report: Report) -> None:
    """Have all hosts see so many changes that one of them makes."""
    await connected(reactor, hosts)
    report(ready=True)
    await deferLater(reactor, 0.5)
    began, processor = time.perf_counter(), time.process_time()
    for each in range(number):
        await hosts[0].claim(FIRST + each)
    made = time.process_time() - processor
    while any(len(host.mirror.entries) < number for host in hosts):
        await deferLater(reactor, 0.01)
    report(seconds=time.perf_counter() - began, processor=time.process_time() - processor, until_made=made)


async def connect(reactor: Any, hosts: list[LightHost], number: int, report: Report) -> None:
    """Report each time when all hosts are connected, *number* times."""
    await connected(reactor, hosts)
    report(ready=True)
    for _ in range(number - 1):
        while any(host.session.is_connected for host in hosts):
            await deferLater(reactor, 0.02)
        report(lost=True)
        while not all(host.session.is_connected for host in hosts):
            await deferLater(reactor, 0.02)
        report(ready=True)


async def connected(reactor: Any, hosts: list[LightHost]) -> None:
    """Start the sessions, and wait until all are connected."""
    for host in hosts:
        ensureDeferred(host.session.run()).addErrback(lambda failure: failure.printTraceback(sys.stderr))
    while not all(host.session.is_connected for host in hosts):
        await deferLater(reactor, 0.02)


def all_of(works: Iterable[Awaitable[None]]) -> Deferred[Any]:
    """Do all at the same time."""
    return gatherResults([ensureDeferred(each) for each in works], consumeErrors=True)  # type: ignore[arg-type]


WORKS = {"claim": claim, "follow": follow, "connect": connect}


def main(work: str, location: str, hosts: str, number: str) -> None:
    """Do one of the works."""
    from twisted.internet import reactor as installed

    reactor: Any = installed

    def report(**told: Any) -> None:
        print(json.dumps(told), flush=True)

    def begin() -> None:
        light = [LightHost(reactor, location, each) for each in range(int(hosts))]
        done = ensureDeferred(WORKS[work](reactor, light, int(number), report))
        done.addErrback(lambda failure: failure.printTraceback(sys.stderr)).addBoth(lambda _: reactor.stop())

    reactor.callWhenRunning(begin)
    reactor.run()


if __name__ == "__main__":
    main(*sys.argv[1:])
