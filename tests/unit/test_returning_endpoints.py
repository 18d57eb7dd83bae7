"""Addresses that are requested again soon, and LANs on which a neighbour has all of them."""

from __future__ import annotations

from attrs import evolve

from macvlan_twisted.addresses import parse_address
from macvlan_twisted.errors import RequestRefused
from macvlan_twisted.ipam.prefetch import MOST_IN_A_ROW
from macvlan_twisted.lan.address_monitor import LISTENED
from macvlan_twisted.lan.arp_nd import announcement_frames
from macvlan_twisted.link_names import endpoint_link_name

from .conflict_cases import NEIGHBOUR, ConflictTestCase, tens
from .helpers import ENDPOINT, subnet

NAMED = "10.0.0.77"


class ReturningAddressTests(ConflictTestCase):
    """A container releases an address, which is requested again."""

    def setUp(self) -> None:
        super().setUp()
        self.plugin.create_network(subnets=(evolve(subnet("10.0.0.0/24"), managed_here=True),))
        self.pool = self.ready()

    def lives(self, address: str) -> None:
        self.plugin.create_endpoint(address=f"{address}/24")

    def leaves(self, address: str) -> None:
        self.plugin.delete_endpoint(ENDPOINT)
        self.release(self.pool, address)

    def test_restarted_container_gets_its_address_without_a_probe(self) -> None:
        self.assertEqual(self.gets(self.pool, NAMED), NAMED)
        self.lives(NAMED)
        self.leaves(NAMED)
        self.assertTrue(self.begin(self.pool, NAMED).called)
        self.assertEqual(self.defended(NAMED), [NAMED])

    def test_neighbour_that_took_the_address_meanwhile_is_noticed(self) -> None:
        self.gets(self.pool, NAMED)
        self.lives(NAMED)
        self.leaves(NAMED)
        self.neighbour_has(NAMED)
        for frame in announcement_frames(parse_address(NAMED), NEIGHBOUR):
            self.plugin.taps["eth0"].bring(frame)
        self.assertIn(NEIGHBOUR, self.refusal_of(self.begin(self.pool, NAMED)))

    def test_address_is_probed_again_long_after(self) -> None:
        self.gets(self.pool, NAMED)
        self.lives(NAMED)
        self.leaves(NAMED)
        self.pass_time(LISTENED + 1)
        self.assertFalse(self.begin(self.pool, NAMED).called)

    def test_address_of_a_container_that_may_run_on_is_probed(self) -> None:
        self.gets(self.pool, NAMED)
        self.lives(NAMED)
        self.plugin.kernel.move_away(endpoint_link_name(ENDPOINT))  # into its sandbox, and forgotten there
        self.leaves(NAMED)
        self.assertFalse(self.begin(self.pool, NAMED).called)


class OccupiedLanTests(ConflictTestCase):
    def test_proxy_arp_is_named_after_a_bounded_search(self) -> None:
        self.plugin.answerers.clear()
        self.plugin.answerers.append(self._answer)
        pool = self.made("10.0.0.0/16")
        self.neighbour_has(*[f"10.0.{high}.{low}" for high in range(4) for low in range(256)])
        asked = self.begin(pool)
        self.pass_time(3)
        refusal = self.refusal_of(asked)
        self.assertIn("eth0", refusal)
        self.assertIn("proxy ARP", refusal)
        self.assertIn("conflict_detection=off", refusal)
        self.assertLess(len(self.conflicts()), 2 * MOST_IN_A_ROW)

    def test_next_search_continues_where_the_last_one_stopped(self) -> None:
        self.test_proxy_arp_is_named_after_a_bounded_search()
        given: list[object] = []
        for _ in range(6):
            asked = self.begin(next(iter(self.plugin.pools._pools.by_id)))
            asked.addCallbacks(given.append, lambda failure: failure.trap(RequestRefused))
            self.pass_time(3)
        self.assertTrue(str(given[0]).startswith("10.0.4."))

    def test_prefetch_skips_occupied_addresses(self) -> None:
        self.neighbour_has(*tens(1, 20))
        pool = self.ready()
        self.assertTrue(self.begin(pool).called)
