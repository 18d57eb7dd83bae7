"""The engine's calls about addresses: RequestAddress and ReleaseAddress."""

from __future__ import annotations

from twisted.logger import Logger

from ..addresses import IPAddress, IPInterface
from ..errors import NotFound, Refused
from ..heard import Heard
from ..settings import Settings
from ..state.interface import Claim
from .allocation import usable_span
from .awaited import Awaited
from .choosing import Choosing
from .chosen_macs import ChosenMacs
from .claims import Claims
from .identities import Identities
from .leasing import Leasing
from .open_pools import OpenPools
from .owners import IsInUse, Unowned
from .pools import Pool
from .requests import Purpose, ReleaseAddress, RequestAddress

_log = Logger(namespace="macvlan_twisted.ipam")


class AddressCalls:
    """:param heard: when the engine last spoke of a pool."""

    def __init__(
        self,
        settings: Settings,
        pools: OpenPools,
        claims: Claims,
        leasing: Leasing,
        macs: ChosenMacs,
        choosing: Choosing,
        identities: Identities,
        awaited: Awaited,
        heard: Heard,
    ) -> None:
        self._settings = settings
        self._pools = pools
        self._claims = claims
        self._leasing = leasing
        self._macs = macs
        self._choosing = choosing
        self._identities = identities
        self._awaited = awaited
        self._heard = heard

    async def request_address(self, request: RequestAddress) -> IPInterface:
        with self._heard.call(request.pool_id):
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
                address, advances = await self._choosing.next(pool), True
        else:
            self._choosing.refuse_outside(pool, address, purpose)
            self._choosing.refuse_taken(pool, address, purpose)
            if purpose is Purpose.ENDPOINT:
                await self._choosing.refuse_used_by_others(pool, address)
        name = mac = ""
        if purpose is Purpose.ENDPOINT and pool.identity != "random":
            name = request.endpoint_name
            mac = self._macs.named(pool, name, self._identities, self._pools)
        claim = Claim(pool.pool_id, address, purpose.value, name, mac)
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
        gateway = self._settings.gateway_for(pool.prefix)
        if gateway is None and pool.dhcp:
            gateway = await self._leasing.router(pool)
        if gateway is not None:
            return gateway
        return type(pool.prefix.network_address)(usable_span(pool.prefix).first)

    async def _again(self, pool: Pool, name: str) -> IPAddress | None:
        """The address that the container of this name had before, if nobody else has it."""
        before = self._identities.of_name(pool.pool_id, name) if name and pool.identity != "random" else None
        if before is None or not self._choosing.hands_out(pool, before.address):
            return None  # it was asked for with --ip, and is not to be handed out by itself
        try:
            self._choosing.refuse_taken(pool, before.address, Purpose.ENDPOINT)
            await self._choosing.refuse_used_by_others(pool, before.address)
        except Refused as refused:
            _log.info("{name} gets another address than before: {reason}", name=name, reason=str(refused))
            return None
        return before.address

    async def _leased(self, pool: Pool, request: RequestAddress) -> IPInterface:
        """The LAN's own server decides; what it leases is taken here, too, so that it is given back with the pool."""
        address = await self._leasing.take(pool, request)
        try:
            await self._claims.take(
                pool, Claim(pool.pool_id, address.ip, Purpose.ENDPOINT.value), advances=False
            )
        except BaseException:
            await self._leasing.give_back(pool, address.ip)
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
        self._heard.note(request.pool_id)
        await self._claims.release(request, lambda: True)

    async def release_unowned(self, unowned: Unowned, is_in_use: IsInUse) -> bool:
        """
        Give an address back that nobody has, without having been asked to.

        :return: whether it was; else it has been given back, or handed out anew, meanwhile.
        """

        def is_as_it_was() -> bool:
            since = self._awaited.since(unowned.pool_id, int(unowned.address))
            owner = self._pools.by_id[unowned.pool_id].network_id
            return since == unowned.since and owner is not None and not is_in_use(owner, unowned.address)

        return await self._claims.release(ReleaseAddress(unowned.pool_id, unowned.address), is_as_it_was)

    def is_endpoints(self, parent: str, address: IPAddress) -> bool:
        """Whether *address* was handed out on *parent*, and not released."""
        return self._pools.of_endpoint(parent, address) is not None

    def mac_for(self, parent: str, address: IPAddress) -> str | None:
        """The MAC that goes with an address of ours on *parent*, where it is not made of the address."""
        pool = self._pools.of_endpoint(parent, address)
        if pool is None:
            return None
        identity = self._identities.of_address(pool.pool_id, address)
        return self._macs.of(pool, identity.mac if identity is not None else "")
