"""The addresses taken in one subnet on one parent, whichever pool took them."""

from __future__ import annotations

from attrs import define, field
from sortedcontainers import SortedList

from .requests import Purpose


@define
class SharedSet:
    """
    An endpoint's address has one owner; a gateway or an auxiliary address may be reserved by several pools.

    Addresses are whole numbers here: a million of them are to fit into memory.
    """

    taken: SortedList = field(factory=SortedList)
    """All of them once, for :func:`~macvlan_twisted.ipam.allocation.next_free`."""
    owners: dict[int, str] = field(factory=dict)
    reserved: dict[int, set[str]] = field(factory=dict)

    def add(self, pool_id: str, address: int, purpose: Purpose) -> None:
        if address not in self.owners and address not in self.reserved:
            self.taken.add(address)
        if purpose is Purpose.ENDPOINT:
            self.owners[address] = pool_id
        else:
            self.reserved.setdefault(address, set()).add(pool_id)

    def holds(self, pool_id: str, address: int) -> bool:
        return self.owners.get(address) == pool_id or pool_id in self.reserved.get(address, ())

    def remove(self, pool_id: str, address: int) -> None:
        """Succeeds when that pool holds no such address."""
        if not self.holds(pool_id, address):
            return
        if self.owners.get(address) == pool_id:
            del self.owners[address]
        holders = self.reserved.get(address, set())
        holders.discard(pool_id)
        if not holders:
            self.reserved.pop(address, None)
        if address not in self.owners and address not in self.reserved:
            self.taken.remove(address)

    def of_pool(self, pool_id: str) -> list[int]:
        return [address for address, owner in self.owners.items() if owner == pool_id] + [
            address for address, holders in self.reserved.items() if pool_id in holders
        ]
