"""Deletion of links in batches, with controlled interleaving."""

from __future__ import annotations

import errno

from twisted.internet.defer import Deferred, ensureDeferred
from twisted.internet.task import Clock
from twisted.logger import LogLevel, capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from macvlan_twisted.errors import LinkError
from macvlan_twisted.netlink.batch_delete import BATCH_GROUPS, BATCH_SIZE, LONGEST_PAUSE, BatchDelete
from macvlan_twisted.netlink.kernel import LinkFacts, MacvlanLink
from macvlan_twisted.testing.kernel import FakeKernel, nic

from .held_steps import Steps

FIRST_GROUP = 500


class WatchedKernel(FakeKernel):
    """Records the size of each batch."""

    def __init__(self) -> None:
        super().__init__([nic("eth0", 2)])
        self.batches: list[tuple[int, int]] = []
        self.processor_time = 0.0
        self.listing_takes = 0.0
        """Seconds of processor time."""

    def members_of_group(self, group: int) -> list[LinkFacts]:
        self.processor_time += self.listing_takes
        return super().members_of_group(group)

    def delete_group(self, group: int) -> None:
        self.batches.append((group, len(self.members_of_group(group))))
        super().delete_group(group)


class BatchDeleteTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.kernel = WatchedKernel()
        self.steps = Steps()
        self.clock = Clock()
        self.batch_delete = BatchDelete(
            self.kernel,
            self.steps,
            self.steps,
            FIRST_GROUP,
            lambda link: link.alias == "ours",
            self.clock,
            lambda: self.kernel.processor_time,
        )

    def make(self, *names: str, alias: str = "ours") -> None:
        for name in names:
            self.kernel.add_macvlan(MacvlanLink(name, "eth0", "bridge", group=9, alias=alias))

    def retire(self, name: str) -> Deferred[bool]:
        return ensureDeferred(self.batch_delete.retire(name))

    def deletions_finished(self) -> Deferred[None]:
        return ensureDeferred(self.batch_delete.deletions_finished())

    def names(self) -> set[str]:
        return {link.name for link in self.kernel.links()} - {"lo", "eth0"}


class RetireTests(BatchDeleteTestCase):
    def test_retired_link_is_deleted_with_or_without_its_alias(self) -> None:
        self.make("a", "b")
        self.make("c", alias="")
        for name in ("a", "c"):
            self.assertIs(self.successResultOf(self.retire(name)), True)
        self.assertEqual(self.names(), {"b"})

    def test_missing_link_needs_no_batch(self) -> None:
        self.assertIs(self.successResultOf(self.retire("a")), False)
        self.assertEqual(self.kernel.batches, [])
        self.successResultOf(self.deletions_finished())

    def test_retire_returns_before_the_deletion(self) -> None:
        self.make("a")
        self.steps.hold.add("delete_group")
        self.successResultOf(self.retire("a"))
        link = self.kernel.find("a")
        assert link is not None
        self.assertEqual((link.up, self.batch_delete.is_retired_group(link.group)), (False, True))
        self.assertFalse(self.batch_delete.is_retired_group(9))

    def test_deletion_has_a_thread_of_its_own(self) -> None:
        """A deletion takes 16 ms; with a single netlink thread the next CreateEndpoint would wait for it."""
        calls, deletions = Steps(), Steps()
        batch_delete = BatchDelete(
            self.kernel,
            calls,
            deletions,
            FIRST_GROUP,
            lambda link: link.alias == "ours",
            self.clock,
            lambda: 0.0,
        )
        self.make("a")
        self.successResultOf(ensureDeferred(batch_delete.retire("a")))
        self.assertEqual(calls.taken, ["set_group"])
        self.assertEqual(deletions.taken, ["_list_members", "delete_group"])

    def test_refused_retirement_does_not_stop_later_ones(self) -> None:
        self.make("a", "b")
        self.steps.refuse["set_group"] = errno.EPERM
        self.failureResultOf(self.retire("a"), LinkError)
        self.steps.refuse.clear()
        self.successResultOf(self.retire("b"))
        self.assertEqual(self.names(), {"a"})
        self.successResultOf(self.deletions_finished())


class BusyMachineTests(BatchDeleteTestCase):
    def test_no_pause_because_the_thread_waited_for_a_processor(self) -> None:
        self.make("a", "b")
        self.steps.hold.add("_list_members")
        self.retire("a")
        self.clock.advance(0.5)
        self.steps.let_all_go()
        self.retire("b")
        self.assertEqual(self.names(), set())
        self.assertEqual(self.clock.getDelayedCalls(), [])


