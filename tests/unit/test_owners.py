"""Addresses that nobody has are given back, and none that somebody has, or may be about to have."""

from __future__ import annotations

from attrs import evolve

from macvlan_twisted.addresses import parse_address, parse_interface, parse_network
from macvlan_twisted.ipam.requests import Purpose, ReleaseAddress, RequestAddress, RequestPool
from macvlan_twisted.state.interface import Kind

from .helpers import ENDPOINT, NETWORK, OTHER_ENDPOINT, OTHER_NETWORK, endpoint_request, subnet
from .rounds_cases import AGES, ENOUGH, ROUND, SUBNET, RoundsTestCase, listed


class AddressTests(RoundsTestCase):
    def test_one_for_which_no_endpoint_comes_is_given_back(self) -> None:
        self.begin()
        self.request_address()
        self.go_round(AGES.silence - 1)
        self.assertEqual(self.claimed(), ["192.168.1.7"])
        self.assertIn("address 192.168.1.7 was handed out", self.go_round(2 * ROUND))
        self.assertEqual(self.claimed(), [])
        self.assertEqual(self.rounds.counts, {"addresses given back": 1})

    def test_without_an_engine_as_well(self) -> None:
        self.no_engine()
        self.request_address()
        self.start_again()
        self.go_round()
        self.assertEqual(self.claimed(), [])

    def test_one_that_waited_before_a_restart_waits_anew(self) -> None:
        self.request_address()
        self.start_again()
        self.go_round(AGES.silence - 1)
        self.assertEqual(self.claimed(), ["192.168.1.7"])
        self.go_round(2 * ROUND)
        self.assertEqual(self.claimed(), [])

    def test_a_containers_is_kept_also_after_a_restart(self) -> None:
        self.run_container()
        self.begin()
        self.go_round(2 * ENOUGH)
        self.start_again()
        self.go_round(2 * ENOUGH)
        self.assertEqual(self.claimed(), ["192.168.1.7"])

    def test_one_whose_endpoint_went_without_a_release_is_given_back(self) -> None:
        self.run_container()
        self.begin()
        self.go_round(2 * ENOUGH)
        self.engine.listed.clear()
        self.house.kernel.move_back(self.house.kernel.away(self.house.known.endpoints[ENDPOINT].link))
        self.house.delete_endpoint()
        self.go_round(AGES.silence - 1)
        self.assertEqual(self.claimed(), ["192.168.1.7"])
        self.go_round(2 * ROUND)
        self.assertEqual(self.claimed(), [])

    def test_one_that_was_given_back_and_handed_out_anew_has_not_waited_yet(self) -> None:
        self.begin()
        self.request_address()
        for _ in range(4):
            self.go_round(AGES.silence - 20)
            release = ReleaseAddress(self.pool_id, parse_address("192.168.1.7"))
            self.house.wait(self.house.addresses.release_address(release))
            self.request_address()
        self.go_round(AGES.silence - 1)
        self.assertEqual(self.claimed(), ["192.168.1.7"])

    def test_one_that_is_handed_out_anew_between_two_looks_stays(self) -> None:
        self.begin()
        self.request_address()
        self.pass_time(141)  # a look was at 140, the next one is at 145
        release = ReleaseAddress(self.pool_id, parse_address("192.168.1.7"))
        self.house.wait(self.house.addresses.release_address(release))
        self.request_address()
        self.go_round(AGES.silence - 1)
        self.assertEqual(self.claimed(), ["192.168.1.7"])

    def test_one_that_comes_of_age_between_two_looks_is_seen_once_more(self) -> None:
        self.begin()
        self.pass_time(10)
        self.request_address("192.168.1.7")
        self.pass_time(12)
        self.request_address("192.168.1.8")
        self.go_round(124)  # the looks are at 140 and 145
        self.assertEqual(self.claimed(), ["192.168.1.8"])

    def test_one_whose_endpoint_comes_between_two_looks_stays(self) -> None:
        self.begin()
        self.request_address()
        self.pass_time(141)
        self.house.create_endpoint()
        self.engine.listed[ENDPOINT] = "web"
        self.go_round(2 * ENOUGH)
        self.assertEqual(self.claimed(), ["192.168.1.7"])

    def test_one_that_a_container_was_moved_from_stays_for_the_engine_shows_it(self) -> None:
        self.run_container()
        moved = evolve(
            self.house.known.endpoints[ENDPOINT],
            address=parse_interface("192.168.1.99/24"),
            told_address=parse_interface("192.168.1.7/24"),
        )
        self.house.known.replace_endpoint(moved)
        self.house.leftovers.begin()
        self.begin()
        self.go_round(2 * ENOUGH)
        self.assertEqual(self.claimed(), ["192.168.1.7"])

    def test_gateways_and_reserved_ones_stay(self) -> None:
        other = self.request_pool()
        for address, purpose in (("192.168.1.1", Purpose.GATEWAY), ("192.168.1.9", Purpose.ENDPOINT)):
            request = RequestAddress(other, parse_address(address), purpose)
            self.house.wait(self.house.addresses.request_address(request))
        self.house.wait(self.house.owners.belongs(other, NETWORK))
        before = set(self.house.book.claimed)
        self.start_again()
        self.go_round(2 * ENOUGH)
        self.assertEqual(set(self.house.book.claimed), before)


