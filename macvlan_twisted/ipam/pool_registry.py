"""The open pools and their allocations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..addresses import IPAddress
from ..errors import StateError
from ..state.interfaces import AddressStore, Allocation, ReturnedAddress
from ..state.serialize import from_document, to_document
from .allocator import AddressSet, usable_span
from .pool import Pool, id_without_nonce
from .pool_index import PoolIndex
from .requests import Purpose

# Remedy of these errors: start the plugin once with --recover.

MAX_CURSORS = 10_000
"""
A network that is created again continues after the last address of its predecessor, so cursors outlive pools, up to this
limit.
"""


def refuse_container_without_pool(allocation: Allocation) -> None:
    """
    Check an allocation whose pool is not in the state. A reserved address may belong to a pool that was never opened.

    :raises StateError: the address is a container's, so an engine has the pool, and state has lost it.
    """
    if Purpose(allocation.purpose) is Purpose.ENDPOINT:
        raise StateError(
            f"address {allocation.address} in the state belongs to pool {allocation.pool_id}, which is missing"
        )


class PoolRegistry:
    """
    The open pools and their allocations. Only the reactor thread changes the memory; the ``store`` and ``erase`` methods
    change the rows on disk.
    """

    def __init__(self, store: AddressStore) -> None:
        self._store = store
        self.index = PoolIndex()
        self._sets: dict[str, AddressSet] = {}
        self.cursors: dict[str, int] = {}
        """By cursor key: the last number chosen; the cursor that advanced last is at the end."""
        self.lost: set[str] = set()
        """Ids of pools that were never opened, but have reserved addresses in the state: earlier versions left those there."""

    def load(self) -> None:
        """
        Read the state at start.

        :raises StateError: a row cannot be decoded, or the pool of a container's address is missing.
        """
        for document in self._store.pools().values():
            pool = from_document(Pool, document)
            self.index.put(pool)
            self._join_set(pool)
        self.cursors.update({key: int(address) for key, address in self._store.cursors().items()})
        for allocation in self._store.allocations():
            owner = self.by_id.get(allocation.pool_id)
            if owner is not None:
                self.set_of(owner).add(
                    allocation.pool_id,
                    int(allocation.address),
                    Purpose(allocation.purpose),
                    allocation.is_chosen,
                )
            else:
                refuse_container_without_pool(allocation)
                self.lost.add(allocation.pool_id)

    async def save_pool(self, pool: Pool) -> None:
        await self._store.save_pool(pool.pool_id, to_document(pool))

    async def erase_pool(self, pool_id: str) -> None:
        """Erase the pool and its allocations."""
        await self._store.erase_pool(pool_id)

    async def save_allocation(
        self,
        pool: Pool,
        allocation: Allocation,
        advances: bool,
        forgotten_names: Sequence[str],
        forgotten_cursors: Sequence[str],
        forgotten_returns: Sequence[IPAddress] = (),
    ) -> None:
        """
        :param advances: whether the next search for a free address starts after this one.
        :param forgotten_names: container names to erase.
        :param forgotten_cursors: cursor keys to erase. :param forgotten_returns: returned addresses to erase.
        """
        await self._store.save_allocation(
            allocation, pool.cursor_key, advances, forgotten_names, forgotten_cursors, forgotten_returns
        )

    async def erase_allocation(
        self,
        pool_id: str,
        address: IPAddress,
        returned: ReturnedAddress | None = None,
        forgotten_returns: Sequence[IPAddress] = (),
    ) -> None:
        """:param returned: stored instead. :param forgotten_returns: returned addresses to erase."""
        await self._store.erase_allocation(pool_id, address, returned, forgotten_returns)

    @property
    def by_id(self) -> Mapping[str, Pool]:
        return self.index.by_id

    def find(self, pool_id: str) -> Pool | None:
        """The pool with this id, or a rebuilt one whose id differs only in the nonce."""
        pool = self.by_id.get(pool_id)
        if pool is None and id_without_nonce(pool_id):
            pool = next((each for each in self.by_id.values() if _was_rebuilt_for(each, pool_id)), None)
        return pool

    def set_of(self, pool: Pool) -> AddressSet:
        return self._sets[pool.shared_set]

    def _join_set(self, pool: Pool) -> None:
        self._sets.setdefault(pool.shared_set, AddressSet()).pools.add(pool.pool_id)

    def add(self, pool: Pool) -> None:
        self.index.put(pool)
        self._join_set(pool)

    def advance(self, pool: Pool, number: int) -> tuple[str, ...]:
        """
        Set the pool's cursor to *number*.

        :return: the cursor keys that are forgotten: the oldest of a released pool, if there are too many.
        """
        self.cursors.pop(pool.cursor_key, None)
        self.cursors[pool.cursor_key] = number
        if len(self.cursors) <= MAX_CURSORS:
            return ()
        used = {each.cursor_key for each in self.by_id.values()}
        forgotten = next((key for key in self.cursors if key not in used), None)
        if forgotten is None:
            return ()
        del self.cursors[forgotten]
        return (forgotten,)

    def sharing_with(self, pool: Pool) -> list[Pool]:
        """The other open pools with the same set of addresses."""
        return [
            each
            for each in self.index.overlapping(pool.prefix)
            if each.shared_set == pool.shared_set and each.pool_id != pool.pool_id
        ]

    def remove(self, pool: Pool) -> None:
        """Remove the pool, which may be removed from :attr:`by_id` already, and its allocations."""
        self.index.remove(pool.pool_id)
        shared = self.set_of(pool)
        if shared.pools == {pool.pool_id}:  # fast, even with a million addresses
            del self._sets[pool.shared_set]
        else:
            shared.remove_pool(pool.pool_id)

    def reserved_by(self, pool: Pool) -> list[IPAddress]:
        """The addresses that *pool* reserves and no other pool does."""
        return [
            pool.address(number)
            for number, holders in self.set_of(pool).reserved.items()
            if holders == {pool.pool_id}
        ]

    def is_allocated(self, parent: str, address: IPAddress) -> bool:
        """Whether *address* is allocated to a container on *parent*."""
        return self.pool_of_endpoint(parent, address) is not None

    def unusable(self, parent: str, address: IPAddress) -> str | None:
        """See :class:`~macvlan_twisted.dhcp.store.Reservations`."""
        for pool in self.index.containing(address):
            if pool.lan_parent != parent:
                continue
            span = usable_span(pool.prefix)
            if not span.first <= int(address) <= span.last:
                return f"is the network or broadcast address of {pool.prefix}"
            if int(address) in self.set_of(pool).reserved:
                return f"is reserved in pool {pool.prefix} as a gateway's, the host's or an auxiliary address"
        return None

    def pool_of_endpoint(self, parent: str, address: IPAddress) -> Pool | None:
        """The pool that allocated *address* to a container on *parent*."""
        for pool in self.index.containing(address):
            if pool.is_global:
                continue
            if pool.lan_parent == parent and self.set_of(pool).is_endpoint_of(pool.pool_id, int(address)):
                return pool
        return None


def _was_rebuilt_for(pool: Pool, pool_id: str) -> bool:
    matches = bool(pool.rebuilt_for) and id_without_nonce(pool.pool_id) == id_without_nonce(pool_id)
    return matches and pool_id not in pool.released_ids