class PauseTests(BatchDeleteTestCase):
    """A host with so many links that listing them keeps a processor busy for half a second."""

    def setUp(self) -> None:
        super().setUp()
        self.kernel.listing_takes = 0.5
        self.make("a", "b", "c")
        self.retire("a")
        self.kernel.listing_takes = 0.0
        self.assertEqual(self.names(), {"b", "c"})

    def test_links_retired_in_the_pause_share_a_batch(self) -> None:
        self.successResultOf(self.retire("b"))
        self.successResultOf(self.retire("c"))
        self.assertEqual(self.names(), {"b", "c"})
        self.clock.advance(LONGEST_PAUSE)
        self.assertEqual(self.names(), set())
        self.assertEqual([size for _, size in self.kernel.batches], [1, 2])
        self.successResultOf(self.deletions_finished())
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_pause_ends_if_somebody_waits(self) -> None:
        self.successResultOf(self.retire("b"))
        self.successResultOf(self.deletions_finished())
        self.assertEqual(self.names(), {"c"})
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_pause_ends_if_a_batch_is_full(self) -> None:
        names = [f"d{each}" for each in range(BATCH_SIZE + 1)]
        self.make(*names)
        for name in names:
            self.successResultOf(self.retire(name))
        self.assertEqual(self.names(), {"b", "c"})


class BatchTests(BatchDeleteTestCase):
    def retire_many(self, count: int) -> None:
        names = [f"m{number}" for number in range(count)]
        self.make(*names)
        for name in names:
            self.retire(name)

    def test_batches_have_at_most_64_links_and_a_group_each(self) -> None:
        self.steps.hold.add("delete_group")
        self.retire_many(200)
        groups = {link.group for link in self.kernel.links() if link.alias == "ours"}
        self.assertGreaterEqual(len(groups), 3)
        self.assertTrue(groups <= set(range(FIRST_GROUP, FIRST_GROUP + BATCH_GROUPS)))
        self.steps.let_all_go()
        self.assertEqual(self.names(), set())
        self.assertEqual(sum(size for _, size in self.kernel.batches), 200)
        self.assertLessEqual(max(size for _, size in self.kernel.batches), BATCH_SIZE)
        self.assertLessEqual(len(self.kernel.batches), 5)

    def test_retirement_waits_for_a_free_group(self) -> None:
        self.steps.hold.add("delete_group")
        count = BATCH_SIZE * (BATCH_GROUPS + 2)
        self.retire_many(count)
        self.make("late")
        late = self.retire("late")
        self.assertNoResult(late)
        self.steps.let_all_go()
        self.assertIs(self.successResultOf(late), True)
        self.assertEqual(self.names(), set())
        self.assertLessEqual(max(size for _, size in self.kernel.batches), BATCH_SIZE)

    def test_groups_are_reused(self) -> None:
        for number in range(3 * BATCH_GROUPS):
            self.make(f"x{number}")
            self.successResultOf(self.retire(f"x{number}"))
        self.assertEqual(self.names(), set())
        self.assertEqual({group for group, _ in self.kernel.batches} - set(range(500, 516)), set())

    def test_batch_is_deleted_after_all_links_have_moved(self) -> None:
        self.make("a", "b")
        self.steps.hold.add("set_group")
        first, second = self.retire("a"), self.retire("b")
        self.steps.let_go("set_group")
        self.successResultOf(first)
        self.assertEqual(self.kernel.batches, [])
        self.steps.let_go("set_group")
        self.successResultOf(second)
        self.assertEqual([size for _, size in self.kernel.batches], [2])

    def test_failed_move_does_not_hold_up_the_batch(self) -> None:
        self.make("a")
        self.steps.hold.add("set_group")
        first, missing = self.retire("a"), self.retire("missing")
        self.steps.let_all_go()
        self.assertEqual((self.successResultOf(first), self.successResultOf(missing)), (True, False))
        self.assertEqual(self.names(), set())


