"""When storm control narrows the filter of a packet socket, what passes then, and when it ends."""

from __future__ import annotations

from ipaddress import ip_address

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from macvlan_twisted.addresses import IPAddress
from macvlan_twisted.lan.arp_nd import answer_frame, probe_frame
from macvlan_twisted.lan.packet_filter import AddressFilter, address_key
from macvlan_twisted.lan.storm_control import LOUD, MOST_FRAMES, PERIOD, StormControl
from tests.lab.frames import arp_announcement
from tests.unit.helpers import events_of

OURS, LATER, FOREIGN = map(ip_address, ("192.168.1.7", "192.168.1.8", "192.168.1.99"))
HOST, OTHER = "7a:48:00:00:00:01", "02:00:00:00:00:02"


class StormControlTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.attached: list[AddressFilter | None] = []
        self.addresses: list[IPAddress] = [OURS]
        self.refuses = False
        self.control = StormControl("eth0", self.clock, self.attach, lambda: self.addresses)

    def attach(self, only: AddressFilter | None) -> None:
        if self.refuses:
            raise OSError(12, "Cannot allocate memory")
        self.attached.append(only)

    def flood(self, number: int = MOST_FRAMES, about: IPAddress = FOREIGN) -> None:
        """Receive frames at one moment."""
        frame = arp_announcement(OTHER, str(about))
        for _ in range(number):
            self.control.received(frame)

    def passes(self, address: IPAddress) -> bool:
        """Whether the filter that was attached last passes frames about an address."""
        last = self.attached[-1] if self.attached else None
        return last is None or last.passes(address_key(address))

    def test_ordinary_lan_keeps_the_filter(self) -> None:
        events = events_of(self)
        for _ in range(100):
            self.flood(MOST_FRAMES // 10)
            self.clock.advance(PERIOD / 5)
        self.assertEqual(self.attached, [])
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertEqual(events, [])

    def test_flood_narrows_the_filter_for_a_period(self) -> None:
        self.flood()
        self.assertTrue(self.passes(OURS))
        self.assertFalse(self.passes(FOREIGN))
        self.clock.advance(PERIOD)
        self.assertEqual(self.attached[1:], [None])
        self.flood(MOST_FRAMES - 1)
        self.assertTrue(self.passes(FOREIGN))
        self.flood(1)
        self.assertFalse(self.passes(FOREIGN))

    def test_flood_after_a_quiet_time_is_noticed(self) -> None:
        self.flood(1)
        self.clock.advance(1000)
        self.flood(2 * MOST_FRAMES)
        self.assertFalse(self.passes(FOREIGN))

    def test_answer_to_a_probe_passes_from_the_probe_on(self) -> None:
        self.flood()
        self.assertFalse(self.passes(LATER))
        self.addresses.append(LATER)
        self.control.will_send(probe_frame(LATER, HOST))
        self.assertTrue(self.passes(LATER))
        self.assertTrue(self.passes(OURS))

    def test_other_sent_frames_change_nothing(self) -> None:
        self.flood()
        number = len(self.attached)
        self.control.will_send(answer_frame(LATER, HOST, OTHER))
        self.control.will_send(probe_frame(OURS, HOST))
        self.control.will_send(b"")
        self.assertEqual(len(self.attached), number)

    def test_new_address_is_passed_after_a_period(self) -> None:
        self.flood()
        self.addresses.append(LATER)
        self.clock.advance(PERIOD)
        self.flood()
        self.assertTrue(self.passes(LATER))

    def test_loud_address_of_ours_is_muted_for_the_period(self) -> None:
        self.addresses.append(LATER)
        self.flood()
        self.flood(LOUD, LATER)
        self.flood(MOST_FRAMES - LOUD, OURS)
        self.assertFalse(self.passes(OURS))
        self.assertTrue(self.passes(LATER))
        self.clock.advance(PERIOD)
        self.flood()
        self.assertTrue(self.passes(OURS))

    def test_probe_for_a_muted_address_unmutes_it(self) -> None:
        self.flood()
        self.flood(about=OURS)
        self.assertFalse(self.passes(OURS))
        self.control.will_send(probe_frame(OURS, HOST))
        self.assertTrue(self.passes(OURS))

    def test_storm_is_logged_once_with_a_mac(self) -> None:
        events = events_of(self)
        for _ in range(5):
            self.flood()
            self.clock.advance(PERIOD)
        (event,) = events
        self.assertEqual((event["parent"], event["mac"]), ("eth0", OTHER))
        self.clock.advance(100)
        self.flood(2 * MOST_FRAMES)
        self.assertEqual(len(events), 2)

    def test_refused_filter_leaves_the_last_one(self) -> None:
        self.refuses = True
        self.flood()
        self.flood(10 * MOST_FRAMES)
        self.assertEqual(len(self.clock.getDelayedCalls()), 1)
        self.refuses = False
        self.clock.advance(PERIOD)
        self.assertEqual(self.attached, [None])
        self.flood()
        self.assertFalse(self.passes(FOREIGN))
        self.refuses = True
        self.clock.advance(PERIOD)
        self.assertFalse(self.passes(FOREIGN))
        self.refuses = False
        self.clock.advance(PERIOD)
        self.assertTrue(self.passes(FOREIGN))

    def test_stop_leaves_no_timer(self) -> None:
        self.control.stop()
        self.flood()
        self.control.stop()
        self.assertEqual(self.clock.getDelayedCalls(), [])
