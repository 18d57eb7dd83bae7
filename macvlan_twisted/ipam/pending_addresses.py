"""Allocated container addresses that have no endpoint, and since when."""

from __future__ import annotations

from collections.abc import Callable


class PendingAddresses:
    """
    By pool and number. A new allocation of the same address starts at age zero.

    :param seconds: a monotonic clock.
    """

    def __init__(self, seconds: Callable[[], float]) -> None:
        self._seconds = seconds
        self._since: dict[tuple[str, int], float] = {}

    def begin(self, pool_id: str, number: int) -> None:
        self._since.pop((pool_id, number), None)  # so that the oldest stay first
        self._since[pool_id, number] = self._seconds()

    def end(self, pool_id: str, number: int) -> None:
        """The address has an endpoint, or was released. Succeeds when it is not pending."""
        self._since.pop((pool_id, number), None)

    def end_pool(self, pool_id: str) -> None:
        for key in [each for each in self._since if each[0] == pool_id]:
            del self._since[key]

    def since(self, pool_id: str, number: int) -> float | None:
        return self._since.get((pool_id, number))

    def age(self, pool_id: str, number: int) -> float:
        """Seconds for which an address has been pending; 0 when it is not."""
        since = self._since.get((pool_id, number))
        return 0.0 if since is None else self._seconds() - since

    def longer_than(self, seconds: float) -> list[tuple[str, int]]:
        """The addresses that have been pending for at least *seconds*, the oldest first."""
        latest, found = self._seconds() - seconds, []
        for key, since in self._since.items():
            if since > latest:
                break
            found.append(key)
        return found
