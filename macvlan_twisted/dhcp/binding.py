"""What is known of a lease: the value that is kept on disk, and when it has to be renewed."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Interface
from typing import Any

from attrs import Attribute, field, frozen

from .messages import INFINITE, MessageType, Server, ServerMessage

_LONGEST_OPTION = 255


def _fits_an_option(_: object, attribute: Attribute[Any], value: bytes | str | None) -> None:
    length = len(value.encode() if isinstance(value, str) else value or b"")
    if length > _LONGEST_OPTION:
        what = attribute.name.replace("_", " ")
        raise ValueError(f"{value!r} has {length} bytes, a {what} may have {_LONGEST_OPTION}: shorten it")


def _lower(mac: str) -> str:
    return mac.lower()


@frozen
class Client:
    """As whom we speak to DHCP servers: one container."""

    mac: str = field(converter=_lower)
    client_id: bytes = field(default=b"", validator=_fits_an_option)
    """Option 61 (RFC 2132, 9.14). Without one it is made of the MAC: hardware type 1 and its six bytes."""
    hostname: str | None = None
    """Option 12."""
    vendor_class: str | None = field(default=None, validator=_fits_an_option)
    """Option 60."""

    @property
    def identifier(self) -> bytes:
        return self.client_id or b"\x01" + bytes.fromhex(self.mac.replace(":", ""))


@frozen
class Binding:
    """A lease as its server granted it (before that: as it was offered). Times are in seconds."""

    address: IPv4Address
    prefix_length: int | None
    """``None``: the server did not say."""
    router: IPv4Address | None
    """``None``: the server named none."""
    server_id: IPv4Address
    server_mac: str
    """Where its answer came from: the server itself, or the router behind which it is."""
    mac: str
    """The container's, under which the lease is held."""
    client_id: str
    """Hexadecimal."""
    lease_seconds: int
    t1: int
    """After so many seconds the server is asked to renew (RFC 2131, 4.4.5)."""
    t2: int
    """After so many any server is asked."""
    obtained_at: float = field(repr=lambda value: f"{value:.0f}")
    """When it was asked for, by the wall clock."""
    hostname: str | None = None
    vendor_class: str | None = None

    @property
    def is_for_ever(self) -> bool:
        return self.lease_seconds == INFINITE

    @property
    def expires_at(self) -> float:
        return float("inf") if self.is_for_ever else self.obtained_at + self.lease_seconds

    @property
    def interface(self) -> IPv4Interface:
        """The address with its prefix length; alone on its subnet where the server did not say."""
        return IPv4Interface((self.address, 32 if self.prefix_length is None else self.prefix_length))

    @property
    def server(self) -> Server:
        return Server(self.server_id, self.server_mac)

    @property
    def client(self) -> Client:
        return Client(self.mac, bytes.fromhex(self.client_id), self.hostname, self.vendor_class)


def binding_from(client: Client, answer: ServerMessage, asked_at: float) -> Binding:
    """
    What an OFFER or ACK says, as asked for by *client* at *asked_at* (wall clock): a lease runs from then, since
    the server may have counted from there (RFC 2131, 4.4.1).
    """
    assert answer.kind is not MessageType.NAK
    assert answer.your_address is not None
    # An OFFER need not name the time. Nobody holds a lease by an OFFER.
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
    """What the server said where it makes sense, else the half and seven eighths of the lease (RFC 2131, 4.4.5)."""
    if t2 is None or not 0 < t2 < lease_seconds:
        t2 = lease_seconds * 7 // 8
    if t1 is None or not 0 < t1 < t2:
        t1 = min(lease_seconds // 2, t2)
    return t1, t2


@frozen
class LanParameters:
    """What a DHCP server says of its LAN."""

    server_id: IPv4Address
    server_mac: str
    offered: IPv4Address
    """The address that it had offered, had we asked for one."""
    prefix_length: int | None
    router: IPv4Address | None
