"""Worker threads: each function runs once, on a thread, and its result arrives in the reactor's thread."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable
from queue import Queue
from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from macvlan_twisted.worker_threads import StuckThread, WorkerThreads

LIMIT = 30.0
"""Seconds after which something that should have happened counts as missing."""


class ManualReactor:
    """Stores the calls from threads until the test runs them."""

    def __init__(self) -> None:
        self.calls: Queue[tuple[Callable[..., Any], tuple[Any, ...]]] = Queue()

    def callFromThread(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.calls.put((function, arguments))

    def turn(self) -> None:
        function, arguments = self.calls.get(timeout=LIMIT)
        function(*arguments)


class WorkerThreadTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.reactor = ManualReactor()
        self.ended: list[threading.Thread] = []
        self.threads = WorkerThreads(
            self.reactor, 2, "test", lambda: self.ended.append(threading.current_thread())
        )
        self.addCleanup(self.threads.stop)

    def done(self, deferred: Deferred[Any]) -> Any:
        self.assertNoResult(deferred)
        self.reactor.turn()
        return self.successResultOf(deferred)

    def used(self, calls: int = 20) -> set[threading.Thread]:
        return {self.done(self.threads(threading.current_thread)) for _ in range(calls)}


class BeforeStartTests(WorkerThreadTestCase):
    def test_function_runs_at_once_in_the_calling_thread(self) -> None:
        found = self.threads(threading.current_thread)
        self.assertIs(self.successResultOf(found), threading.current_thread())
        self.failureResultOf(self.threads(lambda: 1 // 0), ZeroDivisionError)
        self.threads.stop()
        self.assertEqual(self.ended, [])


class RunningTests(WorkerThreadTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.threads.start()

    def test_functions_run_on_a_few_threads_with_a_name(self) -> None:
        """Each has netlink sockets of its own, which are expensive to open."""
        self.assertEqual(self.done(self.threads(lambda *all: all, 1, "two")), (1, "two"))
        threads = self.used()
        self.assertNotIn(threading.current_thread(), threads)
        self.assertLessEqual(len(threads), 2)
        for each in threads:
            self.assertTrue(each.is_alive())
            self.assertIn("macvlan-twisted test", each.name)

    def test_error_fails_the_deferred_and_the_thread_goes_on(self) -> None:
        for _ in range(4):  # more than there are threads
            failed = self.threads(lambda: 1 // 0)
            self.reactor.turn()
            self.failureResultOf(failed, ZeroDivisionError)
        self.assertEqual(self.done(self.threads(lambda: 3)), 3)

    def test_blocked_function_does_not_delay_others(self) -> None:
        blocked = threading.Event()
        first = self.threads(blocked.wait, LIMIT)
        self.assertEqual(self.done(self.threads(lambda: 2)), 2)
        self.assertNoResult(first)
        blocked.set()
        self.assertTrue(self.done(first))


class StopTests(WorkerThreadTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.threads.start()

    def test_stop_waits_for_running_and_queued_functions(self) -> None:
        running, blocked, ended = threading.Semaphore(0), threading.Event(), []

        def work(number: int) -> None:
            running.release()
            blocked.wait(LIMIT)
            ended.append(number)

        for number in range(4):  # two run, two are queued
            self.threads(work, number)
        for _ in range(2):
            running.acquire(timeout=LIMIT)
        threading.Timer(0.05, blocked.set).start()
        self.threads.stop()
        self.assertEqual(sorted(ended), [0, 1, 2, 3])

    def test_stuck_function_does_not_hold_up_the_end(self) -> None:
        running, blocked = threading.Semaphore(0), threading.Event()
        self.addCleanup(blocked.set)
        threads = WorkerThreads(self.reactor, 3, "stuck", patience=0.05)
        threads.start()

        def stuck() -> None:
            running.release()
            blocked.wait(10 * LIMIT)

        for _ in range(3):
            threads(stuck)
            running.acquire(timeout=LIMIT)
        began = time.monotonic()
        self.assertRaises(StuckThread, threads.stop)
        self.assertLess(time.monotonic() - began, 5 * LIMIT)

    def test_threads_end_and_each_cleans_up_after_itself(self) -> None:
        threads = self.used()
        self.threads.stop()
        self.assertFalse(any(each.is_alive() for each in threads))
        self.assertEqual(len(self.ended), 2)
        self.assertLessEqual(threads, set(self.ended))

    def test_functions_run_directly_again_after_the_stop(self) -> None:
        self.threads.stop()
        self.threads.stop()
        found = self.threads(threading.current_thread)
        self.assertIs(self.successResultOf(found), threading.current_thread())


class ExhaustionTests(WorkerThreadTestCase):
    def test_failed_start_leaves_no_thread(self) -> None:
        start, before = threading.Thread.start, threading.active_count()
        for possible in range(2):
            started: list[threading.Thread] = []

            def refuse(
                thread: threading.Thread, possible: int = possible, started: list[threading.Thread] = started
            ) -> None:
                if len(started) == possible:
                    raise RuntimeError("can't start new thread")
                started.append(thread)
                start(thread)

            with self.subTest(possible=possible):
                self.patch(threading.Thread, "start", refuse)
                with self.assertRaisesRegex(RuntimeError, "can't start new thread"):
                    self.threads.start()
                self.patch(threading.Thread, "start", start)
                self.assertEqual(threading.active_count(), before)
                self.assertEqual(self.successResultOf(self.threads(lambda: 1)), 1)


class EndOfProcessTests(SynchronousTestCase):
    """A thread can be stuck in the kernel for good, behind the lock on all links."""

    PROGRAM = """
import threading
import time
from macvlan_twisted.worker_threads import StuckThread, WorkerThreads
threads, running = WorkerThreads(None, 2, "test"), threading.Event()
threads.start()
threads(lambda: (running.set(), threading.Event().wait()))
running.wait()
"""

    def test_stuck_thread_does_not_keep_the_process_alive(self) -> None:
        ended = subprocess.run([sys.executable, "-c", self.PROGRAM], timeout=LIMIT, check=False)
        self.assertEqual(ended.returncode, 0)
