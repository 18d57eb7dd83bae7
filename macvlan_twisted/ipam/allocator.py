"""
Choose the next free address, in O(log² n) for n unavailable addresses. Pure functions.

The unavailable addresses are sorted. Within a run of consecutive addresses, the difference between an address and its
index is constant, so bisection finds the end of the run.
"""

from __future__ import annotations

from collections.abc import Sequence

from attrs import frozen
from sortedcontainers import SortedList

from ..addresses import AddressRange, IPAddress, IPNetwork


@frozen
class Span:
    """The addresses from *first* to *last* inclusive, as integers."""

    first: int
    last: int

    @property
    def size(self) -> int:
        return self.last - self.first + 1


def usable_span(prefix: IPNetwork, part: IPNetwork | None = None) -> Span:
    """
    The addresses of *part* (or of all of *prefix*) that a host in *prefix* may use.

    Excludes the network and broadcast addresses of IPv4, and the Subnet-Router anycast address of IPv6 (RFC 4291, 2.6.1).
    Includes both addresses of a /31 (RFC 3021) or /127 (RFC 6164), and the only one of a /32 or /128.
    """
    whole = part if part is not None else prefix
    first, last = int(whole.network_address), int(whole.broadcast_address)
    if prefix.num_addresses > 2:
        first = max(first, int(prefix.network_address) + 1)
        if prefix.version == 4:
            last = min(last, int(prefix.broadcast_address) - 1)
    return Span(first, last)


def barred_spans(
    ranges: Sequence[AddressRange], single: Sequence[IPAddress], version: int
) -> tuple[Span, ...]:
    """The spans of one IP *version* that are allocated only on request, sorted."""
    spans = [Span(int(each.first), int(each.last)) for each in ranges if each.version == version]
    spans += [Span(int(each), int(each)) for each in single if each.version == version]
    return tuple(sorted(spans, key=lambda span: span.first))


def next_free(
    taken: SortedList,
    within: Span,
    barred: Sequence[Span],
    after: int | None,
    kept: Sequence[SortedList] = (),
) -> int | None:
    """
    The first free address after *after*, wrapping around at the end; ``None`` if there is none.

    A released address is therefore reused last, when neighbours' ARP cache entries for it have expired.

    :param kept: addresses that come after all others: their former owners may come back.
    """
    if within.last < within.first:
        return None
    start = within.first
    if after is not None and within.first <= after < within.last:
        start = after + 1
    for unavailable in ((taken, *kept), (taken,)) if kept else ((taken,),):
        found = _first_free(unavailable, start, within.last, barred)
        if found is None and start > within.first:
            found = _first_free(unavailable, within.first, start - 1, barred)
        if found is not None:
            return found
    return None


def _first_free(
    unavailable: Sequence[SortedList], first: int, last: int, barred: Sequence[Span]
) -> int | None:
    candidate = first
    while candidate <= last:
        after_run = candidate
        for numbers in unavailable:
            after_run = _after_run(numbers, after_run)
        after_excluded = next(
            (span.last + 1 for span in barred if span.first <= after_run <= span.last), after_run
        )
        if after_excluded == candidate:
            return candidate
        candidate = after_excluded
    return None


def _after_run(taken: SortedList, candidate: int) -> int:
    """*candidate* if it is free, otherwise the first number after the run of unavailable ones that contains it."""
    low = taken.bisect_left(candidate)
    if low == len(taken) or taken[low] != candidate:
        return candidate
    offset = candidate - low
    high = len(taken)
    while high - low > 1:
        middle = (low + high) // 2
        if taken[middle] - middle == offset:
            low = middle
        else:
            high = middle
    return int(taken[low]) + 1


def count_barred(within: Span, barred: Sequence[Span], taken: SortedList) -> int:
    """The number of addresses of *within* that are excluded and not in *taken*; overlapping spans count once."""
    total, reached = 0, within.first - 1
    for span in barred:
        first, last = max(span.first, reached + 1), min(span.last, within.last)
        if last >= first:
            total += last - first + 1 - (taken.bisect_right(last) - taken.bisect_left(first))
            reached = last
    return total
