"""A start after whatever ended the earlier life."""

from __future__ import annotations

from typing import Any

from macvlan_twisted.driver.ownership import ownership
from macvlan_twisted.links.interface import LinkFacts
from macvlan_twisted.links.pool import GROUPS
from macvlan_twisted.names import alias_of, endpoint_link_name, trial_link_name
from macvlan_twisted.state.interface import Kind

from .helpers import (
    ENDPOINT,
    NETWORK,
    OTHER_ENDPOINT,
    PLAIN_LINKS,
    House,
    HouseTestCase,
    ScriptedBook,
    ScriptedRecords,
    endpoint_request,
    evolve,
    network_request,
    nic,
)

LINK = endpoint_link_name(ENDPOINT)


class RestartTests(HouseTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.house.create_network(
            parent="eth1.20", mode="source", source_macs="02:00:00:00:00:01", mtu="1400"
        )
        self.house.create_endpoint(address_v6="fd00::7/64")

    def test_nothing_changes_when_nothing_happened(self) -> None:
        before = self.house.kernel.links(), self.house.records.all_rows()
        house = self.house.next_life()
        self.assertEqual((house.kernel.links(), house.records.all_rows()), before)
        self.assertEqual(house.known.networks, self.house.known.networks)
        self.assertEqual(house.known.endpoints, self.house.known.endpoints)

    def test_every_call_works_as_before(self) -> None:
        house = self.house.next_life()
        house.create_network(parent="eth1.20", mode="source", source_macs="02:00:00:00:00:01", mtu="1400")
        self.assertEqual(house.create_endpoint(address_v6="fd00::7/64"), "7a:42:c0:a8:01:07")
        house.create_endpoint(OTHER_ENDPOINT, address="192.168.1.8/24")
        with self.assert_refused(Exception, "7a:42:c0:a8:01:07", ENDPOINT):
            house.create_endpoint("f" * 64, mac="7a:42:c0:a8:01:07", address="192.168.1.9/24")
        house.wait(house.networks.delete(NETWORK))
        self.assert_nothing_left(house)

    def test_an_endpoint_whose_link_is_in_a_container_is_kept(self) -> None:
        moved = self.house.kernel.move_away(LINK)
        house = self.house.next_life()
        self.assertIn(ENDPOINT, house.known.endpoints)
        house.kernel.move_back(moved)
        house.delete_endpoint()
        self.assertNotIn(LINK, house.link_names())

    def test_a_vlan_goes_under_a_container_whose_network_was_not_rebuilt(self) -> None:
        self.house.kernel.move_away(LINK, up=True)
        for kind in (Kind.NETWORK, Kind.ENDPOINT):  # another engine's, which --recover has not asked
            self.house.records.kept[kind].clear()
        house = self.house.next_life()
        self.assertIn("eth1.20", house.link_names())
        self.assertIn("eth1.20", house.known.made_links)
        house.kernel.destroy_away(LINK)
        house = house.next_life()
        self.assertNotIn("eth1.20", house.link_names())
        self.assertEqual(house.known.made_links, {})


class CrashTests(HouseTestCase):
    """Each test stops the service at one point and starts it anew on what is left."""

    def setUp(self) -> None:
        super().setUp()
        self.house.create_network()

    def link_of_ours(self, name: str, **facts: Any) -> LinkFacts:
        group = self.house.records.link_group
        link = evolve(nic(name, 70, kind="macvlan", lower_index=2, group=group, up=False), **facts)
        self.house.kernel.put(link)
        return link

    def test_between_row_and_link(self) -> None:
        self.house.steps.hold.add("add_port")
        self.house.start(self.house.endpoints.create(endpoint_request()))
        house = self.house.next_life()
        house.delete_endpoint()
        self.assertEqual(house.records.kept[Kind.ENDPOINT], {})
        self.assertEqual(house.link_names(), PLAIN_LINKS)

    def test_between_row_and_link_the_engine_may_ask_again(self) -> None:
        self.house.steps.hold.add("add_port")
        self.house.start(self.house.endpoints.create(endpoint_request()))
        house = self.house.next_life()
        house.delete_endpoint()
        self.assertEqual(house.create_endpoint(), "7a:42:c0:a8:01:07")

    def test_between_link_and_alias(self) -> None:
        """A link with our group and a name that a row derives is ours, without any alias."""
        self.house.create_endpoint()
        link = self.house.kernel.find(LINK)
        assert link is not None
        self.house.kernel.put(evolve(link, alias=""))
        house = self.house.next_life()
        self.assertEqual(house.link_names(), PLAIN_LINKS)
        self.assertEqual(house.records.kept[Kind.ENDPOINT], {})
        house.delete_endpoint()
        house.create_endpoint()

    def test_our_own_link_on_a_parent_stays_without_an_alias(self) -> None:
        self.house.create_network("f" * 64, parent="eth1", host_access="true", host_address="192.168.1.200")
        (link,) = self.house.known.host_links.values()
        made = self.house.kernel.find(link.name)
        assert made is not None
        self.house.kernel.put(evolve(made, alias=""))
        again = self.house.next_life().kernel.find(link.name)
        assert again is not None
        self.assertEqual(again.alias, made.alias)

    def test_a_vlan_of_ours_stays_without_an_alias(self) -> None:
        self.house.create_network("f" * 64, parent="eth1.20")
        vlan = self.house.kernel.find("eth1.20")
        assert vlan is not None
        self.house.kernel.put(evolve(vlan, alias=""))
        again = self.house.next_life().kernel.find("eth1.20")
        assert again is not None
        self.assertEqual(again.alias, vlan.alias)

    def test_between_link_and_alias_of_the_trial(self) -> None:
        self.link_of_ours(trial_link_name(NETWORK))
        self.assertEqual(self.house.next_life().link_names(), PLAIN_LINKS)

    def test_during_the_trial(self) -> None:
        self.link_of_ours(
            trial_link_name("f" * 64), alias=alias_of(self.house.records.instance, "trial", "f" * 64)
        )
        self.assertEqual(self.house.next_life().link_names(), PLAIN_LINKS)

    def test_between_row_and_vlan(self) -> None:
        self.house.steps.hold.add("add_vlan")
        self.house.start(self.house.networks.create(network_request("f" * 64, parent="eth1.20")))
        house = self.house.next_life()
        house.wait(house.networks.delete("f" * 64))
        self.assertEqual(house.link_names(), PLAIN_LINKS)
        self.assertEqual(house.records.kept[Kind.MADE_LINK], {})

    def test_between_vlan_and_alias(self) -> None:
        self.house.create_network("f" * 64, parent="eth1.20")
        vlan = self.house.kernel.find("eth1.20")
        assert vlan is not None
        self.house.kernel.put(evolve(vlan, alias=""))
        house = self.house.next_life()
        house.wait(house.networks.delete("f" * 64))
        self.assertEqual(house.link_names(), PLAIN_LINKS)

    def test_between_the_last_networks_removal_and_its_vlans(self) -> None:
        self.house.create_network("f" * 64, parent="eth1.20.30")
        self.house.records.kept[Kind.NETWORK].pop("f" * 64)
        house = self.house.next_life()
        self.assertEqual(house.link_names(), PLAIN_LINKS)
        self.assertEqual(house.records.kept[Kind.MADE_LINK], {})

    def test_between_condemning_and_reaping(self) -> None:
        self.house.create_endpoint()
        self.house.create_endpoint(OTHER_ENDPOINT, address="192.168.1.8/24")
        self.house.kernel.set_group(LINK, self.house.records.link_group + 1)
        house = self.house.next_life()
        self.assertEqual(house.link_names(), {*PLAIN_LINKS, endpoint_link_name(OTHER_ENDPOINT)})
        self.assertEqual(list(house.records.kept[Kind.ENDPOINT]), [OTHER_ENDPOINT])

    def test_condemned_links_of_many_groups(self) -> None:
        for number in range(3 * GROUPS):
            group = self.house.records.link_group + 1 + number % (GROUPS - 1)
            alias = alias_of(self.house.records.instance, "endpoint", str(number))
            self.link_of_ours(f"mvt{number:012x}", group=group, alias=alias, index=100 + number)
        self.assertEqual(self.house.next_life().link_names(), PLAIN_LINKS)

    def test_a_link_of_an_endpoint_that_state_does_not_know(self) -> None:
        self.link_of_ours(LINK, alias=alias_of(self.house.records.instance, "endpoint", ENDPOINT))
        self.assertEqual(self.house.next_life().link_names(), PLAIN_LINKS)


class ForeignLinkTests(HouseTestCase):
    def test_links_that_are_not_ours_are_never_touched(self) -> None:
        group = self.house.records.link_group
        foreign = [
            nic("mvt000000000001", 20, kind="macvlan", lower_index=2),  # our kind of name
            nic("theirs", 21, kind="macvlan", lower_index=2, group=group),  # our group
            nic("condemned", 22, kind="macvlan", lower_index=2, group=group + 1),
            nic(LINK, 23, group=group + 50),  # our name without our group
            nic("note", 24, alias="macvlan-twisted"),
            nic("upper", 25, alias="notes on macvlan-twisted/0123abcd/endpoint/x"),
        ]
        self.house.create_network()
        for link in foreign:
            self.house.kernel.put(link)
        house = self.house.next_life()
        for link in foreign:
            self.assertEqual(house.kernel.find(link.name), link)

    def test_links_of_another_instance_are_never_touched(self) -> None:
        other = House(self.house.kernel, records=ScriptedRecords("0123abce", 70000), book=ScriptedBook())
        other.create_network(parent="eth1.20")
        other.create_endpoint()
        before = self.house.kernel.links()
        mine = House(self.house.kernel).next_life()
        self.assertEqual(mine.kernel.links(), before)
        self.assertNotIn(ENDPOINT, mine.known.endpoints)

    def test_an_alias_of_someone_else_wins_over_name_and_group(self) -> None:
        is_ours = ownership(self.house.records, self.house.known)
        self.house.create_network()
        self.house.create_endpoint()
        link = self.house.kernel.find(LINK)
        assert link is not None
        self.assertTrue(is_ours(evolve(link, alias="")))
        self.assertFalse(is_ours(evolve(link, alias="", group=7)))
        self.assertFalse(is_ours(evolve(link, alias="someone's")))
        self.house.kernel.put(evolve(link, alias="someone's", group=self.house.records.link_group + 1))
        house = self.house.next_life()
        self.assertIn(LINK, house.link_names())
