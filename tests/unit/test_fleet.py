"""Hosts of a fleet, each with its own parts, on one store in memory."""

from __future__ import annotations

from itertools import count
from typing import Any

from attrs import evolve
from twisted.internet.defer import ensureDeferred
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from macvlan_twisted.addresses import parse_address, parse_network
from macvlan_twisted.errors import RequestRefused
from macvlan_twisted.fleet.interfaces import Claim, ClaimState, Host, HostRecord, SharedAddress
from macvlan_twisted.fleet.member import FleetMember
from macvlan_twisted.fleet.session import SWEEP_INTERVAL
from macvlan_twisted.ipam.fleet_addresses import REST
from macvlan_twisted.ipam.prefetch import FILL_DELAY
from macvlan_twisted.ipam.requests import Purpose, ReleaseAddress, RequestAddress, RequestPool
from macvlan_twisted.lan.arp_nd import announcement_frames
from macvlan_twisted.testing.fleet_claims import FakeClaims, FakeStore

from .helpers import LAN, NETWORK, PluginHarness

_SESSIONS = count(1)
SUBNET = "192.168.1.0/24"


class FleetHost:
    """One host of the fleet."""

    def __init__(
        self, store: FakeStore, name: str, before: PluginHarness | None = None, takes_over: bool = False
    ) -> None:
        self.claims = FakeClaims(store)
        record = HostRecord(Host(name, f"instance-{name}"), f"session-{next(_SESSIONS)}", f"boot-{name}")
        member = FleetMember(record, self.claims, takes_over)
        if before is None:
            self.plugin = PluginHarness(config=LAN, fleet=member)
        else:
            self.plugin = PluginHarness(before.kernel, LAN, before.records, before.store, fleet=member)
        session = self.plugin.parts.fleet_session
        assert session is not None
        self.session = session
        self.running = ensureDeferred(session.run())
        self.running.addErrback(lambda failure: None)

    def open(self, subnet: str = SUBNET, part: str | None = None, **options: str) -> str:
        request = RequestPool(
            "Local", parse_network(subnet), None if part is None else parse_network(part), options
        )
        pool_id = self.plugin.wait(self.plugin.pools.request_pool(request)).pool_id
        self.plugin.clock.advance(1.0)
        return pool_id

    def ask(
        self, pool_id: str, address: str | None = None, name: str = "", purpose: Purpose = Purpose.ENDPOINT
    ) -> str:
        wanted = None if address is None else parse_address(address)
        asked = self.plugin.start(
            self.plugin.addresses.request_address(RequestAddress(pool_id, wanted, purpose, name))
        )
        for _ in range(3):
            self.plugin.clock.advance(0.5)
        outcome: list[Any] = []
        asked.addBoth(outcome.append)
        if not outcome:
            raise AssertionError("the call waits for something")
        if isinstance(outcome[0], Failure):
            outcome[0].raiseException()
        return str(outcome[0].ip)

    def release(self, pool_id: str, address: str) -> None:
        self.plugin.wait(
            self.plugin.addresses.release_address(ReleaseAddress(pool_id, parse_address(address)))
        )

    def kill(self) -> None:
        """The process ends at once; state and links stay."""
        self.claims.is_cut = True
        self.claims.lose("killed")
        self.running.cancel()
        self.claims.expire()

    def stop(self) -> None:
        self.claims.die()
        self.running.cancel()


class FleetTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.store = FakeStore()
        self.a, self.b = self.host("a"), self.host("b")

    def host(self, name: str, before: PluginHarness | None = None) -> FleetHost:
        """A host that runs until the end of the test."""
        host = FleetHost(self.store, name, before)
        self.addCleanup(host.stop)
        return host

    def claim(self, address: str) -> Claim:
        entry = self.store.entries["default", parse_address(address)]
        assert isinstance(entry, Claim)
        return entry

    def addresses_of(self, host: str) -> set[str]:
        return {
            str(entry.address)
            for entry in self.store.entries.values()
            if isinstance(entry, Claim) and entry.owner.name == host
        }


