"""Group commit: one thread commits for all callers."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from queue import Empty, Queue
from time import monotonic
from typing import Any, cast

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from macvlan_twisted.errors import StateError
from macvlan_twisted.state.database import NETWORKS, POOLS, Change, Database, Put
from macvlan_twisted.state.group_commit import GroupCommit
from macvlan_twisted.worker_threads import WorkerThreads

from .database_cases import LedgerTestCase, opened
from .helpers import fresh_directory


class SlowLedger:
    """Commits when the test opens its gate, and records the groups."""

    def __init__(self) -> None:
        self.gate = threading.Semaphore(0)
        self.begun: Queue[None] = Queue()
        self.commits: list[list[Change]] = []
        self.threads: set[str] = set()
        self.refused: set[str] = set()
        self.closed = False

    def commit(self, changes: Sequence[Change]) -> None:
        self.begun.put(None)
        self.gate.acquire()
        self.threads.add(threading.current_thread().name)
        self.commits.append(list(changes))
        for change in changes:
            if isinstance(change, Put) and change.row[0] in self.refused:
                raise StateError(f"{change.row[0]}: a test refuses it")

    def close(self) -> None:
        self.closed = True


def put(key: str) -> Put:
    return Put(NETWORKS, (key, "{}"))


class WriterTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.database = SlowLedger()
        self.calls: Queue[Callable[[], None]] = Queue()
        self.writer = self.make(cast(Database, self.database))

    def make(self, database: Database) -> GroupCommit:
        return GroupCommit(database, WorkerThreads(self, 1, "state"))

    def callFromThread(self, call: Callable[..., Any], *rest: Any) -> None:
        self.calls.put(lambda: call(*rest))

    def turn_reactor_until(self, *waited: Deferred[Any]) -> None:
        """Run the calls from threads until all of *waited* have fired."""
        until = monotonic() + 20
        while not all(each.called for each in waited):
            try:
                self.calls.get(timeout=max(0.0, until - monotonic()))()
            except Empty:
                self.fail("the writer's thread did not answer")

    def begin(self) -> None:
        """Start the thread, which ends with the test."""
        self.writer.start()
        self.addCleanup(self.close)

    def close(self) -> None:
        for _ in range(100):
            self.database.gate.release()
        self.writer.close()


class GroupTests(WriterTestCase):
    def test_commit_is_synchronous_before_the_start(self) -> None:
        self.database.gate.release()
        self.successResultOf(self.writer.submit([put("a")]))
        self.assertEqual(self.database.commits, [[put("a")]])

    def test_changes_during_a_commit_share_the_next_one_in_order(self) -> None:
        self.begin()
        calls = [self.writer.submit([put("first")])]
        self.database.begun.get(timeout=20)
        calls += [self.writer.submit([put(str(number)), put(f"{number}b")]) for number in range(5)]
        for call in calls:
            self.assertNoResult(call)
        fired_in: list[threading.Thread] = []
        calls[0].addCallback(lambda _: fired_in.append(threading.current_thread()))
        self.database.gate.release()
        self.turn_reactor_until(calls[0])
        self.assertEqual(fired_in, [threading.current_thread()])
        self.assertNoResult(calls[1])
        self.database.gate.release()
        self.turn_reactor_until(*calls)
        self.assertEqual(
            self.database.commits,
            [[put("first")], [put(each) for number in range(5) for each in (str(number), f"{number}b")]],
        )
        (thread,) = self.database.threads
        self.assertIn("macvlan-twisted state", thread)

    def test_failure_of_one_submission_does_not_fail_its_group(self) -> None:
        self.begin()
        self.database.refused.add("bad")
        calls = [self.writer.submit([put("first")])]
        self.database.begun.get(timeout=20)
        calls += [self.writer.submit([put(key)]) for key in ("good", "bad", "better")]
        for _ in range(10):
            self.database.gate.release()
        self.turn_reactor_until(*calls)
        self.failureResultOf(calls.pop(2), StateError)
        for call in calls:
            self.successResultOf(call)
        keys = [[str(change.key[0]) for change in commit] for commit in self.database.commits]
        self.assertEqual(keys, [["first"], ["good", "bad", "better"], ["good"], ["bad"], ["better"]])
        later = self.writer.submit([put("later")])
        self.turn_reactor_until(later)
        self.successResultOf(later)

    def test_close_commits_waiting_changes_and_ends_the_thread(self) -> None:
        self.writer.start()
        calls = [self.writer.submit([put(str(number))]) for number in range(5)]
        self.close()
        self.assertTrue(self.database.closed)
        self.assertEqual(sum(len(group) for group in self.database.commits), 5)
        self.turn_reactor_until(*calls)
        for call in calls:
            self.successResultOf(call)
        self.assertFalse([each for each in threading.enumerate() if "macvlan-twisted state" in each.name])

    def test_close_without_start_closes_the_database(self) -> None:
        self.writer.close()
        self.assertTrue(self.database.closed)


class RealLedgerTests(WriterTestCase):
    def test_hundreds_of_submissions_need_few_commits(self) -> None:
        directory = fresh_directory(self)
        database = opened(directory)
        self.writer = self.make(database)
        self.writer.start()
        calls = [self.writer.submit([Put(POOLS, (f"p{number}", "{}"))]) for number in range(300)]
        self.turn_reactor_until(*calls)
        for call in calls:
            self.successResultOf(call)
        self.assertLess(database.generation, 200)
        self.writer.close()
        again = opened(directory)
        self.addCleanup(again.close)
        self.assertEqual(len(again.rows(POOLS)), 300)

    def test_failed_group_leaves_no_rows(self) -> None:
        directory = fresh_directory(self)
        database = opened(directory)
        self.writer = self.make(database)
        connection = LedgerTestCase.connection_of(database)
        (pages,) = connection.execute("PRAGMA page_count").fetchone()
        connection.execute(f"PRAGMA max_page_count = {pages}")
        self.writer.start()
        call = self.writer.submit([Put(POOLS, (f"p{number}", "x" * 5000)) for number in range(9)])
        call.addErrback(lambda failure: failure.trap(StateError))
        self.turn_reactor_until(call)
        self.writer.close()
        again = opened(directory)
        self.addCleanup(again.close)
        self.assertEqual(again.rows(POOLS), [])
