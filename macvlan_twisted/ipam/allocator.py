"""
Which addresses of a subnet are unavailable, and the next free one. In memory only.

The next free address is found in O(log² n) for n unavailable addresses. They are sorted. Within a run of consecutive addresses,
the difference between an address and its index is constant, so bisection finds the end of the run.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from attrs import define, field, frozen
from sortedcontainers import SortedList

from ..addresses import AddressRange, IPAddress, IPNetwork
from .requests import Purpose

_GOLDEN = (5**0.5 - 1) / 2
"""Multiples of it, without their whole part, are spread evenly, however many there are."""
MAX_CONFLICTS_IN_A_ROW = 256
"""After so many consecutive conflicts a request fails: some host probably answers for all addresses."""
SAME_MAC_IN_A_ROW = 32
"""After so many consecutive conflicts with one MAC, a few addresses all over a large range are probed instead of the next."""
_SCATTERED = 8
"""How many: if that host has them all, it answers for everything, and a request fails."""


@frozen
class Span:
    """The addresses from *first* to *last* inclusive, as integers."""

    first: int
    last: int

    @property
    def size(self) -> int:
        return self.last - self.first + 1

    def contains(self, number: int) -> bool:
        return self.first <= number <= self.last


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


def part_of_span(whole: Span, number: int, parts: int) -> Span:
    """
    The *number*-th, from 1, of as many equal *parts*. The last part has the remainder as well.

    It is empty if *whole* has fewer addresses than there are parts.
    """
    size = whole.size // parts
    first = whole.first + (number - 1) * size
    last = whole.last if number == parts and size else first + size - 1
    return Span(first, last)


def excluded_spans(
    ranges: Sequence[AddressRange], single: Sequence[IPAddress], version: int
) -> tuple[Span, ...]:
    """The spans of one IP *version* that are allocated only on request, sorted."""
    spans = [Span(int(each.first), int(each.last)) for each in ranges if each.version == version]
    spans += [Span(int(each), int(each)) for each in single if each.version == version]
    return tuple(sorted(spans, key=lambda span: span.first))


def next_free(
    taken: SortedList,
    within: Span,
    excluded: Sequence[Span],
    after: int | None,
    avoided: Sequence[SortedList] = (),
    barred: Sequence[SortedList] = (),
) -> int | None:
    """
    The first free address after *after*, wrapping around at the end; ``None`` if there is none.

    A released address is therefore reused last, when neighbours' ARP cache entries for it have expired.

    :param avoided: addresses that come after all others: their former owners may come back.
    :param barred: addresses that are unavailable, too.
    """
    if within.last < within.first:
        return None
    start = within.first
    if after is not None and within.first <= after < within.last:
        start = after + 1
    never = (taken, *barred)
    for unavailable in ((*never, *avoided), never) if avoided else (never,):
        found = _first_free(unavailable, start, within.last, excluded)
        if found is None and start > within.first:
            found = _first_free(unavailable, within.first, start - 1, excluded)
        if found is not None:
            return found
    return None


def _first_free(
    unavailable: Sequence[SortedList], first: int, last: int, excluded: Sequence[Span]
) -> int | None:
    candidate = first
    while candidate <= last:
        after_run = candidate
        for numbers in unavailable:
            after_run = _after_run(numbers, after_run)
        after_excluded = next(
            (span.last + 1 for span in excluded if span.first <= after_run <= span.last), after_run
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


def count_excluded(within: Span, excluded: Sequence[Span], taken: SortedList) -> int:
    """The number of addresses of *within* that are excluded and not in *taken*; overlapping spans count once."""
    total, reached = 0, within.first - 1
    for span in excluded:
        first, last = max(span.first, reached + 1), min(span.last, within.last)
        if last >= first:
            total += last - first + 1 - (taken.bisect_right(last) - taken.bisect_left(first))
            reached = last
    return total


@define
class AddressSet:
    """
    An endpoint's address belongs to one pool. Several pools may reserve the same gateway or auxiliary address.

    Addresses are integers here, so that a million of them fit into memory.
    """

    taken: SortedList = field(factory=SortedList)
    """Each unavailable address once, for :func:`~macvlan_twisted.ipam.allocator.next_free`."""
    endpoints: dict[str, set[int]] = field(factory=dict)
    """By pool id: the addresses of its endpoints."""
    chosen: dict[str, set[int]] = field(factory=dict)
    """By pool id: those of them that we chose for containers without a name."""
    reserved: dict[int, set[str]] = field(factory=dict)
    """By address: the ids of the pools that reserve it."""
    hosts: set[tuple[str, int]] = field(factory=set)
    """Pool id and address of each address that is reserved for the host itself."""
    unconfirmed: set[tuple[str, int]] = field(factory=set)
    """
    Pool id and address of each auxiliary address that CreateNetwork has not confirmed: it may be a container's, so no other
    pool reserves it. Those of an earlier life of the service count as confirmed.
    """
    aside: set[int] = field(factory=set)
    """Not allocated, but unavailable for now: probed, prefetched, or in use by another host."""
    pools: set[str] = field(factory=set)
    """The ids of the pools that share the set, including those that are being released."""

    def set_aside(self, address: int) -> None:
        if address not in self.aside:
            self.aside.add(address)
            if not self.is_allocated(address):
                self.taken.add(address)

    def put_back(self, address: int) -> None:
        """Succeeds when it is not set aside."""
        if address in self.aside:
            self.aside.remove(address)
            if not self.is_allocated(address):
                self.taken.remove(address)

    def is_allocated(self, address: int) -> bool:
        """Whether a pool has allocated or reserved *address*. An address that is only set aside is not allocated."""
        return address in self.reserved or self.is_endpoint_address(address)

    def is_endpoint_address(self, address: int) -> bool:
        return any(address in addresses for addresses in self.endpoints.values())

    def add(self, pool_id: str, address: int, purpose: Purpose, is_chosen: bool = False) -> None:
        if address not in self.aside and not self.is_allocated(address):
            self.taken.add(address)
        if purpose is Purpose.ENDPOINT:
            self.endpoints.setdefault(pool_id, set()).add(address)
            if is_chosen:
                self.chosen.setdefault(pool_id, set()).add(address)
        else:
            self.reserved.setdefault(address, set()).add(pool_id)
            if purpose is Purpose.HOST:
                self.hosts.add((pool_id, address))
            else:
                self.hosts.discard((pool_id, address))

    def is_unconfirmed(self, address: int) -> bool:
        """Whether a pool reserves *address* as an auxiliary one, which may be a container's."""
        return any((pool_id, address) in self.unconfirmed for pool_id in self.reserved.get(address, ()))

    def is_endpoint_of(self, pool_id: str, address: int) -> bool:
        """Whether the pool has allocated *address* to an endpoint."""
        return address in self.endpoints.get(pool_id, ())

    def holds(self, pool_id: str, address: int) -> bool:
        return self.is_endpoint_of(pool_id, address) or pool_id in self.reserved.get(address, ())

    def is_releasable(self, pool_id: str, address: int) -> bool:
        """
        Whether ReleaseAddress may release *address*. The host's own address stays until its pool is released: an engine that
        releases it means a container that had it before.
        """
        return self.holds(pool_id, address) and (pool_id, address) not in self.hosts

    def remove(self, pool_id: str, address: int) -> None:
        """Succeeds when the pool has no such address."""
        if not self.holds(pool_id, address):
            return
        addresses = self.endpoints.get(pool_id, set())
        addresses.discard(address)
        if not addresses:
            self.endpoints.pop(pool_id, None)
        self.chosen.get(pool_id, set()).discard(address)
        self.hosts.discard((pool_id, address))
        self.unconfirmed.discard((pool_id, address))
        holders = self.reserved.get(address, set())
        holders.discard(pool_id)
        if not holders:
            self.reserved.pop(address, None)
        if address not in self.aside and not self.is_allocated(address):
            self.taken.remove(address)

    def remove_pool(self, pool_id: str) -> None:
        """Remove a pool and its addresses, without iterating over those of other pools' endpoints."""
        addresses = set(self.endpoints.get(pool_id, ()))
        addresses.update(address for address, holders in self.reserved.items() if pool_id in holders)
        for address in addresses:
            self.remove(pool_id, address)
        self.chosen.pop(pool_id, None)
        self.pools.discard(pool_id)


