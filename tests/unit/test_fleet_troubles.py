"""Hosts of a fleet whose store is slow, was changed by others, or hears of a change too late."""

from __future__ import annotations

from typing import Any

from attrs import evolve

from macvlan_twisted.addresses import parse_address
from macvlan_twisted.errors import RequestRefused
from macvlan_twisted.fleet.interfaces import Claim, ClaimState, Host, HostRecord, SharedAddress, Wanted
from macvlan_twisted.fleet.session import SWEEP_INTERVAL
from macvlan_twisted.fleet.sweep import STRAY_GRACE
from macvlan_twisted.ipam.requests import Purpose, RequestAddress
from macvlan_twisted.ipam.selection import AddressTaken

from .test_fleet import FleetHost, FleetTestCase

LAN_NAME = "default"
PART = "192.168.1.8/29"


def of(host: str, address: str, claim_id: str, state: ClaimState = ClaimState.RESERVE) -> Claim:
    owner = Host(host, f"instance-{host}")
    return Claim(LAN_NAME, parse_address(address), owner, claim_id, state)


class TroubleTestCase(FleetTestCase):
    def pass_time(self, seconds: float, step: float = 1.0) -> None:
        for _ in range(int(seconds / step)):
            for host in (self.a, self.b):
                host.plugin.clock.advance(step)

    def rows(self, host: FleetHost) -> dict[str, str]:
        own_claims = host.plugin.parts.fleet.own_claims
        assert own_claims is not None
        return {str(row.address): row.stage.value for row in own_claims.rows.by_key.values()}


class StrayTests(TroubleTestCase):
    """Claims of this host that it does not know: a delayed transaction has made them."""

    def test_stray_is_not_chosen(self) -> None:
        stray = of("a", "192.168.1.8", "late")
        self.store.set_entry(stray.key, stray)
        pool = self.a.open(part=PART)
        self.assertNotEqual(self.a.ask(pool), "192.168.1.8")

    def test_stray_is_deleted_after_its_grace_time(self) -> None:
        self.a.open(part=PART)
        stray = of("a", "192.168.1.12", "late")
        self.store.set_entry(stray.key, stray)
        self.pass_time(STRAY_GRACE - 30, 10.0)
        self.assertIn(stray.key, self.store.entries)
        self.pass_time(90, 10.0)
        self.assertNotIn("192.168.1.12", self.addresses_of("a"))

    def test_stray_of_a_lan_without_pools_is_deleted(self) -> None:
        stray = of("a", "192.168.1.12", "late")
        self.store.set_entry(stray.key, stray)
        self.pass_time(STRAY_GRACE + 60, 10.0)
        self.assertEqual(self.store.entries, {})


class SlowStoreTests(TroubleTestCase):
    def test_container_comes_back_while_a_change_is_slow(self) -> None:
        pool = self.a.open(part=PART, identity="name")
        address = self.a.ask(pool, name="web")
        self.a.claims.holds_changes = True
        self.a.release(pool, address)
        request = RequestAddress(pool, None, Purpose.ENDPOINT, "web")
        found = self.a.plugin.wait(self.a.plugin.addresses.request_address(request))
        self.assertEqual(str(found.ip), address)

    def test_request_without_reserve_fails_when_the_store_is_slow(self) -> None:
        pool = self.a.open(part=PART)
        self.a.claims.holds_changes = True
        with self.assertRaises(RequestRefused) as refused:
            for _ in range(3):
                self.a.ask(pool)
        self.assertIn("etcd did not answer", str(refused.exception))

    def test_claim_without_an_answer_is_settled_while_connected(self) -> None:
        pool = self.a.open(part=PART)
        self.a.claims.holds_changes = True
        with self.assertRaises(RequestRefused):
            self.a.ask(pool, "192.168.1.12")
        self.a.claims.holds_changes = False
        self.a.claims.on_the_way.clear()
        self.pass_time(2 * SWEEP_INTERVAL)
        self.assertEqual(set(self.rows(self.a)), self.addresses_of("a"))

    def test_release_without_an_answer_is_settled_while_connected(self) -> None:
        pool = self.a.open(part=PART)
        self.a.claims.holds_changes = True
        self.a.plugin.wait(self.a.plugin.pools.release_pool(pool))
        self.pass_time(SWEEP_INTERVAL + 5)
        self.a.claims.holds_changes = False
        self.a.claims.on_the_way.clear()
        self.pass_time(2 * SWEEP_INTERVAL)
        self.assertEqual((self.rows(self.a), self.addresses_of("a")), ({}, set()))

    def test_reply_does_not_hide_a_newer_report(self) -> None:
        """The address is released again before the reply says that another host has it."""
        self.a.open(part=PART)
        own_claims = self.a.plugin.parts.fleet.own_claims
        assert own_claims is not None
        mirror, claim = own_claims.mirror, of("b", "192.168.1.12", "other")
        reports = mirror.reports(*claim.key)
        self.store.set_entry(claim.key, claim)
        self.store.set_entry(claim.key, None)
        mirror.set_found(*claim.key, claim, reports)
        self.assertIsNone(mirror.entry(*claim.key))


