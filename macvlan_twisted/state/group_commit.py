"""
One thread writes for all who wait: group commit.

What is asked for while a commit runs goes into the next one, so that many small changes share the price of
one wait for the disk.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from queue import Empty, SimpleQueue
from typing import Any

from twisted.internet.defer import Deferred, maybeDeferred

from .database import Change, Database

_Order = tuple[Sequence[Change], "Deferred[None]"]


class GroupCommit:
    """
    :param call_in_reactor: like ``reactor.callFromThread``.
    """

    def __init__(self, database: Database, call_in_reactor: Callable[..., Any]) -> None:
        self._database = database
        self._call_in_reactor = call_in_reactor
        self._orders: SimpleQueue[_Order | None] = SimpleQueue()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Write on a thread from now on; before, and without it, :meth:`submit` blocks."""
        thread = threading.Thread(target=self._write_all, name="macvlan-twisted state", daemon=True)
        thread.start()
        self._thread = thread

    def submit(self, changes: Sequence[Change]) -> Deferred[None]:
        """Fires in the reactor's thread when *changes* are on disk, or with StateError when none is."""
        if self._thread is None:
            return maybeDeferred(self._database.commit, changes)
        done: Deferred[None] = Deferred()
        self._orders.put((changes, done))
        return done

    def close(self) -> None:
        """Write what was submitted, then end the thread and close the file. Blocks for a commit at most."""
        if self._thread is not None:
            self._orders.put(None)
            self._thread.join()
            self._thread = None
        self._database.close()

    def _write_all(self) -> None:
        ending = False
        while not ending:
            group: list[_Order] = []
            order = self._orders.get()
            while True:
                if order is None:
                    ending = True
                else:
                    group.append(order)
                try:
                    order = self._orders.get_nowait()
                except Empty:
                    break
            if group:
                self._write(group)

    def _write(self, group: list[_Order]) -> None:
        try:
            self._database.commit([change for changes, _ in group for change in changes])
        except BaseException as error:
            if len(group) == 1:
                self._call_in_reactor(_fail_all, [done for _, done in group], error)
                return
            for order in group:  # one that cannot be written must not take the others with it
                self._write([order])
        else:
            self._call_in_reactor(_fire_all, [done for _, done in group])


def _fire_all(waiting: list[Deferred[None]]) -> None:
    for done in waiting:
        done.callback(None)


def _fail_all(waiting: list[Deferred[None]], error: BaseException) -> None:
    for done in waiting:
        done.errback(error)
