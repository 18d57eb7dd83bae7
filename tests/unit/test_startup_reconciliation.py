"""Reconciliation at start, after a stop, a kill or a reboot."""

from __future__ import annotations

from typing import Any

from attrs import evolve

from macvlan_twisted.link_names import alias_of, endpoint_link_name, probe_link_name
from macvlan_twisted.netlink.kernel import LinkFacts
from macvlan_twisted.netlink.links import GROUPS
from macvlan_twisted.state.interfaces import RecordKind
from macvlan_twisted.testing.kernel import nic

from .held_steps import ScriptedRecords, ScriptedStore
from .helpers import ENDPOINT, NETWORK, OTHER_ENDPOINT, PLAIN_LINKS, PluginHarness, PluginTestCase

LINK = endpoint_link_name(ENDPOINT)


class RestartTests(PluginTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.plugin.create_network(
            parent="eth1.20", mode="source", source_macs="02:00:00:00:00:01", mtu="1400"
        )
        self.plugin.create_endpoint(address_v6="fd00::7/64")

    def test_restart_changes_nothing(self) -> None:
        before = self.plugin.kernel.links(), self.plugin.records.all_rows()
        plugin = self.plugin.next_life()
        self.assertEqual((plugin.kernel.links(), plugin.records.all_rows()), before)
        self.assertEqual(plugin.registry.networks, self.plugin.registry.networks)
        self.assertEqual(plugin.registry.endpoints, self.plugin.registry.endpoints)

    def test_calls_work_after_a_restart(self) -> None:
        plugin = self.plugin.next_life()
        plugin.create_network(parent="eth1.20", mode="source", source_macs="02:00:00:00:00:01", mtu="1400")
        self.assertEqual(plugin.create_endpoint(address_v6="fd00::7/64"), "7a:42:c0:a8:01:07")
        plugin.create_endpoint(OTHER_ENDPOINT, address="192.168.1.8/24")
        with self.assert_refused(Exception, "7a:42:c0:a8:01:07", ENDPOINT[:12]):
            plugin.create_endpoint("f" * 64, mac="7a:42:c0:a8:01:07", address="192.168.1.9/24")
        plugin.delete_network()
        self.assert_nothing_left(plugin)

    def test_endpoint_with_its_link_in_a_container_stays(self) -> None:
        moved = self.plugin.kernel.move_away(LINK)
        plugin = self.plugin.next_life()
        self.assertIn(ENDPOINT, plugin.registry.endpoints)
        plugin.kernel.move_back(moved)
        plugin.delete_endpoint()
        self.assertNotIn(LINK, plugin.link_names())

    def test_vlan_stays_below_a_container_of_an_unknown_network(self) -> None:
        self.plugin.kernel.move_away(LINK, up=True)
        for kind in (
            RecordKind.NETWORK,
            RecordKind.ENDPOINT,
        ):  # of another engine, which --recover has not asked
            self.plugin.records.rows[kind].clear()
        plugin = self.plugin.next_life()
        self.assertIn("eth1.20", plugin.link_names())
        self.assertIn("eth1.20", plugin.registry.made_links)
        plugin.kernel.destroy_away(LINK)
        plugin = plugin.next_life()
        self.assertNotIn("eth1.20", plugin.link_names())
        self.assertEqual(plugin.registry.made_links, {})


class KilledTests(PluginTestCase):
    """The service is killed at one point and started again on what is left."""

    def setUp(self) -> None:
        super().setUp()
        self.plugin.create_network()

    def link_of_ours(self, name: str, **facts: Any) -> LinkFacts:
        group = self.plugin.records.link_group
        link = evolve(nic(name, 70, kind="macvlan", lower_index=2, group=group, up=False), **facts)
        self.plugin.kernel.put(link)
        return link

    def test_endpoint_killed_before_its_link_can_be_removed(self) -> None:
        self.plugin.steps.hold.add("add_macvlan")
        self.plugin.begin_create_endpoint()
        plugin = self.plugin.next_life()
        plugin.delete_endpoint()
        self.assertEqual(plugin.records.rows[RecordKind.ENDPOINT], {})
        self.assertEqual(plugin.link_names(), PLAIN_LINKS)
        self.assertEqual(plugin.create_endpoint(), "7a:42:c0:a8:01:07")

    def test_link_without_an_alias_is_removed_with_its_row(self) -> None:
        """A link with our group and a name that a row derives is ours even without an alias."""
        self.plugin.create_endpoint()
        link = self.plugin.link(LINK)
        self.plugin.kernel.put(evolve(link, alias=""))
        plugin = self.plugin.next_life()
        self.assertEqual(plugin.link_names(), PLAIN_LINKS)
        self.assertEqual(plugin.records.rows[RecordKind.ENDPOINT], {})
        plugin.delete_endpoint()
        plugin.create_endpoint()

    def test_host_link_and_vlan_without_an_alias_stay(self) -> None:
        """Our group and a name that a record derives are enough, as for an endpoint; they get their alias back."""
        network = "f" * 64
        self.plugin.create_network(
            network, parent="eth1.20", host_access="true", host_address="192.168.1.200"
        )
        (host_link,) = self.plugin.registry.host_links.values()
        made = [self.plugin.link(name) for name in ("eth1.20", host_link.name)]
        for link in made:
            self.plugin.kernel.put(evolve(link, alias=""))
        plugin = self.plugin.next_life()
        self.assertEqual([plugin.link(link.name).alias for link in made], [link.alias for link in made])
        plugin.delete_network(network)
        self.assertEqual(plugin.link_names(), PLAIN_LINKS)

    def test_probe_link_and_link_of_an_unknown_endpoint_are_removed(self) -> None:
        instance, unknown = self.plugin.records.instance, "f" * 64
        for name, alias in (
            (probe_link_name(NETWORK), ""),
            (probe_link_name(unknown), alias_of(instance, "trial", unknown)),
            (LINK, alias_of(instance, "endpoint", ENDPOINT)),
        ):
            self.link_of_ours(name, alias=alias)
            self.plugin = self.plugin.next_life()
            self.assertEqual(self.plugin.link_names(), PLAIN_LINKS)

    def test_network_killed_before_its_vlan_can_be_removed(self) -> None:
        self.plugin.steps.hold.add("add_vlan")
        self.plugin.begin_create_network("f" * 64, parent="eth1.20")
        plugin = self.plugin.next_life()
        plugin.delete_network("f" * 64)
        self.assertEqual(plugin.link_names(), PLAIN_LINKS)
        self.assertEqual(plugin.records.rows[RecordKind.MADE_LINK], {})

    def test_vlans_without_a_network_are_removed(self) -> None:
        self.plugin.create_network("f" * 64, parent="eth1.20.30")
        self.plugin.records.rows[RecordKind.NETWORK].pop("f" * 64)
        plugin = self.plugin.next_life()
        self.assertEqual(plugin.link_names(), PLAIN_LINKS)
        self.assertEqual(plugin.records.rows[RecordKind.MADE_LINK], {})

    def test_retired_link_is_deleted_with_its_row(self) -> None:
        self.plugin.create_endpoint()
        self.plugin.create_endpoint(OTHER_ENDPOINT, address="192.168.1.8/24")
        self.plugin.kernel.set_group(LINK, self.plugin.records.link_group + 1)
        plugin = self.plugin.next_life()
        self.assertEqual(plugin.link_names(), {*PLAIN_LINKS, endpoint_link_name(OTHER_ENDPOINT)})
        self.assertEqual(list(plugin.records.rows[RecordKind.ENDPOINT]), [OTHER_ENDPOINT])

    def test_retired_links_of_all_groups_are_deleted(self) -> None:
        for number in range(3 * GROUPS):
            group = self.plugin.records.link_group + 1 + number % (GROUPS - 1)
            alias = alias_of(self.plugin.records.instance, "endpoint", str(number))
            self.link_of_ours(f"mvt{number:012x}", group=group, alias=alias, index=100 + number)
        self.assertEqual(self.plugin.next_life().link_names(), PLAIN_LINKS)


class ForeignLinkTests(PluginTestCase):
    def test_foreign_links_are_never_touched(self) -> None:
        group = self.plugin.records.link_group
        foreign = [
            nic("mvt000000000001", 20, kind="macvlan", lower_index=2),  # our kind of name
            nic("theirs", 21, kind="macvlan", lower_index=2, group=group),  # our group
            nic("retired", 22, kind="macvlan", lower_index=2, group=group + 1),
            nic(LINK, 23, group=group + 50),  # our name without our group
            nic("note", 24, alias="macvlan-twisted"),
            nic("upper", 25, alias="notes on macvlan-twisted/0123abcd/endpoint/x"),
        ]
        self.plugin.create_network()
        for link in foreign:
            self.plugin.kernel.put(link)
        plugin = self.plugin.next_life()
        for link in foreign:
            self.assertEqual(plugin.kernel.find(link.name), link)

    def test_links_of_another_instance_are_never_touched(self) -> None:
        other = PluginHarness(
            self.plugin.kernel, records=ScriptedRecords("0123abce", 70000), store=ScriptedStore()
        )
        other.create_network(parent="eth1.20")
        other.create_endpoint()
        before = self.plugin.kernel.links()
        mine = PluginHarness(self.plugin.kernel).next_life()
        self.assertEqual(mine.kernel.links(), before)
        self.assertNotIn(ENDPOINT, mine.registry.endpoints)

    def test_foreign_alias_wins_over_name_and_group(self) -> None:
        is_ours = self.plugin.registry.owns
        self.plugin.create_network()
        self.plugin.create_endpoint()
        link = self.plugin.link(LINK)
        self.assertTrue(is_ours(evolve(link, alias="")))
        self.assertFalse(is_ours(evolve(link, alias="", group=7)))
        self.assertFalse(is_ours(evolve(link, alias="someone's")))
        self.plugin.kernel.put(evolve(link, alias="someone's", group=self.plugin.records.link_group + 1))
        plugin = self.plugin.next_life()
        self.assertIn(LINK, plugin.link_names())
