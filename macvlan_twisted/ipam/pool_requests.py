"""Handles the calls RequestPool and ReleasePool."""

from __future__ import annotations

from collections.abc import Callable
from itertools import chain

from attrs import evolve
from twisted.internet.defer import ensureDeferred
from twisted.logger import Logger

from ..last_seen import EngineCalls
from ..state.interfaces import Allocation
from .allocations import Allocations
from .new_pools import NewPools
from .pool import Pool, reported_subnet
from .pool_plan import PoolPlanner, refuse_overlap
from .pool_registry import PoolRegistry
from .prefetch_queue import PrefetchQueue
from .requests import GrantedPool, Purpose, RequestPool
from .selection import AddressSelection

_log = Logger(namespace="macvlan_twisted.ipam")


class PoolRequests:
    """:param calls: the engine's calls, keyed by pool id."""

    def __init__(
        self,
        planner: PoolPlanner,
        pools: PoolRegistry,
        new_pools: NewPools,
        allocations: Allocations,
        selection: AddressSelection,
        prefetch: PrefetchQueue,
        calls: EngineCalls,
    ) -> None:
        self._planner = planner
        self._pools = pools
        self._new_pools = new_pools
        self._allocations = allocations
        self._selection = selection
        self._prefetch = prefetch
        self._calls = calls
        self._opening: dict[str, Pool] = {}
        """
        By id: pools that are not on disk yet. Nothing is allocated in them before: if the disk refused the pool, its
        allocations would stay in the state.
        """

    def load(self) -> None:
        """At start: listen on the LANs of all pools."""
        for pool in self._pools.by_id.values():
            self._selection.use_lan(pool)

    def free_lost(self) -> None:
        """
        At start: free reserved addresses of pools that were never opened. To refuse the start would leave all other
        containers without the plugin.
        """
        for pool_id in sorted(self._pools.lost):
            self._free_lost(pool_id)

    def _free_lost(self, pool_id: str) -> None:
        # Cause: an earlier version saved the addresses, but failed to save the pool. Remedy: none needed.
        _log.error(
            "pool {pool}: reserved addresses released, because the pool itself was never saved",
            pool=pool_id,
        )
        # Cause: writing the state failed. Remedy: free space on the disk of the state directory; the plugin tries again
        # at its next start.
        ensureDeferred(self._pools.erase_pool(pool_id)).addErrback(
            lambda failure: _log.error(
                "pool {pool}: cannot release its reserved addresses ({reason})",
                pool=pool_id,
                reason=failure.getErrorMessage(),
            )
        )

    async def request_pool(self, request: RequestPool) -> GrantedPool:
        pool = await self._planner.plan(request)
        refuse_overlap(pool, chain(self._pools.index.overlapping(pool.prefix), self._opening.values()))
        self._opening[pool.pool_id] = pool
        try:
            await self._pools.save_pool(pool)
        finally:
            del self._opening[pool.pool_id]
        self._pools.add(pool)
        self._new_pools.opened(pool)
        self._calls.last_seen.note(pool.pool_id)
        self._selection.use_lan(pool)
        self._prefetch.opened(pool)
        _log.debug(
            "pool {pool}: opened on parent {parent}", pool=pool.described(), parent=pool.parent or "none"
        )
        gateway = self._planner.gateway_in_data(pool)
        if gateway is not None:
            try:
                self._selection.refuse_taken(pool, gateway.ip, Purpose.GATEWAY)
                await self._allocations.allocate(
                    pool, Allocation(pool.pool_id, gateway.ip, Purpose.GATEWAY.value), advances=False
                )
            except BaseException:
                await self.release_pool(pool.pool_id)
                raise
        return GrantedPool(pool.pool_id, reported_subnet(pool), gateway)

    async def release_pool(self, pool_id: str) -> None:
        """Release the pool and its addresses: after some errors the engine does not release those itself."""
        await self._release(pool_id, lambda pool: True)

    async def _release(self, pool_id: str, is_due: Callable[[Pool], bool]) -> bool:
        """
        :param is_due: called with the lock held; returns whether to release the pool after all.
        :return: whether the pool was released.
        """
        found = self._pools.find(pool_id)
        async with self._calls.locks.acquire(pool_id if found is None else found.pool_id):
            found = self._pools.find(pool_id)
            if found is None or not is_due(found) or await self._release_one_id(found, pool_id):
                return False
            pool_id, pool = found.pool_id, found
            self._pools.index.remove(pool_id)  # from now on no address is allocated in it
            self._new_pools.settled(pool_id)
            self._prefetch.released(pool_id)
            try:
                await self._pools.erase_pool(pool_id)
            except BaseException:
                self._pools.index.put(pool)
                raise
            self._calls.last_seen.forget(pool_id)
            await self._allocations.release_all(pool)
            await self._selection.disuse_lan(pool)
        _log.debug("pool {pool}: released", pool=pool.described())
        return True

    async def _release_one_id(self, pool: Pool, pool_id: str) -> bool:
        """
        Release one id of a rebuilt pool, which stands for several networks.

        :return: whether other ids remain, so that the pool stays open.
        """
        released_ids = {*pool.released_ids, pool_id}
        if len(released_ids) >= pool.rebuilt_for:
            return False
        remaining = evolve(pool, released_ids=tuple(sorted(released_ids)))
        await self._pools.save_pool(remaining)
        self._pools.index.put(remaining)
        return True

    def engine_activated(self) -> None:
        """The engine has started, unless somebody else has sent the call."""
        self._calls.last_seen.activated()

    def is_of_earlier_life(self, pool_id: str) -> bool:
        """Whether the engine has activated the plugin since it last mentioned the pool."""
        return self._calls.last_seen.is_of_earlier_life(pool_id)

    @property
    def open_pools(self) -> list[Pool]:
        return list(self._pools.by_id.values())

    def has_containers(self, pool: Pool) -> bool:
        """Whether the pool has addresses that are allocated to containers."""
        return bool(self._pools.set_of(pool).endpoints.get(pool.pool_id))

    def idle_for(self, pool_id: str) -> float:
        """Seconds since the engine last mentioned the pool."""
        return self._calls.last_seen.idle_for(pool_id)

    async def drop_pool(self, pool: Pool, idle: float) -> bool:
        """
        Release a pool whose network is gone, without a call of the engine.

        :param idle: seconds for which the engine must not have mentioned the pool.
        :return: whether it was released; not if it has changed, or the engine has mentioned it.
        """
        return await self._release(
            pool.pool_id,
            lambda current: current is pool and self._calls.last_seen.idle_for(pool.pool_id) >= idle,
        )
