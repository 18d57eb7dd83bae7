"""What others do to links while we run: where it concerns containers, it is undone or followed."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from attrs import frozen
from twisted.internet.defer import Deferred, ensureDeferred
from twisted.logger import Logger

from ..errors import MacvlanError
from ..lan.conflicts import Conflicts
from ..lan.host_access import HostAccess
from ..lan.host_links import HostLinks
from ..lan.wires import Wires
from ..links.events import LinkNews
from ..links.pool import Links
from .known import Known

_log = Logger(namespace="macvlan_twisted.driver")

SOON = 0.1
"""Seconds for which news of a parent and of what hangs on it are gathered."""
LATEST = 60.0
"""Seconds after which at the latest our link is made again, if somebody removes it again and again."""


@frozen
class _Mended:
    at: float
    pause: float


class Lookout:
    """
    Keeps our own links of host access in being, and the LANs of parents listened to.

    A parent that comes after the start, or comes back, is listened to from then on. So is each on which containers
    run when we start: without that, someone who takes an address of theirs is noticed only once something else makes
    us listen.

    :param clock: ``IReactorTime``
    """

    def __init__(
        self,
        known: Known,
        links: Links,
        wires: Wires,
        host_links: HostLinks,
        host_access: HostAccess,
        conflicts: Conflicts,
        clock: Any,
    ) -> None:
        self._known = known
        self._links = links
        self._wires = wires
        self._host_links = host_links
        self._host_access = host_access
        self._conflicts = conflicts
        self._clock = clock
        self._due: dict[str, Any] = {}
        self._looking: dict[str, Deferred[None]] = {}
        self._doubtful: set[str] = set()
        """Parents whose link of ours was down: the kernel has dropped the routes by it."""
        self._mended: dict[str, _Mended] = {}
        self._closed = False

    def begin(self) -> None:
        """Look at all parents, at start in the background."""
        for parent in self._parents():
            self._look_soon(parent)

    def hear(self, news: LinkNews) -> None:
        for parent in self._concerned_by(news):
            self._look_soon(parent)

    async def close(self) -> None:
        """What has begun is finished."""
        self._closed = True
        for call in self._due.values():
            call.cancel()
        self._due.clear()
        for look in list(self._looking.values()):
            await look

    def _parents(self) -> set[str]:
        return {network.parent for network in self._known.networks.values()}

    def _concerned_by(self, news: LinkNews) -> Iterable[str]:
        parents = self._parents()
        if not news.name:
            self._doubtful |= parents
            return parents
        for parent in parents:
            link = self._host_links.known.get(parent)
            if link is not None and link.name == news.name:
                if not news.up:
                    self._doubtful.add(parent)
                return [parent]
        return [news.name] if news.name in parents and news.there else []

    def _look_soon(self, parent: str) -> None:
        if parent not in self._due and not self._closed:
            self._due[parent] = self._clock.callLater(self._pause(parent), self._look_now, parent)

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
        if not self._links.exists(parent):
            return  # we are told when it comes
        try:
            await self._mend_host_access(parent, pause)
            if self._wires.of(parent).tap is not None:
                await self._wires.ready(parent)  # which opens it again, or finds it open
            if self._has_to_be_watched(parent):
                await self._conflicts.watch(parent)
        except MacvlanError as failure:
            _log.warn("parent {parent} is looked at again: {reason}", parent=parent, reason=str(failure))
            self._mended[parent] = _Mended(self._clock.seconds(), pause)
            self._look_soon(parent)

    async def _mend_host_access(self, parent: str, pause: float) -> None:
        link = self._host_links.known.get(parent)
        if link is None or not self._host_access.addresses_on(parent):
            self._doubtful.discard(parent)
            return
        if self._links.exists(link.name):
            if parent not in self._doubtful:
                return
            present = await self._links.find(link.name)
            if present is None or not present.up:
                return  # somebody's wish, which he may revoke
        else:
            _log.warn(
                "our link {link} on parent {parent} is not there any more, and is made again: the host reaches its "
                "containers by it",
                link=link.name,
                parent=parent,
            )
            self._mended[parent] = _Mended(self._clock.seconds(), pause)
        self._doubtful.discard(parent)
        await self._host_access.mend(parent)

    def _has_to_be_watched(self, parent: str) -> bool:
        """Whether there are addresses of ours that others may take."""
        return any(
            network.host_addresses or self._known.endpoints_of(network.network_id)
            for network in self._known.networks.values()
            if network.parent == parent and network.conflict_detection != "off"
        )
