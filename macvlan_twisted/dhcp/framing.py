"""UDP between DHCP client and server, as raw Ethernet frames."""

from __future__ import annotations

import socket
from ipaddress import IPv4Address

from pyroute2.protocols import ETH_P_IP, ethmsg, ip4msg, udp4_pseudo_header, udpmsg

BROADCAST_MAC = "ff:ff:ff:ff:ff:ff"
EVERYONE = IPv4Address("255.255.255.255")
NO_ADDRESS = IPv4Address("0.0.0.0")

_SERVER_PORT, _CLIENT_PORT = 67, 68
_ETHERNET, _IPV4, _UDP = 14, 20, 8  # lengths of headers in bytes
_FRAGMENT = 0x3FFF
"""The bits of an IP header that a packet in one piece has not: more fragments, and an offset."""


def to_server(
    payload: bytes, mac: str, server_mac: str | None, source: IPv4Address | None, server: IPv4Address | None
) -> bytes:
    """A frame from the client with *mac*; without a server's MAC and address everyone gets it."""
    words = {"src": str(source or NO_ADDRESS), "dst": str(server or EVERYONE)}
    length = {"len": _UDP + len(payload)}
    ports = {"sport": _CLIENT_PORT, "dport": _SERVER_PORT, **length}
    pseudo = udp4_pseudo_header({**words, **length}).encode().buf
    udp_sum = _checksum(pseudo + udpmsg(ports).encode().buf + payload)
    # A sum of zero would say that there is none (RFC 768).
    udp: bytes = udpmsg({**ports, "csum": udp_sum or 0xFFFF}).encode().buf
    ip = {"len": _IPV4 + _UDP + len(payload), "ttl": 64, "proto": socket.IPPROTO_UDP, **words}
    ip_header: bytes = ip4msg({**ip, "csum": _checksum(ip4msg(ip).encode().buf)}).encode().buf
    ethernet: bytes = ethmsg({"dst": server_mac or BROADCAST_MAC, "src": mac, "type": ETH_P_IP}).encode().buf
    return ethernet + ip_header + udp + payload


def for_client(frame: bytes) -> bytes | None:
    """
    The payload of a frame with UDP to a DHCP client, ``None`` of any other. Checksums are not looked at: on a veth
    pair or under offload the sender leaves them to hardware that never sees the frame.
    """
    if len(frame) < _ETHERNET + _IPV4 + _UDP or frame[12:14] != ETH_P_IP.to_bytes(2, "big"):
        return None
    header = (frame[14] & 0x0F) * 4
    packet = _number(frame, 16)
    if frame[14] >> 4 != 4 or header < _IPV4 or _ETHERNET + packet > len(frame):
        return None
    if frame[23] != socket.IPPROTO_UDP or _number(frame, 20) & _FRAGMENT:
        return None
    udp = _ETHERNET + header
    length = _number(frame, udp + 4)
    if _number(frame, udp + 2) != _CLIENT_PORT or not _UDP <= length <= packet - header:
        return None
    return frame[udp + _UDP : udp + length]


def source_mac(frame: bytes) -> str:
    return frame[6:12].hex(":")


def _number(frame: bytes, at: int) -> int:
    return int.from_bytes(frame[at : at + 2], "big")


def _checksum(data: bytes) -> int:
    """The ones' complement sum of RFC 1071."""
    if len(data) % 2:
        data += b"\0"
    total = sum(_number(data, at) for at in range(0, len(data), 2))
    while total > 0xFFFF:
        total = (total >> 16) + (total & 0xFFFF)
    return total ^ 0xFFFF
