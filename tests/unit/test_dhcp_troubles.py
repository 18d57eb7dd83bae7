"""Servers that offer addresses in use, withdraw offers, or are busy with other clients."""

from __future__ import annotations

from twisted.internet.defer import Deferred

from .dhcp_lan import (
    DECLINE,
    DISCOVER,
    MAC,
    NAK,
    OFFER,
    RELEASE,
    REQUEST,
    STRANGER,
    ClientFrame,
    LeaseFixture,
    Server,
    answer_frame,
)
from .test_dhcp_acquiring import AcquiringTestCase


class TroubleTests(AcquiringTestCase):
    def test_address_in_use_is_declined_and_another_one_leased(self) -> None:
        server = Server()
        stand = LeaseFixture(server)
        stand.holder.users["192.168.77.100"] = STRANGER

        def give_another_one(frame: bytes) -> list[bytes]:
            if ClientFrame(frame).kind == DECLINE:
                server.address = "192.168.77.101"
            return []

        stand.wire.answerers.append(give_another_one)
        facts = self.successResultOf(self.acquire(stand))
        self.assertEqual(str(facts.address), "192.168.77.101")
        decline = stand.sent_frames[2]
        self.assertEqual(
            (decline.kind, decline.requested, decline.server_id, decline.ciaddr),
            (DECLINE, "192.168.77.100", "192.168.77.1", "0.0.0.0"),
        )

    def test_server_with_used_addresses_only_is_refused_with_the_mac(self) -> None:
        stand = LeaseFixture(Server())
        stand.holder.users["192.168.77.100"] = STRANGER
        self.assert_words(self.refusal(self.acquire(stand)), STRANGER, "192.168.77.100", "192.168.77.1")
        self.assertEqual(stand.kinds.count(DECLINE), 4)
        self.assertTrue(stand.is_silent())

    def test_mac_of_the_container_is_no_conflict(self) -> None:
        stand = LeaseFixture(Server())
        stand.holder.users["192.168.77.100"] = MAC
        self.successResultOf(self.acquire(stand))

    def test_repeated_naks_are_refused_with_their_reason(self) -> None:
        stand = LeaseFixture(Server(naks=99))
        self.assert_words(self.refusal(self.acquire(stand)), "192.168.77.1", "refused it: 'not yours?'")
        self.assertEqual(stand.kinds, [DISCOVER, REQUEST] * 4)
        self.assertTrue(stand.is_silent())

    def test_single_nak_is_followed_by_a_new_attempt(self) -> None:
        stand = LeaseFixture(Server(naks=1))
        self.successResultOf(self.acquire(stand))
        self.assertEqual(stand.kinds, [DISCOVER, REQUEST, DISCOVER, REQUEST])

    def test_unconfirmed_offer_is_released_and_others_are_asked(self) -> None:
        silent, other = Server(), Server("192.168.77.200", "192.168.77.2", "52:54:00:00:00:02")
        stand = LeaseFixture()

        def only_offers(frame: bytes) -> list[bytes]:
            return silent(frame) if ClientFrame(frame).kind == DISCOVER and not stand.clock.seconds() else []

        stand.wire.answerers.extend((only_offers, other))
        outcome = self.acquire(stand)
        stand.pass_time(7)
        self.assertEqual(str(self.successResultOf(outcome).address), "192.168.77.200")
        released = next(said for said in stand.sent_frames if said.kind == RELEASE)
        self.assertEqual((released.ciaddr, released.destination), ("192.168.77.100", "192.168.77.1"))

    def test_error_says_that_the_offer_was_not_confirmed(self) -> None:
        stand = LeaseFixture()
        stand.wire.answerers.append(
            lambda frame: Server()(frame) if ClientFrame(frame).kind == DISCOVER else []
        )
        outcome = self.acquire(stand)
        stand.pass_time(12)
        refusal = self.refusal(outcome)
        self.assert_words(refusal, "192.168.77.100", "did not confirm it")
        self.assertNotIn("none answers", refusal)
        self.assertEqual(stand.kinds.count(RELEASE), stand.kinds.count(DISCOVER))
        self.assertTrue(stand.is_silent())

    def test_stop_during_acquisition_is_silent_and_ends_all(self) -> None:
        for away in (True, False):
            stand = LeaseFixture(Server(away=away))
            disk: Deferred[None] = Deferred()
            stand.holder.disk = lambda what, disk=disk: disk if what == "save_binding" else None  # type: ignore[misc]
            outcome = self.acquire(stand)
            stand.lease.stop()
            self.assertIn("the plugin is stopping", self.refusal(outcome))
            self.assertNotIn(RELEASE, stand.kinds)
            self.assertTrue(stand.is_silent())

    def test_release_covers_a_lease_that_is_being_requested(self) -> None:
        stand = LeaseFixture()
        stand.wire.answerers.append(
            lambda frame: Server()(frame) if ClientFrame(frame).kind == DISCOVER else []
        )
        outcome = self.acquire(stand)
        stand.lease.release()
        self.refusal(outcome)
        self.assertEqual(stand.kinds, [DISCOVER, REQUEST, RELEASE])
        self.assertEqual(stand.sent_frames[-1].ciaddr, "192.168.77.100")
        self.assertTrue(stand.is_silent())


class BusyServerTests(AcquiringTestCase):
    """A server with many clients, such as a dnsmasq that probes for three seconds before each offer."""

    def serve_others(self, stand: LeaseFixture, seconds: float) -> None:
        for _ in range(int(seconds / 3)):
            stand.pass_time(3)
            stand.wire.receive(answer_frame(b"othr", OFFER, mac=STRANGER, your_address="192.168.77.9"))

    def test_busy_server_gets_more_time(self) -> None:
        server = Server(away=True)
        stand = LeaseFixture(server)
        outcome = self.acquire(stand)
        self.serve_others(stand, 12)
        self.assertNoResult(outcome)
        stand.wire.receive(server.answer(stand.sent_frames[0], OFFER, "192.168.77.100"))
        self.serve_others(stand, 9)  # it has others to serve before it comes to our request
        self.assertNoResult(outcome)
        self.assertEqual(stand.kinds[-1], REQUEST)
        server.away = False
        stand.pass_time(8)
        self.successResultOf(outcome)
        self.assertNotIn(RELEASE, stand.kinds)

    def test_late_nak_is_followed_by_a_new_attempt(self) -> None:
        server = Server(away=True)
        stand = LeaseFixture(server)
        outcome = self.acquire(stand)
        self.serve_others(stand, 12)
        stand.wire.receive(server.answer(stand.sent_frames[0], OFFER, "192.168.77.100"))
        server.away = False
        stand.wire.receive(server.answer(stand.sent_frames[-1], NAK))
        self.successResultOf(outcome)

    def test_wait_for_a_busy_server_is_bounded(self) -> None:
        stand = LeaseFixture()
        outcome = self.acquire(stand)
        self.serve_others(stand, 27)
        self.assertNoResult(outcome)
        self.serve_others(stand, 6)
        self.assert_words(self.refusal(outcome), "30 s")
        self.assertTrue(stand.is_silent())

    def test_server_that_falls_silent_is_given_up(self) -> None:
        stand = LeaseFixture()
        outcome = self.acquire(stand)
        self.serve_others(stand, 9)
        stand.pass_time(9)
        self.assertNoResult(outcome)
        stand.pass_time(2)
        self.refusal(outcome)
