"""DHCP messages (RFC 2131, RFC 2132) as values, and the Ethernet frames that carry them; pyroute2 encodes and decodes."""

from __future__ import annotations

import enum
import socket
from ipaddress import IPv4Address, IPv4Interface
from typing import Any

from attrs import frozen
from pyroute2.dhcp.dhcp4msg import dhcp4msg
from pyroute2.dhcp.enums.dhcp import Option
from pyroute2.protocols import ETH_P_IP, ethmsg, ip4msg, udp4_pseudo_header, udpmsg

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

_BROADCAST_MAC = "ff:ff:ff:ff:ff:ff"
_EVERYONE = IPv4Address("255.255.255.255")
_NO_ADDRESS = IPv4Address("0.0.0.0")

_SERVER_PORT, _CLIENT_PORT = 67, 68
_ETHERNET, _IPV4, _UDP = 14, 20, 8  # lengths of headers in bytes
_FRAGMENT = 0x3FFF
"""Bits of the IP header that are clear in an unfragmented packet: more fragments, and the offset."""

_WANTED = [
    Option.SUBNET_MASK,
    Option.ROUTER,
    Option.LEASE_TIME,
    Option.SERVER_ID,
    Option.RENEWAL_TIME,
    Option.REBINDING_TIME,
]


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


class _Broken(Exception):
    """The message violates RFC 2131 or 2132."""


def _strict(known: type[Any]) -> type[Any]:
    """An option type of pyroute2 that raises on a broken value; pyroute2 logs it and omits the option."""

    class Strict(known):  # type: ignore[misc]
        def decode(self) -> Any:
            try:
                return super().decode()
            except ValueError as error:
                raise _Broken(str(error)) from None

    return Strict


class _Message(dhcp4msg):  # type: ignore[misc]
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


def encode(ask: ClientMessage) -> bytes:
    """:return: the Ethernet frame that carries *ask*."""
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
        options["parameter_list"] = _WANTED
    has_address = ask.client_address is not None
    message = _Message(
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
    return _frame_to_server(payload, ask.mac, to_mac, source, to_id)


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
    message = _Message(buf=payload).decode()
    options = dict(message["options"])
    overload = options.get("option_overload", 0)
    if overload & 1:
        options |= _Message(buf=payload[:_OPTIONS_AT] + payload[_FILE_AT:236]).decode()["options"]
    if overload & 2:
        options |= _Message(buf=payload[:_OPTIONS_AT] + payload[_SERVER_NAME_AT:_FILE_AT]).decode()["options"]
    return message, options


def _check(answer: ServerMessage) -> None:
    """:raises _Broken: the answer cannot be used: no valid source, no lease time, or no host address."""
    if int(answer.server_mac[:2], 16) & 1 or answer.server_mac == "00:00:00:00:00:00":
        raise _Broken("it comes from no NIC")
    if answer.kind not in (MessageType.OFFER, MessageType.ACK, MessageType.NAK):
        raise _Broken("no server says that")
    if answer.kind is MessageType.ACK and not answer.lease_seconds:
        raise _Broken("a lease without a time")
    address, prefix_length = answer.your_address, answer.prefix_length
    if address is not None and prefix_length is not None and prefix_length < 31:
        subnet = IPv4Interface((address, prefix_length)).network
        if address in (subnet.network_address, subnet.broadcast_address):
            raise _Broken("the address is no host's")


def _host_address(text: str) -> IPv4Address:
    address = IPv4Address(text)
    if address.packed[0] in (0, 127) or address.is_multicast or address.is_reserved:
        raise _Broken(f"{address} is no host's")
    return address


def _first_router(texts: list[str] | None) -> IPv4Address | None:
    return _host_address(texts[0]) if texts else None


def _prefix_length(mask_text: str | None) -> int | None:
    if mask_text is None:
        return None
    host_part = int(IPv4Address(mask_text)) ^ 0xFFFFFFFF
    if host_part & (host_part + 1) or host_part == 0xFFFFFFFF:
        raise _Broken(f"{mask_text} is no mask")
    return 32 - host_part.bit_length()


def _seconds(number: int | None) -> int | None:
    """pyroute2 decodes the unsigned number as signed."""
    return None if number is None else number & 0xFFFFFFFF


def _printable(text: list[int] | None) -> str:
    decoded = bytes(text or []).decode(errors="replace").rstrip("\0")
    return "".join(each if each.isprintable() else "?" for each in decoded)[:_LONGEST_REASON]


# UDP in Ethernet frames.


def _frame_to_server(
    payload: bytes, mac: str, server_mac: str | None, source: IPv4Address | None, server: IPv4Address | None
) -> bytes:
    """A frame from the client with *mac*, broadcast unless a server's MAC and address are given."""
    words = {"src": str(source or _NO_ADDRESS), "dst": str(server or _EVERYONE)}
    length = {"len": _UDP + len(payload)}
    ports = {"sport": _CLIENT_PORT, "dport": _SERVER_PORT, **length}
    pseudo = udp4_pseudo_header({**words, **length}).encode().buf
    udp_sum = _checksum(pseudo + udpmsg(ports).encode().buf + payload)
    # Zero means that there is no checksum (RFC 768).
    udp: bytes = udpmsg({**ports, "csum": udp_sum or 0xFFFF}).encode().buf
    ip = {"len": _IPV4 + _UDP + len(payload), "ttl": 64, "proto": socket.IPPROTO_UDP, **words}
    ip_header: bytes = ip4msg({**ip, "csum": _checksum(ip4msg(ip).encode().buf)}).encode().buf
    ethernet: bytes = ethmsg({"dst": server_mac or _BROADCAST_MAC, "src": mac, "type": ETH_P_IP}).encode().buf
    return ethernet + ip_header + udp + payload


def _payload_for_client(frame: bytes) -> bytes | None:
    """
    The UDP payload of a frame to a DHCP client, ``None`` for any other frame. Checksums are not verified: on a veth pair
    or with offload, the sender leaves them to hardware that never sees the frame.
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


def _source_mac(frame: bytes) -> str:
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
