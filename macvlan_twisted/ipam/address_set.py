"""The addresses that the pools of one subnet on one parent have allocated."""

from __future__ import annotations

from attrs import define, field
from sortedcontainers import SortedList

from .requests import Purpose


@define
class AddressSet:
    """
    An endpoint's address belongs to one pool. Several pools may reserve the same gateway or auxiliary address.

    Addresses are integers here, so that a million of them fit into memory.
    """

    taken: SortedList = field(factory=SortedList)
    """Each unavailable address once, for :func:`~macvlan_twisted.ipam.allocator.next_free`."""
    endpoints: dict[str, set[int]] = field(factory=dict)
    """By pool id: the addresses of its endpoints."""
    chosen: dict[str, set[int]] = field(factory=dict)
    """By pool id: those of them that we chose for containers without a name."""
    reserved: dict[int, set[str]] = field(factory=dict)
    """By address: the ids of the pools that reserve it."""
    hosts: set[tuple[str, int]] = field(factory=set)
    """Pool id and address of each address that is reserved for the host itself."""
    unconfirmed: set[tuple[str, int]] = field(factory=set)
    """
    Pool id and address of each auxiliary address that CreateNetwork has not confirmed: it may be a container's, so no other
    pool reserves it. Those of an earlier life of the service count as confirmed.
    """
    aside: set[int] = field(factory=set)
    """Not allocated, but unavailable for now: probed, prefetched, or in use by another host."""
    pools: set[str] = field(factory=set)
    """The ids of the pools that share the set, including those that are being released."""

    def set_aside(self, address: int) -> None:
        if address not in self.aside:
            self.aside.add(address)
            if not self.is_allocated(address):
                self.taken.add(address)

    def put_back(self, address: int) -> None:
        """Succeeds when it is not set aside."""
        if address in self.aside:
            self.aside.remove(address)
            if not self.is_allocated(address):
                self.taken.remove(address)

    def is_allocated(self, address: int) -> bool:
        """Whether a pool has allocated or reserved *address*. An address that is only set aside is not allocated."""
        return address in self.reserved or self.is_endpoint_address(address)

    def is_endpoint_address(self, address: int) -> bool:
        return any(address in addresses for addresses in self.endpoints.values())

    def add(self, pool_id: str, address: int, purpose: Purpose, is_chosen: bool = False) -> None:
        if address not in self.aside and not self.is_allocated(address):
            self.taken.add(address)
        if purpose is Purpose.ENDPOINT:
            self.endpoints.setdefault(pool_id, set()).add(address)
            if is_chosen:
                self.chosen.setdefault(pool_id, set()).add(address)
        else:
            self.reserved.setdefault(address, set()).add(pool_id)
            if purpose is Purpose.HOST:
                self.hosts.add((pool_id, address))
            else:
                self.hosts.discard((pool_id, address))

    def is_unconfirmed(self, address: int) -> bool:
        """Whether a pool reserves *address* as an auxiliary one, which may be a container's."""
        return any((pool_id, address) in self.unconfirmed for pool_id in self.reserved.get(address, ()))

    def is_endpoint_of(self, pool_id: str, address: int) -> bool:
        """Whether the pool has allocated *address* to an endpoint."""
        return address in self.endpoints.get(pool_id, ())

    def holds(self, pool_id: str, address: int) -> bool:
        return self.is_endpoint_of(pool_id, address) or pool_id in self.reserved.get(address, ())

    def is_releasable(self, pool_id: str, address: int) -> bool:
        """
        Whether ReleaseAddress may release *address*. The host's own address stays until its pool is released: an engine that
        releases it means a container that had it before.
        """
        return self.holds(pool_id, address) and (pool_id, address) not in self.hosts

    def remove(self, pool_id: str, address: int) -> None:
        """Succeeds when the pool has no such address."""
        if not self.holds(pool_id, address):
            return
        addresses = self.endpoints.get(pool_id, set())
        addresses.discard(address)
        if not addresses:
            self.endpoints.pop(pool_id, None)
        self.chosen.get(pool_id, set()).discard(address)
        self.hosts.discard((pool_id, address))
        self.unconfirmed.discard((pool_id, address))
        holders = self.reserved.get(address, set())
        holders.discard(pool_id)
        if not holders:
            self.reserved.pop(address, None)
        if address not in self.aside and not self.is_allocated(address):
            self.taken.remove(address)

    def remove_pool(self, pool_id: str) -> None:
        """Remove a pool and its addresses, without iterating over those of other pools' endpoints."""
        addresses = set(self.endpoints.get(pool_id, ()))
        addresses.update(address for address, holders in self.reserved.items() if pool_id in holders)
        for address in addresses:
            self.remove(pool_id, address)
        self.chosen.pop(pool_id, None)
        self.pools.discard(pool_id)
