"""The engine's calls about addresses: RequestAddress and ReleaseAddress."""

from __future__ import annotations

from twisted.logger import Logger

from ..addresses import IPAddress, IPInterface
from ..config import Config
from ..errors import NotFound, RequestRefused
from ..last_seen import LastSeen
from ..option_values import IdentitySource
from ..state.interfaces import Allocation
from .allocations import Allocations
from .allocator import usable_span
from .dhcp_pools import DhcpPools
from .mac_policy import MacPolicy
from .owners import IsInUse, Unowned
from .pending_addresses import PendingAddresses
from .pool import Pool
from .pool_registry import PoolRegistry
from .requests import Purpose, ReleaseAddress, RequestAddress
from .selection import AddressSelection
from .sticky_addresses import StickyAddresses

_log = Logger(namespace="macvlan_twisted.ipam")


class AddressRequests:
    """:param heard: when the engine last spoke of a pool."""

    def __init__(
        self,
        config: Config,
        pools: PoolRegistry,
        claims: Allocations,
        dhcp_pools: DhcpPools,
        macs: MacPolicy,
        selection: AddressSelection,
        sticky_addresses: StickyAddresses,
        pending: PendingAddresses,
        last_seen: LastSeen,
    ) -> None:
        self._config = config
        self._pools = pools
        self._claims = claims
        self._dhcp_pools = dhcp_pools
        self._macs = macs
        self._selection = selection
        self._sticky_addresses = sticky_addresses
        self._pending = pending
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
        purpose = self._purpose_of(request, pool)
        if purpose is Purpose.ENDPOINT:
            self._pools.being_made.pop(pool.pool_id, None)
        if purpose is Purpose.ENDPOINT and pool.dhcp:
            return await self._leased(pool, request)
        address = request.address
        if purpose is Purpose.GATEWAY and address is None:
            address = await self._gateway_to_make_up(pool)
        advances = False
        if address is None:
            address = await self._again(pool, request.endpoint_name)
            if address is None:
                address, advances = await self._selection.next(pool), True
        else:
            self._selection.refuse_outside(pool, address, purpose)
            self._selection.refuse_taken(pool, address, purpose)
            if purpose is Purpose.ENDPOINT:
                await self._selection.refuse_used_by_others(pool, address)
        name = mac = ""
        if purpose is Purpose.ENDPOINT and pool.identity != IdentitySource.RANDOM:
            name = request.endpoint_name
            mac = self._macs.named(pool, name, self._sticky_addresses, self._pools)
        claim = Allocation(pool.pool_id, address, purpose.value, name, mac)
        await self._claims.take(pool, claim, advances)
        if purpose is Purpose.AUXILIARY and pool.pool_id in self._pools.being_made:
            self._pools.being_made[pool.pool_id].add(address)
        _log.info(
            "address allocated: {address} of pool {pool} as {purpose}{name}",
            address=address,
            pool=pool.described(),
            purpose=purpose.value,
            name=f" for {request.endpoint_name}" if request.endpoint_name else "",
        )
        return pool.with_length(address)

    def _purpose_of(self, request: RequestAddress, pool: Pool) -> Purpose:
        """
        The engine does not say of an auxiliary address that it is one. But all of them come before the
        network is made, and none of a container's does.
        """
        if request.purpose is Purpose.GATEWAY:
            return Purpose.GATEWAY
        if request.address is None or request.endpoint_name or pool.pool_id not in self._pools.being_made:
            return Purpose.ENDPOINT
        return Purpose.AUXILIARY

    async def _gateway_to_make_up(self, pool: Pool) -> IPAddress:
        """Engines before 28 ask for a gateway when the user named none: the LAN's own, else the first."""
        gateway = self._config.gateway_for(pool.prefix)
        if gateway is None and pool.dhcp:
            gateway = await self._dhcp_pools.router(pool)
        if gateway is not None:
            return gateway
        return type(pool.prefix.network_address)(usable_span(pool.prefix).first)

    async def _again(self, pool: Pool, name: str) -> IPAddress | None:
        """The address that the container of this name had before, if nobody else has it."""
        before = (
            self._sticky_addresses.of_name(pool.pool_id, name)
            if name and pool.identity != IdentitySource.RANDOM
            else None
        )
        if before is None or not self._selection.hands_out(pool, before.address):
            return None  # it was asked for with --ip, and is not to be handed out by itself
        try:
            self._selection.refuse_taken(pool, before.address, Purpose.ENDPOINT)
            await self._selection.refuse_used_by_others(pool, before.address)
        except RequestRefused as refused:
            _log.info("{name} gets another address than before: {reason}", name=name, reason=str(refused))
            return None
        return before.address

    async def _leased(self, pool: Pool, request: RequestAddress) -> IPInterface:
        """The LAN's own server decides; what it leases is taken here, too, so that it is given back with the pool."""
        address = await self._dhcp_pools.take(pool, request)
        try:
            await self._claims.take(
                pool, Allocation(pool.pool_id, address.ip, Purpose.ENDPOINT.value), advances=False
            )
        except BaseException:
            await self._dhcp_pools.give_back(pool, address.ip)
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
        await self._claims.release(request, lambda: True)

    async def release_unowned(self, unowned: Unowned, is_in_use: IsInUse) -> bool:
        """
        Give an address back that nobody has, without having been asked to.

        :return: whether it was; else it has been given back, or handed out anew, meanwhile.
        """

        def is_as_it_was() -> bool:
            since = self._pending.since(unowned.pool_id, int(unowned.address))
            owner = self._pools.by_id[unowned.pool_id].network_id
            return since == unowned.since and owner is not None and not is_in_use(owner, unowned.address)

        return await self._claims.release(ReleaseAddress(unowned.pool_id, unowned.address), is_as_it_was)

    def is_endpoints(self, parent: str, address: IPAddress) -> bool:
        """Whether *address* was handed out on *parent*, and not released."""
        return self._pools.is_allocated(parent, address)

    def mac_for(self, parent: str, address: IPAddress) -> str | None:
        """The MAC that goes with an address of ours on *parent*, where it is not made of the address."""
        pool = self._pools.of_endpoint(parent, address)
        if pool is None:
            return None
        identity = self._sticky_addresses.of_address(pool.pool_id, address)
        return self._macs.of(pool, identity.mac if identity is not None else "")
