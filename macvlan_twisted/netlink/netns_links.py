"""
Links in other network namespaces, without entering them.

When a link moves to another namespace, the kernel assigns that namespace an id (nsid) in the one that the link leaves. A
process with CAP_NET_ADMIN may list the links of a namespace by its nsid. So we see a container's link without a path to
its namespace.
"""

from __future__ import annotations

import errno
import os
import socket
import struct

from ..errors import LinkError
from .codec import ATTRIBUTE, IFLA_IFALIAS, IFLA_IFNAME, LINK, MESSAGE, RTM_GETLINK, attributes_in, text_of
from .kernel import NetnsLink

# Remedy of these errors: see the reason in the message.

# From linux/rtnetlink.h, linux/if_link.h, linux/net_namespace.h and net/if.h; see also codec.py.
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
"""The namespace ended between two requests."""


def links_elsewhere() -> list[NetnsLink]:
    """
    The links in all namespaces to which links of the calling thread's were moved.

    :raises LinkError: the kernel is older than 5.0, or we lack the privilege.
    """
    try:
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as netlink:
            netlink.bind((0, 0))
            own = _own_nsid(netlink)
            numbers = [
                number
                for message in _request(netlink, _RTM_GETNSID, _GENERAL.pack(0), _NLM_F_DUMP)
                if (number := _nsid_in(message)) not in (None, own)
            ]
            return [link for number in numbers if number is not None for link in _links_in(netlink, number)]
    except OSError as error:
        number = error.errno or 0
        raise LinkError(f"cannot list links in other namespaces: {os.strerror(number)}", number) from None


def _own_nsid(netlink: socket.socket) -> int | None:
    namespace = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        body = _GENERAL.pack(0) + _attribute(_NETNSA_FD, namespace)
        return next((_nsid_in(message) for message in _request(netlink, _RTM_GETNSID, body)), None)
    finally:
        os.close(namespace)


def _links_in(netlink: socket.socket, number: int) -> list[NetnsLink]:
    body = LINK.pack(socket.AF_UNSPEC, 0, 0, 0, 0) + _attribute(_IFLA_TARGET_NETNSID, number)
    try:
        return [_netns_link(message) for message in _request(netlink, RTM_GETLINK, body, _NLM_F_DUMP)]
    except OSError as error:
        if error.errno in _GONE:
            return []
        raise


def _netns_link(message: bytes) -> NetnsLink:
    _, _, _, flags, _ = LINK.unpack_from(message)
    found = dict(attributes_in(message))
    return NetnsLink(
        name=text_of(found.get(IFLA_IFNAME, b"")),
        mac=found.get(_IFLA_ADDRESS, b"").hex(":"),
        alias=text_of(found.get(IFLA_IFALIAS, b"")),
        up=bool(flags & _IFF_UP),
    )


def _nsid_in(message: bytes) -> int | None:
    raw = dict(attributes_in(message, _GENERAL.size)).get(_NETNSA_NSID)
    number: int | None = None if raw is None else _NUMBER.unpack(raw)[0]
    return None if number is None or number < 0 else number


def _attribute(kind: int, number: int) -> bytes:
    return ATTRIBUTE.pack(ATTRIBUTE.size + _NUMBER.size, kind) + _NUMBER.pack(number)


def _request(netlink: socket.socket, kind: int, body: bytes, flags: int = 0) -> list[bytes]:
    """
    Send a request.

    :return: the bodies of the replies.
    :raises OSError: the kernel refuses.
    """
    length = MESSAGE.size + len(body)
    netlink.send(MESSAGE.pack(length, kind, _NLM_F_REQUEST | flags, 1, 0) + body)
    found: list[bytes] = []
    while True:
        packet = netlink.recv(_LONGEST_PACKET)
        start = 0
        while start + MESSAGE.size <= len(packet):
            size, answer, reply_flags, _, _ = MESSAGE.unpack_from(packet, start)
            if reply_flags & _NLM_F_DUMP_INTR:  # a change during the dump: it may be incomplete
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
