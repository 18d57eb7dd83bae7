"""
Links in other network namespaces, without entering them.

When a link moves, the kernel gives the namespace that it moves to a number in the one that it comes from, and tells of
the links there whoever may change links here (CAP_NET_ADMIN). So a container's link can be seen, up or down, wherever
it was moved from here, and whatever mounts of namespaces there are.
"""

from __future__ import annotations

import errno
import os
import socket
import struct

from ..errors import LinkError
from .codec import ATTRIBUTE, IFLA_IFALIAS, IFLA_IFNAME, LINK, MESSAGE, RTM_GETLINK, attributes_in, text_of
from .kernel import NetnsLink

# By linux/rtnetlink.h, linux/if_link.h, linux/net_namespace.h and net/if.h; more of them in link_messages.py.
_NLMSG_ERROR, _NLMSG_DONE = 2, 3
_NLM_F_REQUEST, _NLM_F_DUMP, _NLM_F_DUMP_INTR = 0x1, 0x300, 0x10
_RTM_GETNSID = 90
_IFLA_ADDRESS, _IFLA_TARGET_NETNSID = 1, 46
_NETNSA_NSID, _NETNSA_FD = 1, 3
_IFF_UP = 0x1
_GENERAL = struct.Struct("=B3x")
_NUMBER = struct.Struct("=i")
_LONGEST_PACKET = 1 << 18
_GONE = (errno.EINVAL, errno.ENOENT, errno.ENODEV, errno.ESRCH)
"""A namespace that ended between two questions."""


def links_elsewhere() -> list[NetnsLink]:
    """
    The links in all other namespaces to which links were moved from the calling thread's, and that still are.

    :raises LinkError: this kernel (before 5.0) does not tell, or not us.
    """
    try:
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as netlink:
            netlink.bind((0, 0))
            own = _own_number(netlink)
            numbers = [
                number
                for message in _asked(netlink, _RTM_GETNSID, _GENERAL.pack(0), _NLM_F_DUMP)
                if (number := _number_in(message)) not in (None, own)
            ]
            return [link for number in numbers if number is not None for link in _links_in(netlink, number)]
    except OSError as error:
        number = error.errno or 0
        raise LinkError(f"seeing links in other namespaces: {os.strerror(number)}", number) from None


def _own_number(netlink: socket.socket) -> int | None:
    namespace = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        body = _GENERAL.pack(0) + _attribute(_NETNSA_FD, namespace)
        return next((_number_in(message) for message in _asked(netlink, _RTM_GETNSID, body)), None)
    finally:
        os.close(namespace)


def _links_in(netlink: socket.socket, number: int) -> list[NetnsLink]:
    body = LINK.pack(socket.AF_UNSPEC, 0, 0, 0, 0) + _attribute(_IFLA_TARGET_NETNSID, number)
    try:
        return [_far_link(message) for message in _asked(netlink, RTM_GETLINK, body, _NLM_F_DUMP)]
    except OSError as error:
        if error.errno in _GONE:
            return []
        raise


def _far_link(message: bytes) -> NetnsLink:
    _, _, _, flags, _ = LINK.unpack_from(message)
    told = dict(attributes_in(message))
    return NetnsLink(
        name=text_of(told.get(IFLA_IFNAME, b"")),
        mac=told.get(_IFLA_ADDRESS, b"").hex(":"),
        alias=text_of(told.get(IFLA_IFALIAS, b"")),
        up=bool(flags & _IFF_UP),
    )


def _number_in(message: bytes) -> int | None:
    raw = dict(attributes_in(message, _GENERAL.size)).get(_NETNSA_NSID)
    number: int | None = None if raw is None else _NUMBER.unpack(raw)[0]
    return None if number is None or number < 0 else number


def _attribute(kind: int, number: int) -> bytes:
    return ATTRIBUTE.pack(ATTRIBUTE.size + _NUMBER.size, kind) + _NUMBER.pack(number)


def _asked(netlink: socket.socket, kind: int, body: bytes, flags: int = 0) -> list[bytes]:
    """
    The bodies of the messages that the kernel answers.

    :raises OSError: it refuses.
    """
    length = MESSAGE.size + len(body)
    netlink.send(MESSAGE.pack(length, kind, _NLM_F_REQUEST | flags, 1, 0) + body)
    found: list[bytes] = []
    while True:
        packet = netlink.recv(_LONGEST_PACKET)
        start = 0
        while start + MESSAGE.size <= len(packet):
            size, answer, told, _, _ = MESSAGE.unpack_from(packet, start)
            if told & _NLM_F_DUMP_INTR:  # something changed meanwhile, and something may be missing
                raise OSError(errno.EINTR, os.strerror(errno.EINTR))
            payload = packet[start + MESSAGE.size : start + size]
            if answer in (_NLMSG_DONE, _NLMSG_ERROR):
                number = -_NUMBER.unpack_from(payload)[0] if len(payload) >= _NUMBER.size else 0
                if number > 0:
                    raise OSError(number, os.strerror(number))
                return found
            found.append(payload)
            if not flags:
                return found
            start += max((size + 3) & ~3, MESSAGE.size)
