"""
Which network has each pool, what of it becomes the host's, and which of its containers' addresses have no endpoint.

The engine requests pools before it names a network, and does not say afterwards which ones the network has; other
drivers' networks have pools of ours, too. So a network's pool is what is certain to be it: the only one that can be, or
the one from which a new endpoint of the network has an address. Addresses of all other pools are never given back
unasked.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence

from attrs import evolve, frozen
from twisted.logger import Logger

from ..addresses import IPAddress, IPNetwork
from ..errors import LinkError, NotFound, RequestRefused, StateError
from ..keyed_lock import KeyedLock
from ..state.interfaces import Allocation
from .allocations import Allocations
from .pending_addresses import PendingAddresses
from .pool import Pool, answered_pool
from .pool_registry import PoolRegistry
from .requests import Purpose, ReleaseAddress
from .selection import AddressSelection

_log = Logger(namespace="macvlan_twisted.ipam")

IsInUse = Callable[[str, IPAddress], bool]
"""Whether a network has an endpoint with an address."""


@frozen
class Unowned:
    """A container's address without an endpoint; equal only to the same claim of it."""

    pool_id: str
    address: IPAddress
    since: float


class PoolBinding:
    """:param locks: of pools, by their ids."""

    def __init__(
        self,
        pools: PoolRegistry,
        locks: KeyedLock,
        allocations: Allocations,
        selection: AddressSelection,
        pending: PendingAddresses,
    ) -> None:
        self._pools = pools
        self._locks = locks
        self._allocations = allocations
        self._selection = selection
        self._pending = pending
        self._seen: dict[str, str] = {}
        """By pool: the network of which a new endpoint had an address of the pool."""

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
            sole = None if network_id is None else self._sole(subnet)
            if sole is not None and network_id is not None:
                await self.belongs(sole.pool_id, network_id)
            for pool_id, reserved in self._pools.being_made.items():
                if answered_pool(self._pools.by_id[pool_id]) == subnet and reserved == asked_for:
                    del self._pools.being_made[pool_id]
                    await self._settle(self._pools.by_id[pool_id], parent)
                    break

    async def _settle(self, pool: Pool, parent: str) -> None:
        if pool.lan_parent != parent:
            # Others may learn something of the pool at the same time, or release it.
            async with self._locks.acquire(pool.pool_id):
                before = self._pools.by_id.get(pool.pool_id)
                if before is None:
                    return
                pool = before if before.lan_parent == parent else await self._settled(before, parent)
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
            await self._pools.store_pool(settled)
        except StateError as failure:
            _log.error("the parent of a pool is not kept: {reason}", reason=str(failure))
        self._selection.forget(pool)
        self._pools.by_id[pool.pool_id] = settled
        try:
            await self._selection.disuse_lan(pool)
        except LinkError as failure:
            _log.error("{reason}", reason=str(failure))
        self._selection.use_lan(settled)
        return settled

    async def reserve_for_host(
        self,
        parent: str,
        subnet: IPNetwork,
        auxiliary: Collection[IPAddress],
        wanted: IPAddress | None,
        preferred: Sequence[IPAddress],
    ) -> IPAddress:
        """What :class:`~macvlan_twisted.driver.host_addresses.HostPools` says; while its network is being made."""
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
            await self._allocations.take(
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

    def _sole(self, subnet: IPNetwork) -> Pool | None:
        """The pool of a network with *subnet* that is being made, where there is no other one that could be it."""
        found = [pool for pool in self._unknown() if answered_pool(pool) == subnet]
        return found[0] if len(found) == 1 else None

    def _unknown(self) -> list[Pool]:
        return [
            each for each in self._pools.by_id.values() if each.network_id is None and not each.is_left_alone
        ]

    async def belongs(self, pool_id: str, network_id: str) -> None:
        await self._change(pool_id, lambda pool: evolve(pool, network_id=network_id))
        pool = self._pools.by_id.get(pool_id)
        if pool is not None:
            for number in self._pools.set_of(pool).endpoints.get(pool_id, ()):
                if self._pending.since(pool_id, number) is None:
                    self._pending.begin(pool_id, number)

    async def is_listed_by(self, pool_id: str, engine_id: str) -> None:
        """As with networks: the engine that lists a network with the pool, the last time one did."""
        await self._change(pool_id, lambda pool: evolve(pool, engine_id=engine_id))

    async def _change(self, pool_id: str, change: Callable[[Pool], Pool]) -> None:
        async with self._locks.acquire(pool_id):
            pool = self._pools.by_id.get(pool_id)
            if pool is None or change(pool) == pool:
                return
            try:
                await self._pools.store_pool(change(pool))
            except StateError as failure:  # it is learnt again, or nothing of it is ever collected
                _log.error("whose pool {pool} is is not kept: {reason}", pool=pool_id, reason=str(failure))
                return
            if pool_id in self._pools.by_id:
                self._pools.by_id[pool_id] = change(self._pools.by_id[pool_id])

    def begin(self, is_in_use: IsInUse) -> None:
        """At start: all addresses of containers without an endpoint begin to wait for one."""
        for pool in self._pools.by_id.values():
            if pool.network_id is not None and not pool.is_left_alone:
                for number in self._pools.set_of(pool).endpoints.get(pool.pool_id, ()):
                    if not is_in_use(pool.network_id, _address(pool, number)):
                        self._pending.begin(pool.pool_id, number)

    def came(self, network_id: str, addresses: Iterable[IPAddress]) -> None:
        """An endpoint was made with addresses that were handed out by us for it a moment ago."""
        for address in addresses:
            holders = [each for each in self._pools.by_id.values() if self._has(each, address)]
            if len(holders) == 1 and holders[0].network_id is None:
                self._seen[holders[0].pool_id] = network_id
            for pool in holders:
                if pool.network_id == network_id:
                    self._pending.end(pool.pool_id, int(address))

    def left(self, network_id: str, addresses: Iterable[IPAddress]) -> None:
        """An endpoint is gone: what it had waits to be given back, or for another one."""
        for address in addresses:
            for pool in self._pools.by_id.values():
                if pool.network_id == network_id and self._has(pool, address):
                    self._pending.begin(pool.pool_id, int(address))

    def _has(self, pool: Pool, address: IPAddress) -> bool:
        return (
            not pool.is_left_alone
            and address in pool.prefix
            and int(address) in self._pools.set_of(pool).endpoints.get(pool.pool_id, ())
        )

    async def learn(self) -> None:
        """Keep what was seen since the last time."""
        seen, self._seen = self._seen, {}
        for pool_id, network_id in seen.items():
            pool = self._pools.by_id.get(pool_id)
            if pool is not None and pool.network_id is None:
                await self.belongs(pool_id, network_id)

    def unowned(self, seconds: float, is_in_use: IsInUse) -> set[Unowned]:
        """Addresses of our networks' containers that have been without an endpoint for so long."""
        found = set()
        for pool_id, number in self._pending.longer_than(seconds):
            pool, since = self._pools.by_id.get(pool_id), self._pending.since(pool_id, number)
            address = None if pool is None else _address(pool, number)
            if (
                pool is None
                or since is None
                or address is None
                or pool.network_id is None
                or pool.is_left_alone
                or not self._has(pool, address)
                or is_in_use(pool.network_id, address)
            ):
                self._pending.end(pool_id, number)
                continue
            found.add(Unowned(pool_id, address, since))
        return found

    async def release_unowned(self, unowned: Unowned, is_in_use: IsInUse) -> bool:
        """
        Release an address that has no endpoint, though the engine has not asked for it.

        :return: whether it was released; otherwise it has been released, or handed out anew, meanwhile.
        """

        def is_unchanged() -> bool:
            since = self._pending.since(unowned.pool_id, int(unowned.address))
            owner = self._pools.by_id[unowned.pool_id].network_id
            return since == unowned.since and owner is not None and not is_in_use(owner, unowned.address)

        return await self._allocations.release(ReleaseAddress(unowned.pool_id, unowned.address), is_unchanged)


def _address(pool: Pool, number: int) -> IPAddress:
    return type(pool.prefix.network_address)(number)
