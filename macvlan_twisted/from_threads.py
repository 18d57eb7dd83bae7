"""What threads want to be done in the reactor's thread."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from twisted.logger import Logger

_log = Logger(namespace="macvlan_twisted")

_Call = tuple[Callable[..., Any], tuple[Any, ...]]


class FromThreads:
    """
    Calls functions in the reactor's thread, in the order in which threads asked for it.

    The reactor is woken for the first of those that wait, and not again for each: with 32 callers that is worth some
    5 % of their calls.

    :param call_from_thread: ``reactor.callFromThread``.
    """

    def __init__(self, call_from_thread: Callable[..., Any]) -> None:
        self._call_from_thread = call_from_thread
        self._lock = threading.Lock()
        self._waiting: list[_Call] = []

    def __call__(self, function: Callable[..., Any], /, *arguments: Any) -> None:
        with self._lock:
            self._waiting.append((function, arguments))
            is_first = len(self._waiting) == 1
        if is_first:
            self._call_from_thread(self._call_all)

    def _call_all(self) -> None:
        with self._lock:
            waiting, self._waiting = self._waiting, []
        for function, arguments in waiting:
            try:
                function(*arguments)
            except Exception:
                _log.failure("what a thread has done was not understood")
