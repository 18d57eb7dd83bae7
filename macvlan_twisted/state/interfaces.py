"""
What must survive, behind two interfaces.

What *this host* did (networks, endpoints, links that we made) stays on this host; *who owns which
address* may one day be kept by several hosts together. So the two are asked for separately, and whoever
uses one must not count on the other's being in the same place.

A Deferred of theirs fires when the change is durable, not before. Both hold plain data: JSON objects and
addresses, no rules.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from enum import Enum
from typing import Any, Protocol

from attrs import frozen
from twisted.internet.defer import Deferred

from ..addresses import IPAddress

Document = Mapping[str, Any]


class RecordKind(Enum):
    """The tables of what this host did."""

    NETWORK = "networks"
    ENDPOINT = "endpoints"
    MADE_LINK = "made_links"
    HOST_LINK = "host_links"
    """Our own link on a parent, for access from the host and for what we say on the LAN."""
    CONFLICT = "conflicts"
    """Addresses that others on the LAN have."""
    LEASE = "leases"
    """What DHCP servers lent to containers."""


class HostRecords(Protocol):
    """What this host did."""

    @property
    def instance(self) -> str:
        """A random name of this state directory, which marks the links made for it."""

    @property
    def link_group(self) -> int:
        """The first of our groups of links: random, kept, never zero."""

    def documents(self, kind: RecordKind) -> dict[str, Document]:
        """All documents of a kind by key. Read once, at start-up."""

    def save(self, kind: RecordKind, key: str, document: Document) -> Deferred[None]: ...

    def forget(self, kind: RecordKind, key: str) -> Deferred[None]:
        """Succeeds when there is nothing to forget."""


@frozen
class Allocation:
    """One address of one pool, and what it was claimed for."""

    pool_id: str
    address: IPAddress
    purpose: str
    name: str = ""
    """Of the container that it was claimed for, if it shall get the same address again."""
    mac: str = ""
    """Of that container, where it is not made of the address."""


@frozen
class StickyAddress:
    """What a container had that went by *name*: it gets the same again while nobody else was given it."""

    pool_id: str
    name: str
    address: IPAddress
    mac: str


class AddressStore(Protocol):
    """Who owns which address."""

    def pools(self) -> dict[str, Document]:
        """All open pools by id. Read once, at start-up."""

    def claims(self) -> Iterable[Allocation]:
        """All addresses taken, of which there may be a million. Read once, at start-up."""

    def cursors(self) -> dict[str, IPAddress]:
        """By set of addresses: the one handed out last. Read once, at start-up."""

    def identities(self) -> list[StickyAddress]:
        """What containers had, the oldest ones first where that is known. Read once, at start-up."""

    def open_pool(self, pool_id: str, document: Document) -> Deferred[None]: ...

    def close_pool(self, pool_id: str) -> Deferred[None]:
        """Forget the pool and free all that was claimed under its id."""

    def claim(
        self,
        claim: Allocation,
        shared_set: str,
        advances: bool,
        forgotten_names: Sequence[str] = (),
        forgotten_sets: Sequence[str] = (),
    ) -> Deferred[None]:
        """
        Take an address of the set *shared_set*; with *advances* it becomes the one handed out last. A claim with a name
        is kept as an :class:`StickyAddress`, those of *forgotten_names* end. Of *forgotten_sets* it is kept no more which one
        was handed out last.

        :raises StateError: it was not taken.
        """

    def release(self, pool_id: str, address: IPAddress) -> Deferred[None]:
        """Succeeds when there is nothing to release."""
