"""What neighbours say of themselves: for how long it is believed, and how much of it is remembered."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

from macvlan_twisted.addresses import IPAddress
from macvlan_twisted.lan.address_probe import Evidence, Free, Taken
from macvlan_twisted.lan.arp_nd import announcement_frames, probe_frame
from macvlan_twisted.lan.neighbour_cache import Neighbour, NeighbourCache
from tests.unit.lan_cases import BOTH, OTHER, THIRD, V4, V6, WatchTestCase


class NeighbourTests(WatchTestCase):
    def hear(self, address: IPAddress, mac: str = OTHER) -> None:
        self.wire.bring(announcement_frames(address, mac)[0])

    def test_an_address_with_which_a_neighbour_was_just_heard_is_taken_without_asking(self) -> None:
        for address in BOTH:
            self.hear(address)
            self.pass_time(4)
            self.assertEqual(self.successResultOf(self.ask(address)), Taken(OTHER, Evidence.HEARD))
        self.assertEqual(self.wire.sent, [])

    def test_a_neighbour_that_was_heard_a_while_ago_is_asked(self) -> None:
        self.hear(V4)
        self.hear(V6)
        self.answers_as(OTHER, V4)
        self.pass_time(6)
        asked, gone = self.ask(V4), self.ask(V6)
        self.pass_time(0.52)
        self.assertEqual(self.successResultOf(asked), Taken(OTHER, Evidence.ANSWERED))
        self.assertEqual(self.successResultOf(gone), Free())
        self.assertIsNone(self.watch.known(V6))

    def test_what_is_old_is_no_evidence(self) -> None:
        self.hear(V4)
        self.clock.advance(299)
        self.assertEqual(self.watch.known(V4), Neighbour(OTHER, 0.0))
        self.clock.advance(2)
        self.assertIsNone(self.watch.known(V4))

    def test_what_was_heard_before_the_clock_was_set_back_is_no_evidence(self) -> None:
        self.clock.advance(7200)
        self.hear(V4)
        self.clock.rightNow -= 3600
        self.assertIsNone(self.watch.known(V4))

    def test_what_was_heard_last_counts(self) -> None:
        self.hear(V4, OTHER)
        self.hear(V4, THIRD)
        self.assertEqual(self.watch.known(V4), Neighbour(THIRD, 0.0))

    def test_probes_of_others_are_no_evidence(self) -> None:
        self.wire.bring(probe_frame(V4, OTHER))
        self.assertIsNone(self.watch.known(V4))

    def test_only_what_someone_is_interested_in_is_remembered(self) -> None:
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

    def test_a_neighbour_that_makes_up_addresses_does_not_fill_the_memory(self) -> None:
        neighbours = NeighbourCache(most=100)
        first = int(ip_address("fd00::"))
        for number in range(1000):
            neighbours.note(ip_address(first + number), OTHER, float(number))
            neighbours.note(V4, THIRD, float(number))
        self.assertEqual(len(neighbours), 100)
        self.assertIsNotNone(neighbours.known(V4, 1000))
        self.assertIsNotNone(neighbours.known(ip_address(first + 999), 1000))
        self.assertIsNone(neighbours.known(ip_address(first + 900), 1000))
