"""The clock and its timers: with the kernel's timer, and with a clock that jumps as after a suspend."""

from __future__ import annotations

import select
import socket
import time
from functools import partial
from typing import Any, cast

from attrs import define
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.epollreactor import EPollReactor
from twisted.internet.error import AlreadyCalled, AlreadyCancelled, ConnectionDone
from twisted.internet.interfaces import IReactorTime, IReadDescriptor
from twisted.internet.task import deferLater
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from macvlan_twisted.clock import BootTimeClock


class TimerTests(SynchronousTestCase):
    """With the kernel's timer, on a reactor of Twisted's."""

    def setUp(self) -> None:
        self.reactor = EPollReactor()
        self.addCleanup(self.close_reactor)
        self.called: list[object] = []
        self.clock = BootTimeClock(self.reactor)
        self.clock.start()
        self.addCleanup(self.clock.stop)

    def close_reactor(self) -> None:
        self.reactor.waker.connectionLost(Failure(ConnectionDone()))
        self.reactor._poller.close()

    def call_later(self, delay: float, name: object) -> Any:
        return self.clock.callLater(delay, self.called.append, name)

    def run_until(self, *names: object) -> None:
        deadline = self.clock.seconds() + 30
        while self.called != [*names]:
            self.assertLess(self.clock.seconds(), deadline, f"{self.called} were called")
            self.reactor.iterate(10)

    def test_clock_is_a_reactors_clock_and_a_reader(self) -> None:
        self.assertTrue(verifyObject(IReactorTime, self.clock))
        self.assertTrue(verifyObject(IReadDescriptor, self.clock))

    def test_calls_come_in_order_and_never_early(self) -> None:
        began = self.clock.seconds()
        for delay in (0.03, 0.01, 0.02, 0):
            self.call_later(delay, delay)
        self.run_until(0, 0.01, 0.02, 0.03)
        self.assertGreaterEqual(self.clock.seconds() - began, 0.03)

    def test_time_of_day_does_not_matter(self) -> None:
        now = self.reactor.seconds
        for step in (-3600.0, 3600.0, -86400.0, 864000.0):
            self.called.clear()
            self.call_later(0.01, "early")
            waiting = self.call_later(60, "late")
            self.patch(self.reactor, "seconds", partial(lambda step: now() + step, step))
            self.run_until("early")
            waiting.cancel()

    def test_an_idle_clock_wakes_nobody(self) -> None:
        self.call_later(0, "now")
        self.run_until("now")
        self.call_later(0.001, "cancelled").cancel()
        with select.epoll() as watching:
            watching.register(self.clock)
            while watching.poll(0.01):
                self.reactor.iterate(0)
            self.assertEqual(watching.poll(0.05), [])
        self.assertEqual(self.called, ["now"])

    def test_what_arrived_in_time_is_read_before_the_call(self) -> None:
        """Whichever of them the kernel reports first."""
        for _ in range(3):
            self.called.clear()
            ours, theirs = socket.socketpair()
            with ours, theirs:
                reader = Reader(ours, self.called)
                self.reactor.addReader(reader)
                self.call_later(0, "call")
                time.sleep(0.001)
                theirs.send(b"x")
                self.run_until("frame", "call")
                self.reactor.removeReader(reader)

    def test_stopped_clock_leaves_no_reader_and_calls_nothing(self) -> None:
        self.call_later(0, "call")
        self.clock.stop()
        self.assertNotIn(self.clock, self.reactor.getReaders())
        self.call_later(0, "later")
        self.reactor.iterate(0)
        self.assertEqual(self.called, [])
        self.clock.stop()


@implementer(IReadDescriptor)
@define(eq=False)
class Reader:
    """Notes that something has arrived."""

    socket: socket.socket
    called: list[object]

    def fileno(self) -> int:
        return self.socket.fileno()

    def logPrefix(self) -> str:
        return "test"

    def doRead(self) -> None:
        self.socket.recv(1)
        self.called.append("frame")

    def connectionLost(self, reason: Failure) -> None:
        """Nothing."""


class JumpingClock(BootTimeClock):
    """Its moments are those of a test, and its timer is no one's."""

    moment = 1000.0

    def seconds(self) -> float:
        return self.moment

    def wake(self) -> None:
        """The kernel's timer has expired."""
        self._call_due()


class QueueTests(SynchronousTestCase):
    """Without the kernel's timer."""

    def setUp(self) -> None:
        self.called: list[object] = []
        self.clock = JumpingClock(None)

    def call_later(self, delay: float, name: object) -> Any:
        return self.clock.callLater(delay, self.called.append, name)

    def pass_time(self, seconds: float) -> None:
        self.clock.moment += seconds
        self.clock.wake()

    def test_calls_due_during_a_suspend_come_at_once_and_in_order(self) -> None:
        for delay in (7200, 30, 3600, 1):
            self.call_later(delay, delay)
        self.pass_time(5000)
        self.assertEqual(self.called, [1, 30, 3600])
        self.pass_time(2200)
        self.assertEqual(self.called, [1, 30, 3600, 7200])

    def test_calls_of_one_moment_come_in_the_order_of_their_making(self) -> None:
        for number in range(20):
            self.call_later(1, number)
        self.pass_time(1)
        self.assertEqual(self.called, list(range(20)))

    def test_call_made_by_a_call_waits_for_the_next_turn(self) -> None:
        self.clock.callLater(0, lambda: self.call_later(0, "second"))
        self.pass_time(0)
        self.assertEqual(self.called, [])
        self.pass_time(0)
        self.assertEqual(self.called, ["second"])

    def test_cancelled_call_is_forgotten(self) -> None:
        call, other = self.call_later(1, "call"), self.call_later(1, "other")
        call.cancel()
        self.assertEqual(self.clock.getDelayedCalls(), [other])
        self.assertRaises(AlreadyCancelled, call.cancel)
        self.pass_time(1)
        self.assertEqual((self.called, self.clock.getDelayedCalls()), (["other"], []))
        self.assertRaises(AlreadyCalled, other.cancel)
        self.assertFalse(call.active() or other.active())

    def test_call_is_postponed_and_brought_forward(self) -> None:
        later, sooner, both = (self.call_later(10, name) for name in ("later", "sooner", "both"))
        later.reset(20)
        sooner.reset(5)
        both.delay(20)
        both.delay(-25)
        self.pass_time(5)
        self.assertEqual(self.called, ["sooner", "both"])
        self.pass_time(14)
        self.assertEqual(self.called, ["sooner", "both"])
        self.pass_time(1)
        self.assertEqual(self.called, ["sooner", "both", "later"])

    def test_postponed_call_can_be_cancelled(self) -> None:
        call = self.call_later(1, "call")
        call.reset(5)
        self.pass_time(1)
        call.cancel()
        self.pass_time(5)
        self.assertEqual((self.called, self.clock.getDelayedCalls()), ([], []))

    def test_failed_call_is_logged_and_others_come(self) -> None:
        def refuse() -> None:
            raise KeyError("a bug")

        self.clock.callLater(1, refuse)
        self.call_later(1, "next")
        self.pass_time(1)
        self.assertEqual(self.called, ["next"])
        self.assertEqual(len(self.flushLoggedErrors(KeyError)), 1)

    def test_deferred_wait_can_be_cancelled(self) -> None:
        waiting: Deferred[Any] = deferLater(cast(Any, self.clock), 5)
        waiting.cancel()
        self.failureResultOf(waiting, CancelledError)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_negative_delay_is_refused(self) -> None:
        self.assertRaises(AssertionError, self.call_later, -1, "call")
