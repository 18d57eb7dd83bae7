"""
The filter of a packet socket: a program of classic BPF (linux/filter.h), which the kernel runs on each frame.

It passes ARP, IPv6 neighbour solicitations and advertisements, and UDP to port 68, of the untagged LAN. With an
:class:`AddressFilter`, it passes ARP and neighbour discovery only about some addresses.
"""

from __future__ import annotations

import ctypes
import socket
import struct
from collections.abc import Collection, Iterable, Iterator
from ipaddress import IPv4Address

from attrs import frozen

from ..addresses import IPAddress

MOST_PREFIXES = 128
"""Most addresses of one family that a filter lists one by one; beyond, it lists prefixes that contain them."""
MOST_MUTED = 64
"""Most addresses of one family about which a filter passes nothing."""

_SO_ATTACH_FILTER = 26
_LD_W, _LD_B, _LD_H, _LD_H_IND, _LDX_IHL = 0x20, 0x30, 0x28, 0x48, 0xB1
_JUMP, _JEQ, _JSET, _SHIFT_RIGHT, _RETURN = 0x05, 0x15, 0x45, 0x74, 0x06
_VLAN_TAG_PRESENT = 0xFFFFF000 + 48  # SKF_AD_OFF + SKF_AD_VLAN_TAG_PRESENT
_VLAN_TAG = 0xFFFFF000 + 44  # SKF_AD_OFF + SKF_AD_VLAN_TAG; undefined without a tag
_ALL, _NOTHING = 0xFFFF, 0
_ARP, _ICMPV6_TYPE, _SOLICITATION, _ADVERTISEMENT = b"\x08\x06", 54, 135, 136
_ARP_SENDER, _ARP_TARGET = 28, 38
_IPV6_SOURCE, _ND_TARGET = 22, 62
_LAST_WORD = 12  # of an IPv6 address

_NEXT = ""
_Step = tuple[int, str, str, int] | str
"""Code, where to jump if true and if false, constant; or a label of the next step."""


# What a frame is about.


def address_key(address: IPAddress) -> int:
    """What the filter compares of *address*: all of an IPv4 address, the last 32 bits of an IPv6 address."""
    if isinstance(address, IPv4Address):
        return int(address)
    return _ipv6_key(address.packed[_LAST_WORD:])


def frame_key(frame: bytes) -> int | None:
    """
    The key of the address that a frame claims or probes for, as :func:`~macvlan_twisted.lan.arp_nd.decode` finds it;
    ``None`` for a frame that passed the filter for another reason. It does not check the frame.
    """
    if frame[12:14] == _ARP:
        sender = frame[_ARP_SENDER : _ARP_SENDER + 4]
        return int.from_bytes(sender if any(sender) else frame[_ARP_TARGET : _ARP_TARGET + 4], "big")
    if len(frame) < _ND_TARGET + 16 or frame[_ICMPV6_TYPE] not in (_SOLICITATION, _ADVERTISEMENT):
        return None
    source = frame[_IPV6_SOURCE : _IPV6_SOURCE + 16]
    is_claim_of_source = frame[_ICMPV6_TYPE] == _SOLICITATION and any(source)
    address = source if is_claim_of_source else frame[_ND_TARGET : _ND_TARGET + 16]
    return _ipv6_key(address[_LAST_WORD:])


def _ipv6_key(last: bytes) -> int:
    return 1 << 32 | int.from_bytes(last, "big")


# The addresses that a filter passes.


@frozen
class _Family:
    """The keys of one family, without the bit that tells IPv6."""

    shift: int
    prefixes: frozenset[int]
    """Keys, each shifted to the right."""
    muted: frozenset[int]

    def passes(self, key: int) -> bool:
        return key not in self.muted and key >> self.shift in self.prefixes


@frozen
class AddressFilter:
    """Passes frames about some addresses, and about their neighbours if there are many."""

    _ipv4: _Family
    _ipv6: _Family

    def passes(self, key: int) -> bool:
        """Whether frames pass that are about the address with this key."""
        return (self._ipv6 if key >> 32 else self._ipv4).passes(key & 0xFFFFFFFF)

    def families(self) -> tuple[_Family, _Family]:
        return self._ipv4, self._ipv6


def filter_about(addresses: Iterable[IPAddress], muted: Collection[int] = ()) -> AddressFilter:
    """:param muted: the keys of addresses about which nothing passes."""
    keys = {address_key(address) for address in addresses}
    return AddressFilter(*(_family(keys, muted, bit) for bit in (0, 1)))


def _family(keys: Iterable[int], muted: Iterable[int], bit: int) -> _Family:
    wanted = {key & 0xFFFFFFFF for key in keys if key >> 32 == bit}
    for shift in range(32):
        prefixes = {key >> shift for key in wanted}
        if len(prefixes) <= MOST_PREFIXES:
            break
    silent = [key & 0xFFFFFFFF for key in muted if key >> 32 == bit]
    return _Family(shift, frozenset(prefixes), frozenset(silent[:MOST_MUTED]))


