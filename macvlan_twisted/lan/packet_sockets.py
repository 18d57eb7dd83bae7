"""The wires of all parents in use: each opened when first needed, closed and cleared away with its last user."""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import Protocol

from twisted.internet.defer import ensureDeferred
from twisted.logger import Logger

from ..errors import LinkError
from ..keyed_lock import KeyedLock
from ..netlink.links import Links
from .host_link import HostLinks, is_for_itself
from .interfaces import FrameHandler, LanSocket, ReceivedFrame

_log = Logger(namespace="macvlan_twisted.lan")


class OpenSocket(LanSocket, Protocol):
    """What a wire stands on while its parent is there: :class:`~macvlan_twisted.lan.packet_socket.PacketSocket`."""

    @property
    def broken(self) -> bool: ...

    def open(self) -> None: ...

    def close(self) -> None: ...


class ParentAbsence(Protocol):
    """What is known of parents that are away: :class:`~macvlan_twisted.driver.parent_status.ParentStatus`."""

    def why_absent(self, parent: str) -> str:
        """What to say where *parent* is needed, and is not there."""


SocketFactory = Callable[[str, str, str], OpenSocket]
"""Makes the socket on a parent, to be opened; further arguments are the link that speaks, and its MAC."""


class ParentSocket:
    """
    The :class:`~macvlan_twisted.lan.interfaces.LanSocket` of one parent. It outlives taps: those who listen go on listening
    when the parent was away and has come back.
    """

    def __init__(self, parent: str, when_away: Callable[[str], None] = lambda parent: None) -> None:
        """:param when_away: told the parent when something is to be sent there, and no tap is open."""
        self.parent = parent
        self.parent_mac = ""
        """The MAC of the parent itself, when the socket was opened the last time; the host answers under it, too."""
        self.tap: OpenSocket | None = None
        self._when_away = when_away
        self._hearers: list[FrameHandler] = []

    @property
    def mac(self) -> str:
        return self._open_tap().mac

    def send(self, frame: bytes) -> None:
        self._open_tap().send(frame)

    def listen(self, hear: FrameHandler) -> Callable[[], None]:
        self._hearers.append(hear)

        def stop() -> None:
            if hear in self._hearers:
                self._hearers.remove(hear)

        return stop

    def hear(self, heard: ReceivedFrame) -> None:
        for hear in tuple(self._hearers):
            try:
                hear(heard)
            except Exception:
                _log.failure(
                    "a frame on {parent} was not understood: {frame}",
                    parent=self.parent,
                    frame=heard.frame.hex(),
                )

    def _open_tap(self) -> OpenSocket:
        if self.tap is None or self.tap.broken:
            self._when_away(self.parent)
            raise LinkError(f"parent {self.parent} is not there (any more), or was not listened to yet")
        return self.tap


