"""Events of links, and of the host's addresses: an rtnetlink multicast socket in the reactor."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from attrs import frozen
from twisted.internet.interfaces import IReadDescriptor
from twisted.logger import Logger
from zope.interface import implementer

from ..errors import LinkError
from .codec import (
    IFLA_IFNAME,
    LINK,
    RTM_DELADDR,
    RTM_DELLINK,
    RTM_NEWADDR,
    RTM_NEWLINK,
    attributes_in,
    messages_in,
    text_of,
)

_log = Logger(namespace="macvlan_twisted.netlink")

# Remedy of these errors: see the reason in the message.

# By linux/rtnetlink.h and net/if.h.
_RTMGRP_LINK, _RTMGRP_IPV4_IFADDR, _RTMGRP_IPV6_IFADDR = 0x1, 0x10, 0x100
_IFF_UP, _IFF_RUNNING = 0x1, 0x40
_SO_RCVBUFFORCE = 33
_BUFFER_SIZE = 1 << 20
"""Receive buffer in bytes: room for some hundred changes while the reactor is busy."""
_MOST_AT_ONCE = 64


@frozen
class LinkEvent:
    """The change of a link in this network namespace."""

    name: str
    """Empty if events were lost: any link may have changed."""
    there: bool = True
    """False if it was removed, renamed, or moved to another namespace."""
    up: bool = False
    """Whether it is up and has a carrier."""


LinkListener = Callable[[LinkEvent], None]

_LOST = LinkEvent("")


@implementer(IReadDescriptor)
class LinkEvents:
    """
    Reports each change of a link, also of attributes that :class:`LinkEvent` does not have, until :meth:`close`.

    :param addresses_changed: is called when an address of the host was added or removed, or may have been.
    """

    def __init__(self, reactor: Any, addresses_changed: Callable[[], None] = lambda: None) -> None:
        self._reactor = reactor
        self._addresses_changed = addresses_changed
        self._socket: socket.socket | None = None
        self._names: dict[int, str] = {}
        """By index: the kernel reports the new name of a link that is renamed, not the old one."""
        self._listeners: list[LinkListener] = []
        self._is_read = False
        self._lost = False
        """Whether the kernel dropped events. It does so until we have read its buffer."""

    def open(self) -> None:
        """:raises LinkError: the kernel refuses."""
        try:
            events = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
            events.setblocking(False)
            with suppress(PermissionError):
                events.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _BUFFER_SIZE)
            events.bind((0, _RTMGRP_LINK | _RTMGRP_IPV4_IFADDR | _RTMGRP_IPV6_IFADDR))
            names = dict(socket.if_nameindex())
        except OSError as error:
            number = error.errno or 0
            raise LinkError(f"cannot listen for link events: {os.strerror(number)}", number) from None
        self._socket = events
        self._names = names
        self._reactor.addReader(self)
        self._is_read = True

    def listen(self, listener: LinkListener) -> Callable[[], None]:
        """:return: call it to stop listening."""
        self._listeners.append(listener)

        def stop() -> None:
            if listener in self._listeners:
                self._listeners.remove(listener)

        return stop

    def is_reporting(self) -> bool:
        """Whether changes are reported: not before :meth:`open`, nor when the socket has failed."""
        return self._is_read

    def close(self) -> None:
        self._is_read = False
        self._listeners.clear()
        if self._socket is not None:
            self._reactor.removeReader(self)
            self._socket.close()
            self._socket = None

    # IReadDescriptor.

    def doRead(self) -> None:
        for _ in range(_MOST_AT_ONCE):
            if self._socket is None:
                return  # a handler has closed us
            try:
                packet = self._socket.recv(1 << 16)
            except BlockingIOError:
                if self._lost:
                    self._start_over()
                return
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                self._lost = True
                self._addresses_changed()
                continue
            for kind, _, _, start, end in messages_in(packet):
                if kind in (RTM_NEWADDR, RTM_DELADDR):
                    self._addresses_changed()
                elif kind in (RTM_NEWLINK, RTM_DELLINK):
                    self._handle(kind, packet[start:end])

    def _handle(self, kind: int, message: bytes) -> None:
        if len(message) < LINK.size:
            return
        family, _, index, flags, _ = LINK.unpack_from(message)
        if family != socket.AF_UNSPEC:
            return  # one of AF_BRIDGE says that a link left a bridge; the link itself stays
        name = text_of(attributes_in(message, (IFLA_IFNAME,)).get(IFLA_IFNAME, b""))
        before = self._names.get(index, "")
        name = name or before
        if kind == RTM_DELLINK or name != before:
            self._names.pop(index, None)
            gone = before or (name if kind == RTM_DELLINK else "")
            if gone:
                self._report(LinkEvent(gone, there=False))
        if kind == RTM_NEWLINK and name:
            self._names[index] = name
            self._report(LinkEvent(name, up=flags & (_IFF_UP | _IFF_RUNNING) == _IFF_UP | _IFF_RUNNING))

    def _report(self, event: LinkEvent) -> None:
        for listener in tuple(self._listeners):
            try:
                listener(event)
            except Exception:
                _log.failure("link {link}: cannot handle its event", link=event.name)

    def fileno(self) -> int:
        return -1 if self._socket is None else self._socket.fileno()

    def logPrefix(self) -> str:
        return "link events"

    def connectionLost(self, reason: Any) -> None:
        """The socket polls as broken when events were lost, until its error is read. Or the reactor stops."""
        if self._socket is None:
            return
        if self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == errno.ENOBUFS:
            self._reactor.addReader(self)
            self._start_over()
        else:
            self._is_read = False

    def _start_over(self) -> None:
        self._addresses_changed()
        self._lost = False
        self._names = dict(socket.if_nameindex())
        self._report(_LOST)
