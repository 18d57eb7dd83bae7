"""Acquisition of a lease, from DHCPDISCOVER to the saved binding."""

from __future__ import annotations

from collections.abc import Coroutine
from ipaddress import IPv4Address
from random import Random
from typing import Any

from twisted.internet.defer import Deferred, ensureDeferred
from twisted.trial.unittest import SynchronousTestCase

from macvlan_twisted.dhcp.acquire import discover
from macvlan_twisted.dhcp.binding import Binding, Client, LanParameters, State
from macvlan_twisted.dhcp.transaction import Environment
from macvlan_twisted.errors import RequestRefused, StateError

from .dhcp_lan import (
    DECLINE,
    DISCOVER,
    EPOCH,
    MAC,
    OFFER,
    RELEASE,
    REQUEST,
    STRANGER,
    ClientFrame,
    LeaseFixture,
    Server,
    answer_frame,
)


class AcquiringTestCase(SynchronousTestCase):
    def acquire(self, stand: LeaseFixture, wanted: str | None = None) -> Deferred[Binding]:
        return ensureDeferred(stand.lease.acquire(None if wanted is None else IPv4Address(wanted)))

    def refusal(self, outcome: Deferred[Any]) -> str:
        failure = self.failureResultOf(outcome, RequestRefused)
        return str(failure.value)

    def assert_words(self, text: str, *words: str) -> None:
        for word in words:
            self.assertIn(word, text)


class AcquireTests(AcquiringTestCase):
    def test_lease_is_acquired_with_four_messages(self) -> None:
        stand = LeaseFixture(Server(t1=600, t2=900))
        facts = self.successResultOf(self.acquire(stand))
        self.assertEqual(stand.kinds, [DISCOVER, REQUEST])
        for said in stand.sent_frames:
            self.assertEqual((said.source, said.destination), ("0.0.0.0", "255.255.255.255"))
            self.assertEqual((said.source_mac, said.destination_mac), (MAC, "ff:ff:ff:ff:ff:ff"))
            self.assertEqual((said.chaddr, said.ciaddr, said.broadcast), (MAC, "0.0.0.0", True))
        discover, request = stand.sent_frames
        self.assertEqual((request.server_id, request.requested), ("192.168.77.1", "192.168.77.100"))
        self.assertEqual(request.xid, discover.xid)
        self.assertEqual(
            facts,
            Binding(
                address=IPv4Address("192.168.77.100"),
                prefix_length=24,
                router=IPv4Address("192.168.77.1"),
                server_id=IPv4Address("192.168.77.1"),
                server_mac="52:54:00:00:00:01",
                mac=MAC,
                client_id="01" + MAC.replace(":", ""),
                lease_seconds=3600,
                t1=600,
                t2=900,
                obtained_at=EPOCH,
                hostname="web",
                vendor_class="macvlan-twisted",
            ),
        )
        self.assertIs(stand.lease.state, State.BOUND)
        self.assertEqual(stand.wire.listeners, 0)

    def test_missing_or_unsound_t1_and_t2_get_defaults(self) -> None:
        for t1, t2, expected in (
            (None, None, (1800, 3150)),
            (0, 0, (1800, 3150)),
            (5000, 4000, (1800, 3150)),
            (900, 800, (800, 800)),
            (3000, 600, (600, 600)),
        ):
            facts = self.successResultOf(self.acquire(LeaseFixture(Server(t1=t1, t2=t2))))
            self.assertEqual((facts.t1, facts.t2), expected, (t1, t2))

    def test_discover_is_repeated_with_backoff_until_the_timeout(self) -> None:
        stand = LeaseFixture(Server(away=True))
        outcome = self.acquire(stand)
        moments = []
        for tick in range(40):
            before = len(stand.sent_frames)
            stand.clock.advance(0.25)
            moments += [tick / 4] * (len(stand.sent_frames) - before)
        self.assert_words(self.refusal(outcome), "no DHCP server on eth1", MAC, "10 s", "pool may be full")
        self.assertEqual(set(stand.kinds), {DISCOVER})
        self.assertEqual([round(moment) for moment in moments], [1, 3, 7])
        self.assertTrue(stand.is_silent())

    def test_error_says_that_the_parent_is_down(self) -> None:
        stand = LeaseFixture(Server())
        stand.wire.down = True
        outcome = self.acquire(stand)
        stand.pass_time(11)
        self.assert_words(self.refusal(outcome), "Network is down", "eth1")

    def test_first_of_two_servers_is_chosen(self) -> None:
        first, second = Server(), Server("192.168.77.200", "192.168.77.2", "52:54:00:00:00:02")
        stand = LeaseFixture(first, second)

        def contradict(frame: bytes) -> list[bytes]:
            said = ClientFrame(frame)
            return [second.answer(said, 6)] if said.kind == REQUEST else []

        stand.wire.answerers.insert(0, contradict)
        facts = self.successResultOf(self.acquire(stand))
        self.assertEqual(str(facts.address), "192.168.77.100")
        self.assertEqual(facts.server_mac, "52:54:00:00:00:01")

    def test_broken_frames_are_ignored(self) -> None:
        stand = LeaseFixture()

        def babble(frame: bytes) -> list[bytes]:
            return [b"", b"\xff" * 300, answer_frame(ClientFrame(frame).xid, OFFER, options=b"\x33\x02\x00")]

        stand.wire.answerers.extend((babble, Server()))
        self.successResultOf(self.acquire(stand))


