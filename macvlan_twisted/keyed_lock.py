"""One at a time for one key: what concerns one endpoint, network or parent waits for its turn."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from attrs import define, field
from twisted.internet.defer import Deferred


@define(eq=False)
class _Line:
    taken: bool = True
    waiting: deque[Deferred[None]] = field(factory=deque)
    is_handed_on: bool = False
    """Whether somebody's end is just now the next one's turn."""


class KeyedLock:
    """
    Locks by key, made when first wanted and forgotten when nobody waits.

    A ``DeferredLock`` calls the next one from within the release of the one before: hundreds who wait, and have
    nothing to wait for when it is their turn, would exhaust the stack, and those behind them wait for ever.
    """

    def __init__(self) -> None:
        self._locks: dict[str, _Line] = {}

    @asynccontextmanager
    async def acquire(self, key: str) -> AsyncIterator[None]:
        line = self._locks.get(key)
        if line is None:
            line = self._locks[key] = _Line()
        elif line.taken or line.waiting:
            turn: Deferred[None] = Deferred()
            line.waiting.append(turn)
            try:
                await turn
            except BaseException:  # cancelled
                if turn in line.waiting:
                    line.waiting.remove(turn)
                raise
        else:
            line.taken = True
        try:
            yield
        finally:
            self._end(key, line)

    def _end(self, key: str, line: _Line) -> None:
        line.taken = False
        if line.is_handed_on:
            return  # by the one whose end this turn began with
        line.is_handed_on = True
        try:
            while line.waiting and not line.taken:
                line.taken = True
                line.waiting.popleft().callback(None)
        finally:
            line.is_handed_on = False
        if not line.taken:
            del self._locks[key]
