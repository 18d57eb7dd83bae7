"""
The claims of all hosts of a fleet, as one interface: :class:`FleetClaims`.

:class:`~macvlan_twisted.fleet.etcd_claims.EtcdClaims` keeps them in etcd, and
:class:`~macvlan_twisted.testing.fleet_claims.FakeClaims` in memory, for tests.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import Protocol

from attrs import field, frozen

from ..addresses import IPAddress
from ..errors import MacvlanError


class FleetUnavailable(MacvlanError):
    """The fleet's store does not answer, or refuses. A change that was under way may have been made."""


class ClaimState(StrEnum):
    """What the owner does with an address. For people and for other hosts that want it; only the owner decides."""

    RESERVE = "reserve"
    """Held for the owner's next containers."""
    USED = "used"
    RESTING = "resting"
    """Released by its container, which may have it again."""


@frozen
class Host:
    """One host of the fleet."""

    name: str
    """``--fleet-host``"""
    instance: str
    """The random name of its state directory."""


@frozen
class HostRecord:
    """A start of the service on a host. It disappears when the host is silent for longer than its lease."""

    host: Host
    session: str
    """Random, made at each start."""
    boot_id: str
    """The kernel's, which changes with each boot."""


@frozen
class Claim:
    """An address that one host owns."""

    lan: str
    address: IPAddress
    owner: Host
    claim_id: str
    """Random: tells this claim from an earlier one of the same host."""
    state: ClaimState = ClaimState.RESERVE
    container: str = ""
    """The name of the container that uses the address, or had it last; empty if it is unknown."""
    mac: str = ""
    """The container's."""

    @property
    def key(self) -> tuple[str, IPAddress]:
        return self.lan, self.address


@frozen
class SharedAddress:
    """A gateway or auxiliary address, which several hosts reserve."""

    lan: str
    address: IPAddress
    holders: frozenset[Host]

    @property
    def key(self) -> tuple[str, IPAddress]:
        return self.lan, self.address


Entry = Claim | SharedAddress


@frozen
class Wanted:
    """A host asks the owner of an address that is not in use to hand it over."""

    lan: str
    address: IPAddress
    host: Host
    claim_id: str
    """The id of the claim that the host will have then."""


@frozen
class Snapshot:
    """Everything, at one revision of the store."""

    cluster: str
    """Identifies the store: another one after it was replaced, or restored from a backup."""
    revision: int
    """Grows with each change."""
    entries: Sequence[Entry] = ()
    alive: Sequence[HostRecord] = ()
    known: Sequence[Host] = field(default=())
    """All hosts that ever joined and were not forgotten."""
    wanted: Sequence[Wanted] = ()


class FleetObserver(Protocol):
    """Is told of each change, in the order of the store."""

    def entry_changed(self, lan: str, address: IPAddress, entry: Entry | None) -> None:
        """:param entry: ``None`` if nobody has the address any more."""

    def host_changed(self, name: str, record: HostRecord | None) -> None:
        """:param record: ``None`` if the host is silent."""

    def known_changed(self, name: str, host: Host | None) -> None:
        """:param host: ``None`` if the host was forgotten."""

    def wanted_changed(self, lan: str, address: IPAddress, wanted: Wanted | None) -> None:
        """:param wanted: ``None`` if no host waits for the address any more."""

    def revision_reached(self, revision: int) -> None:
        """All changes up to *revision* were reported."""

    def connection_changed(self, reason: str) -> None:
        """:param reason: why changes are reported late for now; empty: they are reported at once again."""


class FleetClaims(Protocol):
    """
    The store that all hosts share. Each change is one transaction.

    Every method raises :exc:`FleetUnavailable`; then it is unknown whether the change was made, and may be made later still.
    """

    async def claim(self, claim: Claim) -> Entry:
        """
        Create *claim*, if nobody has the address.

        :return: what is stored now: *claim* itself, perhaps from an earlier try, or what is in its way.
        """

    async def update(self, claim: Claim) -> bool:
        """
        Change state, container and MAC of the claim with the same id.

        :return: whether it was there.
        """

    async def hand_over(self, claim: Claim, successor: Claim) -> bool:
        """
        Replace *claim* by *successor*, the claim of another host.

        :return: whether *claim* was there.
        """

    async def release(self, claim: Claim) -> None:
        """Delete the claim with this id. Succeeds if it is not there."""

    async def share(self, shared: SharedAddress) -> Entry:
        """
        Add the holders to those of the address.

        :return: what is stored now: a :class:`SharedAddress`, or the claim that is in its way.
        """

    async def unshare(self, shared: SharedAddress) -> None:
        """Remove the holders. Succeeds if they are not there."""

    async def want(self, wanted: Wanted) -> None:
        """Ask the owner. The request ends with :meth:`unwant`, and with the session of :meth:`join`."""

    async def unwant(self, wanted: Wanted) -> None: ...

    async def join(self, record: HostRecord) -> None:
        """Announce this host, and keep announcing it until :meth:`leave` or :meth:`close`."""

    async def leave(self, name: str) -> None:
        """Forget the host *name*. Its claims stay."""

    async def snapshot(self) -> Snapshot: ...

    async def watch(self, cluster: str, revision: int, observer: FleetObserver) -> None:
        """
        Report all changes after *revision* of the store *cluster*, until cancelled. Goes on by itself after an interruption.

        :raises FleetUnavailable: changes may have been missed: take another snapshot.
        """

    async def close(self) -> None:
        """Stop announcing the host; it counts as alive until its lease ends."""
