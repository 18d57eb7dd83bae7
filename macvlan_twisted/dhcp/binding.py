"""A lease as a value, its client, and the states of its life."""

from __future__ import annotations

import enum
from ipaddress import IPv4Address, IPv4Interface
from typing import Any

from attrs import Attribute, field, frozen

from .messages import INFINITE, MessageType, Server, ServerMessage

_LONGEST_OPTION = 255


def _fits_an_option(_: object, attribute: Attribute[Any], value: bytes | str | None) -> None:
    length = len(value.encode() if isinstance(value, str) else value or b"")
    if length > _LONGEST_OPTION:
        kind = attribute.name.replace("_", " ")
        raise ValueError(
            f"{value!r} has {length} bytes, but a {kind} has at most {_LONGEST_OPTION}: shorten it"
        )


def _lower(mac: str) -> str:
    return mac.lower()


class State(enum.Enum):
    """The states of a client (RFC 2131, figure 5)."""

    INIT = "INIT"
    SELECTING = "SELECTING"
    REQUESTING = "REQUESTING"
    BOUND = "BOUND"
    RENEWING = "RENEWING"
    REBINDING = "REBINDING"
    INIT_REBOOT = "INIT-REBOOT"
    REACQUIRING = "REACQUIRING"
    """Not in the RFC: the lease is lost, its container keeps the address, and we ask for it again."""


@frozen
class Client:
    """A DHCP client: one container."""

    mac: str = field(converter=_lower)
    client_id: bytes = field(default=b"", validator=_fits_an_option)
    """Option 61 (RFC 2132, 9.14). The default is hardware type 1 and the MAC."""
    hostname: str | None = None
    """Option 12."""
    vendor_class: str | None = field(default=None, validator=_fits_an_option)
    """Option 60."""

    @property
    def identifier(self) -> bytes:
        return self.client_id or b"\x01" + bytes.fromhex(self.mac.replace(":", ""))


@frozen
class Binding:
    """A lease as the server offered or granted it. Times are in seconds. A new field needs a default: it is saved."""

    address: IPv4Address
    prefix_length: int | None
    """``None`` if the server did not send option 1."""
    router: IPv4Address | None
    """``None`` if the server did not send option 3."""
    server_id: IPv4Address
    server_mac: str
    """The source of its answer: the server itself, or the router in front of it."""
    mac: str
    """The container's MAC."""
    client_id: str
    """Hexadecimal."""
    lease_seconds: int
    t1: int
    """Seconds until RENEWING (RFC 2131, 4.4.5)."""
    t2: int
    """Seconds until REBINDING."""
    obtained_at: float = field(repr=lambda value: f"{value:.0f}")
    """When it was requested, in seconds since the epoch."""
    hostname: str | None = None
    vendor_class: str | None = None

    @property
    def is_for_ever(self) -> bool:
        return self.lease_seconds == INFINITE

    @property
    def interface(self) -> IPv4Interface:
        """The address with its prefix length, /32 if the server did not send one."""
        return IPv4Interface((self.address, 32 if self.prefix_length is None else self.prefix_length))

    @property
    def server(self) -> Server:
        return Server(self.server_id, self.server_mac)

    @property
    def client(self) -> Client:
        return Client(self.mac, bytes.fromhex(self.client_id), self.hostname, self.vendor_class)


@frozen
class Granted:
    """A lease that a server granted in this life of the service."""

    binding: Binding
    began: float
    """When it was requested, by the clock that nobody sets: the lease runs from that moment (RFC 2131, 4.4.1)."""


def binding_from(client: Client, answer: ServerMessage, asked_at: float) -> Binding:
    """
    The binding in an OFFER or ACK that *client* requested at *asked_at*, in seconds since the epoch.
    """
    assert answer.kind is not MessageType.NAK
    assert answer.your_address is not None
    # An OFFER may lack the lease time.
    lease_seconds = answer.lease_seconds or 0
    t1, t2 = _renewal_times(lease_seconds, answer.t1, answer.t2)
    return Binding(
        address=answer.your_address,
        prefix_length=answer.prefix_length,
        router=answer.router,
        server_id=answer.server_id,
        server_mac=answer.server_mac,
        mac=client.mac,
        client_id=client.identifier.hex(),
        lease_seconds=lease_seconds,
        t1=t1,
        t2=t2,
        obtained_at=asked_at,
        hostname=client.hostname,
        vendor_class=client.vendor_class,
    )


def _renewal_times(lease_seconds: int, t1: int | None, t2: int | None) -> tuple[int, int]:
    """T1 and T2 of the server where they are sound, else half and seven eighths of the lease (RFC 2131, 4.4.5)."""
    if t2 is None or not 0 < t2 < lease_seconds:
        t2 = lease_seconds * 7 // 8
    if t1 is None or not 0 < t1 < t2:
        t1 = min(lease_seconds // 2, t2)
    return t1, t2


@frozen
class LanParameters:
    """What a DHCP server's offer says about its LAN."""

    server_id: IPv4Address
    server_mac: str
    offered: IPv4Address
    """The address in the offer."""
    prefix_length: int | None
    router: IPv4Address | None