class OtherDriversTests(RoundsTestCase):
    """Pools of which it is not certain that a network of our driver has them."""

    def create_all(self, network_id: str = NETWORK, house: object = None) -> str:
        return self.request_pool()

    def make_network(self, *subnets: str) -> None:
        self.house.create_network(
            subnets=tuple(evolve(subnet(each), is_ours=True) for each in subnets), parent="eth0"
        )
        pools = [(parse_network(each), ()) for each in subnets]
        self.house.wait(self.house.network_pools.network_made("eth0", pools, NETWORK))

    def assert_stays(self) -> None:
        self.go_round(2 * ENOUGH)
        self.start_again()
        self.go_round(2 * ENOUGH)
        self.assertEqual(self.claimed(), ["192.168.1.7"])

    def test_an_address_of_another_drivers_network_stays(self) -> None:
        self.engine.has = {OTHER_NETWORK: listed(OTHER_NETWORK, driver="macvlan")}
        self.request_address()
        self.begin()
        self.assert_stays()

    def test_an_address_stays_where_another_drivers_pool_may_be_taken_for_ours(self) -> None:
        self.request_pool()
        self.make_network(SUBNET)
        self.request_address()
        self.begin()
        self.assert_stays()

    def test_a_networks_pool_is_known_by_the_address_of_an_endpoint(self) -> None:
        others = self.request_pool()
        self.make_network(SUBNET)
        self.run_container()
        self.begin()
        self.go_round(2 * ROUND)
        networks = {each.pool_id: each.network_id for each in self.house.pools.open_pools}
        self.assertEqual(networks, {self.pool_id: NETWORK, others: None})
        self.request_address("192.168.1.8")
        self.go_round(2 * ENOUGH)
        self.assertEqual(self.claimed(), ["192.168.1.7"])

    def test_an_address_that_two_pools_have_tells_nothing(self) -> None:
        request = RequestPool("Other", parse_network(SUBNET), None, {"parent": "eth0"})
        other = self.house.wait(self.house.pools.request_pool(request)).pool_id
        self.make_network(SUBNET)
        again = RequestAddress(other, parse_address("192.168.1.7"), Purpose.ENDPOINT, "x")
        self.house.wait(self.house.addresses.request_address(again))
        self.run_container()
        self.begin()
        self.go_round(2 * ROUND)
        self.assertEqual({each.network_id for each in self.house.pools.open_pools}, {None})

    def test_an_endpoint_whose_address_is_not_of_our_management_tells_nothing(self) -> None:
        self.house.create_network()
        self.request_address()
        self.house.create_endpoint()
        self.begin()
        self.go_round(2 * ROUND)
        self.assertEqual({each.network_id for each in self.house.pools.open_pools}, {None})

    def test_what_is_asked_for_a_swarm_stays(self) -> None:
        request = RequestPool("Global", parse_network("10.9.0.0/24"), None, {}, is_global=True)
        self.pool_id = self.house.wait(self.house.pools.request_pool(request)).pool_id
        self.request_address("10.9.0.7")
        self.begin()
        self.go_round(2 * ENOUGH)
        self.assertEqual(self.claimed(), ["10.9.0.7"])
        self.assertIn(self.pool_id, self.house.book.open)