@define(eq=False)
class AddressSearch:
    """The search for an address that no other host uses: which one is probed next."""

    span: Span
    candidate: Callable[[int | None], int | None]
    """Returns the next free number after another one, or after the last allocated one; ``None`` if none is left."""
    conflicts_in_a_row: int = 0
    mac: str = ""
    """Of the host that had the last address."""
    same_mac_in_a_row: int = 0
    scattered: int = 0
    """How many addresses all over the range were chosen so far: the next search goes on with others."""
    after: int | None = None
    """The number after which the search goes on, if others were in use since the last allocation."""

    @property
    def is_hopeless(self) -> bool:
        """Whether it has met so many conflicts that a request fails."""
        return self.conflicts_in_a_row >= MAX_CONFLICTS_IN_A_ROW or (
            self._is_large and self.same_mac_in_a_row >= SAME_MAC_IN_A_ROW + _SCATTERED
        )

    @property
    def _is_large(self) -> bool:
        return self.span.size > MAX_CONFLICTS_IN_A_ROW

    def begin(self) -> None:
        """A request comes, and no other one is in progress."""
        self.conflicts_in_a_row = 0
        # Of a host that has answered for everything, fewer answers are enough the next time.
        self.same_mac_in_a_row = min(self.same_mac_in_a_row, SAME_MAC_IN_A_ROW - _SCATTERED)

    def next(self) -> int | None:
        """The next number to probe, for which nothing is known yet."""
        if not self._is_large or self.same_mac_in_a_row < SAME_MAC_IN_A_ROW:
            return self.candidate(self.after)
        self.scattered += 1
        offset = int(self.scattered * self.span.size * _GOLDEN) % self.span.size
        return self.candidate(self.span.first + offset)

    def found_free(self, number: int) -> None:
        self.conflicts_in_a_row, self.mac, self.same_mac_in_a_row = 0, "", 0
        if self.after is not None:
            self.after = number

    def found_in_use(self, number: int, mac: str, is_claimed: bool) -> None:
        """:param is_claimed: whether a host claims the number; else it only probed for it."""
        self.conflicts_in_a_row += 1
        self.after = number
        self.same_mac_in_a_row = self.same_mac_in_a_row + 1 if is_claimed and mac == self.mac else 0
        self.mac = mac

    def allocated(self) -> None:
        """The search goes on after the allocated number."""
        self.after = None
