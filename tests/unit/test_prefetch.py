"""Addresses that are found free ahead of need: which, in what order, for how long, and what is left of them."""

from __future__ import annotations

from twisted.python.failure import Failure

from macvlan_twisted.addresses import parse_address, parse_network
from macvlan_twisted.errors import RequestRefused
from macvlan_twisted.ipam.ahead import MOST_HELD, number_to_hold
from macvlan_twisted.ipam.allocator import usable_span

from .conflict_cases import NEIGHBOUR, POOL, ConflictTestCase, tens


class AheadTests(ConflictTestCase):
    def test_addresses_come_in_order_and_at_once(self) -> None:
        pool = self.ready()
        self.assertEqual([self.ask(pool) for _ in range(8)], [f"{each}/24" for each in tens(1, 8)])

    def test_what_is_held_is_defended_and_goes_on_being_so_when_it_is_given(self) -> None:
        pool = self.ready()
        self.assertEqual(self.defended(*tens(1, 9)), tens(1, 8))
        self.ask(pool)
        self.assertEqual(self.defended("10.0.0.1"), ["10.0.0.1"])
        self.release(pool, "10.0.0.1")
        self.assertEqual(self.defended("10.0.0.1"), [])

    def test_what_is_given_is_made_up_for(self) -> None:
        pool = self.ready()
        for _ in range(3):
            self.ask(pool)
        self.pass_time()
        self.assertEqual(self.probed(), tens(1, 11))
        self.assertEqual([self.ask(pool) for _ in range(8)], [f"{each}/24" for each in tens(4, 11)])

    def test_before_anything_is_known_a_container_waits_and_gets_the_first(self) -> None:
        pool = self.made()
        asked = [self.begin(pool) for _ in range(3)]
        self.assertNoResult(asked[0])
        self.pass_time()
        self.assertEqual(
            [str(self.successResultOf(each)) for each in asked], [f"{each}/24" for each in tens(1, 3)]
        )

    def test_more_containers_than_are_held_get_one_each(self) -> None:
        pool = self.made()
        asked = [self.begin(pool) for _ in range(50)]
        self.pass_time(4.5)
        found = [str(self.successResultOf(each)) for each in asked]
        self.assertEqual(found, [f"{each}/24" for each in tens(1, 50)])

    def test_a_late_answer_of_a_thread_does_not_change_the_order(self) -> None:
        self.plugin.steps.hold.add("host_addresses")
        pool = self.made()
        self.plugin.steps.held.reverse()
        self.plugin.steps.let_all_go()
        self.pass_time()
        self.assertEqual([self.ask(pool) for _ in range(8)], [f"{each}/24" for each in tens(1, 8)])

    def test_a_freed_address_rests(self) -> None:
        pool = self.ready()
        self.ask(pool)
        self.release(pool, "10.0.0.1")
        self.assertEqual(self.gets(pool), "10.0.0.2")

    def test_ipv6_addresses_are_held_likewise(self) -> None:
        pool = self.ready("fd00::/64")
        self.assertEqual(self.ask(pool), "fd00::1/64")
        self.assertTrue(self.answers_for("fd00::2"))

    def test_nothing_is_asked_for_a_gateway_or_an_auxiliary_address(self) -> None:
        self.neighbour_has("10.0.0.1", "10.0.0.2")
        pool = self.open(POOL)
        self.assertEqual(self.gateway(pool, "10.0.0.1"), "10.0.0.1/24")
        self.assertEqual(self.successResultOf(self.begin(pool, "10.0.0.2", name="")).ip.exploded, "10.0.0.2")
        self.assertEqual(self.plugin.taps, {})

    def test_switched_off_nothing_is_asked(self) -> None:
        pool = self.made(conflict_detection="off")
        self.assertEqual(self.ask(pool), "10.0.0.1/24")
        self.assertEqual(self.plugin.taps, {})

    def test_a_small_pool_is_not_held_wholly_for_another_host_may_have_it_too(self) -> None:
        sizes = {
            prefix: number_to_hold(usable_span(parse_network(prefix)))
            for prefix in ("10.0.0.0/31", "10.0.0.0/29", "10.0.0.0/26", "10.0.0.0/25", "fd00::/64")
        }
        self.assertEqual(list(sizes.values()), [1, 1, 4, 7, MOST_HELD])
        pool = self.ready("10.0.0.0/29")
        self.assertEqual(self.defended(*tens(1, 6)), tens(1, 1))
        self.assertEqual([self.gets(pool) for _ in range(6)], tens(1, 6))
        self.assertIn("of 6 usable addresses 6 are taken", self.refusal_of(self.begin(pool)))

    def test_a_pool_of_one_address_gives_it_once(self) -> None:
        pool = self.ready("10.0.0.4/32")
        self.assertEqual(self.gets(pool), "10.0.0.4")
        self.assertIn("1 are taken", self.refusal_of(self.begin(pool)))


