"""The pools of a network that is being made: which ones they are, and what of them becomes the host's."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

from attrs import evolve
from twisted.logger import Logger

from ..addresses import IPAddress, IPNetwork
from ..errors import LinkError, NotFound, RequestRefused, StateError
from ..keyed_lock import KeyedLock
from ..state.interfaces import AddressStore, Allocation
from ..state.serialize import to_document
from .allocations import Allocations
from .owners import PoolOwners
from .pool import Pool, answered_pool
from .pool_registry import PoolRegistry
from .requests import Purpose
from .selection import AddressSelection

_log = Logger(namespace="macvlan_twisted.ipam")


class PoolBinding:
    """
    The engine asks for pools before it names a network, and does not say afterwards which ones the network has.

    :param turns: those of all that is done to a pool, by its id.
    """

    def __init__(
        self,
        pools: PoolRegistry,
        store: AddressStore,
        locks: KeyedLock,
        claims: Allocations,
        selection: AddressSelection,
        owners: PoolOwners,
    ) -> None:
        self._pools = pools
        self._store = store
        self._locks = locks
        self._claims = claims
        self._selection = selection
        self._owners = owners

    async def network_made(
        self,
        parent: str,
        subnets: Iterable[tuple[IPNetwork, Iterable[IPAddress]]],
        network_id: str | None = None,
    ) -> None:
        """
        A network of our driver is made: from now on a named address of its pools is a container's.

        :param parent: where the network is; a pool that another one was named for is looked after there.
        :param subnets: each with its auxiliary addresses; by both its pool is told from that of another
            network on the same subnet, which is being made in parallel.
        :param network_id: whose addresses are given back when nobody has them; without it nobody's are.
        """
        for subnet, auxiliary in subnets:
            asked_for = set(auxiliary)
            sole = None if network_id is None else self._owners.sole(subnet)
            if sole is not None and network_id is not None:
                await self._owners.belongs(sole.pool_id, network_id)
            for pool_id, reserved in self._pools.being_made.items():
                if answered_pool(self._pools.by_id[pool_id]) == subnet and reserved == asked_for:
                    del self._pools.being_made[pool_id]
                    await self._settle(self._pools.by_id[pool_id], parent)
                    break

    async def _settle(self, pool: Pool, parent: str) -> None:
        if pool.wire != parent:
            # Others may learn something of the pool at the same time, or release it.
            async with self._locks.acquire(pool.pool_id):
                before = self._pools.by_id.get(pool.pool_id)
                if before is None:
                    return
                pool = before if before.wire == parent else await self._settled(before, parent)
        self._selection.prepare(pool)

    async def _settled(self, pool: Pool, parent: str) -> Pool:
        """Nothing here fails: the network may be made already, and an engine does not ask for the removal of one that failed."""
        _log.info(
            "addresses of pool {pool} are looked for on {parent}, where its network is, and not on {other}; networks "
            "on one parent share their addresses if --ipam-opt parent= names it, too",
            pool=pool.described(),
            other=pool.parent or "no parent",
            parent=parent,
        )
        settled = evolve(pool, network_parent=parent)
        try:
            await self._store.open_pool(pool.pool_id, to_document(settled))
        except StateError as failure:
            _log.error("the parent of a pool is not kept: {reason}", reason=str(failure))
        self._selection.forget(pool)
        self._pools.by_id[pool.pool_id] = settled
        try:
            await self._selection.disuse_wire(pool)
        except LinkError as failure:
            _log.error("{reason}", reason=str(failure))
        self._selection.use_wire(settled)
        return settled

    async def reserve_for_host(
        self,
        parent: str,
        subnet: IPNetwork,
        auxiliary: Collection[IPAddress],
        wanted: IPAddress | None,
        preferred: Sequence[IPAddress],
    ) -> IPAddress:
        """What :class:`~macvlan_twisted.driver.host_addresses.HostAddresses` says; while its network is being made."""
        pools = self._pools_of_network(parent, subnet, set(auxiliary))
        if not pools:
            raise NotFound(
                f"pool {subnet} is not known to the plugin: remove the network and create it again"
            )
        for each_pool in pools:
            await self._settle(each_pool, parent)
        pools = [
            self._pools.by_id[each_pool.pool_id]
            for each_pool in pools
            if each_pool.pool_id in self._pools.by_id
        ]
        if not pools:
            raise RequestRefused(f"pool {subnet} was released meanwhile")
        address = wanted
        if address is None:
            address = next((each for each in preferred if each in pools[0].prefix), None)
        if address is None and pools[0].dhcp:
            raise RequestRefused(
                f"access from the host needs an address of the host's own in {pools[0].prefix}, where the LAN's DHCP server "
                "hands out the others: choose one that it does not, and give it with -o host_address=ADDRESS, or leave host "
                "access out with -o host_access=false"
            )
        if address is None:
            address = await self._selection.next(pools[0])
        else:
            self._selection.refuse_outside(pools[0], address, Purpose.HOST)
            self._selection.refuse_taken(pools[0], address, Purpose.HOST)
            if wanted is not None:
                await self._selection.refuse_used_by_others(pools[0], address)
        for pool in pools:
            await self._claims.take(
                pool, Allocation(pool.pool_id, address, Purpose.HOST.value), advances=False
            )
        _log.info(
            "address {address} of pool {pool} is the host's", address=address, pool=pools[0].described()
        )
        return address

    def _pools_of_network(self, parent: str, subnet: IPNetwork, auxiliary: set[IPAddress]) -> list[Pool]:
        """
        Those that may be the one of a network that is being made: all in one shared set, for the engine does not say
        which one it is, and networks are made in parallel.
        """
        fitting = [pool for pool in self._pools.by_id.values() if answered_pool(pool) == subnet]
        being_made = [pool for pool in fitting if self._pools.being_made.get(pool.pool_id) == auxiliary]
        found = sorted(being_made or fitting, key=lambda pool: pool.parent != parent)
        return [pool for pool in found if pool.shared_set == found[0].shared_set]
