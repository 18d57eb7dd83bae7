"""Which link a network hangs on, and what has to be made for it: the decision."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from macvlan_twisted.driver.models import Network, VlanStep
from macvlan_twisted.driver.options import NetworkOptions
from macvlan_twisted.driver.parent_plan import ParentPlan, plan_parent, refuse_sharing, refuse_unfit
from macvlan_twisted.errors import RequestRefused
from macvlan_twisted.link_names import dummy_link_name
from macvlan_twisted.netlink.kernel import LinkFacts
from macvlan_twisted.testing.kernel import nic

from .helpers import NETWORK

ETH0, ETH1 = nic("eth0", 2), nic("eth1", 3)


def vlan(name: str, index: int, lower: LinkFacts, vlan_id: int) -> LinkFacts:
    return nic(name, index, kind="vlan", lower_index=lower.index, vlan_id=vlan_id)


def plan(*more: LinkFacts, internal: bool = False, default: str | None = "eth0", **said: Any) -> ParentPlan:
    return plan_parent(NETWORK, NetworkOptions(**said), internal, default, [nic("lo", 1), ETH0, ETH1, *more])


class PlainParentTests(SynchronousTestCase):
    def test_parent_is_the_named_one_or_the_default(self) -> None:
        self.assertEqual(plan(parent="eth1"), ParentPlan("eth1"))
        self.assertEqual(plan(), ParentPlan("eth0"))

    def test_internal_network_uses_a_dummy_unless_a_parent_is_named(self) -> None:
        self.assertEqual(plan(internal=True), ParentPlan(dummy_link_name(NETWORK), on_dummy=True))
        self.assertEqual(plan(internal=True, parent="eth1"), ParentPlan("eth1"))

    def test_network_without_a_nic_uses_a_dummy(self) -> None:
        self.assertEqual(plan(default=None), ParentPlan(dummy_link_name(NETWORK), on_dummy=True))

    def test_vlan_without_a_nic_is_refused(self) -> None:
        with self.assertRaises(RequestRefused) as caught:
            plan(default=None, vlan_id=20)
        self.assertIn("-o parent=", str(caught.exception))

    def test_missing_parent_error_matches_the_builtin_driver(self) -> None:
        for name in ("eth7", ".20"):
            with self.assertRaises(RequestRefused) as caught:
                plan(parent=name)
            self.assertIn(
                f"requested parent interface {name} was not found on the Docker host", str(caught.exception)
            )
            self.assertIn("eth0, eth1", str(caught.exception))


class VlanPlanTests(SynchronousTestCase):
    def test_dotted_name_is_a_vlan_to_create(self) -> None:
        self.assertEqual(plan(parent="eth1.20"), ParentPlan("eth1.20", (VlanStep("eth1.20", "eth1", 20),)))

    def test_vlan_id_selects_a_vlan_of_the_parent(self) -> None:
        expected = ParentPlan("eth1.20", (VlanStep("eth1.20", "eth1", 20),))
        self.assertEqual(plan(parent="eth1", vlan_id=20), expected)
        self.assertEqual(plan(parent="eth1.20", vlan_id=20), expected)
        self.assertEqual(plan(vlan_id=20), ParentPlan("eth0.20", (VlanStep("eth0.20", "eth0", 20),)))

    def test_existing_vlan_is_used_whatever_its_name(self) -> None:
        lan20 = vlan("lan20", 9, ETH1, 20)
        expected = ParentPlan("lan20", (VlanStep("lan20", "eth1", 20),))
        self.assertEqual(plan(lan20, parent="lan20"), expected)
        self.assertEqual(plan(lan20, parent="lan20", vlan_id=20), expected)
        self.assertEqual(plan(lan20, parent="eth1", vlan_id=20), expected)
        self.assertEqual(plan(lan20, parent="eth1.20"), expected)

    def test_vlan_id_on_another_nic_is_another_vlan(self) -> None:
        self.assertEqual(
            plan(vlan("lan20", 9, ETH0, 20), parent="eth1", vlan_id=20),
            ParentPlan("eth1.20", (VlanStep("eth1.20", "eth1", 20),)),
        )

    def test_existing_link_with_a_dotted_name_is_used_as_it_is(self) -> None:
        self.assertEqual(plan(nic("eth1.20", 9), parent="eth1.20"), ParentPlan("eth1.20"))

    def test_vlan_of_a_missing_nic_is_refused_with_its_name(self) -> None:
        with self.assertRaises(RequestRefused) as caught:
            plan(parent="eth7.20")
        self.assertIn("eth7 ", str(caught.exception))

    def test_invalid_vlan_id_error_matches_the_builtin_driver(self) -> None:
        for name, words in (
            ("eth1.x", "unable to parse a valid vlan id from: x"),
            ("eth1.", "unable to parse a valid vlan id"),
            ("eth1.4095", "vlan id must be between 1-4094, received: 4095"),
            ("eth1.0", "vlan id must be between 1-4094, received: 0"),
        ):
            with self.assertRaises(RequestRefused) as caught:
                plan(parent=name)
            self.assertIn(words, str(caught.exception))
            self.assertIn(name, str(caught.exception))

    def test_vlan_name_fits_into_15_characters(self) -> None:
        long = nic("enp134s0f1np1", 9)
        (step,) = plan(long, parent="enp134s0f1np1", vlan_id=4000).vlan_steps
        self.assertLessEqual(len(step.link), 15)
        self.assertEqual((step.lower, step.vlan_id), ("enp134s0f1np1", 4000))


class DoubleTagTests(SynchronousTestCase):
    TWO = ParentPlan("eth1.20.30", (VlanStep("eth1.20", "eth1", 20), VlanStep("eth1.20.30", "eth1.20", 30)))

    def test_two_dots_are_two_tags_the_outer_first(self) -> None:
        self.assertEqual(plan(parent="eth1.20.30"), self.TWO)

    def test_vlan_id_on_a_vlan_is_a_second_tag(self) -> None:
        self.assertEqual(plan(parent="eth1.20", vlan_id=30), self.TWO)

    def test_same_tag_twice_is_two_tags(self) -> None:
        self.assertEqual(plan(parent="eth1.20.20", vlan_id=20).vlan_steps[-1].lower, "eth1.20.20")

    def test_existing_vlans_are_part_of_the_plan(self) -> None:
        outer = vlan("eth1.20", 9, ETH1, 20)
        self.assertEqual(plan(outer, parent="eth1.20.30"), self.TWO)
        self.assertEqual(plan(outer, vlan("eth1.20.30", 10, outer, 30), parent="eth1.20.30"), self.TWO)

    def test_second_tag_uses_the_existing_vlan_whatever_its_name(self) -> None:
        lan20 = vlan("lan20", 9, ETH1, 20)
        for found in (
            plan(lan20, parent="eth1.20.30"),
            plan(lan20, parent="eth1.20", vlan_id=30),
            plan(lan20, parent="lan20", vlan_id=30),
        ):
            self.assertEqual(found.vlan_steps[0], VlanStep("lan20", "eth1", 20))
            self.assertEqual((found.vlan_steps[1].lower, found.vlan_steps[1].vlan_id), ("lan20", 30))
            self.assertEqual(found.parent, found.vlan_steps[1].link)


class UnusableParentTests(SynchronousTestCase):
    def refused(self, link: LinkFacts, *words: str, mtu: int | None = None) -> None:
        with self.assertRaises(RequestRefused) as caught:
            refuse_unfit(link, False, mtu)
        for word in words:
            self.assertIn(word, str(caught.exception))

    def test_loopback_is_refused(self) -> None:
        self.refused(nic("lo", 1), "loopback interface is not a valid macvlan parent link")

    def test_wireless_parent_is_refused_unless_forced(self) -> None:
        wifi = nic("wlan0", 2, is_wireless=True)
        self.refused(wifi, "wlan0", "Wi-Fi", "-o allow_wireless_parent=true")
        refuse_unfit(wifi, True, None)

    def test_bridge_port_is_refused_with_the_bridge_to_use(self) -> None:
        self.refused(nic("eth0", 2, bridge="br0"), "-o parent=br0")

    def test_mtu_above_that_of_the_parent_is_refused(self) -> None:
        self.refused(ETH0, "1501", "1500", "eth0", mtu=1501)
        refuse_unfit(ETH0, False, 1500)
        refuse_unfit(ETH0, False, None)


def network(identifier: str, mode: str = "bridge", parent: str = "eth0") -> Network:
    return Network(identifier, parent, mode)


class SharingTests(SynchronousTestCase):
    def test_networks_share_a_parent(self) -> None:
        refuse_sharing(network("a"), [network("b", "private"), network("c", "vepa"), network("d")])

    def test_passthru_on_a_shared_parent_names_the_other_network(self) -> None:
        for mine, other in (("passthru", "bridge"), ("bridge", "passthru"), ("passthru", "passthru")):
            with self.assertRaises(RequestRefused) as caught:
                refuse_sharing(network("a", mine), [network("c", parent="eth1"), network("b", other)])
            self.assertIn("macvlan network b is already using parent interface eth0", str(caught.exception))

    def test_passthru_on_a_parent_of_its_own_is_allowed(self) -> None:
        refuse_sharing(network("a", "passthru"), [network("b", "passthru", "eth1"), network("a", "passthru")])
