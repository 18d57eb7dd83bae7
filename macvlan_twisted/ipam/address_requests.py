"""Handles the calls RequestAddress and ReleaseAddress."""

from __future__ import annotations

from ipaddress import IPv4Address

from twisted.logger import Logger

from ..addresses import IPAddress, IPInterface
from ..dhcp.leases import Leases
from ..dhcp.store import Terms
from ..display_names import DisplayNames
from ..errors import NotFound, RequestRefused
from ..last_seen import LastSeen
from ..option_values import IdentitySource
from ..state.interfaces import Allocation
from .address_use import PreviousRuns
from .allocations import Allocations
from .fleet_addresses import ClaimedElsewhere
from .fleet_share import refuse_other_share
from .identity import MacPolicy
from .new_pools import AddressPurposes, RequestedAddress
from .pool import Pool
from .pool_registry import PoolRegistry
from .requests import Purpose, ReleaseAddress, RequestAddress
from .selection import AddressInUse, AddressSelection, AddressTaken

_log = Logger(namespace="macvlan_twisted.ipam")

_MOST_LOST = 8
"""How many addresses a request may lose to other hosts between their allocation and its reply."""


class AddressRequests:
    """:param last_seen: when the engine last mentioned each pool, by id."""

    def __init__(
        self,
        pools: PoolRegistry,
        purposes: AddressPurposes,
        allocations: Allocations,
        selection: AddressSelection,
        containers: ContainerAddresses,
        last_seen: LastSeen,
    ) -> None:
        self._pools = pools
        self._purposes = purposes
        self._allocations = allocations
        self._selection = selection
        self._containers = containers
        self._last_seen = last_seen

    async def request_address(self, request: RequestAddress) -> IPInterface:
        with self._last_seen.call(request.pool_id):
            return await self._request_address(request)

    async def _request_address(self, request: RequestAddress) -> IPInterface:
        pool = self._pools.find(request.pool_id)
        if pool is None:
            raise NotFound(
                f"pool {request.pool_id!r} is not known to the plugin (its state was lost): remove the "
                "network and create it again, or stop the plugin and start it once with --recover"
            )
        requested = await self._purposes.of(request, pool)
        if requested.purpose is Purpose.ENDPOINT or requested.address is None:
            address = await self._containers.allocate(pool, requested, request.endpoint_name)
        else:
            address = requested.address
            self._selection.refuse_outside(pool, address, requested.purpose)
            self._selection.refuse_taken(pool, address, requested.purpose)
            allocation = Allocation(pool.pool_id, address, requested.purpose.value)
            await self._allocations.allocate(pool, allocation, advances=False)
            _log_allocated(pool, address, requested.purpose.value, request.endpoint_name)
        return pool.with_length(address)

    async def release_address(self, request: ReleaseAddress) -> None:
        """Succeeds when there is nothing to release."""
        self._last_seen.note(request.pool_id)
        await self._allocations.release(request, lambda: True, may_return=True)


