"""Which network has which pool, and what an address is for that is named before the network is created."""

from __future__ import annotations

from typing import Any

from attrs import evolve
from twisted.internet.defer import Deferred

from macvlan_twisted.addresses import parse_address
from macvlan_twisted.ipam.new_pools import YOUNG_SECONDS
from macvlan_twisted.ipam.requests import Purpose, RequestAddress
from macvlan_twisted.option_values import ConflictDetection
from macvlan_twisted.reconcile.reconciler import GRACE_PERIODS

from .conflict_cases import DETECTING, NEIGHBOUR, POOL, ConflictTestCase
from .helpers import NETWORK, OTHER_NETWORK, network_request, subnet

USED, OTHER_USED, FREE, OTHER_FREE = "10.0.0.66", "10.0.0.67", "10.0.0.77", "10.0.0.78"
"""The first two are a neighbour's."""


class NewPoolTestCase(ConflictTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.neighbour_has(USED, OTHER_USED)

    def creating(
        self, network_id: str = NETWORK, parent: str | None = "eth0", *auxiliary: str, **options: Any
    ) -> Deferred[None]:
        """CreateNetwork, as the route makes it."""
        addresses = {f"aux{number}": each for number, each in enumerate(auxiliary)}
        managed = evolve(subnet(POOL, **addresses), managed_here=True)
        if parent is not None:
            options["parent"] = parent
        request = network_request(network_id, subnets=(managed,), **options)

        async def create() -> None:
            await self.plugin.networks.create(request)
            await self.plugin.pool_binding.network_created(
                self.plugin.networks.parent_of(network_id),
                [(managed.pool, managed.auxiliary.values())],
                network_id,
            )

        return self.plugin.start(create())

    def create(self, *about: Any, **options: str) -> None:
        creating = self.creating(*about, **options)
        self.pass_time()
        self.successResultOf(creating)

    def name(self, pool_id: str, address: str) -> Deferred[Any]:
        """Request an address as engines before 29 do, which tell neither its purpose nor a container."""
        return self.plugin.start(
            self.plugin.addresses.request_address(RequestAddress(pool_id, parse_address(address)))
        )

    def named(self, pool_id: str, address: str) -> str:
        asked = self.name(pool_id, address)
        self.pass_time()
        return str(self.successResultOf(asked).ip)

    def assert_name_refused(self, pool_id: str, address: str, *words: str) -> None:
        asked = self.name(pool_id, address)
        self.pass_time()
        refusal = self.refusal_of(asked)
        self.flushLoggedErrors()
        for word in words:
            self.assertIn(word, refusal)

    def purposes(self, pool_id: str) -> dict[str, str]:
        """On disk."""
        return {
            str(each.address): each.purpose
            for each in self.plugin.store.allocations()
            if each.pool_id == pool_id
        }

    def parents(self) -> dict[str, tuple[str, str | None]]:
        """Of each pool on disk: the parent on whose LAN it looks for addresses, and its network."""
        pools = self.plugin.next_life().pools.open_pools
        return {each.pool_id: (each.lan_parent, each.network_id) for each in pools}


class ParentTests(NewPoolTestCase):
    def test_pools_keep_the_parents_that_the_user_named(self) -> None:
        """CreateNetwork comes in another order than RequestPool."""
        one, two = self.open(POOL, parent="eth0"), self.open(POOL, parent="eth1")
        self.create(OTHER_NETWORK, "eth1")
        self.create(NETWORK, "eth0")
        self.assertEqual([parent for parent, _ in self.parents().values()], ["eth0", "eth1"])
        self.assert_name_refused(one, USED, "eth0", NEIGHBOUR)
        self.assert_name_refused(two, USED, "eth1", NEIGHBOUR)

    def test_pool_without_a_named_parent_moves_to_its_networks(self) -> None:
        self.open(POOL, parent="eth0")
        filled_in = self.open(POOL)
        self.create(NETWORK, "eth1")
        self.assertEqual(self.parents()[filled_in][0], "eth1")

    def test_pool_on_the_right_parent_comes_before_a_newer_one(self) -> None:
        on_eth1, newer = self.open(POOL, parent="eth1"), self.open(POOL)
        self.create(NETWORK, "eth1")
        self.create(OTHER_NETWORK, "eth0")
        self.assertEqual(
            {key: each[0] for key, each in self.parents().items()}, {on_eth1: "eth1", newer: "eth0"}
        )

    def test_network_on_another_parent_than_its_pool_is_refused(self) -> None:
        pool = self.open(POOL, parent="eth1")
        creating = self.creating(NETWORK, "eth0")
        refusal = self.refusal_of(creating)
        for word in ("parent=eth1", "eth0", POOL, "-o parent="):
            self.assertIn(word, refusal)
        self.assertEqual(dict(self.plugin.registry.networks), {})
        self.assertEqual(self.plugin.records.all_rows(), {})
        self.assertEqual(self.parents(), {pool: ("eth1", None)})

    def test_vlan_on_the_named_parent_is_accepted(self) -> None:
        pool = self.open(POOL, parent="eth1")
        self.create(NETWORK, "eth1", vlan_id="10")
        self.assertEqual(self.parents(), {pool: ("eth1.10", NETWORK)})

    def test_row_without_the_new_field_moves_as_before(self) -> None:
        pool = self.open(POOL, parent="eth1")
        del self.plugin.store.open[pool]["parent_named"]  # type: ignore[attr-defined]
        self.plugin = self.plugin.next_life()
        self.create(NETWORK, "eth0")
        self.assertEqual(self.parents(), {pool: ("eth0", NETWORK)})

    def test_repeated_creation_leaves_other_new_pools_alone(self) -> None:
        self.open(POOL)
        self.create(NETWORK)
        other = self.open(POOL)
        self.create(NETWORK)
        self.assertEqual(self.named(other, USED), USED)


class NamedAddressTests(NewPoolTestCase):
    def test_container_is_refused_an_address_in_use_despite_an_older_pool(self) -> None:
        self.open(POOL)  # its network never comes, or is another driver's
        pool = self.open(POOL)
        self.create()
        self.assert_name_refused(pool, USED, NEIGHBOUR, "in use")
        self.assertEqual(self.purposes(pool), {})

    def test_creation_ends_all_pools_that_may_be_meant(self) -> None:
        pools = [self.open(POOL) for _ in range(3)]
        self.create()
        for pool in pools:
            self.assert_name_refused(pool, USED, NEIGHBOUR)

    def test_auxiliary_address_may_be_in_use(self) -> None:
        pool = self.open(POOL)
        self.assertEqual(self.named(pool, USED), USED)
        self.create(NETWORK, "eth0", USED)
        self.assertEqual(self.purposes(pool), {USED: "auxiliary"})

    def test_many_auxiliary_addresses_may_be_in_use(self) -> None:
        """To ask for each takes half a second, which does not count."""
        pool = self.open(POOL)
        auxiliary = [f"10.0.0.{number}" for number in range(100, 130)]
        for address in auxiliary:
            self.named(pool, address)
        self.assertEqual(self.named(pool, USED), USED)
        self.create(NETWORK, "eth0", USED, *auxiliary)
        self.assertEqual(set(self.purposes(pool).values()), {"auxiliary"})

    def test_address_in_use_is_refused_once_the_pool_is_old(self) -> None:
        """A container of another driver's network: CreateNetwork never comes."""
        pool = self.open(POOL)
        self.pass_time(YOUNG_SECONDS + 1)
        self.assert_name_refused(pool, USED, NEIGHBOUR)

    def test_address_that_nobody_has_is_a_containers(self) -> None:
        pool = self.open(POOL)
        self.named(pool, FREE)
        self.assertEqual(self.purposes(pool), {FREE: "endpoint"})
        self.assertEqual(self.defended(FREE), [])  # or a printer could not come back with it

    def test_creation_corrects_what_nobody_answered_for(self) -> None:
        pool = self.open(POOL)
        self.named(pool, FREE)
        self.named(pool, USED)
        self.create(NETWORK, "eth0", FREE, USED)
        self.assertEqual(self.purposes(pool), {FREE: "auxiliary", USED: "auxiliary"})
        self.assert_name_refused(pool, FREE, "reserved")

    def test_creation_corrects_what_a_neighbour_answered_for(self) -> None:
        pool = self.open(POOL)
        self.named(pool, USED)
        self.named(pool, FREE)
        self.create(NETWORK, "eth0", FREE)
        self.assertEqual(self.purposes(pool), {FREE: "auxiliary", USED: "endpoint"})

    def test_undecided_address_can_be_released(self) -> None:
        pool = self.open(POOL)
        for address in (USED, FREE):
            self.named(pool, address)
            self.release(pool, address)
        self.pass_time(YOUNG_SECONDS + 1)
        self.assertEqual(self.purposes(pool), {})
        self.assertEqual(self.named(self.open(POOL), FREE), FREE)


class TwoClaimsTests(NewPoolTestCase):
    """No two pools have one address, except for gateways and auxiliary addresses that CreateNetwork has confirmed."""

    def test_address_is_not_allocated_twice_before_creation(self) -> None:
        one, two = self.open(POOL), self.open(POOL)
        self.named(one, USED)
        second = self.name(two, USED)
        self.assertNoResult(second)
        self.pass_time(YOUNG_SECONDS + 1)
        self.assertIn(USED, self.refusal_of(second))

    def test_address_named_in_a_forgotten_pool_can_be_named_again(self) -> None:
        """An engine died in the middle of creating the network, and creates it again."""
        forgotten = self.open(POOL)
        self.named(forgotten, FREE)
        self.pass_time(YOUNG_SECONDS + 1)
        pool = self.open(POOL)
        asked = self.name(pool, FREE)
        self.pass_time()
        self.pass_time()
        self.successResultOf(asked)
        self.create(NETWORK, "eth0", FREE)
        self.assertEqual(self.purposes(pool), {FREE: "auxiliary"})
        self.assertEqual(self.purposes(forgotten), {})

    def test_address_of_a_silent_container_is_not_allocated_again(self) -> None:
        """It is another driver's network; the engine names its containers, and this one has not answered the probe."""
        for name, address in (("web", None), ("db", parse_address(FREE))):
            others = self.open(POOL)
            request = RequestAddress(others, address, Purpose.ENDPOINT, name)
            asked = self.plugin.start(self.plugin.addresses.request_address(request))
            self.pass_time()
            allocated = str(self.successResultOf(asked).ip)
            self.assert_name_refused(self.open(POOL), allocated, allocated)
            self.assertEqual(self.purposes(others), {allocated: "endpoint"})
            self.pass_time(YOUNG_SECONDS + 1)

    def test_address_of_a_living_container_is_not_allocated_again(self) -> None:
        """It is another driver's network, for which no CreateNetwork comes; the container answers the probe."""
        others = self.open(POOL)
        self.named(others, FREE)
        self.pass_time(YOUNG_SECONDS + 1)
        self.neighbour_has(FREE)
        second = self.name(self.open(POOL), FREE)
        self.pass_time()
        self.pass_time()
        self.assertIn(FREE, self.refusal_of(second))
        self.assertEqual(self.purposes(others), {FREE: "endpoint"})

    def test_address_has_one_claim_with_detection_off(self) -> None:
        self.use(evolve(DETECTING, conflict_detection=ConflictDetection.OFF))
        one, two = self.open(POOL), self.open(POOL)
        self.named(one, FREE)
        second = self.name(two, FREE)
        self.assertNoResult(second)
        self.pass_time(YOUNG_SECONDS + 1)
        self.successResultOf(second)
        self.assertEqual((self.purposes(one), self.purposes(two)), ({}, {FREE: "endpoint"}))

    def test_auxiliary_address_that_is_named_twice_is_refused(self) -> None:
        pool = self.open(POOL)
        self.named(pool, FREE)
        self.assert_name_refused(pool, FREE, FREE, "in use by a container or an --aux-address: ")

    def test_address_of_a_known_network_is_not_allocated_again_with_detection_off(self) -> None:
        """It is another driver's network: named for a container, or listed by the engine."""
        self.use(evolve(DETECTING, conflict_detection=ConflictDetection.OFF))
        late, listed = self.open(POOL), self.open(POOL)
        self.pass_time(YOUNG_SECONDS + 1)
        self.named(late, FREE)
        self.plugin.wait(self.plugin.pool_binding.is_listed_by(listed, "a" * 64))
        self.named(listed, OTHER_FREE)
        pool = self.open(POOL)
        for address in (FREE, OTHER_FREE):
            self.assert_name_refused(pool, address, address, "in use by a container: ")
        self.assertEqual(
            (self.purposes(late), self.purposes(listed)), ({FREE: "endpoint"}, {OTHER_FREE: "endpoint"})
        )
        self.assertEqual(self.purposes(pool), {})

    def test_networks_share_gateways_and_confirmed_auxiliary_addresses(self) -> None:
        for network_id in (NETWORK, OTHER_NETWORK):
            pool = self.open(POOL)
            self.gateway(pool, "10.0.0.1")
            self.named(pool, USED)
            self.named(pool, FREE)
            self.create(network_id, "eth0", USED, FREE)
            self.assertEqual(
                self.purposes(pool), {"10.0.0.1": "gateway", USED: "auxiliary", FREE: "auxiliary"}
            )

    def test_networks_created_in_parallel_share_auxiliary_addresses(self) -> None:
        """Engines request auxiliary addresses in any order."""
        pools = [self.open(POOL) for _ in range(4)]
        orders = [(USED, FREE), (FREE, USED), (USED, FREE), (FREE, USED)]
        done = [
            self.plugin.start(self.parallel(f"{number:064x}", pool, order))
            for number, (pool, order) in enumerate(zip(pools, orders, strict=True))
        ]
        self.pass_time(4)
        for each in done:
            self.successResultOf(each)
        for pool in pools:
            self.assertEqual(self.purposes(pool), {USED: "auxiliary", FREE: "auxiliary"})

    async def parallel(self, network_id: str, pool_id: str, auxiliary: tuple[str, ...]) -> None:
        for each in auxiliary:
            await self.plugin.addresses.request_address(RequestAddress(pool_id, parse_address(each)))
        await self.creating(network_id, "eth0", *auxiliary)

    def test_gateway_waits_for_a_network_that_reserves_it(self) -> None:
        one, two = self.open(POOL), self.open(POOL)
        self.named(one, FREE)
        request = RequestAddress(two, parse_address(FREE), Purpose.GATEWAY)
        asked = self.plugin.start(self.plugin.addresses.request_address(request))
        self.assertNoResult(asked)
        self.create(NETWORK, "eth0", FREE)
        self.assertEqual(str(self.successResultOf(asked)), f"{FREE}/24")

    def test_pool_released_while_it_waits_is_refused(self) -> None:
        one, two = self.open(POOL), self.open(POOL)
        self.named(one, FREE)
        waiting = self.name(two, USED)
        self.close(two)
        self.pass_time(YOUNG_SECONDS + 1)
        self.assertIn("released while this request was running", self.refusal_of(waiting))
        self.assertEqual(self.purposes(two), {})


class DecisionTests(NewPoolTestCase):
    def test_network_is_refused_if_the_disk_cannot_store_what_it_says(self) -> None:
        pool = self.open(POOL)
        self.named(pool, FREE)
        self.plugin.store.failing = True
        self.assertIn("disk", self.refusal_of(self.creating(NETWORK, "eth0", FREE)))
        self.plugin.store.failing = False
        self.assertEqual(self.purposes(pool), {FREE: "endpoint"})
        self.create(NETWORK, "eth0", FREE)
        self.assertEqual(self.purposes(pool), {FREE: "auxiliary"})


class ForgottenPoolTests(NewPoolTestCase):
    """The engine died in the middle of creating its only network."""

    def reconcile(self) -> None:
        """The engine is there again, and lists no network of ours."""
        self.plugin.engine.trouble, self.plugin.engine.has = None, {}
        self.plugin.parts.reconcile_loop.start()
        for _ in range(int(GRACE_PERIODS.idle) + 120):
            self.pass_time(1)

    def test_pool_goes_with_the_addresses_that_were_named(self) -> None:
        pool = self.open(POOL)
        self.gateway(pool, "10.0.0.1")
        self.named(pool, FREE)
        self.named(pool, USED)
        self.reconcile()
        self.assertEqual(self.plugin.pools.open_pools, [])
        self.assertEqual(self.purposes(pool), {})

    def test_address_that_somebody_has_stays(self) -> None:
        """It may be the pool of another engine."""
        pool = self.open(POOL)
        self.pass_time(YOUNG_SECONDS + 1)
        self.named(pool, FREE)
        self.neighbour_has(FREE)
        self.reconcile()
        self.assertEqual(self.purposes(pool), {FREE: "endpoint"})

    def test_only_what_was_named_at_once_goes_with_detection_off(self) -> None:
        self.use(evolve(DETECTING, conflict_detection=ConflictDetection.OFF))
        forgotten, other = self.open(POOL), self.open(POOL)
        self.named(forgotten, FREE)
        self.pass_time(YOUNG_SECONDS + 1)
        self.named(other, OTHER_FREE)
        self.reconcile()
        self.assertEqual((self.purposes(forgotten), self.purposes(other)), ({}, {OTHER_FREE: "endpoint"}))
