"""The neighbour cache: which entries count, and for how long."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

from macvlan_twisted.addresses import IPAddress
from macvlan_twisted.lan.address_probe import Evidence, Free, InUse
from macvlan_twisted.lan.arp_nd import announcement_frames, probe_frame
from macvlan_twisted.lan.neighbour_cache import Neighbour, NeighbourCache
from tests.unit.lan_cases import BOTH, OTHER, THIRD, V4, V6, WatchTestCase


class NeighbourTests(WatchTestCase):
    def hear(self, address: IPAddress, mac: str = OTHER) -> None:
        self.wire.receive(announcement_frames(address, mac)[0])

    def test_recent_claim_makes_an_address_taken_without_a_probe(self) -> None:
        for address in BOTH:
            self.hear(address)
            self.pass_time(4)
            self.assertEqual(self.successResultOf(self.ask(address)), InUse(OTHER, Evidence.CLAIMED))
        self.assertEqual(self.wire.sent, [])

    def test_older_claim_is_verified_by_a_probe(self) -> None:
        self.hear(V4)
        self.hear(V6)
        self.answers_as(OTHER, V4)
        self.pass_time(6)
        asked, gone = self.ask(V4), self.ask(V6)
        self.pass_time(0.52)
        self.assertEqual(self.successResultOf(asked), InUse(OTHER, Evidence.ANSWERED))
        self.assertEqual(self.successResultOf(gone), Free())
        self.assertIsNone(self.watch.known(V6))

    def test_old_entry_is_no_evidence(self) -> None:
        self.hear(V4)
        self.clock.advance(299)
        self.assertEqual(self.watch.known(V4), Neighbour(OTHER, 0.0))
        self.clock.advance(2)
        self.assertIsNone(self.watch.known(V4))

    def test_entry_from_the_future_is_no_evidence(self) -> None:
        self.clock.advance(7200)
        self.hear(V4)
        self.clock.rightNow -= 3600
        self.assertIsNone(self.watch.known(V4))

    def test_newest_claim_counts(self) -> None:
        self.hear(V4, OTHER)
        self.hear(V4, THIRD)
        self.assertEqual(self.watch.known(V4), Neighbour(THIRD, 0.0))

    def test_foreign_probes_are_no_evidence(self) -> None:
        self.wire.receive(probe_frame(V4, OTHER))
        self.assertIsNone(self.watch.known(V4))

    def test_only_prefixes_of_interest_are_remembered(self) -> None:
        elsewhere = ip_address("10.0.0.1")
        self.hear(elsewhere)
        self.assertIsNone(self.watch.known(elsewhere))
        stops = [self.watch.interested_in(ip_network("10.0.0.0/8")) for _ in range(2)]
        for stop in stops:
            self.hear(elsewhere)
            self.assertIsNotNone(self.watch.known(elsewhere))
            stop()
            stop()
            self.clock.advance(301)
        self.hear(elsewhere)
        self.assertIsNone(self.watch.known(elsewhere))

    def test_cache_is_bounded(self) -> None:
        neighbours = NeighbourCache(most=100)
        first = int(ip_address("fd00::"))
        for number in range(1000):
            neighbours.note(ip_address(first + number), OTHER, float(number))
            neighbours.note(V4, THIRD, float(number))
        self.assertEqual(len(neighbours), 100)
        self.assertIsNotNone(neighbours.known(V4, 1000))
        self.assertIsNotNone(neighbours.known(ip_address(first + 999), 1000))
        self.assertIsNone(neighbours.known(ip_address(first + 900), 1000))
