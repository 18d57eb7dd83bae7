"""
Removal of links in batches.

Deleting one macvlan link costs the kernel an RCU grace period (16 ms), deleting 64 links of one group little more
(28 ms). So a call only *retires* a link: it moves it into a group of retired links, which is quick. These are deleted
together right after the reply. A retired link is down, so its MAC is free already; :meth:`BatchDelete.deletions_finished`
waits until the links are gone.

Before each batch all links of the host are listed, to be sure that no foreign one is in its group. On a host with
thousands of links this keeps a processor busy, so there is a pause after each batch, and fewer and larger batches follow.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from attrs import define, field
from twisted.internet.defer import Deferred, ensureDeferred
from twisted.logger import Logger

from ..errors import LinkError
from ..worker_threads import RunInThread
from .kernel import Kernel, LinkFacts, Marked

BATCH_SIZE = 64
"""Links in one batch: 64 hold the kernel's lock for 28 ms, 300 for 54."""
BATCH_GROUPS = 16
"""Groups of retired links, one a batch, used in turn."""
PAUSE = 10
"""
How many times longer a pause is than the processor was busy with the list: 3 microseconds a link, so 1 ms for 30 links.
"""
LONGEST_PAUSE = 0.25
"""Seconds."""

_log = Logger(namespace="macvlan_twisted.netlink")


@define(eq=False)
class _Batch:
    group: int
    names: list[str] = field(factory=list)
    moving: int = 0
    all_moved: list[Deferred[None]] = field(factory=list)
    deleted: list[Deferred[None]] = field(factory=list)


class BatchDelete:
    """
    :param run: runs what callers wait for.
    :param run_deletion: runs the deletions, which hold their thread for a grace period, so that with a single thread for
        *run* nobody waits for them.
    :param first_group: of the :data:`BATCH_GROUPS` groups for retired links.
    :param is_ours: whether we made a link. The kernel deletes every link of a group, so each is checked first.
    :param clock: ``IReactorTime``
    :param processor_time: how long the calling thread has kept a processor busy, in seconds. Waiting for one on a busy
        machine does not count.
    """

    def __init__(
        self,
        kernel: Kernel,
        run: RunInThread,
        run_deletion: RunInThread,
        first_group: int,
        is_ours: Callable[[Marked], bool],
        clock: Any,
        processor_time: Callable[[], float],
    ) -> None:
        self._kernel = kernel
        self._run = run
        self._run_deletion = run_deletion
        self._groups = tuple(range(first_group, first_group + BATCH_GROUPS))
        self._is_ours = is_ours
        self._clock = clock
        self._processor_time = processor_time
        self._batches: list[_Batch] = []
        """Those that are not being deleted yet, the oldest one first."""
        self._in_deletion: _Batch | None = None
        self._turn = 0
        self._is_running = False
        self._listing_took = 0.0
        """Seconds of processor time, before the latest batch."""
        self._pause: Deferred[None] | None = None

    def is_retired_group(self, group: int) -> bool:
        return group in self._groups

    async def retire(self, name: str) -> bool:
        """
        Retire a link that we made.

        :return: ``False`` if there is no such link in the host's namespace: it was deleted with its sandbox.
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
        """Delete the retired links of an earlier life."""
        for link in links:
            batch = next((each for each in self._batches if each.group == link.group), None)
            if batch is None:
                batch = _Batch(link.group)
                self._batches.append(batch)
            batch.names.append(link.name)
        self._start()

    async def deletions_finished(self) -> None:
        """Wait until every link that was retired so far is gone. Links that are retired later are not waited for."""
        self._end_pause()
        latest = self._batches[-1] if self._batches else self._in_deletion
        if latest is not None:
            deleted: Deferred[None] = Deferred()
            latest.deleted.append(deleted)
            await deleted

    async def _open_batch(self) -> _Batch:
        """The batch with room for a link; a new one in a free group if the last one is full or being deleted."""
        while True:
            if self._batches and len(self._batches[-1].names) < BATCH_SIZE:
                return self._batches[-1]
            used = {batch.group for batch in (*self._batches, self._in_deletion) if batch is not None}
            for offset in range(BATCH_GROUPS):
                group = self._groups[(self._turn + offset) % BATCH_GROUPS]
                if group not in used:
                    self._turn += offset + 1
                    self._batches.append(_Batch(group))
                    return self._batches[-1]
            await self.deletions_finished()

    def _start(self) -> None:
        if len(self._batches) > 1:
            self._end_pause()
        if not self._is_running and self._batches:
            self._is_running = True
            ensureDeferred(self._delete_all())

    async def _delete_all(self) -> None:
        while self._batches:
            batch = self._in_deletion = self._batches.pop(0)
            if batch.moving:
                moved: Deferred[None] = Deferred()
                batch.all_moved.append(moved)
                await moved
            self._listing_took = 0.0
            try:
                await self._delete(batch)
            except Exception:
                _log.failure(
                    "retired links {links}: not removed; the plugin tries again at its next start",
                    links=", ".join(batch.names),
                )
            self._in_deletion = None
            for waiter in batch.deleted:
                waiter.callback(None)
            is_awaited = any(each.deleted for each in (batch, *self._batches))
            if self._listing_took and not is_awaited and len(self._batches) < 2:
                await self._pause_for(min(PAUSE * self._listing_took, LONGEST_PAUSE))
        self._is_running = False

    async def _pause_for(self, seconds: float) -> None:
        self._pause = Deferred()
        timer = self._clock.callLater(seconds, self._end_pause)
        await self._pause
        if timer.active():
            timer.cancel()

    def _end_pause(self) -> None:
        """It is over early if somebody waits for the deletions, or if a batch is full."""
        pause, self._pause = self._pause, None
        if pause is not None:
            pause.callback(None)

    async def _delete(self, batch: _Batch) -> None:
        if not batch.names:
            return
        # Links that we retired by name are ours, even if the row that proves it has been removed since.
        names = list(batch.names)
        try:
            members = await self._run_deletion(self._list_members, batch.group)
            if not members:
                return
            retired = set(names)
            others = [link for link in members if link.name not in retired]
            foreign = [link.name for link in others if not self._is_ours(link)]
            names += [link.name for link in others if link.name not in foreign]
            if not foreign:
                await self._run_deletion(self._kernel.delete_group, batch.group)
                return
            # Cause: another program uses the link group that marks the plugin's retired links, which wait there to be
            # removed in a batch. Remedy: none needed; removal is slower.
            _log.warn(
                "link group {group}: has links of another program ({links}); the plugin's are removed one by one",
                group=batch.group,
                links=", ".join(foreign),
            )
        except LinkError as failure:
            if failure.errno == errno.EINTR:
                _log.debug(
                    "retired links: removed one by one, since a foreign one may be among them ({reason})",
                    reason=str(failure),
                )
            else:
                # Cause: the kernel refused to remove them together. Remedy: none needed; removal is slower.
                _log.warn("retired links: removed one by one ({reason})", reason=str(failure))
        for name in names:
            try:
                await self._run_deletion(self._kernel.delete, name)
            except LinkError as failure:
                # Cause: the kernel refused. Remedy: see the reason in the line, then restart the plugin.
                _log.error(
                    "link {link}: cannot be removed; the plugin tries again at its next start ({reason})",
                    link=name,
                    reason=str(failure),
                )

    def _list_members(self, group: int) -> Sequence[Marked]:
        """It runs in the deletion thread."""
        began = self._processor_time()
        try:
            return self._kernel.members_of_group(group)
        finally:
            self._listing_took = self._processor_time() - began
