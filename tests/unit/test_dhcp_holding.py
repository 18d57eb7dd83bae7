"""A bound lease: renewal, rebinding, resumption after a restart, release."""

from __future__ import annotations

from attrs import evolve
from twisted.internet.defer import ensureDeferred
from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from macvlan_twisted.dhcp.binding import Binding, Client, State
from macvlan_twisted.dhcp.messages import INFINITE
from macvlan_twisted.errors import StateError

from .dhcp_lan import ACK, DISCOVER, EPOCH, MAC, NAK, RELEASE, REQUEST, ClientFrame, LeaseFixture, Server


def short(*, away: bool = False) -> Server:
    """A server with leases of 400 seconds."""
    return Server(lease_seconds=400, t1=200, t2=300, away=away)


IMPOSSIBLE_AGES = (-3600, -864000, 500, 3600, 864000)
"""Seconds, of leases of 400 seconds."""


class HoldingTestCase(SynchronousTestCase):
    def bound(self, server: Server | None = None) -> LeaseFixture:
        """A lease of :attr:`server`."""
        self.server = server or short()
        stand = LeaseFixture(self.server)
        outcome = ensureDeferred(stand.lease.acquire())
        self.successResultOf(outcome)
        stand.wire.sent.clear()
        stand.holder.notes.clear()
        return stand

    def resumed(self, *servers: Server, age: float = 0.0, lease_seconds: int = 400) -> LeaseFixture:
        """A lease that was saved *age* seconds ago, resumed after a restart."""
        facts: Binding = self.successResultOf(ensureDeferred(LeaseFixture(short()).lease.acquire()))
        stand = LeaseFixture(*servers)
        stand.lease.resume(evolve(facts, obtained_at=EPOCH - age, lease_seconds=lease_seconds))
        return stand


