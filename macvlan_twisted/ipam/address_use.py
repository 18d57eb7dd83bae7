"""
Which allocated addresses are in use: the network driver tells of its endpoints, and what no container has any more is released
without a call of the engine.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Protocol

from attrs import frozen
from twisted.logger import Logger

from ..addresses import IPAddress, IPNetwork
from ..errors import MacvlanError, RequestRefused
from ..last_seen import ENGINE_PATIENCE
from ..state.interfaces import StickyAddress
from .allocations import Allocations
from .endpoint_claims import EndpointClaims
from .identity import StickyAddresses, slot_of_task
from .pool import Pool
from .pool_binding import PoolBinding
from .pool_registry import PoolRegistry
from .previous_owners import PreviousOwners
from .requests import ReleaseAddress
from .selection import AddressSelection

_log = Logger(namespace="macvlan_twisted.ipam")


IsInUse = Callable[[str, IPAddress], bool]
"""Whether a network has an endpoint with an address."""


@frozen
class OrphanedAddress:
    """An allocated container address without an endpoint; equal only to the same allocation of it."""

    pool_id: str
    address: IPAddress
    since: float


class AddressUse:
    """Connects the addresses of the pools with the endpoints of the network driver."""

    def __init__(
        self,
        pools: PoolRegistry,
        claims: EndpointClaims,
        allocations: Allocations,
        selection: AddressSelection,
        owners: PreviousOwners,
        binding: PoolBinding,
    ) -> None:
        self._pools = pools
        self._claims = claims
        self._allocations = allocations
        self._selection = selection
        self._owners = owners
        self._binding = binding
        self._observed: dict[str, str] = {}
        """By pool id: the network in which a new endpoint has an address of the pool."""

    def begin(self, is_in_use: IsInUse) -> None:
        """At start: mark all container addresses without an endpoint as pending."""
        for pool in self._pools.by_id.values():
            if pool.network_id is not None and not pool.is_untracked:
                for number in self._pools.set_of(pool).endpoints.get(pool.pool_id, ()):
                    if not is_in_use(pool.network_id, pool.address(number)):
                        self._claims.begin_pending(pool.pool_id, number)

    def endpoint_requested(
        self, endpoint_id: str, network_id: str, parent: str, addresses: Iterable[tuple[IPNetwork, IPAddress]]
    ) -> None:
        """See :class:`~macvlan_twisted.driver.endpoint_addresses.AddressOwners`."""
        for subnet, address in addresses:
            self._claims.use(endpoint_id, network_id, parent, subnet, address)

    def refuse_noticed(self, endpoint_id: str) -> None:
        """See :class:`~macvlan_twisted.driver.endpoint_addresses.AddressOwners`."""
        for pool_id, number in self._claims.of_endpoint(endpoint_id):
            pool = self._pools.by_id.get(pool_id)
            if pool is not None:  # else it was released meanwhile
                self._selection.refuse_noticed(pool, pool.address(number))

    def endpoint_found(
        self, endpoint_id: str, network_id: str, parent: str, addresses: Iterable[tuple[IPNetwork, IPAddress]]
    ) -> None:
        """See :class:`~macvlan_twisted.driver.endpoint_addresses.AddressOwners`."""
        for subnet, address in addresses:
            with suppress(RequestRefused):  # two rows may have one address: one of their containers is dead
                self._claims.use(endpoint_id, network_id, parent, subnet, address)

    def endpoint_created(self, network_id: str, addresses: Iterable[IPAddress]) -> None:
        """An endpoint was created with *addresses*, which we have just allocated for it."""
        for address in addresses:
            holders = [
                each
                for each in self._pools.index.containing(address)
                if self._has_endpoint_address(each, address)
            ]
            if len(holders) == 1 and holders[0].network_id is None:
                self._observed[holders[0].pool_id] = network_id
            for pool in holders:
                if pool.network_id == network_id:
                    self._claims.end_pending(pool.pool_id, int(address))

    def endpoint_removed(
        self, endpoint_id: str, network_id: str, addresses: Iterable[IPAddress], may_return: bool = False
    ) -> None:
        """An endpoint was removed: its addresses are pending until they are released, or have another endpoint."""
        for pool_id, number in self._claims.endpoint_removed(endpoint_id):
            if may_return and pool_id in self._pools.by_id:
                self._owners.endpoint_left(pool_id, self._pools.by_id[pool_id].address(number))
        for address in addresses:
            for pool in self._pools.index.containing(address):
                if pool.network_id == network_id and self._has_endpoint_address(pool, address):
                    self._claims.begin_pending(pool.pool_id, int(address), had_endpoint=True)

    def _has_endpoint_address(self, pool: Pool, address: IPAddress) -> bool:
        return (
            not pool.is_untracked
            and address in pool.prefix
            and self._pools.set_of(pool).is_endpoint_of(pool.pool_id, int(address))
        )

    async def store_observed(self) -> None:
        """Store the bindings that were observed since the last call."""
        observed, self._observed = self._observed, {}
        for pool_id, network_id in observed.items():
            pool = self._pools.by_id.get(pool_id)
            if pool is not None and pool.network_id is None:
                await self._binding.assign_network(pool_id, network_id)

    def orphaned(self, seconds: float, is_in_use: IsInUse) -> set[OrphanedAddress]:
        """The container addresses in bound pools that have had no endpoint for *seconds*."""
        found = set()
        for pool_id, number in self._claims.pending_for(seconds):
            pool, since = self._pools.by_id.get(pool_id), self._claims.pending_since(pool_id, number)
            address = None if pool is None else pool.address(number)
            if (
                pool is None
                or since is None
                or address is None
                or pool.network_id is None
                or pool.is_untracked
                or not self._has_endpoint_address(pool, address)
                or is_in_use(pool.network_id, address)
            ):
                self._claims.end_pending(pool_id, number)
                continue
            found.add(OrphanedAddress(pool_id, address, since))
        return found

    async def release_orphaned(self, orphaned: OrphanedAddress, is_in_use: IsInUse) -> bool:
        """
        Release an address that has no endpoint, though the engine has not asked for it.

        :return: whether it was released; not if it was released or allocated anew meanwhile.
        """

        def is_unchanged() -> bool:
            since = self._claims.pending_since(orphaned.pool_id, int(orphaned.address))
            owner = self._pools.by_id[orphaned.pool_id].network_id
            return since == orphaned.since and owner is not None and not is_in_use(owner, orphaned.address)

        return await self._allocations.release(
            ReleaseAddress(orphaned.pool_id, orphaned.address), is_unchanged
        )


class PreviousEndpoints(Protocol):
    """The endpoints, which address management does not know by itself."""

    async def remove_previous(self, network_id: str | None, parent: str, address: IPAddress) -> bool:
        """
        Remove the endpoint that has *address*, if no container has its link.

        :param network_id: that of the address; ``None`` if it is not known.
        :return: whether no endpoint has the address any more.
        :raises MacvlanError: the kernel or the disk refuses.
        """


class PreviousRuns:
    """
    Releases the address of a container's previous run when the container starts again.

    An engine that was not answered for a while forgets an endpoint, and does not send DeleteEndpoint and ReleaseAddress for it. A
    container name is unique in an engine: when it is requested for again, the container of that name before is gone, and if no
    container has its link, it was not merely renamed.
    """

    def __init__(
        self,
        pools: PoolRegistry,
        sticky_addresses: StickyAddresses,
        allocations: Allocations,
        claims: EndpointClaims,
        endpoints: PreviousEndpoints,
    ) -> None:
        self._pools = pools
        self._sticky_addresses = sticky_addresses
        self._allocations = allocations
        self._claims = claims
        self._endpoints = endpoints

    def stored_name(self, pool: Pool, name: str) -> str:
        """
        The name under which the address and the MAC of container *name* are stored. That of a swarm task is without the task's id, so
        that its successor inherits them, unless its predecessor still has the address: an update may start it first.
        """
        slot = slot_of_task(name)
        if not slot:
            return name
        previous = self._sticky_addresses.of_name(pool.pool_id, slot)
        return name if previous is not None and self._is_allocated(pool, previous.address) else slot

    async def release(self, pool: Pool, name: str, requested: IPAddress | None) -> None:
        """
        Release the address that container *name* had before, if it is still allocated to it and no container has it.

        :param name: of the container that requests an address.
        """
        previous = self._sticky_addresses.of_name(pool.pool_id, name)
        if (
            previous is None
            or requested not in (None, previous.address)
            or not self._is_allocated(pool, previous.address)
        ):
            return
        try:
            await self._release(pool, previous)
        except MacvlanError as failure:  # the container gets another address, and the reconciler tries again
            # Cause: the kernel refused, or writing the state failed. Remedy: none needed; the container gets another
            # address, and the plugin tries again to release this one.
            _log.warn(
                "container {container}: cannot release address {address} of its previous run ({reason})",
                container=name,
                address=previous.address,
                reason=str(failure),
            )

    async def _release(self, pool: Pool, previous: StickyAddress) -> None:
        number = int(previous.address)
        has_endpoint = self._claims.user(pool.pool_id, number) is not None
        if not has_endpoint and not self._claims.is_abandoned(pool.pool_id, number, ENGINE_PATIENCE):
            return  # CreateEndpoint may be about to come
        if not await self._endpoints.remove_previous(pool.network_id, pool.lan_parent, previous.address):
            return

        def is_unused() -> bool:
            again = self._sticky_addresses.of_address(pool.pool_id, previous.address)
            return again is previous and self._claims.user(pool.pool_id, number) is None

        if await self._allocations.release(ReleaseAddress(pool.pool_id, previous.address), is_unused):
            _log.info(
                "container {container}: starts again, address {address} of its previous run released",
                container=previous.name,
                address=previous.address,
            )

    def _is_allocated(self, pool: Pool, address: IPAddress) -> bool:
        return self._pools.set_of(pool).is_endpoint_of(pool.pool_id, int(address))