class WantedTests(AcquiringTestCase):
    def test_wanted_address_is_leased(self) -> None:
        stand = LeaseFixture(Server(others=("192.168.77.150",)))
        facts = self.successResultOf(self.acquire(stand, "192.168.77.150"))
        self.assertEqual(str(facts.address), "192.168.77.150")
        self.assertEqual(stand.sent_frames[0].requested, "192.168.77.150")

    def test_server_with_the_wanted_address_is_preferred(self) -> None:
        late = Server("192.168.77.150", "192.168.77.2", "52:54:00:00:00:02")
        stand = LeaseFixture(Server())
        outcome = self.acquire(stand, "192.168.77.150")
        stand.pass_time(0.5)
        self.assertNoResult(outcome)
        stand.wire.answerers.append(late)
        stand.wire.receive(late(stand.wire.sent[-1])[0])
        facts = self.successResultOf(outcome)
        self.assertEqual((str(facts.address), str(facts.server_id)), ("192.168.77.150", "192.168.77.2"))

    def test_offer_of_another_address_is_refused_and_not_leased(self) -> None:
        stand = LeaseFixture(Server())
        outcome = self.acquire(stand, "192.168.77.150")
        stand.pass_time(2)
        self.assert_words(
            self.refusal(outcome), "192.168.77.150", "192.168.77.100", "192.168.77.1 ", "eth1", MAC
        )
        self.assertEqual(set(stand.kinds), {DISCOVER})
        self.assertEqual(stand.holder.notes, [])
        self.assertTrue(stand.is_silent())

    def test_wanted_address_in_use_is_declined_once(self) -> None:
        stand = LeaseFixture(Server())
        stand.holder.users["192.168.77.100"] = STRANGER
        refusal = self.refusal(self.acquire(stand, "192.168.77.100"))
        self.assert_words(refusal, "192.168.77.100", STRANGER, "declined")
        self.assertEqual(stand.kinds, [DISCOVER, REQUEST, DECLINE])

    def test_reserved_address_is_declined(self) -> None:
        stand = LeaseFixture(Server())
        stand.holder.reserved["192.168.77.100"] = "is reserved"
        refusal = self.refusal(self.acquire(stand, "192.168.77.100"))
        self.assert_words(
            refusal, "192.168.77.100", "is reserved", "declined", "192.168.77.1 ", "server's pool"
        )
        self.assertEqual(stand.kinds, [DISCOVER, REQUEST, DECLINE])
        self.assertEqual(stand.holder.noted("in use?", "save_binding"), [])


class DurabilityTests(AcquiringTestCase):
    def test_request_and_result_wait_for_the_disk(self) -> None:
        for step, kinds in (("save_offer", [DISCOVER]), ("save_binding", [DISCOVER, REQUEST])):
            stand = LeaseFixture(Server())
            disk: Deferred[None] = Deferred()
            stand.holder.disk = lambda what, step=step, disk=disk: disk if what == step else None  # type: ignore[misc]
            outcome = self.acquire(stand)
            self.assertEqual(stand.kinds, kinds)
            self.assertNoResult(outcome)
            disk.callback(None)
            self.assertEqual(stand.kinds, [DISCOVER, REQUEST])
            self.successResultOf(outcome)

    def test_lease_that_cannot_be_saved_is_released(self) -> None:
        stand = LeaseFixture(Server())

        def full(what: str) -> None:
            if what == "save_binding":
                raise StateError("disk full")

        stand.holder.disk = full
        self.failureResultOf(self.acquire(stand), StateError)
        self.assertEqual(stand.kinds, [DISCOVER, REQUEST, RELEASE])
        self.assertTrue(stand.is_silent())

    def test_lease_is_released_if_its_address_cannot_be_probed(self) -> None:
        stand = LeaseFixture(Server())
        stand.holder.blind = RequestRefused("no probe possible")
        self.assertEqual(self.refusal(self.acquire(stand)), "no probe possible")
        self.assertEqual(stand.kinds, [DISCOVER, REQUEST, RELEASE])


class AskAroundTests(AcquiringTestCase):
    def ask(self, stand: LeaseFixture) -> Deferred[LanParameters]:
        question: Coroutine[Any, Any, LanParameters] = discover(
            stand.wire, Client(stand.wire.mac), Environment(stand.clock, Random(1), stand.clock.seconds)
        )
        return ensureDeferred(question)

    def test_discover_learns_prefix_and_router_without_a_lease(self) -> None:
        stand = LeaseFixture()

        def server(frame: bytes) -> list[bytes]:
            said = ClientFrame(frame)
            answer = Server().answer(said, OFFER, "192.168.77.100")
            return [evolve_mac(answer, said.chaddr)]

        stand.wire.answerers.append(server)
        found = self.successResultOf(self.ask(stand))
        self.assertEqual((found.prefix_length, str(found.router)), (24, "192.168.77.1"))
        self.assertEqual(stand.kinds, [DISCOVER])
        self.assertTrue(stand.is_silent())

    def test_discover_without_an_answer_is_refused_in_time(self) -> None:
        stand = LeaseFixture()
        outcome = self.ask(stand)
        stand.pass_time(11)
        self.assert_words(self.refusal(outcome), "eth1", "no DHCP server")
        self.assertTrue(stand.is_silent())


def evolve_mac(frame: bytes, mac: str) -> bytes:
    return frame[:70] + bytes.fromhex(mac.replace(":", "")) + frame[76:]
