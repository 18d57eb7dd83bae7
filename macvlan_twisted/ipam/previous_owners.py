"""Whose each address was before: by the container's name, by the engine's lists, and by a release a moment ago."""

from __future__ import annotations

from collections.abc import Iterable

from sortedcontainers import SortedList

from ..addresses import IPAddress
from ..state.interfaces import Allocation, ReturnedAddress, StickyAddress
from .last_addresses import LastAddresses
from .requests import Purpose
from .returned import ReturnedAddresses
from .sticky_addresses import StickyAddresses


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

    def take_for_nameless(self, pool_id: str) -> IPAddress | None:
        """
        The address of the container that has just requested one without naming itself, as far as that is known. It goes to one
        request alone, whatever becomes of that.
        """
        address = self._by_list.of_only_absent(pool_id)
        if address is None:
            returned = self._by_release.only(pool_id)
            if returned is None or self._by_list.is_for_another(pool_id, *returned):
                return None
            address = returned[0]
        self._by_release.take(pool_id, address)
        return address

    def kept(self, pool_ids: Iterable[str]) -> list[SortedList]:
        """The addresses, as numbers, to which their former owners may come back: those of names and of containers."""
        kept = [
            source.numbers_of(pool_id) for pool_id in pool_ids for source in (self._by_name, self._by_list)
        ]
        return [numbers for numbers in kept if numbers]

    def allocated(self, allocation: Allocation, came_back: bool) -> tuple[str, ...]:
        """
        An address is being allocated.

        :param came_back: whether its container had it before.
        :return: the names that are forgotten.
        """
        pool_id, address = allocation.pool_id, allocation.address
        self._by_release.allocated(pool_id, address)
        if allocation.is_chosen:
            self._by_list.allocated(pool_id, address, came_back)
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

    def released(self, pool_id: str, address: IPAddress, comes_back: bool) -> None:
        self._by_release.released(pool_id, address, comes_back)
        self._by_list.released(pool_id, address)

    def forget_pool(self, pool_id: str) -> None:
        self._by_name.forget_pool(pool_id)
        self._by_release.forget_pool(pool_id)
        self._by_list.forget_pool(pool_id)
