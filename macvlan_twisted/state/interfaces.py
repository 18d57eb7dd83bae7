"""
The two interfaces to state.

What *this host* did (networks, endpoints, links that we made) stays on this host. *Who owns which address* may one day be
shared by several hosts. So there are two interfaces, and users of one must not assume that the other is in the same place.

A Deferred fires when the change is durable, not before. Both store plain data, JSON objects and addresses, without rules.
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
    """Our own link on a parent, for host access and for the frames that we send."""
    CONFLICT = "conflicts"
    """Addresses that other hosts on the LAN use."""
    FLEET = "fleet"
    """What this host has claimed in its fleet, and which store it saw last."""
    LEASE = "leases"
    """DHCP leases of containers."""


class HostRecords(Protocol):
    """What this host did."""

    @property
    def instance(self) -> str:
        """The random name of this state directory, by which its links are marked."""

    @property
    def link_group(self) -> int:
        """The first of our link groups: random, saved, never zero."""

    def documents(self, kind: RecordKind) -> dict[str, Document]:
        """All documents of a kind by key. Called once, at start."""

    def save(self, kind: RecordKind, key: str, document: Document) -> Deferred[None]: ...

    def erase(self, kind: RecordKind, key: str) -> Deferred[None]:
        """Succeeds if there is no such document."""


@frozen
class Allocation:
    """One address of one pool, and its purpose."""

    pool_id: str
    address: IPAddress
    purpose: str
    name: str = ""
    """The container's name, if it is to get the same address again."""
    mac: str = ""
    """The container's MAC, where it is not derived from the address."""
    is_chosen: bool = False
    """Whether we chose the address for a container without a name; else the user or the name did."""


@frozen
class StickyAddress:
    """The address and MAC of the container called *name*, which gets them again unless they were allocated meanwhile."""

    pool_id: str
    name: str
    address: IPAddress
    mac: str


@frozen
class ReturnedAddress:
    """An address that its container has left, and that the next one may get."""

    pool_id: str
    address: IPAddress
    released_at: float
    """The time of day, in seconds since 1970."""


@frozen
class LastAddress:
    """A container that the engine's API lists on a pool's network, and the address that it had there last."""

    pool_id: str
    container_id: str
    address: IPAddress | None = None
    """``None`` if it has not been seen with one."""
    is_asked: bool = False
    """Whether the user gave it an address of the pool's family (``--ip``), so that it requests that one."""
    returns: bool = False
    """Whether the container may have the address again at any time."""


class AddressStore(Protocol):
    """Who owns which address."""

    def pools(self) -> dict[str, Document]:
        """All open pools by id. Called once, at start."""

    def allocations(self) -> Iterable[Allocation]:
        """All allocated addresses; there may be a million. Called once, at start."""

    def cursors(self) -> dict[str, IPAddress]:
        """By set of addresses: the one allocated last. Called once, at start."""

    def identities(self) -> list[StickyAddress]:
        """All sticky addresses, the oldest first where that is known. Called once, at start."""

    def returned(self) -> list[ReturnedAddress]:
        """All that were stored and not forgotten. Called once, at start."""

    def last_addresses(self) -> list[LastAddress]:
        """All that were kept and not forgotten. Called once, at start."""

    def save_last_addresses(
        self, saved: Sequence[LastAddress], forgotten: Sequence[tuple[str, str]]
    ) -> Deferred[None]:
        """:param forgotten: pool id and container id of what is deleted."""

    def save_pool(self, pool_id: str, document: Document) -> Deferred[None]: ...

    def erase_pool(self, pool_id: str) -> Deferred[None]:
        """Delete the pool, with its allocations, and sticky, returned and last addresses."""

    def save_allocation(
        self,
        allocation: Allocation,
        shared_set: str,
        advances: bool,
        forgotten_names: Sequence[str] = (),
        forgotten_sets: Sequence[str] = (),
        forgotten_returns: Sequence[IPAddress] = (),
    ) -> Deferred[None]:
        """
        Allocate an address. An allocation with a name is saved as a :class:`StickyAddress`, too.

        :param advances: make it the address that was allocated last in *shared_set*.
        :param forgotten_names: delete the sticky addresses of these names.
        :param forgotten_sets: delete which address was allocated last in these sets.
        :param forgotten_returns: delete these returned addresses of the pool.
        :raises StateError: nothing was saved.
        """

    def erase_allocation(
        self,
        pool_id: str,
        address: IPAddress,
        returned: ReturnedAddress | None = None,
        forgotten_returns: Sequence[IPAddress] = (),
    ) -> Deferred[None]:
        """
        Succeeds if it is not allocated.

        :param returned: store this, too. :param forgotten_returns: delete these returned addresses of the pool.
        """
