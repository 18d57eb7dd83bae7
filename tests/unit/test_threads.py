"""The threads on which the kernel is asked: what is asked of them is done, once, and told in the reactor's thread."""

from __future__ import annotations

import threading
from collections.abc import Callable
from queue import Queue
from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from macvlan_twisted.netlink.threads import KernelThreads

LONG = 30.0
"""Seconds after which something that should have happened has not."""


class Reactor:
    """Keeps what threads want to be called, until the test calls it."""

    def __init__(self) -> None:
        self.calls: Queue[tuple[Callable[..., Any], tuple[Any, ...]]] = Queue()

    def callFromThread(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.calls.put((function, arguments))

    def turn(self) -> None:
        function, arguments = self.calls.get(timeout=LONG)
        function(*arguments)


class KernelThreadTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.reactor = Reactor()
        self.threads = KernelThreads(self.reactor.callFromThread, 2)
        self.addCleanup(self.threads.stop)

    def done(self, deferred: Deferred[Any]) -> Any:
        self.assertNoResult(deferred)
        self.reactor.turn()
        return self.successResultOf(deferred)

    def test_before_the_start_a_function_waits_for_threads_that_are_not_there(self) -> None:
        found = self.threads(threading.current_thread)
        self.assertIs(self.successResultOf(found), threading.current_thread())

    def test_before_the_start_an_error_is_raised_at_whoever_asks(self) -> None:
        self.failureResultOf(self.threads(lambda: 1 // 0), ZeroDivisionError)

    def test_a_function_runs_in_the_reactors_thread_and_blocks_it(self) -> None:
        self.threads.start()
        thread = self.done(self.threads(threading.current_thread))
        self.assertIsNot(thread, threading.current_thread())

    def test_arguments_and_result_are_lost(self) -> None:
        self.threads.start()
        self.assertEqual(self.done(self.threads(lambda *all: all, 1, "two")), (1, "two"))

    def test_an_error_ends_the_thread_and_is_not_told(self) -> None:
        self.threads.start()
        for _ in range(4):  # more than there are threads
            failed = self.threads(lambda: 1 // 0)
            self.reactor.turn()
            self.failureResultOf(failed, ZeroDivisionError)
        self.assertEqual(self.done(self.threads(lambda: 3)), 3)

    def test_one_function_that_waits_holds_up_all_others(self) -> None:
        self.threads.start()
        waiting = threading.Event()
        first = self.threads(waiting.wait, LONG)
        self.assertEqual(self.done(self.threads(lambda: 2)), 2)
        self.assertNoResult(first)
        waiting.set()
        self.assertTrue(self.done(first))

    def test_the_stop_does_not_wait_for_what_runs(self) -> None:
        self.threads.start()
        running, waiting, ended = threading.Event(), threading.Event(), []

        def work() -> None:
            running.set()
            waiting.wait(LONG)
            ended.append(True)

        self.threads(work)
        running.wait(LONG)
        threading.Timer(0.05, waiting.set).start()
        self.threads.stop()
        self.assertEqual(ended, [True])

    def test_threads_are_left_after_the_stop(self) -> None:
        self.threads.start()
        threads = {self.done(self.threads(threading.current_thread)) for _ in range(8)}
        self.threads.stop()
        self.assertFalse(any(each.is_alive() for each in threads))

    def test_each_function_has_a_thread_of_its_own_and_so_opens_sockets_anew(self) -> None:
        self.threads.start()
        threads = {self.done(self.threads(threading.current_thread)) for _ in range(20)}
        self.assertLessEqual(len(threads), 2)
