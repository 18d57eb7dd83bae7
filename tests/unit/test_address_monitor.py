"""The address monitor: addresses are held, defended, assigned, and lost."""

from __future__ import annotations

from twisted.internet.defer import CancelledError, Deferred

from macvlan_twisted.lan.address_monitor import LAST_LOOK, LISTENED, AddressMonitor
from macvlan_twisted.lan.address_probe import RFC_5227, Evidence, Free, Inconclusive, InUse, Verdict
from macvlan_twisted.lan.arp_nd import AddressClaim, announcement_frames, decode, probe_frame
from tests.unit.helpers import events_of
from tests.unit.lan_cases import BOTH, CONTAINER, HOST, OTHER, THIRD, V4, V6, WatchTestCase


class HoldingTests(WatchTestCase):
    def test_free_address_is_held_and_defended(self) -> None:
        for address in BOTH:
            self.assert_not_defended(address)
            self.hold(address)
            self.assertTrue(self.watch.is_held(address))
            self.assert_defended(address)

    def test_address_that_answers_is_not_held(self) -> None:
        self.answers_as(OTHER, *BOTH)
        for address in BOTH:
            asked = self.ask(address)
            self.pass_time(0.11)
            self.assertEqual(self.successResultOf(asked), InUse(OTHER, Evidence.ANSWERED))
            self.assertFalse(self.watch.is_held(address))
            self.assert_not_defended(address)

    def test_address_probed_by_another_host_is_not_held(self) -> None:
        for address in BOTH:
            asked = self.ask(address)
            self.wire.receive(probe_frame(address, OTHER))
            self.assertEqual(self.successResultOf(asked), InUse(OTHER, Evidence.PROBED))
            self.assert_not_defended(address)

    def test_inconclusive_probe_holds_nothing(self) -> None:
        self.wire.down = True
        asked = self.ask()
        self.pass_time(0.52)
        self.assertIsInstance(self.successResultOf(asked), Inconclusive)
        self.assertFalse(self.watch.is_held(V4))

    def test_concurrent_calls_share_a_probe(self) -> None:
        asked = [self.ask()]
        self.pass_time(0.2)
        asked += [self.ask(), self.ask()]
        self.pass_time(0.32)
        self.assertEqual([self.successResultOf(each) for each in asked], [Free()] * 3)
        self.assertEqual(len(self.probes()), 3)

    def test_every_frame_about_our_addresses_matters(self) -> None:
        """While the LAN is flooded, frames about other addresses may be dropped."""
        asked = self.ask(V4)
        self.assertEqual(self.watch.watched(), {V4}, "probed for")
        self.pass_time(0.52)
        self.assertEqual(self.successResultOf(asked), Free())
        self.assertEqual(self.watch.watched(), {V4}, "held")
        self.watch.assign(V4, CONTAINER)
        self.watch.assign(V6, CONTAINER)
        self.assertEqual(self.watch.watched(), {V4, V6}, "assigned")
        self.watch.release(V6)
        self.watch.release(V4, link_removed=True)
        self.assertEqual(self.watch.watched(), {V4}, "free without a probe while no host mentions it")
        self.clock.advance(LISTENED + 1)
        self.assertEqual(self.watch.watched(), set())

    def soon(self, asked: Deferred[Verdict]) -> Verdict:
        self.clock.advance(LAST_LOOK)
        return self.successResultOf(asked)

    def test_held_address_is_verified_in_a_moment(self) -> None:
        self.hold()
        self.assertEqual(self.soon(self.ask()), Free())
        self.assertEqual(self.wire.sent, [probe_frame(V4, HOST)])

    def test_silent_taker_of_a_held_address_is_noticed(self) -> None:
        """Linux does not announce a new IPv4 address."""
        for address in BOTH:
            self.hold(address)
            self.answers_as(THIRD, address)
            self.assertEqual(self.soon(self.ask(address)), InUse(THIRD, Evidence.ANSWERED))
            self.assertFalse(self.watch.is_held(address))

    def test_held_address_on_a_downed_parent_is_inconclusive(self) -> None:
        self.hold()
        self.wire.down = True
        self.assertIsInstance(self.soon(self.ask()), Inconclusive)

    def test_held_address_is_defended_with_the_latest_mac(self) -> None:
        self.hold()
        self.assertEqual(self.soon(self.ask(V4, OTHER)), Free())
        self.assert_defended(V4, OTHER)

    def test_address_can_be_held_with_our_own_mac_first(self) -> None:
        for address in BOTH:
            asked = self.ask(address, HOST)
            self.pass_time(0.52)
            self.assertEqual(self.successResultOf(asked), Free())
            self.wire.sent.clear()
            self.wire.receive(probe_frame(address, HOST))
            self.assertEqual(self.wire.sent, [])
            self.assert_defended(address, HOST)
            self.watch.assign(address, CONTAINER)
            self.assert_defended(address, CONTAINER)

    def test_cancelled_call_does_not_disturb_the_others(self) -> None:
        first, second = self.ask(), self.ask()
        second.cancel()
        self.failureResultOf(second, CancelledError)
        self.pass_time(0.52)
        self.assertEqual(self.successResultOf(first), Free())
        self.assert_defended(V4)

    def test_nothing_is_held_if_all_calls_are_cancelled(self) -> None:
        asked = self.ask()
        asked.cancel()
        self.failureResultOf(asked, CancelledError)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertEqual(self.successResultOf(self.hold_again()), Free())

    def hold_again(self) -> Deferred[Verdict]:
        asked = self.ask()
        self.pass_time(0.52)
        return asked

    def test_released_address_is_not_defended(self) -> None:
        self.hold(*BOTH)
        for address in BOTH:
            self.watch.release(address)
            self.assertFalse(self.watch.is_held(address))
            self.assert_not_defended(address)
            self.watch.release(address)

    def test_address_released_during_the_probe_is_not_held(self) -> None:
        asked = self.ask()
        self.watch.release(V4)
        self.assertEqual(
            self.successResultOf(asked), Inconclusive("192.168.1.7 was released during the probe")
        )
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assert_not_defended(V4)

    def test_many_probes_do_not_begin_at_once(self) -> None:
        asked = [self.begin(self.watch.hold(V4 + number, CONTAINER, of_many=True)) for number in range(250)]
        wanted = self.ask(V6)
        self.pass_time(0.3)
        self.assertLess(len({decode(frame) for frame in self.wire.sent}), 128 + 0.3 * 50 + 1)
        self.pass_time(0.3)
        self.assertEqual(self.successResultOf(wanted), Free())  # it does not wait behind the others
        self.pass_time(3)
        self.assertEqual([self.successResultOf(each) for each in asked], [Free()] * 250)

    def test_probe_has_the_configured_timing(self) -> None:
        watch = AddressMonitor(self.wire, self.clock, self.random, self.reports, RFC_5227)
        watch.start()
        asked = self.begin(watch.hold(V4, CONTAINER))
        self.pass_time(3.9)
        self.assertNoResult(asked)
        self.pass_time(3.2)
        self.assertEqual(self.successResultOf(asked), Free())


