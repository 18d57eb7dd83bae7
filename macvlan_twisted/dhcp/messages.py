"""
DHCP messages (RFC 2131, RFC 2132) as values, and the Ethernet frames that carry them.

The codec, :mod:`macvlan_twisted.dhcp.message_codec`, is imported when there is something to encode or decode: it needs
pyroute2 (:mod:`macvlan_twisted.netlink.pyroute`).
"""

from __future__ import annotations

import enum
import socket
from ipaddress import IPv4Address, IPv4Interface
from typing import Any

from attrs import frozen

INFINITE = 0xFFFFFFFF
"""The lease time that means for ever (RFC 2131, 3.3)."""

_BROADCAST_FLAG = 0x8000
_REPLY = b"\x02\x01\x06"  # op, htype Ethernet, hlen
_COOKIE = b"\x63\x82\x53\x63"
_OPTIONS_AT, _FILE_AT, _SERVER_NAME_AT = 240, 108, 44
_SHORTEST = 300
"""Length of a BOOTP message, which some relays still require."""
_LONGEST = 1472
_LONGEST_HOSTNAME = 63
_LONGEST_REASON = 200

SERVER_PORT, CLIENT_PORT = 67, 68
ETHERNET, IPV4, UDP = 14, 20, 8
"""Lengths of headers in bytes."""
_ETH_P_IP = b"\x08\x00"
_FRAGMENT = 0x3FFF
"""Bits of the IP header that are clear in an unfragmented packet: more fragments, and the offset."""


class MessageType(enum.Enum):
    """Option 53 (RFC 2132, 9.6)."""

    DISCOVER = 1
    OFFER = 2
    REQUEST = 3
    DECLINE = 4
    ACK = 5
    NAK = 6
    RELEASE = 7


@frozen
class Server:
    id: IPv4Address
    mac: str
    """Of the server itself, or of the router in front of it."""


@frozen
class ClientMessage:
    """A message from client to server."""

    kind: MessageType
    mac: str
    """The client's, in the message and as the source of the Ethernet frame."""
    xid: int
    client_id: bytes
    seconds: int = 0
    """*secs*: since the client began the transaction."""
    client_address: IPv4Address | None = None
    """*ciaddr*: the address that the client has and uses."""
    requested: IPv4Address | None = None
    """Option 50."""
    server_id: IPv4Address | None = None
    """Option 54."""
    hostname: str | None = None
    vendor_class: str | None = None
    to: Server | None = None
    """Unicast to this server; without one the message is broadcast."""


@frozen
class ServerMessage:
    """A message from server to client."""

    kind: MessageType
    xid: int
    client_mac: str
    server_mac: str
    """The source of the Ethernet frame."""
    server_id: IPv4Address
    your_address: IPv4Address | None = None
    """*yiaddr*: set in OFFER and ACK."""
    lease_seconds: int | None = None
    """Set in ACK."""
    t1: int | None = None
    t2: int | None = None
    prefix_length: int | None = None
    router: IPv4Address | None = None
    message: str = ""
    """Option 56: the reason of a NAK, printable characters only."""


class Broken(Exception):
    """The message violates RFC 2131 or 2132."""


def encode(ask: ClientMessage) -> bytes:
    """:return: the Ethernet frame that carries *ask*."""
    from .message_codec import WANTED, DhcpMessage, frame_to_server

    options: dict[str, Any] = {"message_type": ask.kind.value, "client_id": ask.client_id}
    if ask.requested is not None:
        options["requested_ip"] = str(ask.requested)
    if ask.server_id is not None:
        options["server_id"] = str(ask.server_id)
    if ask.kind in (MessageType.DISCOVER, MessageType.REQUEST):
        if ask.hostname:
            options["host_name"] = ask.hostname.encode()[:_LONGEST_HOSTNAME]
        if ask.vendor_class:
            options["vendor_id"] = ask.vendor_class.encode()
        options["max_msg_size"] = _LONGEST
        options["parameter_list"] = WANTED
    has_address = ask.client_address is not None
    message = DhcpMessage(
        {
            "op": 1,
            "xid": ask.xid,
            "secs": min(ask.seconds, 0xFFFF),
            # A client without an address cannot receive unicast replies (RFC 2131, 4.1).
            "flags": 0 if has_address or ask.kind is MessageType.DECLINE else _BROADCAST_FLAG,
            "ciaddr": str(ask.client_address) if has_address else None,
            "chaddr": ask.mac,
            "options": options,
        }
    )
    payload: bytes = message.encode().buf
    payload = payload.ljust(_SHORTEST, b"\0")
    to_mac, to_id = (None, None) if ask.to is None else (ask.to.mac, ask.to.id)
    source = None if ask.to is None else ask.client_address
    return frame_to_server(payload, ask.mac, to_mac, source, to_id)


def is_answer(frame: bytes) -> bool:
    """Whether *frame* is a server's message to any client."""
    payload = _payload_for_client(frame)
    return payload is not None and payload[:1] == _REPLY[:1]


