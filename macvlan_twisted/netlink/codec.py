"""What the kernel says of links, read as bytes: events come by the hundred, and lists of links with each reaping."""

from __future__ import annotations

import struct
import sys
from collections.abc import Iterator

from attrs import frozen

# By linux/netlink.h, linux/rtnetlink.h and linux/if_link.h.
RTM_NEWLINK, RTM_DELLINK, RTM_GETLINK = 16, 17, 18
_KIND = 0x3FFF
"""Of an attribute's kind: without the bits that say how it is written."""
MESSAGE, LINK, ATTRIBUTE = struct.Struct("=IHHII"), struct.Struct("=BxHiII"), struct.Struct("=HH")
IFLA_IFNAME, IFLA_IFALIAS, _IFLA_GROUP = 3, 20, 27


@frozen
class LinkMark:
    """What tells whose a link is."""

    index: int
    name: str
    group: int
    alias: str


def messages_in(packet: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Of each message in a packet: its kind, the number of the request that it answers, and its body."""
    start = 0
    while start + MESSAGE.size <= len(packet):
        length, kind, _, number, _ = MESSAGE.unpack_from(packet, start)
        if length < MESSAGE.size:
            return
        yield kind, number, packet[start + MESSAGE.size : start + length]
        start += (length + 3) & ~3


def attributes_in(body: bytes, head: int = LINK.size) -> Iterator[tuple[int, bytes]]:
    """
    Of a message: the kind and the value of each attribute.

    :param head: how long what comes before them is; by default that of a message about a link.
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
    """What stands in each message about a link that carries *group*."""
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
