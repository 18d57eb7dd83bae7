"""Ethernet frames of ARP and IPv6 neighbour discovery, made by hand: what somebody else on the LAN may say.

Written from RFC 826, RFC 5227 and RFC 4861 alone, so that tests do not measure the product with its own ruler.
MAC addresses are text with colons. Each function returns a whole frame, for ``lan.send_frame``.
"""

import struct
from ipaddress import IPv4Address, IPv6Address

BROADCAST = "ff:ff:ff:ff:ff:ff"
NOBODY = "00:00:00:00:00:00"
REQUEST, REPLY = 1, 2
OVERRIDE, SOLICITED, ROUTER = 0x20000000, 0x40000000, 0x80000000


def arp(
    operation: int,
    sender: tuple[str, str],
    target: tuple[str, str],
    *,
    source: str | None = None,
    destination: str = BROADCAST,
) -> bytes:
    """Make an ARP packet; `sender` and `target` are a MAC and an IPv4 address each.

    The frame comes from the sender's MAC if no `source` is given.
    """
    packet = struct.pack("!HHBBH", 1, 0x0800, 6, 4, operation)
    for mac, address in (sender, target):
        packet += _mac(mac) + IPv4Address(address).packed
    return _frame(destination, source or sender[0], 0x0806, packet)


def arp_probe(mac: str, address: str) -> bytes:
    """Ask whether anybody has an address that we would like to have (RFC 5227, 2.1.1)."""
    return arp(REQUEST, (mac, "0.0.0.0"), (NOBODY, address))


def arp_announcement(mac: str, address: str, operation: int = REQUEST) -> bytes:
    """Say that an address is at a MAC (RFC 5227, 2.3): gratuitous ARP, as a request, or as a reply."""
    return arp(operation, (mac, address), (NOBODY if operation == REQUEST else BROADCAST, address))


def arp_reply(mac: str, address: str, asker: tuple[str, str]) -> bytes:
    """Answer the MAC and address of an asker: the address is at the MAC."""
    return arp(REPLY, (mac, address), asker, destination=asker[0])


def solicitation(mac: str, address: str, asker: str = "::") -> bytes:
    """Ask who has an IPv6 address; without an asker's address this is a probe for duplicates (RFC 4862, 5.4)."""
    last = IPv6Address(address).packed[-3:]
    group = IPv6Address(IPv6Address("ff02::1:ff00:0").packed[:13] + last)
    options = b"" if asker == "::" else b"\x01\x01" + _mac(mac)
    message = struct.pack("!BBHI", 135, 0, 0, 0) + IPv6Address(address).packed + options
    return _icmp6(f"33:33:ff:{last[0]:02x}:{last[1]:02x}:{last[2]:02x}", mac, (asker, str(group)), message)


def advertisement(
    mac: str,
    address: str,
    *,
    flags: int = OVERRIDE,
    to: tuple[str, str] = ("33:33:00:00:00:01", "ff02::1"),
) -> bytes:
    """Say that an IPv6 address is at a MAC, unasked and to all, or to the MAC and address of an asker."""
    message = struct.pack("!BBHI", 136, 0, 0, flags) + IPv6Address(address).packed + b"\x02\x01" + _mac(mac)
    return _icmp6(to[0], mac, (address, to[1]), message)


def _icmp6(destination: str, source: str, ends: tuple[str, str], message: bytes) -> bytes:
    addresses = b"".join(IPv6Address(end).packed for end in ends)
    pseudo = addresses + struct.pack("!II", len(message), 58) + message
    total = sum(struct.unpack(f"!{len(pseudo) // 2}H", pseudo))
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    message = message[:2] + struct.pack("!H", ~total & 0xFFFF) + message[4:]
    header = struct.pack("!IHBB", 6 << 28, len(message), 58, 255) + addresses
    return _frame(destination, source, 0x86DD, header + message)


def _frame(destination: str, source: str, kind: int, payload: bytes) -> bytes:
    return _mac(destination) + _mac(source) + struct.pack("!H", kind) + payload


def _mac(text: str) -> bytes:
    return bytes.fromhex(text.replace(":", ""))
