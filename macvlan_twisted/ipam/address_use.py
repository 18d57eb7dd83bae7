"""A container starts again under its name, while something that it had before still has its address."""

from __future__ import annotations

from typing import Protocol

from twisted.logger import Logger

from ..addresses import IPAddress
from ..errors import MacvlanError
from ..last_seen import ENGINE_PATIENCE
from ..state.interfaces import StickyAddress
from .allocations import Allocations
from .endpoint_claims import EndpointClaims, PendingAddresses
from .identity import StickyAddresses
from .pool import Pool
from .pool_registry import PoolRegistry
from .requests import ReleaseAddress

_log = Logger(namespace="macvlan_twisted.ipam")


class FormerEndpoints(Protocol):
    """The endpoints, which address management does not know by itself."""

    async def remove_former(self, network_id: str | None, parent: str, address: IPAddress) -> bool:
        """
        Remove the endpoint that has *address*, if no container has its link.

        :param network_id: that of the address; ``None`` if it is not known.
        :return: whether no endpoint has the address any more.
        :raises MacvlanError: the kernel or the disk refuses.
        """


class FormerLives:
    """
    An engine that was not answered for a while forgets an endpoint, and does not send DeleteEndpoint and ReleaseAddress for it. A
    container name is unique in an engine: when it is requested for again, the container of that name before is gone, and if no
    container has its link, it was not merely renamed.
    """

    def __init__(
        self,
        pools: PoolRegistry,
        sticky_addresses: StickyAddresses,
        allocations: Allocations,
        pending: PendingAddresses,
        claims: EndpointClaims,
        endpoints: FormerEndpoints,
    ) -> None:
        self._pools = pools
        self._sticky_addresses = sticky_addresses
        self._allocations = allocations
        self._pending = pending
        self._claims = claims
        self._endpoints = endpoints

    async def end(self, pool: Pool, name: str, address: IPAddress | None) -> None:
        """
        Release the address that container *name* had before, if it is still allocated to it and no container has it.

        :param name: of the container that requests an address; empty if the engine does not send it.
        :param address: the requested one.
        """
        former = self._sticky_addresses.of_name(pool.pool_id, name)
        if (
            former is None
            or address not in (None, former.address)
            or not self._is_allocated(pool, former.address)
        ):
            return
        try:
            await self._end(pool, former)
        except MacvlanError as failure:  # the container gets another address, and the reconciler tries again
            _log.warn(
                "container {name}: address {address} is not released from its former life: {reason}",
                name=name,
                address=former.address,
                reason=str(failure),
            )

    async def _end(self, pool: Pool, former: StickyAddress) -> None:
        number = int(former.address)
        has_endpoint = self._claims.user(pool.pool_id, number) is not None
        if not has_endpoint and not self._pending.is_abandoned(pool.pool_id, number, ENGINE_PATIENCE):
            return  # CreateEndpoint may be about to come
        if not await self._endpoints.remove_former(pool.network_id, pool.lan_parent, former.address):
            return

        def is_unused() -> bool:
            again = self._sticky_addresses.of_address(pool.pool_id, former.address)
            return again is former and self._claims.user(pool.pool_id, number) is None

        if await self._allocations.release(ReleaseAddress(pool.pool_id, former.address), is_unused):
            _log.info(
                "container {name} starts again: address {address} is released from its former life",
                name=former.name,
                address=former.address,
            )

    def _is_allocated(self, pool: Pool, address: IPAddress) -> bool:
        return self._pools.set_of(pool).is_endpoint_of(pool.pool_id, int(address))
