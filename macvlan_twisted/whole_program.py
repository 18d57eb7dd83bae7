"""What only a whole program may decide, and a service within another one may not: signals, and memory."""

from __future__ import annotations

import gc
import signal
from contextlib import suppress
from typing import Any

from twisted.internet.error import ReactorNotRunning


def spare_garbage_collection() -> None:
    """Full collections of what lives as long as the program made outliers of 23-39 ms (measured)."""
    gc.collect()
    gc.freeze()


def exit_with_zero_on_signals(reactor: Any) -> None:
    """
    A stop that was asked for and went well ends with status 0.

    twistd would end itself by the signal that the reactor's own handlers remember. Only the whole program
    may decide that, so a service embedded by :func:`~macvlan_twisted.service.make_macvlan_service` does not.
    """

    def stop(number: int, frame: object) -> None:
        reactor.callFromThread(_stop_if_running, reactor)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)


def _stop_if_running(reactor: Any) -> None:
    with suppress(ReactorNotRunning):  # a second signal while we stop
        reactor.stop()
