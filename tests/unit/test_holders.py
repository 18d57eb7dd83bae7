"""Each address has one holder: a container, the prefetch, the host, or a pending request."""

from __future__ import annotations

from typing import Any

from attrs import evolve
from twisted.internet.defer import Deferred

from macvlan_twisted.addresses import parse_address, parse_network
from macvlan_twisted.driver import requests
from macvlan_twisted.errors import RequestRefused
from macvlan_twisted.ipam.requests import Purpose, RequestAddress, RequestPool
from macvlan_twisted.lan.arp_nd import announcement_frames

from .conflict_cases import DETECTING, NEIGHBOUR, POOL, ConflictTestCase, tens
from .helpers import ENDPOINT, NETWORK, OTHER_ENDPOINT, OTHER_NETWORK, network_request, subnet
from .test_leases import LeasesTestCase

DOCKERS = (subnet("10.0.0.0/24", "10.0.0.254"),)
"""The subnets of a network whose addresses the engine manages."""


class EngineManagedNetworkTests(ConflictTestCase):
    def setUp(self) -> None:
        super().setUp()
        for network in (NETWORK, OTHER_NETWORK):
            self.plugin.create_network(network, subnets=DOCKERS)

    def start(self, endpoint: str, network: str, address: str, mac: str | None = None) -> Deferred[Any]:
        return self.plugin.begin_create_endpoint(endpoint, network, f"{address}/24", mac)

    def test_one_of_two_containers_at_once_gets_the_address(self) -> None:
        made: list[object] = []
        refused: list[str] = []
        for number, (endpoint, network) in enumerate(
            ((ENDPOINT, NETWORK), (OTHER_ENDPOINT, OTHER_NETWORK)), 1
        ):
            creation = self.start(endpoint, network, "10.0.0.7", f"02:aa:00:00:00:0{number}")
            creation.addCallbacks(made.append, lambda failure: refused.append(failure.getErrorMessage()))
        self.pass_time(1)
        self.assertEqual((len(made), len(refused)), (1, 1))
        self.assertIn("10.0.0.7", refused[0])

    def test_refused_container_leaves_the_holder_defended(self) -> None:
        self.start(ENDPOINT, NETWORK, "10.0.0.7", "02:aa:00:00:00:01")
        self.pass_time(1)
        refused = self.start(OTHER_ENDPOINT, OTHER_NETWORK, "10.0.0.7", "02:aa:00:00:00:02")
        self.pass_time(1)
        self.failureResultOf(refused, RequestRefused)
        for frame in announcement_frames(parse_address("10.0.0.7"), NEIGHBOUR):
            self.plugin.lan_sockets["eth0"].receive(frame)
        self.assertEqual(self.conflicts(), {"10.0.0.7": NEIGHBOUR})
        call = requests.EndpointCall(NETWORK, ENDPOINT)
        self.assertEqual(
            self.plugin.wait(self.plugin.endpoints.operational_info(call))["conflict"], NEIGHBOUR
        )
        self.assertEqual(self.defended("10.0.0.7"), ["10.0.0.7"])

    def test_allocated_and_prefetched_addresses_are_refused(self) -> None:
        pool = self.ready()
        allocated = self.gets(pool)
        for address in (allocated, "10.0.0.5"):
            refused = self.start(ENDPOINT, NETWORK, address)
            self.pass_time(1)
            self.assertIn(address, self.refusal_of(refused))
        self.assertEqual(self.defended(*tens(1, 8)), tens(1, 8))

    def test_predicted_address_is_available_to_a_pool(self) -> None:
        self.start(ENDPOINT, NETWORK, "10.0.0.1")
        self.pass_time(1)
        self.assertEqual(self.defended("10.0.0.2"), ["10.0.0.2"])
        self.assertEqual(self.gets(self.ready()), "10.0.0.2")


