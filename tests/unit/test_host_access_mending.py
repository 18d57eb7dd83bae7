"""What becomes of access from the host when others are at work on the host, too, or come and go at one moment."""

from __future__ import annotations

from ipaddress import ip_address

from macvlan_twisted.netlink.kernel import HostRoute

from .conflict_cases import log_of
from .helpers import ENDPOINT, OTHER_ENDPOINT, OTHER_NETWORK
from .host_access_cases import HOST, HOST_6, REACHED, HostAccessTestCase, access_request


class OverlappingNetworkTests(HostAccessTestCase):
    """Networks that come while the last one of their parent goes."""

    def test_network_made_during_the_last_deletion_has_the_link(self) -> None:
        plugin = self.plugin
        plugin.create_network(mode="bridge")
        plugin.wait(plugin.wires.ready("eth0"))
        plugin.taps["eth0"].broken = True
        plugin.steps.hold.add("find")
        ready = plugin.start(plugin.wires.ready("eth0"))  # which has its turn on the parent
        deleted = plugin.begin_delete_network()
        plugin.steps.hold.clear()
        created = plugin.start(plugin.networks.create(access_request(OTHER_NETWORK)))
        plugin.steps.let_all_go()
        self.successResultOf(ready)
        self.successResultOf(deleted)
        self.successResultOf(created)
        self.assertEqual(self.addresses(), [HOST, HOST_6])
        self.run_container(network_id=OTHER_NETWORK)
        self.assertEqual(self.routes(), REACHED)
        plugin.delete_endpoint(network_id=OTHER_NETWORK)
        plugin.delete_network(OTHER_NETWORK)
        self.assert_nothing_left()

    def test_network_after_passthru_speaks_from_the_host_link(self) -> None:
        plugin = self.plugin
        plugin.create_network(mode="passthru")
        plugin.wait(plugin.wires.ready("eth0"))
        self.assertEqual(plugin.taps["eth0"].mac, "02:00:00:00:00:02")
        plugin.taps["eth0"].broken = True
        plugin.steps.hold.add("find")
        plugin.start(plugin.wires.ready("eth0"))
        deleted = plugin.begin_delete_network()
        plugin.steps.hold.clear()
        created = plugin.start(plugin.networks.create(access_request(OTHER_NETWORK)))
        plugin.steps.let_all_go()
        self.successResultOf(deleted)
        self.successResultOf(created)
        plugin.wait(plugin.wires.ready("eth0"))
        self.assertEqual(plugin.taps["eth0"].mac, plugin.registry.host_links["eth0"].mac)

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
    """Somebody else has a route to a container's address."""

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
        self.assertEqual(len([each for each in logged if "192.168.1.7 is not reached" in each]), 1, logged)

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
