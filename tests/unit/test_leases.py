"""All leases of a host: concurrent calls, kills, a full disk, an absent parent."""

from __future__ import annotations

from typing import Any

from attrs import evolve
from twisted.logger import LogLevel, capturedLogs

from macvlan_twisted.addresses import parse_address, parse_network
from macvlan_twisted.dhcp.binding import Binding
from macvlan_twisted.dhcp.store import LeaseRecord, Terms
from macvlan_twisted.errors import RequestRefused, StateError
from macvlan_twisted.ipam.requests import Purpose, RequestAddress, RequestPool
from macvlan_twisted.link_names import endpoint_link_name
from macvlan_twisted.option_values import ConflictDetection
from macvlan_twisted.reconcile.startup import leases_in_use
from macvlan_twisted.state.interfaces import RecordKind
from macvlan_twisted.state.serialize import from_document
from macvlan_twisted.testing.kernel import nic

from .dhcp_lan import DECLINE, DISCOVER, MAC, RELEASE, REQUEST, ClientFrame, Server
from .helpers import (
    ENDPOINT,
    NETWORK,
    OTHER_ENDPOINT,
    PluginHarness,
    PluginTestCase,
    endpoint_request,
    subnet,
)

TERMS = Terms("eth0", MAC, conflict_detection=ConflictDetection.OFF)
OTHER_MAC = "7a:42:00:00:00:02"


