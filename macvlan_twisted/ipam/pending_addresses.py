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
        self._had_endpoint: set[tuple[str, int]] = set()

    def begin(self, pool_id: str, number: int, had_endpoint: bool = False) -> None:
        """:param had_endpoint: whether its endpoint was removed; else CreateEndpoint may be about to come."""
        self._since.pop((pool_id, number), None)  # so that the oldest stay first
        self._since[pool_id, number] = self._seconds()
        self._had_endpoint.discard((pool_id, number))
        if had_endpoint:
            self._had_endpoint.add((pool_id, number))

    def end(self, pool_id: str, number: int) -> None:
        """The address has an endpoint, or was released. Succeeds when it is not pending."""
        self._since.pop((pool_id, number), None)
        self._had_endpoint.discard((pool_id, number))

    def end_pool(self, pool_id: str) -> None:
        for key in [each for each in self._since if each[0] == pool_id]:
            self.end(*key)

    def since(self, pool_id: str, number: int) -> float | None:
        return self._since.get((pool_id, number))

    def is_abandoned(self, pool_id: str, number: int, seconds: float) -> bool:
        """Whether the endpoint of an address was removed, or none came for it in so many *seconds*."""
        key = (pool_id, number)
        since = self._since.get(key)
        return since is not None and (key in self._had_endpoint or self._seconds() - since >= seconds)

    def longer_than(self, seconds: float) -> list[tuple[str, int]]:
        """The addresses that have been pending for at least *seconds*, the oldest first."""
        latest, found = self._seconds() - seconds, []
        for key, since in self._since.items():
            if since > latest:
                break
            found.append(key)
        return found
