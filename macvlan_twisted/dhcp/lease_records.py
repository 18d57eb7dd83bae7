"""What is kept of a lease, and on which terms one is taken."""

from __future__ import annotations

from ipaddress import IPv4Address

from attrs import frozen

from ..option_values import ConflictDetection
from .binding import Binding, Client


def lease_key(parent: str, mac: str) -> str:
    return f"{parent} {mac}"


@frozen
class LeaseRecord:
    """What is kept of a lease; a new member needs a default."""

    parent: str
    facts: Binding
    reported_address: IPv4Address
    """The address that the engine was told; another one than the lease's after the server had moved it."""
    granted: bool = False
    """Else the server was asked for it, and what it said is not known."""
    release: bool = True
    """Whether it is given back when its container has gone."""
    detection: ConflictDetection = ConflictDetection.ON
    pending: Binding | None = None
    """Another address that the server was asked for meanwhile, on behalf of the same container."""

    @property
    def key(self) -> str:
        return lease_key(self.parent, self.facts.mac)


@frozen
class Terms:
    """On which terms a lease is taken."""

    parent: str
    mac: str
    hostname: str = ""
    vendor_class: str = ""
    release: bool = True
    conflict_detection: ConflictDetection = ConflictDetection.ON

    @property
    def key(self) -> str:
        return lease_key(self.parent, self.mac)

    @property
    def client(self) -> Client:
        return Client(
            self.mac, hostname=host_name(self.hostname) or None, vendor_class=self.vendor_class or None
        )


def host_name(container: str) -> str:
    """A container's name as a host name: letters, digits and hyphens, 63 at most (RFC 1123, 2.1)."""
    signs = "".join(sign if sign.isascii() and sign.isalnum() else "-" for sign in container)
    return signs[:63].strip("-")
