"""Which address is allocated next."""

from __future__ import annotations

from ipaddress import ip_network

from hypothesis import given
from hypothesis import strategies as st
from sortedcontainers import SortedList
from twisted.trial.unittest import SynchronousTestCase

from macvlan_twisted.addresses import parse_address, parse_network, parse_range
from macvlan_twisted.ipam.allocator import Span, count_excluded, excluded_spans, next_free, usable_span

NUMBERS = st.integers(0, 40)


def spans(low: int, high: int) -> st.SearchStrategy[Span]:
    return st.tuples(st.integers(low, high), st.integers(low, high)).map(
        lambda ends: Span(min(ends), max(ends))
    )


def naive(taken: set[int], within: Span, excluded: list[Span], after: int | None) -> int | None:
    """The first free number behind *after*, in a ring."""
    free = [
        each
        for each in range(within.first, within.last + 1)
        if each not in taken and not any(span.first <= each <= span.last for span in excluded)
    ]
    behind = [each for each in free if after is not None and within.first <= after < each]
    return next(iter(behind or free), None)


class NextFreeTests(SynchronousTestCase):
    @given(st.sets(NUMBERS), spans(0, 40), st.lists(spans(0, 40), max_size=4), st.none() | NUMBERS)
    def test_next_free_agrees_with_the_naive_model(
        self, taken: set[int], within: Span, excluded: list[Span], after: int | None
    ) -> None:
        ordered = sorted(excluded, key=lambda span: span.first)
        self.assertEqual(
            next_free(SortedList(taken), within, ordered, after), naive(taken, within, excluded, after)
        )

    @given(st.sets(NUMBERS), spans(0, 40), st.lists(st.sets(NUMBERS), max_size=2), st.none() | NUMBERS)
    def test_avoided_numbers_come_last(
        self, taken: set[int], within: Span, avoided: list[set[int]], after: int | None
    ) -> None:
        others = naive(taken.union(*avoided), within, [], after)
        expected = naive(taken, within, [], after) if others is None else others
        found = next_free(SortedList(taken), within, (), after, [SortedList(each) for each in avoided])
        self.assertEqual(found, expected)

    @given(st.sets(st.integers(0, 2**128 - 1), max_size=5), spans(0, 2**128 - 1))
    def test_numbers_may_have_any_size(self, taken: set[int], within: Span) -> None:
        found = next_free(SortedList(taken), within, (), None)
        if found is None:
            self.assertGreaterEqual(len(taken), within.size)
        else:
            self.assertTrue(within.first <= found <= within.last)
            self.assertNotIn(found, taken)

    def test_empty_span_has_no_address(self) -> None:
        self.assertIsNone(next_free(SortedList(), Span(5, 4), (), None))

    @given(st.lists(spans(0, 40), max_size=5), spans(0, 40), st.sets(st.integers(0, 40)))
    def test_excluded_addresses_are_counted_once(
        self, excluded: list[Span], within: Span, taken: set[int]
    ) -> None:
        expected = {each for span in excluded for each in range(span.first, span.last + 1)} - taken
        ordered = sorted(excluded, key=lambda span: span.first)
        self.assertEqual(
            count_excluded(within, ordered, SortedList(taken)),
            len(expected & set(range(within.first, within.last + 1))),
        )