class OverlapTests(TroubleTestCase):
    """What happens between the choice of an address and its allocation."""

    def held_request(self, pool: str, address: str) -> None:
        """A request whose allocation waits for the disk before the address counts as allocated."""
        own_claims = self.a.plugin.parts.fleet.own_claims
        assert own_claims is not None
        self.a.plugin.records.steps.hold = {"save"}
        request = RequestAddress(pool, parse_address(address))
        self.asked = self.a.plugin.start(self.a.plugin.addresses.request_address(request))

    def test_address_that_is_being_allocated_is_not_handed_over(self) -> None:
        pool = self.a.open(part=PART)
        self.held_request(pool, "192.168.1.12")
        wanted = Wanted(LAN_NAME, parse_address("192.168.1.12"), Host("b", "instance-b"), "b-wants")
        self.store.set_wanted((wanted.lan, wanted.address), wanted)
        self.a.plugin.records.steps.let_all_go()
        self.assertEqual(str(self.successResultOf(self.asked).ip), "192.168.1.12")
        self.assertEqual(self.claim("192.168.1.12").owner.name, "a")
        self.assertEqual(self.rows(self.a)["192.168.1.12"], "owned")

    def test_address_is_given_to_one_of_two_requests(self) -> None:
        """One asks for it, and the other one gets it from the reserve, while the claim is under way."""
        pool = self.a.open(part=PART)
        self.a.plugin.records.steps.hold = {"save"}
        requests = [
            RequestAddress(pool, parse_address("192.168.1.12"), Purpose.ENDPOINT, name) for name in "xy"
        ]
        asked = [self.a.plugin.start(self.a.plugin.addresses.request_address(each)) for each in requests]
        self.a.plugin.records.steps.let_all_go()
        outcomes: list[object] = []
        for each in asked:
            each.addCallbacks(lambda found: str(found.ip), lambda failure: failure.type).addCallback(
                outcomes.append
            )
        self.assertEqual(sorted(outcomes, key=str), sorted(["192.168.1.12", AddressTaken], key=str))

    def test_address_that_is_being_allocated_is_not_swept(self) -> None:
        pool = self.a.open(part=PART)
        for address in ("192.168.1.12", "192.168.1.13"):
            self.a.ask(pool, address)
        self.a.release(pool, "192.168.1.12")
        self.pass_time(299)
        self.a.claims.holds_changes = True  # the sweep waits for the store with the address in its hands
        self.a.plugin.clock.advance(2.0)
        fleet = self.a.plugin.parts.fleet
        with fleet.allocating(self.a.plugin.open_pools.by_id[pool], parse_address("192.168.1.12")):
            _heal(self.a)
            self.pass_time(3 * SWEEP_INTERVAL)
            self.assertIn("192.168.1.12", self.addresses_of("a"))
        self.pass_time(3 * SWEEP_INTERVAL)
        self.assertNotIn("192.168.1.12", self.addresses_of("a"))

    def test_withdrawn_request_is_not_served(self) -> None:
        pool = self.a.open(part=PART)
        own_claims = self.a.plugin.parts.fleet.own_claims
        assert own_claims is not None
        address = self.a.ask(pool)
        self.a.release(pool, address)
        busy = own_claims._lock(
            LAN_NAME, parse_address(address)
        )  # another change of the address is under way
        self.a.plugin.wait(busy.__aenter__())
        wanted = Wanted(LAN_NAME, parse_address(address), Host("b", "instance-b"), "b-wants")
        self.store.set_wanted((wanted.lan, wanted.address), wanted)
        self.store.set_wanted((wanted.lan, wanted.address), None)
        self.a.plugin.wait(busy.__aexit__(None, None, None))
        self.assertEqual(self.claim(address).owner.name, "a")

    def test_address_that_comes_after_the_deadline_is_kept_or_given_back(self) -> None:
        pool_a, pool_b = self.a.open(part=PART), self.b.open(part=PART)
        address = self.a.ask(pool_a)
        self.a.release(pool_a, address)
        self.a.claims.holds_events = True
        request = RequestAddress(pool_b, parse_address(address))
        asked = self.b.plugin.start(self.b.plugin.addresses.request_address(request))
        self.b.plugin.clock.advance(0.9)
        self.b.claims.holds_changes = True
        self.b.plugin.clock.advance(0.2)
        self.assertIn("did not hand it over in time", self.failureResultOf(asked).getErrorMessage())
        self.a.claims.holds_events = False
        self.a.claims.deliver()
        self.assertEqual(self.claim(address).owner.name, "b")
        _heal(self.b)
        self.pass_time(2 * SWEEP_INTERVAL)
        self.assertEqual(set(self.rows(self.b)), self.addresses_of("b"))


