"""A packet socket on a parent: the real :class:`~macvlan_twisted.lan.interfaces.LanSocket`."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import struct
from collections.abc import Callable, Iterator
from typing import Any

from twisted.internet.interfaces import IReadDescriptor
from twisted.logger import Logger
from zope.interface import implementer

from ..addresses import IPAddress
from ..errors import LinkError
from . import packet_filter
from .interfaces import AddressesOf, FrameHandler, ReceivedFrame, no_addresses
from .storm_control import StormControl

_log = Logger(namespace="macvlan_twisted.lan")

# Remedy of these errors: bring the parent up; the plugin tries again by itself.

_ETH_P_ALL = 0x0003
_SOL_PACKET = 263
_PACKET_ADD_MEMBERSHIP, _PACKET_MR_ALLMULTI = 1, 2
_SIOCGIFFLAGS, _IFF_UP, _IFF_RUNNING = 0x8913, 0x1, 0x40
_MOST_FRAMES_AT_ONCE = 64
"""Frames to read before the reactor gets its turn, however busy the LAN is."""
_MOST_QUEUED = 512
"""More frames than fit into a receive buffer of Linux's default size (212,992 bytes, at least 768 for each frame)."""


def _exists(name: str) -> bool:
    try:
        socket.if_nametoindex(name)
    except OSError:
        return False
    return True


def _here(work: Callable[[], None]) -> None:
    work()


