"""What others do to links while we run: where it concerns containers, it is undone or followed."""

from __future__ import annotations

import errno
from collections.abc import Collection
from typing import Any

from attrs import frozen
from twisted.internet.defer import Deferred, ensureDeferred
from twisted.logger import Logger

from ..driver.parent_plan import links_below
from ..driver.parents import Parents
from ..driver.registry import Registry
from ..errors import LinkError, MacvlanError
from ..lan.conflicts import Conflicts
from ..lan.host_link import HostLinks
from ..lan.host_routes import HostRoutes
from ..lan.packet_sockets import PacketSockets
from ..netlink.events import LinkEvent
from ..netlink.links import Links
from ..option_values import ConflictDetection

_log = Logger(namespace="macvlan_twisted.driver")

SOON = 0.1
"""Seconds for which news of a parent and of what hangs on it are gathered."""
LATEST = 60.0
"""
Seconds after which at the latest our link is made again, if somebody removes it again and again; and after which a parent
is looked at again that cannot be used.
"""


@frozen
class _Repair:
    at: float
    pause: float


@frozen
class _Due:
    at: float
    call: Any


class LinkMonitor:
    """
    Keeps VLANs, dummy links and our own links of host access in being, and the LANs of parents listened to.

    A parent that comes after the start, or comes back, is listened to from then on. So is each on which containers
    run when we start: without that, someone who takes an address of theirs is noticed only once something else makes
    us listen.

    :param clock: ``IReactorTime``
    """

    def __init__(
        self,
        registry: Registry,
        links: Links,
        parents: Parents,
        wires: PacketSockets,
        host_links: HostLinks,
        host_routes: HostRoutes,
        conflicts: Conflicts,
        clock: Any,
    ) -> None:
        self._registry = registry
        self._links = links
        self._parents = parents
        self._wires = wires
        self._host_links = host_links
        self._host_routes = host_routes
        self._conflicts = conflicts
        self._clock = clock
        self._due: dict[str, _Due] = {}
        self._looking: dict[str, Deferred[None]] = {}
        self._doubtful: set[str] = set()
        """Parents whose link of ours was down: the kernel has dropped the routes by it."""
        self._mended: dict[str, _Repair] = {}
        self._told: dict[str, str] = {}
        """By parent: what failed the last time, and was told."""
        self._by_link: dict[str, set[str]] = {}
        """By link: the parents that are to be looked at if something becomes of it."""
        self._indexed = -1
        self._closed = False

    def begin(self) -> None:
        """Look at all parents, at start in the background."""
        for parent in self._on_guard():
            self._look_soon(parent)

    def hear(self, news: LinkEvent) -> None:
        for parent in self._concerned_by(news):
            self._look_soon(parent)

    async def close(self) -> None:
        """What has begun is finished."""
        self._closed = True
        for due in self._due.values():
            due.call.cancel()
        self._due.clear()
        for look in list(self._looking.values()):
            await look

    def _on_guard(self) -> set[str]:
        return {network.parent for network in self._registry.networks.values()}

    def _concerned_by(self, news: LinkEvent) -> Collection[str]:
        """Hundreds of links may come and go in a second that are not ours: those cost one look into a table."""
        if not news.name:
            parents = self._on_guard()
            self._doubtful |= parents
            return parents
        if self._indexed != self._registry.changes:
            self._index()
        if news.name not in self._by_link:
            return ()
        parents = self._by_link[news.name]
        of_ours = {each for each in parents if self._host_links.name_on(each) == news.name}
        if not news.up:
            self._doubtful |= of_ours
        if not news.there:
            for parent in parents - of_ours:  # nobody is removing our link: it has gone with what is below
                self._mended.pop(parent, None)
        return parents

    def _index(self) -> None:
        self._indexed = self._registry.changes
        self._by_link = {}
        for parent in self._on_guard():
            self._by_link.setdefault(self._host_links.name_on(parent), set()).add(parent)
        for network in self._registry.networks.values():
            for name in links_below(network):
                self._by_link.setdefault(name, set()).add(network.parent)

    def _look_soon(self, parent: str) -> None:
        self._look_in(self._pause(parent), parent)

    def _look_in(self, pause: float, parent: str) -> None:
        due, at = self._due.get(parent), self._clock.seconds() + pause
        if due is not None and due.at > at:
            due.call.reset(pause)
            self._due[parent] = _Due(at, due.call)
        elif due is None and not self._closed:
            self._due[parent] = _Due(at, self._clock.callLater(pause, self._look_now, parent))

    def _pause(self, parent: str) -> float:
        mended = self._mended.get(parent)
        if mended is None or self._clock.seconds() - mended.at > mended.pause + LATEST:
            return SOON
        return min(4 * mended.pause, LATEST)

    def _look_now(self, parent: str) -> None:
        pause = self._pause(parent)
        del self._due[parent]
        if parent in self._looking:
            self._look_soon(parent)
            return
        self._looking[parent] = look = ensureDeferred(self._look(parent, pause))
        look.addErrback(lambda failure: _log.failure("looking at a parent failed", failure=failure))
        look.addCallback(lambda _: self._looked(parent))

    def _looked(self, parent: str) -> None:
        del self._looking[parent]

    async def _look(self, parent: str, pause: float) -> None:
        try:
            was_absent = self._parents.parent_status.is_absent(parent)
            if not await self._parents.look_after(parent):
                self._mended.pop(parent, None)
                if self._links.exists(parent):  # what is in the way of its use may go without a word
                    self._look_in(LATEST, parent)
                return  # we are told when it comes
            await self._mend_host_access(parent, pause, was_absent)
            if self._wires.of(parent).packet_socket is not None:
                await self._wires.ready(parent)  # which opens it again, or finds it open
            if self._has_to_be_watched(parent):
                await self._conflicts.watch(parent)
            self._told.pop(parent, None)
        except MacvlanError as failure:
            is_gone = isinstance(failure, LinkError) and failure.errno == errno.ENODEV
            if not is_gone and self._told.get(parent) != str(failure):
                self._told[parent] = str(failure)
                _log.warn("parent {parent} is looked at again: {reason}", parent=parent, reason=str(failure))
            self._mended[parent] = _Repair(self._clock.seconds(), pause)
            self._look_soon(parent)

    async def _mend_host_access(self, parent: str, pause: float, was_absent: bool) -> None:
        link = self._host_links.known.get(parent)
        if link is None or not self._host_routes.addresses_on(parent):
            self._doubtful.discard(parent)
            return
        if self._links.exists(link.name) and not await self._host_links.is_astray(parent):
            if parent not in self._doubtful:
                return
            present = await self._links.find(link.name)
            if present is None or not present.up:
                return  # somebody's wish, which he may revoke
        elif not was_absent and not self._links.exists(link.name):
            _log.warn(
                "our link {link} on parent {parent} is not there any more, and is made again: the host reaches its "
                "containers by it",
                link=link.name,
                parent=parent,
            )
            self._mended[parent] = _Repair(self._clock.seconds(), pause)
        self._doubtful.discard(parent)
        await self._host_routes.mend(parent)

    def _has_to_be_watched(self, parent: str) -> bool:
        """Whether there are addresses of ours that others may take."""
        return any(
            network.host_addresses or self._registry.endpoints_of(network.network_id)
            for network in self._registry.networks.values()
            if network.parent == parent and network.conflict_detection != ConflictDetection.OFF
        )
