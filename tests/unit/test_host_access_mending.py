"""Host access beside other programs on the host, overlapping networks, and containers that the engine has forgotten."""

from __future__ import annotations

from ipaddress import ip_address
from typing import Any

from twisted.internet.defer import Deferred

from macvlan_twisted.link_names import endpoint_link_name
from macvlan_twisted.netlink.kernel import HostRoute

from .conflict_cases import log_of
from .helpers import ENDPOINT, OTHER_ENDPOINT, OTHER_NETWORK
from .host_access_cases import BOTH, HOST, HOST_6, REACHED, HostAccessTestCase, access_request, join


class OverlappingNetworkTests(HostAccessTestCase):
    """A network is made while the last one on its parent is deleted."""

    def overlap(self, mode: str) -> None:
        """Make a network of that mode, and one with host access while it is deleted."""
        plugin = self.plugin
        plugin.create_network(mode=mode)
        plugin.wait(plugin.wires.ready("eth0"))
        self.first_mac = plugin.lan_sockets["eth0"].mac
        plugin.lan_sockets["eth0"].broken = True
        plugin.steps.hold.add("find")
        ready = plugin.start(plugin.wires.ready("eth0"))  # holds the lock of the parent
        deleted = plugin.begin_delete_network()
        plugin.steps.hold.clear()
        created = plugin.start(plugin.networks.create(access_request(OTHER_NETWORK)))
        plugin.steps.let_all_go()
        calls: tuple[Deferred[Any], ...] = (ready, deleted, created)
        for each in calls:
            self.successResultOf(each)

    def test_network_made_during_the_last_deletion_has_the_link(self) -> None:
        self.overlap("bridge")
        self.assertEqual(self.addresses(), [HOST, HOST_6])
        self.run_container(network_id=OTHER_NETWORK)
        self.assertEqual(self.routes(), REACHED)
        self.plugin.delete_endpoint(network_id=OTHER_NETWORK)
        self.plugin.delete_network(OTHER_NETWORK)
        self.assert_nothing_left()

    def test_network_after_passthru_speaks_from_the_host_link(self) -> None:
        self.overlap("passthru")
        self.assertEqual(self.first_mac, "02:00:00:00:00:02")
        self.plugin.wait(self.plugin.wires.ready("eth0"))
        self.assertEqual(self.plugin.lan_sockets["eth0"].mac, self.plugin.registry.host_links["eth0"].mac)

    def test_join_restores_missing_addresses(self) -> None:
        self.open()
        self.plugin.wait(self.plugin.host_links.remove("eth0"))
        self.plugin.wait(self.plugin.host_links.ensure("eth0"))
        self.assertEqual(self.addresses(), [])
        self.run_container(OTHER_ENDPOINT)
        self.assertEqual(self.addresses(), [HOST, HOST_6])
        self.assertEqual(self.routes(), REACHED)


IN_THE_WAY = HostRoute(ip_address("192.168.1.7"), "eth1", None, 4)
NEXT = f"192.168.1.8 from {HOST}"


