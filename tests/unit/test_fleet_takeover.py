"""The addresses of a host that is down, with ``--fleet-takeover silent``."""

from __future__ import annotations

from macvlan_twisted.addresses import parse_address
from macvlan_twisted.errors import RequestRefused
from macvlan_twisted.fleet.takeover import SILENT_FOR
from macvlan_twisted.lan.arp_nd import Probe, answer_frame, decode

from .test_fleet import FleetHost, FleetTestCase

ADDRESS = "192.168.1.40"


def answer(frame: bytes) -> list[bytes]:
    """A neighbour that has the address."""
    said = decode(frame)
    if isinstance(said, Probe) and said.address == parse_address(ADDRESS):
        return [answer_frame(said.address, "02:00:00:00:00:02", said.mac)]
    return []


class TakeoverTests(FleetTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.a.ask(self.a.open(), ADDRESS, "web")
        self.heir = FleetHost(self.store, "heir", takes_over=True)
        self.addCleanup(self.heir.stop)
        self.pool = self.heir.open(conflict_detection="on")

    def pass_time(self, seconds: float) -> None:
        self.heir.plugin.clock.pump([0.5] * int(2 * seconds))

    def ask(self) -> str:
        return self.heir.ask(self.pool, ADDRESS)

    def assert_refused(self) -> None:
        with self.assertRaises(RequestRefused):
            self.ask()
        self.pass_time(60)

    def test_address_of_a_long_silent_host_is_taken_over(self) -> None:
        self.a.kill()
        self.pass_time(SILENT_FOR)
        self.assert_refused()
        self.assertEqual(self.ask(), ADDRESS)
        self.assertEqual(self.claim(ADDRESS).owner.name, "heir")

    def test_address_of_a_recently_silent_host_is_refused(self) -> None:
        self.a.kill()
        self.pass_time(SILENT_FOR - 120)
        self.assert_refused()
        self.assertEqual(self.claim(ADDRESS).owner.name, "a")

    def test_address_that_answers_is_refused(self) -> None:
        self.heir.plugin.answerers.append(answer)
        self.a.kill()
        self.pass_time(SILENT_FOR)
        self.assert_refused()
        self.assertEqual(self.claim(ADDRESS).owner.name, "a")

    def test_nothing_is_taken_over_without_conflict_detection(self) -> None:
        self.heir.plugin.wait(self.heir.plugin.pools.release_pool(self.pool))
        self.pool = self.heir.open(conflict_detection="off")
        self.a.kill()
        self.pass_time(SILENT_FOR)
        self.assert_refused()
        self.assertEqual(self.claim(ADDRESS).owner.name, "a")

    def test_address_of_a_host_that_came_back_is_refused(self) -> None:
        self.a.kill()
        self.pass_time(SILENT_FOR)
        self.host("a", self.a.plugin)
        self.assert_refused()
        self.assertEqual(self.claim(ADDRESS).owner.name, "a")

    def test_default_takes_nothing_over(self) -> None:
        pool = self.b.open()
        self.a.kill()
        self.b.plugin.clock.pump([0.5] * int(2 * SILENT_FOR))
        for _ in range(2):
            with self.assertRaises(RequestRefused):
                self.b.ask(pool, ADDRESS)
            self.b.plugin.clock.pump([0.5] * 120)
        self.assertEqual(self.claim(ADDRESS).owner.name, "a")