class LeasesTestCase(PluginTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.server = Server()
        self.heard: list[ClientFrame] = []
        self.unanswered: set[int] = set()
        self.plugin.answerers.append(self.listen)
        self.plugin.wires.use("eth0", "a network")
        self.plugin.wait(self.plugin.wires.ready("eth0"))
        self.plugin.records.steps.taken.clear()

    def listen(self, frame: bytes) -> list[bytes]:
        if frame[12:14] != b"\x08\x00":
            return []
        said = ClientFrame(frame)
        self.heard.append(said)
        return [] if said.kind in self.unanswered else self.server(frame)

    @property
    def kinds(self) -> list[int]:
        return [said.kind for said in self.heard]

    def take(self, plugin: PluginHarness | None = None, terms: Terms = TERMS) -> Binding:
        plugin = plugin or self.plugin
        return plugin.wait(plugin.leases.acquire(terms))

    def give_back(self, plugin: PluginHarness | None = None) -> None:
        plugin = plugin or self.plugin
        plugin.wait(plugin.leases.release("eth0", MAC))

    def rows(self) -> list[LeaseRecord]:
        return [
            from_document(LeaseRecord, each) for each in self.plugin.records.rows[RecordKind.LEASE].values()
        ]

    def next_life(self) -> PluginHarness:
        plugin = self.plugin.next_life()
        plugin.wires.use("eth0", "a network")
        self.heard.clear()
        return plugin

    def resume(self, plugin: PluginHarness) -> None:
        """Resume as the service does."""
        owned = leases_in_use(plugin.leases.known(), plugin.registry, plugin.open_pools.is_allocated)
        plugin.wait(plugin.leases.resume(owned))

    def assert_nobody_has_one(self, plugin: PluginHarness | None = None) -> None:
        plugin = plugin or self.plugin
        self.assertEqual(self.rows(), [])
        self.assertEqual(plugin.leases.known(), [])
        self.assertEqual(plugin.clock.getDelayedCalls(), [])
        self.take(plugin)


class RaceTests(LeasesTestCase):
    def test_release_during_acquisition_leaves_no_lease(self) -> None:
        self.server.away = True
        taken = self.plugin.start(self.plugin.leases.acquire(TERMS))
        self.give_back()
        self.failureResultOf(taken, RequestRefused)
        self.server.away = False
        self.assert_nobody_has_one()

    def test_release_during_saving_releases_the_lease(self) -> None:
        for writes in (1, 2):
            self.plugin.records.steps.hold.add("save")
            taken = self.plugin.start(self.plugin.leases.acquire(TERMS))
            for _ in range(writes - 1):
                self.plugin.records.steps.let_go()
            gone = self.plugin.start(self.plugin.leases.release("eth0", MAC))
            self.plugin.records.steps.let_all_go()
            self.failureResultOf(taken, RequestRefused)
            self.successResultOf(gone)
            self.assertEqual(self.kinds.count(RELEASE), writes - 1)
            self.plugin.records.rows[
                RecordKind.LEASE
            ].clear()  # a write that was given up may still have come through
            self.assert_nobody_has_one()
            self.give_back()
            self.heard.clear()

    def test_acquisition_waits_for_the_release_of_the_former_lease(self) -> None:
        self.take()
        self.plugin.records.steps.hold.add("erase")
        gone = self.plugin.start(self.plugin.leases.release("eth0", MAC))
        taken = self.plugin.start(self.plugin.leases.acquire(TERMS))
        self.assertNoResult(taken)
        self.plugin.records.steps.let_all_go()
        self.successResultOf(gone)
        self.successResultOf(taken)
        self.assertEqual(len(self.rows()), 1)

    def test_second_lease_of_a_mac_is_refused(self) -> None:
        self.server.away = True
        first = self.plugin.start(self.plugin.leases.acquire(TERMS))
        with self.assert_refused(RequestRefused, MAC, "eth0"):
            self.take()
        self.server.away = False
        self.plugin.clock.advance(2)
        self.successResultOf(first)
        with self.assert_refused(RequestRefused, MAC, "eth0"):
            self.take()
        self.assertNotIn(RELEASE, self.kinds)
        self.assertEqual(len(self.rows()), 1)

    def test_lease_released_during_resume_stays_released(self) -> None:
        self.take()
        self.take(terms=Terms("eth0", OTHER_MAC, conflict_detection=ConflictDetection.OFF))
        plugin = self.next_life()
        plugin.records.steps.hold.add("erase")
        resumed = plugin.start(plugin.leases.resume({f"eth0 {MAC}"}))  # the other one is nobody's
        gone = plugin.start(plugin.leases.release("eth0", MAC))
        plugin.records.steps.let_all_go()
        self.successResultOf(resumed)
        self.successResultOf(gone)
        self.assertEqual(self.kinds, [RELEASE, RELEASE])
        self.assertEqual(plugin.clock.getDelayedCalls(), [])


class KillTests(LeasesTestCase):
    def test_unanswered_request_of_an_earlier_life_is_released(self) -> None:
        self.unanswered = {REQUEST}
        self.addCleanup(self.plugin.start(self.plugin.leases.acquire(TERMS)).addErrback, lambda _: None)
        self.addCleanup(self.plugin.leases.close)
        self.assertEqual([row.granted for row in self.rows()], [False])
        plugin = self.next_life()
        self.resume(plugin)
        self.assertEqual(self.kinds, [RELEASE])
        self.unanswered = set()
        self.assert_nobody_has_one(plugin)

    def test_lease_without_a_container_is_released_at_start(self) -> None:
        """Its host link exists only for the release."""
        facts = self.take()
        plugin = self.plugin.next_life()
        self.heard.clear()
        before = plugin.link_names()
        self.resume(plugin)
        self.assertEqual([(said.kind, said.ciaddr) for said in self.heard], [(RELEASE, str(facts.address))])
        self.assertEqual({name for name in plugin.link_names() - before if not name.startswith("mt")}, set())
        plugin.wait(plugin.links.deletions_finished())
        self.assertEqual((plugin.registry.host_links, self.rows(), plugin.leases.known()), ({}, [], []))

    def test_lease_of_a_running_container_resumes_by_init_reboot(self) -> None:
        facts = self.take()
        plugin = self.next_life()
        plugin.wait(plugin.leases.resume({f"eth0 {MAC}"}))
        self.assertEqual(
            [(s.kind, s.requested, s.server_id) for s in self.heard], [(REQUEST, str(facts.address), None)]
        )
        plugin.clock.advance(1801)
        self.assertEqual([(s.kind, s.ciaddr) for s in self.heard[1:]], [(REQUEST, str(facts.address))])

    def test_containers_keep_their_leases_when_the_service_stops(self) -> None:
        self.take()
        self.heard.clear()
        self.plugin.leases.close()
        self.plugin.clock.advance(10000)
        self.assertEqual(self.kinds, [])
        self.assertEqual(len(self.rows()), 1)

    def test_half_acquired_lease_is_released_when_the_service_stops(self) -> None:
        self.plugin.records.steps.hold.add("save")
        taken = self.plugin.start(self.plugin.leases.acquire(TERMS))
        self.plugin.records.steps.let_go()  # the intent: the server has granted it by now
        self.plugin.leases.close()
        self.failureResultOf(taken, RequestRefused)
        self.assertEqual(self.kinds, [DISCOVER, REQUEST, RELEASE])
        self.assertEqual(self.rows(), [])


class DiskTests(LeasesTestCase):
    def test_request_needs_a_saved_intent(self) -> None:
        self.plugin.records.steps.refuse["save"] = 28
        with self.assert_refused(StateError, "save"):
            self.take()
        self.assertEqual(self.kinds, [DISCOVER])
        self.plugin.records.steps.refuse.clear()
        self.assert_nobody_has_one()

    def test_lease_that_cannot_be_saved_can_be_acquired_later(self) -> None:
        self.plugin.records.steps.refuse_number = 2
        with self.assert_refused(StateError, "save"):
            self.take()
        self.assertEqual(self.kinds, [DISCOVER, REQUEST, RELEASE])
        self.assert_nobody_has_one()

    def test_mac_is_free_although_the_row_of_an_attempt_stays(self) -> None:
        self.plugin.records.steps.refuse["erase"] = 28
        self.server.naks = 99
        with self.assert_refused(RequestRefused, "then refused it"):
            self.take()
        self.server.naks = 0
        self.take()
        self.assertEqual([row.granted for row in self.rows()], [True])

    def test_mac_is_free_although_the_row_of_a_lease_stays(self) -> None:
        self.take()
        self.plugin.records.steps.refuse["erase"] = 28
        with self.assert_refused(StateError, "erase"):
            self.give_back()
        self.assertEqual(self.kinds[-1], RELEASE)
        self.plugin.records.steps.refuse.clear()
        self.give_back()
        self.take()

    def test_undeletable_row_does_not_stop_other_leases(self) -> None:
        self.take()
        self.take(terms=Terms("eth0", OTHER_MAC, conflict_detection=ConflictDetection.OFF))
        plugin = self.next_life()
        plugin.records.steps.refuse["erase"] = 28
        with capturedLogs() as events:
            plugin.wait(plugin.leases.resume({f"eth0 {OTHER_MAC}"}))
        self.assertEqual(sorted(self.kinds), [REQUEST, RELEASE])
        (told,) = [each for each in events if each["log_level"] is LogLevel.error]
        self.assertEqual(told["mac"], MAC)


class ParentTests(LeasesTestCase):
    def test_lease_resumes_when_its_parent_appears(self) -> None:
        facts = self.take()
        self.plugin.kernel.delete("eth0")
        plugin = self.next_life()
        plugin.wait(plugin.leases.resume({f"eth0 {MAC}"}))
        plugin.clock.advance(1)
        self.assertEqual(self.kinds, [])
        plugin.kernel.put(nic("eth0", 12))
        for _ in range(30):
            plugin.clock.advance(1)
        self.assertEqual(
            {(said.kind, said.requested) for said in self.heard}, {(REQUEST, str(facts.address))}
        )

    def test_lease_on_an_absent_parent_is_forgotten(self) -> None:
        self.take()
        self.plugin.kernel.delete("eth0")
        plugin = self.next_life()
        self.resume(plugin)
        self.assertEqual(self.rows(), [])


class ReservedAddressTests(LeasesTestCase):
    """What the server offers is 192.168.77.100."""

    def open(self, pool: str, **options: str) -> str:
        request = RequestPool("Local", parse_network(pool), None, options)
        return self.plugin.wait(self.plugin.pools.request_pool(request)).pool_id

    def refuse_lease(self, pool_id: str, *words: str, address: str | None = None) -> None:
        wanted = None if address is None else parse_address(address)
        request = RequestAddress(pool_id, wanted, endpoint_name="box")
        asked = self.plugin.start(self.plugin.addresses.request_address(request))
        for _ in range(100):
            self.plugin.clock.advance(1)
        refusal = str(self.failureResultOf(asked, RequestRefused).value)
        for word in words:
            self.assertIn(word, refusal)
        self.assertEqual(self.rows(), [])

    def test_lease_of_a_pools_broadcast_address_is_refused(self) -> None:
        self.server.address = "192.168.77.127"
        pool = self.open("192.168.77.0/25", dhcp="true")
        self.refuse_lease(pool, "192.168.77.127", "network or broadcast address of 192.168.77.0/25")
        self.assertIn(DECLINE, self.kinds)

    def test_lease_of_a_pools_network_address_is_refused(self) -> None:
        self.server.address = "192.168.77.128"
        pool = self.open("192.168.77.128/25", dhcp="true")
        self.refuse_lease(pool, "192.168.77.128", "network or broadcast address")

    def test_lease_of_a_reserved_address_is_refused(self) -> None:
        pool = self.open("192.168.77.0/24", dhcp="true")
        gateway = RequestAddress(pool, parse_address("192.168.77.100"), Purpose.GATEWAY)
        self.plugin.wait(self.plugin.addresses.request_address(gateway))
        self.refuse_lease(pool, "192.168.77.100", "reserved in pool 192.168.77.0/24", "server's pool")

    def test_reserved_address_is_not_even_asked_for(self) -> None:
        pool = self.open("192.168.77.0/24", dhcp="true")
        gateway = RequestAddress(pool, parse_address("192.168.77.100"), Purpose.GATEWAY)
        self.plugin.wait(self.plugin.addresses.request_address(gateway))
        self.refuse_lease(pool, "192.168.77.100", "reserved", address="192.168.77.100")
        self.refuse_lease(pool, "192.168.77.255", "not a usable address", address="192.168.77.255")
        self.assertEqual(self.kinds, [])

    def test_reserved_address_is_refused_without_a_pool_of_dhcp(self) -> None:
        """A network with no address management, on the parent of a pool that reserves the address."""
        self.open("192.168.77.0/24")
        (pool,) = self.plugin.pools.open_pools
        gateway = RequestAddress(pool.pool_id, parse_address("192.168.77.100"), Purpose.GATEWAY)
        self.plugin.wait(self.plugin.addresses.request_address(gateway))
        taking = self.plugin.start(self.plugin.leases.acquire(TERMS))
        for _ in range(100):
            self.plugin.clock.advance(1)
        self.assertIn("reserved in pool", str(self.failureResultOf(taking, RequestRefused).value))


class EndpointTests(LeasesTestCase):
    """Without address management: the lease is taken in CreateEndpoint, under the container's MAC."""

    def setUp(self) -> None:
        super().setUp()
        self.plugin.create_network(
            subnets=(evolve(subnet("0.0.0.0/0"), null_ipam=True),), parent="eth0", dhcp="true"
        )

    def create(self, endpoint_id: str = ENDPOINT, plugin: PluginHarness | None = None) -> Any:
        plugin = plugin or self.plugin
        return plugin.wait(plugin.endpoints.create(endpoint_request(endpoint_id, NETWORK, None, MAC)))

    def test_lease_survives_another_container_with_its_mac(self) -> None:
        self.create()
        self.plugin.kernel.move_away(endpoint_link_name(ENDPOINT), up=True)
        with self.assert_refused(RequestRefused, MAC, "eth0"):
            self.create(OTHER_ENDPOINT)
        self.assertNotIn(RELEASE, self.kinds)
        self.assertEqual(len(self.rows()), 1)
        self.assertEqual(list(self.plugin.registry.endpoints), [ENDPOINT])

    def test_lease_passes_to_the_successor_of_a_forgotten_container(self) -> None:
        first = self.create()
        self.plugin.kernel.delete(
            endpoint_link_name(ENDPOINT)
        )  # with its sandbox, when the engine was killed
        second = self.create(OTHER_ENDPOINT)
        self.assertEqual(second.address, first.address)
        self.assertNotIn(RELEASE, self.kinds)
        self.assertEqual(len(self.rows()), 1)
        self.plugin.delete_endpoint(OTHER_ENDPOINT)
        self.assertEqual(self.kinds[-1], RELEASE)
        self.assertEqual(self.rows(), [])

    def test_lease_of_an_unsaved_endpoint_is_released(self) -> None:
        self.plugin.records.steps.refuse_number = len(self.plugin.records.steps.taken) + 3
        with self.assert_refused(StateError, "save"):
            self.create()
        self.assertEqual(self.kinds[-1], RELEASE)
        self.assertEqual(self.rows(), [])
