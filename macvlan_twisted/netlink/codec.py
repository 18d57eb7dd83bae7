"""Encodes and decodes rtnetlink's messages; pyroute2 takes 500 microseconds to decode one about a link."""

from __future__ import annotations

import struct
import sys
from collections.abc import Collection, Iterator

# By linux/netlink.h, linux/rtnetlink.h and linux/if_link.h.
NLMSG_ERROR, NLMSG_DONE = 2, 3
NLM_F_REQUEST, NLM_F_DUMP, NLM_F_DUMP_INTR = 0x1, 0x300, 0x10
RTM_NEWLINK, RTM_DELLINK, RTM_GETLINK, RTM_GETADDR, RTM_GETROUTE = 16, 17, 18, 22, 26
RTM_NEWADDR, RTM_DELADDR = 20, 21
_TYPE_MASK = 0x3FFF
"""Of an attribute's type (NLA_TYPE_MASK)."""
MESSAGE, LINK, ATTRIBUTE = struct.Struct("=IHHII"), struct.Struct("=BxHiII"), struct.Struct("=HH")
IFLA_ADDRESS, IFLA_IFNAME, IFLA_MTU, IFLA_LINK, IFLA_MASTER, IFLA_LINKINFO = 1, 3, 4, 5, 10, 18
IFLA_IFALIAS, IFLA_GROUP, IFLA_EXT_MASK, IFLA_LINK_NETNSID, IFLA_TARGET_NETNSID = 20, 27, 29, 37, 46
IFLA_INFO_KIND, IFLA_INFO_DATA, IFLA_INFO_SLAVE_KIND = 1, 2, 4
IFLA_VLAN_ID, IFLA_VLAN_PROTOCOL = 1, 5
_RTEXT_FILTER_SKIP_STATS = 1 << 3
ADDRESS, IFA_ADDRESS, IFA_LOCAL = struct.Struct("=BBBBI"), 1, 2
ROUTE = struct.Struct("=BBBBBBBBI")
RTA_DST, RTA_OIF, RTA_GATEWAY, RTA_PRIORITY, RTA_PREFSRC, RTA_TABLE = 1, 4, 5, 6, 7, 15


def messages_in(packet: bytes) -> Iterator[tuple[int, int, int, int, int]]:
    """The type, the flags and the sequence number of each message, and where its body begins and ends."""
    start, last = 0, len(packet) - MESSAGE.size
    while start <= last:
        length, kind, flags, number, _ = MESSAGE.unpack_from(packet, start)
        if length < MESSAGE.size:
            return
        yield kind, flags, number, start + MESSAGE.size, start + length
        start += (length + 3) & ~3


def attributes_in(body: bytes, wanted: Collection[int], head: int = LINK.size) -> dict[int, bytes]:
    """
    The values of a message's attributes, by their types.

    :param wanted: the types. A link has some 40 attributes; those behind the last one that is wanted are not read.
    :param head: length of the header before them, by default that of a message about a link (``struct ifinfomsg``).
    """
    found: dict[int, bytes] = {}
    start, last = head, len(body) - ATTRIBUTE.size
    while start <= last and len(found) < len(wanted):
        length, kind = ATTRIBUTE.unpack_from(body, start)
        if length < ATTRIBUTE.size:
            break
        kind &= _TYPE_MASK
        if kind in wanted:
            found[kind] = body[start + ATTRIBUTE.size : start + length]
        start += (length + 3) & ~3
    return found


def text_of(value: bytes) -> str:
    return value.rstrip(b"\0").decode(errors="replace")


def number_of(value: bytes) -> int:
    """An unsigned number in the byte order of the machine."""
    return int.from_bytes(value, sys.byteorder)


def number_attribute(kind: int, number: int) -> bytes:
    """:param number: 32 bits, signed or unsigned."""
    return ATTRIBUTE.pack(ATTRIBUTE.size + 4, kind) + (number & 0xFFFFFFFF).to_bytes(4, sys.byteorder)


def link_request(index: int = 0) -> bytes:
    """
    The body of an RTM_GETLINK: for one link, or with a dump for all of them.

    Without counters, which would take the kernel as long again.
    """
    header = LINK.pack(0, 0, index, 0, 0)
    return header + number_attribute(IFLA_EXT_MASK, _RTEXT_FILTER_SKIP_STATS)


def address_request() -> bytes:
    """The body of an RTM_GETADDR with a dump: all addresses."""
    return ADDRESS.pack(0, 0, 0, 0, 0)


def route_request(family: int) -> bytes:
    """The body of an RTM_GETROUTE with a dump: all routes of a family."""
    return ROUTE.pack(family, 0, 0, 0, 0, 0, 0, 0, 0)
