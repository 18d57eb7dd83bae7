"""Addresses that are probed ahead of need: which, in what order, for how long, and their end."""

from __future__ import annotations

from twisted.python.failure import Failure

from macvlan_twisted.addresses import parse_address, parse_network
from macvlan_twisted.demand import MAX_READY, ready_target
from macvlan_twisted.errors import RequestRefused
from macvlan_twisted.ipam.allocator import usable_span

from .conflict_cases import NEIGHBOUR, POOL, ConflictTestCase, tens


class PrefetchTests(ConflictTestCase):
    def test_prefetched_address_is_defended_until_its_release(self) -> None:
        pool = self.ready()
        self.assertEqual(self.defended(*tens(1, 9)), tens(1, 8))
        self.ask(pool)
        self.assertEqual(self.defended("10.0.0.1"), ["10.0.0.1"])
        self.release(pool, "10.0.0.1")
        self.assertEqual(self.defended("10.0.0.1"), [])

    def test_prefetched_addresses_come_in_order_and_are_refilled(self) -> None:
        pool = self.ready()
        self.assertEqual([self.ask(pool) for _ in range(3)], [f"{each}/24" for each in tens(1, 3)])
        self.pass_time()
        self.assertEqual(self.probed(), tens(1, 11))
        self.assertEqual([self.ask(pool) for _ in range(8)], [f"{each}/24" for each in tens(4, 11)])

    def test_more_requests_than_prefetched_get_one_address_each(self) -> None:
        pool = self.made()
        asked = [self.begin(pool) for _ in range(50)]
        self.assertNoResult(asked[0])
        self.pass_time(4.5)
        found = [str(self.successResultOf(each)) for each in asked]
        self.assertEqual(found, [f"{each}/24" for each in tens(1, 50)])

    def test_late_thread_result_does_not_change_the_order(self) -> None:
        self.plugin.steps.hold.add("host_addresses")
        pool = self.made()
        self.plugin.steps.held.reverse()
        self.plugin.steps.let_all_go()
        self.pass_time()
        self.assertEqual([self.ask(pool) for _ in range(8)], [f"{each}/24" for each in tens(1, 8)])

    def test_freed_address_is_not_reallocated_at_once(self) -> None:
        pool = self.ready()
        self.ask(pool)
        self.release(pool, "10.0.0.1")
        self.assertEqual(self.gets(pool), "10.0.0.2")

    def test_address_of_another_name_is_prefetched_last(self) -> None:
        pool = self.ready("10.0.0.0/29")
        for number in range(1, 7):
            self.ask(pool, name=f"box-{number}")
            self.pass_time()
        for number in (2, 4):
            self.release(pool, f"10.0.0.{number}")
        self.pass_time()
        self.plugin.parts.sticky_addresses.forget_address(pool, parse_address("10.0.0.4"))
        found = self.begin(pool)
        self.pass_time()
        self.assertEqual(str(self.successResultOf(found)), "10.0.0.4/29")
        self.assertEqual(self.gets(pool), "10.0.0.2", "all others are taken")

    def test_ipv6_addresses_are_prefetched(self) -> None:
        pool = self.ready("fd00::/64")
        self.assertEqual(self.ask(pool), "fd00::1/64")
        self.assertTrue(self.answers_for("fd00::2"))

    def test_gateways_are_not_probed(self) -> None:
        self.neighbour_has("10.0.0.1")
        pool = self.open(POOL)
        self.assertEqual(self.gateway(pool, "10.0.0.1"), "10.0.0.1/24")
        self.assertEqual(self.plugin.lan_sockets, {})

    def test_nothing_is_probed_with_detection_off(self) -> None:
        pool = self.made(conflict_detection="off")
        self.assertEqual(self.ask(pool), "10.0.0.1/24")
        self.assertEqual(self.plugin.lan_sockets, {})

    def test_small_pool_is_never_prefetched_completely(self) -> None:
        sizes = {
            prefix: ready_target(usable_span(parse_network(prefix)).size)
            for prefix in ("10.0.0.0/31", "10.0.0.0/29", "10.0.0.0/26", "10.0.0.0/25", "fd00::/64")
        }
        self.assertEqual(list(sizes.values()), [1, 1, 4, 7, MAX_READY])
        pool = self.ready("10.0.0.0/29")
        self.assertEqual(self.defended(*tens(1, 6)), tens(1, 1))
        self.assertEqual([self.gets(pool) for _ in range(6)], tens(1, 6))
        self.assertIn("6 of 6 addresses are allocated", self.refusal_of(self.begin(pool)))

    def test_pool_of_one_address_allocates_it_once(self) -> None:
        pool = self.ready("10.0.0.4/32")
        self.assertEqual(self.gets(pool), "10.0.0.4")
        self.assertIn("1 of 1 addresses are allocated", self.refusal_of(self.begin(pool)))


