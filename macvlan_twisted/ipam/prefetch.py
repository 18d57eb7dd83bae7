"""
Prefetches free addresses, so that no container waits for a probe.

A prefetched address is probed, defended, and held for the next container.
:mod:`macvlan_twisted.ipam.selection` chooses the candidates, and :class:`~macvlan_twisted.lan.conflicts.Conflicts` probes
them.
"""

from __future__ import annotations

from collections.abc import Callable
from heapq import heappop, heappush
from itertools import islice

from attrs import define, field, frozen
from twisted.internet.defer import Deferred, ensureDeferred
from twisted.logger import Logger

from ..addresses import IPAddress
from ..errors import RequestRefused
from ..lan.address_probe import Evidence, Free, Inconclusive, Taken, Verdict
from ..lan.conflicts import Conflicts
from ..option_values import ConflictDetection
from .address_set import AddressSet
from .allocator import Span
from .pool import Pool

_log = Logger(namespace="macvlan_twisted.ipam")

MAX_READY = 8
_GOLDEN = (5**0.5 - 1) / 2
"""Multiples of it, without their whole part, are spread evenly, however many there are."""
_FEW_READY = 4
"""Enough for an engine, which starts one container after the other."""
MAX_PROBES = 64
"""Limit of parallel probes, reached only if as many containers wait."""
_LAST = 2**62
"""Added to the order of an address that comes last."""
MAX_CONFLICTS_IN_A_ROW = 256
"""After so many consecutive conflicts a request fails: some host probably answers for all addresses."""
SAME_MAC_IN_A_ROW = 32
"""After so many consecutive conflicts with one MAC, a few addresses all over a large range are probed instead of the next."""
_SCATTERED = 8
"""How many: if that host has them all, it answers for everything, and a request fails."""
_RETRIED = 8
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

    def found_taken(self, number: int, verdict: Taken) -> None:
        self.conflicts_in_a_row += 1
        self.search_after = number
        is_claimed = verdict.how in (Evidence.ANSWERED, Evidence.CLAIMED)
        self.same_mac_in_a_row = self.same_mac_in_a_row + 1 if is_claimed and verdict.mac == self.mac else 0
        self.mac = verdict.mac

    def address(self, number: int) -> IPAddress:
        return type(self.pool.prefix.network_address)(number)

    async def wait_for_verdict(self) -> None:
        """Wait until a probe ends, or the prefetch is closed."""
        waiting: Deferred[None] = Deferred()
        self.waiting.append(waiting)
        await waiting

    def notify(self) -> None:
        waiting, self.waiting = self.waiting, []
        for each in waiting:
            each.callback(None)


