"""Host access after a restart, a kill or a reboot."""

from __future__ import annotations

from attrs import evolve

from macvlan_twisted.addresses import parse_address, parse_interface
from macvlan_twisted.link_names import endpoint_link_name, host_link_name
from macvlan_twisted.netlink.kernel import HostRoute
from macvlan_twisted.state.interfaces import RecordKind
from macvlan_twisted.testing.kernel import nic

from .helpers import ENDPOINT, NETWORK, OTHER_ENDPOINT
from .host_access_cases import BOTH, HOST, HOST_6, REACHED, HostAccessTestCase

LINK = endpoint_link_name(ENDPOINT)


class RestartTests(HostAccessTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.open()
        self.run_container()
        self.plugin.kernel.move_away(LINK)

    def test_restart_changes_nothing_in_the_kernel(self) -> None:
        before = self.plugin.kernel.links()
        self.plugin = self.plugin.next_life()
        self.assertEqual(self.plugin.kernel.links(), before)
        self.assertEqual(self.routes(), REACHED)
        self.plugin.delete_endpoint()
        self.plugin.delete_network()
        self.assert_nothing_left()

    def test_link_and_routes_are_restored_after_a_reboot(self) -> None:
        self.plugin.kernel.delete(self.link)
        self.plugin = self.plugin.next_life()
        self.assertEqual(self.addresses(), [HOST, HOST_6])
        self.assertEqual(self.routes(), REACHED)

    def test_half_made_host_link_is_finished(self) -> None:
        port = self.plugin.kernel.read_macvlan(self.link)
        assert port is not None
        self.plugin.kernel.delete(self.link)
        self.plugin.kernel.add_macvlan(port)
        self.plugin = self.plugin.next_life()
        self.assertEqual(self.routes(), REACHED)
        self.assertEqual(self.plugin.kernel.configured[self.link]["ipv4/arp_ignore"], "1")

    def test_stray_routes_go_from_the_host_link_only(self) -> None:
        kernel = self.plugin.kernel
        ours = HostRoute(parse_address("192.168.1.8"), self.link, parse_address(HOST), 142)
        on_eth1, of_user = (
            evolve(ours, destination=parse_address("192.168.1.9"), link="eth1"),
            evolve(ours, destination=parse_address("192.168.1.5"), protocol=4),
        )
        for route in (ours, on_eth1, of_user):
            kernel.add_host_route(route)
        self.plugin = self.plugin.next_life()
        self.assertEqual(self.routes(), REACHED)
        self.assertEqual(kernel.host_routes("eth1", 142), [on_eth1])
        self.assertEqual(kernel.host_routes(self.link, 4), [of_user])

    def test_stray_address_is_removed(self) -> None:
        self.plugin.kernel.add_address(self.link, parse_interface("10.1.0.99/32"))
        self.plugin = self.plugin.next_life()
        self.assertEqual(self.addresses(), [HOST, HOST_6])

    def test_start_without_the_parent_is_completed_by_the_next_join(self) -> None:
        kernel = self.plugin.kernel
        parent = kernel.find("eth0")
        assert parent is not None
        kernel.delete("eth0")
        self.plugin = self.plugin.next_life()
        self.assertNotIn(self.link, self.plugin.link_names())
        kernel.put(nic("eth0", 2))
        self.run_container(OTHER_ENDPOINT, address="192.168.1.8/24", address_v6=None)
        self.assertEqual(self.addresses(), [HOST, HOST_6])
        self.assertEqual(self.routes(), sorted([*REACHED, f"192.168.1.8 from {HOST}"]))

    def test_host_address_is_watched_if_the_parent_is_absent_at_start(self) -> None:
        """The parent may come back by way of a packet socket, which makes our link without HostRoutes."""
        self.plugin.kernel.delete("eth0")
        self.plugin = self.plugin.next_life()
        self.assertIsNotNone(self.plugin.conflicts.assigned_mac("eth0", parse_address(HOST)))

    def test_half_made_network_leaves_no_address(self) -> None:
        kind, rows = RecordKind.NETWORK, self.plugin.records.rows[RecordKind.NETWORK]
        rows[NETWORK] = {**rows[NETWORK], "is_made": False, "host_addresses": []}
        del self.plugin.records.rows[RecordKind.ENDPOINT][ENDPOINT]
        self.assertEqual(list(self.plugin.records.all_rows()[kind]), [NETWORK])
        self.plugin = self.plugin.next_life()
        self.assert_nothing_left()


class DummyParentTests(HostAccessTestCase):
    """The dummy below an internal network goes with a reboot, too."""

    def test_dummy_is_made_before_the_host_link_after_a_reboot(self) -> None:
        self.plugin.create_network(internal=True, subnets=BOTH[:1], host_access="true", host_address=HOST)
        parent = self.plugin.registry.networks[NETWORK].parent
        self.link = host_link_name(self.plugin.records.instance, parent)
        self.run_container(address_v6=None)
        self.assertEqual(self.routes(), REACHED[:1])
        for name in (LINK, self.link, parent):
            self.plugin.kernel.delete(name)
        self.plugin = self.plugin.next_life()
        self.assertEqual(self.addresses(), [HOST])
        self.assertEqual(self.routes(), REACHED[:1])
        self.plugin.delete_endpoint()
        self.plugin.delete_network()
        self.assert_nothing_left()
