"""
Prefetches free addresses, so that no container waits for a probe.

A prefetched address is probed, defended, and held for the next container.
An :class:`~macvlan_twisted.ipam.allocator.AddressSearch` chooses the candidates, and
:class:`~macvlan_twisted.lan.conflicts.Conflicts` probes them.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from heapq import heappop, heappush
from itertools import islice
from typing import Any

from attrs import define, field
from twisted.internet.defer import Deferred, ensureDeferred
from twisted.logger import Logger

from ..addresses import IPAddress
from ..demand import MAX_READY, MOST_AT_ONCE, Demand, burst_target, ready_target
from ..errors import RequestRefused, StateError
from ..fleet.interfaces import FleetUnavailable
from ..lan.address_probe import Evidence, Free, Inconclusive, InUse, Verdict
from ..lan.conflicts import Conflicts, Holder
from ..option_values import ConflictDetection
from .allocator import AddressSearch, AddressSet
from .fleet_addresses import FleetAddresses, no_claim_error
from .pool import Pool, pool_released_error

_log = Logger(namespace="macvlan_twisted.ipam")

_RETRIED = 8
"""How many addresses are probed again before a request fails: those that were in use the longest time ago."""


FILL_DELAY = 0.02
"""Seconds from a request to the claim of the next address, in a fleet."""
_LAST = 2**62
"""Added to the order of an address that comes last."""


@define(eq=False)
class AddressPrefetch:
    """The prefetched addresses of the pools that allocate from one part of one subnet on one parent."""

    pool: Pool
    shared: AddressSet
    search: AddressSearch
    comes_last: Callable[[int], bool]
    """Whether all others are allocated before a number."""
    conflicts: Conflicts
    prefetches: Collection[AddressPrefetch]
    """Those of all pools, this one among them."""
    count_free: Callable[[], int]
    """How many addresses of the range are neither allocated nor set aside."""
    fleet: FleetAddresses
    demand: Demand
    clock: Any
    """``IReactorTime``"""
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
    """Whether :meth:`fill` is running: some verdicts arrive while it is."""
    reason: str = ""
    """Why the last probe was inconclusive."""
    unclaimed: str = ""
    """Why the fleet could not be asked for the last address."""
    waiting: list[Deferred[None]] = field(factory=list)
    callers: int = 0
    """How many requests for an address are in progress."""
    filling: Any = None
    """The delayed call of :meth:`fill`, in a fleet."""
    closed: bool = False

    async def next(self, pool: Pool, checks_later: bool) -> IPAddress | None:
        """
        Return an address that is free on the LAN, or ``None`` if there is none.

        :param pool: one of those that share the prefetch.
        :param checks_later: whether the caller looks for an answer to the last probe itself.
        :raises RequestRefused: the probe is inconclusive and ``conflict_detection`` is ``strict``, other hosts use too many
            addresses in a row, or the pool was released meanwhile.
        """
        if not self.callers:
            self.search.begin()
        self.callers += 1
        self.demand.note()
        try:
            return await self._next(pool, checks_later)
        finally:
            self.callers -= 1
            self._drop_inconclusive()

    def remove_ready(self, number: int) -> bool:
        """:return: whether *number* was ready. It is still defended."""
        if number not in self.ready:
            return False
        self.ready.remove(number)
        self.shared.put_back(number)
        return True

    async def settled(self) -> None:
        """Wait until no probe runs."""
        while self.probing and not self.closed:
            await self._wait_for_verdict()

    def stop(self) -> None:
        """Leave no delayed call behind."""
        self.demand.stop()
        if self.filling is not None:
            self.filling.cancel()
            self.filling = None

    def close(self) -> None:
        self.closed = True
        self.stop()
        for number in (
            *self.ready,
            *self.inconclusive,
            *self.quarantined,
            *self.probing,
            *self.verifying,
        ):
            self.shared.put_back(number)
        for number in self.ready:
            self._release(self.pool.address(number))
        self._notify()

    def _release(self, address: IPAddress) -> None:
        """Stop defending *address*, unless another holder has it."""
        self.conflicts.release(self.pool.lan_parent, address, self.pool.shared_set)

    def _on_lost(self, parent: str, address: IPAddress) -> None:
        """Another host claimed a ready address despite our defence (RFC 5227, 2.4)."""
        for each in self.prefetches:
            if each.pool.lan_parent == parent and int(address) in each.ready:
                each.ready.remove(int(address))
                each._exclude(int(address))

    def quarantine(self, address: IPAddress) -> None:
        """Another host has *address*: do not choose it until it may be probed again."""
        span = self.pool.span
        if address.version == self.pool.prefix.version and span.first <= int(address) <= span.last:
            self._exclude(int(address))
            self.shared.set_aside(int(address))

    def _exclude(self, number: int) -> None:
        """Another host has *number*, which is set aside: do not probe it before its time."""
        self.quarantined.pop(number, None)
        self.quarantined[number] = None
        retry_at = self.conflicts.table.retry_at(self.pool.lan_parent, self.pool.address(number))
        heappush(self.retries, (retry_at, number))

    def _include(self) -> None:
        """Put back the quarantined numbers whose time has come."""
        now = self.conflicts.table.seconds()
        while self.retries and self.retries[0][0] <= now:
            _, number = heappop(self.retries)
            if number not in self.quarantined:
                continue
            if self._may_retry(number):
                del self.quarantined[number]
                self.shared.put_back(number)
            else:  # it was in use once more
                self._exclude(number)

    async def _next(self, pool: Pool, checks_later: bool) -> IPAddress | None:
        if self.ready:
            self._fill_after_reply()
        else:
            self.fill()
        retried = False
        while True:
            number = self._next_ready()
            if number is not None:
                if await self._verify(pool, number, checks_later):
                    self.search.allocated()
                    return self.pool.address(number)
                continue
            if self.inconclusive and not self.probing and pool.conflict_detection != ConflictDetection.STRICT:
                return self._allocate_inconclusive(self.inconclusive.pop(0))
            if self.probing:
                with self.demand.waiting():
                    await self._wait_for_verdict()
                if self.closed:
                    raise pool_released_error(pool)
                continue
            if self.search.is_hopeless:
                if retried:
                    raise _addresses_in_use_error(pool, self.search)
                retried = True
                self._retry(_RETRIED)
                continue
            if self.reason and pool.conflict_detection == ConflictDetection.STRICT:
                raise inconclusive_error(pool, self.reason)
            if self.unclaimed:
                raise no_claim_error(pool, self.unclaimed)
            if not self.fill():
                if retried:
                    return None
                retried = True
                self._retry(4 * MAX_READY)

    def _next_ready(self) -> int | None:
        """
        Take a ready number within this part of the subnet, from this prefetch or from one whose part overlaps it. It stays
        set aside.
        """
        for each in (self, *self.prefetches):
            matches = each.shared is self.shared and each.pool.lan_parent == self.pool.lan_parent
            if matches and (each is self or not self.probing):
                for number in each.ready:
                    if not self.pool.span.first <= number <= self.pool.span.last:
                        continue
                    if each is self and any(
                        each.order_of[other] < each.order_of[number] for other in each.probing
                    ):
                        break  # an earlier choice is still being probed
                    each.ready.remove(number)
                    self._fill_after_reply()
                    return number
        return None

    def _fill_after_reply(self) -> None:
        """In a fleet, the claim of another address writes to disk, which the request that has got one need not wait for."""
        if not self.fleet.takes_part(self.pool):
            self.fill()
        elif self.filling is None:
            self.filling = self.clock.callLater(FILL_DELAY, self._fill_late)

    def _fill_late(self) -> None:
        self.filling = None
        self.fill()

    async def _verify(self, pool: Pool, number: int, checks_later: bool) -> bool:
        """
        Verify once more that *number*, which was ready for a while, is free.

        :param checks_later: whether the caller looks at the answers itself.
        :raises RequestRefused: the pool was released meanwhile, or the probe is inconclusive and ``conflict_detection`` is
            ``strict``.
        """
        address = self.pool.address(number)
        self.verifying.add(number)
        try:
            verdict = await self._hold(address, checks_later=checks_later)
        finally:
            self.verifying.discard(number)
        if self.closed:
            self._release(address)
            raise pool_released_error(pool)
        if isinstance(verdict, InUse):
            self._exclude(number)
            return False
        self.shared.put_back(number)
        if self.shared.is_allocated(number):  # a user requested it meanwhile
            return False
        if isinstance(verdict, Inconclusive):
            if pool.conflict_detection == ConflictDetection.STRICT:
                self._release(address)
                raise inconclusive_error(pool, verdict.reason)
            self.conflicts.count_inconclusive(self.pool.lan_parent, address, verdict.reason)
        return True

    def _allocate_inconclusive(self, number: int) -> IPAddress:
        self.shared.put_back(number)
        self.conflicts.count_inconclusive(self.pool.lan_parent, self.pool.address(number), self.reason)
        return self.pool.address(number)

    async def _hold(self, address: IPAddress, of_many: bool = False, checks_later: bool = False) -> Verdict:
        pool = self.pool
        if pool.conflict_detection == ConflictDetection.OFF:
            return Free()
        return await self.conflicts.hold(
            pool.lan_parent,
            address,
            Holder(pool.shared_set, on_lost=self._on_lost),
            of_many=of_many,
            is_managed=True,
            checks_later=checks_later,
        )

    def _drop_inconclusive(self) -> None:
        """Return inconclusive addresses to the pool once no request waits for one."""
        if self.callers or self.closed:
            return
        for number in self.inconclusive:
            self.shared.put_back(number)
        self.inconclusive.clear()

    def fill(self) -> bool:
        """
        Probe as many addresses as are missing.

        :return: whether any probe was started.
        """
        if self.is_filling:
            return False
        self._include()
        if not self.probing and not self.inconclusive:
            self.reason = ""
            if self.fleet.may_claim(self.pool):
                self.unclaimed = ""
        self._drop_last()
        self.is_filling, started = True, False
        try:
            while (
                not self.reason
                and not self.unclaimed
                and not self.search.is_hopeless
                and (chosen := self._choose_missing())
            ):
                started = True
                for number in chosen:
                    self._start_probe(number, of_many=True)
        finally:
            self.is_filling = False
        return started

    def _drop_last(self) -> None:
        """Put back what comes last, if there are others again."""
        last = [number for number in self.ready if self.comes_last(number)]
        if not last or (other := self.search.candidate(self.search.after)) is None or self.comes_last(other):
            return
        for number in last:
            self._put_back_ready(number)

    def has(self, number: int) -> bool:
        """Whether *number* is ready, or being probed."""
        return number in self.ready or number in self.probing or number in self.verifying

    def missing(self) -> int:
        """How many numbers are neither ready nor being probed."""
        target = max(self._target(), min(self.callers, MOST_AT_ONCE))
        return target - len(self.ready) - len(self.probing) - len(self.inconclusive)

    def _choose_missing(self) -> list[int]:
        """Choose the numbers to probe, and set them aside."""
        chosen = []
        for _ in range(self.missing()):
            number = self._next_candidate()
            if number is None:
                break
            self.shared.set_aside(number)
            chosen.append(number)
        return chosen

    def _next_candidate(self) -> int | None:
        """In a fleet, an address that is claimed already comes first."""
        spare = self.fleet.next_spare(self.pool)
        if spare is not None:
            return spare
        if not self.fleet.may_claim(self.pool):
            self.unclaimed = self.unclaimed or self.fleet.unavailable
            return None
        return self.search.next()

    def _target(self) -> int:
        """How many addresses to keep ready."""
        free = self.count_free() + len(self.ready) + len(self.probing)
        wanted = burst_target(self.pool.span.size, self.demand.most(), free)
        return self.fleet.reserve_size(self.pool, wanted, free)

    def _shrink_later(self) -> None:
        """While more is ready than without demand, look again when the demand falls."""
        if len(self.ready) > ready_target(self.pool.span.size):
            self.demand.when_less(self._shrink)

    def _shrink(self) -> None:
        self.shrink()
        self._shrink_later()

    def shrink(self) -> None:
        """Put back what is ready beyond the demand."""
        for number in self.ready[self._target() :]:
            self._put_back_ready(number)

    def _put_back_ready(self, number: int) -> None:
        self.ready.remove(number)
        self.shared.put_back(number)
        self._release(self.pool.address(number))

    def _may_retry(self, number: int) -> bool:
        return self.conflicts.table.may_retry(self.pool.lan_parent, self.pool.address(number))

    def _retry(self, count: int) -> None:
        """Probe the oldest quarantined addresses again, before a request fails: they may be free by now."""
        for number in list(islice(self.quarantined, count)):
            del self.quarantined[number]
            if self.shared.is_endpoint_address(number):  # a user requested it meanwhile, and it was free
                self.shared.put_back(number)
            else:
                self._start_probe(number)

    def _start_probe(self, number: int, of_many: bool = False) -> None:
        self.probing.add(number)
        self.last_order += 1
        self.order_of[number] = self.last_order + _LAST * self.comes_last(number)
        ensureDeferred(self._probe(number, of_many)).addErrback(
            lambda failure: _log.failure("address prefetch: failed", failure=failure)
        )

    async def _probe(self, number: int, of_many: bool) -> None:
        try:
            if not await self.fleet.claim_ahead(self.pool, self.pool.address(number)):
                self._claimed_elsewhere(number)
                return
            verdict = await self._hold(self.pool.address(number), of_many)
        except (FleetUnavailable, StateError) as failure:
            self._not_claimed(number, str(failure))
            return
        except Exception:
            # Remedy: see the plugin's log, which has the reason.
            self._probed(number, Inconclusive("the probe failed"))
            raise
        self._probed(number, verdict)

    def _claimed_elsewhere(self, number: int) -> None:
        """Another host has *number*: try the next one."""
        self.probing.discard(number)
        self.shared.put_back(number)
        if not self.closed:
            self.fill()
        self._notify()

    def _not_claimed(self, number: int, reason: str) -> None:
        """The fleet could not be asked: the requests that wait fail, and the next one tries again."""
        self.probing.discard(number)
        self.shared.put_back(number)
        self.unclaimed = reason
        self._notify()

    def _probed(self, number: int, verdict: Verdict) -> None:
        self.probing.discard(number)
        self.order_of = {each: self.order_of[each] for each in (*self.ready, *self.probing, number)}
        if self.closed:
            if not self._is_wanted(self.pool.lan_parent, number):
                self._release(self.pool.address(number))
        elif self.shared.is_allocated(number):  # a user requested it meanwhile
            self.shared.put_back(number)
            if number in self.shared.reserved:
                self._release(self.pool.address(number))
        elif isinstance(verdict, Free):
            self.ready.append(number)
            self.ready.sort(key=lambda each: self.order_of[each])
            self.reason = ""
            self.search.found_free(number)
            self._shrink_later()
        elif isinstance(verdict, Inconclusive):
            self.reason = verdict.reason
            if self.callers:
                self.inconclusive.append(number)
            else:
                self.shared.put_back(number)
        else:
            self._exclude(number)
            is_claimed = verdict.how in (Evidence.ANSWERED, Evidence.CLAIMED)
            self.search.found_in_use(number, verdict.mac, is_claimed)
            self.fill()
        self._notify()

    def _is_wanted(self, parent: str, number: int) -> bool:
        """Whether a pool that was opened anew probes *number* or has it ready."""
        return any(
            each.pool.lan_parent == parent and (number in each.probing or number in each.ready)
            for each in self.prefetches
        )

    async def _wait_for_verdict(self) -> None:
        """Wait until a probe ends, or the prefetch is closed."""
        waiting: Deferred[None] = Deferred()
        self.waiting.append(waiting)
        await waiting

    def _notify(self) -> None:
        waiting, self.waiting = self.waiting, []
        for each in waiting:
            each.callback(None)


def inconclusive_error(pool: Pool, reason: str) -> RequestRefused:
    # Remedy: bring the parent up, check its cable, or create the network with --ipam-opt conflict_detection=on instead of
    # strict.
    return RequestRefused(
        f"no address of pool {pool.described()} can be probed on "
        f"{pool.lan_parent or 'any parent'} ({reason}): bring the parent up, or create the "
        "network with --ipam-opt conflict_detection=on instead of strict"
    )


def _addresses_in_use_error(pool: Pool, search: AddressSearch) -> RequestRefused:
    return RequestRefused(
        f"no free address found in pool {pool.described()}: {search.conflicts_in_a_row} in a "
        f"row are in use by others on {pool.lan_parent}, the last one by MAC {search.mac}; use "
        "another --ip-range, or disable proxy ARP on the router that answers for all of them, or "
        "create the network with --ipam-opt conflict_detection=off"
    )