class AddressPrefetch:
    """Prefetches for all pools. Pools with the same cursor key and parent share one :class:`PoolPrefetch`."""

    def __init__(self, conflicts: Conflicts) -> None:
        self._conflicts = conflicts
        self._by_key: dict[tuple[str, str], PoolPrefetch] = {}

    def prepare(self, pool: Pool, shared: AddressSet, candidates: Candidates) -> None:
        """Start probing addresses for the next containers."""
        self._fill(self._prefetch_for(pool, shared, candidates))

    def _prefetch_for(self, pool: Pool, shared: AddressSet, candidates: Candidates) -> PoolPrefetch:
        prefetch = self._by_key.get(_key(pool))
        if prefetch is None:
            prefetch = self._by_key[_key(pool)] = PoolPrefetch(pool, shared, candidates)
            for address in self._conflicts.table.quarantined(pool.lan_parent):
                self._quarantine(prefetch, address)
        return prefetch

    def _quarantine(self, prefetch: PoolPrefetch, address: IPAddress) -> None:
        span = prefetch.span
        if address.version == prefetch.pool.prefix.version and span.first <= int(address) <= span.last:
            self._exclude(prefetch, int(address))
            prefetch.shared.set_aside(int(address))

    def _exclude(self, prefetch: PoolPrefetch, number: int) -> None:
        """Another host has *number*, which is set aside: do not probe it before its time."""
        prefetch.quarantined.pop(number, None)
        prefetch.quarantined[number] = None
        retry_at = self._conflicts.table.retry_at(prefetch.pool.lan_parent, prefetch.address(number))
        heappush(prefetch.retries, (retry_at, number))

    def _include(self, prefetch: PoolPrefetch) -> None:
        """Put back the quarantined numbers whose time has come."""
        now = self._conflicts.table.seconds()
        while prefetch.retries and prefetch.retries[0][0] <= now:
            _, number = heappop(prefetch.retries)
            if number not in prefetch.quarantined:
                continue
            if self._may_retry(prefetch, number):
                del prefetch.quarantined[number]
                prefetch.shared.put_back(number)
            else:  # it was in use once more
                self._exclude(prefetch, number)

    async def next(self, pool: Pool, shared: AddressSet, candidates: Candidates) -> IPAddress | None:
        """
        Return an address that is free on the LAN, or ``None`` if the pool has none.

        :raises RequestRefused: the probe is inconclusive and ``conflict_detection`` is ``strict``, other hosts use too many
            addresses in a row, or the pool was released meanwhile.
        """
        prefetch = self._prefetch_for(pool, shared, candidates)
        if not prefetch.callers:
            prefetch.begin_search()
        prefetch.callers += 1
        try:
            return await self._next(prefetch, pool)
        finally:
            prefetch.callers -= 1
            self._drop_inconclusive(prefetch)

    async def _next(self, prefetch: PoolPrefetch, pool: Pool) -> IPAddress | None:
        self._fill(prefetch)
        retried = False
        while True:
            number = self._next_ready(prefetch)
            if number is not None:
                if await self._verify(prefetch, pool, number):
                    prefetch.search_after = None  # it goes on after the allocated address
                    return prefetch.address(number)
                continue
            if (
                prefetch.inconclusive
                and not prefetch.probing
                and pool.conflict_detection != ConflictDetection.STRICT
            ):
                return self._allocate_inconclusive(prefetch, prefetch.inconclusive.pop(0))
            if prefetch.probing:
                await prefetch.wait_for_verdict()
                if prefetch.closed:
                    raise pool_released_error(pool)
                continue
            if prefetch.is_occupied:
                if retried:
                    raise _addresses_in_use_error(prefetch, pool)
                retried = True
                self._retry(prefetch, _RETRIED)
                continue
            if prefetch.reason and pool.conflict_detection == ConflictDetection.STRICT:
                raise inconclusive_error(pool, prefetch.reason)
            if not self._fill(prefetch):
                if retried:
                    return None
                retried = True
                self._retry(prefetch, 4 * MAX_READY)

    def _next_ready(self, prefetch: PoolPrefetch) -> int | None:
        """
        Take a ready number within this part of the subnet, from this prefetch or from one whose part overlaps it. It stays
        set aside.
        """
        for each in (prefetch, *self._by_key.values()):
            matches = each.shared is prefetch.shared and each.pool.lan_parent == prefetch.pool.lan_parent
            if matches and (each is prefetch or not prefetch.probing):
                for number in each.ready:
                    if not prefetch.span.first <= number <= prefetch.span.last:
                        continue
                    if each is prefetch and any(
                        each.order_of[other] < each.order_of[number] for other in each.probing
                    ):
                        break  # an earlier choice is still being probed
                    each.ready.remove(number)
                    self._fill(prefetch)
                    return number
        return None

    async def _verify(self, prefetch: PoolPrefetch, pool: Pool, number: int) -> bool:
        """
        Verify once more that *number*, which was ready for a while, is free.

        :raises RequestRefused: the pool was released meanwhile, or the probe is inconclusive and ``conflict_detection`` is
            ``strict``.
        """
        address = prefetch.address(number)
        prefetch.verifying.add(number)
        try:
            verdict = await self._hold(prefetch, address)
        finally:
            prefetch.verifying.discard(number)
        if prefetch.closed:
            self._conflicts.release(prefetch.pool.lan_parent, address, prefetch.pool.shared_set)
            raise pool_released_error(pool)
        if isinstance(verdict, Taken):
            self._exclude(prefetch, number)
            return False
        prefetch.shared.put_back(number)
        if prefetch.shared.is_allocated(number):  # a user requested it meanwhile
            return False
        if isinstance(verdict, Inconclusive):
            if pool.conflict_detection == ConflictDetection.STRICT:
                self._conflicts.release(prefetch.pool.lan_parent, address, prefetch.pool.shared_set)
                raise inconclusive_error(pool, verdict.reason)
            self._conflicts.count_inconclusive(prefetch.pool.lan_parent, address, verdict.reason)
        return True

    def _allocate_inconclusive(self, prefetch: PoolPrefetch, number: int) -> IPAddress:
        prefetch.shared.put_back(number)
        self._conflicts.count_inconclusive(
            prefetch.pool.lan_parent, prefetch.address(number), prefetch.reason
        )
        return prefetch.address(number)

    async def _hold(self, prefetch: PoolPrefetch, address: IPAddress, of_many: bool = False) -> Verdict:
        pool = prefetch.pool
        return await self._conflicts.hold(
            pool.lan_parent, address, pool.shared_set, of_many=of_many, is_managed=True, on_lost=self._on_lost
        )

    @staticmethod
    def _drop_inconclusive(prefetch: PoolPrefetch) -> None:
        """Return inconclusive addresses to the pool once no request waits for one."""
        if prefetch.callers or prefetch.closed:
            return
        for number in prefetch.inconclusive:
            prefetch.shared.put_back(number)
        prefetch.inconclusive.clear()

    def _fill(self, prefetch: PoolPrefetch) -> bool:
        """
        Probe as many addresses as are missing.

        :return: whether any probe was started.
        """
        if prefetch.is_filling:
            return False
        self._include(prefetch)
        if not prefetch.probing and not prefetch.inconclusive:
            prefetch.reason = ""
        self._drop_last(prefetch)
        prefetch.is_filling, started = True, False
        try:
            while (
                not prefetch.reason
                and not prefetch.is_occupied
                and (chosen := self._choose_missing(prefetch))
            ):
                started = True
                for number in chosen:
                    self._start_probe(prefetch, number, of_many=True)
        finally:
            prefetch.is_filling = False
        return started

    def _drop_last(self, prefetch: PoolPrefetch) -> None:
        """Put back what comes last, if there are others again."""
        comes_last = prefetch.candidates.comes_last
        last = [number for number in prefetch.ready if comes_last(number)]
        if (
            not last
            or (other := prefetch.candidates.next(prefetch.search_after)) is None
            or comes_last(other)
        ):
            return
        for number in last:
            prefetch.ready.remove(number)
            prefetch.shared.put_back(number)
            self._conflicts.release(
                prefetch.pool.lan_parent, prefetch.address(number), prefetch.pool.shared_set
            )

    @staticmethod
    def _choose_missing(prefetch: PoolPrefetch) -> list[int]:
        """Choose the numbers to probe, and set them aside."""
        target = max(ready_target(prefetch.span), min(prefetch.callers, MAX_PROBES))
        missing = target - len(prefetch.ready) - len(prefetch.probing) - len(prefetch.inconclusive)
        chosen = []
        for _ in range(missing):
            number = prefetch.next_candidate()
            if number is None:
                break
            prefetch.shared.set_aside(number)
            chosen.append(number)
        return chosen

    def _may_retry(self, prefetch: PoolPrefetch, number: int) -> bool:
        return self._conflicts.table.may_retry(prefetch.pool.lan_parent, prefetch.address(number))

    def _retry(self, prefetch: PoolPrefetch, count: int) -> None:
        """Probe the oldest quarantined addresses again, before a request fails: they may be free by now."""
        for number in list(islice(prefetch.quarantined, count)):
            del prefetch.quarantined[number]
            if prefetch.shared.is_endpoint_address(number):  # a user requested it meanwhile, and it was free
                prefetch.shared.put_back(number)
            else:
                self._start_probe(prefetch, number)

    def _start_probe(self, prefetch: PoolPrefetch, number: int, of_many: bool = False) -> None:
        prefetch.probing.add(number)
        prefetch.last_order += 1
        prefetch.order_of[number] = prefetch.last_order + _LAST * prefetch.candidates.comes_last(number)
        ensureDeferred(self._probe(prefetch, number, of_many)).addErrback(
            lambda failure: _log.failure("finding out about an address failed", failure=failure)
        )

    async def _probe(self, prefetch: PoolPrefetch, number: int, of_many: bool) -> None:
        address = prefetch.address(number)
        verdict: Verdict = Inconclusive("it was not found out")
        try:
            verdict = await self._hold(prefetch, address, of_many)
        finally:
            prefetch.probing.discard(number)
            prefetch.order_of = {
                each: prefetch.order_of[each] for each in (*prefetch.ready, *prefetch.probing, number)
            }
            if prefetch.closed:
                if not self._is_wanted(prefetch.pool.lan_parent, number):
                    self._conflicts.release(prefetch.pool.lan_parent, address, prefetch.pool.shared_set)
            elif prefetch.shared.is_allocated(number):  # a user requested it meanwhile
                prefetch.shared.put_back(number)
                if number in prefetch.shared.reserved:
                    self._conflicts.release(prefetch.pool.lan_parent, address, prefetch.pool.shared_set)
            elif isinstance(verdict, Free):
                prefetch.ready.append(number)
                prefetch.ready.sort(key=lambda each: prefetch.order_of[each])
                prefetch.found_free(number)
            elif isinstance(verdict, Inconclusive):
                prefetch.reason = verdict.reason
                if prefetch.callers:
                    prefetch.inconclusive.append(number)
                else:
                    prefetch.shared.put_back(number)
            else:
                self._exclude(prefetch, number)
                prefetch.found_taken(number, verdict)
                self._fill(prefetch)
            prefetch.notify()

    def _is_wanted(self, parent: str, number: int) -> bool:
        """Whether a pool that was opened anew probes *number* or has it ready."""
        return any(
            each.pool.lan_parent == parent and (number in each.probing or number in each.ready)
            for each in self._by_key.values()
        )

    def take(self, pool: Pool, address: IPAddress) -> bool:
        """
        Take *address*, which a user requested, out of the prefetch.

        :return: whether it was ready; the caller owns it then.
        """
        number = int(address)
        for prefetch in self._by_key.values():
            matches = (
                prefetch.pool.shared_set == pool.shared_set and prefetch.pool.lan_parent == pool.lan_parent
            )
            if matches and number in prefetch.ready:
                prefetch.ready.remove(number)
                prefetch.shared.put_back(number)
                return True
        return False

    def quarantine(self, pool: Pool, address: IPAddress) -> None:
        """Another host has *address*, which was allocated: do not choose it until it may be probed again."""
        for prefetch in self._by_key.values():
            is_same = (
                prefetch.pool.shared_set == pool.shared_set and prefetch.pool.lan_parent == pool.lan_parent
            )
            if is_same and int(address) not in (*prefetch.ready, *prefetch.probing, *prefetch.verifying):
                self._quarantine(prefetch, address)

    def withdraw(self, pool: Pool, address: IPAddress) -> None:
        """*address* is now reserved: stop prefetching and defending it, on every parent."""
        number = int(address)
        for prefetch in self._by_key.values():
            if prefetch.pool.shared_set == pool.shared_set and number in prefetch.ready:
                prefetch.ready.remove(number)
                prefetch.shared.put_back(number)
                self._conflicts.release(prefetch.pool.lan_parent, address, pool.shared_set)

    def _on_lost(self, parent: str, address: IPAddress) -> None:
        """Another host claimed a ready address despite our defence (RFC 5227, 2.4)."""
        for prefetch in self._by_key.values():
            if prefetch.pool.lan_parent == parent and int(address) in prefetch.ready:
                prefetch.ready.remove(int(address))
                self._exclude(prefetch, int(address))

    def close(self, pool: Pool, others: bool) -> None:
        """:param others: whether other pools allocate from the same part of the subnet, and keep the prefetch in use."""
        if others:
            return
        prefetch = self._by_key.pop(_key(pool), None)
        if prefetch is None:
            return
        prefetch.closed = True
        for number in (
            *prefetch.ready,
            *prefetch.inconclusive,
            *prefetch.quarantined,
            *prefetch.probing,
            *prefetch.verifying,
        ):
            prefetch.shared.put_back(number)
        for number in prefetch.ready:
            self._conflicts.release(pool.lan_parent, prefetch.address(number), pool.shared_set)
        prefetch.notify()


def _key(pool: Pool) -> tuple[str, str]:
    return pool.cursor_key, pool.lan_parent


def pool_released_error(pool: Pool) -> RequestRefused:
    return RequestRefused(f"pool {pool.described()} was released meanwhile")


def inconclusive_error(pool: Pool, reason: str) -> RequestRefused:
    return RequestRefused(
        f"no address of pool {pool.described()} is handed out, for it cannot be found out whether it is in use on "
        f"{pool.lan_parent or 'any parent'}: {reason}; mend that, or create the network with --ipam-opt conflict_detection=on"
    )


def _addresses_in_use_error(prefetch: PoolPrefetch, pool: Pool) -> RequestRefused:
    return RequestRefused(
        f"no address of pool {pool.described()} is handed out: {prefetch.conflicts_in_a_row} in a row are in use by others on "
        f"{pool.lan_parent}, the last one by MAC {prefetch.mac}; if a router there answers for all of them (proxy ARP), have it stop, or create the network with "
        "--ipam-opt conflict_detection=off; else give another --ip-range"
    )
