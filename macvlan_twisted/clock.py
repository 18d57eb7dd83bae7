"""The clock of the whole service, which nobody sets, and its timers."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable, Sequence
from itertools import count
from math import inf
from time import CLOCK_BOOTTIME, clock_gettime
from typing import Any

from sortedcontainers import SortedList
from twisted.internet.base import DelayedCall
from twisted.internet.interfaces import IDelayedCall, IReactorTime, IReadDescriptor
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

_log = Logger(namespace="macvlan_twisted")

_LIBC = ctypes.CDLL(None, use_errno=True)
_TimerSpec = ctypes.c_long * 4
"""``struct itimerspec``: seconds and nanoseconds of the interval, and of the time until the timer expires."""


@implementer(IReactorTime, IReadDescriptor)
class BootTimeClock:
    """
    Measures by ``CLOCK_BOOTTIME``, and calls later by that clock.

    The reactor measures by the time of day: set back by an hour, it calls an hour late. Here a timerfd wakes the
    reactor, whatever the time of day. ``CLOCK_BOOTTIME`` goes on while the machine is suspended, as the lease of a DHCP
    server does. What came due in the meantime is called when the machine resumes.

    :param reactor: ``IReactorFDSet``
    """

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self._calls: Any = SortedList()
        """Of each pending call: when it is due, a number that keeps the order, and the call."""
        self._entries: dict[DelayedCall, tuple[float, int, DelayedCall]] = {}
        self._numbers = count()
        self._descriptor = -1
        self._set_to = inf
        """When the timer expires."""
        self._has_expired = False

    def start(self) -> None:
        """
        Begin to call what is due.

        :raises OSError: the system has no descriptor left.
        """
        self._descriptor = _timerfd_create()
        self._reactor.addReader(self)
        self._set_timer()

    def stop(self) -> None:
        """Cancel what is pending."""
        for call in list(self._entries):
            call.cancel()
        if self._descriptor != -1:
            self._reactor.removeReader(self)  # before the descriptor is reused
            os.close(self._descriptor)
            self._descriptor = -1
            self._set_to = inf

    # IReactorTime.

    def seconds(self) -> float:
        """Since the machine booted."""
        return clock_gettime(CLOCK_BOOTTIME)

    def callLater(self, delay: float, function: Callable[..., object], *args: object, **kw: object) -> Any:
        assert delay >= 0, f"{delay} is not greater than or equal to 0 seconds"
        call = DelayedCall(
            self.seconds() + delay, function, args, kw, self._remove, self._move_sooner, self.seconds
        )
        self._add(call)
        self._set_timer()
        return call

    def getDelayedCalls(self) -> Sequence[IDelayedCall]:
        return [call for _, _, call in self._calls]

    def _add(self, call: DelayedCall) -> None:
        entry = self._entries[call] = (call.time, next(self._numbers), call)
        self._calls.add(entry)

    def _remove(self, call: DelayedCall) -> None:
        self._calls.remove(self._entries.pop(call))

    def _move_sooner(self, call: DelayedCall) -> None:
        self._remove(call)
        self._add(call)
        self._set_timer()

    # The timer.

    def _set_timer(self) -> None:
        due = self._calls[0][0] if self._calls else inf
        if self._descriptor != -1 and due < self._set_to:
            _timerfd_settime(self._descriptor, max(0.0, due - self.seconds()))
            self._set_to = due

    def _call_due(self) -> None:
        # What these calls add is for the next turn, as in the reactor's own queue.
        until = (self.seconds(), next(self._numbers))
        while self._calls and self._calls[0] < until:
            call = self._calls.pop(0)[2]
            del self._entries[call]
            if call.delayed_time > 0:  # it was postponed
                call.activate_delay()
                self._add(call)
                continue
            call.called = 1
            try:
                call.func(*call.args, **call.kw)
            except Exception:
                _log.failure("delayed call: failed")

    # IReadDescriptor.

    def fileno(self) -> int:
        return self._descriptor

    def logPrefix(self) -> str:
        return "clock"

    def doRead(self) -> None:
        """
        The timer has expired. Calls wait for the reactor's next turn: frames and requests that arrived in time are read
        before.
        """
        if not self._has_expired:
            self._has_expired = True
            return
        self._has_expired = False
        os.read(self._descriptor, 8)
        self._set_to = inf
        self._call_due()
        self._set_timer()

    def connectionLost(self, reason: Failure) -> None:
        """The reactor stops."""
        self.stop()


# Python has these functions from 3.13 on.


def _timerfd_create() -> int:
    """
    A timer of ``CLOCK_BOOTTIME``.

    :raises OSError: the kernel refuses.
    """
    return _checked(_LIBC.timerfd_create(CLOCK_BOOTTIME, os.O_CLOEXEC | os.O_NONBLOCK))


def _timerfd_settime(descriptor: int, delay: float) -> None:
    """
    Let the timer expire once, after *delay* seconds.

    :raises OSError: the kernel refuses.
    """
    # A nanosecond more: a timer of 0 is switched off, and none is to expire early.
    seconds, nanoseconds = divmod(int(delay * 1e9) + 1, 10**9)
    _checked(_LIBC.timerfd_settime(descriptor, 0, _TimerSpec(0, 0, seconds, nanoseconds), None))


def _checked(result: int) -> int:
    if result == -1:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result