@implementer(IReadDescriptor)
class PacketSocket:
    """
    A packet socket on one parent. It needs CAP_NET_RAW.

    The socket receives frames before macvlan does, so also those for containers. The NIC need not be promiscuous: the
    kernel adds the MACs of its macvlan links to its filter.

    :param clock: ``IReactorTime``
    :param speaker: the link that sends frames: our own link on the parent, so that siblings receive them; else the parent.
    :param mac: the MAC of *speaker*.
    :param elsewhere: runs a function on a thread: closing a packet socket waits for a grace period of the kernel, 8 to
        48 ms (measured). By default it is closed in the calling thread.
    """

    _socket: socket.socket

    def __init__(
        self,
        reactor: Any,
        clock: Any,
        parent: str,
        speaker: str,
        mac: str,
        elsewhere: Callable[[Callable[[], None]], object] = _here,
    ) -> None:
        self._elsewhere = elsewhere
        self.parent = parent
        self.mac = mac
        self._speaker = speaker
        self._reactor = reactor
        self._listeners: list[tuple[FrameHandler, AddressesOf]] = []
        self._lost = False
        self._storm_control = StormControl(parent, clock, self._attach_filter, self._addresses)

    def open(self) -> None:
        """:raises LinkError: the parent is not there, or the kernel refuses."""
        try:
            self._socket = self._bound_socket()
        except OSError as error:
            # if_nametoindex() gives no number.
            number = error.errno or errno.ENODEV
            raise LinkError(f"cannot listen on {self.parent}: {os.strerror(number)}", number) from None
        self._reactor.addReader(self)

    def _bound_socket(self) -> socket.socket:
        # With protocol 0 it receives nothing before the filter is attached.
        packet_socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        try:
            packet_socket.setblocking(False)
            packet_filter.attach(packet_socket)
            index = socket.if_nametoindex(self.parent)
            # Neighbour discovery uses multicast groups of which the host may not be a member.
            request = struct.pack("iHH8s", index, _PACKET_MR_ALLMULTI, 0, b"")
            packet_socket.setsockopt(_SOL_PACKET, _PACKET_ADD_MEMBERSHIP, request)
            packet_socket.bind((self.parent, _ETH_P_ALL))
        except BaseException:
            self._elsewhere(packet_socket.close)
            raise
        return packet_socket

    def _attach_filter(self, only: packet_filter.AddressFilter | None) -> None:
        packet_filter.attach(self._socket, only)

    def _addresses(self) -> Iterator[IPAddress]:
        for _, addresses in self._listeners:
            yield from addresses()

    @property
    def broken(self) -> bool:
        """Whether the parent is gone, or another link has its name: a new socket is needed."""
        # ENETDOWN means that the parent went down or is about to be deleted. Once it is deleted, the socket is unbound.
        name = self._socket.getsockname()[0]
        return self._lost or not name or (name != self.parent and _exists(self.parent))

    def send(self, frame: bytes) -> None:
        try:
            self._check_carrier()
            self._storm_control.will_send(frame)
            speaker = self._speaker
            if speaker == self.parent:
                speaker = self._socket.getsockname()[0] or speaker  # its present name
            self._socket.sendto(frame, (speaker, 0))
        except BlockingIOError:
            # Remedy: none at first, because the plugin tries again by itself; if the error persists, check the NIC and its
            # driver.
            raise LinkError(f"cannot send on {self.parent}: its queue is full", errno.EAGAIN) from None
        except OSError as error:
            raise LinkError(
                f"cannot send on {self.parent}: {os.strerror(error.errno or 0)}", error.errno or 0
            ) from None

    def _check_carrier(self) -> None:
        """Our own link silently drops frames while the parent is down or has no carrier."""
        name = self._socket.getsockname()[0] or self.parent  # its present name
        request = struct.pack("16sh14x", name.encode(), 0)
        (flags,) = struct.unpack_from("h", fcntl.ioctl(self._socket, _SIOCGIFFLAGS, request), 16)
        if not flags & _IFF_UP:
            raise LinkError(f"cannot send on {self.parent}: {os.strerror(errno.ENETDOWN)}", errno.ENETDOWN)
        if not flags & _IFF_RUNNING:
            # Remedy: check the cable and the switch's port; the plugin tries again by itself.
            raise LinkError(f"cannot send on {self.parent}: no carrier", errno.ENETDOWN)

    def listen(self, handler: FrameHandler, addresses: AddressesOf = no_addresses) -> Callable[[], None]:
        listener = handler, addresses
        self._listeners.append(listener)

        def stop() -> None:
            if listener in self._listeners:
                self._listeners.remove(listener)

        return stop

    def read(self) -> None:
        self._read(_MOST_QUEUED)

    def close(self) -> None:
        self._lost = True
        self._storm_control.stop()
        self._reactor.removeReader(self)  # before the descriptor is reused
        self._elsewhere(self._socket.close)

    # IReadDescriptor.

    def doRead(self) -> None:
        self._read(_MOST_FRAMES_AT_ONCE)

    def _read(self, most: int) -> None:
        for _ in range(most):
            if self._lost:
                return  # a handler has closed us
            try:
                frame, (_name, _protocol, kind, *_rest) = self._socket.recvfrom(2048)
            except BlockingIOError:
                return
            except OSError as error:
                self._fail(error.errno or 0)
                return
            received = ReceivedFrame(frame, kind == socket.PACKET_OUTGOING)
            self._storm_control.received(frame)
            for handler, _ in tuple(self._listeners):
                try:
                    handler(received)
                except Exception:
                    _log.failure(
                        "parent {parent}: cannot handle frame {frame}",
                        parent=self.parent,
                        frame=frame.hex(),
                    )

    def fileno(self) -> int:
        return self._socket.fileno()

    def logPrefix(self) -> str:
        return f"packet socket {self.parent}"

    def connectionLost(self, reason: Any) -> None:
        """
        The socket polls as broken. It does so when the parent went down, until its error is read. Or the reactor stops.
        """
        number = 0 if self._lost else self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if number == errno.ENETDOWN:
            self._reactor.addReader(self)
        self._fail(number)

    def _fail(self, number: int) -> None:
        if number == errno.ENETDOWN or self._lost:
            return  # the parent may come up again
        self._lost = True
        self._reactor.removeReader(self)
        if number:
            # Cause: the parent was brought down or removed. Remedy: bring the parent up or restore it; the plugin then
            # listens again.
            _log.warn(
                "parent {parent}: the plugin no longer listens on it ({reason})",
                parent=self.parent,
                reason=os.strerror(number),
            )
