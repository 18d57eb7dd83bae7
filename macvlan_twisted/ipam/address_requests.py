"""Handles the calls RequestAddress and ReleaseAddress."""

from __future__ import annotations

from functools import partial

from twisted.logger import Logger

from ..addresses import IPAddress, IPInterface
from ..errors import NotFound
from ..lan.address_probe import Evidence, Free, Taken
from ..last_seen import LastSeen
from ..option_values import ConflictDetection, IdentitySource
from ..state.interfaces import Allocation
from .allocations import Allocations
from .allocator import usable_span
from .dhcp_pools import DhcpPools
from .former_lives import FormerLives
from .last_addresses import LastAddresses
from .mac_policy import MacPolicy
from .new_pools import NewPools
from .pool import Pool
from .pool_registry import PoolRegistry
from .prefetch import pool_released_error
from .requests import Purpose, ReleaseAddress, RequestAddress
from .returned import ReturnedAddresses
from .selection import AddressSelection, in_use_error

_log = Logger(namespace="macvlan_twisted.ipam")


class AddressRequests:
    """:param last_seen: when the engine last mentioned each pool, by id."""

    def __init__(
        self,
        pools: PoolRegistry,
        new_pools: NewPools,
        allocations: Allocations,
        dhcp_pools: DhcpPools,
        macs: MacPolicy,
        selection: AddressSelection,
        returned: ReturnedAddresses,
        former_lives: FormerLives,
        last_addresses: LastAddresses,
        last_seen: LastSeen,
    ) -> None:
        self._pools = pools
        self._new_pools = new_pools
        self._allocations = allocations
        self._dhcp_pools = dhcp_pools
        self._macs = macs
        self._selection = selection
        self._returned = returned
        self._former_lives = former_lives
        self._last_addresses = last_addresses
        self._last_seen = last_seen

    async def request_address(self, request: RequestAddress) -> IPInterface:
        with self._last_seen.call(request.pool_id):
            return await self._request_address(request)

    async def _request_address(self, request: RequestAddress) -> IPInterface:
        pool = self._pools.find(request.pool_id)
        if pool is None:
            raise NotFound(
                f"pool {request.pool_id!r} is not known to the plugin: its state was removed; remove the network and "
                "create it again"
            )
        purpose, is_checked = await self._purpose_of(request, pool)
        if purpose is Purpose.ENDPOINT and pool.dhcp and not is_checked:
            return await self._lease(pool, request)
        address = request.address
        if purpose is Purpose.GATEWAY and address is None:
            address = await self._choose_gateway(pool)
        if purpose is Purpose.ENDPOINT and request.endpoint_name:
            await self._former_lives.end(pool, request.endpoint_name, address)
        advances = False
        is_chosen = address is None and not request.endpoint_name
        if address is None:
            address = await self._previous(pool, request.endpoint_name)
            if address is None:
                address, advances = await self._selection.next(pool), True
        else:
            self._selection.refuse_outside(pool, address, purpose)
            self._selection.refuse_taken(pool, address, purpose)
            if purpose is Purpose.ENDPOINT and not is_checked:
                await self._selection.refuse_used_by_others(pool, address)
        name = mac = ""
        if purpose is Purpose.ENDPOINT and pool.identity != IdentitySource.RANDOM:
            name = request.endpoint_name
            mac = self._macs.mac_for_name(pool, name)
        allocation = Allocation(pool.pool_id, address, purpose.value, name, mac, is_chosen)
        await self._allocations.allocate(pool, allocation, advances)
        _log.info(
            "address allocated: {address} of pool {pool} as {purpose}{name}",
            address=address,
            pool=pool.described(),
            purpose=purpose.value,
            name=f" for {request.endpoint_name}" if request.endpoint_name else "",
        )
        return pool.with_length(address)

    async def _previous(self, pool: Pool, name: str) -> IPAddress | None:
        """The address that the container had before, as far as that is known and the address is free."""
        if name:
            return await self._selection.previous(pool, name)
        address = self._last_addresses.of_only_absent(pool.pool_id) or self._returned_to(pool.pool_id)
        if address is None:
            return None
        self._returned.take(pool.pool_id, address)
        return await self._selection.again(pool, address, "a container")

    def _returned_to(self, pool_id: str) -> IPAddress | None:
        """The address that was released just now, unless it belongs to another container than the one that requests one."""
        returned = self._returned.only(pool_id)
        if returned is None or self._last_addresses.is_for_another(pool_id, *returned):
            return None
        return returned[0]

    async def _purpose_of(self, request: RequestAddress, pool: Pool) -> tuple[Purpose, bool]:
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
        return await self._purpose_of_named(pool, address)

    async def _purpose_of_named(self, pool: Pool, address: IPAddress) -> tuple[Purpose, bool]:
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

    async def _choose_gateway(self, pool: Pool) -> IPAddress:
        """For engines before 28, which request a gateway if the user named none: the LAN's router, else the first address."""
        gateway = self._selection.default_gateway(pool)
        if gateway is None and pool.dhcp:
            gateway = await self._dhcp_pools.router(pool)
        if gateway is not None:
            return gateway
        return type(pool.prefix.network_address)(usable_span(pool.prefix).first)

    async def _lease(self, pool: Pool, request: RequestAddress) -> IPInterface:
        """Lease an address from the DHCP server, and allocate it here, so that it is released with the pool."""
        if request.address is not None:
            self._selection.refuse_outside(pool, request.address, Purpose.ENDPOINT)
            self._selection.refuse_taken(pool, request.address, Purpose.ENDPOINT)
        address = await self._dhcp_pools.lease(pool, request)
        try:
            await self._allocations.allocate(
                pool, Allocation(pool.pool_id, address.ip, Purpose.ENDPOINT.value), advances=False
            )
        except BaseException:
            await self._dhcp_pools.release(pool, address.ip)
            raise
        _log.info(
            "address allocated: {address} of pool {pool} by DHCP{name}",
            address=address.ip,
            pool=pool.described(),
            name=f" for {request.endpoint_name}" if request.endpoint_name else "",
        )
        return address

    async def release_address(self, request: ReleaseAddress) -> None:
        """Succeeds when there is nothing to release."""
        self._last_seen.note(request.pool_id)
        await self._allocations.release(request, lambda: True, may_return=True)