class DefenceTests(WatchTestCase):
    def test_own_probe_is_not_answered(self) -> None:
        self.hold(*BOTH)
        for address in BOTH:
            self.wire.receive(probe_frame(address, HOST))
        self.assertEqual(self.wire.sent, [])

    def test_probe_of_the_container_itself_is_not_answered(self) -> None:
        """Else duplicate address detection in the container would fail."""
        self.hold(*BOTH)
        for address in BOTH:
            self.wire.send(probe_frame(address, CONTAINER))
            self.watch.assign(address, CONTAINER)
            self.wire.send(probe_frame(address, CONTAINER))
            self.wire.receive(probe_frame(address, CONTAINER))
        self.assertEqual(self.claims(), [])

    def test_foreign_probe_with_the_future_mac_is_answered(self) -> None:
        self.hold()
        self.wire.receive(probe_frame(V4, CONTAINER))
        self.assertEqual(self.claims(), [AddressClaim(V4, CONTAINER)])

    def test_answers_to_one_address_are_limited(self) -> None:
        self.hold(*BOTH)
        for _ in range(1000):
            self.wire.receive(probe_frame(V4, OTHER))
        self.assertLessEqual(len(self.wire.sent), 20)
        self.assert_defended(V6)
        self.pass_time(1)
        self.assert_defended(V4)

    def test_clock_set_back_does_not_end_the_defence(self) -> None:
        self.hold()
        self.assert_defended(V4)
        self.clock.rightNow -= 3600
        for _ in range(5):
            self.assert_defended(V4)

    def test_unsent_answers_are_logged_once(self) -> None:
        events = events_of(self)
        self.hold()
        for expected in (1, 2):
            self.wire.down = True
            for _ in range(4):
                self.wire.receive(probe_frame(V4, OTHER))
            self.wire.down = False
            self.assertEqual(len([event for event in events if event.get("mac") == OTHER]), expected)
            self.assert_defended(V4)


