"""The thread that commits for all who wait."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from queue import Empty, Queue
from time import monotonic
from typing import Any, cast

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from macvlan_twisted.errors import StateFailed
from macvlan_twisted.state.ledger import NETWORKS, POOLS, Change, Ledger, Put
from macvlan_twisted.state.writer import Writer

from .helpers import fresh_directory
from .ledger_cases import LedgerTestCase


class SlowLedger:
    """Commits when the test opens its gate; remembers in which groups."""

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
                raise StateFailed(f"{change.row[0]}: a test refuses it")

    def close(self) -> None:
        self.closed = True


def put(key: str) -> Put:
    return Put(NETWORKS, (key, "{}"))


class WriterTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.ledger = SlowLedger()
        self.reactor: Queue[Callable[[], None]] = Queue()
        self.writer = self.make(cast(Ledger, self.ledger))

    def make(self, ledger: Ledger) -> Writer:
        return Writer(ledger, lambda call, *rest: self.reactor.put(lambda: call(*rest)))

    def turn_reactor_until(self, *waited: Deferred[Any]) -> None:
        """Run what was called from threads until all of *waited* have fired."""
        until = monotonic() + 20
        while not all(each.called for each in waited):
            try:
                self.reactor.get(timeout=max(0.0, until - monotonic()))()
            except Empty:
                self.fail("the writer's thread did not answer")

    def close(self) -> None:
        for _ in range(100):
            self.ledger.gate.release()
        self.writer.close()


class GroupTests(WriterTestCase):
    def test_before_the_start_a_commit_is_done_at_once(self) -> None:
        self.ledger.gate.release()
        self.successResultOf(self.writer.submit([put("a")]))
        self.assertEqual(self.ledger.commits, [[put("a")]])

    def test_what_comes_during_a_commit_shares_the_next_one_in_order(self) -> None:
        self.writer.start()
        self.addCleanup(self.close)
        calls = [self.writer.submit([put("first")])]
        self.ledger.begun.get(timeout=20)
        calls += [self.writer.submit([put(str(number)), put(f"{number}b")]) for number in range(5)]
        for call in calls:
            self.assertNoResult(call)
        self.ledger.gate.release()
        self.turn_reactor_until(calls[0])
        self.assertNoResult(calls[1])
        self.ledger.gate.release()
        self.turn_reactor_until(*calls)
        self.assertEqual(
            self.ledger.commits,
            [[put("first")], [put(each) for number in range(5) for each in (str(number), f"{number}b")]],
        )
        self.assertEqual(self.ledger.threads, {"macvlan-twisted state"})

    def test_deferreds_fire_in_the_reactors_thread_only(self) -> None:
        self.writer.start()
        self.addCleanup(self.close)
        fired_in: list[threading.Thread] = []
        call = self.writer.submit([put("a")])
        call.addCallback(lambda _: fired_in.append(threading.current_thread()))
        self.ledger.gate.release()
        self.turn_reactor_until(call)
        self.assertEqual(fired_in, [threading.current_thread()])

    def test_a_refused_commit_is_told_and_the_thread_goes_on(self) -> None:
        self.writer.start()
        self.addCleanup(self.close)
        self.ledger.refused.add("bad")
        for _ in range(10):
            self.ledger.gate.release()
        bad = self.writer.submit([put("bad")])
        bad.addErrback(lambda failure: failure.trap(StateFailed))
        self.turn_reactor_until(bad)
        self.assertIs(self.successResultOf(bad), StateFailed)
        good = self.writer.submit([put("good")])
        self.turn_reactor_until(good)
        self.successResultOf(good)

    def test_closing_writes_what_was_submitted_and_ends_the_thread(self) -> None:
        self.writer.start()
        calls = [self.writer.submit([put(str(number))]) for number in range(5)]
        self.close()
        self.assertTrue(self.ledger.closed)
        self.assertEqual(sum(len(group) for group in self.ledger.commits), 5)
        self.turn_reactor_until(*calls)
        for call in calls:
            self.successResultOf(call)
        self.assertNotIn("macvlan-twisted state", {each.name for each in threading.enumerate()})

    def test_closing_one_that_was_never_started(self) -> None:
        self.writer.close()
        self.assertTrue(self.ledger.closed)


class RealLedgerTests(WriterTestCase):
    def test_hundreds_of_submissions_are_all_on_disk_in_few_commits(self) -> None:
        directory = fresh_directory(self)
        ledger = Ledger(directory)
        self.writer = self.make(ledger)
        self.writer.start()
        calls = [self.writer.submit([Put(POOLS, (f"p{number}", "{}"))]) for number in range(300)]
        self.turn_reactor_until(*calls)
        for call in calls:
            self.successResultOf(call)
        self.assertLess(ledger.generation, 200)
        self.writer.close()
        again = Ledger(directory)
        self.addCleanup(again.close)
        self.assertEqual(len(again.rows(POOLS)), 300)

    def test_nothing_of_a_group_is_there_when_it_was_refused(self) -> None:
        directory = fresh_directory(self)
        ledger = Ledger(directory)
        self.writer = self.make(ledger)
        connection = LedgerTestCase.connection_of(ledger)
        (pages,) = connection.execute("PRAGMA page_count").fetchone()
        connection.execute(f"PRAGMA max_page_count = {pages}")
        self.writer.start()
        call = self.writer.submit([Put(POOLS, (f"p{number}", "x" * 5000)) for number in range(9)])
        call.addErrback(lambda failure: failure.trap(StateFailed))
        self.turn_reactor_until(call)
        self.writer.close()
        again = Ledger(directory)
        self.addCleanup(again.close)
        self.assertEqual(again.rows(POOLS), [])
