"""Addresses without an owner are released, and none that a container has or may be about to get."""

from __future__ import annotations

from attrs import evolve

from macvlan_twisted.addresses import parse_address, parse_interface, parse_network
from macvlan_twisted.ipam.requests import Purpose, RequestAddress, RequestPool
from macvlan_twisted.reconcile.reconciler import GRACE_PERIODS
from macvlan_twisted.state.interfaces import RecordKind

from .helpers import ENDPOINT, NETWORK, OTHER_ENDPOINT, OTHER_NETWORK
from .reconciler_cases import ENOUGH, ROUND, SUBNET, ReconcilerTestCase, listed, make_network, open_pool


class AddressTests(ReconcilerTestCase):
    def test_address_without_an_endpoint_is_released(self) -> None:
        self.begin()
        self.request_address()
        self.go_round(GRACE_PERIODS.idle - 1)
        self.assertEqual(self.claimed(), ["192.168.1.7"])
        self.assertIn("address 192.168.1.7: released, no container uses it", self.go_round(2 * ROUND))
        self.assertEqual(self.claimed(), [])
        self.assertEqual(self.reconciler.counts, {"addresses released": 1})

    def test_grace_period_starts_again_after_a_restart(self) -> None:
        """Without an engine as well."""
        self.no_engine()
        self.request_address()
        self.start_again()
        self.go_round(GRACE_PERIODS.idle - 1)
        self.assertEqual(self.claimed(), ["192.168.1.7"])
        self.go_round(2 * ROUND)
        self.assertEqual(self.claimed(), [])

    def test_address_of_a_removed_endpoint_is_released(self) -> None:
        self.run_container()
        self.begin()
        self.go_round(2 * ENOUGH)
        self.engine.listed.clear()
        self.plugin.kernel.move_back(self.plugin.kernel.away(self.plugin.registry.endpoints[ENDPOINT].link))
        self.plugin.delete_endpoint()
        self.go_round(GRACE_PERIODS.idle - 1)
        self.assertEqual(self.claimed(), ["192.168.1.7"])
        self.go_round(2 * ROUND)
        self.assertEqual(self.claimed(), [])

    def test_reallocation_restarts_the_grace_period(self) -> None:
        self.begin()
        self.request_address()
        for _ in range(4):
            self.go_round(GRACE_PERIODS.idle - 20)
            self.release_address()
            self.request_address()
        self.go_round(GRACE_PERIODS.idle - 1)
        self.assertEqual(self.claimed(), ["192.168.1.7"])

    def test_address_reallocated_between_two_checks_stays(self) -> None:
        self.begin()
        self.request_address()
        self.pass_time(141)  # one check was at 140, the next one is at 145
        self.release_address()
        self.request_address()
        self.go_round(GRACE_PERIODS.idle - 1)
        self.assertEqual(self.claimed(), ["192.168.1.7"])

    def test_address_that_ages_between_two_checks_stays_for_now(self) -> None:
        self.begin()
        self.pass_time(10)
        self.request_address("192.168.1.7")
        self.pass_time(12)
        self.request_address("192.168.1.8")
        self.go_round(124)  # the checks are at 140 and 145
        self.assertEqual(self.claimed(), ["192.168.1.8"])

    def test_address_whose_endpoint_comes_between_checks_stays(self) -> None:
        self.begin()
        self.request_address()
        self.pass_time(141)
        self.plugin.create_endpoint()
        self.engine.listed[ENDPOINT] = "web"
        self.go_round(2 * ENOUGH)
        self.assertEqual(self.claimed(), ["192.168.1.7"])

    def test_reported_address_of_a_readdressed_container_stays(self) -> None:
        self.run_container()
        moved = evolve(
            self.plugin.registry.endpoints[ENDPOINT],
            address=parse_interface("192.168.1.99/24"),
            reported_address=parse_interface("192.168.1.7/24"),
        )
        self.plugin.registry.replace_endpoint(moved)
        self.plugin.orphans.begin()
        self.begin()
        self.go_round(2 * ENOUGH)
        self.assertEqual(self.claimed(), ["192.168.1.7"])

    def test_gateways_and_reserved_addresses_stay(self) -> None:
        other, printer = open_pool(self.plugin), parse_address("192.168.1.9")
        for address, purpose in (
            (parse_address("192.168.1.1"), Purpose.GATEWAY),
            (printer, Purpose.ENDPOINT),
        ):
            self.plugin.wait(self.plugin.addresses.request_address(RequestAddress(other, address, purpose)))
        subnets = [(parse_network(SUBNET), [printer])]
        self.plugin.wait(
            self.plugin.pool_binding.network_requested(OTHER_NETWORK, "eth0", "eth0", subnets, {})
        )
        self.plugin.wait(self.plugin.pool_binding.assign_network(other, NETWORK))
        before = set(self.plugin.store.allocated)
        self.start_again()
        self.go_round(2 * ENOUGH)
        self.assertEqual(set(self.plugin.store.allocated), before)


