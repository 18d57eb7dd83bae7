"""Open pools are found by subnet and by address as a search through all of them would find them."""

from __future__ import annotations

from attrs import evolve
from twisted.trial.unittest import SynchronousTestCase

from macvlan_twisted.addresses import parse_address, parse_network
from macvlan_twisted.ipam.pool import Pool, reported_subnet
from macvlan_twisted.ipam.pool_index import PoolIndex

SUBNETS = ("10.1.0.0/16", "10.1.2.0/24", "10.1.2.0/24", "10.2.0.0/16", "0.0.0.0/0", "fd00::/64", "fd00::/8")
ADDRESSES = ("10.1.2.3", "10.1.3.3", "10.2.0.1", "10.3.0.1", "fd00::1", "fd01::1", "::a01:203")


def pool(number: int, subnet: str, any_subnet: bool = False) -> Pool:
    return Pool(f"p{number}", "local", parse_network(subnet), None, "eth0", any_subnet=any_subnet)


class PoolIndexTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.pools = [pool(number, subnet) for number, subnet in enumerate(SUBNETS)]
        self.pools += [pool(20, "10.1.0.0/16", any_subnet=True), pool(21, "fd00::/64", any_subnet=True)]
        self.index = PoolIndex()
        for each in self.pools:
            self.index.put(each)

    def check(self) -> None:
        self.assertEqual(list(self.index.by_id.values()), self.pools)
        for subnet in map(parse_network, (*SUBNETS, "::/0", "10.1.0.0/17", "10.0.0.0/8", "192.168.0.0/24")):
            reported = [each for each in self.pools if reported_subnet(each) == subnet]
            self.assertEqual(self.index.reported_as(subnet), reported, subnet)
            overlapping = [
                each
                for each in self.pools
                if each.prefix.version == subnet.version and each.prefix.overlaps(subnet)
            ]
            self.assertCountEqual(self.index.overlapping(subnet), overlapping, subnet)
        for address in map(parse_address, ADDRESSES):
            containing = [each for each in self.pools if address in each.prefix]
            self.assertCountEqual(self.index.containing(address), containing, address)

    def test_finds_what_a_search_finds(self) -> None:
        self.check()

    def test_removed_pools_are_not_found(self) -> None:
        while self.pools:
            self.assertIs(self.index.remove(self.pools[0].pool_id), self.pools.pop(0))
            self.check()
        self.assertIsNone(self.index.remove("p0"))

    def test_replaced_pool_is_found_once(self) -> None:
        self.pools[1] = evolve(self.pools[1], network_id="n")
        self.index.put(self.pools[1])
        self.check()