class ClaimTests(FleetTestCase):
    def test_hosts_with_one_subnet_use_different_addresses(self) -> None:
        pools = {host: host.open() for host in (self.a, self.b)}
        given = [host.ask(pools[host]) for _ in range(30) for host in (self.a, self.b)]
        self.assertEqual(len(set(given)), 60)

    def test_reserve_is_claimed_when_a_pool_is_opened(self) -> None:
        self.a.open()
        states = {self.claim(address).state for address in self.addresses_of("a")}
        self.assertEqual((len(self.addresses_of("a")), states), (8, {ClaimState.RESERVE}))

    def test_next_address_is_claimed_after_the_reply(self) -> None:
        pool = self.a.open()
        request = RequestAddress(pool, None, Purpose.ENDPOINT)
        self.a.plugin.wait(self.a.plugin.addresses.request_address(request))
        self.assertEqual(len(self.addresses_of("a")), 8)
        self.a.plugin.clock.advance(FILL_DELAY)
        self.assertEqual(len(self.addresses_of("a")), 9)

    def test_used_address_is_shown_to_the_fleet(self) -> None:
        address = self.a.ask(self.a.open(), name="web")
        self.assertEqual((self.claim(address).state, self.claim(address).container), (ClaimState.USED, "web"))

    def test_requested_address_of_another_host_is_refused(self) -> None:
        self.a.ask(self.a.open(), "192.168.1.50", "web")
        with self.assertRaises(RequestRefused) as refused:
            self.b.ask(self.b.open(), "192.168.1.50")
        self.assertIn("192.168.1.50 belongs to host a for container web", str(refused.exception))
        self.assertNotIn("192.168.1.50", self.addresses_of("b"))

    def test_gateway_is_shared(self) -> None:
        for host in (self.a, self.b):
            host.ask(host.open(), "192.168.1.1", purpose=Purpose.GATEWAY)
        entry = self.store.entries["default", parse_address("192.168.1.1")]
        assert isinstance(entry, SharedAddress)
        self.assertEqual({host.name for host in entry.holders}, {"a", "b"})

    def test_containers_address_is_refused_as_a_gateway(self) -> None:
        self.a.ask(self.a.open(), "192.168.1.1")
        with self.assertRaises(RequestRefused):
            self.b.ask(self.b.open(), "192.168.1.1", purpose=Purpose.GATEWAY)

    def test_other_lan_has_its_own_addresses(self) -> None:
        self.a.ask(self.a.open(), "192.168.1.50")
        self.assertEqual(self.b.ask(self.b.open(lan="lab"), "192.168.1.50"), "192.168.1.50")


class UnavailableStoreTests(FleetTestCase):
    def test_reserve_serves_while_the_store_is_away(self) -> None:
        pool = self.a.open()
        self.a.claims.cut()
        given = {self.a.ask(pool) for _ in range(8)}
        self.assertEqual(given, self.addresses_of("a"))
        with self.assertRaises(RequestRefused) as refused:
            self.a.ask(pool)
        self.assertIn("no spare address", str(refused.exception))

    def test_container_restarts_while_the_store_is_away(self) -> None:
        pool = self.a.open()
        address = self.a.ask(pool, name="web")
        self.a.claims.cut()
        self.a.release(pool, address)
        self.assertEqual(self.a.ask(pool, name="web"), address)

    def test_reserve_outlives_a_restart_without_the_store(self) -> None:
        pool = self.a.open()
        reserve = self.addresses_of("a")
        self.a.kill()
        again = self.host("a", self.a.plugin)
        again.claims.is_cut = True
        self.assertEqual({again.ask(pool) for _ in range(8)}, reserve)

    def test_lost_reply_loses_no_address(self) -> None:
        pool = self.a.open()
        self.a.claims.loses_replies = True
        with self.assertRaises(RequestRefused):
            self.a.ask(pool, "192.168.1.77")
        self.a.claims.loses_replies = False
        self.a.claims.lose("the connection broke")
        self.a.plugin.clock.pump([1.0] * 30)
        self.assertEqual(self.a.ask(pool, "192.168.1.77"), "192.168.1.77")
        self.assertEqual(self.claim("192.168.1.77").state, ClaimState.USED)


class HandOverTests(FleetTestCase):
    def test_container_keeps_its_address_on_another_host(self) -> None:
        pool_a, pool_b = self.a.open(identity="name"), self.b.open(identity="name")
        address = self.a.ask(pool_a, name="web")
        mac = self.claim(address).mac
        self.assertTrue(mac)
        self.a.release(pool_a, address)
        self.assertEqual(self.b.ask(pool_b, name="web"), address)
        self.assertEqual(
            (self.claim(address).owner.name, self.claim(address).mac, self.claim(address).state),
            ("b", mac, ClaimState.USED),
        )
        self.assertNotEqual(self.a.ask(pool_a, name="web"), address)

    def test_released_address_is_handed_over_on_request(self) -> None:
        pool_a, pool_b = self.a.open(), self.b.open()
        address = self.a.ask(pool_a)
        self.a.release(pool_a, address)
        self.assertEqual(self.b.ask(pool_b, address), address)

    def test_what_was_seen_on_the_lan_before_a_hand_over_does_not_count(self) -> None:
        pool_a = self.a.open()
        pool_b = self.b.open(parent="eth0", conflict_detection="on")
        binding = self.b.plugin.pool_binding
        self.b.plugin.wait(binding.network_created("eth0", [(parse_network(SUBNET), ())], NETWORK))
        address = self.a.ask(pool_a)
        (socket,) = self.b.plugin.lan_sockets.values()
        for frame in announcement_frames(parse_address(address), "7a:42:00:00:00:01"):
            socket.receive(frame)
        self.a.release(pool_a, address)
        self.assertEqual(self.b.ask(pool_b, address), address)

    def test_address_of_a_host_that_is_down_is_refused(self) -> None:
        pool_a, pool_b = self.a.open(), self.b.open()
        address = self.a.ask(pool_a, name="web")
        self.a.release(pool_a, address)
        self.a.kill()
        with self.assertRaises(RequestRefused) as refused:
            self.b.ask(pool_b, name="web")
        self.assertIn("fleet forget a", str(refused.exception))

    def test_running_container_of_that_name_keeps_its_address(self) -> None:
        pool_a, pool_b = self.a.open(), self.b.open()
        address = self.a.ask(pool_a, name="web")
        self.assertNotEqual(self.b.ask(pool_b, name="web"), address)
        self.assertEqual(self.claim(address).owner.name, "a")


