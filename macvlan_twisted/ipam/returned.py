"""
Addresses that come back to the container that has just left them.

Engines before 29 do not name the container in RequestAddress. In a ``docker restart`` the request follows the release by about
ten milliseconds. So the only address of a pool that was released within the last seconds goes to the next request that names
neither an address nor a container. If several were released, it cannot be known whose request it is.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..addresses import IPAddress
from ..state.interfaces import AddressStore, ReturnedAddress


class ReturnedAddresses:
    """
    What comes back: addresses that we chose, whose endpoint was created and removed, and whose MAC is made of the address, so
    that neighbours' ARP caches stay true. The caller stores each change on disk.

    :param grace: seconds for which a released address comes back; 0: none does.
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

    def released(self, pool_id: str, address: IPAddress, comes_back: bool) -> None:
        self._left.discard((pool_id, address))
        if comes_back:
            self._released_at.setdefault(pool_id, {})[address] = self._clock.seconds()

    def only(self, pool_id: str) -> tuple[IPAddress, float] | None:
        """The address that goes to the next request without an address and a name, and when it was released, by our clock."""
        recent = list(self._recent(pool_id).items())
        return recent[0] if len(recent) == 1 else None

    def take(self, pool_id: str, address: IPAddress) -> None:
        """It goes to one request alone, whatever becomes of that."""
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
