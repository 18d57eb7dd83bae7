"""Which addresses the host gets for its containers: given by option, reserved by name, or out of the pool."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from attrs import define, evolve, field
from twisted.internet.defer import Deferred, ensureDeferred
from twisted.trial.unittest import SynchronousTestCase

from macvlan_twisted.addresses import IPAddress, IPNetwork, parse_address
from macvlan_twisted.driver.host_addresses import choose_host_addresses
from macvlan_twisted.driver.models import Network, Subnet
from macvlan_twisted.errors import RequestRefused
from macvlan_twisted.option_values import MacvlanMode

from .helpers import NETWORK, subnet

V4, V6 = subnet("192.168.1.0/24", "192.168.1.1"), subnet("fd00::/64")


def ours(each: Subnet) -> Subnet:
    return evolve(each, managed_here=True)


@define
class Pools:
    """Address management that yields the first preferred address, else .64."""

    asked: list[tuple[str, str | None, list[str]]] = field(factory=list)

    async def reserve_for_host(
        self,
        network_id: str,
        parent: str,
        subnet: IPNetwork,
        auxiliary: Collection[IPAddress],
        wanted: IPAddress | None,
        preferred: Sequence[IPAddress],
    ) -> IPAddress:
        near = [each for each in preferred if each in subnet]
        self.asked.append(
            (str(subnet), None if wanted is None else str(wanted), [str(each) for each in near])
        )
        return wanted or next(iter(near), subnet.network_address + 64)


class ChoiceTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.pools = Pools()

    def choice(
        self,
        *subnets: Subnet,
        given: Sequence[str] = (),
        present: Sequence[str] = (),
        others: Mapping[str, str] = {},
    ) -> Deferred[tuple[IPAddress, ...]]:
        return ensureDeferred(
            choose_host_addresses(
                Network(NETWORK, "eth0", MacvlanMode.BRIDGE, subnets=subnets),
                [*map(parse_address, given)],
                [*map(parse_address, present)],
                {parse_address(address): link for address, link in others.items()},
                (),
                self.pools,
            )
        )

    def assert_refused(
        self,
        words: Sequence[str],
        *subnets: Subnet,
        given: Sequence[str] = (),
        others: Mapping[str, str] = {},
    ) -> str:
        failure = self.failureResultOf(self.choice(*subnets, given=given, others=others), RequestRefused)
        for word in words:
            self.assertIn(word, failure.getErrorMessage())
        return str(failure.getErrorMessage())

    def test_host_addresses_are_chosen(self) -> None:
        named = subnet("192.168.1.0/24", host="192.168.1.95", router="192.168.1.2")
        named_6 = subnet("fd00::/64", host6="fd00::95")
        present = ["192.168.1.99", "fd00::99"]
        both, auxiliary = [ours(V4), ours(V6)], ["192.168.1.95", "fd00::95"]
        cases: tuple[tuple[list[Subnet], dict[str, Any], list[str]], ...] = (
            # A managed pool yields one address per family, preferably one that the host has on the parent.
            (both, {}, ["192.168.1.64", "fd00::40"]),
            ([ours(V4), ours(subnet("10.0.0.0/24"))], {}, ["192.168.1.64"]),
            (both, {"present": present}, present),
            # What the user gives is used.
            (both, {"given": ["fd00::77", "192.168.1.77"]}, ["192.168.1.77", "fd00::77"]),
            (both, {"given": ["192.168.1.77"]}, ["192.168.1.77", "fd00::40"]),
            ([ours(V4)], {"given": ["10.9.9.9"]}, ["10.9.9.9"]),
            ([V4], {"given": ["192.168.1.77"]}, ["192.168.1.77"]),
            # So are auxiliary addresses of certain names; what is given wins.
            ([named, named_6], {}, auxiliary),
            ([ours(named), ours(named_6)], {}, auxiliary),
            ([subnet("192.168.1.0/24", host4="192.168.1.95")], {}, ["192.168.1.95"]),
            ([subnet("192.168.1.0/24", host6="192.168.1.95")], {}, ["192.168.1.95"]),
            ([named], {"given": ["192.168.1.77"]}, ["192.168.1.77"]),
        )
        for subnets, about, expected in cases:
            with self.subTest(subnets=subnets, about=about):
                chosen = self.successResultOf(self.choice(*subnets, **about))
                self.assertEqual([str(each) for each in chosen], expected, about)

    def test_given_addresses_are_reserved_in_managed_pools_only(self) -> None:
        self.successResultOf(self.choice(ours(V4), ours(V6), given=["fd00::77", "192.168.1.77"]))
        self.assertEqual([wanted for _, wanted, _ in self.pools.asked], ["192.168.1.77", "fd00::77"])
        self.pools.asked.clear()
        self.successResultOf(self.choice(ours(V4), given=["10.9.9.9"]))
        self.successResultOf(self.choice(ours(subnet("192.168.1.0/24", host="192.168.1.95"))))
        self.assertEqual(self.pools.asked, [], "the engine has reserved auxiliary addresses itself")

    def test_engine_pool_without_an_address_is_refused_with_advice(self) -> None:
        options = ("-o host_address=ADDRESS", "-o host_access=false")
        self.assert_refused(("192.168.1.0/24", "--aux-address host=ADDRESS", *options), V4)
        named = subnet("192.168.1.0/24", host="192.168.1.95")
        self.assert_refused(("--aux-address host6=ADDRESS",), named, V6)
        null_ipam = evolve(subnet("0.0.0.0/0"), null_ipam=True)
        self.assertNotIn("--aux-address", self.assert_refused(options[:1], null_ipam))

    def test_address_of_an_absent_family_is_refused(self) -> None:
        self.assert_refused(("IPv6",), V4, given=["192.168.1.77", "fd00::77"])

    def test_address_the_host_has_already_is_refused(self) -> None:
        words = ("host address 192.168.1.10 is already assigned to the host on eth0",)
        others = {"192.168.1.10": "eth0"}
        for each in (V4, ours(V4)):
            self.assert_refused(words, each, given=["192.168.1.10"], others=others)
        named = subnet("192.168.1.0/24", host="192.168.1.10")
        self.assert_refused(("192.168.1.10",), named, others=others)
