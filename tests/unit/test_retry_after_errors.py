"""What an error or a kill left half done is completed by the next call, or at the next start."""

from __future__ import annotations

import errno

from macvlan_twisted.config import Config
from macvlan_twisted.errors import LinkError, RequestRefused, StateError
from macvlan_twisted.link_names import dummy_link_name
from macvlan_twisted.state.interfaces import RecordKind

from .helpers import (
    ENDPOINT,
    NETWORK,
    OTHER_NETWORK,
    PLAIN_LINKS,
    PluginHarness,
    PluginTestCase,
    evolve,
    subnet,
)


class NetworkTests(PluginTestCase):
    def test_half_made_network_is_removed_at_the_next_start(self) -> None:
        """The engine does not ask for the removal: it repeats the call without its body, and fails."""
        self.plugin.steps.hold.add("read_macvlan")
        self.plugin.begin_create_network(parent="eth1.20", mode="passthru")
        plugin = self.plugin.next_life()
        self.assert_nothing_left(plugin)
        plugin.create_network(OTHER_NETWORK, parent="eth1.20")

    def test_network_removal_can_be_repeated_after_a_disk_error(self) -> None:
        self.plugin.create_network()
        self.plugin.records.steps.refuse["forget"] = errno.ENOSPC
        with self.assert_refused(LinkError, NETWORK, "a test refuses it"):
            self.plugin.delete_network()
        self.plugin.records.steps.refuse.clear()
        self.plugin.delete_network()
        self.assert_nothing_left()

    def test_row_of_a_failed_endpoint_goes_with_the_next_removal(self) -> None:
        self.plugin.create_network()
        self.plugin.records.steps.refuse["forget"] = errno.ENOSPC
        self.plugin.steps.refuse["add_macvlan"] = errno.EPERM
        with self.assert_refused(LinkError):
            self.plugin.create_endpoint()
        self.assertEqual(list(self.plugin.records.kept[RecordKind.ENDPOINT]), [ENDPOINT])
        self.plugin.records.steps.refuse.clear()
        self.plugin.delete_endpoint()
        self.assertEqual(self.plugin.records.kept[RecordKind.ENDPOINT], {})

    def test_disk_error_in_removal_is_reported(self) -> None:
        self.plugin.create_network()
        self.plugin.create_endpoint()
        self.plugin.records.steps.refuse["forget"] = errno.ENOSPC
        with self.assert_refused(StateError):
            self.plugin.delete_endpoint()
        self.plugin.records.steps.refuse.clear()
        self.plugin.delete_endpoint()
        self.assertEqual(self.plugin.link_names(), PLAIN_LINKS)


class ParentTests(PluginTestCase):
    def reboot(self) -> PluginHarness:
        """All links that we made are gone."""
        for link in self.plugin.kernel.links():
            if link.name not in PLAIN_LINKS:
                self.plugin.kernel.delete(link.name)
        return self.plugin.next_life()

    def test_vlan_that_could_not_be_made_again_is_still_ours(self) -> None:
        self.plugin.create_network(parent="eth1.20")
        nic = self.plugin.kernel.move_away("eth1")
        plugin = self.reboot()
        self.assertNotIn("eth1.20", plugin.link_names())
        plugin.kernel.put(nic)
        plugin.steps.refuse["add_vlan"] = errno.EOPNOTSUPP
        with self.assert_refused(LinkError):
            plugin.create_endpoint()
        plugin.steps.refuse.clear()
        plugin.create_endpoint()
        self.assertIn("eth1.20", plugin.link_names())
        plugin.delete_endpoint()
        plugin.delete_network()
        self.assert_nothing_left(plugin)

    def test_dummy_has_the_mtu_of_its_network(self) -> None:
        plugin = PluginHarness(config=Config(mtu=9000))
        plugin.create_network(internal=True)
        link = plugin.link(dummy_link_name(NETWORK))
        self.assertEqual(link.mtu, 9000)

    def test_network_without_a_parent_is_internal(self) -> None:
        plugin = PluginHarness(config=evolve(self.plugin.config, host_interface=None))
        plugin.create_network()
        self.assertIs(plugin.registry.networks[NETWORK].internal, True)

    def test_mtu_above_the_current_one_of_the_parent_is_reported(self) -> None:
        self.plugin.create_network(mtu="1500")
        link = self.plugin.link("eth0")
        self.plugin.kernel.put(evolve(link, mtu=1400))
        with self.assert_refused(LinkError, "MTU", "1500"):
            self.plugin.create_endpoint()


class RouterTests(PluginTestCase):
    def create(self, gateway: str | None, **options: str) -> None:
        self.plugin = PluginHarness(config=evolve(self.plugin.config, host_interface="eth0"))
        self.plugin.create_network(subnets=(subnet("192.168.1.0/24", gateway),), **options)

    def test_router_of_another_lan_is_an_ordinary_address(self) -> None:
        self.create("192.168.1.254", parent="eth1")
        self.assertIsNotNone(self.plugin.create_endpoint(address="192.168.1.1/24"))

    def test_router_is_refused_with_the_remedy(self) -> None:
        for gateway, options, remedy in (
            (None, {"parent": "eth1"}, "--gateway 192.168.1.1"),
            ("192.168.1.254", {}, "--aux-address router=192.168.1.1"),
        ):
            self.create(gateway, **options)
            with self.assert_refused(RequestRefused, remedy):
                self.plugin.create_endpoint(address="192.168.1.1/24")