class ContainerAddresses:
    """Allocates an address to a container: the requested one, the one that it had before, a free one, or one leased by DHCP."""

    def __init__(
        self,
        allocations: Allocations,
        selection: AddressSelection,
        previous_runs: PreviousRuns,
        macs: MacPolicy,
        leases: Leases,
        names: DisplayNames,
    ) -> None:
        self._allocations = allocations
        self._selection = selection
        self._previous_runs = previous_runs
        self._macs = macs
        self._leases = leases
        self._names = names

    async def allocate(self, pool: Pool, requested: RequestedAddress, name: str) -> IPAddress:
        """
        :param name: of the container; empty if the engine does not send it.
        :raises RequestRefused: the requested address is not available, or there is none.
        :raises StateError: the disk refuses.
        """
        stored_name = self._previous_runs.stored_name(pool, name)
        if pool.dhcp and not requested.is_checked:
            address = await self._lease(pool, requested.address, stored_name)
        else:
            address = await self._select(pool, requested, stored_name)
        self._names.address_requested(pool.pool_id, int(address), name)
        return address

    async def _select(self, pool: Pool, requested: RequestedAddress, name: str) -> IPAddress:
        address = requested.address
        if name:
            await self._previous_runs.release(pool, name, address)
        if address is not None:
            self._refuse_unavailable(pool, address)
            if not requested.is_checked:  # else it may still turn out to be an auxiliary address
                refuse_other_share(pool, address)
                await self._selection.refuse_used_by_others(pool, address, container=name)
            await self._allocate(pool, address, name, is_chosen=False, advances=False)
            return address
        lost = 0
        while True:
            address, advances = await self._selection.previous(pool, name), False
            if address is None:
                address, advances = await self._selection.next(pool), True
            try:
                await self._allocate(pool, address, name, is_chosen=not name, advances=advances)
                return address
            except (
                AddressInUse,
                AddressTaken,
                ClaimedElsewhere,
            ):  # another host or container got it meanwhile
                lost += 1
                if lost == _MOST_LOST:
                    raise

    async def _allocate(
        self, pool: Pool, address: IPAddress, name: str, *, is_chosen: bool, advances: bool
    ) -> None:
        mac = self._macs.mac_for_name(pool, name)
        stored_name = "" if pool.identity == IdentitySource.RANDOM else name
        allocation = Allocation(pool.pool_id, address, Purpose.ENDPOINT.value, stored_name, mac, is_chosen)
        await self._allocations.allocate(pool, allocation, advances)
        _log_allocated(pool, address, Purpose.ENDPOINT.value, name)

    def _refuse_unavailable(self, pool: Pool, address: IPAddress) -> None:
        self._selection.refuse_outside(pool, address, Purpose.ENDPOINT)
        self._selection.refuse_taken(pool, address, Purpose.ENDPOINT)

    async def _lease(self, pool: Pool, requested: IPAddress | None, name: str) -> IPAddress:
        """
        Lease an address from the DHCP server, and allocate it here, so that it is released with the pool.

        :raises RequestRefused: no server leases an address, or it leases another one than requested, or one outside the pool.
        """
        if requested is not None:
            self._refuse_unavailable(pool, requested)
        terms = Terms(
            pool.lan_parent,
            self._mac_for_lease(pool, name),
            hostname=name,
            vendor_class=pool.dhcp_vendor_class,
            release=pool.dhcp_release,
            conflict_detection=pool.conflict_detection,
        )
        binding = await self._leases.acquire(terms, requested if isinstance(requested, IPv4Address) else None)
        address = binding.address
        if address not in pool.prefix:
            await self._leases.release(pool.lan_parent, binding.mac)
            raise RequestRefused(
                f"DHCP server {binding.server_id} on {pool.lan_parent} leases {address}, which is not in "
                f"--subnet {pool.prefix}: create the network with the subnet of that LAN, or without "
                "--subnet"
            )
        try:
            await self._allocations.allocate(
                pool, Allocation(pool.pool_id, address, Purpose.ENDPOINT.value), advances=False
            )
        except BaseException:
            await self._leases.release_address(pool.lan_parent, address)
            raise
        _log_allocated(pool, address, f"DHCP, {Purpose.ENDPOINT.value}", name)
        return address

    def _mac_for_lease(self, pool: Pool, name: str) -> str:
        """The MAC made from *name*, or a random one if another lease uses that: a renamed container may still run under it."""
        mac = self._macs.mac_for_lease(pool, name)
        if not self._leases.has(pool.lan_parent, mac):
            return mac
        _log.info(
            "container {container}: does not get its previous MAC, because its lease under {mac} is not released yet",
            container=name,
            mac=mac,
        )
        return self._macs.mac_for_lease(pool, "")


def _log_allocated(pool: Pool, address: IPAddress, purpose: str, name: str) -> None:
    """:param name: the container's; empty if it is unknown."""
    _log.debug(
        "address {address}: allocated from pool {pool} ({purpose})",
        address=address,
        pool=pool.described(),
        purpose=f"{purpose} of container {name}" if name else purpose,
        **({"container": name} if name else {}),
    )