class ReplacedStoreTests(FleetTestCase):
    def test_addresses_are_claimed_anew_in_an_empty_store(self) -> None:
        address = self.a.ask(self.a.open(), name="web")
        self.store.restore(evolve(FakeStore().snapshot(), revision=1), "second")
        self.a.plugin.clock.pump([1.0] * 30)
        self.assertEqual(self.claim(address).owner.name, "a")
        self.assertEqual(self.claim(address).state, ClaimState.USED)

    def test_address_with_two_owners_is_kept_and_reported(self) -> None:
        backup = self.store.snapshot()
        address = self.a.ask(self.a.open())
        self.store.restore(backup, "second")
        other = Claim("default", parse_address(address), Host("c", "c"), "x", ClaimState.USED, "db")
        self.store.set_entry(other.key, other)
        self.a.plugin.clock.pump([1.0] * 30)
        self.assertEqual(self.claim(address).owner.name, "c")
        own_claims = self.a.plugin.parts.fleet.own_claims
        assert own_claims is not None
        self.assertEqual(list(own_claims.disputed), [other.key])


class SweepTests(FleetTestCase):
    def test_released_address_rests_and_goes_back(self) -> None:
        pool = self.a.open()
        given = [self.a.ask(pool) for _ in range(20)]
        for address in given:
            self.a.release(pool, address)
        self.assertEqual({self.claim(address).state for address in given}, {ClaimState.RESTING})
        self.a.plugin.clock.pump([1.0] * int(REST + 2 * SWEEP_INTERVAL))
        self.assertLessEqual(len(self.addresses_of("a")), 20)
        self.a.plugin.clock.pump([10.0] * 80)
        self.assertEqual(len(self.addresses_of("a")), 8)

    def test_released_pool_gives_its_reserve_back(self) -> None:
        pool = self.a.open()
        self.a.plugin.wait(self.a.plugin.pools.release_pool(pool))
        self.a.plugin.clock.pump([1.0] * int(2 * SWEEP_INTERVAL))
        self.assertEqual(self.addresses_of("a"), set())


class NameTests(FleetTestCase):
    def test_second_host_of_one_name_claims_nothing(self) -> None:
        self.a.open()
        before = self.addresses_of("a")
        twin = self.host("a", PluginHarness(config=LAN))
        twin.session._record = evolve(twin.session._record, host=Host("a", "another"))
        self.assertEqual(self.addresses_of("a"), before)

    def test_refusal_says_that_another_host_has_the_name(self) -> None:
        pool = self.b.open()
        self.store.set_record("b", HostRecord(Host("b", "twin"), "session", "boot"))
        self.b.plugin.clock.pump([1.0] * 5)
        with self.assertRaises(RequestRefused) as refused:
            for _ in range(9):
                self.b.ask(pool)
        self.assertIn("another host of the fleet is called 'b'", str(refused.exception))

    def test_copy_of_a_state_directory_claims_nothing(self) -> None:
        self.store.set_record(
            "original", HostRecord(Host("original", "instance-c"), "session", "another boot")
        )
        copy = self.host("c")
        copy.open()
        self.assertEqual(self.addresses_of("c"), set())


class JoiningTests(FleetTestCase):
    def test_addresses_from_before_the_fleet_are_claimed(self) -> None:
        alone = PluginHarness(config=LAN)
        pool = alone.wait(
            alone.pools.request_pool(RequestPool("Local", parse_network(SUBNET), None, {}))
        ).pool_id
        request = RequestAddress(pool, parse_address("192.168.1.9"), Purpose.ENDPOINT, "old")
        alone.wait(alone.addresses.request_address(request))
        self.host("c", alone)
        self.assertEqual(
            (self.claim("192.168.1.9").owner.name, self.claim("192.168.1.9").state), ("c", ClaimState.USED)
        )

    def test_gateway_from_before_the_fleet_is_shared(self) -> None:
        alone = PluginHarness(config=LAN)
        pool = alone.wait(
            alone.pools.request_pool(RequestPool("Local", parse_network(SUBNET), None, {}))
        ).pool_id
        request = RequestAddress(pool, parse_address("192.168.1.1"), Purpose.GATEWAY, "")
        alone.wait(alone.addresses.request_address(request))
        self.host("c", alone)
        self.assertIsInstance(self.store.entries["default", parse_address("192.168.1.1")], SharedAddress)
