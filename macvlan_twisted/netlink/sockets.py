"""A netlink socket for each thread, and the kernel's error codes as messages."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ..errors import LinkError
from .message_templates import MessageTemplates
from .raw_socket import RawSocket

# Remedy of these errors: see the reason in the message.

_BY_KERNEL = {
    errno.EEXIST: "a link of that name exists already",
    errno.ENODEV: "the link is gone",
    errno.EPERM: "permission denied: the plugin needs CAP_NET_ADMIN",
    errno.EOPNOTSUPP: "not supported by this kernel (a module may be missing)",
    errno.ENETDOWN: "the parent is down",
    errno.EINTR: "other programs create and delete links all the time; try again",
}


@contextmanager
def link_errors(doing: str) -> Iterator[None]:
    """Raise netlink's errors as :class:`LinkError`, with a message that begins with *doing*."""
    try:
        yield
    except Exception as error:
        code = error_number(error)
        if code is None:
            raise
        reason = _BY_KERNEL.get(code) or os.strerror(code) or str(error)
        raise LinkError(f"{doing}: {reason}", code) from None


def error_number(error: Exception) -> int | None:
    """The errno of an :exc:`OSError` or of pyroute2's ``NetlinkError``, else ``None``. The latter's class may not be imported yet."""
    if isinstance(error, LinkError):
        return None
    if isinstance(error, OSError):
        return error.errno or 0
    code = getattr(error, "code", None)
    return code if isinstance(code, int) else None


_SIOCGIFINDEX = 0x8933  # linux/sockios.h
_LONGEST_NAME = 15
"""Bytes (IFNAMSIZ); the ioctl would truncate a longer name."""


def index_of(name: str) -> int:
    """The index of a link in this namespace. It takes 5 us, a netlink request 300."""
    try:
        return socket.if_nametoindex(name)
    except OSError:  # it has no errno, also if the C library could not open a socket
        return _index_by_ioctl(name)


def _index_by_ioctl(name: str) -> int:
    raw = os.fsencode(name)
    if len(raw) > _LONGEST_NAME:
        # Remedy: create the link, or correct its name.
        raise LinkError(f"link {name} does not exist", errno.ENODEV)
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as asking:
            request = struct.pack("16si20x", raw, 0)
            index: int = struct.unpack_from("16si", fcntl.ioctl(asking, _SIOCGIFINDEX, request))[1]
            return index
    except OSError as error:
        if error.errno == errno.ENODEV:
            # Remedy: create the link, or correct its name.
            raise LinkError(f"link {name} does not exist", errno.ENODEV) from None
        raise LinkError(
            f"cannot look up link {name}: {os.strerror(error.errno or 0)}", error.errno or 0
        ) from None


def _drop_unread(netlink: Any) -> None:
    """
    Drop messages that arrived after their request was done: pyroute2 stores them for ever, for readers of broadcasts.

    Getting a single link ends with the link's message, and the acknowledgement arrives later (pyroute2 0.9.7). It is
    short, but occupies a page or more of what was a buffer of 256 KiB.
    """
    unread = netlink.asyncore.msg_queue.root
    while not unread.empty():
        unread.get_nowait()
        unread.task_done()


class NetlinkSockets:
    """Each thread has an ``IPRoute`` of its own, since pyroute2 has one event loop a thread. Each thread closes its own."""

    def __init__(self) -> None:
        self._of_thread = threading.local()

    @property
    def _netlink(self) -> Any:
        netlink = getattr(self._of_thread, "netlink", None)
        if netlink is None:
            from .pyroute import open_iproute

            netlink = self._of_thread.netlink = open_iproute()
        _drop_unread(netlink)
        return netlink

    @property
    def _raw(self) -> RawSocket:
        raw: RawSocket | None = getattr(self._of_thread, "raw", None)
        if raw is None:
            raw = RawSocket()
            raw.open()
            self._of_thread.raw = raw
        return raw

    @property
    def _templated(self) -> MessageTemplates:
        templates: MessageTemplates | None = getattr(self._of_thread, "templates", None)
        if templates is None:
            templates = self._of_thread.templates = MessageTemplates(self._raw)
        return templates

    def close(self) -> None:
        """Close the sockets of the calling thread."""
        for each in ("netlink", "raw"):
            opened = getattr(self._of_thread, each, None)
            if opened is not None:
                opened.close()
        self._of_thread.__dict__.clear()
