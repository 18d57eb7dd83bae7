"""Probes: what is sent, when, and what counts as an answer."""

from __future__ import annotations

from ipaddress import ip_address
from itertools import pairwise
from random import Random

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock

from macvlan_twisted.addresses import IPAddress
from macvlan_twisted.lan.address_probe import (
    QUICK,
    RFC_5227,
    Evidence,
    Free,
    Inconclusive,
    InUse,
    ProbeRate,
    ProbeTiming,
    Verdict,
    bounded,
)
from macvlan_twisted.lan.arp_nd import Probe, announcement_frames, answer_frame, probe_frame
from macvlan_twisted.lan.packet_sockets import ParentSocket
from macvlan_twisted.testing.packet_socket import FakeLanSocket
from tests.lab.address_probes import probe
from tests.unit.lan_cases import BOTH, HOST, OTHER, V4, LanTestCase

seeds = st.integers(0, 2**32)


class TimingTests(LanTestCase):
    @given(seeds, st.floats(0.01, 10))
    def test_bounded_timing_leaves_time_for_the_last_answer(self, seed: int, bound: float) -> None:
        times, end = bounded(bound).plan(Random(seed))
        self.assertEqual(len(times), 3)
        self.assertEqual(times, sorted(times))
        self.assertAlmostEqual(end, bound)
        self.assertLessEqual(times[-1], 0.8 * bound + 1e-9)

    @given(seeds)
    def test_default_timing_is_that_of_rfc_5227(self, seed: int) -> None:
        times, end = RFC_5227.plan(Random(seed))
        self.assertLessEqual(times[0], 1)
        self.assertTrue(all(1 <= later - time <= 2 for time, later in pairwise(times)))
        self.assertAlmostEqual(end - times[-1], 2)

    def test_first_probe_has_a_random_delay(self) -> None:
        firsts = {QUICK.plan(Random(seed))[0][0] for seed in range(50)}
        self.assertEqual(len(firsts), 50)


class RateTests(LanTestCase):
    @given(st.lists(st.floats(0, 0.3), min_size=1, max_size=300))
    def test_no_second_has_more_than_a_burst_and_the_rate(self, pauses: list[float]) -> None:
        rate, now, begun = ProbeRate(rate=50, burst=64), 0.0, []
        for pause in pauses:
            now += pause
            begun.append(now + rate.delay(now))
        self.assertEqual(begun, sorted(begun))
        for at, first in enumerate(begun):
            within = [each for each in begun[at:] if each < first + 1]
            self.assertLessEqual(len(within), 64 + 50)

    def test_burst_begins_at_once_and_again_after_a_pause(self) -> None:
        rate = ProbeRate(rate=50, burst=64)
        for now in (0.0, 10.0):
            self.assertLess(max(rate.delay(now) for _ in range(64)), 1e-9)
            self.assertAlmostEqual(rate.delay(now), 0.02)

    def test_answered_probes_do_not_count(self) -> None:
        rate = ProbeRate(rate=50, burst=128)
        for _ in range(1000):
            self.assertEqual(rate.delay(0.0), 0.0)
            rate.answered()


