"""
The DHCP leases of all containers of this host: taken, kept on disk, gone on with after a restart, given back.

Each has a row from before the server is asked to commit itself until after it was told that the lease is not needed
any more. What a kill leaves in between is given back at the next start.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Container
from ipaddress import IPv4Address
from itertools import count
from random import Random
from typing import Any

from attrs import evolve, frozen
from twisted.logger import Logger

from ..addresses import IPAddress
from ..errors import LinkFailed, Refused
from ..records import from_document, to_document
from ..state.interface import HostRecords, Kind
from . import dhcp
from .conflicts import Conflicts, Taken, Unproven
from .wires import Wires

_log = Logger(namespace="macvlan_twisted.lan")


@frozen
class LeaseRecord:
    """What is kept of a lease; a new member needs a default."""

    parent: str
    facts: dhcp.LeaseFacts
    told_address: IPv4Address
    """The address that the engine was told; another one than the lease's after the server had moved it."""
    granted: bool = False
    """Else the server was asked for it, and what it said is not known."""
    release: bool = True
    """Whether it is given back when its container has gone."""
    detection: str = "on"
    pending: dhcp.LeaseFacts | None = None
    """Another address that the server was asked for meanwhile, on behalf of the same container."""

    @property
    def key(self) -> str:
        return f"{self.parent} {self.facts.mac}"


@frozen
class Terms:
    """On which terms a lease is taken."""

    parent: str
    mac: str
    hostname: str = ""
    vendor_class: str = ""
    release: bool = True
    conflict_detection: str = "on"


Moved = Callable[[str, dhcp.LeaseFacts, dhcp.LeaseFacts], Awaitable[bool]]


