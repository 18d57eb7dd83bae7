"""
Prefetches free addresses, so that no container waits for a probe.

A prefetched address is probed, defended, and held for the next container.
:mod:`macvlan_twisted.ipam.selection` chooses the candidates, and :class:`~macvlan_twisted.lan.conflicts.Conflicts` probes
them.
"""

from __future__ import annotations

from heapq import heappop, heappush
from itertools import islice

from twisted.internet.defer import ensureDeferred
from twisted.logger import Logger

from ..addresses import IPAddress
from ..errors import RequestRefused
from ..lan.address_probe import Free, Inconclusive, InUse, Verdict
from ..lan.conflicts import Conflicts, Holder
from ..option_values import ConflictDetection
from .allocator import AddressSet
from .pool import Pool
from .pool_prefetch import MAX_PROBES, MAX_READY, RETRIED, Candidates, PoolPrefetch, ready_target

_log = Logger(namespace="macvlan_twisted.ipam")

_LAST = 2**62
"""Added to the order of an address that comes last."""


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
                self._retry(prefetch, RETRIED)
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
        if isinstance(verdict, InUse):
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
            pool.lan_parent,
            address,
            Holder(pool.shared_set, on_lost=self._on_lost),
            of_many=of_many,
            is_managed=True,
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
            lambda failure: _log.failure("address prefetch: failed", failure=failure)
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
    return RequestRefused(f"pool {pool.described()} was released meanwhile: create the network again")


def inconclusive_error(pool: Pool, reason: str) -> RequestRefused:
    return RequestRefused(
        f"no address of pool {pool.described()} can be probed on "
        f"{pool.lan_parent or 'any parent'} ({reason}): bring the parent up, or create the "
        "network with --ipam-opt conflict_detection=on"
    )


def _addresses_in_use_error(prefetch: PoolPrefetch, pool: Pool) -> RequestRefused:
    return RequestRefused(
        f"no free address found in pool {pool.described()}: {prefetch.conflicts_in_a_row} in a "
        f"row are in use by others on {pool.lan_parent}, the last one by MAC {prefetch.mac}; give "
        "another --ip-range, or stop the router that answers for all of them (proxy ARP), or "
        "create the network with --ipam-opt conflict_detection=off"
    )
