"""
Whose each address was before: by the container's name, by the engine's lists, and by a release a moment ago.

Engines before 29 do not name the container in RequestAddress. In a ``docker restart`` the request follows the release by about
ten milliseconds. So the only address of a pool that was released within the last seconds goes to the next request that names
neither an address nor a container. If several were released, it cannot be known whose request it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from sortedcontainers import SortedList

from ..addresses import IPAddress
from ..state.interfaces import AddressStore, Allocation, ReturnedAddress, StickyAddress
from .identity import StickyAddresses
from .last_addresses import LastAddresses
from .requests import Purpose


class ReturnedAddresses:
    """
    Addresses may return if we chose them, if their endpoint was created and removed, and if its MAC is made of the address, so
    that neighbours' ARP caches stay true. The caller stores each change on disk.

    :param grace: seconds for which a released address may return; 0: none may.
    :param clock: ``IReactorTime`` of a clock that is never set.
    :param wall_time: the time of day, which is stored: a clock that was set meanwhile costs a container its address.
    """

    def __init__(self, grace: float, store: AddressStore, clock: Any, wall_time: Callable[[], float]) -> None:
        self._grace = grace
        self._store = store
        self._clock = clock
        self._wall_time = wall_time
        self._left: set[tuple[str, IPAddress]] = set()
        """Pool id and address: allocated, and its endpoint was removed."""
        self._released_at: dict[str, dict[IPAddress, float]] = {}
        """By pool id and address, by our clock."""
        self._to_forget: dict[str, set[IPAddress]] = {}
        """By pool id: what is on disk for nothing."""

    def load(self) -> None:
        """Read the state at start."""
        now, today = self._clock.seconds(), self._wall_time()
        for each in self._store.returned():
            age = today - each.released_at
            if 0 <= age <= self._grace:
                self._released_at.setdefault(each.pool_id, {})[each.address] = now - age
            else:
                self._to_forget.setdefault(each.pool_id, set()).add(each.address)

    def endpoint_left(self, pool_id: str, address: IPAddress) -> None:
        """The endpoint with *address* is gone, and its MAC was made of the address."""
        self._left.add((pool_id, address))

    def to_store(self, pool_id: str, address: IPAddress, is_chosen: bool) -> ReturnedAddress | None:
        """
        What to store when *address* is released, if it comes back.

        :param is_chosen: whether we had chosen it.
        """
        if not (self._grace and is_chosen and (pool_id, address) in self._left):
            return None
        return ReturnedAddress(pool_id, address, self._wall_time())

    def released(self, pool_id: str, address: IPAddress, may_return: bool) -> None:
        self._left.discard((pool_id, address))
        if may_return:
            self._released_at.setdefault(pool_id, {})[address] = self._clock.seconds()

    def only(self, pool_id: str) -> tuple[IPAddress, float] | None:
        """The address for the next request without an address and a name, and when it was released, by our clock."""
        recent = list(self._recent(pool_id).items())
        return recent[0] if len(recent) == 1 else None

    def take(self, pool_id: str, address: IPAddress) -> None:
        """Only one request gets it, even if that fails."""
        self._end(pool_id, address)

    def allocated(self, pool_id: str, address: IPAddress) -> None:
        """*address* has an owner. Succeeds when it had not come back."""
        self._left.discard((pool_id, address))
        self._end(pool_id, address)

    def forgotten(self, pool_id: str) -> tuple[IPAddress, ...]:
        """What the caller is to delete on disk."""
        self._recent(pool_id)
        return tuple(self._to_forget.pop(pool_id, ()))

    def forget_pool(self, pool_id: str) -> None:
        self._released_at.pop(pool_id, None)
        self._to_forget.pop(pool_id, None)
        self._left = {each for each in self._left if each[0] != pool_id}

    def _recent(self, pool_id: str) -> dict[IPAddress, float]:
        earliest = self._clock.seconds() - self._grace
        for address, released_at in list(self._released_at.get(pool_id, {}).items()):
            if released_at < earliest:
                self._end(pool_id, address)
        return self._released_at.get(pool_id, {})

    def _end(self, pool_id: str, address: IPAddress) -> None:
        released_at = self._released_at.get(pool_id, {})
        if released_at.pop(address, None) is not None:
            self._to_forget.setdefault(pool_id, set()).add(address)
        if not released_at:
            self._released_at.pop(pool_id, None)


class PreviousOwners:
    """Tells the three of each allocation and release. The caller stores on disk what they return."""

    def __init__(
        self, by_name: StickyAddresses, by_list: LastAddresses, by_release: ReturnedAddresses
    ) -> None:
        self._by_name = by_name
        self._by_list = by_list
        self._by_release = by_release

    def of_name(self, pool_id: str, name: str) -> StickyAddress | None:
        """What the container of that name had."""
        return self._by_name.of_name(pool_id, name)

    def came_from_other_host(self, sticky: StickyAddress) -> None:
        """A container had *sticky* on another host. The allocation that follows stores it."""
        self._by_name.note(sticky)

    def take_for_unnamed(self, pool_id: str) -> IPAddress | None:
        """
        The address that the container behind a request without a name had before, as far as that is known. Only one request
        gets it, even if that fails.
        """
        address = self._by_list.of_only_absent(pool_id)
        if address is None:
            returned = self._by_release.only(pool_id)
            if returned is None or self._by_list.is_for_another(pool_id, *returned):
                return None
            address = returned[0]
        self._by_release.take(pool_id, address)
        return address

    def addresses(self, pool_ids: Iterable[str]) -> list[SortedList]:
        """The addresses, as numbers, to which their former owners may come back: those of names and of containers."""
        return [
            numbers
            for pool_id in pool_ids
            for source in (self._by_name, self._by_list)
            if (numbers := source.numbers_of(pool_id))
        ]

    def allocated(self, allocation: Allocation, had_before: bool) -> tuple[str, ...]:
        """
        An address is being allocated.

        :param had_before: whether its container had it before.
        :return: the names that are forgotten.
        """
        pool_id, address = allocation.pool_id, allocation.address
        self._by_release.allocated(pool_id, address)
        if allocation.is_chosen:
            self._by_list.allocated(pool_id, address, had_before)
        if allocation.name:
            return self._by_name.note(StickyAddress(pool_id, allocation.name, address, allocation.mac))
        if allocation.purpose == Purpose.ENDPOINT.value:
            return self._by_name.forget_address(pool_id, address)
        return ()

    def not_allocated(self, allocation: Allocation) -> None:
        """The disk has refused."""
        self._by_list.released(allocation.pool_id, allocation.address)

    def endpoint_left(self, pool_id: str, address: IPAddress) -> None:
        """The endpoint with *address* is gone, and its MAC was made of the address."""
        self._by_release.endpoint_left(pool_id, address)

    def returns(self, pool_id: str, address: IPAddress, is_chosen: bool) -> ReturnedAddress | None:
        """
        What to store when *address* is released, if its container may have it back.

        :param is_chosen: whether we had chosen it.
        """
        return self._by_release.to_store(pool_id, address, is_chosen)

    def forgotten_returns(self, pool_id: str) -> tuple[IPAddress, ...]:
        """What does not come back any more, and is to be deleted on disk."""
        return self._by_release.forgotten(pool_id)

    def released(self, pool_id: str, address: IPAddress, may_return: bool) -> None:
        self._by_release.released(pool_id, address, may_return)
        self._by_list.released(pool_id, address)

    def forget_pool(self, pool_id: str) -> None:
        self._by_name.forget_pool(pool_id)
        self._by_release.forget_pool(pool_id)
        self._by_list.forget_pool(pool_id)
