"""
ARP and IPv6 neighbour discovery: the frames that probe for, claim and defend addresses, encoded and decoded.

Pure functions. MACs are in the form of :func:`macvlan_twisted.addresses.parse_mac`. Each frame that we make has the MAC that
it is about as its Ethernet source, too, since switches and access points learn from that.
"""

from __future__ import annotations

import struct
from ipaddress import IPv4Address, IPv6Address

from attrs import frozen

from ..addresses import IPAddress

_ARP, _IPV6 = 0x0806, 0x86DD
_REQUEST, _REPLY = 1, 2
_ARP_OF_IPV4 = struct.pack("!HHBB", 1, 0x0800, 6, 4)
_EVERYONE = "ff:ff:ff:ff:ff:ff"
_NOBODY = "00:00:00:00:00:00"
_UNSPECIFIED = IPv4Address(0)

_ICMPV6 = 58
_SOLICITATION, _ADVERTISEMENT = 135, 136
_SOURCE_OPTION, _TARGET_OPTION = 1, 2
_SOLICITED, _OVERRIDE = 0x40, 0x20
_ALL_NODES = IPv6Address("ff02::1")
_SOLICITED_NODE = IPv6Address("ff02::1:ff00:0").packed[:13]
_ETHERNET, _IPV6_HEADER = 14, 40


@frozen
class AddressClaim:
    """A host claims an address."""

    address: IPAddress
    mac: str
    """The MAC in the body of the message."""
    source: str = ""
    """The Ethernet source, if it differs from *mac*."""


@frozen
class Probe:
    """A host asks for an address before it takes it (RFC 5227, 1.1; RFC 4862, 5.4)."""

    address: IPAddress
    mac: str
    """Of the host that asks."""
    source: str = ""
    """The Ethernet source, if it differs from *mac*."""


NeighbourMessage = AddressClaim | Probe


# Encoding.


def probe_frame(address: IPAddress, mac: str) -> bytes:
    """A probe for *address*; answers go to *mac*."""
    if isinstance(address, IPv4Address):
        return _arp(_REQUEST, _EVERYONE, mac, _UNSPECIFIED, _NOBODY, address)
    # Its owner and hosts that probe for it are in this group (RFC 4862, 5.4.2).
    group = IPv6Address(_SOLICITED_NODE + address.packed[13:])
    message = struct.pack("!BBHI", _SOLICITATION, 0, 0, 0) + address.packed
    return _icmpv6(mac, IPv6Address(0), group, message)


def answer_frame(address: IPAddress, mac: str, prober: str) -> bytes:
    """The answer to a probe: *mac* has *address*. IPv4 unicast to *prober*, IPv6 to all nodes (RFC 4861, 7.2.4)."""
    if isinstance(address, IPv4Address):
        return _arp(_REPLY, prober, mac, address, prober, _UNSPECIFIED)
    return _advertisement(address, mac)


def announcement_frames(address: IPAddress, mac: str) -> tuple[bytes, ...]:
    """
    Announce that *mac* has *address*, so that neighbours correct their caches.

    IPv4 as request and as reply, since some hosts learn from one of them only. The request, RFC 5227's announcement, is
    first. Linux corrects an existing entry by either, whatever ``arp_accept`` is, even if the entry changed within the last
    second; by the reply only if its target MAC is the sender's (``arp_is_garp()`` in net/ipv4/arp.c). IPv6 as one
    unsolicited advertisement with the override flag.
    """
    if isinstance(address, IPv4Address):
        return (
            _arp(_REQUEST, _EVERYONE, mac, address, _NOBODY, address),
            _arp(_REPLY, _EVERYONE, mac, address, mac, address),
        )
    return (_advertisement(address, mac),)


def icmpv6_checksum(source: bytes, destination: bytes, message: bytes) -> int:
    """RFC 4443, 2.3. It is 0 for a message with a valid checksum."""
    covered = source + destination + struct.pack("!II", len(message), _ICMPV6) + message
    if len(covered) % 2:
        covered += b"\0"
    total: int = sum(struct.unpack(f"!{len(covered) // 2}H", covered))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def _bytes(mac: str) -> bytes:
    return bytes.fromhex(mac.replace(":", ""))


def _ethernet(to: bytes, source: str, ether_type: int) -> bytes:
    return to + _bytes(source) + struct.pack("!H", ether_type)


def _arp(
    operation: int, to: str, mac: str, sender: IPv4Address, target_mac: str, target: IPv4Address
) -> bytes:
    return (
        _ethernet(_bytes(to), mac, _ARP)
        + _ARP_OF_IPV4
        + struct.pack("!H", operation)
        + _bytes(mac)
        + sender.packed
        + _bytes(target_mac)
        + target.packed
    )


