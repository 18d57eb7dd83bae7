"""DHCP messages (RFC 2131, RFC 2132) as values of our own; the bytes are pyroute2's work."""

from __future__ import annotations

import enum
from ipaddress import IPv4Address

from attrs import frozen

INFINITE = 0xFFFFFFFF
"""As lease time: for ever (RFC 2131, 3.3)."""


class Kind(enum.Enum):
    """The message types that a client sends and hears, by their numbers (RFC 2132, 9.6)."""

    DISCOVER = 1
    OFFER = 2
    REQUEST = 3
    DECLINE = 4
    ACK = 5
    NAK = 6
    RELEASE = 7


@frozen
class Ask:
    """What a client says."""

    kind: Kind
    mac: str
    """The client's, in the message and as the source of the Ethernet frame."""
    xid: int
    client_id: bytes
    seconds: int = 0
    """For how long the client has been trying."""
    client_address: IPv4Address | None = None
    """*ciaddr*: the address that the client has and uses."""
    requested: IPv4Address | None = None
    """Option 50."""
    server_id: IPv4Address | None = None
    """Option 54."""
    hostname: str | None = None
    vendor_class: str | None = None
    server_mac: str | None = None
    """With it, and *client_address*, the message goes to *unicast_to* alone; else everyone hears it."""
    unicast_to: IPv4Address | None = None


@frozen
class Answer:
    """What a server says."""

    kind: Kind
    xid: int
    client_mac: str
    server_mac: str
    """The source of the Ethernet frame."""
    server_id: IPv4Address | None = None
    your_address: IPv4Address | None = None
    lease_seconds: int | None = None
    t1: int | None = None
    t2: int | None = None
    prefix_length: int | None = None
    router: IPv4Address | None = None
    message: str = ""
    """Why, in a NAK: of printable characters alone."""
