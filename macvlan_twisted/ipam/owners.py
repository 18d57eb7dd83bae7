"""
Which network has each pool, and which addresses of its containers nobody has.

The engine does not say for which network a pool is, and other drivers' networks have pools of ours, too. So a network's
pool is what is certain to be it: the only one that can be, or the one of which a new endpoint of the network has an
address. Of all others nothing is ever said here to be nobody's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from attrs import evolve, frozen
from twisted.logger import Logger

from ..addresses import IPAddress, IPNetwork
from ..errors import StateError
from ..keyed_lock import KeyedLock
from ..state.interfaces import AddressStore
from ..state.serialize import to_document
from .pending_addresses import PendingAddresses
from .pool import Pool, answered_pool
from .pool_registry import PoolRegistry

_log = Logger(namespace="macvlan_twisted.ipam")

IsInUse = Callable[[str, IPAddress], bool]
"""Whether a network has an endpoint with an address."""


@frozen
class Unowned:
    """A container's address without an endpoint; equal only to the same claim of it."""

    pool_id: str
    address: IPAddress
    since: float


class PoolOwners:
    """
    :param turns: those of all that is done to a pool, by its id.
    """

    def __init__(
        self, pools: PoolRegistry, store: AddressStore, locks: KeyedLock, pending: PendingAddresses
    ) -> None:
        self._pools = pools
        self._store = store
        self._locks = locks
        self.pending = pending
        self._seen: dict[str, str] = {}
        """By pool: the network of which a new endpoint had an address of the pool."""

    def sole(self, subnet: IPNetwork) -> Pool | None:
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
                if self.pending.since(pool_id, number) is None:
                    self.pending.begin(pool_id, number)

    async def is_listed_by(self, pool_id: str, engine_id: str) -> None:
        """As with networks: the engine that lists a network with the pool, the last time one did."""
        await self._change(pool_id, lambda pool: evolve(pool, engine_id=engine_id))

    async def _change(self, pool_id: str, change: Callable[[Pool], Pool]) -> None:
        async with self._locks.acquire(pool_id):
            pool = self._pools.by_id.get(pool_id)
            if pool is None or change(pool) == pool:
                return
            try:
                await self._store.open_pool(pool_id, to_document(change(pool)))
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
                        self.pending.begin(pool.pool_id, number)

    def came(self, network_id: str, addresses: Iterable[IPAddress]) -> None:
        """An endpoint was made with addresses that were handed out by us for it a moment ago."""
        for address in addresses:
            holders = [each for each in self._pools.by_id.values() if self._has(each, address)]
            if len(holders) == 1 and holders[0].network_id is None:
                self._seen[holders[0].pool_id] = network_id
            for pool in holders:
                if pool.network_id == network_id:
                    self.pending.end(pool.pool_id, int(address))

    def left(self, network_id: str, addresses: Iterable[IPAddress]) -> None:
        """An endpoint is gone: what it had waits to be given back, or for another one."""
        for address in addresses:
            for pool in self._pools.by_id.values():
                if pool.network_id == network_id and self._has(pool, address):
                    self.pending.begin(pool.pool_id, int(address))

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
        for pool_id, number in self.pending.longer_than(seconds):
            pool, since = self._pools.by_id.get(pool_id), self.pending.since(pool_id, number)
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
                self.pending.end(pool_id, number)
                continue
            found.add(Unowned(pool_id, address, since))
        return found


def _address(pool: Pool, number: int) -> IPAddress:
    return type(pool.prefix.network_address)(number)
