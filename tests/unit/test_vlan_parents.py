"""VLANs and dummy links: created where missing, removed with their last network unless foreign."""

from __future__ import annotations

import errno

from attrs import evolve

from macvlan_twisted.config import Config
from macvlan_twisted.errors import LinkError, RequestRefused
from macvlan_twisted.link_names import dummy_link_name, endpoint_link_name
from macvlan_twisted.netlink.kernel import LinkFacts
from macvlan_twisted.state.interfaces import RecordKind
from macvlan_twisted.testing.kernel import FakeKernel, nic

from .helpers import (
    ENDPOINT,
    NETWORK,
    OTHER_ENDPOINT,
    OTHER_NETWORK,
    PLAIN_LINKS,
    PluginHarness,
    PluginTestCase,
    plain_kernel,
    subnet,
)


class VlanTests(PluginTestCase):
    def test_vlan_is_created_up_and_marked_as_ours(self) -> None:
        self.plugin.create_network(parent="eth1.20")
        link = self.plugin.link("eth1.20")
        self.assertEqual((link.kind, link.vlan_id, link.lower_index, link.up), ("vlan", 20, 3, True))
        self.assertIn(self.plugin.records.instance, link.alias)
        self.assertEqual(list(self.plugin.records.rows[RecordKind.MADE_LINK]), ["eth1.20"])

    def test_kernel_without_vlans_is_refused_with_the_module(self) -> None:
        self.plugin.steps.refuse["add_vlan"] = errno.EOPNOTSUPP
        with self.assert_refused(LinkError, "VLAN 20 of eth1", "modprobe 8021q"):
            self.plugin.create_network(parent="eth1.20")
        self.plugin.steps.refuse.clear()
        self.assert_nothing_left()

    def test_kernel_without_dummy_links_is_refused_with_the_module(self) -> None:
        plugin = PluginHarness(config=Config())
        plugin.steps.refuse["add_dummy"] = errno.EOPNOTSUPP
        with self.assert_refused(LinkError, "dummy link", "internal network", "modprobe dummy", "-o parent="):
            plugin.create_network()
        plugin.steps.refuse.clear()
        self.assert_nothing_left(plugin)

    def test_parent_check_costs_the_same_for_any_number_of_networks(self) -> None:
        asked: list[str] = []
        find = self.plugin.kernel.find

        def finding(name: str) -> LinkFacts | None:
            asked.append(name)
            return find(name)

        self.patch(self.plugin.kernel, "find", finding)
        counts = []
        for number in range(3):
            pool = subnet(f"10.{number}.0.0/16")
            self.plugin.create_network(f"{number}" * 64, parent="eth1.20", subnets=(pool,))
            asked.clear()
            self.assertTrue(self.plugin.wait(self.plugin.parents.repair("eth1.20")))
            counts.append(len(asked))
        self.assertEqual(counts, [counts[0]] * 3)

    def test_vlan_goes_with_its_last_network(self) -> None:
        self.plugin.create_network(parent="eth1.20")
        self.plugin.create_network(OTHER_NETWORK, parent="eth1", vlan_id="20")
        self.plugin.delete_network()
        self.assertIn("eth1.20", self.plugin.link_names())
        self.plugin.delete_network(OTHER_NETWORK)
        self.assert_nothing_left()

    def test_existing_vlan_is_used_and_never_removed(self) -> None:
        foreign = nic("lan20", 9, kind="vlan", lower_index=3, vlan_id=20)
        plugin = PluginHarness(plain_kernel(foreign))
        plugin.create_network(parent="eth1.20")
        self.assertEqual(plugin.registry.networks[NETWORK].parent, "lan20")
        plugin = plugin.next_life()
        plugin.delete_network()
        self.assert_nothing_left(plugin, {*PLAIN_LINKS, "lan20"})

    def test_vlan_and_its_nic_are_set_up(self) -> None:
        down = nic("eth1.20", 9, kind="vlan", lower_index=3, vlan_id=20, up=False)
        for links, name in (([nic("eth1", 3), down], "eth1.20"), ([nic("eth1", 3, up=False)], "eth1")):
            plugin = PluginHarness(FakeKernel([nic("eth0", 2), *links]))
            plugin.create_network(parent="eth1.20")
            self.assertTrue(plugin.link(name).up, name)

    def test_outer_vlan_stays_while_another_network_uses_it(self) -> None:
        self.plugin.create_network(parent="eth1.20.30")
        self.plugin.create_network(OTHER_NETWORK, parent="eth1.20")
        self.plugin.delete_network()
        self.assertEqual(self.plugin.link_names(), {*PLAIN_LINKS, "eth1.20"})
        self.plugin.delete_network(OTHER_NETWORK)
        self.assert_nothing_left()

    def test_link_of_another_kind_with_a_dotted_name_is_used(self) -> None:
        plugin = PluginHarness(plain_kernel(nic("eth1.20", 9)))
        plugin.create_network(parent="eth1.20")
        plugin.delete_network()
        self.assert_nothing_left(plugin, {*PLAIN_LINKS, "eth1.20"})

    def test_vlan_whose_name_is_in_use_is_refused(self) -> None:
        plugin = PluginHarness(plain_kernel(nic("eth1.20", 9)))
        with self.assert_refused(RequestRefused, "eth1.20", "20"):
            plugin.create_network(parent="eth1", vlan_id="20")
        self.assert_nothing_left(plugin, {*PLAIN_LINKS, "eth1.20"})

    def test_replaced_vlan_stays(self) -> None:
        self.plugin.create_network(parent="eth1.20")
        self.plugin.kernel.delete("eth1.20")
        self.plugin.kernel.put(nic("eth1.20", 50, kind="vlan", lower_index=3, vlan_id=20))
        self.plugin.delete_network()
        self.assert_nothing_left(links={*PLAIN_LINKS, "eth1.20"})

    def test_vlan_below_a_foreign_link_stays_when_the_network_goes(self) -> None:
        self.plugin.create_network(parent="eth1.20")
        made = self.plugin.link("eth1.20")
        self.plugin.kernel.put(nic("theirs", 60, lower_index=made.index))
        with self.assert_refused(Exception, "theirs"):
            self.plugin.delete_network()
        self.assertIn("theirs", self.plugin.link_names())
        self.assertEqual(self.plugin.records.rows[RecordKind.NETWORK], {})
        self.plugin.kernel.delete("theirs")
        self.assert_nothing_left(self.plugin.next_life())

    def test_removal_waits_for_the_endpoint_links(self) -> None:
        self.plugin.create_network(parent="eth1.20")
        self.plugin.create_endpoint()
        self.plugin.steps.hold.add("delete_group")
        removal = self.plugin.begin_delete_network()
        self.assertNoResult(removal)
        self.assertIn("eth1.20", self.plugin.link_names())
        self.plugin.steps.let_all_go()
        self.successResultOf(removal)
        self.assert_nothing_left()


