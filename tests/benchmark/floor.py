"""The kernel's own floor: macvlan links made and removed with ready-made netlink messages, over one socket.

Run as a program, for so many seconds, in a namespace that has the parent: it prints how many pairs that were.
"""

import socket
import struct
import sys
import time

_RTM_NEWLINK, _RTM_DELLINK = 16, 17
_NLM_F_REQUEST, _NLM_F_ACK, _NLM_F_EXCL, _NLM_F_CREATE = 1, 4, 0x200, 0x400
_NLMSG_ERROR = 2
_IFLA_ADDRESS, _IFLA_IFNAME, _IFLA_MTU, _IFLA_LINK, _IFLA_LINKINFO, _IFLA_GROUP = 1, 3, 4, 5, 18, 27
_IFLA_INFO_KIND, _IFLA_INFO_DATA = 1, 2
_IFLA_MACVLAN_MODE, _MODE_BRIDGE = 1, 4


def attribute(kind: int, value: bytes) -> bytes:
    """Encode one attribute."""
    length = 4 + len(value)
    return struct.pack("=HH", length, kind) + value + b"\0" * (-length % 4)


def message(kind: int, flags: int, attributes: bytes) -> bytes:
    """Encode a message about a link."""
    body = struct.pack("=BxHiII", socket.AF_UNSPEC, 0, 0, 0, 0) + attributes
    return struct.pack("=IHHII", 16 + len(body), kind, flags | _NLM_F_REQUEST | _NLM_F_ACK, 1, 0) + body


def pair(name: str, parent: str) -> tuple[bytes, bytes]:
    """Encode what makes a link like those of ours, and what removes it."""
    mode = attribute(_IFLA_MACVLAN_MODE, struct.pack("=I", _MODE_BRIDGE))
    kind = attribute(_IFLA_INFO_KIND, b"macvlan") + attribute(_IFLA_INFO_DATA, mode)
    named = attribute(_IFLA_IFNAME, name.encode() + b"\0")
    made = (
        named
        + attribute(_IFLA_LINK, struct.pack("=I", socket.if_nametoindex(parent)))
        + attribute(_IFLA_ADDRESS, bytes.fromhex("02feed000001"))
        + attribute(_IFLA_GROUP, struct.pack("=I", 7))
        + attribute(_IFLA_LINKINFO, kind)
    )
    return message(_RTM_NEWLINK, _NLM_F_CREATE | _NLM_F_EXCL, made), message(_RTM_DELLINK, 0, named)


def main(parent: str, seconds: float) -> None:
    """Make and remove one link again and again."""
    netlink = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
    netlink.bind((0, 0))
    requests = pair("floor0", parent)
    began, pairs, making, spent = time.perf_counter(), 0, 0.0, 0.0
    while spent < seconds:
        for request in requests:
            sent = time.perf_counter()
            netlink.send(request)
            answer = netlink.recv(4096)
            (error,) = struct.unpack_from("=i", answer, 16)
            if error:
                raise OSError(-error, "the kernel refused")
            if request is requests[0]:
                making += time.perf_counter() - sent
        pairs += 1
        spent = time.perf_counter() - began
    print(pairs, spent, making)


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]))