def _advertisement(address: IPv6Address, mac: str) -> bytes:
    message = struct.pack("!BBHB3x", _ADVERTISEMENT, 0, 0, _OVERRIDE) + address.packed
    return _icmpv6(mac, address, _ALL_NODES, message + struct.pack("!BB", _TARGET_OPTION, 1) + _bytes(mac))


def _icmpv6(mac: str, source: IPv6Address, group: IPv6Address, message: bytes) -> bytes:
    checksum = icmpv6_checksum(source.packed, group.packed, message)
    return (
        _ethernet(b"\x33\x33" + group.packed[12:], mac, _IPV6)
        + struct.pack("!IHBB", 6 << 28, len(message), _ICMPV6, 255)
        + source.packed
        + group.packed
        + message[:2]
        + struct.pack("!H", checksum)
        + message[4:]
    )


# Decoding.


def decode(frame: bytes) -> NeighbourMessage | None:
    """
    The claim or probe in a frame; ``None`` for any other frame, and for a broken one. Never raises.
    """
    if len(frame) < _ETHERNET:
        return None
    source = frame[6:12]
    kind = int.from_bytes(frame[12:14], "big")
    if kind == _ARP:
        return _decode_arp(frame[_ETHERNET:], source)
    if kind == _IPV6:
        return _decode_ipv6(frame[_ETHERNET:], source)
    return None


def _decode_arp(body: bytes, source: bytes) -> NeighbourMessage | None:
    if len(body) < 28 or not body.startswith(_ARP_OF_IPV4):
        return None
    operation = int.from_bytes(body[6:8], "big")
    mac, sender, target = body[8:14], IPv4Address(body[14:18]), IPv4Address(body[24:28])
    if int(sender):
        # A request claims its sender address, as a reply does (RFC 5227, 2.4).
        return _claim(sender, mac, source) if operation in (_REQUEST, _REPLY) else None
    return _probe(target, mac, source) if operation == _REQUEST else None


def _decode_ipv6(packet: bytes, ethernet_source: bytes) -> NeighbourMessage | None:
    if len(packet) < _IPV6_HEADER + 24 or packet[0] >> 4 != 6 or packet[6] != _ICMPV6:
        return None
    # Hop limit 255: no router has forwarded it (RFC 4861, 7.1).
    length = int.from_bytes(packet[4:6], "big")
    message = packet[_IPV6_HEADER : _IPV6_HEADER + length]
    if packet[7] != 255 or length < 24 or len(message) < length or message[1] != 0:
        return None
    source, destination = packet[8:24], packet[24:40]
    if icmpv6_checksum(source, destination, message) != 0:
        return None
    options = _link_addresses(message[24:])
    if options is None:
        return None
    target = IPv6Address(message[8:24])
    if message[0] == _ADVERTISEMENT:
        if destination[0] == 0xFF and message[4] & _SOLICITED:
            return None
        return _claim(target, options.get(_TARGET_OPTION, ethernet_source), ethernet_source)
    if message[0] != _SOLICITATION:
        return None
    if any(source):
        mac = options.get(_SOURCE_OPTION, ethernet_source)
        return _claim(IPv6Address(source), mac, ethernet_source)
    if _SOURCE_OPTION in options or not destination.startswith(_SOLICITED_NODE):
        return None
    return _probe(target, ethernet_source, ethernet_source)


def _link_addresses(options: bytes) -> dict[int, bytes] | None:
    """The link-layer addresses in a message's options, by type; ``None`` if the options are broken."""
    found: dict[int, bytes] = {}
    at = 0
    while at < len(options):
        length = options[at + 1] * 8 if at + 1 < len(options) else 0
        if not length or at + length > len(options):
            return None
        if length == 8:
            found.setdefault(options[at], options[at + 2 : at + 8])
        at += length
    return found


def _claim(address: IPAddress, mac: bytes, source: bytes) -> AddressClaim | None:
    # A multicast MAC is valid: clusters claim their address with one.
    if not _may_be_a_hosts(address):
        return None
    return AddressClaim(address, mac.hex(":"), source.hex(":") if source != mac else "")


def _probe(address: IPAddress, mac: bytes, source: bytes) -> Probe | None:
    if not _may_be_a_hosts(address) or mac[0] & 1 or not any(mac):
        return None  # such a MAC cannot be answered
    return Probe(address, mac.hex(":"), source.hex(":") if source != mac else "")


def _may_be_a_hosts(address: IPAddress) -> bool:
    return not (address.is_multicast or address.is_unspecified or address.is_loopback)
