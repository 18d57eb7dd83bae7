"""A plugin on a LAN on which time passes, and neighbours that come and go."""

from __future__ import annotations

from typing import Any, cast

from attrs import evolve
from twisted.internet.defer import Deferred
from twisted.logger import ILogObserver, LogEvent, LogLevel, formatEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from macvlan_twisted.addresses import IPAddress, parse_address, parse_network
from macvlan_twisted.ipam.requests import RequestAddress
from macvlan_twisted.lan.address_monitor import FRESH, LAST_LOOK
from macvlan_twisted.lan.arp_nd import AddressClaim, Probe, answer_frame, decode, probe_frame
from macvlan_twisted.option_values import ConflictDetection
from macvlan_twisted.state.interfaces import RecordKind

from .address_cases import AddressTestCase
from .helpers import LAN, PluginHarness

DETECTING = evolve(LAN, conflict_detection=ConflictDetection.ON)
NEIGHBOUR, PROBER = "02:00:00:00:00:02", "02:00:00:00:00:03"
POOL = "10.0.0.0/24"


def tens(first: int, last: int) -> list[str]:
    return [f"10.0.0.{number}" for number in range(first, last + 1)]


def pass_time(seconds: float, *plugins: PluginHarness) -> None:
    """In small steps, as calls may schedule others before the end."""
    for _ in range(round(seconds * 100)):
        for plugin in plugins:
            plugin.clock.advance(0.01)


class ConflictTestCase(AddressTestCase):
    """Addresses are probed on the LAN of ``eth0``; :attr:`taken` has the MACs of neighbours by address."""

    def setUp(self) -> None:
        self.use(DETECTING)
        self.taken: dict[IPAddress, str] = {}
        self.plugin.answerers.append(self._answer)

    def _answer(self, frame: bytes) -> list[bytes]:
        message = decode(frame)
        if isinstance(message, Probe) and message.address in self.taken:
            return [answer_frame(message.address, self.taken[message.address], message.mac)]
        return []

    def neighbour_has(self, *addresses: str, mac: str = NEIGHBOUR) -> None:
        self.taken.update({parse_address(each): mac for each in addresses})

    def neighbour_goes(self, *addresses: str) -> None:
        """The neighbour has left, long enough for its entry in the neighbour cache to expire."""
        for each in [parse_address(each) for each in addresses] or list(self.taken):
            del self.taken[each]
        self.pass_time(FRESH + 1)

    def pass_time(self, seconds: float = 0.6) -> None:
        """By default long enough for every probe."""
        pass_time(seconds, self.plugin)

    def made(self, pool: str = POOL, part: str | None = None, **options: Any) -> str:
        """The pool of a network, before any probe."""
        pool_id = self.open(pool, part, **options)
        self.plugin.wait(self.plugin.pool_binding.network_created("eth0", [(parse_network(pool), ())]))
        return pool_id

    def ready(self, pool: str = POOL, part: str | None = None, **options: Any) -> str:
        """The pool of a network, with its prefetch complete."""
        pool_id = self.made(pool, part, **options)
        self.pass_time()
        return pool_id

    def begin(self, pool_id: str, address: str | None = None, name: str = "box") -> Deferred[Any]:
        wanted = None if address is None else parse_address(address)
        request = RequestAddress(pool_id, wanted, endpoint_name=name)
        asked = self.plugin.start(self.plugin.addresses.request_address(request))
        self.plugin.clock.advance(LAST_LOOK)  # nothing waits longer if addresses are prefetched
        return asked

    def gets(self, pool_id: str, address: str | None = None) -> str:
        """The allocated address, without its prefix length."""
        asked = self.begin(pool_id, address)
        if not asked.called:
            self.pass_time()
        return str(self.successResultOf(asked)).partition("/")[0]

    def refusal_of(self, asked: Deferred[Any]) -> str:
        return str(self.failureResultOf(asked).getErrorMessage())

    def conflicts(self) -> dict[str, Any]:
        """The MAC in each row, by address."""
        rows = self.plugin.records.all_rows().get(RecordKind.CONFLICT, {})
        return {str(row["address"]): row["mac"] for row in rows.values()}

    def defended(self, *addresses: str) -> list[str]:
        """Those for which we reply to a probe."""
        return [each for each in addresses if self.answers_for(each)]

    def answers_for(self, address: str) -> bool:
        tap = self.plugin.lan_sockets["eth0"]
        before = len(tap.sent)
        tap.receive(probe_frame(parse_address(address), PROBER))
        messages = [decode(frame) for frame in tap.sent[before:]]
        return any(isinstance(each, AddressClaim) and str(each.address) == address for each in messages)

    def probed(self) -> list[str]:
        """Each address that was probed, sorted."""
        messages = [decode(frame) for frame in self.plugin.lan_sockets["eth0"].sent]
        return [
            str(each)
            for each in sorted({each.address for each in messages if isinstance(each, Probe)}, key=int)
        ]


def log_of(test: SynchronousTestCase, least: Any = LogLevel.debug) -> list[str]:
    """The lines logged from now on to the end of the test, of level *least* or above."""
    lines: list[str] = []

    def note(event: LogEvent) -> None:
        if event.get("log_level", least) >= least:
            lines.append(formatEvent(event))

    observer = cast(ILogObserver, note)
    globalLogPublisher.addObserver(observer)
    test.addCleanup(globalLogPublisher.removeObserver, observer)
    return lines
