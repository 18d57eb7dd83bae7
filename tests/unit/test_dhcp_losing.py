"""A lease that is withdrawn or expires while its container runs."""

from __future__ import annotations

from twisted.logger import capturedLogs

from macvlan_twisted.dhcp.binding import Binding, State
from macvlan_twisted.errors import StateError

from .dhcp_lan import DECLINE, DISCOVER, NAK, RELEASE, REQUEST, STRANGER, ClientFrame, RecordingHolder, Server
from .test_dhcp_holding import HoldingTestCase


class LosingTests(HoldingTestCase):
    def test_nak_is_reported_and_the_address_requested_again(self) -> None:
        """Without a probe: the container itself has it."""
        stand = self.bound()
        stand.holder.users["192.168.77.100"] = STRANGER
        self.server.naks = 1
        stand.pass_time(201)
        self.assertEqual(stand.kinds, [REQUEST, DISCOVER, REQUEST])
        self.assertEqual(stand.sent_frames[1].requested, "192.168.77.100")
        ((_, reason),) = stand.holder.noted("lost")
        self.assertIn("192.168.77.1 took it back: 'not yours?'", reason)
        self.assertEqual(stand.holder.noted("reacquired"), [("reacquired", "192.168.77.100")])
        self.assertIs(stand.lease.state, State.BOUND)

    def test_expired_lease_is_reported_once_and_requested_for_ever(self) -> None:
        stand = self.bound()
        self.server.away = True
        stand.pass_time(401)
        self.assertEqual(len(stand.holder.noted("lost")), 1)
        self.assertIs(stand.lease.state, State.REACQUIRING)
        stand.pass_time(600)
        stand.wire.sent.clear()
        stand.pass_time(86400, step=1)
        self.assertEqual(set(stand.kinds), {DISCOVER})
        self.assertTrue(86400 / 75 < len(stand.sent_frames) < 86400 / 60, len(stand.sent_frames))
        self.assertEqual({said.requested for said in stand.sent_frames}, {"192.168.77.100"})
        self.server.away = False
        stand.pass_time(120)
        self.assertEqual(stand.holder.noted("lost", "reacquired")[1:], [("reacquired", "192.168.77.100")])

    def test_lost_lease_is_not_released(self) -> None:
        stand = self.bound()
        self.server.away = True
        stand.pass_time(500)
        stand.lease.release()
        self.assertNotIn(RELEASE, stand.kinds)
        self.assertTrue(stand.is_silent())

    def test_foreign_nak_counts_while_our_server_is_silent(self) -> None:
        stand = self.bound()
        self.server.away = True
        foreign = Server("10.0.0.9", "192.168.77.2", "52:54:00:00:00:02")
        stand.wire.answerers.append(
            lambda frame: (
                [foreign.answer(ClientFrame(frame), NAK)] if ClientFrame(frame).kind == REQUEST else []
            )
        )
        stand.pass_time(303)
        self.assertIn("192.168.77.2", stand.holder.noted("lost")[0][1])

    def test_store_may_end_a_lost_lease_at_once(self) -> None:
        stand = self.bound()
        self.server.away = True

        class Ending(RecordingHolder):
            def lost(self, binding: Binding, reason: str) -> None:
                stand.lease.release()

        stand.lease._store = Ending()
        stand.pass_time(500)
        self.assertTrue(stand.is_silent())


class MovingTests(HoldingTestCase):
    def test_accepted_new_address_becomes_the_lease(self) -> None:
        stand = self.bound()
        stand.holder.moves = True
        self.server.address = "192.168.77.101"
        stand.pass_time(203)
        self.assertEqual(
            [what for what, _ in stand.holder.notes],
            ["lost", "save_offer", "in use?", "readdress", "save_binding"],
        )
        self.assertEqual(stand.holder.noted("readdress"), [("readdress", "192.168.77.100 to 192.168.77.101")])
        facts = stand.lease.binding
        assert facts is not None
        self.assertEqual(str(facts.address), "192.168.77.101")
        self.assertIs(stand.lease.state, State.BOUND)
        stand.wire.sent.clear()
        stand.pass_time(202)
        self.assertEqual(stand.sent_frames[0].ciaddr, "192.168.77.101")

    def test_refused_new_address_is_released_and_not_leased_again(self) -> None:
        stand = self.bound()
        self.server.address = "192.168.77.101"
        stand.pass_time(203)
        self.assertEqual(stand.kinds, [REQUEST, DISCOVER, REQUEST, RELEASE])
        self.assertEqual(stand.sent_frames[-1].ciaddr, "192.168.77.101")
        stand.wire.sent.clear()
        stand.pass_time(3600)
        self.assertEqual(set(stand.kinds), {DISCOVER})
        self.assertTrue(50 <= len(stand.sent_frames) <= 70, len(stand.sent_frames))
        self.assertEqual(len(stand.holder.noted("readdress")), 1)
        self.server.address = "192.168.77.100"
        stand.pass_time(70)
        self.assertEqual(stand.holder.noted("reacquired"), [("reacquired", "192.168.77.100")])

    def test_failed_readdressing_is_logged_and_releases_the_address(self) -> None:
        stand = self.bound()

        class Failing(RecordingHolder):
            async def readdress(self, old: Binding, new: Binding) -> bool:
                raise StateError("its sandbox is gone")

        stand.lease._store = Failing()
        self.server.address = "192.168.77.101"
        with capturedLogs() as events:
            stand.pass_time(203)
        self.assertIn("its sandbox is gone", [each.get("reason") for each in events])
        self.assertEqual([each for each in events if "log_failure" in each], [])
        self.assertEqual(stand.kinds, [REQUEST, DISCOVER, REQUEST, RELEASE])

    def test_new_address_in_use_is_declined(self) -> None:
        stand = self.bound()
        stand.holder.users["192.168.77.101"] = STRANGER
        self.server.address = "192.168.77.101"
        stand.pass_time(202)
        self.assertIn(DECLINE, stand.kinds)
        self.assertEqual(stand.holder.noted("readdress"), [])
