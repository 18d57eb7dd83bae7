"""Calls about addresses that overlap while the disk is slow."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred

from macvlan_twisted.addresses import IPInterface, parse_address, parse_interface, parse_network
from macvlan_twisted.errors import NotFound, RequestRefused, StateError
from macvlan_twisted.ipam.requests import GrantedPool, Purpose, ReleaseAddress, RequestAddress, RequestPool
from macvlan_twisted.state.interfaces import Allocation

from .address_cases import AddressTestCase


class RaceTests(AddressTestCase):
    def asking(
        self, pool_id: str, address: str | None = None, purpose: Purpose = Purpose.ENDPOINT
    ) -> Deferred[IPInterface]:
        wanted = None if address is None else parse_address(address)
        request = RequestAddress(pool_id, wanted, purpose, "a-container")
        return self.plugin.start(self.plugin.addresses.request_address(request))

    def releasing(self, pool_id: str, address: str) -> Deferred[None]:
        return self.plugin.start(
            self.plugin.addresses.release_address(ReleaseAddress(pool_id, parse_address(address)))
        )

    def closing(self, pool_id: str) -> Deferred[None]:
        return self.plugin.start(self.plugin.pools.release_pool(pool_id))

    def opening(self, pool: str) -> Deferred[GrantedPool]:
        request = RequestPool("Local", parse_network(pool), None, {})
        return self.plugin.start(self.plugin.pools.request_pool(request))

    def hold(self, *names: str) -> None:
        self.plugin.store.steps.hold.update(names)

    def let_go(self) -> None:
        self.plugin.store.steps.let_all_go()

    def assert_memory_is_what_is_on_disk(self, pool_id: str) -> None:
        """After a restart, which knows the disk only, the same addresses are free."""
        remembered = self.free_of(pool_id)
        self.plugin = self.plugin.next_life()
        self.assertEqual(self.free_of(pool_id), remembered)

    def free_of(self, pool_id: str) -> set[str]:
        free = set()
        for number in range(1, 7):
            try:
                self.ask(pool_id, f"10.0.0.{number}")
            except RequestRefused:
                continue
            free.add(f"10.0.0.{number}")
            self.release(pool_id, f"10.0.0.{number}")
        return free

    def test_reply_waits_for_the_disk(self) -> None:
        pool = self.open("10.0.0.0/29")
        calls: tuple[tuple[str, Callable[[], Deferred[Any]]], ...] = (
            ("save_allocation", lambda: self.asking(pool)),
            ("erase_allocation", lambda: self.releasing(pool, "10.0.0.1")),
            ("erase_pool", lambda: self.closing(pool)),
        )
        for step, begin in calls:
            self.hold(step)
            call = begin()
            self.assertNoResult(call)
            self.let_go()
            self.assertIn(self.successResultOf(call), {None, parse_interface("10.0.0.1/29")})

    def test_parallel_calls_never_get_the_same_address(self) -> None:
        pool = self.open("10.0.0.0/29")
        self.hold("save_allocation")
        calls = [self.asking(pool) for _ in range(6)]
        self.failureResultOf(self.asking(pool), RequestRefused)
        self.let_go()
        self.assertEqual(len({self.successResultOf(each) for each in calls}), 6)

    def test_address_in_release_is_not_allocated(self) -> None:
        pool = self.open("10.0.0.0/29")
        self.ask(pool, "10.0.0.3")
        self.hold("erase_allocation")
        release = self.releasing(pool, "10.0.0.3")
        self.failureResultOf(self.asking(pool, "10.0.0.3"), RequestRefused)
        self.let_go()
        self.successResultOf(release)
        self.ask(pool, "10.0.0.3")

    def test_repeated_release_leaves_the_next_owner_alone(self) -> None:
        pool = self.open("10.0.0.0/29")
        self.ask(pool, "10.0.0.3")
        self.hold("erase_allocation")
        first, second = self.releasing(pool, "10.0.0.3"), self.releasing(pool, "10.0.0.3")
        self.plugin.store.steps.let_go()
        self.successResultOf(first)
        self.successResultOf(self.asking(pool, "10.0.0.3"))
        self.let_go()
        self.successResultOf(second)
        self.failureResultOf(self.asking(pool, "10.0.0.3"), RequestRefused)
        self.assert_memory_is_what_is_on_disk(pool)

    def test_release_beside_its_pools_failed_release_is_carried_out(self) -> None:
        """It may not succeed for the reason that the pool is going, since the pool stays when the disk refuses."""
        pool = self.open("10.0.0.0/29")
        self.ask(pool, "10.0.0.3")
        self.hold("erase_allocation", "erase_pool")
        first, second = self.releasing(pool, "10.0.0.3"), self.releasing(pool, "10.0.0.3")
        of_pool = self.closing(pool)
        steps = self.plugin.store.steps
        for _ in range(2):
            steps.held.pop(0).fail(StateError("a test refuses it"))
        self.failureResultOf(first, StateError)
        self.failureResultOf(of_pool, StateError)
        self.let_go()
        self.successResultOf(second)
        self.ask(pool, "10.0.0.3")

    def test_release_before_the_reply_leaves_the_address_allocated(self) -> None:
        """It is the repeated release of the former owner: no engine has been told of the address yet."""
        pool = self.open("10.0.0.0/29")
        self.ask(pool, "10.0.0.3")
        self.successResultOf(self.releasing(pool, "10.0.0.3"))
        self.hold("save_allocation")
        asking = self.asking(pool, "10.0.0.3")
        release = self.releasing(pool, "10.0.0.3")
        self.let_go()
        self.successResultOf(asking)
        self.successResultOf(release)
        self.failureResultOf(self.asking(pool, "10.0.0.3"), RequestRefused)
        self.assert_memory_is_what_is_on_disk(pool)

    def test_pool_in_release_allocates_nothing(self) -> None:
        pool = self.open("10.0.0.0/29")
        self.hold("erase_pool", "save_allocation")
        closing, late = self.closing(pool), self.asking(pool)
        self.let_go()
        self.successResultOf(closing)
        self.failureResultOf(late, NotFound)
        self.assertEqual((self.plugin.store.open, self.plugin.store.allocated), ({}, {}))
        self.plugin.next_life()

    def test_pools_may_be_released_at_once(self) -> None:
        one, other = self.open("10.0.0.0/29"), self.open("10.0.0.0/29")
        for pool in (one, other):
            self.ask(pool)
        self.hold("erase_pool")
        calls = [self.closing(pool) for pool in (one, other, one)]
        self.assertNoResult(calls[2])
        self.let_go()
        for call in calls:
            self.successResultOf(call)
        self.assertEqual(self.ask(self.open("10.0.0.0/29"), "10.0.0.1"), "10.0.0.1/29")

    def test_failed_release_of_one_of_two_pools_keeps_its_addresses(self) -> None:
        one, two = (self.open("10.0.0.0/29") for _ in range(2))
        self.ask(two)
        self.hold("erase_pool")
        first, second = self.closing(one), self.closing(two)
        self.plugin.store.steps.let_go()
        self.plugin.store.failing = True
        self.let_go()
        self.successResultOf(first)
        self.failureResultOf(second, StateError)
        self.plugin.store.failing = False
        with self.assert_refused(RequestRefused):
            self.ask(two, "10.0.0.1")

    def test_pool_stays_usable_after_a_failed_release(self) -> None:
        pool = self.open("10.0.0.0/29")
        self.ask(pool)
        self.plugin.store.failing = True
        self.failureResultOf(self.closing(pool), StateError)
        self.plugin.store.failing = False
        self.assertEqual(self.ask(pool), "10.0.0.2/29")
        self.close(pool)
        self.assertEqual(self.plugin.store.allocated, {})

    def test_pool_opened_during_the_release_of_another_is_separate(self) -> None:
        one = self.open("10.0.0.0/29")
        self.ask(one)
        self.hold("erase_pool")
        closing = self.closing(one)
        two = self.open("10.0.0.0/29")
        taken = self.ask(two)
        self.let_go()
        self.successResultOf(closing)
        with self.assert_refused(RequestRefused):
            self.ask(two, taken.partition("/")[0])
        self.assert_memory_is_what_is_on_disk(two)

    def test_address_requested_before_the_release_goes_with_its_pool(self) -> None:
        pool = self.open("10.0.0.0/29")
        self.hold("save_allocation", "erase_pool")
        asking, closing = self.asking(pool), self.closing(pool)
        self.let_go()
        self.successResultOf(asking)
        self.successResultOf(closing)
        self.assertEqual((self.plugin.store.open, self.plugin.store.allocated), ({}, {}))

    def test_address_release_takes_effect_if_the_pool_release_fails(self) -> None:
        pool = self.open("10.0.0.0/29")
        self.ask(pool, "10.0.0.2")
        self.hold("erase_pool")
        closing, releasing = self.closing(pool), self.releasing(pool, "10.0.0.2")
        self.assertNoResult(releasing)
        (step,) = self.plugin.store.steps.held
        self.plugin.store.steps.held.clear()
        step.fail(StateError("the disk is full"))
        self.failureResultOf(closing, StateError)
        self.successResultOf(releasing)
        self.assertEqual(self.plugin.store.allocations(), [])

    def test_host_address_is_not_kept_for_a_pool_that_failed(self) -> None:
        """Otherwise state would hold an address without a pool."""
        pool = self.open("10.0.0.0/29")
        self.ask(pool)
        self.hold("save_pool", "save_allocation")
        opening = self.opening("10.0.0.0/29")
        hosts = self.plugin.start(
            self.plugin.pool_binding.reserve_for_host(
                "n" * 64, "eth0", parse_network("10.0.0.0/29"), [], None, []
            )
        )
        step = next(each for each in self.plugin.store.steps.held if each.name == "save_pool")
        self.plugin.store.steps.held.remove(step)
        step.fail(StateError("the disk is full"))
        self.failureResultOf(opening, StateError)
        self.let_go()
        self.assertEqual(self.successResultOf(hosts), parse_address("10.0.0.2"))
        self.assertEqual({claim.pool_id for claim in self.plugin.store.allocations()}, {pool})
        self.assert_memory_is_what_is_on_disk(pool)

    def test_gateway_requested_during_its_release_is_kept(self) -> None:
        pool = self.open("10.0.0.0/29")
        self.ask(pool, "10.0.0.1", Purpose.GATEWAY)
        self.hold("erase_allocation", "save_allocation")
        releasing = self.releasing(pool, "10.0.0.1")
        asking = self.asking(pool, "10.0.0.1", Purpose.GATEWAY)
        self.let_go()
        self.successResultOf(releasing)
        self.successResultOf(asking)
        self.assertEqual([str(claim.address) for claim in self.plugin.store.allocations()], ["10.0.0.1"])
        self.assertEqual(self.ask(pool), "10.0.0.2/29")
        self.assert_memory_is_what_is_on_disk(pool)

    def test_two_updates_of_a_pool_at_once_are_both_saved(self) -> None:
        """The parent of its network, and the engine that lists it."""
        pool = self.open("10.0.0.0/29")
        self.hold("save_pool")
        self.plugin.start(
            self.plugin.pool_binding.network_created("eth1", [(parse_network("10.0.0.0/29"), ())])
        )
        self.plugin.start(self.plugin.pool_binding.is_listed_by(pool, "e" * 64))
        while self.plugin.store.steps.held:
            self.let_go()
        (pool_after,) = self.plugin.next_life().pools.open_pools
        self.assertEqual((pool_after.lan_parent, pool_after.engine_id), ("eth1", "e" * 64))

    def test_pool_just_listed_by_an_engine_is_not_dropped(self) -> None:
        self.open("10.0.0.0/29")
        (pool,) = self.plugin.pools.open_pools
        self.hold("save_pool")
        self.plugin.start(self.plugin.pool_binding.is_listed_by(pool.pool_id, "e" * 64))
        dropping = self.plugin.start(self.plugin.pools.drop_pool(pool, 0))
        self.let_go()
        self.assertFalse(self.successResultOf(dropping))
        self.assertIn(pool.pool_id, self.plugin.store.open)

    def test_unowned_address_may_go_with_its_pool_meanwhile(self) -> None:
        pool_id, network = self.open("10.0.0.0/29"), parse_network("10.0.0.0/29")
        self.plugin.wait(self.plugin.pool_binding.network_created("eth0", [(network, ())], "n" * 64))
        self.ask(pool_id)
        (orphaned,) = self.plugin.address_use.orphaned(0, lambda *_: False)
        self.hold("erase_allocation")
        asked_for = self.releasing(pool_id, "10.0.0.1")
        by_itself = self.plugin.start(self.plugin.address_use.release_orphaned(orphaned, lambda *_: False))
        self.plugin.wait(self.plugin.pools.release_pool(pool_id))
        self.plugin.store.steps.held.pop().fail(StateError("disk full"))
        self.failureResultOf(asked_for, StateError)
        self.assertFalse(self.successResultOf(by_itself))

    def test_one_of_two_overlapping_pools_at_once_is_refused(self) -> None:
        self.hold("save_pool")
        calls = [self.opening(pool) for pool in ("10.0.0.0/8", "10.1.0.0/16")]
        self.let_go()
        self.successResultOf(calls[0])
        self.failureResultOf(calls[1], RequestRefused)

    def test_claim_of_an_unknown_pool_is_dropped_at_start(self) -> None:
        """Even if the disk is full the service starts."""
        lost = Allocation("Local;10.0.0.0/29;;;lost", parse_address("10.0.0.1"), Purpose.HOST.value)
        for failing in (False, True):
            self.plugin.store.allocated[lost.pool_id, lost.address] = lost
            self.plugin.store.failing = failing
            self.plugin = self.plugin.next_life()
            self.assertEqual(self.plugin.pools.open_pools, [])
            self.assertEqual(len(self.plugin.store.allocations()), failing)
        self.plugin.store.failing = False
        self.assertEqual(self.ask(self.open("10.0.0.0/29")), "10.0.0.1/29")