class ForeignPoolTests(ReconcilerTestCase):
    """Pools that may belong to a network of another driver."""

    def create_all(self) -> str:
        return open_pool(self.plugin)

    def assert_stays(self) -> None:
        self.go_round(2 * ENOUGH)
        self.start_again()
        self.go_round(2 * ENOUGH)
        self.assertEqual(self.claimed(), ["192.168.1.7"])

    def test_address_of_another_drivers_network_stays(self) -> None:
        self.engine.has = {OTHER_NETWORK: listed(OTHER_NETWORK, driver="macvlan")}
        self.request_address()
        self.begin()
        self.assert_stays()

    def test_address_stays_if_two_pools_match_the_network(self) -> None:
        open_pool(self.plugin)
        make_network(self.plugin)
        self.request_address()
        self.begin()
        self.assert_stays()

    def test_address_of_an_endpoint_identifies_the_pool(self) -> None:
        others = open_pool(self.plugin)
        make_network(self.plugin)
        self.run_container()
        self.begin()
        self.go_round(2 * ROUND)
        networks = {each.pool_id: each.network_id for each in self.plugin.pools.open_pools}
        self.assertEqual(networks, {self.pool_id: NETWORK, others: None})
        self.request_address("192.168.1.8")
        self.go_round(2 * ENOUGH)
        self.assertEqual(self.claimed(), ["192.168.1.7"])

    def test_address_in_two_pools_identifies_none(self) -> None:
        request = RequestPool("Other", parse_network(SUBNET), None, {"parent": "eth0"})
        other = self.plugin.wait(self.plugin.pools.request_pool(request)).pool_id
        make_network(self.plugin)
        again = RequestAddress(other, parse_address("192.168.1.7"), Purpose.ENDPOINT, "x")
        self.plugin.wait(self.plugin.addresses.request_address(again))
        self.run_container()
        self.begin()
        self.go_round(2 * ROUND)
        self.assertEqual({each.network_id for each in self.plugin.pools.open_pools}, {None})

    def test_engine_managed_endpoint_identifies_no_pool(self) -> None:
        self.plugin.create_network()
        self.request_address()
        self.plugin.create_endpoint()
        self.begin()
        self.go_round(2 * ROUND)
        self.assertEqual({each.network_id for each in self.plugin.pools.open_pools}, {None})

    def test_address_of_a_swarm_pool_stays(self) -> None:
        request = RequestPool("Global", parse_network("10.9.0.0/24"), None, {}, is_global=True)
        self.pool_id = self.plugin.wait(self.plugin.pools.request_pool(request)).pool_id
        self.request_address("10.9.0.7")
        self.begin()
        self.go_round(2 * ENOUGH)
        self.assertEqual(self.claimed(), ["10.9.0.7"])
        self.assertIn(self.pool_id, self.plugin.store.open)


class RebuiltPoolTests(ReconcilerTestCase):
    def test_address_of_a_rebuilt_pool_stays(self) -> None:
        rebuilt = {key: {**each, "stands_for": 2} for key, each in self.plugin.store.open.items()}
        self.plugin.store.open.update(rebuilt)
        self.plugin = self.plugin.next_life()
        self.request_address()
        self.start_again()
        self.go_round(2 * ENOUGH)
        self.assertEqual(self.claimed(), ["192.168.1.7"])
        self.assertEqual(list(self.plugin.store.open), list(rebuilt))


class OrphanLinkTests(ReconcilerTestCase):
    """Links of ours without an endpoint, left behind while the service runs."""

    def leave_link(self) -> str:
        self.run_container()
        link = self.plugin.kernel.away(self.plugin.registry.endpoints[ENDPOINT].link)
        self.plugin.registry.remove_endpoint(ENDPOINT)
        self.plugin.records.rows[RecordKind.ENDPOINT].clear()
        self.plugin.kernel.move_back(link)
        return link.name

    def test_link_without_an_endpoint_is_removed(self) -> None:
        name = self.leave_link()
        self.begin()
        self.go_round(GRACE_PERIODS.idle - 1)
        self.assertIn(name, self.plugin.link_names())
        self.assertIn("no endpoint uses it", self.go_round(2 * ROUND))
        self.assertNotIn(name, self.plugin.link_names())

    def test_foreign_link_stays(self) -> None:
        name = self.leave_link()
        link = self.plugin.link(name)
        self.plugin.kernel.put(evolve(link, alias="somebody's", group=7))
        self.begin()
        self.go_round(2 * ENOUGH)
        self.assertIn(name, self.plugin.link_names())

    def test_link_replaced_between_two_checks_stays(self) -> None:
        name = self.leave_link()
        self.begin()
        self.pass_time(141)
        link = self.plugin.link(name)
        self.plugin.kernel.put(evolve(link, index=link.index + 50))
        self.go_round(GRACE_PERIODS.idle - 10)
        self.assertIn(name, self.plugin.link_names())


class SecondContainerTests(ReconcilerTestCase):
    def test_address_of_a_second_container_stays(self) -> None:
        """The engine forgot the first one, released its address, and allocated it again."""
        self.run_container()
        self.forget_container()
        self.release_address()
        self.request_address()
        self.begin()
        self.go_round(GRACE_PERIODS.idle + 10)
        self.plugin.create_endpoint(OTHER_ENDPOINT, address="192.168.1.7/24")
        self.engine.listed[OTHER_ENDPOINT] = "web"
        self.go_round(2 * ENOUGH)
        self.assert_kept(OTHER_ENDPOINT)
        self.assertEqual(self.claimed(), ["192.168.1.7"])