class LosingTests(WatchTestCase):
    def test_claimed_held_address_is_lost(self) -> None:
        for address in BOTH:
            self.hold(address)
            self.wire.receive(announcement_frames(address, OTHER)[0])
            self.assertEqual(self.reports.losses.pop(), (address, OTHER))
            self.assertFalse(self.watch.is_held(address))
            self.assert_not_defended(address)
            self.assertEqual(self.successResultOf(self.ask(address)), InUse(OTHER, Evidence.CLAIMED))

    def test_held_address_is_lost_to_another_drivers_container(self) -> None:
        self.hold()
        self.wire.send(announcement_frames(V4, OTHER)[0])
        self.assertEqual(self.reports.losses, [(V4, OTHER)])

    def test_held_address_is_lost_to_a_host_with_the_same_mac(self) -> None:
        for address in BOTH:
            self.hold(address)
            self.wire.receive(announcement_frames(address, CONTAINER)[0])
            self.assertEqual(self.reports.losses.pop(), (address, CONTAINER))

    def test_own_frames_do_not_claim_a_held_address(self) -> None:
        self.hold(*BOTH)
        for address in BOTH:
            self.assert_defended(address)
            for frame in list(self.wire.sent):
                self.wire.receive(frame)  # as an answer to a sibling on the parent comes in
            for frame in announcement_frames(address, CONTAINER):
                self.wire.send(frame)
            self.assertTrue(self.watch.is_held(address))
        self.assertEqual(self.reports.losses, [])


class KeepingTests(WatchTestCase):
    def test_assigned_address_is_defended_with_its_mac(self) -> None:
        for address in BOTH:
            self.hold(address)
            self.watch.assign(address, OTHER)
            self.assertFalse(self.watch.is_held(address))
            self.assert_defended(address, OTHER)

    def test_address_can_be_assigned_without_a_probe(self) -> None:
        self.watch.assign(V4, CONTAINER)
        self.assert_defended(V4)

    def test_each_foreign_claimant_is_reported_once(self) -> None:
        for address in BOTH:
            self.watch.assign(address, CONTAINER)
            for mac in (OTHER, THIRD, OTHER, THIRD, CONTAINER):
                self.wire.receive(announcement_frames(address, mac)[0])
                self.wire.send(announcement_frames(address, mac)[0])
                self.watch.assign(address, CONTAINER)
            self.assertEqual(
                self.reports.contests, [(address, CONTAINER, OTHER), (address, CONTAINER, THIRD)]
            )
            self.reports.contests.clear()
            self.assert_defended(address)
        self.assertEqual(self.reports.losses, [])

    def test_reports_of_invented_macs_are_limited(self) -> None:
        self.watch.assign(V4, CONTAINER)
        for number in range(1000):
            self.wire.receive(announcement_frames(V4, f"02:00:00:00:{number >> 8:02x}:{number & 255:02x}")[0])
        self.assertEqual(len(self.reports.contests), 16)

    def test_assigned_address_is_not_held_for_another_mac(self) -> None:
        self.watch.assign(V4, CONTAINER)
        self.assertEqual(self.successResultOf(self.ask(V4, OTHER)), InUse(CONTAINER, Evidence.OURS))
        again = self.ask(V4, CONTAINER)
        self.clock.advance(LAST_LOOK)
        self.assertEqual(self.successResultOf(again), Free())
        self.assertFalse(self.watch.is_held(V4))

    def test_waiting_call_for_an_assigned_address_ends(self) -> None:
        same, another = self.ask(V4, CONTAINER), self.ask(V4, OTHER)
        self.watch.assign(V4, CONTAINER)
        self.assertEqual(self.successResultOf(same), Free())
        self.assertEqual(self.successResultOf(another), InUse(CONTAINER, Evidence.OURS))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_late_frames_of_a_released_address_are_ignored(self) -> None:
        self.watch.assign(V4, CONTAINER)
        self.wire.send(announcement_frames(V4, CONTAINER)[0])
        self.watch.release(V4)
        self.assertIsNone(self.watch.known(V4))
        self.wire.send(announcement_frames(V4, CONTAINER)[0])  # its last words, late
        self.assertIsNone(self.watch.known(V4))
        self.hold()

    def test_claim_from_the_former_mac_counts_after_a_while(self) -> None:
        self.watch.assign(V4, CONTAINER)
        self.watch.release(V4)
        self.pass_time(6)
        self.wire.receive(announcement_frames(V4, CONTAINER)[0])
        self.assertEqual(self.successResultOf(self.ask()), InUse(CONTAINER, Evidence.CLAIMED))

    def test_answer_from_the_former_mac_takes_the_address(self) -> None:
        self.watch.assign(V4, CONTAINER)
        self.watch.release(V4)
        self.answers_as(CONTAINER, V4)
        asked = self.ask()
        self.pass_time(0.11)
        self.assertEqual(self.successResultOf(asked), InUse(CONTAINER, Evidence.ANSWERED))
