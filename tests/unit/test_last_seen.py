"""When the engine last mentioned an id."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from macvlan_twisted.last_seen import LastSeen


class LastSeenTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(1000)
        self.registry = {"a", "b"}
        self.last_seen = LastSeen(self.clock.seconds, self.registry.__contains__)

    def test_never_mentioned_is_idle_since_the_start(self) -> None:
        self.clock.advance(5)
        self.assertEqual(self.last_seen.idle_for("a"), 5)

    def test_idle_time_is_zero_during_a_call(self) -> None:
        self.clock.advance(5)
        with self.last_seen.call("a"):
            self.clock.advance(300)
            self.assertEqual(self.last_seen.idle_for("a"), 0)
            self.assertEqual(self.last_seen.idle_for("b"), 305)
            with self.last_seen.call("a"):
                pass
            self.assertEqual(self.last_seen.idle_for("a"), 0)
        self.clock.advance(7)
        self.assertEqual(self.last_seen.idle_for("a"), 7)

    def test_failed_call_counts(self) -> None:
        with self.assertRaises(ValueError), self.last_seen.call("a"):
            self.clock.advance(9)
            raise ValueError
        self.assertEqual(self.last_seen.idle_for("a"), 0)

    def test_made_up_and_removed_ids_take_no_memory(self) -> None:
        """Whoever makes ids up cannot fill the memory."""
        for number in range(1000):
            with self.last_seen.call(str(number)):
                pass
            self.last_seen.note(str(number))
        with self.last_seen.call("a"):
            self.registry.remove("a")
        self.last_seen.note("b")
        self.last_seen.forget("b")
        self.assertEqual((self.last_seen._last, self.last_seen._calls), ({}, {}))
