"""Conflicts over containers' addresses, and addresses that the engine's IPAM allocates."""

from __future__ import annotations

from twisted.python.failure import Failure

from macvlan_twisted.addresses import parse_address, parse_interface
from macvlan_twisted.driver.requests import EndpointCall
from macvlan_twisted.errors import RequestRefused
from macvlan_twisted.lan.arp_nd import announcement_frames
from macvlan_twisted.state.interfaces import RecordKind

from .conflict_cases import NEIGHBOUR, PROBER, ConflictTestCase, log_of
from .helpers import ENDPOINT, NETWORK, OTHER_ENDPOINT, OTHER_NETWORK, endpoint_request, subnet

ADDRESS = "192.168.1.7"
OURS = "7a:42:c0:a8:01:07"


class EngineManagedTestCase(ConflictTestCase):
    """The engine's IPAM allocates the addresses, and CreateEndpoint has them."""

    def setUp(self) -> None:
        super().setUp()
        self.plugin.create_network()

    def create(self, endpoint_id: str = ENDPOINT, address: str = ADDRESS, network_id: str = NETWORK) -> None:
        """Raise the error that the engine gets."""
        request = endpoint_request(endpoint_id, network_id, f"{address}/24")
        created = self.plugin.start(self.plugin.endpoints.create(request))
        self.pass_time()
        outcome: list[object] = []
        created.addBoth(outcome.append)
        if isinstance(outcome[0], Failure):
            outcome[0].raiseException()

    def delete(self, endpoint_id: str = ENDPOINT, network_id: str = NETWORK) -> None:
        self.plugin.wait(self.plugin.removal.delete(EndpointCall(network_id, endpoint_id)))

    def claims(self, address: str = ADDRESS, mac: str = NEIGHBOUR) -> None:
        for frame in announcement_frames(parse_address(address), mac):
            self.plugin.lan_sockets["eth0"].receive(frame)

    def rows(self) -> dict[str, tuple[str, str]]:
        """By address: the MAC of the other host, and that of our container."""
        kept = self.plugin.records.all_rows().get(RecordKind.CONFLICT, {})
        return {str(row["address"]): (row["mac"], row.get("endpoint_mac", "")) for row in kept.values()}

    def ports(self) -> set[str]:
        return {name for name in self.plugin.link_names() if name.startswith("mvt")}


class EngineManagedTests(EngineManagedTestCase):
    def test_address_of_a_neighbour_is_refused(self) -> None:
        self.neighbour_has(ADDRESS)
        with self.assert_refused(RequestRefused, ADDRESS, "eth0", NEIGHBOUR, "--aux-address"):
            self.create()
        self.assertEqual(self.ports(), set())
        self.assertEqual(dict(self.plugin.registry.endpoints), {})
        self.assertNotIn(RecordKind.ENDPOINT, self.plugin.records.all_rows())
        self.assertFalse(self.answers_for(ADDRESS))

    def test_free_address_is_defended_until_its_network_goes(self) -> None:
        self.create()
        self.assertEqual(len(self.ports()), 1)
        self.assertTrue(self.answers_for(ADDRESS))
        self.delete()
        tap = self.plugin.lan_sockets["eth0"]
        self.plugin.wait(self.plugin.networks.delete(NETWORK))
        self.assertFalse(self.answers_for(ADDRESS))
        self.assertEqual(tap.listeners, 0)

    def test_refused_address_is_accepted_once_it_is_free(self) -> None:
        self.neighbour_has(ADDRESS)
        with self.assert_refused(RequestRefused, ADDRESS):
            self.create()
        self.neighbour_goes()
        self.create()
        self.assertEqual(self.rows(), {})

    def test_address_of_the_host_is_refused(self) -> None:
        self.plugin.kernel.add_address("eth1", parse_interface(f"{ADDRESS}/24"))
        with self.assert_refused(RequestRefused, ADDRESS, "which is the host itself"):
            self.create()

    def test_failed_endpoint_leaves_no_address_defended(self) -> None:
        self.plugin.steps.refuse["add_macvlan"] = 12
        with self.assert_refused(Exception):
            self.create()
        self.plugin.steps.refuse.clear()
        self.create(address="192.168.1.8")
        self.assertEqual(self.defended(ADDRESS, "192.168.1.8"), ["192.168.1.8"])

    def test_inconclusive_probe_is_counted_or_strictly_refused(self) -> None:
        self.create()
        self.plugin.lan_sockets["eth0"].down = True
        self.create(OTHER_ENDPOINT, "192.168.1.8")
        self.assertEqual(self.plugin.conflicts.inconclusive, 1)
        self.plugin.create_network(
            OTHER_NETWORK, subnets=(subnet("192.168.2.0/24", "192.168.2.1"),), conflict_detection="strict"
        )
        with self.assert_refused(
            RequestRefused, "cannot be probed", "192.168.2.7", "eth0", "Network is down"
        ):
            self.create("e0ffee" * 10 + "0003", "192.168.2.7", OTHER_NETWORK)
        self.assertEqual(self.plugin.conflicts.inconclusive, 1)

    def test_no_probe_is_sent_with_detection_off(self) -> None:
        self.neighbour_has("192.168.2.7")
        subnets = (subnet("192.168.2.0/24", "192.168.2.1"),)
        self.plugin.create_network(OTHER_NETWORK, subnets=subnets, conflict_detection="off")
        self.create(OTHER_ENDPOINT, "192.168.2.7", OTHER_NETWORK)
        self.assertEqual(len(self.ports()), 1)

    def test_conflicts_are_forgotten_with_the_network(self) -> None:
        self.neighbour_has(ADDRESS)
        with self.assert_refused(RequestRefused, ADDRESS):
            self.create()
        self.assertEqual(set(self.rows()), {ADDRESS})
        self.plugin.wait(self.plugin.networks.delete(NETWORK))
        self.assert_nothing_left()
        self.assertEqual(self.plugin.clock.getDelayedCalls(), [])


