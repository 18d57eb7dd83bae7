"""When the engine was last heard of something, and how long a claim waits."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from macvlan_twisted.ipam.pending_addresses import PendingAddresses
from macvlan_twisted.last_seen import LastSeen


class HeardTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(1000)
        self.registry = {"a", "b"}
        self.heard = LastSeen(self.clock.seconds, self.registry.__contains__)

    def test_what_was_never_heard_of_is_silent_since_the_start(self) -> None:
        self.clock.advance(5)
        self.assertEqual(self.heard.idle_for("a"), 5)

    def test_a_call_is_heard_from_its_beginning_to_its_end(self) -> None:
        self.clock.advance(5)
        with self.heard.call("a"):
            self.clock.advance(300)
            self.assertEqual(self.heard.idle_for("a"), 0)
            self.assertEqual(self.heard.idle_for("b"), 305)
            with self.heard.call("a"):
                pass
            self.assertEqual(self.heard.idle_for("a"), 0)
        self.clock.advance(7)
        self.assertEqual(self.heard.idle_for("a"), 7)

    def test_nothing_is_kept_of_what_there_is_not(self) -> None:
        """Whoever makes ids up cannot fill the memory."""
        for number in range(50):
            with self.heard.call(f"made up {number}"):
                pass
            self.heard.note(f"made up {number}")
        self.assertEqual((len(self.heard._last), len(self.heard._under_way)), (0, 0))

    def test_a_call_that_fails_is_heard_too(self) -> None:
        with self.assertRaises(ValueError), self.heard.call("a"):
            self.clock.advance(9)
            raise ValueError
        self.assertEqual(self.heard.idle_for("a"), 0)

    def test_nothing_is_kept_of_what_is_not_there(self) -> None:
        for number in range(1000):
            with self.heard.call(str(number)):
                pass
            self.heard.note(str(number))
        with self.heard.call("a"):
            self.registry.remove("a")
        self.heard.note("b")
        self.heard.forget("b")
        self.assertEqual((self.heard._last, self.heard._under_way), ({}, {}))


class AwaitedTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.awaited = PendingAddresses(self.clock.seconds)

    def test_the_longest_come_first_and_the_rest_is_not_looked_at(self) -> None:
        for number in range(5):
            self.awaited.begin("pool", number)
            self.clock.advance(10)
        self.assertEqual(self.awaited.longer_than(30), [("pool", 0), ("pool", 1), ("pool", 2)])

    def test_what_begins_anew_has_not_waited_yet(self) -> None:
        self.awaited.begin("pool", 1)
        self.awaited.begin("pool", 2)
        self.clock.advance(10)
        self.awaited.begin("pool", 1)
        self.clock.advance(10)
        self.assertEqual(self.awaited.longer_than(15), [("pool", 2)])
        self.assertEqual(self.awaited.since("pool", 1), 10)

    def test_what_has_ended_waits_no_more(self) -> None:
        for pool in ("one", "other"):
            for number in range(3):
                self.awaited.begin(pool, number)
        self.awaited.end("one", 1)
        self.awaited.end("one", 7)
        self.awaited.end_pool("other")
        self.assertEqual(self.awaited.longer_than(0), [("one", 0), ("one", 2)])