class NamedTests(ConflictTestCase):
    def test_one_that_is_held_is_given_at_once_and_not_a_second_time(self) -> None:
        pool = self.ready()
        self.assertEqual(self.ask(pool, "10.0.0.3"), "10.0.0.3/24")
        self.assertEqual(
            [self.gets(pool) for _ in range(4)], ["10.0.0.1", "10.0.0.2", "10.0.0.4", "10.0.0.5"]
        )

    def test_one_that_is_being_asked_for_is_given_once(self) -> None:
        pool = self.made()
        asked = [self.begin(pool), self.begin(pool, "10.0.0.1"), self.begin(pool, "10.0.0.1", name="other")]
        self.pass_time()
        granted = [each for each in asked if not isinstance(each.result, Failure)]
        self.assertTrue(granted)
        self.assertEqual(len({str(self.successResultOf(each)) for each in granted}), len(granted))
        for each in asked:
            if each not in granted:
                self.assertIn("10.0.0.1 of pool 10.0.0.0/24 is in use by a container", self.refusal_of(each))

    def test_one_that_a_neighbour_has_is_refused_by_its_mac_and_the_interface(self) -> None:
        self.neighbour_has("10.0.0.77")
        pool = self.ready()
        asked = self.begin(pool, "10.0.0.77")
        self.pass_time()
        told = self.refusal_of(asked)
        for word in ("10.0.0.77", NEIGHBOUR, "eth0", "--ip"):
            self.assertIn(word, told)
        self.neighbour_goes()
        self.assertEqual(self.gets(pool, "10.0.0.77"), "10.0.0.77")

    def test_one_that_was_a_neighbours_and_is_named_when_it_is_free_is_not_given_again(self) -> None:
        self.neighbour_has("10.0.0.1")
        pool = self.ready("10.0.0.0/29")
        self.neighbour_goes()
        self.assertEqual(self.gets(pool, "10.0.0.1"), "10.0.0.1")
        self.plugin.conflicts.given("eth0", parse_address("10.0.0.1"), "7a:42:0a:00:00:01")
        self.assertEqual([self.gets(pool) for _ in range(5)], tens(2, 6))
        asked = self.begin(pool)
        self.pass_time()
        self.assertIn("6 are taken", self.refusal_of(asked))
        self.assertEqual(self.conflicts(), {})

    def test_a_pool_that_goes_while_it_is_asked_for_is_told(self) -> None:
        pool = self.ready()
        asked = self.begin(pool, "10.0.0.77")
        self.close(pool)
        self.pass_time()
        self.failureResultOf(asked, RequestRefused)
        self.assertEqual(self.plugin.clock.getDelayedCalls(), [])


class TwoPoolsTests(ConflictTestCase):
    def test_two_on_one_set_never_give_one_address_twice(self) -> None:
        one, other = self.made(), self.made()
        asked = [self.begin(pool) for pool in (one, other) * 10]
        self.pass_time(3)
        self.assertEqual(len({str(self.successResultOf(each)) for each in asked}), 20)
        self.close(one)
        self.assertEqual(self.gets(other), "10.0.0.21")

    def test_two_with_different_parts_share_what_is_held_and_give_nothing_twice(self) -> None:
        whole, part = self.ready(), self.ready(part="10.0.0.0/28")
        found = [self.gets(pool) for pool in (whole, part) * 7]
        self.assertEqual(len(set(found)), 14)
        for each in found[1::2]:
            self.assertIn(each, tens(1, 15))

    def test_a_part_that_the_other_one_holds_wholly_is_not_exhausted(self) -> None:
        self.ready()
        part = self.ready(part="10.0.0.4/30")
        self.assertEqual({self.gets(part) for _ in range(4)}, set(tens(4, 7)))
        asked = self.begin(part)
        self.pass_time()
        self.assertIn("4 are taken", self.refusal_of(asked))


class EndTests(ConflictTestCase):
    def assert_nothing_of_it_is_left(self) -> None:
        self.assertEqual(self.plugin.clock.getDelayedCalls(), [])
        self.assertEqual(self.plugin.taps["eth0"].hearers, 0)
        self.assertEqual(self.plugin.records.all_rows(), {})
        self.assertEqual(self.plugin.link_names(), {"lo", "eth0", "eth1"})

    def test_a_pool_that_goes_with_probes_under_way_leaves_nothing(self) -> None:
        self.neighbour_has("10.0.0.2")
        pool = self.made()
        asked = self.begin(pool)
        self.pass_time(0.2)
        self.close(pool)
        self.assertIn("released meanwhile", self.refusal_of(asked))
        self.assert_nothing_of_it_is_left()
        self.assertEqual(self.gets(self.ready()), "10.0.0.1")

    def test_a_pool_that_goes_before_its_probes_have_begun_leaves_nothing(self) -> None:
        self.plugin.steps.hold.add("host_addresses")
        pool = self.made()
        self.close(pool)
        self.plugin.steps.let_all_go()
        self.pass_time()
        self.assertEqual(self.plugin.clock.getDelayedCalls(), [])
        self.assertEqual(self.plugin.records.all_rows(), {})
        self.assertEqual(self.plugin.link_names(), {"lo", "eth0", "eth1"})

    def test_a_pool_that_is_opened_again_meanwhile_holds_its_own(self) -> None:
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

    def test_what_is_held_is_let_go_with_the_pool(self) -> None:
        keeper = self.ready("10.9.0.0/24")
        pool = self.ready()
        self.close(pool)
        self.assertEqual(self.defended(*tens(1, 8)), [])
        self.assertEqual(self.defended("10.9.0.1"), ["10.9.0.1"])
        self.close(keeper)
        self.assert_nothing_of_it_is_left()

    def test_a_claim_that_cannot_be_kept_on_disk_defends_nothing(self) -> None:
        pool = self.ready()
        self.plugin.store.steps.refuse["claim"] = 28
        self.failureResultOf(self.begin(pool))
        self.plugin.store.steps.refuse.clear()
        given = {self.gets(pool) for _ in range(8)}
        self.close(pool)
        self.assertEqual(len(given), 8)
        self.assert_nothing_of_it_is_left()
