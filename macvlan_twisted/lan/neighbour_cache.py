"""The addresses that neighbours claimed, with their MACs, and when."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator

from attrs import frozen

from ..addresses import IPAddress

OLDEST = 300.0
"""Seconds after which an entry is no evidence any more: the host may have left."""
MOST = 65536
"""Most entries; the oldest are dropped. A hostile neighbour may claim 2**64 addresses."""


@frozen
class Neighbour:
    mac: str
    seen_at: float
    """In seconds, by the caller's clock."""


class NeighbourCache:
    """Limited in size and age. Time is an argument."""

    def __init__(self, most: int = MOST, oldest: float = OLDEST) -> None:
        self._most = most
        self._oldest = oldest
        self._entries: OrderedDict[IPAddress, Neighbour] = OrderedDict()  # the newest is at the end

    def note(self, address: IPAddress, mac: str, now: float) -> None:
        self._entries[address] = Neighbour(mac, now)
        self._entries.move_to_end(address)
        if len(self._entries) > self._most:
            self._entries.popitem(last=False)

    def known(self, address: IPAddress, now: float) -> Neighbour | None:
        found = self._entries.get(address)
        # An entry from the future is from before the clock was set back.
        if found is not None and not 0 <= now - found.seen_at <= self._oldest:
            del self._entries[address]
            return None
        return found

    def addresses(self, now: float) -> Iterator[IPAddress]:
        """The addresses that are known."""
        return (address for address in tuple(self._entries) if self.known(address, now) is not None)

    def forget(self, address: IPAddress) -> None:
        self._entries.pop(address, None)

    def clear(self) -> None:
        self._entries.clear()

    def __len__(self) -> int:
        return len(self._entries)
