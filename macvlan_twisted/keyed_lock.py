"""A lock for each key: calls that concern the same endpoint, network, pool or parent wait for each other."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from attrs import define, field
from twisted.internet.defer import Deferred


@define(eq=False)
class _Queue:
    is_locked: bool = True
    waiting: deque[Deferred[None]] = field(factory=deque)
    is_waking: bool = False
    """Whether a frame below on the stack is in the loop of :meth:`KeyedLock._release` for this key."""


class KeyedLock:
    """
    Locks by key, in the order of arrival. A lock that nobody holds takes no memory.

    ``DeferredLock`` wakes the next waiter from within ``release``. Hundreds of waiters that finish without waiting would
    exhaust the stack, and the ones behind them would wait for ever. Here a loop wakes them.
    """

    def __init__(self) -> None:
        self._queues: dict[str, _Queue] = {}

    @asynccontextmanager
    async def acquire(self, key: str) -> AsyncIterator[None]:
        """Hold the lock of *key* in the body of ``async with``. A waiter that is cancelled leaves the queue."""
        queue = self._queues.get(key)
        if queue is None:
            queue = self._queues[key] = _Queue()
        elif queue.is_locked or queue.waiting:
            woken: Deferred[None] = Deferred()
            queue.waiting.append(woken)
            try:
                await woken
            except BaseException:  # cancelled
                if woken in queue.waiting:
                    queue.waiting.remove(woken)
                raise
        else:
            queue.is_locked = True
        try:
            yield
        finally:
            self._release(key, queue)

    def _release(self, key: str, queue: _Queue) -> None:
        queue.is_locked = False
        if queue.is_waking:
            return  # the loop below us wakes the next one
        queue.is_waking = True
        try:
            while queue.waiting and not queue.is_locked:
                queue.is_locked = True
                queue.waiting.popleft().callback(None)
        finally:
            queue.is_waking = False
        if not queue.is_locked:
            del self._queues[key]
