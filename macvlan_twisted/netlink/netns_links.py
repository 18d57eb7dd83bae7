"""
Links in other network namespaces, without entering them.

When a link moves to another namespace, the kernel assigns that namespace an id (nsid) in the one that the link leaves. A
process with CAP_NET_ADMIN may list the links of a namespace by its nsid. So we see a container's link without a path to
its namespace.
"""

from __future__ import annotations

import errno
import os
import sys
from contextlib import closing

from ..errors import LinkError
from .codec import (
    IFLA_ADDRESS,
    IFLA_IFALIAS,
    IFLA_IFNAME,
    IFLA_TARGET_NETNSID,
    LINK,
    RTM_GETLINK,
    attributes_in,
    link_request,
    number_attribute,
    text_of,
)
from .kernel import NetnsLink
from .raw_socket import RawSocket

# Remedy of these errors: see the reason in the message.

# From linux/rtnetlink.h, linux/net_namespace.h and net/if.h; see also codec.py.
_RTM_GETNSID = 90
_NETNSA_NSID, _NETNSA_FD = 1, 3
_GENERAL = bytes(4)
"""``struct rtgenmsg``, of any family."""
_IFF_UP = 0x1
_GONE = (errno.EINVAL, errno.ENOENT, errno.ENODEV, errno.ESRCH)
"""The namespace ended between two requests."""


def links_elsewhere() -> list[NetnsLink]:
    """
    The links in all namespaces to which links of the calling thread's were moved.

    :raises LinkError: the kernel is older than 5.0, or we lack the privilege.
    """
    try:
        with closing(RawSocket()) as netlink:
            netlink.open()
            own = _own_nsid(netlink)
            replies = netlink.dump(_RTM_GETNSID, _GENERAL, refuse_interrupted=True)
            numbers = [number for reply in replies if (number := _nsid_in(reply)) not in (None, own)]
            return [link for number in numbers if number is not None for link in _links_in(netlink, number)]
    except OSError as error:
        number = error.errno or 0
        raise LinkError(f"cannot list links in other namespaces: {os.strerror(number)}", number) from None


def _own_nsid(netlink: RawSocket) -> int | None:
    namespace = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        return _nsid_in(netlink.get(_RTM_GETNSID, _GENERAL + number_attribute(_NETNSA_FD, namespace)))
    finally:
        os.close(namespace)


def _links_in(netlink: RawSocket, number: int) -> list[NetnsLink]:
    body = link_request() + number_attribute(IFLA_TARGET_NETNSID, number)
    try:
        return [_netns_link(reply) for reply in netlink.dump(RTM_GETLINK, body, refuse_interrupted=True)]
    except OSError as error:
        if error.errno in _GONE:
            return []
        raise


def _netns_link(message: bytes) -> NetnsLink:
    _, _, _, flags, _ = LINK.unpack_from(message)
    found = attributes_in(message, (IFLA_IFNAME, IFLA_ADDRESS, IFLA_IFALIAS))
    return NetnsLink(
        name=text_of(found.get(IFLA_IFNAME, b"")),
        mac=found.get(IFLA_ADDRESS, b"").hex(":"),
        alias=text_of(found.get(IFLA_IFALIAS, b"")),
        up=bool(flags & _IFF_UP),
    )


def _nsid_in(message: bytes) -> int | None:
    """``None`` if the namespace has no id, which the kernel reports as a negative one."""
    raw = attributes_in(message, (_NETNSA_NSID,), len(_GENERAL)).get(_NETNSA_NSID)
    number = -1 if raw is None else int.from_bytes(raw, sys.byteorder, signed=True)
    return None if number < 0 else number