class RebuiltTests(RoundsTestCase):
    def test_an_address_of_a_pool_that_was_rebuilt_stays_for_it_may_be_another_networks(self) -> None:
        rebuilt = {key: {**each, "stands_for": 2} for key, each in self.house.book.open.items()}
        self.house.book.open.update(rebuilt)
        self.house = self.house.next_life()
        self.request_address()
        self.start_again()
        self.go_round(2 * ENOUGH)
        self.assertEqual(self.claimed(), ["192.168.1.7"])
        self.assertEqual(list(self.house.book.open), list(rebuilt))


class LinkTests(RoundsTestCase):
    """Links of ours without an endpoint, left behind while we run."""

    def leave_link(self) -> str:
        self.run_container()
        link = self.house.kernel.away(self.house.known.endpoints[ENDPOINT].link)
        self.house.known.remove_endpoint(ENDPOINT)
        self.house.records.kept[Kind.ENDPOINT].clear()
        self.house.kernel.move_back(link)
        return link.name

    def test_one_without_an_endpoint_is_removed(self) -> None:
        name = self.leave_link()
        self.begin()
        self.go_round(AGES.silence - 1)
        self.assertIn(name, self.house.link_names())
        self.assertIn("which no endpoint has", self.go_round(2 * ROUND))
        self.assertNotIn(name, self.house.link_names())

    def test_one_that_is_not_ours_stays(self) -> None:
        name = self.leave_link()
        link = self.house.kernel.find(name)
        assert link is not None
        self.house.kernel.put(evolve(link, alias="somebody's", group=7))
        self.begin()
        self.go_round(2 * ENOUGH)
        self.assertIn(name, self.house.link_names())

    def test_an_endpoints_stays(self) -> None:
        self.request_address()
        self.house.create_endpoint()
        self.engine.listed[ENDPOINT] = "web"
        self.begin()
        before = self.house.link_names()
        self.go_round(2 * ENOUGH)
        self.assertEqual(self.house.link_names(), before)

    def test_another_one_of_that_name_that_comes_between_two_looks_stays(self) -> None:
        name = self.leave_link()
        self.begin()
        self.pass_time(141)
        link = self.house.kernel.find(name)
        assert link is not None
        self.house.kernel.put(evolve(link, index=link.index + 50))
        self.go_round(AGES.silence - 10)
        self.assertIn(name, self.house.link_names())


class SecondContainerTests(RoundsTestCase):
    def test_an_address_that_went_on_to_another_container_is_not_taken_from_it(self) -> None:
        """The engine had forgotten the first one, gave its address back, and handed it out again."""
        self.run_container()
        self.forget_container()
        release = ReleaseAddress(self.pool_id, parse_address("192.168.1.7"))
        self.house.wait(self.house.addresses.release_address(release))
        self.request_address()
        self.begin()
        self.go_round(AGES.silence + 10)
        self.house.wait(
            self.house.endpoints.create(endpoint_request(OTHER_ENDPOINT, address="192.168.1.7/24"))
        )
        self.engine.listed[OTHER_ENDPOINT] = "web"
        self.go_round(2 * ENOUGH)
        self.assert_kept(OTHER_ENDPOINT)
        self.assertEqual(self.claimed(), ["192.168.1.7"])
