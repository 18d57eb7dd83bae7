"""The last address and MAC of each container name: a container that is created again under its name gets the same ones."""

from __future__ import annotations

from sortedcontainers import SortedList

from ..addresses import IPAddress
from ..state.interfaces import AddressStore, StickyAddress

MAX_NAMES = 10_000
"""Limit per pool: the engine generates a name for each container that has none, so names accumulate."""


class StickyAddresses:
    """
    Indexed by pool and name, and by pool and address; an address belongs to the name that had it last. The caller stores each
    change on disk.
    """

    def __init__(self, store: AddressStore) -> None:
        self._store = store
        self._by_name: dict[str, dict[str, StickyAddress]] = {}
        self._by_address: dict[tuple[str, IPAddress], str] = {}
        self._numbers: dict[str, SortedList] = {}
        """By pool: the addresses of all names."""

    def load(self) -> None:
        """Read the state at start."""
        for identity in self._store.identities():
            self.note(identity)

    def of_name(self, pool_id: str, name: str) -> StickyAddress | None:
        return self._by_name.get(pool_id, {}).get(name)

    def of_address(self, pool_id: str, address: IPAddress) -> StickyAddress | None:
        name = self._by_address.get((pool_id, address))
        return None if name is None else self.of_name(pool_id, name)

    def numbers_of(self, pool_id: str) -> SortedList:
        """The addresses in the pool that belong to names, as numbers; empty if there are none."""
        return self._numbers.get(pool_id, SortedList())

    def _assign(self, pool_id: str, address: IPAddress, name: str) -> None:
        if (pool_id, address) not in self._by_address:
            self._numbers.setdefault(pool_id, SortedList()).add(int(address))
        self._by_address[pool_id, address] = name

    def _unassign(self, pool_id: str, address: IPAddress) -> str | None:
        name = self._by_address.pop((pool_id, address), None)
        if name is not None:
            self._numbers[pool_id].remove(int(address))
        return name

    def note(self, identity: StickyAddress) -> tuple[str, ...]:
        """
        Record *identity*.

        :return: the names that are forgotten: the previous one of the address, and the oldest if there are too many.
        """
        names = self._by_name.setdefault(identity.pool_id, {})
        forgotten = []
        previous_name = self._by_address.get((identity.pool_id, identity.address))
        if previous_name is not None and previous_name != identity.name:
            forgotten.append(previous_name)
        earlier = names.pop(identity.name, None)  # move it to the end: the newest are last
        if earlier is not None:
            self._unassign(identity.pool_id, earlier.address)
        names[identity.name] = identity
        self._assign(identity.pool_id, identity.address, identity.name)
        if len(names) - len(forgotten) > MAX_NAMES:
            forgotten.append(next(iter(names)))
        for name in forgotten:
            removed = names.pop(name, None)
            if removed is not None and self._by_address.get((removed.pool_id, removed.address)) == name:
                self._unassign(removed.pool_id, removed.address)
        return tuple(forgotten)

    def forget_address(self, pool_id: str, address: IPAddress) -> tuple[str, ...]:
        """
        The new owner of *address* has no name.

        :return: the names that are forgotten.
        """
        name = self._unassign(pool_id, address)
        if name is None:
            return ()
        del self._by_name[pool_id][name]
        return (name,)

    def forget_pool(self, pool_id: str) -> None:
        for identity in self._by_name.pop(pool_id, {}).values():
            self._by_address.pop((pool_id, identity.address), None)
        self._numbers.pop(pool_id, None)
