"""
Group commit: one thread commits for all callers.

Changes that are submitted during a commit go into the next one together, so that many small changes share one wait for
the disk.
"""

from __future__ import annotations

from collections.abc import Sequence

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from ..worker_threads import WorkerThreads
from .database import Change, Database

_Submission = tuple[Sequence[Change], "Deferred[None]"]


class GroupCommit:
    """
    :param thread: a single thread; before it is started, :meth:`submit` blocks.
    """

    def __init__(self, database: Database, thread: WorkerThreads) -> None:
        self._database = database
        self._thread = thread
        self._waiting: list[_Submission] = []
        self._is_writing = False

    def start(self) -> None:
        """:raises RuntimeError: the system has no thread left."""
        self._thread.start()

    def submit(self, changes: Sequence[Change]) -> Deferred[None]:
        """Fires when *changes* are on disk, or with :class:`~macvlan_twisted.errors.StateError` if none of them is."""
        done: Deferred[None] = Deferred()
        self._waiting.append((changes, done))
        if not self._is_writing:
            self._write_waiting()
        return done

    def close(self) -> None:
        """Write what was submitted, then end the thread and close the file. Blocks for two commits at most."""
        if self._waiting:
            self._write_waiting()
        self._thread.stop()
        self._database.close()

    def _write_waiting(self) -> None:
        group, self._waiting = self._waiting, []
        self._is_writing = True
        written = self._thread(self._commit, [changes for changes, _ in group])
        written.addCallback(self._written, [done for _, done in group])

    def _commit(self, group: list[Sequence[Change]]) -> list[Failure | None]:
        """
        Runs in the thread.

        :return: how each submission failed, or ``None`` for each that is on disk.
        """
        try:
            self._database.commit([change for changes in group for change in changes])
        except BaseException:
            if len(group) == 1:
                return [Failure()]
            # One submission that cannot be written must not fail the others.
            return [failure for changes in group for failure in self._commit([changes])]
        return [None] * len(group)

    def _written(self, failures: list[Failure | None], waiting: list[Deferred[None]]) -> None:
        if self._waiting:
            self._write_waiting()
        else:
            self._is_writing = False
        for failure, done in zip(failures, waiting, strict=True):
            done.callback(failure)  # a Failure goes to the errbacks
