"""Which link is the parent of a network, and which links have to be created for it: the pure decision."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from macvlan_twisted.display_names import DisplayNames
from macvlan_twisted.driver.models import Network, VlanStep
from macvlan_twisted.driver.options import NetworkOptions
from macvlan_twisted.driver.parent_plan import (
    ParentPlan,
    plan_parent,
    refuse_sharing,
    refuse_unfit,
    suggest_parent,
)
from macvlan_twisted.errors import RequestRefused
from macvlan_twisted.link_names import dummy_link_name
from macvlan_twisted.netlink.kernel import LinkFacts
from macvlan_twisted.option_values import MacvlanMode
from macvlan_twisted.testing.kernel import nic

from .helpers import NETWORK

ETH0, ETH1 = nic("eth0", 2), nic("eth1", 3)


def vlan(name: str, index: int, lower: LinkFacts, vlan_id: int) -> LinkFacts:
    return nic(name, index, kind="vlan", lower_index=lower.index, vlan_id=vlan_id)


def plan(
    *more: LinkFacts, internal: bool = False, default: str | None = "eth0", **options: Any
) -> ParentPlan:
    return plan_parent(
        NETWORK, NetworkOptions(**options), internal, default, [nic("lo", 1), ETH0, ETH1, *more]
    )


TO_CREATE = ParentPlan("eth1.20", (VlanStep("eth1.20", "eth1", 20),))
"""VLAN 20 of eth1, by the name that we give it."""
TWO_TAGS = ParentPlan("eth1.20.30", (VlanStep("eth1.20", "eth1", 20), VlanStep("eth1.20.30", "eth1.20", 30)))


class RefusalTestCase(SynchronousTestCase):
    def assert_refused(
        self, words: Sequence[str], call: Callable[..., object], *about: Any, **more: Any
    ) -> None:
        with self.assertRaises(RequestRefused) as caught:
            call(*about, **more)
        for word in words:
            self.assertIn(word, str(caught.exception))


class PlanTests(RefusalTestCase):
    def test_parent_is_the_named_one_or_the_default(self) -> None:
        self.assertEqual(plan(parent="eth1"), ParentPlan("eth1"))
        self.assertEqual(plan(), ParentPlan("eth0"))

    def test_internal_network_uses_a_dummy_unless_a_parent_is_named(self) -> None:
        dummy = ParentPlan(dummy_link_name(NETWORK), on_dummy=True)
        self.assertEqual(plan(internal=True), dummy)
        self.assertEqual(plan(internal=True, parent="eth1"), ParentPlan("eth1"))
        self.assertEqual(plan(default=None), dummy, "without a NIC")

    def test_vlan_is_found_or_planned(self) -> None:
        lan20, other20 = vlan("lan20", 9, ETH1, 20), vlan("lan20", 9, ETH0, 20)
        existing = ParentPlan("lan20", (VlanStep("lan20", "eth1", 20),))
        outer = vlan("eth1.20", 9, ETH1, 20)
        both = [outer, vlan("eth1.20.30", 10, outer, 30)]
        tables: tuple[tuple[list[LinkFacts], dict[str, Any], ParentPlan], ...] = (
            ([], {"parent": "eth1.20"}, TO_CREATE),
            ([], {"parent": "eth1", "vlan_id": 20}, TO_CREATE),
            ([], {"parent": "eth1.20", "vlan_id": 20}, TO_CREATE),
            ([], {"vlan_id": 20}, ParentPlan("eth0.20", (VlanStep("eth0.20", "eth0", 20),))),
            # An existing VLAN is used, whatever its name.
            ([lan20], {"parent": "lan20"}, existing),
            ([lan20], {"parent": "lan20", "vlan_id": 20}, existing),
            ([lan20], {"parent": "eth1", "vlan_id": 20}, existing),
            ([lan20], {"parent": "eth1.20"}, existing),
            ([other20], {"parent": "eth1", "vlan_id": 20}, TO_CREATE),
            # An existing link with a dotted name that is no VLAN is used as it is.
            ([nic("eth1.20", 9)], {"parent": "eth1.20"}, ParentPlan("eth1.20")),
            # Two tags, the outer one first.
            ([], {"parent": "eth1.20.30"}, TWO_TAGS),
            ([], {"parent": "eth1.20", "vlan_id": 30}, TWO_TAGS),
            ([outer], {"parent": "eth1.20.30"}, TWO_TAGS),
            (both, {"parent": "eth1.20.30"}, TWO_TAGS),
        )
        for links, options, expected in tables:
            with self.subTest(links=links, options=options):
                self.assertEqual(plan(*links, **options), expected, options)

    def test_same_tag_twice_is_two_tags(self) -> None:
        self.assertEqual(plan(parent="eth1.20.20", vlan_id=20).vlan_steps[-1].lower, "eth1.20.20")

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

    def test_vlan_name_fits_into_15_characters(self) -> None:
        long = nic("enp134s0f1np1", 9)
        (step,) = plan(long, parent="enp134s0f1np1", vlan_id=4000).vlan_steps
        self.assertLessEqual(len(step.link), 15)
        self.assertEqual((step.lower, step.vlan_id), ("enp134s0f1np1", 4000))

    def test_missing_parent_is_refused_as_by_the_builtin_driver(self) -> None:
        for name in ("eth7", ".20"):
            missing = f"parent interface {name} was not found on the Docker host"
            self.assert_refused((missing, "eth0, eth1"), plan, parent=name)
        self.assert_refused(("eth7 ",), plan, parent="eth7.20")
        self.assert_refused(("-o parent=",), plan, default=None, vlan_id=20)

    def test_invalid_vlan_id_is_refused_as_by_the_builtin_driver(self) -> None:
        for name, words in (
            ("eth1.x", "unable to parse a valid vlan id from: x"),
            ("eth1.", "unable to parse a valid vlan id"),
            ("eth1.4095", "vlan id must be between 1-4094, received: 4095"),
            ("eth1.0", "vlan id must be between 1-4094, received: 0"),
        ):
            self.assert_refused((words, name), plan, parent=name)


class UnusableParentTests(RefusalTestCase):
    def test_unusable_parent_is_refused_with_the_remedy(self) -> None:
        wifi = nic("wlan0", 2, is_wireless=True)
        for link, mtu, words in (
            (nic("lo", 1), None, ("loopback interface is not a valid macvlan parent link",)),
            (wifi, None, ("wlan0", "Wi-Fi", "-o allow_wireless_parent=true")),
            (nic("eth0", 2, bridge="br0"), None, ("-o parent=br0",)),
            (ETH0, 1501, ("1501", "1500", "eth0")),
        ):
            self.assert_refused(words, refuse_unfit, link, False, mtu)
        refuse_unfit(wifi, True, None)
        refuse_unfit(ETH0, False, 1500)
        refuse_unfit(ETH0, False, None)


def network(identifier: str, mode: str = "bridge", parent: str = "eth0") -> Network:
    return Network(identifier, parent, MacvlanMode(mode))


class SuggestionTests(SynchronousTestCase):
    def test_near_miss_is_suggested(self) -> None:
        text = suggest_parent("eth11", [nic("lo", 1), ETH0, ETH1])
        self.assertEqual(
            text, "did you mean eth1? use one of eth0, eth1, or a VLAN on one of them, like eth0.10"
        )

    def test_links_that_cannot_be_parents_are_left_out(self) -> None:
        """Our own, Docker's bridges and what is plugged into a bridge, macvlan links, tunnels and wireless NICs."""
        unfit = [
            nic("mvh73fe3ed7889b", 10, kind="macvlan", alias="macvlan-twisted/abc/host/eth1"),
            nic("eth1.20", 11, kind="vlan", alias="macvlan-twisted/abc/vlan/eth1.20"),
            nic("docker0", 12, kind="bridge"),
            nic("br-0123456789ab", 13, kind="bridge"),
            nic("veth0", 14, kind="veth", bridge="docker0"),
            nic("wg0", 15, kind="wireguard"),
            nic("wlan0", 16, is_wireless=True),
        ]
        fit = [ETH1, nic("br0", 17, kind="bridge"), nic("bond0", 18, kind="bond")]
        text = suggest_parent("x", [nic("lo", 1), *unfit, *fit])
        self.assertEqual(text, "use one of bond0, br0, eth1, or a VLAN on one of them, like bond0.10")

    def test_host_without_a_nic_is_told_so(self) -> None:
        self.assertIn("no link that can be a parent", suggest_parent("eth1", [nic("lo", 1)]))


class SharingTests(RefusalTestCase):
    def test_passthru_on_a_shared_parent_names_the_other_network(self) -> None:
        words = ("macvlan network lan is already using parent interface eth0",)
        for mine, other in (("passthru", "bridge"), ("bridge", "passthru"), ("passthru", "passthru")):
            others = [network("c", parent="eth1"), network("b", other)]
            self.assert_refused(words, refuse_sharing, network("a", mine), others, DisplayNames({"b": "lan"}))

    def test_other_modes_share_a_parent_and_passthru_has_its_own(self) -> None:
        refuse_sharing(
            network("a"), [network("b", "private"), network("c", "vepa"), network("d")], DisplayNames()
        )
        refuse_sharing(
            network("a", "passthru"),
            [network("b", "passthru", "eth1"), network("a", "passthru")],
            DisplayNames(),
        )
