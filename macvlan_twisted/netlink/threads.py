"""The threads on which the kernel is asked."""

from __future__ import annotations

import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, TypeVar

from attrs import frozen
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.python.failure import Failure

T = TypeVar("T")


@frozen
class _Work:
    function: Callable[..., Any]
    arguments: tuple[Any, ...]
    done: Deferred[Any]


class KernelThreads:
    """
    Threads that are kept, since each has netlink sockets of its own.

    Before :meth:`start` functions run at once and block: that is for the time before we listen. Twisted's pool of threads
    can grow and shrink, and takes half as long again for a round trip.

    :param call_in_reactor: like ``reactor.callFromThread``.
    """

    def __init__(self, call_in_reactor: Callable[..., Any], number: int) -> None:
        self._call_in_reactor = call_in_reactor
        self._number = number
        self._waiting: SimpleQueue[_Work | None] = SimpleQueue()
        self._threads: list[threading.Thread] = []

    def start(self) -> None:
        for number in range(self._number):
            thread = threading.Thread(
                target=self._work, name=f"macvlan-twisted netlink-{number}", daemon=True
            )
            thread.start()
            self._threads.append(thread)

    def __call__(self, function: Callable[..., T], /, *arguments: Any) -> Deferred[T]:
        if not self._threads:
            return maybeDeferred(function, *arguments)
        done: Deferred[T] = Deferred()
        self._waiting.put(_Work(function, arguments, done))
        return done

    def stop(self) -> None:
        """Wait for the functions that run, and end the threads."""
        threads, self._threads = self._threads, []
        for _ in threads:
            self._waiting.put(None)
        for thread in threads:
            thread.join()

    def _work(self) -> None:
        while True:
            work = self._waiting.get()
            if work is None:
                return
            try:
                result = work.function(*work.arguments)
            except BaseException:
                result = Failure()
            self._call_in_reactor(work.done.callback, result)  # a Failure is told as an error