class UsableSpanTests(SynchronousTestCase):
    def test_usable_span_of_a_subnet_and_of_a_range(self) -> None:
        for prefix, part, first, last in (
            # Neither the network address nor the broadcast address.
            ("10.0.0.0/8", None, "10.0.0.1", "10.255.255.254"),
            ("10.0.0.4/30", None, "10.0.0.5", "10.0.0.6"),
            # IPv6 has no broadcast; the first address is the anycast address of the routers (RFC 4291, 2.6.1).
            ("fd00::/64", None, "fd00::1", "fd00::ffff:ffff:ffff:ffff"),
            ("fd00::/126", None, "fd00::1", "fd00::3"),
            # The smallest subnets are usable completely (RFC 3021, RFC 6164).
            ("10.0.0.4/31", None, "10.0.0.4", "10.0.0.5"),
            ("10.0.0.4/32", None, "10.0.0.4", "10.0.0.4"),
            ("fd00::4/127", None, "fd00::4", "fd00::5"),
            ("fd00::4/128", None, "fd00::4", "fd00::4"),
            # A range is usable except for the ends of its subnet.
            ("10.0.0.0/24", "10.0.0.64/26", "10.0.0.64", "10.0.0.127"),
            ("10.0.0.0/24", "10.0.0.0/26", "10.0.0.1", "10.0.0.63"),
            ("10.0.0.0/24", "10.0.0.192/26", "10.0.0.192", "10.0.0.254"),
            ("10.0.0.0/24", "10.0.0.9/32", "10.0.0.9", "10.0.0.9"),
            ("fd00::/64", "fd00::/80", "fd00::1", "fd00::ffff:ffff:ffff"),
        ):
            found = usable_span(parse_network(prefix), None if part is None else parse_network(part))
            self.assertEqual(found, Span(int(parse_address(first)), int(parse_address(last))), prefix)

    def test_excluded_spans_are_those_of_the_family(self) -> None:
        found = excluded_spans(
            [parse_range("10.0.0.8-10.0.0.9"), parse_range("fd00::/64")], [parse_address("10.0.0.1")], 4
        )
        base = int(ip_network("10.0.0.0/8").network_address)
        self.assertEqual(found, (Span(base + 1, base + 1), Span(base + 8, base + 9)))


class CountingList(SortedList):  # type: ignore[misc]
    """Counts lookups."""

    looks = 0

    def __getitem__(self, index: int) -> object:
        self.looks += 1
        return super().__getitem__(index)

    def bisect_left(self, value: int) -> int:
        self.looks += 1
        return int(super().bisect_left(value))

    def __contains__(self, value: object) -> bool:
        self.looks += 1
        return bool(super().__contains__(value))

    def __iter__(self) -> object:
        raise AssertionError("all addresses are visited")


class EffortTests(SynchronousTestCase):
    """With a million addresses taken. Counts lookups, as a clock tells nothing on a busy machine."""

    MILLION = 1_000_000

    def looks(self, taken: CountingList, within: Span, excluded: tuple[Span, ...], after: int | None) -> int:
        taken.looks = 0
        self.found = next_free(taken, within, excluded, after)
        return taken.looks

    def test_million_taken_neighbours_cost_few_lookups(self) -> None:
        taken = CountingList(range(1, self.MILLION + 1))
        within = Span(1, 2**24 - 2)
        self.assertLess(self.looks(taken, within, (), None), 60)
        self.assertEqual(self.found, self.MILLION + 1)
        self.assertLess(self.looks(taken, within, (Span(self.MILLION, self.MILLION + 500),), 17), 90)
        self.assertEqual(self.found, self.MILLION + 501)

    def test_full_subnet_costs_few_lookups(self) -> None:
        taken = CountingList(range(1, self.MILLION + 1))
        for after in (None, 1, self.MILLION // 2, self.MILLION):
            self.assertLess(self.looks(taken, Span(1, self.MILLION), (), after), 120)
            self.assertIsNone(self.found)

    def test_gap_in_the_middle_costs_few_lookups(self) -> None:
        taken = CountingList(range(1, self.MILLION + 1))
        taken.remove(777_777)
        self.assertLess(self.looks(taken, Span(1, self.MILLION), (), 5), 60)
        self.assertEqual(self.found, 777_777)
        self.assertLess(self.looks(taken, Span(1, self.MILLION), (), 800_000), 120)
        self.assertEqual(self.found, 777_777)

    def test_adjacent_excluded_ranges_are_skipped_together(self) -> None:
        excluded = tuple(Span(10 * number, 10 * number + 9) for number in range(1000))
        self.assertLess(self.looks(CountingList(), Span(0, 2**32), excluded, None), 3000)
        self.assertEqual(self.found, 10_000)
