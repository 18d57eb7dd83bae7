"""Decodes the kernel's messages about links; pyroute2 would be too slow for events and for the lists of each deletion."""

from __future__ import annotations

import struct
import sys
from collections.abc import Iterator

from attrs import frozen

# By linux/netlink.h, linux/rtnetlink.h and linux/if_link.h.
RTM_NEWLINK, RTM_DELLINK, RTM_GETLINK = 16, 17, 18
RTM_NEWADDR, RTM_DELADDR = 20, 21
_KIND = 0x3FFF
"""Mask of an attribute's type (NLA_TYPE_MASK)."""
MESSAGE, LINK, ATTRIBUTE = struct.Struct("=IHHII"), struct.Struct("=BxHiII"), struct.Struct("=HH")
IFLA_IFNAME, IFLA_IFALIAS, _IFLA_GROUP = 3, 20, 27


@frozen
class LinkMark:
    """A link with what identifies its owner."""

    index: int
    name: str
    group: int
    alias: str


def messages_in(packet: bytes) -> Iterator[tuple[int, int, bytes]]:
    """The type, sequence number and body of each message in a packet."""
    start = 0
    while start + MESSAGE.size <= len(packet):
        length, kind, _, number, _ = MESSAGE.unpack_from(packet, start)
        if length < MESSAGE.size:
            return
        yield kind, number, packet[start + MESSAGE.size : start + length]
        start += (length + 3) & ~3


def attributes_in(body: bytes, head: int = LINK.size) -> Iterator[tuple[int, bytes]]:
    """
    The type and the value of each attribute of a message.

    :param head: length of the header before them, by default that of a message about a link (``struct ifinfomsg``).
    """
    start = head
    while start + ATTRIBUTE.size <= len(body):
        length, kind = ATTRIBUTE.unpack_from(body, start)
        if length < ATTRIBUTE.size:
            return
        yield kind & _KIND, body[start + ATTRIBUTE.size : start + length]
        start += (length + 3) & ~3


def text_of(value: bytes) -> str:
    return value.rstrip(b"\0").decode(errors="replace")


def group_attribute(group: int) -> bytes:
    """The bytes that each message about a link of *group* contains."""
    return ATTRIBUTE.pack(ATTRIBUTE.size + 4, _IFLA_GROUP) + group.to_bytes(4, sys.byteorder)


def link_mark(body: bytes) -> LinkMark:
    _, _, index, _, _ = LINK.unpack_from(body)
    found = {kind: value for kind, value in attributes_in(body) if kind in _MARKS}
    group = found.get(_IFLA_GROUP)
    return LinkMark(
        index,
        text_of(found.get(IFLA_IFNAME, b"")),
        0 if group is None else int.from_bytes(group, sys.byteorder),
        text_of(found.get(IFLA_IFALIAS, b"")),
    )


_MARKS = frozenset({IFLA_IFNAME, IFLA_IFALIAS, _IFLA_GROUP})
