"""When the prefetch begins, and how it grows and shrinks with the demand."""

from __future__ import annotations

from itertools import accumulate

from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from macvlan_twisted.addresses import parse_network
from macvlan_twisted.demand import MAX_READY, MOST_AT_ONCE, REMEMBERED, Demand, burst_target
from macvlan_twisted.ipam.allocator import usable_span
from macvlan_twisted.ipam.prefetch_queue import POOLS_AT_ONCE, SOON
from macvlan_twisted.lan.address_monitor import LAST_LOOK
from macvlan_twisted.lan.arp_nd import Probe, decode
from macvlan_twisted.netlink.events import LinkEvent

from .conflict_cases import POOL, ConflictTestCase, tens
from .helpers import subnet


class DemandTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.demand = Demand(0.5, self.clock)

    def come(self, *times: float) -> None:
        """A request comes at each of *times*."""
        for each in times:
            self.clock.rightNow = each
            self.demand.note()

    def test_requests_within_two_probes_time_are_one_burst(self) -> None:
        self.come(0.0, 0.3, 0.9, 1.0, 3.0)
        self.assertEqual(self.demand.most(), 3)

    def test_time_that_requests_wait_does_not_count(self) -> None:
        self.come(0.0)
        with self.demand.waiting():
            self.come(0.5)
            with self.demand.waiting():
                self.clock.rightNow = 7.0
        self.come(7.0, 7.9)
        self.assertEqual(self.demand.most(), 4)

    def test_burst_is_forgotten_after_ten_minutes(self) -> None:
        self.come(0.0, 0.0, 0.0, 60.0, 60.0, 90.0)
        self.clock.rightNow = 100.0
        self.assertEqual(self.demand.falls_in(), REMEMBERED - 100)
        sizes = []
        for later in (-0.1, 0.0, 60.0, 90.0):
            self.clock.rightNow = REMEMBERED + later
            sizes.append(self.demand.most())
        self.assertEqual(sizes, [3, 2, 1, 0])
        self.assertEqual(self.demand.falls_in(), 0.0)

    @given(st.lists(st.floats(0.0, 400.0), max_size=200), st.floats(0.0, 2000.0))
    def test_demand_is_the_largest_burst_remembered(self, pauses: list[float], later: float) -> None:
        self.setUp()
        times = list(accumulate(pauses))
        self.come(*times)
        self.clock.advance(later)
        sizes = [
            sum(end - 1.0 < each <= end for each in times[: number + 1])
            for number, end in enumerate(times)
            if end + REMEMBERED > self.clock.seconds()
        ]
        self.assertEqual(self.demand.most(), min(MOST_AT_ONCE, max(sizes, default=0)))

    def test_small_or_crowded_pool_is_not_hoarded(self) -> None:
        targets = {
            prefix: burst_target(usable_span(parse_network(prefix)).size, 50, free)
            for prefix, free in (
                ("10.0.0.0/29", 6),
                ("10.0.0.0/26", 62),
                ("10.0.0.0/24", 254),
                ("10.0.0.0/24", 60),
                ("fd00::/64", 2**64),
            )
        }
        self.assertEqual(list(targets.values()), [1, 15, 30, 50])
        self.assertEqual(burst_target(2**64, 1000, 2**64), MOST_AT_ONCE)


class BurstTests(ConflictTestCase):
    def burst(self, pool: str, number: int = 20) -> int:
        """Request so many addresses at once, and return how many were allocated without waiting for a probe."""
        asked = [self.begin(pool, name="") for _ in range(number)]
        self.plugin.clock.advance(LAST_LOOK)
        at_once = sum(each.called for each in asked)
        self.pass_time(1.2)
        self.assertEqual(len({str(self.successResultOf(each)) for each in asked}), number)
        return at_once

    def held(self) -> int:
        return len(self.defended(*tens(1, 254)))

    def test_second_burst_does_not_wait(self) -> None:
        pool = self.ready()
        self.assertEqual(self.burst(pool), MAX_READY)
        self.pass_time(60)
        self.assertEqual(self.burst(pool), 20)
        self.assertEqual(self.held(), 40 + 20, "allocated and prefetched")

    def test_burst_of_an_engine_that_waits_for_each_answer_counts(self) -> None:
        pool = self.ready()
        for waits in (True, False):
            waited = 0
            for _ in range(20):
                asked = self.begin(pool, name="")
                self.plugin.clock.advance(LAST_LOOK)
                if not asked.called:
                    waited += 1
                    self.pass_time(0.51)
                self.successResultOf(asked)
            self.assertEqual(waited > 0, waits)
            self.pass_time(60)

    def test_held_addresses_shrink_after_ten_minutes(self) -> None:
        pool = self.ready()
        self.burst(pool)
        self.assertEqual(self.held(), 20 + 20)
        self.plugin.clock.advance(REMEMBERED)
        self.assertEqual(self.held(), 20 + MAX_READY)
        self.assertEqual(self.plugin.clock.getDelayedCalls(), [], "nothing runs while idle")
        self.assertEqual([self.ask(pool) for _ in range(8)], [f"{each}/24" for each in tens(21, 28)])

    def test_later_burst_keeps_what_it_needs(self) -> None:
        pool = self.ready("10.0.0.0/16")
        self.burst(pool, 40)
        self.plugin.clock.advance(60)
        self.burst(pool, 20)
        self.plugin.clock.advance(REMEMBERED - 64)
        self.assertEqual(self.held(), 60 + 40)
        self.plugin.clock.advance(10)
        self.assertEqual(self.held(), 60 + 20)

    def test_one_container_after_the_other_holds_no_more(self) -> None:
        pool = self.ready()
        for _ in range(20):
            self.ask(pool)
            self.pass_time(0.3)
        self.pass_time(1)
        self.assertEqual(self.held(), 20 + MAX_READY)
        self.assertEqual(self.plugin.clock.getDelayedCalls(), [])

    def test_released_pool_leaves_no_timer(self) -> None:
        pool = self.ready()
        self.burst(pool)
        self.close(pool)
        self.assertEqual(self.plugin.clock.getDelayedCalls(), [])

    def test_stopped_service_leaves_no_timer(self) -> None:
        self.burst(self.ready())
        self.open("10.9.0.0/24")
        self.plugin.parts.stop_conflict_detection()
        self.assertEqual(self.plugin.clock.getDelayedCalls(), [])


