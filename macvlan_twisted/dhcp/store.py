"""What a lease needs of its surroundings: a row on disk, and a look at the LAN whether its address is in use."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from ipaddress import IPv4Address
from typing import Protocol

from attrs import frozen

from ..addresses import IPAddress
from ..errors import RequestRefused
from ..lan.conflicts import Conflicts, Holder, Inconclusive, InUse
from ..option_values import ConflictDetection
from .binding import Binding, Client


def lease_key(parent: str, mac: str) -> str:
    return f"{parent} {mac}"


@frozen
class LeaseRecord:
    """A lease on disk; a new field needs a default."""

    parent: str
    binding: Binding
    reported_address: IPv4Address
    """The address that the engine knows; it differs from the lease's after the server insisted on another one."""
    granted: bool = False
    """False: we requested the lease, and the server's answer is unknown."""
    release: bool = True
    """Whether to send DHCPRELEASE when the container is gone."""
    detection: ConflictDetection = ConflictDetection.ON
    pending: Binding | None = None
    """Another binding that we requested meanwhile for the same container."""

    @property
    def key(self) -> str:
        return lease_key(self.parent, self.binding.mac)


@frozen
class Terms:
    """How to lease an address for a container."""

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
    letters = "".join(each if each.isascii() and each.isalnum() else "-" for each in container)
    return letters[:63].strip("-")


class LeaseStore(Protocol):
    """
    The surroundings of a :class:`~macvlan_twisted.dhcp.lease.Lease`: its row on disk, the LAN, and the container.
    """

    async def save_offer(self, offered: Binding) -> None:
        """
        Save that *offered* is about to be requested: after a crash the server may consider it leased. An exception ends
        the attempt.
        """

    async def save_binding(self, binding: Binding) -> None:
        """
        Save a new lease, or new times of the one that is held. An exception ends an acquisition, and the lease is
        released; after a renewal it is only logged.
        """

    def unusable(self, address: IPv4Address) -> str | None:
        """:return: why no container may have *address*, whatever a server says, as words that follow it."""

    async def in_use(self, address: IPv4Address) -> str | None:
        """:return: the MAC of another host that uses *address*, which was just granted. An exception ends the attempt."""

    def lost(self, binding: Binding, reason: str) -> None:
        """
        The server withdrew the lease, or it expired. The container keeps its address, and the lease is requested again
        and again.
        """

    def reacquired(self, binding: Binding) -> None:
        """The lost address is leased again."""

    async def readdress(self, old: Binding, new: Binding) -> bool:
        """
        The server insists on another address; *new* is leased already.

        :return: whether the container uses it from now on. Else it is released, and *old* is requested at a slow pace.
        """


class Reservations(Protocol):
    """The addresses of our address management that no server may lease to a container."""

    def unusable(self, parent: str, address: IPAddress) -> str | None:
        """:return: why no container on *parent* may have *address*, as words that follow it."""


class Readdresser(Protocol):
    """What to do when a server insists on another address for a running container."""

    async def readdress(self, parent: str, old: Binding, new: Binding) -> bool:
        """:return: whether the container uses *new* from now on."""


@frozen
class PersistentLeaseStore:
    """
    :class:`LeaseStore` of one lease.

    :param save: writes a row.
    """

    save: Callable[[LeaseRecord], Awaitable[None]]
    conflicts: Conflicts
    reservations: Reservations
    readdresser: Readdresser
    parent: str
    release: bool
    detection: ConflictDetection

    def _record(self, binding: Binding, granted: bool) -> LeaseRecord:
        return LeaseRecord(self.parent, binding, binding.address, granted, self.release, self.detection)

    async def save_offer(self, offered: Binding) -> None:
        await self.save(self._record(offered, granted=False))

    async def save_binding(self, binding: Binding) -> None:
        await self.save(self._record(binding, granted=True))

    def unusable(self, address: IPv4Address) -> str | None:
        return self.reservations.unusable(self.parent, address)

    async def in_use(self, address: IPv4Address) -> str | None:
        if self.detection == ConflictDetection.OFF:
            return None
        verdict = await self.conflicts.hold(self.parent, address, Holder("DHCP"))
        if isinstance(verdict, InUse):
            return verdict.mac
        if isinstance(verdict, Inconclusive):
            if self.detection == ConflictDetection.STRICT:
                # Remedy: bring the parent up, check its cable, or create the network with conflict_detection=on instead
                # of strict, using the same option that set it to strict.
                raise RequestRefused(
                    f"leased address {address} cannot be probed on {self.parent} ({verdict.reason}): bring "
                    "the parent up, or create the network with conflict_detection=on instead of strict"
                )
            self.conflicts.count_inconclusive(self.parent, address, verdict.reason)
        return None

    def lost(self, binding: Binding, reason: str) -> None:
        """The lease has logged it, and goes on asking."""

    def reacquired(self, binding: Binding) -> None:
        """The lease has logged it."""

    async def readdress(self, old: Binding, new: Binding) -> bool:
        """Stop defending the address that the container does not use."""
        has_moved = False
        try:
            has_moved = await self.readdresser.readdress(self.parent, old, new)
        finally:
            self.conflicts.release(self.parent, old.address if has_moved else new.address)
        return has_moved
