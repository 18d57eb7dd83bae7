"""When the engine last mentioned an endpoint, network or pool: what it mentions still exists for it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager

from .keyed_lock import KeyedLock

ENGINE_PATIENCE = 15.0
"""Seconds for which an engine tries a call before it gives up (docs/reference/protocol)."""


class LastSeen:
    """
    The time of the last call about each id.

    :param seconds: a monotonic clock that stops while the machine sleeps.
    :param is_known: whether an id exists. Unknown ids are not remembered, so that made-up ones take no memory.
    """

    def __init__(self, seconds: Callable[[], float], is_known: Callable[[str], bool]) -> None:
        self._seconds = seconds
        self._is_known = is_known
        self._since = seconds()
        self._last: dict[str, float] = {}
        self._activated: float | None = None
        self._calls: dict[str, int] = {}

    @contextmanager
    def call(self, key: str) -> Iterator[None]:
        """Surround one call about *key*, including the time that it waits for a lock."""
        self._calls[key] = self._calls.get(key, 0) + 1
        try:
            yield
        finally:
            self._calls[key] -= 1
            if not self._calls[key]:
                del self._calls[key]
            self.note(key)

    def note(self, key: str) -> None:
        """The engine mentions *key* now."""
        if self._is_known(key):
            self._last[key] = self._seconds()
        else:
            self._last.pop(key, None)

    def forget(self, key: str) -> None:
        self._last.pop(key, None)

    def idle_for(self, key: str) -> float:
        """Seconds since *key* was last mentioned, or since the start. 0 while a call about it is in progress."""
        if key in self._calls:
            return 0.0
        return self._seconds() - self._last.get(key, self._since)

    def activated(self) -> None:
        """The engine activates the plugin: once in its life, before all other calls."""
        self._activated = self._seconds()

    def is_of_earlier_life(self, key: str) -> bool:
        """Whether the engine has activated the plugin, and has not mentioned *key* since."""
        if self._activated is None or key in self._calls:
            return False
        return key not in self._last or self._last[key] < self._activated

    def mentioned_within(self, key: str, seconds: float) -> bool:
        """Whether *key* was mentioned in the last *seconds*, and since the start."""
        if key in self._calls:
            return True
        return key in self._last and self._seconds() - self._last[key] < seconds


class EngineCalls:
    """
    The engine's calls about endpoints, networks or pools: one at a time for each id, with the time of the last one.

    :param locks: shared with the other parts that change these objects.
    """

    def __init__(self, locks: KeyedLock, last_seen: LastSeen) -> None:
        self.locks = locks
        self.last_seen = last_seen

    @asynccontextmanager
    async def call(self, key: str) -> AsyncIterator[None]:
        """Surround a call about *key*. It waits for earlier calls about the same key."""
        with self.last_seen.call(key):
            async with self.locks.acquire(key):
                yield
