"""Follows what others do to links while we run: repairs what containers need, and listens on the LANs of parents."""

from __future__ import annotations

import errno
from collections.abc import Collection, Iterable
from typing import Any

from attrs import frozen
from twisted.internet.defer import Deferred, ensureDeferred
from twisted.logger import Logger

from ..driver.parent_plan import links_below
from ..driver.parents import Parents
from ..driver.registry import Registry
from ..errors import LinkError, MacvlanError
from ..ipam.prefetch_queue import PrefetchQueue
from ..lan.conflicts import Conflicts
from ..lan.host_link import HostLinks
from ..lan.host_routes import HostRoutes
from ..lan.packet_sockets import PacketSockets
from ..netlink.events import LinkEvent
from ..netlink.links import Links
from ..option_values import ConflictDetection

_log = Logger(namespace="macvlan_twisted.driver")

SOON = 0.1
"""Seconds for which events of a parent and of what hangs on it are gathered."""
LATEST = 60.0
"""
Seconds after which at the latest our link is made again if somebody removes it again and again, and after which a parent
that cannot be used is checked again.
"""


@frozen
class _Repair:
    at: float
    pause: float


@frozen
class _Due:
    at: float
    call: Any


class HostLinkRepair:
    """Makes our own link on a parent again, with its addresses and routes, if somebody has removed it or taken it down."""

    def __init__(self, links: Links, host_links: HostLinks, host_routes: HostRoutes) -> None:
        self._links = links
        self._host_links = host_links
        self._host_routes = host_routes
        self._suspect: set[str] = set()
        """Parents whose link of ours was down: the kernel has dropped the routes by it."""

    def name_on(self, parent: str) -> str:
        """The name of our link on *parent*, whether it is there or not."""
        return self._host_links.name_on(parent)

    def suspect(self, parents: Iterable[str]) -> None:
        """Our link on each of *parents* may have lost its routes."""
        self._suspect.update(parents)

    async def repair(self, parent: str, was_absent: bool) -> bool:
        """
        :param was_absent: whether the parent has just come back, so that nobody is to blame for the missing link.
        :return: whether somebody has removed our link.
        :raises MacvlanError: the parent is not there, or the kernel refuses.
        """
        link = self._host_links.known.get(parent)
        if link is None or not self._host_routes.addresses_on(parent):
            self._suspect.discard(parent)
            return False
        was_removed = False
        if self._links.exists(link.name) and not await self._host_links.is_astray(parent):
            if parent not in self._suspect:
                return False
            present = await self._links.find(link.name)
            if present is None or not present.up:
                return False  # somebody wants it down, and may bring it up again
        elif not was_absent and not self._links.exists(link.name):
            # Cause: another program removed the link by which the host reaches its containers. Remedy: find that
            # program; the plugin restores the link, its addresses and its routes.
            _log.warn(
                "host link {link}: gone from parent {parent}, created again",
                link=link.name,
                parent=parent,
            )
            was_removed = True
        self._suspect.discard(parent)
        await self._host_routes.mend(parent)
        return was_removed