# The program.


def attach(packet_socket: socket.socket, only: AddressFilter | None = None) -> None:
    """
    Replace the filter of *packet_socket*. Frames that are queued stay.

    :raises OSError: the kernel refuses.
    """
    steps = list(_steps(only))
    program = ctypes.create_string_buffer(_assembled(steps))
    length = sum(not isinstance(step, str) for step in steps)
    described = struct.pack("HL", length, ctypes.addressof(program))
    packet_socket.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, described)


def _assembled(steps: Iterable[_Step]) -> bytes:
    labels: dict[str, int] = {}
    code: list[tuple[int, str, str, int]] = []
    for step in steps:
        if isinstance(step, str):
            labels[step] = len(code)
        else:
            code.append(step)

    def distance(here: int, label: str) -> int:
        return 0 if label == _NEXT else labels[label] - here - 1

    return b"".join(
        struct.pack("HBBI", operation, 0, 0, distance(at, true))
        if operation == _JUMP
        else struct.pack("HBBI", operation, distance(at, true), distance(at, false), constant)
        for at, (operation, true, false, constant) in enumerate(code)
    )


def _steps(only: AddressFilter | None) -> Iterator[_Step]:
    yield from (
        (_LD_B, _NEXT, _NEXT, _VLAN_TAG_PRESENT),  # a tagged frame belongs to another LAN,
        (_JEQ, "ether type", _NEXT, 0),
        (_LD_H, _NEXT, _NEXT, _VLAN_TAG),
        (_JSET, "drop", _NEXT, 0x0FFF),  # unless the tag has a priority only
        "ether type",
        (_LD_H, _NEXT, _NEXT, 12),
        (_JEQ, "arp", _NEXT, 0x0806),
        (_JEQ, _NEXT, "ipv6", 0x0800),
        (_LD_B, _NEXT, _NEXT, 23),
        (_JEQ, _NEXT, "drop", socket.IPPROTO_UDP),
        (_LD_H, _NEXT, _NEXT, 20),  # later fragments have no ports
        (_JSET, "drop", _NEXT, 0x1FFF),
        (_LDX_IHL, _NEXT, _NEXT, 14),
        (_LD_H_IND, _NEXT, _NEXT, 16),
        (_JEQ, "accept", "drop", 68),  # to a DHCP client
        "ipv6",
        (_JEQ, _NEXT, "drop", 0x86DD),
        (_LD_B, _NEXT, _NEXT, 20),
        (_JEQ, _NEXT, "drop", socket.IPPROTO_ICMPV6),
        (_LD_B, _NEXT, _NEXT, _ICMPV6_TYPE),
        (_JEQ, "solicitation", _NEXT, _SOLICITATION),
        (_JEQ, "advertisement", "drop", _ADVERTISEMENT),
        "drop",
        (_RETURN, _NEXT, _NEXT, _NOTHING),
    )
    if only is None:
        yield from ("arp", "solicitation", "advertisement", "accept", (_RETURN, _NEXT, _NEXT, _ALL))
        return
    ipv4, ipv6 = only.families()
    source_words = range(_IPV6_SOURCE, _IPV6_SOURCE + 16, 4)
    yield from ("accept", (_RETURN, _NEXT, _NEXT, _ALL), "solicitation")
    for word in source_words:
        yield from ((_LD_W, _NEXT, _NEXT, word), (_JEQ, _NEXT, "source", 0))
    yield from (
        "advertisement",
        (_LD_W, _NEXT, _NEXT, _ND_TARGET + _LAST_WORD),
        (_JUMP, "about ipv6", _NEXT, 0),
        "source",
        (_LD_W, _NEXT, _NEXT, _IPV6_SOURCE + _LAST_WORD),
        (_JUMP, "about ipv6", _NEXT, 0),
        "arp",
        (_LD_W, _NEXT, _NEXT, _ARP_SENDER),
        (_JEQ, _NEXT, "about ipv4", 0),
        (_LD_W, _NEXT, _NEXT, _ARP_TARGET),
        "about ipv4",
    )
    yield from _decision(ipv4, "ipv4")
    yield "about ipv6"
    yield from _decision(ipv6, "ipv6")


def _decision(family: _Family, name: str) -> Iterator[_Step]:
    """Accept or drop by the key that is loaded. A conditional jump reaches 255 steps."""
    drop, accept = f"drop {name}", f"accept {name}"
    for key in family.muted:
        yield (_JEQ, drop, _NEXT, key)
    if family.shift:
        yield (_SHIFT_RIGHT, _NEXT, _NEXT, family.shift)
    for prefix in family.prefixes:
        yield (_JEQ, accept, _NEXT, prefix)
    yield from (drop, (_RETURN, _NEXT, _NEXT, _NOTHING), accept, (_RETURN, _NEXT, _NEXT, _ALL))