class Leases:
    """
    By parent and MAC.

    :param wall_time: the time of day, in seconds since 1970.
    :param timeout: for how many seconds a server's answer is waited for.
    """

    def __init__(
        self,
        wires: Wires,
        conflicts: Conflicts,
        records: HostRecords,
        clock: Any,
        random: Random,
        wall_time: Callable[[], float],
        timeout: float,
    ) -> None:
        self._wires = wires
        self._conflicts = conflicts
        self._records = records
        self._clock = clock
        self._random = random
        self._wall_time = wall_time
        self._timeout = timeout
        self._questions = count()
        self._running: dict[str, dhcp.Lease] = {}
        self._known: dict[str, LeaseRecord] = {}
        self._by_address: dict[tuple[str, IPAddress], str] = {}
        self.when_moved: Moved = _stays
        """Asked when a server insists on another address for a running container: (parent, old, new) -> whether it moved."""
        for document in records.documents(Kind.LEASE).values():
            self._learn(from_document(LeaseRecord, document))

    def _learn(self, record: LeaseRecord) -> None:
        self._known[record.key] = record
        if record.granted:
            self._by_address[record.parent, record.told_address] = record.key

    def _unlearn(self, record: LeaseRecord) -> None:
        self._known.pop(record.key, None)
        if self._by_address.get((record.parent, record.told_address)) == record.key:
            del self._by_address[record.parent, record.told_address]

    async def ask_around(self, parent: str) -> dhcp.LanFacts:
        """
        What the LAN's DHCP server says of the LAN, without taking a lease.

        :raises Refused: none answered. :raises LinkFailed: nothing can be sent on *parent*.
        """
        user = f"question {next(self._questions)}"
        self._wires.use(parent, user)
        try:
            wire = await self._wires.ready(parent)
            return await dhcp.ask_around(
                wire,
                dhcp.Client(wire.mac),
                clock=self._clock,
                randomness=self._random,
                timeout=self._timeout,
            )
        finally:
            await self._wires.disuse(parent, user)

    async def take(self, terms: Terms, wanted: IPv4Address | None = None) -> dhcp.LeaseFacts:
        """
        Take a lease; it is on disk on return.

        :raises Refused: no server leases an address, or not the one that is wanted.
        :raises LinkFailed: nothing can be sent on the parent.
        """
        wire = await self._wires.ready(terms.parent)
        key = f"{terms.parent} {terms.mac}"
        if key in self._running or key in self._known:
            raise Refused(
                f"MAC address {terms.mac} has a DHCP lease on {terms.parent} already: give another --mac-address, or "
                "remove the container that has it"
            )
        client = dhcp.Client(
            terms.mac, hostname=_host_name(terms.hostname) or None, vendor_class=terms.vendor_class or None
        )
        lease = self._running[key] = self._lease(wire, client, terms.release, terms.conflict_detection)
        try:
            return await lease.acquire(wanted)
        except BaseException:
            self._running.pop(key, None)
            lease.stop()
            record = self._known.get(key)
            if record is not None:
                self._conflicts.let_go(record.parent, record.facts.address)
                await self._forget(record)
            raise

    def _lease(self, wire: Any, client: dhcp.Client, release: bool, detection: str) -> dhcp.Lease:
        return dhcp.Lease(
            wire,
            client,
            _Holder(self, wire.parent, client.mac, release, detection),
            clock=self._clock,
            randomness=self._random,
            wall_time=self._wall_time,
            timeout=self._timeout,
        )

    def of_address(self, parent: str, address: IPAddress) -> dhcp.LeaseFacts | None:
        """The lease behind an address that the engine was told."""
        key = self._by_address.get((parent, address))
        return None if key is None else self._known[key].facts

    def of_mac(self, parent: str, mac: str) -> dhcp.LeaseFacts | None:
        record = self._known.get(f"{parent} {mac}")
        return record.facts if record is not None and record.granted else None

    def name(self, parent: str, mac: str, hostname: str) -> None:
        """Tell the server the container's name from the next message on."""
        lease = self._running.get(f"{parent} {mac}")
        if lease is not None:
            lease.hostname = _host_name(hostname)

    def nameless(self) -> list[tuple[str, str]]:
        """Parent and MAC of leases whose servers do not know a name."""
        return [
            (record.parent, record.facts.mac)
            for key, record in self._known.items()
            if (lease := self._running.get(key)) is not None and not lease.hostname
        ]

    async def give_back(self, parent: str, mac: str) -> None:
        """The container has gone. Succeeds when it had no lease."""
        key = f"{parent} {mac}"
        record, lease = self._known.get(key), self._running.pop(key, None)
        if record is None:
            if lease is not None:
                lease.stop()
            return
        if not record.release:
            if lease is not None:
                lease.stop()
            _log.info(
                "DHCP on {parent}: the lease of {address} for {mac} is not given back (dhcp_release=false)",
                parent=parent,
                address=record.facts.address,
                mac=mac,
            )
        elif lease is not None:
            lease.release()
        else:
            await self._release_unheld(record)
        await self._forget(record)

    async def _release_unheld(self, record: LeaseRecord) -> None:
        try:
            wire = await self._wires.ready(record.parent)
        except LinkFailed as failure:
            _log.warn(
                "DHCP on {parent}: the lease of {address} is not given back and ends by itself: {reason}",
                parent=record.parent,
                address=record.facts.address,
                reason=str(failure),
            )
        else:
            dhcp.release(wire, record.facts, self._random)

    async def give_back_address(self, parent: str, address: IPAddress) -> None:
        """As :meth:`give_back`, by the address that the engine was told."""
        key = self._by_address.get((parent, address))
        if key is not None:
            await self.give_back(parent, self._known[key].facts.mac)

    def known(self) -> list[LeaseRecord]:
        """All leases, also such that are only asked for."""
        return list(self._known.values())

    async def resume(self, owned: Container[str]) -> None:
        """
        After a start: have the leases of *owned* keys confirmed and renewed; give back what a kill left half taken,
        and what nobody owns.
        """
        for record in self.known():
            if record.key in self._running:
                continue  # taken since the start
            if not record.granted or record.key not in owned:
                _log.info(
                    "DHCP on {parent}: nobody has the lease of {address} for {mac} (any more): it is given back",
                    parent=record.parent,
                    address=record.facts.address,
                    mac=record.facts.mac,
                )
                await self.give_back(record.parent, record.facts.mac)
                continue
            await self._resume_one(record)
            if record.pending is not None:
                dhcp.release(self._wires.of(record.parent), record.pending, self._random)
                await self.save(evolve(record, pending=None))

    async def _resume_one(self, record: LeaseRecord) -> None:
        try:
            wire = await self._wires.ready(record.parent)
        except LinkFailed as failure:
            _log.warn(
                "DHCP on {parent}: the lease of {address} is not renewed before the parent is there: {reason}",
                parent=record.parent,
                address=record.facts.address,
                reason=str(failure),
            )
            wire = self._wires.of(record.parent)
        lease = self._lease(wire, record.facts.client, record.release, record.detection)
        self._running[record.key] = lease
        lease.resume(record.facts)

    def close(self) -> None:
        """At the end of the service; containers keep their leases, and the next start goes on with them."""
        for lease in self._running.values():
            lease.stop()
        self._running.clear()

    # What the state machines ask for.

    async def save(self, record: LeaseRecord) -> None:
        known = self._known.get(record.key)
        if known is not None and known.granted:
            if record.granted:
                record = evolve(record, told_address=known.told_address)
            elif record.facts.address == known.facts.address:
                return
            else:
                record = evolve(known, pending=record.facts)
        await self._records.save(Kind.LEASE, record.key, to_document(record))
        if known is not None:
            self._unlearn(known)
        self._learn(record)

    async def _forget(self, record: LeaseRecord) -> None:
        await self._records.forget(Kind.LEASE, record.key)
        self._unlearn(record)

    async def in_use(self, parent: str, address: IPv4Address, detection: str) -> str | None:
        if detection == "off":
            return None
        verdict = await self._conflicts.hold(parent, address)
        if isinstance(verdict, Taken):
            return verdict.mac
        if isinstance(verdict, Unproven):
            if detection == "strict":
                raise Refused(
                    f"it cannot be found out whether the leased address {address} is in use on {parent}: {verdict.reason}"
                )
            self._conflicts.count_unproven(parent, address, verdict.reason)
        return None

    async def moved(self, old: dhcp.LeaseFacts, new: dhcp.LeaseFacts, parent: str) -> bool:
        return await self.when_moved(parent, old, new)


