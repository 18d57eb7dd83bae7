"""Allocates addresses and releases them, in memory and on disk together."""

from __future__ import annotations

from collections.abc import Callable

from twisted.logger import Logger

from ..addresses import IPAddress
from ..errors import StateError
from ..keyed_lock import KeyedLock
from ..state.interfaces import Allocation, StickyAddress
from .dhcp_pools import DhcpPools
from .pending_addresses import PendingAddresses
from .pool import Pool
from .pool_registry import PoolRegistry
from .prefetch import released_meanwhile
from .requests import Purpose, ReleaseAddress
from .selection import AddressSelection
from .sticky_addresses import StickyAddresses

_log = Logger(namespace="macvlan_twisted.ipam")


class Allocations:
    """:param locks: of pools by their ids, and of addresses."""

    def __init__(
        self,
        pools: PoolRegistry,
        locks: KeyedLock,
        dhcp_pools: DhcpPools,
        selection: AddressSelection,
        sticky_addresses: StickyAddresses,
        pending: PendingAddresses,
    ) -> None:
        self._pools = pools
        self._locks = locks
        self._dhcp_pools = dhcp_pools
        self._selection = selection
        self._sticky_addresses = sticky_addresses
        self._pending = pending

    async def take(self, pool: Pool, allocation: Allocation, advances: bool) -> None:
        """:param advances: whether the pool goes on from there with what it hands out by itself."""
        if allocation.purpose == Purpose.ENDPOINT.value:
            await self._take_at_once(pool, allocation, advances)
            return
        # What is reserved may be asked for again while it is being released, which would then forget what is on disk.
        async with self._locks.acquire(f"{pool.pool_id} {int(allocation.address)}"):
            await self._take_at_once(pool, allocation, advances)

    async def _take_at_once(self, pool: Pool, allocation: Allocation, advances: bool) -> None:
        """In memory at once, so that no parallel call picks it; the caller goes on when it is on disk."""
        if pool.pool_id not in self._pools.by_id:
            self._selection.release(pool, allocation.address, pool.shared_set)
            raise released_meanwhile(pool)
        shared, number = self._pools.set_of(pool), int(allocation.address)
        held_before = shared.holds(pool.pool_id, number)
        shared.add(pool.pool_id, number, Purpose(allocation.purpose))
        if allocation.purpose != Purpose.ENDPOINT.value:
            self._selection.reserved(pool, allocation.address)
        forgotten = self._pools.advance(pool, number) if advances else ()
        ended: tuple[str, ...] = ()
        if allocation.name:
            ended = self._sticky_addresses.note(
                StickyAddress(pool.pool_id, allocation.name, allocation.address, allocation.mac)
            )
        elif allocation.purpose == Purpose.ENDPOINT.value:
            ended = self._sticky_addresses.forget_address(pool.pool_id, allocation.address)
        try:
            await self._pools.store_allocation(pool, allocation, advances, ended, forgotten)
        except BaseException:
            if not held_before:
                shared.remove(pool.pool_id, number)
                self._selection.release(pool, allocation.address)
            raise
        if allocation.purpose == Purpose.ENDPOINT.value:
            self._pending.begin(pool.pool_id, number)

    async def release(self, request: ReleaseAddress, is_to_be: Callable[[], bool]) -> bool:
        """
        :param is_to_be: asked when its turn has come.
        :return: whether there was anything to release.
        """
        pool = self._pools.find(request.pool_id)
        if pool is None:
            async with self._locks.acquire(
                request.pool_id
            ):  # if it is just being released, that may fail yet
                pool = self._pools.by_id.get(request.pool_id)
        if pool is None:
            return False
        shared = self._pools.set_of(pool)
        number = int(request.address)
        if pool.stands_for - len(pool.given_back) > 1 and not shared.is_endpoints(number):
            return False  # each of its networks reserves it, and it goes with the last of them
        # A second release must not free the next owner's.
        async with self._locks.acquire(f"{pool.pool_id} {number}"):
            if pool.pool_id not in self._pools.by_id or not shared.is_releasable(pool.pool_id, number):
                return False
            if not is_to_be():
                return False
            if pool.dhcp:
                await self._dhcp_pools.give_back(pool, request.address)
            await self._pools.erase_allocation(pool.pool_id, request.address)
            shared.remove(pool.pool_id, number)
            self._pending.end(pool.pool_id, number)
            self._selection.release(pool, request.address)
        _log.info(
            "address released: {address} of pool {pool}", address=request.address, pool=pool.described()
        )
        return True

    async def release_all(self, pool: Pool) -> None:
        """What was taken in a pool that is no more; the engine leaves addresses behind after some errors."""
        left = sorted(self._pools.set_of(pool).endpoints.get(pool.pool_id, ()))
        self._pending.end_pool(pool.pool_id)
        self._sticky_addresses.forget_pool(pool.pool_id)
        self._selection.close(pool)
        for address in self._pools.reserved_by(pool):  # the host's, whose network was not made
            self._selection.release(pool, address)
        self._pools.remove(pool)
        for number in left:
            address = type(pool.prefix.network_address)(number)
            self._selection.release(pool, address)
            if pool.dhcp:
                await self._give_back(pool, address)

    async def _give_back(self, pool: Pool, address: IPAddress) -> None:
        """The pool is gone, and its other leases are to be given back, too."""
        try:
            await self._dhcp_pools.give_back(pool, address)
        except StateError as failure:
            _log.error("the lease of {address}: {reason}", address=address, reason=str(failure))
