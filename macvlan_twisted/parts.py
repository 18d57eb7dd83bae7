"""The life of the parts, once they are wired: in which order they begin, and end."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from attrs import define
from twisted.internet.defer import CancelledError, Deferred, ensureDeferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from .dhcp.leases import Leases
from .errors import LinkError, StartupError
from .lan.announcer import Announcer
from .lan.conflicts import Conflicts
from .lan.packet_sockets import PacketSockets
from .netlink.events import LinkEvents
from .netlink.links import Links
from .protocol.routes import PluginApp
from .protocol.site import PluginSite
from .reconcile.link_monitor import LinkMonitor
from .reconcile.reconciler import Reconciler
from .state.group_commit import GroupCommit
from .worker_threads import WorkerThreads

_log = Logger(namespace="macvlan_twisted")


@define
class WiredParts:
    """What :class:`~macvlan_twisted.service.MacvlanService` starts and stops, as a whole."""

    site: PluginSite
    calls: PluginApp
    links: Links
    threads: WorkerThreads
    deletion_thread: WorkerThreads
    writer: GroupCommit
    wires: PacketSockets
    conflicts: Conflicts
    announcements: Announcer
    leases: Leases
    link_monitor: LinkMonitor
    reconciler: Reconciler
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
            self.deletion_thread.start()
            self.writer.start()
        except RuntimeError as error:  # as Python says that the system has none left
            raise StartupError(
                f"{error}: the limit of processes and threads is reached; raise it (ulimit -u, TasksMax= of a systemd "
                "unit), or give fewer --netlink-threads"
            ) from error

    def start_background(self) -> None:
        if self.hear_of_links is not None:
            try:
                self._events = self.hear_of_links()
                self._events.open()
                self._events.listen(self.link_monitor.hear)
            except LinkError as failure:
                _log.warn("what others do to links is noticed late: {reason}", reason=str(failure))
        self.link_monitor.begin()
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
        await self.reconciler.close()
        await self.link_monitor.close()
        self.leases.close()
        self.announcements.close()
        self.conflicts.close()
        self.wires.close()
        try:
            await self.links.deletions_finished()
        finally:
            try:
                self.threads.stop()
                self.deletion_thread.stop()
            finally:
                self.writer.close()


def log_unless_cancelled(failure: Failure) -> None:
    if not failure.check(CancelledError):
        _log.failure("work in the background failed", failure=failure)