class LinkMonitor:
    """
    Makes VLANs, dummy links and our own links of host access again, and listens on the LANs of parents.

    A parent that appears, or comes back, is listened to from then on. So is each on which containers run when we start:
    otherwise another host that takes one of their addresses would only be noticed once something else makes us listen.

    :param clock: ``IReactorTime``
    """

    def __init__(
        self,
        registry: Registry,
        parents: Parents,
        sockets: PacketSockets,
        conflicts: Conflicts,
        host_link_repair: HostLinkRepair,
        prefetch: PrefetchQueue,
        clock: Any,
    ) -> None:
        self._registry = registry
        self._parents = parents
        self._sockets = sockets
        self._conflicts = conflicts
        self._host_link_repair = host_link_repair
        self._prefetch = prefetch
        self._clock = clock
        self._due: dict[str, _Due] = {}
        self._checks: dict[str, Deferred[None]] = {}
        self._repairs: dict[str, _Repair] = {}
        self._reported: dict[str, str] = {}
        """By parent: what failed the last time, and was logged."""
        self._by_link: dict[str, set[str]] = {}
        """By link: the parents to be checked when something happens to it."""
        self._indexed = -1
        self._stopped = False

    def start(self) -> None:
        """Check all parents soon."""
        for parent in self._monitored():
            self._check_soon(parent)

    def handle_event(self, event: LinkEvent) -> None:
        for parent in self._concerned_by(event):
            self._check_soon(parent)

    async def stop(self) -> None:
        """Finish the checks that have begun."""
        self._stopped = True
        for due in self._due.values():
            due.call.cancel()
        self._due.clear()
        for check in list(self._checks.values()):
            await check

    def _monitored(self) -> set[str]:
        return {network.parent for network in self._registry.networks.values()}

    def _concerned_by(self, event: LinkEvent) -> Collection[str]:
        """Hundreds of links that are not ours may come and go in a second: each costs one lookup in a dictionary."""
        if not event.name:
            parents = self._monitored()
            self._host_link_repair.suspect(parents)
            return parents
        if self._indexed != self._registry.changes:
            self._index()
        if event.name not in self._by_link:
            return ()
        parents = self._by_link[event.name]
        of_ours = {each for each in parents if self._host_link_repair.name_on(each) == event.name}
        if not event.up:
            self._host_link_repair.suspect(of_ours)
        if not event.there:
            for parent in (
                parents - of_ours
            ):  # our link has gone with what is below, and nobody has removed it
                self._repairs.pop(parent, None)
        return parents

    def _index(self) -> None:
        self._indexed = self._registry.changes
        self._by_link = {}
        for parent in self._monitored():
            self._by_link.setdefault(self._host_link_repair.name_on(parent), set()).add(parent)
        for network in self._registry.networks.values():
            for name in links_below(network):
                self._by_link.setdefault(name, set()).add(network.parent)

    def _check_soon(self, parent: str) -> None:
        self._check_in(self._pause(parent), parent)

    def _check_in(self, pause: float, parent: str) -> None:
        due, at = self._due.get(parent), self._clock.seconds() + pause
        if due is not None and due.at > at:
            due.call.reset(pause)
            self._due[parent] = _Due(at, due.call)
        elif due is None and not self._stopped:
            self._due[parent] = _Due(at, self._clock.callLater(pause, self._check_now, parent))

    def _pause(self, parent: str) -> float:
        repair = self._repairs.get(parent)
        if repair is None or self._clock.seconds() - repair.at > repair.pause + LATEST:
            return SOON
        return min(4 * repair.pause, LATEST)

    def _check_now(self, parent: str) -> None:
        pause = self._pause(parent)
        del self._due[parent]
        if parent in self._checks:
            self._check_soon(parent)
            return
        self._checks[parent] = check = ensureDeferred(self._check(parent, pause))
        check.addErrback(lambda failure: _log.failure("parent check: failed", failure=failure))
        check.addCallback(lambda _: self._checked(parent))

    def _checked(self, parent: str) -> None:
        del self._checks[parent]

    async def _check(self, parent: str, pause: float) -> None:
        try:
            was_absent = self._parents.status.is_absent(parent)
            if not await self._parents.repair(parent):
                self._repairs.pop(parent, None)
                if self._parents.exists(parent):  # no event reports that what prevents its use is gone
                    self._check_in(LATEST, parent)
                return  # an event reports its return
            if await self._host_link_repair.repair(parent, was_absent):
                self._repairs[parent] = _Repair(self._clock.seconds(), pause)
            if self._sockets.of(parent).packet_socket is not None:
                await self._sockets.ready(parent)  # opens it again, or finds it open
                await self._sockets.read_parent_mac(parent)
            if self._has_to_be_watched(parent):
                await self._conflicts.watch(parent)
            # Else the probes would make our link, whose event leads here again.
            if was_absent or self._sockets.of(parent).packet_socket is not None:
                self._prefetch.prepare_on(parent)
            self._reported.pop(parent, None)
        except MacvlanError as failure:
            is_gone = isinstance(failure, LinkError) and failure.errno == errno.ENODEV
            if not is_gone and self._reported.get(parent) != str(failure):
                self._reported[parent] = str(failure)
                # Cause: the kernel refused a link or a socket on the parent. Remedy: see the reason in the
                # line.
                _log.warn(
                    "parent {parent}: cannot be restored yet, the plugin tries again within a minute ({reason})",
                    parent=parent,
                    reason=str(failure),
                )
            self._repairs[parent] = _Repair(self._clock.seconds(), pause)
            self._check_soon(parent)

    def _has_to_be_watched(self, parent: str) -> bool:
        """Whether there are addresses of ours that others may take."""
        return any(
            network.host_addresses or self._registry.endpoints_of(network.network_id)
            for network in self._registry.networks.values()
            if network.parent == parent and network.conflict_detection != ConflictDetection.OFF
        )