class RenewalTests(HoldingTestCase):
    def test_renewal_is_unicast_from_the_leased_address_at_t1(self) -> None:
        stand = self.bound()
        stand.pass_time(189)
        self.assertEqual(stand.kinds, [])
        self.assertTrue(stand.wire.listeners == 0)
        stand.pass_time(11)
        (said,) = stand.sent_frames
        self.assertEqual((said.kind, said.ciaddr, said.requested), (REQUEST, "192.168.77.100", None))
        self.assertEqual((said.destination_mac, said.source_mac), ("52:54:00:00:00:01", MAC))
        self.assertEqual((said.source, said.destination), ("192.168.77.100", "192.168.77.1"))
        self.assertEqual((said.server_id, said.broadcast), (None, False))

    def test_new_times_are_saved_and_count_from_the_request(self) -> None:
        stand = self.bound()
        stand.pass_time(200)
        facts = stand.holder.saved[-1]
        self.assertTrue(EPOCH + 190 <= facts.obtained_at <= EPOCH + 200, facts)
        self.assertEqual(stand.lease.binding, facts)
        stand.pass_time(1000)
        self.assertIn(len(stand.sent_frames), (6, 7))
        self.assertIs(stand.lease.state, State.BOUND)

    def test_renewals_of_simultaneous_leases_are_spread(self) -> None:
        stand = LeaseFixture(short())
        for seed in range(3):
            self.successResultOf(ensureDeferred(stand.new_lease(seed=seed).acquire()))
        moments = {call.time for call in stand.clock.getDelayedCalls()}
        self.assertEqual(len(moments), 3)

    def test_new_hostname_is_sent_with_the_next_renewal_and_saved(self) -> None:
        stand = self.bound()
        stand.lease.hostname = "db"
        stand.pass_time(200)
        self.assertEqual(stand.sent_frames[-1].options[12], b"db")
        self.assertEqual(stand.holder.saved[-1].hostname, "db")

    def test_renewal_is_repeated_at_growing_intervals(self) -> None:
        server = Server(lease_seconds=86400)
        stand = self.bound(server)
        server.away = True
        stand.pass_time(86400 * 7 / 8 - 10, step=10)
        self.assertIs(stand.lease.state, State.RENEWING)
        self.assertTrue(5 <= len(stand.sent_frames) <= 15, len(stand.sent_frames))
        self.assertEqual({said.destination_mac for said in stand.sent_frames}, {server.mac})

    def test_renewal_that_cannot_be_saved_is_logged_and_valid(self) -> None:
        stand = self.bound()

        def full(what: str) -> None:
            raise StateError("disk full")

        stand.holder.disk = full
        with capturedLogs() as events:
            stand.pass_time(390)
        told = [each for each in events if each.get("reason") == "disk full"]
        self.assertEqual(len(told), len(stand.sent_frames))
        self.assertEqual([each for each in told if "log_failure" in each], [], "a full disk is no bug")
        self.assertIs(stand.lease.state, State.BOUND)

    def test_lease_counts_from_the_request_if_the_ack_is_late(self) -> None:
        stand = self.bound()
        self.server.away = True
        stand.pass_time(200)
        asked_at = stand.clock.seconds()
        (said,) = stand.sent_frames
        stand.pass_time(5)
        stand.wire.receive(self.server.answer(said, ACK, "192.168.77.100"))
        self.assertTrue(EPOCH + 190 <= stand.holder.saved[-1].obtained_at <= EPOCH + asked_at)

    def test_ack_for_another_address_is_ignored(self) -> None:
        stand = self.bound()
        self.server.away = True
        stand.pass_time(200)
        stand.wire.receive(self.server.answer(stand.sent_frames[0], ACK, "192.168.77.101"))
        self.assertIs(stand.lease.state, State.RENEWING)
        self.assertEqual(stand.holder.notes, [])

    def test_lease_of_seconds_is_renewed_at_most_once_a_second(self) -> None:
        for server, most in (
            (Server(lease_seconds=1), 41),
            (Server(lease_seconds=2), 41),
            (Server(lease_seconds=4, t1=1, t2=2), 21),
        ):
            stand = self.bound(server)
            stand.pass_time(20)
            self.assertLessEqual(len(stand.sent_frames), most)
        self.assertEqual(stand.holder.noted("lost"), [])

    def test_infinite_lease_is_never_renewed(self) -> None:
        stand = self.bound(Server(lease_seconds=INFINITE))
        stand.pass_time(86400 * 400, step=3600)
        self.assertEqual(stand.kinds, [])
        stand.lease.stop()
        self.assertTrue(stand.is_silent())


class RebindingTests(HoldingTestCase):
    def test_rebinding_finds_and_saves_the_new_mac_of_the_server(self) -> None:
        stand = self.bound()
        self.server.mac = "52:54:00:00:00:77"
        stand.pass_time(299)
        self.assertIs(stand.lease.state, State.RENEWING)
        self.assertEqual({said.destination_mac for said in stand.sent_frames}, {"52:54:00:00:00:01"})
        stand.pass_time(2)
        said = stand.sent_frames[-1]
        self.assertEqual((said.destination_mac, said.ciaddr), ("ff:ff:ff:ff:ff:ff", "192.168.77.100"))
        self.assertEqual(said.source_mac, MAC)
        self.assertIs(stand.lease.state, State.BOUND)
        self.assertEqual(stand.holder.saved[-1].server_mac, "52:54:00:00:00:77")
        self.assertEqual(stand.holder.noted("lost"), [])

    def test_rebinding_may_move_the_lease_to_another_server(self) -> None:
        first, second = short(), Server(id="192.168.77.2", mac="52:54:00:00:00:02")
        stand = self.bound(first)
        first.away = True
        stand.wire.answerers.append(second)
        stand.pass_time(302)
        facts = stand.lease.binding
        assert facts is not None
        self.assertEqual(str(facts.server_id), "192.168.77.2")
        self.assertIs(stand.lease.state, State.BOUND)

    def test_ack_of_our_server_outweighs_a_foreign_nak(self) -> None:
        ours, foreign = short(), Server("10.0.0.9", "192.168.77.2", "52:54:00:00:00:02")
        stand = self.bound(ours)
        ours.mac = "52:54:00:00:00:77"
        stand.wire.answerers.insert(0, foreign)
        stand.pass_time(302)
        self.assertIs(stand.lease.state, State.BOUND)
        self.assertEqual(stand.holder.noted("lost"), [])

    def test_foreign_servers_are_ignored_in_renewing(self) -> None:
        ours = short()
        stand = self.bound(ours)
        ours.away = True
        foreign = Server("10.0.0.9", "192.168.77.2", "52:54:00:00:00:02")
        stand.wire.answerers.append(lambda frame: [foreign.answer(ClientFrame(frame), NAK)])
        stand.pass_time(250)
        self.assertIs(stand.lease.state, State.RENEWING)
        self.assertEqual(stand.holder.noted("lost"), [])