class PacketSockets:
    """
    By parent. Who uses one says so by a name of its own, and says when it is over.

    :param make_socket: makes the packet socket on a parent.
    """

    def __init__(
        self, links: Links, host_links: HostLinks, make_socket: SocketFactory, absence: ParentAbsence
    ) -> None:
        self._links = links
        self._host_links = host_links
        self._make_socket = make_socket
        self._absence = absence
        self._locks = KeyedLock()
        self._wires: dict[str, ParentSocket] = {}
        self._speakers: dict[str, str] = {}
        self._users: dict[str, set[str]] = {}
        self._alone: dict[str, set[str]] = {}
        self._reviving: set[str] = set()
        self._closed = False
        self._when_unused: list[Callable[[str], None]] = []

    def listen_for_unused(self, call: Callable[[str], None]) -> None:
        """Have *call* called with each parent that loses its last user."""
        self._when_unused.append(call)

    def of(self, parent: str) -> ParentSocket:
        """The wire of *parent*, whether it is open or not."""
        return self._wires.setdefault(parent, ParentSocket(parent, self._revive))

    async def ready(self, parent: str) -> ParentSocket:
        """
        The wire of *parent*, open.

        :raises LinkError: the parent is not there, or the kernel refuses.
        """
        wire = self.of(parent)
        if not self._is_open(wire):
            async with self._locks.acquire(parent):
                if parent not in self._users:  # who asks is too late: nobody would remove our link again
                    raise LinkError(f"nobody uses parent {parent} any more")
                if not self._is_open(wire):
                    await self._open(wire)
        return wire

    def _revive(self, parent: str) -> None:
        """The parent may be back: what is sent there the next time then leaves."""
        if parent in self._users and parent not in self._reviving and not self._closed:
            self._reviving.add(parent)
            revived = ensureDeferred(self.ready(parent))
            revived.addErrback(lambda failure: failure.trap(LinkError))
            revived.addBoth(lambda _: self._reviving.discard(parent))

    def _is_open(self, wire: ParentSocket) -> bool:
        return (
            wire.tap is not None
            and not wire.tap.broken
            and self._links.exists(self._speakers.get(wire.parent, wire.parent))
        )

    async def _open(self, wire: ParentSocket) -> None:
        found = await self._links.find(wire.parent)
        if found is None:  # a tap may go on working on a link that was renamed
            raise LinkError(self._absence.why_absent(wire.parent), errno.ENODEV)
        self._close(wire)
        speaker, mac = wire.parent, found.mac
        wire.parent_mac = found.mac
        if not self._alone.get(wire.parent):
            try:
                link = await self._host_links.ensure(wire.parent, anew=True)
                speaker, mac = link.name, link.mac
            except LinkError as failure:
                if not is_for_itself(failure):
                    raise
                _log.info(
                    "on parent {parent} we speak by the parent itself, for it takes no link of ours: {reason}",
                    parent=wire.parent,
                    reason=str(failure),
                )
        self._speakers[wire.parent] = speaker
        tap = self._make_socket(wire.parent, speaker, mac)
        tap.open()
        tap.listen(wire.hear)
        wire.tap = tap

    @staticmethod
    def _close(wire: ParentSocket) -> None:
        tap, wire.tap = wire.tap, None
        if tap is not None:
            tap.close()

    def use(self, parent: str, user: str, alone: bool = False) -> None:
        """:param alone: at start, what :meth:`leave_alone` had said in an earlier life."""
        self._users.setdefault(parent, set()).add(user)
        if alone:
            self._alone.setdefault(parent, set()).add(user)

    async def disuse(self, parent: str, user: str) -> None:
        """With the last user the wire is closed and our link removed. Succeeds when there was no such user."""
        self._alone.get(parent, set()).discard(user)
        users = self._users.get(parent, set())
        users.discard(user)
        if not users:
            self._users.pop(parent, None)
            was_alone = self._alone.pop(parent, None) is not None
            for tell in self._when_unused:
                tell(parent)
            async with self._locks.acquire(parent):
                if parent not in self._users:
                    await self._clear(parent)
                elif was_alone:  # who came meanwhile may speak by a link of ours
                    self._silence(parent)

    async def vacate(self, parent: str) -> None:
        """Close the wire and remove our link; whoever needs it again opens it again."""
        async with self._locks.acquire(parent):
            await self._clear(parent)

    async def _clear(self, parent: str) -> None:
        self._silence(parent)
        if parent not in self._users:
            self._wires.pop(parent, None)
        await self._host_links.remove(parent)

    def _silence(self, parent: str) -> None:
        wire = self._wires.get(parent)
        if wire is not None:
            self._close(wire)
        self._speakers.pop(parent, None)

    async def leave_alone(self, parent: str, user: str) -> None:
        """Have no link of ours on *parent* while *user* uses it: in mode passthru there is room for one alone."""
        self.use(parent, user, alone=True)
        await self.vacate(parent)
        await self._links.deletions_finished()

    async def drop_unused(self) -> None:
        """At start: remove links that an earlier life made for what is not there any more."""
        for parent in [each for each in self._host_links.known if each not in self._users]:
            await self._host_links.remove(parent)

    def close(self) -> None:
        """At the end of the service; links stay, for the host goes on reaching its containers."""
        self._closed = True
        for wire in self._wires.values():
            self._close(wire)
