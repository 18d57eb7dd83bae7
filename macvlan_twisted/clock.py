"""A clock for what must not notice that somebody sets the time of day."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from time import monotonic
from typing import Any

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from zope.interface import implementer


@implementer(IReactorTime)
class MonotonicClock:
    """
    The reactor's timers with ``CLOCK_MONOTONIC``. Twisted's reactors measure by ``time.time``, which jumps.

    ``getTime`` of a delayed call is still in the reactor's own time. Use ``reset``, ``delay`` and ``cancel``.
    """

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor

    def seconds(self) -> float:
        return monotonic()

    def callLater(self, delay: float, function: Callable[..., object], *args: object, **kw: object) -> Any:
        return self._reactor.callLater(delay, function, *args, **kw)

    def getDelayedCalls(self) -> Sequence[IDelayedCall]:
        calls: Sequence[IDelayedCall] = self._reactor.getDelayedCalls()
        return calls
