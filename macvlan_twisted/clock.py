"""Clocks that do not notice when somebody sets the time of day."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from time import clock_gettime
from typing import Any

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from zope.interface import implementer


@implementer(IReactorTime)
class ReactorClock:
    """
    The reactor's timers with a clock of the kernel. Twisted's reactors measure by ``time.time``, which jumps.

    ``getTime`` of a delayed call is still in the reactor's own time. Use ``reset``, ``delay`` and ``cancel``.

    :param clock_id: ``time.CLOCK_BOOTTIME``, which goes on while the machine is suspended, as the lease of a DHCP server does;
        or ``time.CLOCK_MONOTONIC``, which stands still, as the engine does.
    """

    def __init__(self, reactor: Any, clock_id: int) -> None:
        self._reactor = reactor
        self._clock_id = clock_id

    def seconds(self) -> float:
        return clock_gettime(self._clock_id)

    def callLater(self, delay: float, function: Callable[..., object], *args: object, **kw: object) -> Any:
        return self._reactor.callLater(delay, function, *args, **kw)

    def getDelayedCalls(self) -> Sequence[IDelayedCall]:
        calls: Sequence[IDelayedCall] = self._reactor.getDelayedCalls()
        return calls
