"""Which addresses the host gets for its containers: given, reserved by name, or of the pool."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from attrs import define, evolve, field
from twisted.internet.defer import Deferred, ensureDeferred
from twisted.trial.unittest import SynchronousTestCase

from macvlan_twisted.addresses import IPAddress, IPNetwork, parse_address
from macvlan_twisted.driver.host_addresses import choose_host_addresses
from macvlan_twisted.driver.models import Network, Subnet
from macvlan_twisted.errors import RequestRefused

from .helpers import NETWORK, subnet

V4, V6 = subnet("192.168.1.0/24", "192.168.1.1"), subnet("fd00::/64")


def ours(each: Subnet) -> Subnet:
    return evolve(each, managed_here=True)


@define
class Pools:
    """Address management that gives the first that is preferred, else .64."""

    asked: list[tuple[str, str | None, list[str]]] = field(factory=list)

    async def reserve_for_host(
        self,
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
        others: Mapping[str, str] | None = None,
    ) -> Deferred[tuple[IPAddress, ...]]:
        return ensureDeferred(
            choose_host_addresses(
                Network(NETWORK, "eth0", "bridge", subnets=subnets),
                [parse_address(each) for each in given],
                [parse_address(each) for each in present],
                {parse_address(address): link for address, link in (others or {}).items()},
                (),
                self.pools,
            )
        )

    def chosen(self, *subnets: Subnet, **about: Sequence[str]) -> list[str]:
        return [str(each) for each in self.successResultOf(self.choice(*subnets, **about))]  # type: ignore[arg-type]

    def refused(self, *subnets: Subnet, given: Sequence[str] = (), others: Mapping[str, str] = {}) -> str:
        failure = self.failureResultOf(self.choice(*subnets, given=given, others=others), RequestRefused)
        return str(failure.getErrorMessage())

    def test_managed_pools_yield_one_address_per_family(self) -> None:
        self.assertEqual(self.chosen(ours(V4), ours(V6)), ["192.168.1.64", "fd00::40"])

    def test_one_address_serves_several_subnets_of_a_family(self) -> None:
        self.assertEqual(self.chosen(ours(V4), ours(subnet("10.0.0.0/24"))), ["192.168.1.64"])

    def test_addresses_on_the_parent_are_preferred(self) -> None:
        present = ["192.168.1.99", "fd00::99"]
        self.assertEqual(self.chosen(ours(V4), ours(V6), present=present), present)

    def test_given_addresses_are_reserved_in_managed_pools(self) -> None:
        self.assertEqual(
            self.chosen(ours(V4), ours(V6), given=["fd00::77", "192.168.1.77"]), ["192.168.1.77", "fd00::77"]
        )
        self.assertEqual([wanted for _, wanted, _ in self.pools.asked], ["192.168.1.77", "fd00::77"])

    def test_address_for_one_family_leaves_the_other_to_the_pool(self) -> None:
        self.assertEqual(
            self.chosen(ours(V4), ours(V6), given=["192.168.1.77"]), ["192.168.1.77", "fd00::40"]
        )

    def test_given_address_outside_all_pools_is_used(self) -> None:
        self.assertEqual(self.chosen(ours(V4), given=["10.9.9.9"]), ["10.9.9.9"])
        self.assertEqual(self.pools.asked, [])

    def test_given_address_in_an_engine_pool_is_used(self) -> None:
        self.assertEqual(self.chosen(V4, given=["192.168.1.77"]), ["192.168.1.77"])

    def test_reserved_auxiliary_addresses_are_used(self) -> None:
        named = subnet("192.168.1.0/24", host="192.168.1.95", router="192.168.1.2")
        named_6 = subnet("fd00::/64", host6="fd00::95")
        self.assertEqual(self.chosen(named, named_6), ["192.168.1.95", "fd00::95"])
        self.assertEqual(self.chosen(ours(named), ours(named_6)), ["192.168.1.95", "fd00::95"])
        self.assertEqual(self.pools.asked, [], "it is taken twice in our pool")

    def test_all_auxiliary_names_work(self) -> None:
        for name in ("host", "host4", "host6"):
            self.assertEqual(
                self.chosen(subnet("192.168.1.0/24", **{name: "192.168.1.95"})), ["192.168.1.95"]
            )

    def test_given_address_wins_over_an_auxiliary_address(self) -> None:
        named = subnet("192.168.1.0/24", host="192.168.1.95")
        self.assertEqual(self.chosen(named, given=["192.168.1.77"]), ["192.168.1.77"])

    def test_engine_pool_without_an_address_is_refused_with_advice(self) -> None:
        said = self.refused(V4)
        for words in (
            "192.168.1.0/24",
            "--aux-address host=ADDRESS",
            "-o host_address=ADDRESS",
            "-o host_access=false",
        ):
            self.assertIn(words, said)
        named = subnet("192.168.1.0/24", host="192.168.1.95")
        self.assertIn("--aux-address host6=ADDRESS", self.refused(named, V6))

    def test_null_ipam_error_suggests_the_option_only(self) -> None:
        said = self.refused(evolve(subnet("0.0.0.0/0"), null_ipam=True))
        self.assertIn("-o host_address=ADDRESS", said)
        self.assertNotIn("--aux-address", said)

    def test_address_of_an_absent_family_is_refused(self) -> None:
        self.assertIn("IPv6", self.refused(V4, given=["192.168.1.77", "fd00::77"]))

    def test_address_the_host_has_already_is_refused(self) -> None:
        others = {"192.168.1.10": "eth0"}
        for each in (V4, ours(V4)):
            said = self.refused(each, given=["192.168.1.10"], others=others)
            self.assertIn("host address 192.168.1.10 is the host's own already, on eth0", said)
        named = subnet("192.168.1.0/24", host="192.168.1.10")
        self.assertIn("192.168.1.10", self.refused(named, others=others))