class BeginningTests(ConflictTestCase):
    def parent_is_up(self) -> None:
        self.plugin.parts.link_monitor.handle_event(LinkEvent("eth0", True, True))
        self.pass_time(0.7)

    def test_first_container_after_request_pool_does_not_wait(self) -> None:
        """The network is another driver's, or a swarm's: CreateNetwork does not come, or comes with the container."""
        pool = self.open(POOL)
        self.pass_time(0.6)
        self.assertEqual(self.ask(pool), "10.0.0.1/24")

    def test_early_container_waits_for_the_rest_of_the_probe(self) -> None:
        pool = self.open(POOL)
        self.pass_time(0.3)
        asked = self.begin(pool)
        self.pass_time(0.2)
        self.assertNoResult(asked)
        self.pass_time(0.1)
        self.assertEqual(str(self.successResultOf(asked)), "10.0.0.1/24")

    def test_gateway_requested_with_the_pool_is_not_probed(self) -> None:
        pool = self.open(POOL)
        self.gateway(pool, "10.0.0.1")
        self.pass_time()
        self.assertEqual(self.probed(), tens(2, 9))

    def test_pool_is_probed_only_on_its_networks_parent(self) -> None:
        self.open(POOL)
        self.plugin.wait(self.plugin.pool_binding.network_created("eth1", [(parse_network(POOL), ())]))
        self.pass_time()
        self.assertEqual(list(self.plugin.lan_sockets), ["eth1"])

    def test_pool_without_a_network_is_probed_once(self) -> None:
        self.open(POOL)
        self.pass_time()
        self.plugin.lan_sockets["eth0"].sent.clear()
        self.pass_time(60)
        self.assertEqual(self.plugin.lan_sockets["eth0"].sent, [])
        self.assertEqual(self.plugin.clock.getDelayedCalls(), [])

    def test_pool_released_at_once_is_never_probed(self) -> None:
        self.close(self.open(POOL))
        self.assertEqual(self.plugin.clock.getDelayedCalls(), [])
        self.pass_time()
        self.assertEqual(self.plugin.lan_sockets, {})

    def test_pool_released_after_its_probes_leaves_nothing(self) -> None:
        pool = self.open(POOL)
        self.pass_time(SOON + 0.1)
        self.close(pool)
        self.assertEqual(self.plugin.clock.getDelayedCalls(), [])
        self.assertEqual(self.plugin.lan_sockets["eth0"].listeners, 0)
        self.assertEqual(self.plugin.link_names(), {"lo", "eth0", "eth1"})

    def test_first_container_after_a_restart_does_not_wait(self) -> None:
        pool = self.ready()
        self.plugin = self.plugin.next_life()
        self.plugin.prefetch.prepare_all()
        self.pass_time(0.51)
        self.assertEqual(self.ask(pool), "10.0.0.1/24")

    def test_many_pools_are_probed_a_few_at_a_time(self) -> None:
        for number in range(3 * POOLS_AT_ONCE):
            self.open(f"10.{number}.0.0/24")
        self.plugin = self.plugin.next_life()
        self.plugin.prefetch.prepare_all()
        for probed in (1, 2, 3, 3):
            self.pass_time(0.5)
            messages = [decode(frame) for frame in self.plugin.lan_sockets["eth0"].sent]
            addresses = {each.address for each in messages if isinstance(each, Probe)}
            self.assertAlmostEqual(len(addresses), probed * POOLS_AT_ONCE * MAX_READY, delta=8)

    def test_container_of_a_waiting_pool_is_probed_for_at_once(self) -> None:
        pools = [self.open(f"10.{number}.0.0/24") for number in range(3 * POOLS_AT_ONCE)]
        self.plugin = self.plugin.next_life()
        self.plugin.prefetch.prepare_all()
        asked = self.begin(pools[-1])
        self.pass_time(0.51)
        self.successResultOf(asked)

    def test_parent_that_comes_late_is_probed_when_it_is_there(self) -> None:
        self.plugin.create_network(subnets=(evolve(subnet(POOL), managed_here=True),))
        pool = self.open(POOL)
        self.pass_time()
        parent = self.plugin.link("eth0")
        self.plugin.kernel.delete("eth0")
        self.plugin = self.plugin.next_life()
        self.plugin.prefetch.prepare_all()
        self.pass_time()
        self.assertEqual(self.plugin.lan_sockets, {})
        self.plugin.kernel.put(parent)
        self.parent_is_up()
        self.assertTrue(self.answers_for("10.0.0.1"))
        self.assertEqual(self.ask(pool), "10.0.0.1/24")

    def test_parent_that_was_down_is_probed_when_it_is_up(self) -> None:
        self.plugin.create_network(subnets=(evolve(subnet(POOL), managed_here=True),))
        pool = self.open(POOL)
        self.plugin.wait(self.plugin.conflicts.watch("eth0"))
        self.plugin.lan_sockets["eth0"].down = True
        self.pass_time()
        self.assertEqual(self.defended(*tens(1, 9)), [])
        self.plugin.lan_sockets["eth0"].down = False
        self.parent_is_up()
        self.assertEqual(self.ask(pool), "10.0.0.1/24")
