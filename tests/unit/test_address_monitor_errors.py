"""The address monitor with hostile frames, with several hosts that want one address, and at its end."""

from __future__ import annotations

from random import Random
from typing import Any, cast

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock

from macvlan_twisted.lan.address_monitor import AddressMonitor
from macvlan_twisted.lan.address_probe import QUICK, Free, Inconclusive, Verdict
from macvlan_twisted.lan.arp_nd import AddressClaim, announcement_frames, answer_frame, decode, probe_frame
from macvlan_twisted.testing.packet_socket import FakeLanSocket
from tests.unit.lan_cases import (
    BOTH,
    CONTAINER,
    HOST,
    LAN,
    OTHER,
    V4,
    V6,
    LanTestCase,
    RecordedReports,
    WatchTestCase,
    connect,
)


class EndTests(WatchTestCase):
    def test_close_leaves_nothing_behind(self) -> None:
        self.hold(V6)
        asked = self.ask(V4)
        self.watch.close()
        self.assertEqual(
            self.successResultOf(asked), Inconclusive("parent eth0 was released during the probe")
        )
        self.assertEqual((self.clock.getDelayedCalls(), self.wire.listeners), ([], 0))
        self.assertFalse(self.watch.is_held(V6))

    def test_closed_monitor_holds_nothing(self) -> None:
        self.watch.close()
        self.watch.close()
        self.assertIsInstance(self.successResultOf(self.ask()), Inconclusive)
        self.watch.assign(V4, CONTAINER)
        self.watch.release(V4)
        self.watch.interested_in(LAN)()
        self.assertIsNone(self.watch.known(V4))
        self.assert_not_defended(V4)
        self.assertEqual((self.clock.getDelayedCalls(), self.wire.listeners), ([], 0))

    @given(st.binary(max_size=120), st.integers(0, 80))
    def test_hostile_frames_are_harmless(self, noise: bytes, at: int) -> None:
        clock, wire, told = Clock(), FakeLanSocket(mac=HOST), RecordedReports()
        watch = AddressMonitor(wire, clock, Random(1), told)
        watch.start()
        asked = [self.begin(watch.hold(address, CONTAINER)) for address in BOTH]
        clock.pump([1, QUICK.quiet])
        for frame in (answer_frame(V4, OTHER, HOST), probe_frame(V4, OTHER), *announcement_frames(V6, OTHER)):
            damaged = frame[:at] + noise + frame[at + len(noise) :]
            wire.receive(damaged)
            said = decode(damaged)
            if isinstance(said, AddressClaim) and said.address in BOTH:
                self.assertFalse(watch.is_held(said.address))
        for each, address in zip(asked, BOTH, strict=True):
            self.assertEqual(self.successResultOf(each), Free())
            self.assertEqual(watch.is_held(address), (address not in dict(told.losses)))


class SeveralHostsTests(LanTestCase):
    @given(st.data())
    def test_two_hosts_never_hold_the_same_address(self, data: st.DataObject) -> None:
        """At any start times, with any probe times, and up to 0.1 s of delay between the hosts."""
        clock = Clock()
        number = data.draw(st.integers(2, 4), "hosts")
        address = data.draw(st.sampled_from(BOTH))
        moments = st.floats(0, 1.2)
        delays = st.sampled_from((0.0, 0.0003, 0.02, 0.1))
        wires = [FakeLanSocket(mac=f"7a:48:00:00:00:{host:02x}") for host in range(number)]
        pairs = [(one, other) for one in range(number) for other in range(number) if one != other]
        connect(clock, wires, {pair: data.draw(delays, f"delay {pair}") for pair in pairs})
        seeds = data.draw(st.lists(st.integers(0, 2**32), min_size=number, max_size=number), "seeds")
        watches = [
            AddressMonitor(wire, clock, Random(seed), RecordedReports())
            for wire, seed in zip(wires, seeds, strict=True)
        ]
        for watch in watches:
            watch.start()
        verdicts: list[Verdict] = []

        def begin(watch: AddressMonitor, mac: str) -> None:
            self.begin(watch.hold(address, mac)).addCallback(verdicts.append)

        # Either each under its own MAC, or all under the one that is derived from the address.
        derived = data.draw(st.booleans(), "derived MAC")
        for watch, wire in zip(watches, wires, strict=True):
            clock.callLater(data.draw(moments, "begins"), begin, watch, CONTAINER if derived else wire.mac)
        while calls := cast(list[Any], clock.getDelayedCalls()):
            clock.advance(max(0.0, min(call.getTime() for call in calls) - clock.seconds()))
            self.assertLessEqual([watch.is_held(address) for watch in watches].count(True), 1)
        self.assertEqual(len(verdicts), number)
        self.assertLessEqual(verdicts.count(Free()), 1)
        for watch in watches:
            watch.close()
        self.assertEqual([wire.listeners for wire in wires], [0] * number)