class TimeOfDayTests(HoldingTestCase):
    """Somebody sets the time of day at the worst moment: between the request for a lease and its first second."""

    def test_time_of_day_does_not_matter_to_a_lease(self) -> None:
        for offset in (-3600, 3600, -86400, 86400, -864000, 864000):
            with self.subTest(offset=offset):
                stand = LeaseFixture(short())

                def set_clock(what: str, stand: LeaseFixture = stand, offset: int = offset) -> None:
                    stand.wall_offset += offset

                stand.holder.disk = set_clock
                self.successResultOf(ensureDeferred(stand.lease.acquire()))
                stand.wire.sent.clear()
                stand.pass_time(189)
                self.assertEqual(stand.kinds, [])
                stand.pass_time(11)
                self.assertEqual(stand.kinds, [REQUEST])
                stand.pass_time(1000)
                self.assertIn(len(stand.sent_frames), (6, 7))
                self.assertEqual(stand.holder.noted("lost"), [])

    def test_renewal_due_during_a_suspend_is_made_on_resume(self) -> None:
        stand = self.bound(short())
        stand.clock.advance(250)
        self.assertEqual(stand.kinds, [REQUEST])
        self.assertIs(stand.lease.state, State.BOUND)

    def test_lease_over_during_a_suspend_is_requested_on_resume(self) -> None:
        stand = self.bound(short())
        stand.clock.advance(5000)
        self.assertEqual(stand.kinds, [DISCOVER, REQUEST])
        self.assertIs(stand.lease.state, State.BOUND)


