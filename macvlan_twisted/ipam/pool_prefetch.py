"""
What is prefetched from one part of one subnet, and which address is probed next: :mod:`macvlan_twisted.ipam.prefetch` probes.
"""

from __future__ import annotations

from collections.abc import Callable

from attrs import define, field, frozen
from twisted.internet.defer import Deferred

from ..addresses import IPAddress
from ..lan.address_probe import Evidence, InUse
from .allocator import AddressSet, Span
from .pool import Pool

MAX_READY = 8
_GOLDEN = (5**0.5 - 1) / 2
"""Multiples of it, without their whole part, are spread evenly, however many there are."""
_FEW_READY = 4
"""Enough for an engine, which starts one container after the other."""
MAX_PROBES = 64
"""Limit of parallel probes, reached only if as many containers wait."""
MAX_CONFLICTS_IN_A_ROW = 256
"""After so many consecutive conflicts a request fails: some host probably answers for all addresses."""
SAME_MAC_IN_A_ROW = 32
"""After so many consecutive conflicts with one MAC, a few addresses all over a large range are probed instead of the next."""
_SCATTERED = 8
"""How many: if that host has them all, it answers for everything, and a request fails."""
RETRIED = 8
"""How many addresses are probed again before a request fails: those that were in use the longest time ago."""


def ready_target(span: Span) -> int:
    """
    How many addresses to prefetch: 4 to 8, and fewer in a small pool, because another host may allocate from the same
    subnet.
    """
    return max(1, min(_FEW_READY, span.size // 4), min(MAX_READY, span.size // 16))


@frozen
class Candidates:
    """Which addresses of a pool are prefetched."""

    next: Callable[[int | None], int | None]
    """Returns the next free number after another one, or after the last allocated one; ``None`` if none is left."""
    comes_last: Callable[[int], bool]
    """Whether all others are handed out before a number."""


@define(eq=False)
class PoolPrefetch:
    """The prefetched addresses of the pools that allocate from one part of one subnet on one parent."""

    pool: Pool
    shared: AddressSet
    candidates: Candidates
    ready: list[int] = field(factory=list)
    """Verified as free, in the order in which they were chosen."""
    probing: set[int] = field(factory=set)
    """Being probed before they become ready."""
    order_of: dict[int, int] = field(factory=dict)
    """The order in which the numbers in *ready* and *probing* were chosen."""
    last_order: int = 0
    quarantined: dict[int, None] = field(factory=dict)
    """In use by another host, and set aside until they may be probed again; the oldest are first."""
    retries: list[tuple[float, int]] = field(factory=list)
    """A heap of the quarantined numbers by when they may be probed again."""
    verifying: set[int] = field(factory=set)
    """Ready before, and verified once more before they are allocated."""
    inconclusive: list[int] = field(factory=list)
    """Probed without a result, for the containers that wait now."""
    is_filling: bool = False
    """Whether :meth:`AddressPrefetch._fill` is running: some verdicts arrive while it is."""
    conflicts_in_a_row: int = 0
    mac: str = ""
    """Of the host that had the last address."""
    same_mac_in_a_row: int = 0
    scattered: int = 0
    """How many addresses all over the range were chosen so far: the next search goes on with others."""
    search_after: int | None = None
    """The number after which the search goes on, if others were in use since the last allocation."""
    reason: str = ""
    """Why the last probe was inconclusive."""
    waiting: list[Deferred[None]] = field(factory=list)
    callers: int = 0
    """How many requests for an address are in progress."""
    closed: bool = False

    @property
    def span(self) -> Span:
        return self.pool.span

    @property
    def is_occupied(self) -> bool:
        """Whether the search has met so many conflicts that a request fails."""
        return self.conflicts_in_a_row >= MAX_CONFLICTS_IN_A_ROW or (
            self._is_large and self.same_mac_in_a_row >= SAME_MAC_IN_A_ROW + _SCATTERED
        )

    @property
    def _is_large(self) -> bool:
        return self.span.size > MAX_CONFLICTS_IN_A_ROW

    def begin_search(self) -> None:
        """A request comes, and no other one is in progress."""
        self.conflicts_in_a_row = 0
        # Of a host that has answered for everything, fewer answers are enough the next time.
        self.same_mac_in_a_row = min(self.same_mac_in_a_row, SAME_MAC_IN_A_ROW - _SCATTERED)

    def next_candidate(self) -> int | None:
        """The next number to probe, for which nothing is known yet."""
        if not self._is_large or self.same_mac_in_a_row < SAME_MAC_IN_A_ROW:
            return self.candidates.next(self.search_after)
        self.scattered += 1
        offset = int(self.scattered * self.span.size * _GOLDEN) % self.span.size
        return self.candidates.next(self.span.first + offset)

    def found_free(self, number: int) -> None:
        self.reason, self.conflicts_in_a_row = "", 0
        self.mac, self.same_mac_in_a_row = "", 0
        if self.search_after is not None:
            self.search_after = number

    def found_taken(self, number: int, verdict: InUse) -> None:
        self.conflicts_in_a_row += 1
        self.search_after = number
        is_claimed = verdict.how in (Evidence.ANSWERED, Evidence.CLAIMED)
        self.same_mac_in_a_row = self.same_mac_in_a_row + 1 if is_claimed and verdict.mac == self.mac else 0
        self.mac = verdict.mac

    def address(self, number: int) -> IPAddress:
        return self.pool.address(number)

    async def wait_for_verdict(self) -> None:
        """Wait until a probe ends, or the prefetch is closed."""
        waiting: Deferred[None] = Deferred()
        self.waiting.append(waiting)
        await waiting

    def notify(self) -> None:
        waiting, self.waiting = self.waiting, []
        for each in waiting:
            each.callback(None)