def decode(frame: bytes, *, xid: int, mac: str) -> ServerMessage | None:
    """
    :return: the server's message to the client with *mac* in transaction *xid*; ``None`` for any other frame, and for
        a message that is broken. Frames for other clients are not decoded.
    """
    payload = _payload_for_client(frame)
    if payload is None or len(payload) < _OPTIONS_AT or payload[:3] != _REPLY:
        return None
    if int.from_bytes(payload[4:8], "big") != xid or payload[28:34].hex(":") != mac:
        return None
    if payload[236:_OPTIONS_AT] != _COOKIE:
        return None
    try:
        return _answer(payload, _source_mac(frame))
    except Exception:  # pyroute2 may raise anything on hostile input
        return None


def _answer(payload: bytes, server_mac: str) -> ServerMessage:
    message, options = _options(payload)
    kind = MessageType(options["message_type"])
    answer = ServerMessage(
        kind=kind,
        xid=message["xid"],
        client_mac=message["chaddr"],
        server_mac=server_mac,
        server_id=_host_address(options["server_id"]),
        your_address=None if kind is MessageType.NAK else _host_address(message["yiaddr"]),
        lease_seconds=_seconds(options.get("lease_time")),
        t1=_seconds(options.get("renewal_time")),
        t2=_seconds(options.get("rebinding_time")),
        prefix_length=_prefix_length(options.get("subnet_mask")),
        router=_first_router(options.get("router")),
        message=_printable(options.get("message")),
    )
    _check(answer)
    return answer


def _options(payload: bytes) -> tuple[Any, dict[str, Any]]:
    """Options may continue in the fields *file* and *sname* (option overload, RFC 2131, 4.1)."""
    from .message_codec import DhcpMessage

    message = DhcpMessage(buf=payload).decode()
    options = dict(message["options"])
    overload = options.get("option_overload", 0)
    if overload & 1:
        options |= DhcpMessage(buf=payload[:_OPTIONS_AT] + payload[_FILE_AT:236]).decode()["options"]
    if overload & 2:
        options |= DhcpMessage(buf=payload[:_OPTIONS_AT] + payload[_SERVER_NAME_AT:_FILE_AT]).decode()[
            "options"
        ]
    return message, options


def _check(answer: ServerMessage) -> None:
    """:raises Broken: the answer cannot be used: no valid source, no lease time, or no host address."""
    if int(answer.server_mac[:2], 16) & 1 or answer.server_mac == "00:00:00:00:00:00":
        raise Broken("it comes from no NIC")
    if answer.kind not in (MessageType.OFFER, MessageType.ACK, MessageType.NAK):
        raise Broken("no server says that")
    if answer.kind is MessageType.ACK and not answer.lease_seconds:
        raise Broken("a lease without a time")
    address, prefix_length = answer.your_address, answer.prefix_length
    if address is not None and prefix_length is not None and prefix_length < 31:
        subnet = IPv4Interface((address, prefix_length)).network
        if address in (subnet.network_address, subnet.broadcast_address):
            raise Broken("the address is no host's")


def _host_address(text: str) -> IPv4Address:
    address = IPv4Address(text)
    if address.packed[0] in (0, 127) or address.is_multicast or address.is_reserved:
        raise Broken(f"{address} is no host's")
    return address


def _first_router(texts: list[str] | None) -> IPv4Address | None:
    return _host_address(texts[0]) if texts else None


def _prefix_length(mask_text: str | None) -> int | None:
    if mask_text is None:
        return None
    host_part = int(IPv4Address(mask_text)) ^ 0xFFFFFFFF
    if host_part & (host_part + 1) or host_part == 0xFFFFFFFF:
        raise Broken(f"{mask_text} is no mask")
    return 32 - host_part.bit_length()


def _seconds(number: int | None) -> int | None:
    """pyroute2 decodes the unsigned number as signed."""
    return None if number is None else number & 0xFFFFFFFF


def _printable(text: list[int] | None) -> str:
    decoded = bytes(text or []).decode(errors="replace").rstrip("\0")
    return "".join(each if each.isprintable() else "?" for each in decoded)[:_LONGEST_REASON]


# UDP in Ethernet frames.


def _payload_for_client(frame: bytes) -> bytes | None:
    """
    The UDP payload of a frame to a DHCP client, ``None`` for any other frame. Checksums are not verified: on a veth pair
    or with offload, the sender leaves them to hardware that never sees the frame.
    """
    if len(frame) < ETHERNET + IPV4 + UDP or frame[12:14] != _ETH_P_IP:
        return None
    header = (frame[14] & 0x0F) * 4
    packet = _number(frame, 16)
    if frame[14] >> 4 != 4 or header < IPV4 or ETHERNET + packet > len(frame):
        return None
    if frame[23] != socket.IPPROTO_UDP or _number(frame, 20) & _FRAGMENT:
        return None
    udp = ETHERNET + header
    length = _number(frame, udp + 4)
    if _number(frame, udp + 2) != CLIENT_PORT or not UDP <= length <= packet - header:
        return None
    return frame[udp + UDP : udp + length]


def _source_mac(frame: bytes) -> str:
    return frame[6:12].hex(":")


def _number(frame: bytes, at: int) -> int:
    return int.from_bytes(frame[at : at + 2], "big")
