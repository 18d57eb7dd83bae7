"""One holder for each key, in the order of arrival."""

from __future__ import annotations

from twisted.internet.defer import CancelledError, Deferred, ensureDeferred
from twisted.trial.unittest import SynchronousTestCase

from macvlan_twisted.keyed_lock import KeyedLock


class KeyedLockTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.locks = KeyedLock()
        self.done: list[str] = []

    async def hold(self, name: str, until: Deferred[None] | None = None) -> None:
        async with self.locks.acquire("key"):
            if until is not None:
                await until
            self.done.append(name)

    def begin(self, name: str, until: Deferred[None] | None = None) -> Deferred[None]:
        return ensureDeferred(self.hold(name, until))

    def test_thousands_of_waiters_do_not_exhaust_the_stack(self) -> None:
        opened: Deferred[None] = Deferred()
        first = self.begin("first", opened)
        others = [self.begin(str(number)) for number in range(3000)]
        opened.callback(None)
        for each in (first, *others):
            self.successResultOf(each)
        self.assertEqual(self.done, ["first", *map(str, range(3000))])

    def test_cancelled_waiter_is_skipped(self) -> None:
        opened: Deferred[None] = Deferred()
        first, second, third = self.begin("first", opened), self.begin("second"), self.begin("third")
        second.cancel()
        self.failureResultOf(second, CancelledError)
        opened.callback(None)
        self.successResultOf(first)
        self.successResultOf(third)
        self.assertEqual(self.done, ["first", "third"])

    def test_failed_holder_releases_the_lock(self) -> None:
        for end in (lambda until: until.errback(ValueError()), lambda until: until.cancel()):
            self.done.clear()
            until: Deferred[None] = Deferred()
            first, second = self.begin("first", until), self.begin("second")
            end(until)
            self.failureResultOf(first)
            self.successResultOf(second)
            self.assertEqual(self.done, ["second"])

    def test_waiters_run_one_after_the_other(self) -> None:
        untils = [Deferred[None]() for _ in range(3)]
        begun = [self.begin(str(number), until) for number, until in enumerate(untils)]
        untils[2].callback(None)
        untils[1].callback(None)
        self.assertEqual(self.done, [])
        untils[0].callback(None)
        self.assertEqual(self.done, ["0", "1", "2"])
        for each in begun:
            self.successResultOf(each)
        self.successResultOf(self.begin("later"))
