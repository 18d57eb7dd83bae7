"""The threads on which the kernel is asked."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.interfaces import IReactorFromThreads
from twisted.internet.threads import deferToThreadPool
from twisted.python.threadpool import ThreadPool

T = TypeVar("T")


class KernelThreads:
    """
    A pool of threads that are kept, since each has a netlink socket of its own.

    Before :meth:`start` functions run at once and block: that is for the time before we listen.
    """

    def __init__(self, reactor: IReactorFromThreads, number: int) -> None:
        self._reactor = reactor
        self._pool = ThreadPool(number, number, "macvlan-twisted netlink")
        self._started = False

    def start(self) -> None:
        self._pool.start()
        self._started = True

    def __call__(self, function: Callable[..., T], /, *arguments: Any) -> Deferred[T]:
        if not self._started:
            return maybeDeferred(function, *arguments)
        return deferToThreadPool(self._reactor, self._pool, function, *arguments)

    def stop(self) -> None:
        """Wait for the functions that run, and end the threads."""
        if self._started:
            self._started = False
            self._pool.stop()
