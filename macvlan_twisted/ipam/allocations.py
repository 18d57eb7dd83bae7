"""Allocates and releases addresses, in memory and on disk together."""

from __future__ import annotations

from collections.abc import Callable

from twisted.logger import Logger

from ..addresses import IPAddress
from ..dhcp.leases import Leases
from ..errors import StateError
from ..keyed_lock import KeyedLock
from ..state.interfaces import Allocation
from .endpoint_claims import EndpointClaims
from .fleet_addresses import FleetAddresses
from .pool import Pool, pool_released_error
from .pool_registry import PoolRegistry
from .previous_owners import PreviousOwners
from .requests import Purpose, ReleaseAddress
from .selection import AddressSelection, in_use_error

_log = Logger(namespace="macvlan_twisted.ipam")


class Allocations:
    """:param locks: keyed by pool id, and by pool id and address."""

    def __init__(
        self,
        pools: PoolRegistry,
        locks: KeyedLock,
        leases: Leases,
        selection: AddressSelection,
        owners: PreviousOwners,
        claims: EndpointClaims,
        fleet: FleetAddresses,
    ) -> None:
        self._pools = pools
        self._locks = locks
        self._leases = leases
        self._selection = selection
        self._owners = owners
        self._claims = claims
        self._fleet = fleet
        self._granting: set[tuple[str, int]] = set()
        """Pool id and number: containers' addresses whose request is not answered yet."""

    async def allocate(self, pool: Pool, allocation: Allocation, advances: bool) -> None:
        """
        Allocate an address that was selected before.

        :param advances: whether the next search for a free address starts after this one.
        :raises AddressInUse: another host answered meanwhile for a container's address; nothing is allocated then.
        :raises AddressTaken: another container got the address while the fleet was asked.
        :raises ClaimedElsewhere: another host of the fleet has the address.
        :raises RequestRefused: the pool was released meanwhile.
        :raises StateError: the disk refuses; nothing is allocated then.
        """
        with self._fleet.allocating(pool, allocation.address):
            await self._allocate(pool, allocation, advances)

    async def _allocate(self, pool: Pool, allocation: Allocation, advances: bool) -> None:
        if allocation.purpose == Purpose.ENDPOINT.value:
            granted = (pool.pool_id, int(allocation.address))
            self._granting.add(granted)
            try:
                await self._fleet.claim(pool, allocation.address, allocation.name)
                await self._allocate_now(pool, allocation, advances)
                await self._refuse_noticed(pool, allocation.address)
            finally:
                self._granting.discard(granted)
            return
        if allocation.purpose == Purpose.HOST.value:
            await self._fleet.claim(pool, allocation.address)
        else:
            await self._fleet.share(pool, allocation.address)
        # Another request may reserve the address while it is being released: the release would then erase the new row.
        async with self._locks.acquire(f"{pool.pool_id} {int(allocation.address)}"):
            await self._allocate_now(pool, allocation, advances)

    async def _allocate_now(self, pool: Pool, allocation: Allocation, advances: bool) -> None:
        """Change the memory first, so that no parallel call chooses the address, then wait for the disk."""
        if pool.pool_id not in self._pools.by_id:
            self._selection.release(pool, allocation.address, pool.shared_set)
            raise pool_released_error(pool)
        if allocation.purpose == Purpose.ENDPOINT.value and self._fleet.takes_part(pool):
            # While the fleet was asked, another container may have got the address.
            self._selection.refuse_taken(pool, allocation.address, Purpose.ENDPOINT)
        shared, number = self._pools.set_of(pool), int(allocation.address)
        was_allocated = shared.holds(pool.pool_id, number)
        shared.add(pool.pool_id, number, Purpose(allocation.purpose), allocation.is_chosen)
        if allocation.purpose == Purpose.AUXILIARY.value and not was_allocated:
            shared.unconfirmed.add((pool.pool_id, number))
        if allocation.purpose != Purpose.ENDPOINT.value:
            self._selection.reserved(pool, allocation.address)
        forgotten_cursors = self._pools.advance(pool, number) if advances else ()
        forgotten_names = self._owners.allocated(allocation, had_before=not advances)
        try:
            await self._pools.save_allocation(
                pool,
                allocation,
                advances,
                forgotten_names,
                forgotten_cursors,
                self._owners.forgotten_returns(pool.pool_id),
            )
        except BaseException:
            if not was_allocated:
                shared.remove(pool.pool_id, number)
                self._owners.not_allocated(allocation)
                self._selection.release(pool, allocation.address)
            raise
        if allocation.purpose == Purpose.ENDPOINT.value:
            self._claims.allocated(pool.pool_id, number)
        self._fleet.allocated(pool, allocation.address)

    async def _refuse_noticed(self, pool: Pool, address: IPAddress) -> None:
        user = self._selection.noticed(pool, address)
        if user is not None:
            async with self._locks.acquire(f"{pool.pool_id} {int(address)}"):
                if pool.pool_id in self._pools.by_id:
                    await self._release_lost(pool, address)
            raise in_use_error(pool, address, user)

    async def _release_lost(self, pool: Pool, address: IPAddress) -> None:
        try:
            await self._release_now(pool, address, may_return=False)
        except StateError:  # the reconciler tries again
            self._claims.begin_pending(pool.pool_id, int(address), had_endpoint=True)

    def is_only_named(self, pool: Pool, address: IPAddress) -> bool:
        """Whether *address* is allocated to a container that asked for it, and has no endpoint of ours."""
        shared, number = self._pools.set_of(pool), int(address)
        return (
            shared.is_endpoint_of(pool.pool_id, number)
            and number not in shared.chosen.get(pool.pool_id, ())
            and self._claims.user(pool.pool_id, number) is None
        )

    async def confirm_purpose(self, pool: Pool, address: IPAddress, is_auxiliary: bool) -> None:
        """
        Make a requested address an auxiliary one, or a container's: CreateNetwork lists the auxiliary ones.

        Succeeds when the pool has no such address.

        :raises StateError: the disk refuses; the address is what it was.
        """
        async with self._locks.acquire(f"{pool.pool_id} {int(address)}"):
            if pool.pool_id not in self._pools.by_id:
                return
            shared, number = self._pools.set_of(pool), int(address)
            was_auxiliary = pool.pool_id in shared.reserved.get(number, ())
            if not shared.holds(pool.pool_id, number) or was_auxiliary == is_auxiliary:
                shared.unconfirmed.discard((pool.pool_id, number))
                return
            purpose = Purpose.AUXILIARY if is_auxiliary else Purpose.ENDPOINT
            if is_auxiliary:
                await self._fleet.share(pool, address)
            else:
                await self._fleet.claim(pool, address)
            await self._pools.save_allocation(
                pool, Allocation(pool.pool_id, address, purpose.value), False, (), ()
            )
            shared.remove(pool.pool_id, number)
            shared.add(pool.pool_id, number, purpose)
            if is_auxiliary:
                self._claims.end_pending(pool.pool_id, number)
                self._selection.reserved(pool, address)
            else:
                self._claims.begin_pending(pool.pool_id, number)

    async def release(
        self, request: ReleaseAddress, is_due: Callable[[], bool], may_return: bool = False
    ) -> bool:
        """
        Release an address.

        :param is_due: called with the lock held; returns whether to release the address after all.
        :param may_return: whether its container may have it back.
        :return: whether there was anything to release.
        """
        number = int(request.address)
        while (pool := await self._open_pool(request.pool_id)) is not None:
            if request.address.version != pool.prefix.version:
                return False
            shared = self._pools.set_of(pool)
            if pool.rebuilt_for - len(pool.released_ids) > 1 and not shared.is_endpoint_address(number):
                return False  # each of its networks reserves the address, which is released with the last of them
            # A repeated release must not release the address of its next owner.
            if (pool.pool_id, number) in self._granting:
                return False
            async with self._locks.acquire(f"{pool.pool_id} {number}"):
                if pool.pool_id in self._pools.by_id:
                    if not shared.is_releasable(pool.pool_id, number) or not is_due():
                        return False
                    await self._release_now(pool, request.address, may_return)
                    return True
        return False

    async def _open_pool(self, pool_id: str) -> Pool | None:
        """The pool. If it is about to be released, wait: if that fails, it is open again."""
        pool = self._pools.find(pool_id)
        if pool is None:
            async with self._locks.acquire(pool_id):
                pool = self._pools.by_id.get(pool_id)
        return pool

    async def _release_now(self, pool: Pool, address: IPAddress, may_return: bool) -> None:
        """The caller holds the address's lock."""
        shared, number = self._pools.set_of(pool), int(address)
        if pool.dhcp:
            await self._leases.release_address(pool.lan_parent, address)
        is_chosen = may_return and number in shared.chosen.get(pool.pool_id, ())
        returned = self._owners.returns(pool.pool_id, address, is_chosen)
        forgotten = self._owners.forgotten_returns(pool.pool_id)
        await self._pools.erase_allocation(pool.pool_id, address, returned, forgotten)
        self._owners.released(pool.pool_id, address, returned is not None)
        shared.remove(pool.pool_id, number)
        self._claims.released(pool.pool_id, number)
        self._fleet.released(pool, address)
        self._selection.release(pool, address)
        _log.debug("address {address}: released to pool {pool}", address=address, pool=pool.described())

    async def release_all(self, pool: Pool) -> None:
        """Release the addresses of a released pool: after some errors the engine does not release them itself."""
        addresses = sorted(self._pools.set_of(pool).endpoints.get(pool.pool_id, ()))
        self._claims.pool_released(pool.pool_id)
        self._owners.forget_pool(pool.pool_id)
        self._selection.close(pool)
        for address in self._pools.reserved_by(pool):  # the host's own, if the network was not created
            self._selection.release(pool, address)
        self._pools.remove(pool)
        for number in addresses:
            address = pool.address(number)
            self._selection.release(pool, address)
            self._fleet.released(pool, address)
            if pool.dhcp:
                await self._release_lease(pool, address)

    async def _release_lease(self, pool: Pool, address: IPAddress) -> None:
        """Release a lease of a released pool. A failure must not prevent the release of the others."""
        try:
            await self._leases.release_address(pool.lan_parent, address)
        except StateError as failure:
            # Cause: releasing the lease or writing the state failed. Remedy: see the reason in the line; nothing else
            # is needed.
            _log.error(
                "address {address}: cannot release its DHCP lease, which expires by itself ({reason})",
                address=address,
                reason=str(failure),
            )