class ResumingTests(HoldingTestCase):
    def test_init_reboot_broadcasts_a_request_for_the_address(self) -> None:
        stand = self.resumed(short(), age=50)
        (said,) = stand.sent_frames
        self.assertEqual((said.kind, said.requested, said.server_id), (REQUEST, "192.168.77.100", None))
        self.assertEqual(
            (said.ciaddr, said.destination_mac, said.source_mac), ("0.0.0.0", "ff" + ":ff" * 5, MAC)
        )
        self.assertTrue(said.broadcast)
        self.assertIs(stand.lease.state, State.BOUND)
        self.assertEqual(stand.holder.saved[-1].obtained_at, EPOCH)

    def test_unanswered_init_reboot_leaves_the_old_times(self) -> None:
        server = short(away=True)
        stand = self.resumed(server, age=100)
        self.assertIs(stand.lease.state, State.INIT_REBOOT)
        stand.pass_time(11)
        self.assertIs(stand.lease.state, State.BOUND)
        self.assertEqual(len(stand.sent_frames), 4)
        stand.pass_time(89)
        self.assertIs(stand.lease.state, State.RENEWING)
        stand.pass_time(101)
        self.assertIs(stand.lease.state, State.REBINDING)
        stand.pass_time(100)
        self.assertEqual(len(stand.holder.noted("lost")), 1)

    def test_lease_that_expires_in_init_reboot_is_lost_then(self) -> None:
        stand = self.resumed(Server(away=True), age=396)
        stand.pass_time(3)
        self.assertEqual(stand.holder.noted("lost"), [])
        stand.pass_time(1.25)
        self.assertEqual(len(stand.holder.noted("lost")), 1)

    def test_overdue_renewal_is_made_at_once(self) -> None:
        for age, state in ((250, State.RENEWING), (350, State.REBINDING)):
            stand = self.resumed(Server(away=True), age=age)
            stand.pass_time(11)
            self.assertIs(stand.lease.state, state)

    def test_lease_of_an_impossible_age_is_confirmed(self) -> None:
        """It seems to be over, or of the future: the clock was wrong, or is now."""
        for age in IMPOSSIBLE_AGES:
            stand = self.resumed(short(), age=age)
            self.assertEqual([what for what, _ in stand.holder.notes], ["save_binding"])
            self.assertEqual((stand.kinds, stand.sent_frames[0].ciaddr), ([REQUEST], "0.0.0.0"))
            self.assertIs(stand.lease.state, State.BOUND)

    def test_lease_of_an_impossible_age_waits_for_its_server(self) -> None:
        for age in IMPOSSIBLE_AGES:
            server = short(away=True)
            stand = self.resumed(server, age=age)
            stand.pass_time(11)
            self.assertIs(stand.lease.state, State.RENEWING)
            stand.pass_time(110)
            self.assertIs(stand.lease.state, State.REBINDING)
            server.away = False
            stand.pass_time(60)
            self.assertIs(stand.lease.state, State.BOUND)
            self.assertEqual(stand.holder.noted("lost"), [])

    def test_nak_in_init_reboot_is_reported(self) -> None:
        stand = self.resumed(Server("192.168.77.101", others=()), age=50)
        self.assertIn("not yours", stand.holder.noted("lost")[0][1])

    def test_clock_set_back_does_not_prolong_a_lease(self) -> None:
        stand = self.resumed(Server(away=True), age=-100000)
        stand.pass_time(401)
        self.assertEqual(len(stand.holder.noted("lost")), 1)

    def test_resumed_lease_has_its_client_id_and_vendor_class(self) -> None:
        stand = LeaseFixture(Server())
        lease = stand.new_lease(Client(MAC, b"\x00web.lan", "web", "router"))
        facts: Binding = self.successResultOf(ensureDeferred(lease.acquire()))
        lease.stop()
        stand.new_lease(facts.client).resume(facts)
        self.assertEqual(
            [stand.sent_frames[-1].options[code] for code in (61, 12, 60)],
            [b"\x00web.lan", b"web", b"router"],
        )

    def test_infinite_lease_is_confirmed_once(self) -> None:
        stand = self.resumed(Server(lease_seconds=INFINITE), lease_seconds=INFINITE)
        stand.pass_time(86400 * 3, step=60)
        self.assertEqual(stand.kinds, [REQUEST])


class EndTests(HoldingTestCase):
    def test_release_is_sent_from_the_leased_address_and_ends_all(self) -> None:
        stand = self.bound(Server())
        stand.lease.release()
        (said,) = stand.sent_frames
        self.assertEqual(
            (said.kind, said.ciaddr, said.server_id), (RELEASE, "192.168.77.100", "192.168.77.1")
        )
        self.assertEqual((said.source, said.destination), ("192.168.77.100", "192.168.77.1"))
        self.assertEqual((said.source_mac, said.destination_mac), (MAC, "52:54:00:00:00:01"))
        self.assertTrue(stand.is_silent())

    def test_stop_is_silent_and_ends_all_in_every_state(self) -> None:
        for seconds in (0, 210, 310, 420, 1000):
            server = short()
            stand = self.bound(server)
            server.away = True
            stand.pass_time(seconds)
            stand.wire.sent.clear()
            for _ in range(2):
                stand.lease.stop()
                self.assertTrue(stand.is_silent(), seconds)
            stand.pass_time(1000)
            self.assertEqual(stand.kinds, [], seconds)

    def test_lease_ends_without_its_parent(self) -> None:
        stand = self.bound(Server())
        stand.wire.down = True
        stand.lease.release()
        self.assertTrue(stand.is_silent())