class DummyTests(PluginTestCase):
    def test_each_internal_network_has_its_own_dummy(self) -> None:
        self.plugin.create_network(internal=True)
        self.plugin.create_network(OTHER_NETWORK, internal=True)
        names = {dummy_link_name(NETWORK), dummy_link_name(OTHER_NETWORK)}
        self.assertEqual(self.plugin.link_names(), {*PLAIN_LINKS, *names})
        for network_id in (NETWORK, OTHER_NETWORK):
            self.plugin.delete_network(network_id)
        self.assert_nothing_left()

    def test_foreign_link_with_the_name_of_the_dummy_is_refused(self) -> None:
        foreign = nic(dummy_link_name(NETWORK), 9)
        plugin = PluginHarness(plain_kernel(foreign))
        with self.assert_refused(Exception, foreign.name):
            plugin.create_network(internal=True)
        self.assert_nothing_left(plugin, {*PLAIN_LINKS, foreign.name})

    def test_containers_of_an_internal_network_share_its_dummy(self) -> None:
        self.plugin.create_network(internal=True)
        self.plugin.create_endpoint(address="10.0.0.2/8")
        self.plugin.create_endpoint(OTHER_ENDPOINT, address="10.0.0.3/8")
        links = [self.plugin.kernel.find(endpoint_link_name(each)) for each in (ENDPOINT, OTHER_ENDPOINT)]
        dummy = self.plugin.link(dummy_link_name(NETWORK))
        self.assertEqual({link and link.lower_index for link in links}, {dummy.index})


class RebootTests(PluginTestCase):
    def test_vlans_and_dummies_are_made_again_after_a_reboot(self) -> None:
        self.plugin.create_network(parent="eth1.20.30")
        self.plugin.create_network(OTHER_NETWORK, internal=True)
        self.plugin.kernel = plain_kernel()
        plugin = self.plugin.next_life()
        self.assertEqual(
            plugin.link_names(), {*PLAIN_LINKS, "eth1.20", "eth1.20.30", dummy_link_name(OTHER_NETWORK)}
        )
        for network_id in (NETWORK, OTHER_NETWORK):
            plugin.delete_network(network_id)
        self.assert_nothing_left(plugin)

    def test_service_starts_without_the_nic(self) -> None:
        self.plugin.create_network(parent="eth1.20")
        self.plugin.kernel = FakeKernel([nic("eth0", 2)])
        plugin = self.plugin.next_life()
        self.assertIn(NETWORK, plugin.registry.networks)
        plugin.kernel.put(nic("eth1", 30))
        plugin = plugin.next_life()
        self.assertIn("eth1.20", plugin.link_names())
        plugin.delete_network()
        self.assert_nothing_left(plugin)

    def test_dummy_that_is_down_is_set_up_at_start(self) -> None:
        self.plugin.create_network(internal=True)
        dummy = self.plugin.link(dummy_link_name(NETWORK))
        self.plugin.kernel.put(evolve(dummy, up=False))
        plugin = self.plugin.next_life()
        again = plugin.link(dummy.name)
        self.assertTrue(again.up)


class RestoredParentTests(PluginTestCase):
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

    def test_network_without_a_parent_has_a_dummy_of_its_mtu(self) -> None:
        plugin = PluginHarness(config=Config(mtu=9000))
        plugin.create_network()
        self.assertIs(plugin.registry.networks[NETWORK].internal, True)
        link = plugin.link(dummy_link_name(NETWORK))
        self.assertEqual(link.mtu, 9000)

    def test_mtu_above_the_current_one_of_the_parent_is_reported(self) -> None:
        self.plugin.create_network(mtu="1500")
        link = self.plugin.link("eth0")
        self.plugin.kernel.put(evolve(link, mtu=1400))
        with self.assert_refused(LinkError, "MTU", "1500"):
            self.plugin.create_endpoint()
