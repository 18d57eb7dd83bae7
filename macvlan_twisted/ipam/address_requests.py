"""Handles the calls RequestAddress and ReleaseAddress."""

from __future__ import annotations

from twisted.logger import Logger

from ..addresses import IPAddress, IPInterface
from ..errors import NotFound
from ..last_seen import LastSeen
from ..option_values import IdentitySource
from ..state.interfaces import Allocation
from .address_use import FormerLives
from .allocations import Allocations
from .allocator import usable_span
from .dhcp_pools import DhcpPools
from .identity import MacPolicy
from .new_pools import AddressPurposes
from .pool import Pool
from .pool_registry import PoolRegistry
from .previous_owners import PreviousOwners
from .requests import Purpose, ReleaseAddress, RequestAddress
from .selection import AddressSelection

_log = Logger(namespace="macvlan_twisted.ipam")


class AddressRequests:
    """:param last_seen: when the engine last mentioned each pool, by id."""

    def __init__(
        self,
        pools: PoolRegistry,
        purposes: AddressPurposes,
        allocations: Allocations,
        dhcp_pools: DhcpPools,
        macs: MacPolicy,
        selection: AddressSelection,
        owners: PreviousOwners,
        former_lives: FormerLives,
        last_seen: LastSeen,
    ) -> None:
        self._pools = pools
        self._purposes = purposes
        self._allocations = allocations
        self._dhcp_pools = dhcp_pools
        self._macs = macs
        self._selection = selection
        self._owners = owners
        self._former_lives = former_lives
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
        purpose, is_checked = await self._purposes.of(request, pool)
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
        address = self._owners.take_for_nameless(pool.pool_id)
        return None if address is None else await self._selection.again(pool, address, "a container")

    async def _choose_gateway(self, pool: Pool) -> IPAddress:
        """For engines before 28, which request a gateway if the user named none: the LAN's router, else the first address."""
        gateway = self._selection.default_gateway(pool)
        if gateway is None and pool.dhcp:
            gateway = await self._dhcp_pools.router(pool)
        if gateway is not None:
            return gateway
        return pool.address(usable_span(pool.prefix).first)

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
