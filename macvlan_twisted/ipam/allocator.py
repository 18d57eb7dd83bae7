"""
Which address comes next: pure, and no slower than O(log² n) with n addresses taken.

The addresses taken are kept sorted. Along a run of neighbours without a gap, the difference between an
address and its position stays the same, so the end of the run is found by bisection.
"""

from __future__ import annotations

from collections.abc import Sequence

from attrs import frozen
from sortedcontainers import SortedList

from ..addresses import AddressRange, IPAddress, IPNetwork


@frozen
class Span:
    """Whole numbers from *first* to *last*, both included; addresses as the kernel compares them."""

    first: int
    last: int

    @property
    def size(self) -> int:
        return self.last - self.first + 1


def usable_span(prefix: IPNetwork, part: IPNetwork | None = None) -> Span:
    """
    The addresses of *part* (or of all of *prefix*) that a host of *prefix* may have.

    Not the network and the broadcast address of IPv4, nor the first of an IPv6 prefix, which is every
    router's (RFC 4291, 2.6.1); but both of a /31 (RFC 3021) or /127 (RFC 6164), and the one of a /32 or /128.
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
    """What is never handed out by itself, sorted."""
    spans = [Span(int(each.first), int(each.last)) for each in ranges if each.version == version]
    spans += [Span(int(each), int(each)) for each in single if each.version == version]
    return tuple(sorted(spans, key=lambda span: span.first))


def next_free(taken: SortedList, within: Span, barred: Sequence[Span], after: int | None) -> int | None:
    """
    The first free address behind *after*, going round at the end; ``None`` if there is none.

    A freed address so rests until all others had their turn, and neighbours' ARP caches go stale first.
    """
    if within.last < within.first:
        return None
    start = within.first
    if after is not None and within.first <= after < within.last:
        start = after + 1
    found = _first_free(taken, start, within.last, barred)
    if found is None and start > within.first:
        found = _first_free(taken, within.first, start - 1, barred)
    return found


def _first_free(taken: SortedList, first: int, last: int, barred: Sequence[Span]) -> int | None:
    candidate = first
    while candidate <= last:
        behind_run = _behind_run(taken, candidate)
        behind_bars = next(
            (span.last + 1 for span in barred if span.first <= behind_run <= span.last), behind_run
        )
        if behind_bars == candidate:
            return candidate
        candidate = behind_bars
    return None


def _behind_run(taken: SortedList, candidate: int) -> int:
    """*candidate* if it is free, else the first number behind the run of taken ones that it is in."""
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
    """How many addresses of *within* are barred and not taken; overlapping bars count once."""
    total, reached = 0, within.first - 1
    for span in barred:
        first, last = max(span.first, reached + 1), min(span.last, within.last)
        if last >= first:
            total += last - first + 1 - (taken.bisect_right(last) - taken.bisect_left(first))
            reached = last
    return total
