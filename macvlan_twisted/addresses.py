"""Parsers for addresses, subnets, ranges and MACs. A :exc:`ValueError` says how to write the value."""

from __future__ import annotations

import ipaddress
import re
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Address, IPv6Interface, IPv6Network

from attrs import frozen

IPAddress = IPv4Address | IPv6Address
IPInterface = IPv4Interface | IPv6Interface
IPNetwork = IPv4Network | IPv6Network

LINK_LOCAL = IPv4Network("169.254.0.0/16")
_NO_LAN = {
    ipaddress.ip_network("0.0.0.0/8"): "this network",
    ipaddress.ip_network("127.0.0.0/8"): "loopback",
    LINK_LOCAL: "link-local",
    ipaddress.ip_network("224.0.0.0/4"): "multicast",
    ipaddress.ip_network("240.0.0.0/4"): "reserved (class E)",
    ipaddress.ip_network("::/127"): "unspecified and loopback",
    ipaddress.ip_network("fe80::/10"): "link-local",
    ipaddress.ip_network("ff00::/8"): "multicast",
}
"""Ranges without addresses for a LAN's hosts, with their names (RFC 6890, RFC 4291)."""

_MAC = re.compile(r"[0-9a-fA-F]{2}(:[0-9a-fA-F]{2}){5}")


def parse_address(text: str) -> IPAddress:
    """An address. A zone such as ``%eth0`` has a meaning on one host only, and is an error."""
    try:
        if "%" in text:
            raise ValueError
        return ipaddress.ip_address(text)
    except ValueError:
        raise ValueError(f"{text!r} is not an IP address: write it like 192.168.1.1 or fd00::1") from None


def parse_network(text: str) -> IPNetwork:
    """A subnet whose host bits are zero. Docker Engine checks the same."""
    try:
        if "%" in text:
            raise ValueError
        meant = ipaddress.ip_network(text, strict=False)
    except ValueError:
        raise ValueError(f"{text!r} is not a subnet: write it like 192.168.1.0/24 or fd00::/64") from None
    try:
        return ipaddress.ip_network(text)
    except ValueError:
        pass
    raise ValueError(f"{text!r} is not a subnet, because its host bits are not zero: write {meant}")


def range_without_lan(network: IPNetwork) -> str | None:
    """
    A range in *network* whose addresses no host on a LAN may have, with its name; ``None`` if there is none, and for
    ``0.0.0.0/0`` and ``::/0``, which mean any subnet.
    """
    if not network.prefixlen:
        return None
    return next((f"{each} ({name})" for each, name in _NO_LAN.items() if each.overlaps(network)), None)


def is_link_local(network: IPNetwork) -> bool:
    """Whether *network* is in 169.254.0.0/16."""
    return isinstance(network, IPv4Network) and network.subnet_of(LINK_LOCAL)


def parse_interface(text: str) -> IPInterface:
    """An address with a prefix length, such as 192.168.1.7/24."""
    try:
        if "/" not in text or "%" in text:
            raise ValueError
        return ipaddress.ip_interface(text)
    except ValueError:
        raise ValueError(
            f"{text!r} is not an address with a prefix length: write it like 192.168.1.7/24"
        ) from None


def parse_mac(text: str) -> str:
    """A unicast MAC address, normalised to lower case."""
    if not _MAC.fullmatch(text):
        raise ValueError(f"{text!r} is not a MAC address: write it like 02:42:c0:a8:01:07")
    mac = text.lower()
    if int(mac[:2], 16) & 1:
        raise ValueError(f"{text!r} is a multicast MAC address: make its first byte even")
    if mac == "00:00:00:00:00:00":
        raise ValueError(f"{text!r} is all zeros and not a MAC address: write it like 02:42:c0:a8:01:07")
    return mac


@frozen
class AddressRange:
    """All addresses from *first* to *last*, inclusive."""

    first: IPAddress
    last: IPAddress

    @property
    def version(self) -> int:
        return self.first.version

    def __str__(self) -> str:
        return str(self.first) if self.first == self.last else f"{self.first}-{self.last}"


def parse_range(text: str) -> AddressRange:
    """A range as ``192.168.1.7``, ``192.168.1.64/26`` or ``192.168.1.100-192.168.1.199``."""
    first_text, dash, last_text = text.partition("-")
    if dash:
        first, last = parse_address(first_text.strip()), parse_address(last_text.strip())
        if first.version != last.version:
            raise ValueError(f"{text!r} mixes IPv4 and IPv6: use two addresses of one family")
        if int(first) > int(last):
            # Remedy: write the lower address first.
            raise ValueError(f"{text!r} ends before it begins: write {last}-{first}")
        return AddressRange(first, last)
    if "/" in text:
        network = parse_network(text)
        return AddressRange(network[0], network[-1])
    address = parse_address(text)
    return AddressRange(address, address)


__all__ = [
    "AddressRange",
    "IPAddress",
    "IPInterface",
    "IPNetwork",
    "parse_address",
    "parse_interface",
    "parse_mac",
    "parse_network",
    "parse_range",
]