class GatewayTests(TroubleTestCase):
    def test_gateway_of_a_released_pool_is_given_back(self) -> None:
        pool = self.a.open()
        self.a.ask(pool, "192.168.1.1", purpose=Purpose.GATEWAY)
        self.a.plugin.wait(self.a.plugin.pools.release_pool(pool))
        self.pass_time(4 * SWEEP_INTERVAL)
        self.assertEqual(self.store.entries, {})

    def test_gateway_that_was_deleted_is_shared_again(self) -> None:
        self.a.ask(self.a.open(), "192.168.1.1", purpose=Purpose.GATEWAY)
        key = LAN_NAME, parse_address("192.168.1.1")
        self.store.set_entry(key, None)
        self.assertIsInstance(self.store.entries.get(key), SharedAddress)


class RecordTests(TroubleTestCase):
    """The record of this host in the store."""

    def record(self, **changes: Any) -> HostRecord:
        return evolve(self.a.session._record, **changes)

    def test_deleted_record_is_made_again(self) -> None:
        self.store.set_record("a", None)
        self.pass_time(30)
        self.assertEqual(self.store.alive["a"], self.a.session._record)

    def test_host_whose_record_another_one_replaced_claims_nothing(self) -> None:
        self.a.open(part=PART)
        before = self.addresses_of("a")
        other = self.record(session="another")
        self.store.set_record("a", other)
        self.a.claims.lose("the connection broke")
        self.pass_time(60)
        with self.assertRaises(RequestRefused) as refused:
            self.a.ask(self.a.open(part=PART), "192.168.1.14")
        self.assertIn("another --fleet-host", str(refused.exception))
        self.assertEqual((self.store.alive["a"], self.addresses_of("a")), (other, before))

    def test_host_goes_on_when_the_other_one_is_gone(self) -> None:
        pool = self.a.open(part=PART)
        self.store.set_record("a", self.record(session="another"))
        self.pass_time(30)
        self.store.set_record("a", None)
        self.pass_time(60)
        self.assertEqual(self.store.alive["a"], self.a.session._record)
        self.assertEqual(self.a.ask(pool, "192.168.1.14"), "192.168.1.14")


class ReserveTests(TroubleTestCase):
    def test_reserve_shrinks_when_more_hosts_join(self) -> None:
        self.a.open(part="192.168.1.64/27")
        self.assertEqual(len(self.addresses_of("a")), 4)
        for name in "cdef":
            self.host(name)
        self.pass_time(2 * SWEEP_INTERVAL)
        self.assertEqual(len(self.addresses_of("a")), 1)

    def test_forgotten_request_is_withdrawn(self) -> None:
        wanted = Wanted(LAN_NAME, parse_address("192.168.1.9"), Host("a", "instance-a"), "forgotten")
        self.store.set_wanted((wanted.lan, wanted.address), wanted)
        self.pass_time(2 * SWEEP_INTERVAL)
        self.assertEqual(self.store.wanted, {})

    def test_address_that_another_host_has_now_is_not_used(self) -> None:
        """etcd was restored, and another host was faster."""
        pool = self.a.open(part=PART)
        taken = sorted(self.addresses_of("a"))[0]
        other = of("c", taken, "faster", ClaimState.USED)
        backup = evolve(self.store.snapshot(), entries=(other,))
        self.store.restore(backup, "second")
        self.pass_time(30)
        given = {self.a.ask(pool) for _ in range(5)}
        self.assertNotIn(taken, given)
        own_claims = self.a.plugin.parts.fleet.own_claims
        assert own_claims is not None
        self.assertEqual(own_claims.disputed, {})


def _heal(host: FleetHost) -> None:
    host.claims.holds_changes = False
    while host.claims.on_the_way:
        host.claims.arrive()
