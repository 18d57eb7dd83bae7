"""
When the prefetch of a pool begins: soon after RequestPool, at the start of the service, and when a parent is usable again.

CreateNetwork and RequestAddress do not wait for their turn here: they begin it at once
(:meth:`~macvlan_twisted.ipam.selection.AddressSelection.prepare`).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from twisted.internet.defer import ensureDeferred
from twisted.logger import Logger

from .pool import Pool
from .pool_registry import PoolRegistry
from .selection import AddressSelection

_log = Logger(namespace="macvlan_twisted.ipam")

SOON = 0.05
"""
Seconds from RequestPool to the first probe. An engine names the gateway, which is not to be probed, and creates the network,
which may have another parent, within a few milliseconds.
"""
POOLS_AT_ONCE = 8
"""How many pools are prefetched in parallel. Each probes as many addresses at most, so hundreds of pools do not flood a LAN."""


class PrefetchQueue:
    """:param clock: ``IReactorTime``"""

    def __init__(self, pools: PoolRegistry, selection: AddressSelection, clock: Any) -> None:
        self._pools = pools
        self._selection = selection
        self._clock = clock
        self._soon: dict[str, Any] = {}
        """By pool id: the delayed call."""
        self._waiting: dict[str, None] = {}
        """Pool ids, in the order in which their turns come."""
        self._running = 0

    def opened(self, pool: Pool) -> None:
        """RequestPool is about to be answered: prefetch soon."""
        self._soon[pool.pool_id] = self._clock.callLater(SOON, self._opened_a_while_ago, pool.pool_id)

    def released(self, pool_id: str) -> None:
        """Succeeds when the pool does not wait."""
        self._waiting.pop(pool_id, None)
        call = self._soon.pop(pool_id, None)
        if call is not None:
            call.cancel()

    def prepare_all(self) -> None:
        """At start: prefetch in all pools."""
        self._add(self._pools.by_id)

    def prepare_on(self, parent: str) -> None:
        """*parent* is usable: prefetch in its pools where that was not possible before."""
        self._add(
            pool.pool_id
            for pool in self._pools.by_id.values()
            if pool.lan_parent == parent and self._selection.was_inconclusive(pool)
        )

    def stop(self) -> None:
        """Begin no other prefetch, and leave no delayed call behind. The probes that run end with conflict detection."""
        self._waiting.clear()
        for pool_id in list(self._soon):
            self.released(pool_id)
        self._selection.stop()

    def _opened_a_while_ago(self, pool_id: str) -> None:
        del self._soon[pool_id]
        self._add([pool_id])

    def _add(self, pool_ids: Iterable[str]) -> None:
        self._waiting.update(dict.fromkeys(pool_ids))
        while self._waiting and self._running < POOLS_AT_ONCE:
            self._running += 1
            ensureDeferred(self._run()).addErrback(
                lambda failure: _log.failure("address prefetch: failed", failure=failure)
            )

    async def _run(self) -> None:
        """Prefetch in one pool after the other until none waits."""
        try:
            while self._waiting:
                pool_id = next(iter(self._waiting))
                del self._waiting[pool_id]
                if pool_id in self._pools.by_id:
                    await self._selection.prepare_and_wait(self._pools.by_id[pool_id])
        finally:
            self._running -= 1