class BlockedRouteTests(HostAccessTestCase):
    """Another program has a route to the address of a container."""

    def setUp(self) -> None:
        super().setUp()
        self.open()
        self.run_container()
        self.plugin.kernel.delete(self.link)
        self.plugin.kernel.add_host_route(IN_THE_WAY)

    def join_another(self) -> None:
        self.run_container(OTHER_ENDPOINT, address="192.168.1.8/24", address_v6=None)

    def test_next_container_gets_its_route(self) -> None:
        self.join_another()
        self.assertEqual(self.routes(), sorted([*REACHED[1:], NEXT]))
        self.assertEqual(self.addresses(), [HOST, HOST_6])

    def test_next_join_makes_the_unblocked_route(self) -> None:
        self.join_another()
        self.plugin.kernel.delete_host_route(IN_THE_WAY)
        self.plugin.delete_endpoint(OTHER_ENDPOINT)
        self.join_another()
        self.assertEqual(self.routes(), sorted([*REACHED, NEXT]))

    def test_next_join_makes_the_route_that_failed_at_start(self) -> None:
        self.plugin = self.plugin.next_life()
        self.assertEqual(self.routes(), REACHED[1:])
        self.plugin.kernel.delete_host_route(IN_THE_WAY)
        self.join_another()
        self.assertEqual(self.routes(), sorted([*REACHED, NEXT]))

    def test_route_of_a_removed_container_is_not_made(self) -> None:
        self.join_another()
        self.plugin.delete_endpoint(ENDPOINT)
        self.plugin.kernel.delete_host_route(IN_THE_WAY)
        self.plugin.delete_endpoint(OTHER_ENDPOINT)
        self.join_another()
        self.assertEqual(self.routes(), [NEXT])

    def test_blocked_route_is_reported_once(self) -> None:
        logged = log_of(self)
        self.join_another()
        self.plugin.delete_endpoint(OTHER_ENDPOINT)
        self.join_another()
        self.assertEqual(
            len([each for each in logged if "host route to 192.168.1.7: cannot" in each]), 1, logged
        )

    def test_stray_route_does_not_stop_the_others(self) -> None:
        kernel = self.plugin.kernel
        kernel.delete_host_route(IN_THE_WAY)
        self.plugin.wait(self.plugin.host_links.ensure("eth0"))
        stray = HostRoute(ip_address("192.168.1.77"), self.link, ip_address(HOST), 142)
        kernel.add_host_route(stray)
        kernel.delete_host_route(HostRoute(ip_address("192.168.1.7"), self.link, ip_address(HOST), 142))
        self.plugin.steps.refuse["delete_host_route"] = 5
        self.plugin.wait(self.plugin.host_access.mend("eth0"))
        self.assertEqual(self.routes(), sorted([*REACHED, f"192.168.1.77 from {HOST}"]))


OTHER_HOST = "192.168.1.98"
IPV4 = BOTH[:1]
FIRST, SECOND = f"192.168.1.7 from {HOST}", f"192.168.1.7 from {OTHER_HOST}"


class ReallocatedAddressTests(HostAccessTestCase):
    """The engine has forgotten a container and allocates its address to one of another network."""

    def setUp(self) -> None:
        super().setUp()
        self.open(address=HOST, subnets=IPV4)
        self.open(OTHER_NETWORK, address=OTHER_HOST, subnets=IPV4)
        self.run_container(address_v6=None)
        self.plugin.kernel.move_away(endpoint_link_name(ENDPOINT), up=True)
        # A MAC of its own: the forgotten container has the one derived from the address.
        self.plugin.create_endpoint(OTHER_ENDPOINT, OTHER_NETWORK, mac="02:00:00:00:00:07")
        self.plugin.wait(self.plugin.joining.join(join(OTHER_ENDPOINT, OTHER_NETWORK, "/run/netns/other")))
        self.plugin.kernel.move_away(endpoint_link_name(OTHER_ENDPOINT), up=True)

    def test_route_of_the_new_container_survives_restarts(self) -> None:
        for _ in range(3):
            self.assertEqual(self.routes(), [SECOND])
            self.plugin = self.plugin.next_life()
        self.assertEqual(self.routes(), [SECOND])

    def test_route_returns_to_the_old_container_then_goes(self) -> None:
        for _ in range(2):
            self.plugin.delete_endpoint(OTHER_ENDPOINT, OTHER_NETWORK)
            self.assertEqual(self.routes(), [FIRST])
            self.plugin.delete_endpoint()
            self.assertEqual(self.routes(), [])
            self.setUp()
            self.plugin = self.plugin.next_life()

    def test_route_survives_the_old_container_and_its_network(self) -> None:
        self.plugin.delete_endpoint()
        self.plugin.delete_network()
        self.assertEqual(self.routes(), [SECOND])
        self.plugin.delete_endpoint(OTHER_ENDPOINT, OTHER_NETWORK)
        self.assertEqual(self.routes(), [])
