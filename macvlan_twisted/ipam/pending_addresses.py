"""Addresses that were handed out to containers, and have no endpoint: since when."""

from __future__ import annotations

from collections.abc import Callable


class PendingAddresses:
    """
    By pool and number. What begins to wait anew has not waited yet: the age is that of the claim, not of the number.

    :param seconds: a clock that never goes back.
    """

    def __init__(self, seconds: Callable[[], float]) -> None:
        self._seconds = seconds
        self._since: dict[tuple[str, int], float] = {}

    def begin(self, pool_id: str, number: int) -> None:
        self._since.pop((pool_id, number), None)  # so that the oldest stay first
        self._since[pool_id, number] = self._seconds()

    def end(self, pool_id: str, number: int) -> None:
        """It has an endpoint, or is free. Succeeds when it did not wait."""
        self._since.pop((pool_id, number), None)

    def end_pool(self, pool_id: str) -> None:
        for key in [each for each in self._since if each[0] == pool_id]:
            del self._since[key]

    def since(self, pool_id: str, number: int) -> float | None:
        return self._since.get((pool_id, number))

    def longer_than(self, seconds: float) -> list[tuple[str, int]]:
        """Those that have waited for so long, the longest first."""
        latest, found = self._seconds() - seconds, []
        for key, since in self._since.items():
            if since > latest:
                break
            found.append(key)
        return found
