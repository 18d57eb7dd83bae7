"""The addresses taken in one subnet on one parent, whichever pool took them."""

from __future__ import annotations

from attrs import define, field
from sortedcontainers import SortedList

from .requests import Purpose


@define
class AddressSet:
    """
    An endpoint's address has one owner; a gateway or an auxiliary address may be reserved by several pools.

    Addresses are whole numbers here: a million of them are to fit into memory.
    """

    taken: SortedList = field(factory=SortedList)
    """All of them once, for :func:`~macvlan_twisted.ipam.allocator.next_free`."""
    endpoints: dict[str, set[int]] = field(factory=dict)
    """The addresses of each pool's endpoints, by the pool's id."""
    reserved: dict[int, set[str]] = field(factory=dict)
    """The pools that reserve an address."""
    hosts: set[tuple[str, int]] = field(factory=set)
    """Pool and address of those that are reserved for the host itself."""
    aside: set[int] = field(factory=set)
    """What is not to be handed out for now, and nobody here has: it is held for the next container, or others have it."""
    pools: set[str] = field(factory=set)
    """The pools that share the set, those included that are being closed."""

    def set_aside(self, address: int) -> None:
        if address not in self.aside:
            self.aside.add(address)
            if not self.is_taken(address):
                self.taken.add(address)

    def give_back(self, address: int) -> None:
        """Succeeds when it is not set aside."""
        if address in self.aside:
            self.aside.remove(address)
            if not self.is_taken(address):
                self.taken.remove(address)

    def is_taken(self, address: int) -> bool:
        """Whether a pool has it; what is only set aside is not taken."""
        return address in self.reserved or self.is_endpoints(address)

    def is_endpoints(self, address: int) -> bool:
        return any(address in addresses for addresses in self.endpoints.values())

    def add(self, pool_id: str, address: int, purpose: Purpose) -> None:
        if address not in self.aside and not self.is_taken(address):
            self.taken.add(address)
        if purpose is Purpose.ENDPOINT:
            self.endpoints.setdefault(pool_id, set()).add(address)
        else:
            self.reserved.setdefault(address, set()).add(pool_id)
            if purpose is Purpose.HOST:
                self.hosts.add((pool_id, address))
            else:
                self.hosts.discard((pool_id, address))

    def holds(self, pool_id: str, address: int) -> bool:
        return address in self.endpoints.get(pool_id, ()) or pool_id in self.reserved.get(address, ())

    def is_releasable(self, pool_id: str, address: int) -> bool:
        """
        Whether that pool holds the address for whoever may give it back. The host has its own until the pool goes: an
        engine that speaks of it means a container that had it before.
        """
        return self.holds(pool_id, address) and (pool_id, address) not in self.hosts

    def remove(self, pool_id: str, address: int) -> None:
        """Succeeds when that pool holds no such address."""
        if not self.holds(pool_id, address):
            return
        addresses = self.endpoints.get(pool_id, set())
        addresses.discard(address)
        if not addresses:
            self.endpoints.pop(pool_id, None)
        self.hosts.discard((pool_id, address))
        holders = self.reserved.get(address, set())
        holders.discard(pool_id)
        if not holders:
            self.reserved.pop(address, None)
        if address not in self.aside and not self.is_taken(address):
            self.taken.remove(address)

    def leave(self, pool_id: str) -> None:
        """Remove a pool and all that it holds; what only other pools hold is not looked at."""
        mine = set(self.endpoints.get(pool_id, ()))
        mine.update(address for address, holders in self.reserved.items() if pool_id in holders)
        for address in mine:
            self.remove(pool_id, address)
        self.pools.discard(pool_id)