class ReservedAddressTests(ConflictTestCase):
    def test_reservation_of_a_second_network_ends_the_prefetch(self) -> None:
        pool = self.ready()
        other = self.open(POOL)
        self.ask(other, "10.0.0.3", Purpose.AUXILIARY, name="")
        self.gateway(other, "10.0.0.5")
        self.assertEqual(self.defended(*tens(1, 6)), ["10.0.0.1", "10.0.0.2", "10.0.0.4", "10.0.0.6"])
        allocated = [self.ask(pool) for _ in range(4)]
        self.assertEqual(allocated, ["10.0.0.1/24", "10.0.0.2/24", "10.0.0.4/24", "10.0.0.6/24"])

    def test_address_named_during_its_probe_is_allocated_once(self) -> None:
        self.plugin.steps.hold.add("host_addresses")
        pool = self.made()
        asked = self.begin(pool, "10.0.0.1")
        self.plugin.steps.held.reverse()  # threads may finish in any order
        self.plugin.steps.hold.clear()
        self.plugin.steps.let_all_go()
        self.pass_time()
        self.successResultOf(asked)
        self.assertNotIn("10.0.0.1/24", [self.ask(pool) for _ in range(7)])

    def test_two_sets_on_one_parent_never_share_an_address(self) -> None:
        self.use(evolve(DETECTING, host_interface="eth9"))
        one = self.ready(parent="eth0")
        other = self.open(POOL)
        self.plugin.wait(self.plugin.pool_binding.network_created("eth0", [(parse_network(POOL), ())]))
        self.pass_time()
        allocated = [self.gets(pool) for pool in (one, other, one, other)]
        self.assertEqual(len(set(allocated)), 4)

    def test_address_reserved_for_the_host_is_probed(self) -> None:
        self.neighbour_has("10.0.0.9")
        pool = (subnet(POOL, "10.0.0.254", host="10.0.0.9"),)
        request = network_request(subnets=(evolve(pool[0], managed_here=True),), host_access="true")
        refused = self.plugin.start(self.plugin.networks.create(request))
        self.pass_time()
        self.assertIn(NEIGHBOUR, self.refusal_of(refused))


class ForgottenAddressTests(ConflictTestCase):
    def test_address_of_a_forgotten_container_can_be_allocated(self) -> None:
        pool = self.ready()
        self.plugin.conflicts.assign(
            "eth0", parse_address("10.0.0.100"), "7a:42:0a:00:00:64", is_managed=True
        )
        self.assertEqual(self.gets(pool, "10.0.0.100"), "10.0.0.100")

    def test_address_of_a_container_that_runs_on_is_refused(self) -> None:
        pool = self.ready()
        self.plugin.conflicts.assign(
            "eth0", parse_address("10.0.0.100"), "7a:42:0a:00:00:64", is_managed=True
        )
        self.neighbour_has("10.0.0.100", mac="7a:42:0a:00:00:64")
        refused = self.begin(pool, "10.0.0.100")
        self.pass_time()
        self.assertIn("7a:42:0a:00:00:64", self.refusal_of(refused))

    def test_new_endpoint_replaces_one_with_another_mac(self) -> None:
        self.plugin.create_network(subnets=(evolve(subnet(POOL), managed_here=True),))
        pool = self.ready()
        self.ask(pool, "10.0.0.5")
        self.plugin.create_endpoint(ENDPOINT, address="10.0.0.5/24", mac="02:aa:00:00:00:01")
        self.release(pool, "10.0.0.5")
        self.pass_time(7)
        self.assertEqual(self.gets(pool, "10.0.0.5"), "10.0.0.5")
        self.plugin.create_endpoint(OTHER_ENDPOINT, address="10.0.0.5/24", mac="02:aa:00:00:00:02")
        self.assertEqual(list(self.plugin.registry.endpoints), [OTHER_ENDPOINT])

    def test_address_is_probed_on_the_parent_of_its_own_network(self) -> None:
        self.made()
        other = self.open(POOL)
        self.plugin.wait(self.plugin.pool_binding.network_created("eth1", [(parse_network(POOL), ())]))
        self.pass_time()
        self.gets(other)
        self.assertTrue(self.plugin.lan_sockets["eth1"].sent)


class ReleasedPoolTests(ConflictTestCase):
    def test_pool_released_during_a_probe_leaves_no_claim(self) -> None:
        self.ready()
        pool = self.ready()
        asked = self.begin(pool, "10.0.0.100", name="web")
        self.pass_time()
        self.successResultOf(asked)
        self.release(pool, "10.0.0.100")
        self.pass_time(6)
        again = self.begin(pool, name="web")
        self.assertNoResult(again)
        self.close(pool)
        self.pass_time(2)
        self.failureResultOf(again, RequestRefused)
        self.assertEqual(
            [each.pool_id for each in self.plugin.store.allocations() if each.pool_id == pool], []
        )
        self.plugin.next_life()


class ReleasedDhcpPoolTests(LeasesTestCase):
    def test_pool_released_during_dhcp_leaves_no_lease(self) -> None:
        pools = []
        for _ in range(2):
            options = {"dhcp": "true", "parent": "eth0", "conflict_detection": "off"}
            request = RequestPool("Local", parse_network("192.168.77.0/24"), None, options, False)
            pools.append(self.plugin.wait(self.plugin.pools.request_pool(request)).pool_id)
        self.server.away = True
        asked = self.plugin.start(self.plugin.addresses.request_address(RequestAddress(pools[0], None)))
        self.plugin.clock.advance(0.5)
        self.plugin.wait(self.plugin.pools.release_pool(pools[0]))
        self.server.away = False
        for _ in range(100):
            self.plugin.clock.advance(0.1)
        self.failureResultOf(asked, RequestRefused)
        self.assertEqual(self.plugin.store.allocations(), [])
        self.assertEqual(self.plugin.leases.known(), [])
        self.next_life()
