"""The life of the parts, once they are wired: in which order they begin, and end."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from attrs import define
from twisted.internet.defer import CancelledError, Deferred, ensureDeferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from .driver.lookout import Lookout
from .driver.rounds import Rounds
from .errors import CannotStart, LinkFailed
from .lan.announcements import Announcements
from .lan.conflicts import Conflicts
from .lan.leases import Leases
from .lan.wires import Wires
from .links.events import LinkEvents
from .links.pool import Links
from .links.threads import KernelThreads
from .protocol.calls import Calls
from .protocol.site import PluginSite
from .state.writer import Writer

_log = Logger(namespace="macvlan_twisted")


@define
class WiredParts:
    """What :class:`~macvlan_twisted.service.MacvlanService` starts and stops, as a whole."""

    site: PluginSite
    calls: Calls
    links: Links
    threads: KernelThreads
    writer: Writer
    wires: Wires
    conflicts: Conflicts
    announcements: Announcements
    leases: Leases
    lookout: Lookout
    rounds: Rounds
    hear_of_links: Callable[[], LinkEvents] | None
    """``None`` where the links are not those of this process's namespace."""
    in_background: Callable[[Callable[[], bool]], Coroutine[Any, Any, None]] | None = None
    """Work that ends soon after the function that it is given says that the service is stopping."""
    _background: Deferred[None] | None = None
    _stopping: bool = False
    _events: LinkEvents | None = None

    def start_threads(self) -> None:
        try:
            self.threads.start()
            self.writer.start()
        except RuntimeError as error:  # as Python says that the system has none left
            raise CannotStart(
                f"{error}: the limit of processes and threads is reached; raise it (ulimit -u, TasksMax= of a systemd "
                "unit), or give fewer --netlink-threads"
            ) from error

    def start_background(self) -> None:
        if self.hear_of_links is not None:
            try:
                self._events = self.hear_of_links()
                self._events.listen(self.lookout.hear)
            except LinkFailed as failure:
                _log.warn("what others do to links is noticed late: {reason}", reason=str(failure))
        self.lookout.begin()
        if self.in_background is not None:
            self._background = ensureDeferred(self.in_background(lambda: self._stopping))
            self._background.addErrback(log_unless_cancelled)

    def stop_background(self) -> None:
        self._stopping = True
        if self._events is not None:
            self._events.close()
        if self._background is not None:
            self._background.cancel()

    async def close(self) -> None:
        await self.rounds.close()
        await self.lookout.close()
        self.leases.close()
        self.announcements.close()
        self.conflicts.close()
        self.wires.close()
        try:
            await self.links.reaped()
        finally:
            try:
                self.threads.stop()
            finally:
                self.writer.close()


def log_unless_cancelled(failure: Failure) -> None:
    if not failure.check(CancelledError):
        _log.failure("work in the background failed", failure=failure)
