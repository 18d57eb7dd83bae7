"""Hearing of links as they come, change and go, in the reactor and without asking."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

from attrs import frozen
from twisted.internet.interfaces import IReadDescriptor
from twisted.logger import Logger
from zope.interface import implementer

from ..errors import LinkError
from .codec import IFLA_IFNAME, LINK, RTM_DELLINK, RTM_NEWLINK, attributes_in, messages_in, text_of

_log = Logger(namespace="macvlan_twisted.netlink")

# By linux/rtnetlink.h and net/if.h.
_RTMGRP_LINK = 0x1
_IFF_UP, _IFF_RUNNING = 0x1, 0x40
_SO_RCVBUFFORCE = 33
_ROOM = 1 << 20
"""Bytes that the kernel keeps for us: some hundred changes while the reactor is busy."""
_MOST_AT_ONCE = 64


@frozen
class LinkEvent:
    """What became of a link of this network namespace."""

    name: str
    """Empty: news were lost, and any link may have changed."""
    there: bool = True
    """Else it was removed, renamed, or moved to another namespace."""
    up: bool = False
    """Whether frames can pass: it is up and has a carrier."""


Hear = Callable[[LinkEvent], None]

_LOST = LinkEvent("")


@implementer(IReadDescriptor)
class LinkEvents:
    """Reports each change of a link, also of attributes that :class:`LinkEvent` does not have, until :meth:`close`."""

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self._socket: socket.socket | None = None
        self._names: dict[int, str] = {}
        """By index: the kernel reports the new name of a link that is renamed, not the old one."""
        self._hearers: list[Hear] = []
        self._lost = False
        """Whether the kernel drops news, which it does until we have fetched those that it has kept."""

    def open(self) -> None:
        """:raises LinkError: the kernel refuses."""
        try:
            events = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
            events.setblocking(False)
            with suppress(PermissionError):
                events.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _ROOM)
            events.bind((0, _RTMGRP_LINK))
        except OSError as error:
            number = error.errno or 0
            raise LinkError(f"hearing of links: {os.strerror(number)}", number) from None
        self._socket = events
        self._names = dict(socket.if_nameindex())
        self._reactor.addReader(self)

    def listen(self, hear: Hear) -> Callable[[], None]:
        """:return: to be called when *hear* is to be told no more."""
        self._hearers.append(hear)

        def stop() -> None:
            if hear in self._hearers:
                self._hearers.remove(hear)

        return stop

    def close(self) -> None:
        self._hearers.clear()
        if self._socket is not None:
            self._reactor.removeReader(self)
            self._socket.close()
            self._socket = None

    # What the reactor asks of a reader.

    def doRead(self) -> None:
        for _ in range(_MOST_AT_ONCE):
            if self._socket is None:
                return  # a handler has closed us
            try:
                packet = self._socket.recv(1 << 16)
            except BlockingIOError:
                if self._lost:
                    self._begin_anew()
                return
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                self._lost = True
                continue
            for kind, index, flags, name in _links_in(packet):
                self._take(kind, index, flags, name)

    def _take(self, kind: int, index: int, flags: int, name: str) -> None:
        before = self._names.get(index, "")
        name = name or before
        if kind == RTM_DELLINK or name != before:
            self._names.pop(index, None)
            gone = before or (name if kind == RTM_DELLINK else "")
            if gone:
                self._tell(LinkEvent(gone, there=False))
        if kind == RTM_NEWLINK and name:
            self._names[index] = name
            self._tell(LinkEvent(name, up=flags & (_IFF_UP | _IFF_RUNNING) == _IFF_UP | _IFF_RUNNING))

    def _tell(self, news: LinkEvent) -> None:
        for hear in tuple(self._hearers):
            try:
                hear(news)
            except Exception:
                _log.failure("news of link {name} were not understood", name=news.name)

    def fileno(self) -> int:
        return -1 if self._socket is None else self._socket.fileno()

    def logPrefix(self) -> str:
        return "link events"

    def connectionLost(self, reason: Any) -> None:
        """
        The socket polls as broken when news were lost, until the error is fetched. Or the reactor stops.
        """
        if self._socket is None:
            return
        if self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == errno.ENOBUFS:
            self._reactor.addReader(self)
            self._begin_anew()

    def _begin_anew(self) -> None:
        self._lost = False
        self._names = dict(socket.if_nameindex())
        self._tell(_LOST)


def _links_in(packet: bytes) -> Iterator[tuple[int, int, int, str]]:
    """Of each message about a link: what happened, its index, flags, and name if that is told."""
    for kind, _, body in messages_in(packet):
        if kind in (RTM_NEWLINK, RTM_DELLINK) and len(body) >= LINK.size:
            family, _, index, flags, _ = LINK.unpack_from(body)
            # A bridge tells under its own family that a link is its port no more, which removes nothing.
            if family == socket.AF_UNSPEC:
                names = (text_of(value) for each, value in attributes_in(body) if each == IFLA_IFNAME)
                yield kind, index, flags, next(names, "")
