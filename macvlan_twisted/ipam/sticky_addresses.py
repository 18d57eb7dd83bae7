"""Who had which address and MAC: a container that comes again under its name gets the same ones."""

from __future__ import annotations

from ..addresses import IPAddress
from ..state.interfaces import AddressStore, StickyAddress

MOST_NAMES = 10_000
"""Of one pool; engines make up a name for each container that has none."""


class StickyAddresses:
    """By pool and name, and by pool and address, which has had one name last. What is here is on disk, or about to be."""

    def __init__(self, store: AddressStore) -> None:
        self._store = store
        self._by_name: dict[str, dict[str, StickyAddress]] = {}
        self._by_address: dict[tuple[str, IPAddress], str] = {}

    def load(self) -> None:
        """Read the state at start."""
        for identity in self._store.identities():
            self.note(identity)

    def of_name(self, pool_id: str, name: str) -> StickyAddress | None:
        return self._by_name.get(pool_id, {}).get(name)

    def of_address(self, pool_id: str, address: IPAddress) -> StickyAddress | None:
        name = self._by_address.get((pool_id, address))
        return None if name is None else self.of_name(pool_id, name)

    def note(self, identity: StickyAddress) -> tuple[str, ...]:
        """:return: names that end: of who had the address before, and of the oldest one where there are too many."""
        names = self._by_name.setdefault(identity.pool_id, {})
        ended = []
        before = self._by_address.get((identity.pool_id, identity.address))
        if before is not None and before != identity.name:
            ended.append(before)
        earlier = names.pop(identity.name, None)  # the newest go to the end
        if earlier is not None:
            self._by_address.pop((identity.pool_id, earlier.address), None)
        names[identity.name] = identity
        self._by_address[identity.pool_id, identity.address] = identity.name
        if len(names) - len(ended) > MOST_NAMES:
            ended.append(next(iter(names)))
        for name in ended:
            gone = names.pop(name, None)
            if gone is not None and self._by_address.get((gone.pool_id, gone.address)) == name:
                del self._by_address[gone.pool_id, gone.address]
        return tuple(ended)

    def forget_address(self, pool_id: str, address: IPAddress) -> tuple[str, ...]:
        """
        Who has *address* from now on has no name.

        :return: names that end.
        """
        name = self._by_address.pop((pool_id, address), None)
        if name is None:
            return ()
        del self._by_name[pool_id][name]
        return (name,)

    def forget_pool(self, pool_id: str) -> None:
        for identity in self._by_name.pop(pool_id, {}).values():
            self._by_address.pop((pool_id, identity.address), None)
