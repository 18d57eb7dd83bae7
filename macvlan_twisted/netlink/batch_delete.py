"""
Removal of links in batches.

Removing one macvlan link costs the kernel an RCU grace period (16 ms), removing 64 of one group little
more (28 ms). So a link is *condemned*: moved into a group of condemned links, which is quick, and the call
is answered; the condemned are *reaped* together right after. A condemned link is down, so its MAC is free
already; what cannot wait until it is gone, waits for :meth:`BatchDelete.deletions_finished`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from attrs import define, field
from twisted.internet.defer import Deferred, ensureDeferred
from twisted.logger import Logger

from ..errors import LinkError
from ..worker_threads import RunInThread
from .kernel import Kernel, LinkFacts, Marked

BATCH_SIZE = 64
"""Links that go in one batch: 64 hold the kernel's lock for 28 ms, 300 for 54."""
BATCH_GROUPS = 16
"""Groups of condemned links, one a batch, used in turn."""

_log = Logger(namespace="macvlan_twisted.netlink")


@define(eq=False)
class _Batch:
    group: int
    names: list[str] = field(factory=list)
    moving: int = 0
    all_moved: list[Deferred[None]] = field(factory=list)


class BatchDelete:
    """
    :param run: runs what callers wait for.
    :param run_deletion: runs the deletions, which hold their thread for a grace period, so that with a single thread for
        *run* nobody waits for them.
    :param first_group: of the :data:`BATCH_GROUPS` groups that condemned links are moved to.
    :param is_ours: tells by what the kernel says of a link whether we made it: deleting a group takes
        whatever carries it, so that is asked of every link in the group first.
    """

    def __init__(
        self,
        kernel: Kernel,
        run: RunInThread,
        run_deletion: RunInThread,
        first_group: int,
        is_ours: Callable[[Marked], bool],
    ) -> None:
        self._kernel = kernel
        self._run = run
        self._run_deletion = run_deletion
        self._groups = tuple(range(first_group, first_group + BATCH_GROUPS))
        self._is_ours = is_ours
        self._batches: list[_Batch] = []
        self._turn = 0
        self._reaping = False
        self._waiters: list[Deferred[None]] = []

    def is_retired_group(self, group: int) -> bool:
        return group in self._groups

    async def retire(self, name: str) -> bool:
        """
        Take a link that we made out of use.

        :return: ``False`` if there is no such link in the host's namespace: it went with its sandbox.
        """
        batch = await self._open_batch()
        batch.names.append(name)
        batch.moving += 1
        retired = False
        try:
            retired = await self._run(self._kernel.set_group, name, batch.group)
        finally:
            if not retired:
                batch.names.remove(name)
            batch.moving -= 1
            if not batch.moving:
                waiting, batch.all_moved = batch.all_moved, []
                for waiter in waiting:
                    waiter.callback(None)
            self._start()
        return retired

    def adopt(self, links: Iterable[LinkFacts]) -> None:
        """Condemned links of an earlier life: to be reaped by this one."""
        for link in links:
            batch = next((each for each in self._batches if each.group == link.group), None)
            if batch is None:
                batch = _Batch(link.group)
                self._batches.append(batch)
            batch.names.append(link.name)
        self._start()

    async def deletions_finished(self) -> None:
        """Wait until every link condemned so far is gone."""
        if self._reaping:
            waiter: Deferred[None] = Deferred()
            self._waiters.append(waiter)
            await waiter

    async def _open_batch(self) -> _Batch:
        """The batch that still takes links; a new one in a free group if it is full or being reaped."""
        while True:
            if self._batches and len(self._batches[-1].names) < BATCH_SIZE:
                return self._batches[-1]
            used = {batch.group for batch in self._batches} | {self._group_in_reaping}
            for offset in range(BATCH_GROUPS):
                group = self._groups[(self._turn + offset) % BATCH_GROUPS]
                if group not in used:
                    self._turn += offset + 1
                    self._batches.append(_Batch(group))
                    return self._batches[-1]
            await self.deletions_finished()

    _group_in_reaping = 0

    def _start(self) -> None:
        if not self._reaping and self._batches:
            self._reaping = True
            ensureDeferred(self._reap_all())

    async def _reap_all(self) -> None:
        while self._batches:
            batch = self._batches.pop(0)
            self._group_in_reaping = batch.group
            if batch.moving:
                moved: Deferred[None] = Deferred()
                batch.all_moved.append(moved)
                await moved
            try:
                await self._reap(batch)
            except Exception:
                _log.failure(
                    "condemned links {names} stay until the next start", names=", ".join(batch.names)
                )
        self._group_in_reaping = 0
        self._reaping = False
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            waiter.callback(None)

    async def _reap(self, batch: _Batch) -> None:
        if not batch.names:
            return
        # What was condemned by name is ours, even if its row, which proved it, has been forgotten by now.
        names = list(batch.names)
        try:
            members = await self._run_deletion(self._kernel.members_of_group, batch.group)
            if not members:
                return
            retired = set(names)
            others = [link for link in members if link.name not in retired]
            foreign = [link.name for link in others if not self._is_ours(link)]
            names += [link.name for link in others if link.name not in foreign]
            if not foreign:
                await self._run_deletion(self._kernel.delete_group, batch.group)
                return
            _log.warn(
                "links that are not ours carry group {group}: {foreign}; ours are removed one by one",
                group=batch.group,
                foreign=", ".join(foreign),
            )
        except LinkError as failure:
            _log.warn("{reason}; removing condemned links one by one", reason=str(failure))
        for name in names:
            try:
                await self._run_deletion(self._kernel.delete, name)
            except LinkError as failure:
                _log.error("condemned link {link} stays: {reason}", link=name, reason=str(failure))