class ProbingTests(LanTestCase):
    def ask(self, address: IPAddress = V4, timing: ProbeTiming = QUICK) -> Deferred[Verdict]:
        return self.begin(probe(self.wire, address, timing, self.clock, self.random))

    def assert_nothing_left(self) -> None:
        self.assertEqual((self.clock.getDelayedCalls(), self.wire.listeners), ([], 0))

    def test_address_is_free_after_three_unanswered_probes(self) -> None:
        for timing, wait in ((QUICK, 0.5), (RFC_5227, 7.0)):
            for address in BOTH:
                self.wire.sent.clear()
                asked = self.ask(address, timing)
                self.pass_time(wait + 0.02)
                self.assertEqual(self.successResultOf(asked), Free())
                self.assertEqual(self.probes(), [Probe(address, HOST)] * 3)
                self.assert_nothing_left()

    def test_answer_ends_the_probe_at_once(self) -> None:
        self.answers_as(OTHER, *BOTH)
        for address in BOTH:
            self.wire.sent.clear()
            asked = self.ask(address)
            self.pass_time(0.11)
            self.assertEqual(self.successResultOf(asked), InUse(OTHER, Evidence.ANSWERED))
            self.assertEqual(len(self.wire.sent), 1)
            self.assert_nothing_left()

    def test_answer_to_the_last_probe_counts(self) -> None:
        asked = self.ask()
        while len(self.wire.sent) < 3:
            self.clock.advance(0.001)
        self.clock.advance(0.09)
        self.wire.receive(answer_frame(V4, OTHER, HOST))
        self.assertEqual(self.successResultOf(asked), InUse(OTHER, Evidence.ANSWERED))

    def test_announcement_during_the_probe_counts(self) -> None:
        for address in BOTH:
            for frame in announcement_frames(address, OTHER):
                asked = self.ask(address)
                self.wire.receive(frame)
                self.assertEqual(self.successResultOf(asked), InUse(OTHER, Evidence.ANSWERED))
                self.assert_nothing_left()

    def test_other_addresses_are_ignored(self) -> None:
        asked = self.ask(V4)
        other = ip_address("192.168.1.8")
        for frame in (probe_frame(other, OTHER), answer_frame(other, OTHER, HOST), b"", b"\xff" * 60):
            self.wire.receive(frame)
        self.assertNoResult(asked)
        self.pass_time(0.52)
        self.assertEqual(self.successResultOf(asked), Free())

    def test_reflected_probes_of_ours_are_ignored(self) -> None:
        for address in BOTH:
            self.wire.answerers.append(lambda frame: [frame])  # a switch in hairpin mode
            asked = self.ask(address)
            self.pass_time(0.52)
            self.assertEqual(self.successResultOf(asked), Free())

    def test_address_claimed_by_the_host_is_taken(self) -> None:
        asked = self.ask()
        self.wire.send(announcement_frames(V4, HOST)[0])
        self.assertEqual(self.successResultOf(asked), InUse(HOST, Evidence.ANSWERED))

    def test_unsent_probe_is_inconclusive(self) -> None:
        for address in BOTH:
            self.wire.down = True
            asked = self.ask(address)
            self.pass_time(0.52)
            self.assertEqual(self.successResultOf(asked), Inconclusive("sending on eth0: Network is down"))
            self.assert_nothing_left()

    def test_probe_on_a_missing_parent_is_inconclusive(self) -> None:
        asked = self.begin(probe(ParentSocket("eth0"), V4, QUICK, self.clock, self.random))
        self.pass_time(0.52)
        verdict = self.successResultOf(asked)
        assert isinstance(verdict, Inconclusive)
        self.assertIn("parent eth0 is absent", verdict.reason)

    def test_own_link_made_again_is_no_other_host(self) -> None:
        asked = self.ask()
        self.pass_time(0.2)
        first = list(self.wire.sent)
        self.wire.mac = "7a:48:00:00:00:99"
        for frame in first:
            self.wire.receive(frame)
        self.pass_time(0.32)
        self.assertEqual({each.mac for each in self.probes()}, {HOST, "7a:48:00:00:00:99"})
        self.assertEqual(self.successResultOf(asked), Free())

    def test_parent_that_goes_down_makes_it_inconclusive(self) -> None:
        asked = self.ask()
        while not self.wire.sent:
            self.clock.advance(0.001)
        self.wire.down = True
        self.pass_time(0.52)
        self.assertIsInstance(self.successResultOf(asked), Inconclusive)

    def test_parent_up_for_the_last_probe_is_enough(self) -> None:
        self.wire.down = True
        asked = self.ask()
        self.pass_time(0.1)
        self.wire.down = False
        self.pass_time(0.42)
        self.assertEqual(self.successResultOf(asked), Free())

    def test_probe_over_a_suspend_waits_for_an_answer(self) -> None:
        """All of its timers come at once when the machine resumes."""
        for timing in (QUICK, RFC_5227):
            for answer, verdict in (
                (None, Free()),
                (answer_frame(V4, OTHER, HOST), InUse(OTHER, Evidence.ANSWERED)),
            ):
                self.wire.sent.clear()
                asked = self.ask(V4, timing)
                self.clock.advance(3600)
                self.assertEqual(len(self.probes()), 3)
                self.clock.advance(timing.quiet / 2)
                self.assertNoResult(asked)
                if answer is not None:
                    self.wire.receive(answer)
                self.clock.advance(timing.quiet)
                self.assertEqual(self.successResultOf(asked), verdict)
                self.assert_nothing_left()

    def test_cancelled_probe_leaves_nothing_behind(self) -> None:
        asked = self.ask()
        self.pass_time(0.2)
        asked.cancel()
        self.failureResultOf(asked, CancelledError)
        self.assert_nothing_left()


class TwoAtOnceTests(LanTestCase):
    @given(seeds, seeds, st.floats(0, 0.39), st.sampled_from(BOTH))
    def test_two_simultaneous_probes_are_not_both_free(
        self, seed: int, other_seed: int, later: float, address: IPAddress
    ) -> None:
        clock = Clock()
        one, other = FakeLanSocket(mac=HOST), FakeLanSocket(mac=OTHER)
        one.attach(other)
        first = self.begin(probe(one, address, QUICK, clock, Random(seed)))
        clock.advance(later)
        second = self.begin(probe(other, address, QUICK, clock, Random(other_seed)))
        clock.pump([1, QUICK.quiet])
        verdicts = [self.successResultOf(first), self.successResultOf(second)]
        self.assertLessEqual(verdicts.count(Free()), 1)
        self.assertEqual((clock.getDelayedCalls(), one.listeners, other.listeners), ([], 0, 0))