class WaitingTests(BatchDeleteTestCase):
    def test_deletions_finished_waits_for_all_retired_links(self) -> None:
        self.make("a", "b")
        self.steps.hold.add("delete_group")
        self.retire("a")
        self.retire("b")
        waiting = self.deletions_finished()
        self.steps.let_go("delete_group")
        self.assertEqual(self.names(), {"b"})
        self.assertNoResult(waiting)
        self.steps.let_go("delete_group")
        self.successResultOf(waiting)
        self.assertEqual(self.names(), set())

    def test_later_links_are_not_waited_for(self) -> None:
        """Where containers come and go all the time, there is always a batch to be deleted."""
        self.make("a", "b")
        self.steps.hold.add("delete_group")
        self.retire("a")
        waiting = self.deletions_finished()
        self.retire("b")
        self.steps.let_go("delete_group")
        self.successResultOf(waiting)
        self.assertEqual(self.names(), {"b"})
        self.steps.let_all_go()

    def test_link_that_is_being_retired_is_waited_for(self) -> None:
        self.make("a")
        self.steps.hold.add("set_group")
        self.retire("a")
        waiting = self.deletions_finished()
        self.assertNoResult(waiting)
        self.steps.let_all_go()
        self.successResultOf(waiting)
        self.assertEqual(self.names(), set())

    def test_deletions_finished_despite_kernel_errors(self) -> None:
        self.make("a")
        self.steps.hold.add("_list_members")
        self.retire("a")
        waiting = self.deletions_finished()
        self.steps.refuse["_list_members"] = errno.EIO
        self.steps.held[0].done.errback(LinkError("refused", errno.EIO))
        self.successResultOf(waiting)
        self.flushLoggedErrors(LinkError)
        self.steps.refuse.clear()
        self.steps.hold.clear()
        self.make("b")
        self.successResultOf(self.retire("b"))
        self.assertNotIn("b", self.names())


class ForeignLinkTests(BatchDeleteTestCase):
    def test_foreign_link_in_the_group_is_never_deleted(self) -> None:
        self.make("a", "b")
        self.make("theirs", alias="theirs")
        self.steps.hold.add("_list_members")
        self.retire("a")
        a = self.kernel.find("a")
        assert a is not None
        self.kernel.set_group("theirs", a.group)
        self.steps.let_all_go()
        self.assertEqual(self.names(), {"b", "theirs"})
        self.assertEqual(self.kernel.batches, [])

    def test_our_links_beside_a_foreign_one_go_one_by_one(self) -> None:
        names = [f"m{number}" for number in range(5)]
        self.make(*names)
        self.make("theirs", alias="theirs")
        for group in range(FIRST_GROUP, FIRST_GROUP + BATCH_GROUPS):
            self.kernel.put(nic(f"theirs{group}", group, group=group))
        for name in names:
            self.retire(name)
        self.assertFalse(self.names() & set(names))
        self.assertEqual(len(self.names()), 1 + BATCH_GROUPS)

    def test_links_of_a_refused_group_go_one_by_one(self) -> None:
        self.make("a", "b")
        self.steps.refuse["delete_group"] = errno.EOPNOTSUPP
        self.retire("a")
        self.assertEqual(self.names(), {"b"})

    def test_undeletable_link_does_not_keep_the_others(self) -> None:
        self.make("a", "b")
        self.steps.refuse.update(delete_group=errno.EOPNOTSUPP)
        self.steps.hold.update(("_list_members", "delete"))
        self.retire("a")
        self.steps.let_go("_list_members")
        step = self.steps.held.pop()
        self.retire("b")
        self.steps.hold.clear()
        step.done.errback(LinkError("a test keeps it", errno.EBUSY))
        self.assertEqual(self.names(), {"a"})


class AdoptionTests(BatchDeleteTestCase):
    def retired(self, name: str, group: int) -> LinkFacts:
        self.make(name)
        self.kernel.set_group(name, group)
        link = self.kernel.find(name)
        assert link is not None
        return link

    def test_retired_links_of_an_earlier_life_are_deleted(self) -> None:
        links = [self.retired(f"m{number}", FIRST_GROUP + number % 3) for number in range(9)]
        self.batch_delete.adopt(links)
        self.successResultOf(self.deletions_finished())
        self.assertEqual(self.names(), set())

    def test_group_in_deletion_takes_no_links(self) -> None:
        self.steps.hold.add("delete_group")
        self.batch_delete.adopt([self.retired("old", FIRST_GROUP)])
        self.make("new")
        self.retire("new")
        new = self.kernel.find("new")
        assert new is not None
        self.assertNotEqual(new.group, FIRST_GROUP)
        self.steps.let_all_go()
        self.assertEqual(self.names(), set())


class FailingKernelTests(BatchDeleteTestCase):
    def test_links_go_one_by_one_if_no_list_is_complete(self) -> None:
        """On a busy host with an old kernel that is usual, so it is no warning."""
        self.make("a", "b", "c")
        self.steps.refuse["_list_members"] = errno.EINTR
        with capturedLogs() as lines:
            for name in ("a", "b"):
                self.successResultOf(self.retire(name))
        self.assertEqual(self.names(), {"c"})
        self.assertEqual(self.kernel.batches, [])
        self.assertEqual({line["log_level"] for line in lines}, {LogLevel.debug})

    def test_links_are_deleted_although_listing_fails(self) -> None:
        self.make("a", "b", "c")
        self.steps.refuse["_list_members"] = errno.ENOBUFS
        for name in ("a", "b"):
            self.successResultOf(self.retire(name))
        self.successResultOf(self.deletions_finished())
        self.assertEqual(self.names(), {"c"})
