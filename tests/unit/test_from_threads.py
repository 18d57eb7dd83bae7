"""What threads want to be done in the reactor's thread is done there, all of it, once and in order."""

from __future__ import annotations

import threading
from collections.abc import Callable
from queue import Queue
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from macvlan_twisted.from_threads import FromThreads


class FromThreadsTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.woken: Queue[Callable[[], None]] = Queue()
        self.in_reactor = FromThreads(self.woken.put)
        self.done: list[Any] = []

    def turn(self) -> None:
        self.woken.get_nowait()()

    def test_the_reactor_is_woken_for_each_or_the_order_is_lost(self) -> None:
        for number in range(3):
            self.in_reactor(self.done.append, number)
        self.assertEqual((self.woken.qsize(), self.done), (1, []))
        self.turn()
        self.assertEqual(self.done, [0, 1, 2])

    def test_what_comes_later_is_forgotten(self) -> None:
        self.in_reactor(self.done.append, 1)
        self.turn()
        self.in_reactor(self.done.append, 2)
        self.turn()
        self.assertEqual(self.done, [1, 2])

    def test_what_comes_while_others_are_done_is_forgotten(self) -> None:
        self.in_reactor(lambda: self.in_reactor(self.done.append, "later"))
        self.turn()
        self.assertEqual(self.done, [])
        self.turn()
        self.assertEqual(self.done, ["later"])

    def test_one_that_fails_takes_the_others_with_it(self) -> None:
        self.in_reactor(lambda: 1 // 0)
        self.in_reactor(self.done.append, 1)
        self.turn()
        self.assertEqual(self.done, [1])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_something_is_lost_or_done_twice_when_many_threads_ask(self) -> None:
        number, each = 8, 500

        def ask(name: int) -> None:
            for n in range(each):
                self.in_reactor(self.done.append, (name, n))

        threads = [threading.Thread(target=ask, args=(name,)) for name in range(number)]
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads) or not self.woken.empty():
            if not self.woken.empty():
                self.turn()
        self.assertEqual(sorted(self.done), [(name, n) for name in range(number) for n in range(each)])
        for name in range(number):
            self.assertEqual([n for who, n in self.done if who == name], list(range(each)))
