"""
How many addresses are probed ahead: a few, and after a burst of requests as many as came at once.

Address management holds those that it will hand out (:mod:`~macvlan_twisted.ipam.prefetch`), the network driver those that the
engine will (:mod:`~macvlan_twisted.driver.address_prediction`).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

MAX_READY = 8
_FEW_READY = 4
"""Enough for an engine, which starts one container after the other."""
MOST_AT_ONCE = 64
"""Limit of parallel probes, and of the addresses that are held after a burst."""
REMEMBERED = 600.0
"""Seconds for which a burst is remembered."""
_WINDOW = 2.0
"""
In durations of a probe. An allocated address is replaced after one, so that would do if each burst came exactly as the last
one did; the next one may be a little denser.
"""


def ready_target(size: int) -> int:
    """
    How many addresses to hold: 4 to 8, and fewer in a small range, because another host may allocate from the same subnet.

    :param size: how many addresses the range has.
    """
    return max(1, min(_FEW_READY, size // 4), min(MAX_READY, size // 16))


def burst_target(size: int, demand: int, free: int) -> int:
    """
    How many addresses to hold after a burst: as many as were requested, within limits that leave other hosts their share.

    :param size: how many addresses the range has. :param demand: the most requests at once.
    :param free: how many of the addresses are not allocated.
    """
    return max(ready_target(size), min(demand, MOST_AT_ONCE, size // 4, free // 2))


class Demand:
    """
    The most requests within two probes' time, over the last ten minutes.

    Time in which a request waits for a probe does not count: an engine sends the requests of one network one after the other.

    :param probe_seconds: the longest duration of a probe. :param clock: ``IReactorTime``
    """

    def __init__(self, probe_seconds: float, clock: Any) -> None:
        self._window = _WINDOW * probe_seconds
        self._clock = clock
        self._requests: deque[float] = deque(maxlen=MOST_AT_ONCE)
        """When they came, without the time that requests had waited until then."""
        self._bursts: deque[tuple[float, int]] = deque()
        """When, and how many requests. Each is smaller than those before it, so there are at most :data:`MOST_AT_ONCE`."""
        self._waiting = 0
        self._waiting_since = 0.0
        self._waited = 0.0
        self._falling: Any = None
        """The delayed call of :meth:`when_less`."""

    def note(self) -> None:
        """A request comes."""
        now = self._clock.seconds()
        came = (self._waiting_since if self._waiting else now) - self._waited
        self._requests.append(came)
        while self._requests[0] <= came - self._window:
            self._requests.popleft()
        size = len(self._requests)
        while self._bursts and self._bursts[-1][1] <= size:
            self._bursts.pop()
        self._bursts.append((now, size))

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Surround the time in which a request waits for a probe."""
        if not self._waiting:
            self._waiting_since = self._clock.seconds()
        self._waiting += 1
        try:
            yield
        finally:
            self._waiting -= 1
            if not self._waiting:
                self._waited += self._clock.seconds() - self._waiting_since

    def most(self) -> int:
        now = self._clock.seconds()
        while self._bursts and self._bursts[0][0] + REMEMBERED <= now:
            self._bursts.popleft()
        return self._bursts[0][1] if self._bursts else 0

    def falls_in(self) -> float:
        """Seconds until :meth:`most` may be less, if no request comes."""
        return max(0.0, self._bursts[0][0] + REMEMBERED - self._clock.seconds()) if self._bursts else 0.0

    def when_less(self, shrink: Callable[[], None]) -> None:
        """Call *shrink* once, when :meth:`most` may be less. Does nothing if such a call is pending."""

        def fall() -> None:
            self._falling = None
            shrink()

        if self._falling is None:
            self._falling = self._clock.callLater(self.falls_in(), fall)

    def stop(self) -> None:
        """Leave no delayed call behind."""
        if self._falling is not None:
            self._falling.cancel()
            self._falling = None
