"""The packet sockets of all parents in use: each is opened when it is needed first, and closed with its last user."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from typing import Protocol

from twisted.internet.defer import ensureDeferred
from twisted.logger import Logger

from ..addresses import IPAddress
from ..errors import LinkError
from ..keyed_lock import KeyedLock
from ..netlink.links import Links
from .host_link import HostLinks, is_for_itself
from .interfaces import AddressesOf, FrameHandler, LanSocket, ReceivedFrame, no_addresses

_log = Logger(namespace="macvlan_twisted.lan")

# Remedy of these errors: reconnect the NIC, load its driver, or rename it back to PARENT; the plugin tries again by itself.


class OpenSocket(LanSocket, Protocol):
    """:class:`~macvlan_twisted.lan.packet_socket.PacketSocket`, or a fake."""

    @property
    def broken(self) -> bool: ...

    def open(self) -> None: ...

    def close(self) -> None: ...


class ParentAbsence(Protocol):
    """What is known of parents that are away: :class:`~macvlan_twisted.driver.parent_status.ParentStatus`."""

    def why_absent(self, parent: str) -> str:
        """The error message for *parent*, which is absent."""


SocketFactory = Callable[[str, str, str], OpenSocket]
"""Makes the socket on a parent, to be opened; further arguments are the link that speaks, and its MAC."""


class ParentSocket:
    """
    The :class:`~macvlan_twisted.lan.interfaces.LanSocket` of one parent. It outlives packet sockets: listeners go on when
    the parent was away and has come back.
    """

    def __init__(self, parent: str, when_away: Callable[[str], None] = lambda parent: None) -> None:
        """:param when_away: is called with the parent when a frame cannot be sent, since no packet socket is open."""
        self.parent = parent
        self.parent_mac = ""
        """The MAC of the parent itself, when the socket was opened last. The host answers from it, too."""
        self.packet_socket: OpenSocket | None = None
        self._when_away = when_away
        self._listeners: list[tuple[FrameHandler, AddressesOf]] = []

    @property
    def mac(self) -> str:
        return self._open_socket().mac

    def send(self, frame: bytes) -> None:
        self._open_socket().send(frame)

    def listen(self, handler: FrameHandler, addresses: AddressesOf = no_addresses) -> Callable[[], None]:
        listener = handler, addresses
        self._listeners.append(listener)

        def stop() -> None:
            if listener in self._listeners:
                self._listeners.remove(listener)

        return stop

    def read(self) -> None:
        if self.packet_socket is not None:
            self.packet_socket.read()

    def receive(self, received: ReceivedFrame) -> None:
        for handler, _ in tuple(self._listeners):
            try:
                handler(received)
            except Exception:
                _log.failure(
                    "parent {parent}: cannot handle frame {frame}",
                    parent=self.parent,
                    frame=received.frame.hex(),
                )

    def addresses(self) -> Iterator[IPAddress]:
        """The addresses about which a listener needs every frame."""
        for _, addresses in self._listeners:
            yield from addresses()

    def _open_socket(self) -> OpenSocket:
        if self.packet_socket is None or self.packet_socket.broken:
            self._when_away(self.parent)
            raise LinkError(f"parent {self.parent} is absent, or its socket is not open yet")
        return self.packet_socket


class PacketSockets:
    """
    By parent. Each user registers with a name of its own.

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
        self._sockets: dict[str, ParentSocket] = {}
        self._speakers: dict[str, str] = {}
        self._users: dict[str, set[str]] = {}
        self._exclusive: dict[str, set[str]] = {}
        self._reviving: set[str] = set()
        self._closed = False
        self._when_unused: list[Callable[[str], None]] = []

    def listen_for_unused(self, call: Callable[[str], None]) -> None:
        """Have *call* called with each parent that loses its last user."""
        self._when_unused.append(call)

    def of(self, parent: str) -> ParentSocket:
        """The socket of *parent*, open or not."""
        return self._sockets.setdefault(parent, ParentSocket(parent, self._revive))

    async def ready(self, parent: str) -> ParentSocket:
        """
        The socket of *parent*, open.

        :raises LinkError: the parent is not there, or the kernel refuses.
        """
        socket = self.of(parent)
        if self._closed:
            # Remedy: try again when the plugin is back.
            raise LinkError(f"cannot listen on {parent}: the plugin is stopping")
        if not self._is_open(socket):
            async with self._locks.acquire(parent):
                if parent not in self._users:  # too late: nobody would remove our link again
                    raise LinkError(
                        f"parent {parent} was released while this request was waiting, because no network uses it any "
                        "more: run the docker command again"
                    )
                if not self._is_open(socket):
                    await self._open(socket)
        return socket

    async def read_parent_mac(self, parent: str) -> None:
        """Something has happened to the parent: it may have another MAC now."""
        found = await self._links.find(parent)
        if found is not None:
            self.of(parent).parent_mac = found.mac

    def _revive(self, parent: str) -> None:
        """Reopen the socket if the parent is back, for the next frame."""
        if parent in self._users and parent not in self._reviving and not self._closed:
            self._reviving.add(parent)
            revived = ensureDeferred(self.ready(parent))
            revived.addErrback(lambda failure: failure.trap(LinkError))
            revived.addBoth(lambda _: self._reviving.discard(parent))

    def _is_open(self, socket: ParentSocket) -> bool:
        return (
            socket.packet_socket is not None
            and not socket.packet_socket.broken
            and self._links.exists(self._speakers.get(socket.parent, socket.parent))
        )

    async def _open(self, socket: ParentSocket) -> None:
        found = await self._links.find(socket.parent)
        if found is None:  # a packet socket works on after its link was renamed
            raise LinkError(self._absence.why_absent(socket.parent), errno.ENODEV)
        self._close(socket)
        speaker, mac = socket.parent, found.mac
        socket.parent_mac = found.mac
        if not self._exclusive.get(socket.parent):
            try:
                link = await self._host_links.ensure(socket.parent, anew=True)
                speaker, mac = link.name, link.mac
            except LinkError as failure:
                if not is_for_itself(failure):
                    raise
                _log.info(
                    "parent {parent}: cannot create a host link on it, so the plugin sends and listens on the parent itself "
                    "({reason})",
                    parent=socket.parent,
                    reason=str(failure),
                )
        self._speakers[socket.parent] = speaker
        packet_socket = self._make_socket(socket.parent, speaker, mac)
        packet_socket.open()
        packet_socket.listen(socket.receive, socket.addresses)
        socket.packet_socket = packet_socket

    @staticmethod
    def _close(socket: ParentSocket) -> None:
        packet_socket, socket.packet_socket = socket.packet_socket, None
        if packet_socket is not None:
            packet_socket.close()

    def use(self, parent: str, user: str, alone: bool = False) -> None:
        """:param alone: at start: *user* has called :meth:`use_exclusively` in an earlier life."""
        self._users.setdefault(parent, set()).add(user)
        if alone:
            self._exclusive.setdefault(parent, set()).add(user)

    async def disuse(self, parent: str, user: str) -> None:
        """With the last user, close the socket and remove our link. Succeeds if there is no such user."""
        self._exclusive.get(parent, set()).discard(user)
        users = self._users.get(parent, set())
        users.discard(user)
        if not users:
            self._users.pop(parent, None)
            was_exclusive = self._exclusive.pop(parent, None) is not None
            for tell in self._when_unused:
                tell(parent)
            async with self._locks.acquire(parent):
                if parent not in self._users:
                    await self._clear(parent)
                elif was_exclusive:  # a user that came meanwhile may send from a link of ours
                    self._disconnect(parent)

    async def vacate(self, parent: str) -> None:
        """Close the socket and remove our link; :meth:`ready` opens it again."""
        async with self._locks.acquire(parent):
            await self._clear(parent)

    async def _clear(self, parent: str) -> None:
        self._disconnect(parent)
        if parent not in self._users:
            self._sockets.pop(parent, None)
        await self._host_links.remove(parent)

    def _disconnect(self, parent: str) -> None:
        socket = self._sockets.get(parent)
        if socket is not None:
            self._close(socket)
        self._speakers.pop(parent, None)

    async def use_exclusively(self, parent: str, user: str) -> None:
        """Have no link of ours on *parent* while *user* uses it: mode passthru allows a single link."""
        self.use(parent, user, alone=True)
        await self.vacate(parent)
        await self._links.deletions_finished()

    async def drop_unused(self) -> None:
        """At start: remove our links on parents that have no user any more."""
        for parent in [each for each in self._host_links.known if each not in self._users]:
            await self._host_links.remove(parent)

    def close(self) -> None:
        """Close all sockets. Links stay, so that the host still reaches its containers."""
        self._closed = True
        for socket in self._sockets.values():
            self._close(socket)