class ContestedTests(EngineManagedTestCase):
    def test_conflict_is_logged_once_and_lasts_as_the_container(self) -> None:
        self.create()
        lines = log_of(self)
        self.plugin.registry.names.containers[ENDPOINT] = "web"
        for _ in range(3):
            self.claims()
        told = [line for line in lines if ADDRESS in line]
        self.assertEqual(len(told), 1)
        for word in (OURS, NEIGHBOUR, "eth0", "container web"):
            self.assertIn(word, told[0])
        self.assertEqual(self.rows(), {ADDRESS: (NEIGHBOUR, OURS)})
        self.claims(mac=PROBER)
        self.assertEqual(self.rows(), {ADDRESS: (PROBER, OURS)})
        self.delete()
        self.assertEqual(self.rows(), {})

    def test_frames_of_the_container_are_no_conflict(self) -> None:
        self.create()
        self.claims(mac=OURS)
        self.assertEqual(self.rows(), {})

    def test_conflict_is_noticed_after_a_restart(self) -> None:
        self.create()
        self.claims()
        self.plugin = self.plugin.next_life()
        self.assertEqual(self.rows(), {ADDRESS: (NEIGHBOUR, OURS)})
        self.plugin.wait(self.plugin.conflicts.watch("eth0"))
        self.claims(mac=PROBER)
        self.assertEqual(self.rows(), {ADDRESS: (PROBER, OURS)})
        self.delete()
        self.assertEqual(self.rows(), {})

    def test_contested_address_is_not_quarantined(self) -> None:
        self.create()
        self.claims()
        self.assertEqual(self.plugin.conflicts.table.quarantined("eth0"), [])

    def test_unsaved_conflict_stops_nothing(self) -> None:
        self.create()
        self.plugin.records.steps.refuse["save"] = 28
        self.claims()
        self.plugin.records.steps.refuse.clear()
        self.delete()
        self.assertEqual(self.rows(), {})
        self.flushLoggedErrors()


class TwoNetworksTests(EngineManagedTestCase):
    def test_address_under_engine_ipam_is_not_allocated(self) -> None:
        self.create(address="192.168.1.2")
        pool = self.ready("192.168.1.0/24")
        self.assertEqual([self.gets(pool), self.gets(pool)], ["192.168.1.3", "192.168.1.4"])

    def test_conflicts_are_separate_for_each_parent(self) -> None:
        self.neighbour_has(ADDRESS)
        with self.assert_refused(RequestRefused, ADDRESS):
            self.create()
        self.taken.clear()
        subnets = (subnet("192.168.1.0/24", "192.168.1.1"),)
        self.plugin.create_network(OTHER_NETWORK, subnets=subnets, parent="eth1")
        self.create(network_id=OTHER_NETWORK)
        self.assertEqual(len(self.ports()), 1)
