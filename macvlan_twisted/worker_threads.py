"""Threads for calls that block: netlink requests and commits."""

from __future__ import annotations

import threading
from collections.abc import Callable
from itertools import count
from math import inf
from time import monotonic
from typing import Any, Protocol, TypeVar, cast

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.threads import deferToThreadPool
from twisted.python.threadpool import ThreadPool

T = TypeVar("T")


class StuckThread(Exception):
    """A thread does not come back from a call."""


class _Worker(threading.Thread):
    """A thread that :meth:`join` waits for until a moment of :func:`time.monotonic`."""

    join_until = inf

    def join(self, timeout: float | None = None) -> None:
        if timeout is None and self.join_until < inf:
            timeout = max(0.0, self.join_until - monotonic())
        super().join(timeout)


class RunInThread(Protocol):
    """:class:`WorkerThreads`; a test runs the function at once."""

    def __call__(self, function: Callable[..., T], /, *arguments: Any) -> Deferred[T]: ...


class WorkerThreads:
    """
    A :class:`~twisted.python.threadpool.ThreadPool` of a fixed size.

    Before :meth:`start` and after :meth:`stop`, a function runs at once in the calling thread: during startup the reactor
    does not run yet, and a failure must be raised synchronously.

    :param reactor: runs the Deferreds' callbacks (``IReactorFromThreads``).
    :param number: of threads.
    :param name: appears in the names of the threads.
    :param at_exit: is called by each thread as it ends, to close what belongs to the thread.
    :param patience: seconds for which :meth:`stop` blocks.
    :param now: a clock in seconds that stands still while the machine is suspended, for :meth:`longest_wait`.
    """

    def __init__(
        self,
        reactor: Any,
        number: int,
        name: str,
        at_exit: Callable[[], object] = lambda: None,
        patience: float = 10.0,
        now: Callable[[], float] = monotonic,
    ) -> None:
        self._reactor = reactor
        self._number = number
        self.name = f"macvlan-twisted {name}"
        self._at_exit = at_exit
        self._patience = patience
        self._now = now
        self._numbers = count()
        self._pending: dict[int, float] = {}
        """When each function was handed over whose result has not come back, the oldest one first."""
        self._pool: ThreadPool | None = None

    def start(self) -> None:
        """:raises RuntimeError: the system has no thread left; none of ours stays behind."""
        pool = ThreadPool(self._number, self._number, self.name)
        pool.threadFactory = self._thread  # type: ignore[assignment]
        try:
            pool.start()
        except RuntimeError:
            pool.threads = [thread for thread in pool.threads if thread.ident is not None]
            pool.stop()
            raise
        self._pool = pool

    def __call__(self, function: Callable[..., T], /, *arguments: Any) -> Deferred[T]:
        if self._pool is None:
            return maybeDeferred(function, *arguments)
        number = next(self._numbers)
        self._pending[number] = self._now()
        done: Deferred[T] = deferToThreadPool(self._reactor, self._pool, function, *arguments)
        return done.addBoth(self._ended, number)

    def _ended(self, result: T, number: int) -> T:
        del self._pending[number]
        return result

    def longest_wait(self) -> float:
        """For how many seconds the oldest function has been waiting or running; 0 if there is none."""
        return self._now() - next(iter(self._pending.values())) if self._pending else 0.0

    def stop(self) -> None:
        """
        Run the functions that are waiting, then end the threads. Blocks until they have ended.

        :raises StuckThread: one of them does not end.
        """
        pool, self._pool = self._pool, None
        if pool is not None:
            threads = cast("list[_Worker]", list(pool.threads))
            for thread in threads:
                thread.join_until = monotonic() + self._patience
            pool.stop()
            if any(thread.is_alive() for thread in threads):
                raise StuckThread(f"a thread of {self.name} does not come back from the kernel or the disk")

    def _thread(self, target: Callable[[], object], name: str) -> threading.Thread:
        """
        A daemon thread: one that is stuck in a system call does not keep the process from ending when it ends without
        :meth:`stop`.
        """

        def run() -> None:
            try:
                target()
            finally:
                self._at_exit()

        return _Worker(target=run, name=name, daemon=True)