class NamedPrefetchTests(ConflictTestCase):
    def test_named_prefetched_address_is_allocated_once(self) -> None:
        pool = self.ready()
        self.assertEqual(self.ask(pool, "10.0.0.3"), "10.0.0.3/24")
        self.assertEqual(
            [self.gets(pool) for _ in range(4)], ["10.0.0.1", "10.0.0.2", "10.0.0.4", "10.0.0.5"]
        )

    def test_named_address_in_probe_is_allocated_once(self) -> None:
        pool = self.made()
        asked = [self.begin(pool), self.begin(pool, "10.0.0.1"), self.begin(pool, "10.0.0.1", name="other")]
        self.pass_time()
        granted = [each for each in asked if not isinstance(each.result, Failure)]
        self.assertTrue(granted)
        self.assertEqual(len({str(self.successResultOf(each)) for each in granted}), len(granted))
        for each in asked:
            if each not in granted:
                self.assertIn("10.0.0.1 of 10.0.0.0/24 is in use by a container", self.refusal_of(each))

    def test_named_address_of_a_neighbour_is_refused_with_its_mac(self) -> None:
        self.neighbour_has("10.0.0.77")
        pool = self.ready()
        asked = self.begin(pool, "10.0.0.77")
        self.pass_time()
        error = self.refusal_of(asked)
        for word in ("10.0.0.77", NEIGHBOUR, "eth0", "--ip"):
            self.assertIn(word, error)
        self.neighbour_goes()
        self.assertEqual(self.gets(pool, "10.0.0.77"), "10.0.0.77")

    def test_named_address_a_neighbour_had_is_allocated_once(self) -> None:
        self.neighbour_has("10.0.0.1")
        pool = self.ready("10.0.0.0/29")
        self.neighbour_goes()
        self.assertEqual(self.gets(pool, "10.0.0.1"), "10.0.0.1")
        self.plugin.conflicts.assign("eth0", parse_address("10.0.0.1"), "7a:42:0a:00:00:01")
        self.assertEqual([self.gets(pool) for _ in range(5)], tens(2, 6))
        asked = self.begin(pool)
        self.pass_time()
        self.assertIn("6 of 6 addresses are allocated", self.refusal_of(asked))
        self.assertEqual(self.conflicts(), {})

    def test_request_is_refused_if_its_pool_is_released(self) -> None:
        pool = self.ready()
        asked = self.begin(pool, "10.0.0.77")
        self.close(pool)
        self.pass_time()
        self.failureResultOf(asked, RequestRefused)
        self.assertEqual(self.plugin.clock.getDelayedCalls(), [])


class TwoPoolsTests(ConflictTestCase):
    def test_two_pools_of_one_subnet_never_share_an_address(self) -> None:
        one, other = self.made(), self.made()
        asked = [self.begin(pool) for pool in (one, other) * 10]
        self.pass_time(3)
        self.assertEqual(len({str(self.successResultOf(each)) for each in asked}), 20)
        self.close(one)
        self.assertEqual(self.gets(other), "10.0.0.21")

    def test_pools_with_different_ranges_share_the_prefetch(self) -> None:
        whole, part = self.ready(), self.ready(part="10.0.0.0/28")
        found = [self.gets(pool) for pool in (whole, part) * 7]
        self.assertEqual(len(set(found)), 14)
        for each in found[1::2]:
            self.assertIn(each, tens(1, 15))

    def test_range_prefetched_by_another_pool_is_available(self) -> None:
        self.ready()
        part = self.ready(part="10.0.0.4/30")
        self.assertEqual({self.gets(part) for _ in range(4)}, set(tens(4, 7)))
        asked = self.begin(part)
        self.pass_time()
        self.assertIn("4 of 4 addresses are allocated", self.refusal_of(asked))


class ReleasedPoolTests(ConflictTestCase):
    def assert_nothing_of_it_is_left(self) -> None:
        self.assertEqual(self.plugin.clock.getDelayedCalls(), [])
        self.assertEqual(self.plugin.lan_sockets["eth0"].listeners, 0)
        self.assertEqual(self.plugin.records.all_rows(), {})
        self.assertEqual(self.plugin.link_names(), {"lo", "eth0", "eth1"})

    def test_pool_released_during_probes_leaves_nothing(self) -> None:
        self.neighbour_has("10.0.0.2")
        pool = self.made()
        asked = self.begin(pool)
        self.pass_time(0.2)
        self.close(pool)
        self.assertIn("released while this request was running", self.refusal_of(asked))
        self.assert_nothing_of_it_is_left()
        self.assertEqual(self.gets(self.ready()), "10.0.0.1")

    def test_pool_released_before_its_probes_leaves_nothing(self) -> None:
        self.plugin.steps.hold.add("host_addresses")
        pool = self.made()
        self.close(pool)
        self.plugin.steps.let_all_go()
        self.pass_time()
        self.assertEqual(self.plugin.clock.getDelayedCalls(), [])
        self.assertEqual(self.plugin.records.all_rows(), {})
        self.assertEqual(self.plugin.link_names(), {"lo", "eth0", "eth1"})

    def test_pool_opened_again_meanwhile_has_its_own_prefetch(self) -> None:
        keeper = self.ready("10.9.0.0/24")
        pool = self.made()
        self.pass_time(0.2)
        self.close(pool)
        again = self.ready()
        self.assertEqual(self.defended(*tens(1, 8)), tens(1, 8))
        self.assertEqual([self.ask(again) for _ in range(8)], [f"{each}/24" for each in tens(1, 8)])
        self.close(again)
        self.close(keeper)
        self.assert_nothing_of_it_is_left()

    def test_prefetched_addresses_go_with_the_pool(self) -> None:
        keeper = self.ready("10.9.0.0/24")
        pool = self.ready()
        self.ask(pool)
        self.close(pool)
        self.pass_time()
        self.assertEqual(self.defended(*tens(1, 12)), [])
        self.assertEqual(self.defended("10.9.0.1"), ["10.9.0.1"])
        self.close(keeper)
        self.assert_nothing_of_it_is_left()

    def test_failed_claim_is_not_defended(self) -> None:
        pool = self.ready()
        self.plugin.store.steps.refuse["save_allocation"] = 28
        self.failureResultOf(self.begin(pool))
        self.plugin.store.steps.refuse.clear()
        given = {self.gets(pool) for _ in range(8)}
        self.close(pool)
        self.assertEqual(len(given), 8)
        self.assert_nothing_of_it_is_left()
