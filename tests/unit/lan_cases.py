"""A LAN in memory with a manual clock, for tests of conflict detection."""

from __future__ import annotations

from collections.abc import Coroutine
from ipaddress import IPv4Address, IPv6Address, ip_network
from random import Random
from typing import Any, TypeVar

from attrs import define, field
from twisted.internet.defer import Deferred, ensureDeferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from macvlan_twisted.addresses import IPAddress
from macvlan_twisted.lan.address_monitor import AddressMonitor
from macvlan_twisted.lan.address_probe import Free, Verdict
from macvlan_twisted.lan.arp_nd import AddressClaim, Probe, answer_frame, decode, probe_frame
from macvlan_twisted.testing.packet_socket import FakeLanSocket

T = TypeVar("T")

V4, V6 = IPv4Address("192.168.1.7"), IPv6Address("fd00::12:3456")
BOTH: tuple[IPAddress, ...] = (V4, V6)
HOST, CONTAINER = "7a:48:00:00:00:01", "7a:42:c0:a8:01:07"
LAN, LAN_6 = ip_network("192.168.1.0/24"), ip_network("fd00::/64")
OTHER, THIRD = "02:00:00:00:00:02", "02:00:00:00:00:03"


class LanTestCase(SynchronousTestCase):
    """Our socket is :attr:`wire`; :meth:`answers_as` adds a neighbour."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.random = Random(7)
        self.wire = FakeLanSocket(mac=HOST)

    def begin(self, work: Coroutine[Deferred[Any], Any, T]) -> Deferred[T]:
        return ensureDeferred(work)

    def pass_time(self, seconds: float) -> None:
        """In small steps, since a timer may set the next one."""
        for _ in range(round(seconds * 100)):
            self.clock.advance(0.01)

    def answers_as(self, mac: str, *addresses: IPAddress) -> None:
        """Add a neighbour with *addresses*."""

        def answer(frame: bytes) -> list[bytes]:
            said = decode(frame)
            if isinstance(said, Probe) and said.address in addresses:
                return [answer_frame(said.address, mac, said.mac)]
            return []

        self.wire.answerers.append(answer)

    def probes(self) -> list[Probe]:
        """Our probes."""
        return [said for said in map(decode, self.wire.sent) if isinstance(said, Probe)]

    def claims(self) -> list[AddressClaim]:
        """Our claims."""
        return [said for said in map(decode, self.wire.sent) if isinstance(said, AddressClaim)]


@define
class RecordedReports:
    """An observer that records its reports."""

    contests: list[tuple[IPAddress, str, str]] = field(factory=list)
    losses: list[tuple[IPAddress, str]] = field(factory=list)

    def contested(self, address: IPAddress, our_mac: str, foreign_mac: str) -> None:
        self.contests.append((address, our_mac, foreign_mac))

    def lost(self, address: IPAddress, mac: str) -> None:
        self.losses.append((address, mac))

    def host_mac(self) -> str:
        return HOST


class WatchTestCase(LanTestCase):
    """A monitor on that socket that remembers neighbours in both prefixes."""

    def setUp(self) -> None:
        super().setUp()
        self.reports = RecordedReports()
        self.watch = AddressMonitor(self.wire, self.clock, self.random, self.reports)
        self.watch.start()
        self.watch.interested_in(LAN)
        self.watch.interested_in(LAN_6)

    def ask(self, address: IPAddress = V4, mac: str = CONTAINER) -> Deferred[Verdict]:
        return self.begin(self.watch.hold(address, mac))

    def hold(self, *addresses: IPAddress) -> None:
        asked = [self.ask(address) for address in addresses or (V4,)]
        self.pass_time(0.52)
        for each in asked:
            self.assertEqual(self.successResultOf(each), Free())
        self.wire.sent.clear()

    def assert_defended(self, address: IPAddress, mac: str = CONTAINER) -> None:
        self.wire.sent.clear()
        self.wire.receive(probe_frame(address, THIRD))
        self.assertEqual(self.wire.sent, [answer_frame(address, mac, THIRD)])

    def assert_not_defended(self, address: IPAddress) -> None:
        self.wire.sent.clear()
        self.wire.receive(probe_frame(address, THIRD))
        self.assertEqual(self.wire.sent, [])


def connect(clock: Clock, wires: list[FakeLanSocket], delays: dict[tuple[int, int], float]) -> None:
    """Connect *wires* to one LAN with delays."""

    def link(one: int, other: int) -> None:
        def carry(frame: bytes) -> list[bytes]:
            clock.callLater(delays[one, other], wires[other].receive, frame)
            return []

        wires[one].answerers.append(carry)

    for one in range(len(wires)):
        for other in range(len(wires)):
            if one != other:
                link(one, other)
