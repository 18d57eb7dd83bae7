"""When the reconciler runs."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import LoopingCall

from .reconciler import GracePeriods, Reconciler


class ReconcileLoop:
    """
    Runs the first round after some seconds, and then one at each interval. With an interval of 0 it runs a single round,
    when all that was there at the start is old enough.

    :param interval: in seconds.
    :param clock: ``IReactorTime`` of a clock that is never set.
    """

    def __init__(
        self, reconciler: Reconciler, interval: float, grace_periods: GracePeriods, clock: Any
    ) -> None:
        self._reconciler = reconciler
        self._interval = interval
        self._grace = grace_periods
        self._clock = clock
        self._first: Any = None
        self._rounds: LoopingCall | None = None
        self._round: Deferred[None] | None = None

    def start(self) -> None:
        delay = max(self._grace.first, 0 if self._interval else self._grace.idle)
        self._first = self._clock.callLater(delay, self._start_rounds)

    def _start_rounds(self) -> None:
        self._first = None
        if not self._interval:
            self._run()
            return
        self._rounds = LoopingCall(self._run)
        self._rounds.clock = self._clock
        self._rounds.start(self._interval)

    def _run(self) -> Deferred[None]:
        self._round = self._reconciler.run_logged()
        return self._round.addCallback(self._round_ended)

    def _round_ended(self, result: None) -> None:
        self._round = None

    async def stop(self) -> None:
        """Finish a removal that has begun."""
        if self._first is not None:
            self._first.cancel()
            self._first = None
        if self._rounds is not None and self._rounds.running:
            self._rounds.stop()
        current = self._round
        if current is None:
            return
        if not self._reconciler.is_removing:
            current.cancel()
            return
        finished: Deferred[None] = Deferred()
        current.addBoth(lambda _: finished.callback(None))
        await finished
