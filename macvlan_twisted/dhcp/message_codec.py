"""DHCP messages and the headers of their frames as pyroute2 encodes and decodes them. Needs the time to import pyroute2."""

from __future__ import annotations

import socket
from ipaddress import IPv4Address
from typing import Any

from pyroute2.dhcp.dhcp4msg import dhcp4msg
from pyroute2.dhcp.enums.dhcp import Option
from pyroute2.protocols import ETH_P_IP, ethmsg, ip4msg, udp4_pseudo_header, udpmsg

from .messages import CLIENT_PORT, IPV4, SERVER_PORT, UDP, Broken

_BROADCAST_MAC = "ff:ff:ff:ff:ff:ff"
_EVERYONE = IPv4Address("255.255.255.255")
_NO_ADDRESS = IPv4Address("0.0.0.0")

WANTED = [
    Option.SUBNET_MASK,
    Option.ROUTER,
    Option.LEASE_TIME,
    Option.SERVER_ID,
    Option.RENEWAL_TIME,
    Option.REBINDING_TIME,
]


def _strict(known: type[Any]) -> type[Any]:
    """An option type of pyroute2 that raises on a broken value; pyroute2 logs it and omits the option."""

    class Strict(known):  # type: ignore[misc]
        def decode(self) -> Any:
            try:
                return super().decode()
            except ValueError as error:
                raise Broken(str(error)) from None

    return Strict


class DhcpMessage(dhcp4msg):  # type: ignore[misc]
    """
    Knows only the options that we use: others may hold anything. A client id is arbitrary bytes; pyroute2 takes one that
    begins with 1 for a MAC.
    """

    options = (
        (Option.SUBNET_MASK, "ip4addr"),
        (Option.ROUTER, "ip4list"),
        (Option.HOST_NAME, "array8"),
        (Option.REQUESTED_IP, "ip4addr"),
        (Option.LEASE_TIME, "sbe32"),
        (Option.OPTION_OVERLOAD, "uint8"),
        (Option.MESSAGE_TYPE, "message_type"),
        (Option.SERVER_ID, "ip4addr"),
        (Option.PARAMETER_LIST, "array8"),
        (Option.MESSAGE, "array8"),
        (Option.MAX_MSG_SIZE, "be16"),
        (Option.RENEWAL_TIME, "sbe32"),
        (Option.REBINDING_TIME, "sbe32"),
        (Option.VENDOR_ID, "array8"),
        (Option.CLIENT_ID, "array8"),
    )
    ip4addr = _strict(dhcp4msg.ip4addr)
    ip4list = _strict(dhcp4msg.ip4list)
    sbe32 = _strict(dhcp4msg.sbe32)
    uint8 = _strict(dhcp4msg.uint8)
    array8 = _strict(dhcp4msg.array8)
    message_type = _strict(dhcp4msg.message_type)


def frame_to_server(
    payload: bytes, mac: str, server_mac: str | None, source: IPv4Address | None, server: IPv4Address | None
) -> bytes:
    """A frame from the client with *mac*, broadcast unless a server's MAC and address are given."""
    words = {"src": str(source or _NO_ADDRESS), "dst": str(server or _EVERYONE)}
    length = {"len": UDP + len(payload)}
    ports = {"sport": CLIENT_PORT, "dport": SERVER_PORT, **length}
    pseudo = udp4_pseudo_header({**words, **length}).encode().buf
    udp_sum = _checksum(pseudo + udpmsg(ports).encode().buf + payload)
    # Zero means that there is no checksum (RFC 768).
    udp: bytes = udpmsg({**ports, "csum": udp_sum or 0xFFFF}).encode().buf
    ip = {"len": IPV4 + UDP + len(payload), "ttl": 64, "proto": socket.IPPROTO_UDP, **words}
    ip_header: bytes = ip4msg({**ip, "csum": _checksum(ip4msg(ip).encode().buf)}).encode().buf
    ethernet: bytes = ethmsg({"dst": server_mac or _BROADCAST_MAC, "src": mac, "type": ETH_P_IP}).encode().buf
    return ethernet + ip_header + udp + payload


def _checksum(data: bytes) -> int:
    """The ones' complement sum of RFC 1071."""
    if len(data) % 2:
        data += b"\0"
    total = sum(int.from_bytes(data[at : at + 2], "big") for at in range(0, len(data), 2))
    while total > 0xFFFF:
        total = (total >> 16) + (total & 0xFFFF)
    return total ^ 0xFFFF
