"""When the engine was last heard of something: what it speaks of, it has not forgotten."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager

from .keyed_lock import KeyedLock


class LastSeen:
    """
    Of endpoints, networks or pools, by their ids.

    :param seconds: a clock that never goes back and stands still while the machine sleeps.
    :param is_known: whether there is such a thing; of others nothing is kept.
    """

    def __init__(self, seconds: Callable[[], float], is_known: Callable[[str], bool]) -> None:
        self._seconds = seconds
        self._is_known = is_known
        self._since = seconds()
        self._last: dict[str, float] = {}
        self._under_way: dict[str, int] = {}

    @contextmanager
    def call(self, key: str) -> Iterator[None]:
        """Around all that is done for one call about *key*, also while it waits for its turn."""
        self._under_way[key] = self._under_way.get(key, 0) + 1
        try:
            yield
        finally:
            self._under_way[key] -= 1
            if not self._under_way[key]:
                del self._under_way[key]
            self.note(key)

    def note(self, key: str) -> None:
        if self._is_known(key):
            self._last[key] = self._seconds()
        else:
            self._last.pop(key, None)

    def forget(self, key: str) -> None:
        self._last.pop(key, None)

    def idle_for(self, key: str) -> float:
        """For how many seconds nothing was heard of *key*: at most since the start, 0 while a call is under way."""
        if key in self._under_way:
            return 0.0
        return self._seconds() - self._last.get(key, self._since)


class EngineCalls:
    """
    The engine's calls about endpoints, networks or pools: one at a time for each id, and when the last one came.

    :param locks: shared with whoever else changes these things.
    """

    def __init__(self, locks: KeyedLock, last_seen: LastSeen) -> None:
        self.locks = locks
        self.last_seen = last_seen

    @asynccontextmanager
    async def call(self, key: str) -> AsyncIterator[None]:
        """Around a call about *key*: wait for the calls before it."""
        with self.last_seen.call(key):
            async with self.locks.acquire(key):
                yield