async def _stays(parent: str, old: dhcp.LeaseFacts, new: dhcp.LeaseFacts) -> bool:
    return False


@frozen
class _Holder:
    """:class:`~macvlan_twisted.lan.dhcp.Holder` for one lease."""

    leases: Leases
    parent: str
    mac: str
    release: bool
    detection: str

    def _record(self, facts: dhcp.LeaseFacts, granted: bool) -> LeaseRecord:
        return LeaseRecord(self.parent, facts, facts.address, granted, self.release, self.detection)

    async def intend(self, offered: dhcp.LeaseFacts) -> None:
        await self.leases.save(self._record(offered, granted=False))

    async def keep(self, facts: dhcp.LeaseFacts) -> None:
        await self.leases.save(self._record(facts, granted=True))

    async def in_use(self, address: IPv4Address) -> str | None:
        return await self.leases.in_use(self.parent, address, self.detection)

    def lost(self, facts: dhcp.LeaseFacts, reason: str) -> None:
        """The state machine has logged it, and goes on asking."""

    def regained(self, facts: dhcp.LeaseFacts) -> None:
        """The state machine has logged it."""

    async def moved(self, old: dhcp.LeaseFacts, new: dhcp.LeaseFacts) -> bool:
        return await self.leases.moved(old, new, self.parent)


def _host_name(container: str) -> str:
    """A container's name as a host name: letters, digits and hyphens, 63 at most (RFC 1123, 2.1)."""
    signs = "".join(sign if sign.isascii() and sign.isalnum() else "-" for sign in container)
    return signs[:63].strip("-")
