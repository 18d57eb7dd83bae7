"""What a requested address is for. Engines before 29 do not say, and name auxiliary addresses before the network exists."""

from __future__ import annotations

from functools import partial

from twisted.logger import Logger

from ..addresses import IPAddress
from ..lan.address_probe import Evidence, Free, Taken
from ..option_values import ConflictDetection
from .allocations import Allocations
from .new_pools import NewPools
from .pool import Pool
from .pool_registry import PoolRegistry
from .prefetch import pool_released_error
from .requests import Purpose, ReleaseAddress, RequestAddress
from .selection import AddressSelection, in_use_error

_log = Logger(namespace="macvlan_twisted.ipam")


class AddressPurposes:
    """Decides by what is known of the pool, and by asking the LAN."""

    def __init__(
        self,
        pools: PoolRegistry,
        new_pools: NewPools,
        allocations: Allocations,
        selection: AddressSelection,
    ) -> None:
        self._pools = pools
        self._new_pools = new_pools
        self._allocations = allocations
        self._selection = selection

    async def of(self, request: RequestAddress, pool: Pool) -> tuple[Purpose, bool]:
        """
        What an address is for. Engines do not mark auxiliary addresses, but request all of them before they create the network.

        :return: the purpose, and whether the LAN was asked already.
        :raises RequestRefused: the address is taken, or the pool was released meanwhile.
        """
        pool_id, address = pool.pool_id, request.address
        if request.purpose is Purpose.GATEWAY:
            if address is not None:
                await self._new_pools.wait_for_others(pool_id, address)
                self._refuse_released(pool)
            return Purpose.GATEWAY, False
        if address is None or request.endpoint_name:
            self._new_pools.settled(pool_id)  # the network exists, so it is another driver's
            return Purpose.ENDPOINT, False
        if not self._new_pools.is_young(pool_id):
            self._new_pools.note_named(pool_id, address)
            return Purpose.ENDPOINT, False
        return await self._of_named(pool, address)

    async def _of_named(self, pool: Pool, address: IPAddress) -> tuple[Purpose, bool]:
        """
        What an address is for that is named in a young pool, and asked for on the LAN. If a neighbour has it, it is an
        auxiliary one; else it is a container's, until CreateNetwork says what it is.
        """
        self._selection.refuse_outside(pool, address, Purpose.AUXILIARY)
        await self._new_pools.wait_for_turn(pool.pool_id)
        self._refuse_released(pool)
        if not self._new_pools.is_new(pool.pool_id):
            return Purpose.ENDPOINT, False
        await self._release_forgotten(pool, address)
        self._selection.refuse_taken(pool, address, Purpose.AUXILIARY)
        self._new_pools.note_named(pool.pool_id, address)
        if (
            int(address) in self._pools.set_of(pool).reserved
        ):  # by networks that share their gateway and auxiliary addresses
            return Purpose.AUXILIARY, True
        if pool.conflict_detection == ConflictDetection.OFF:
            return Purpose.ENDPOINT, True
        with self._new_pools.probing(pool.pool_id):
            verdict = await self._selection.hold(pool, address)
        if isinstance(verdict, Taken) and verdict.how is Evidence.OURS:
            raise in_use_error(pool, address, verdict)
        if not isinstance(verdict, Free):
            return Purpose.AUXILIARY, True
        # Its host may be off now, and finds the address in use if we defend it.
        self._selection.release(pool, address, pool.shared_set)
        return Purpose.ENDPOINT, True

    async def _release_forgotten(self, pool: Pool, address: IPAddress) -> None:
        """
        Release *address* in pools that an engine has forgotten: it died in the middle of creating the network, and creates it
        again. Such a pool has no network and no endpoint with the address, and nobody on the LAN answers for it: that tells it
        from the pool of another driver's network, unless conflict detection is off.
        """
        forgotten = [
            each
            for each in self._pools.sharing_with(pool)
            if each.network_id is None and self._allocations.is_only_named(each, address)
        ]
        if not forgotten:
            return
        if pool.conflict_detection != ConflictDetection.OFF:
            verdict = await self._selection.hold(pool, address, may_be_allocated=True)
            self._selection.release(pool, address, pool.shared_set)
            if not isinstance(verdict, Free):
                return
        for each in forgotten:
            _log.info(
                "address {address} of pool {pool}: released, its network was never created",
                address=address,
                pool=each.described(),
            )
            await self._allocations.release(
                ReleaseAddress(each.pool_id, address), partial(self._allocations.is_only_named, each, address)
            )
        self._refuse_released(pool)

    def _refuse_released(self, pool: Pool) -> None:
        if pool.pool_id not in self._pools.by_id:
            raise pool_released_error(pool)
