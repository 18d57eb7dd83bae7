"""
The DHCP leases of all containers of this host: acquired, saved, resumed after a restart, released.

Each lease has a row from before the DHCPREQUEST until after the DHCPRELEASE. The next start releases what a kill leaves in
between.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Container
from ipaddress import IPv4Address
from itertools import count
from typing import Any

from attrs import evolve
from twisted.internet.defer import CancelledError
from twisted.logger import Logger

from ..addresses import IPAddress
from ..errors import LinkError, MacvlanError, RequestRefused, StateError
from ..keyed_lock import KeyedLock
from ..lan.conflicts import Conflicts
from ..lan.interfaces import LanSocket
from ..lan.packet_sockets import PacketSockets
from ..option_values import ConflictDetection
from ..state.interfaces import HostRecords, RecordKind
from ..state.serialize import from_document, to_document
from .acquire import discover
from .binding import Binding, Client, LanParameters
from .lease import Lease
from .release import release
from .store import LeaseRecord, PersistentLeaseStore, Readdresser, Reservations, Terms, host_name, lease_key
from .transaction import Environment

_log = Logger(namespace="macvlan_twisted.dhcp")


class Leases:
    """
    By parent and MAC. The changes of one lease are serialized: acquiring it again waits until the old one is released, and
    releasing one that is being acquired ends the acquisition first.

    :param prepare: imports in a thread what the codec of DHCP messages needs; it would block the reactor for 0.2 s.
    """

    def __init__(
        self,
        sockets: PacketSockets,
        conflicts: Conflicts,
        reservations: Reservations,
        records: HostRecords,
        readdresser: Readdresser,
        environment: Environment,
        prepare: Callable[[], Awaitable[None]],
    ) -> None:
        self._sockets = sockets
        self._conflicts = conflicts
        self._reservations = reservations
        self._records = records
        self._readdresser = readdresser
        self._environment = environment
        self._prepare = prepare
        self._numbers = count()
        self._locks = KeyedLock()
        self._acquiring: dict[str, Lease] = {}
        self._running: dict[str, Lease] = {}
        self._known: dict[str, LeaseRecord] = {}
        self._by_address: dict[tuple[str, IPAddress], str] = {}

    def load(self) -> None:
        """Read the leases from the state."""
        for document in self._records.documents(RecordKind.LEASE).values():
            self._learn(from_document(LeaseRecord, document))

    def _learn(self, record: LeaseRecord) -> None:
        self._known[record.key] = record
        if record.granted:
            self._by_address[record.parent, record.reported_address] = record.key

    def _unlearn(self, record: LeaseRecord) -> None:
        self._known.pop(record.key, None)
        if self._by_address.get((record.parent, record.reported_address)) == record.key:
            del self._by_address[record.parent, record.reported_address]

    async def discover(self, parent: str) -> LanParameters:
        """
        Learn about the LAN from a DHCPOFFER, without taking a lease.

        :raises RequestRefused: no server answered.
        :raises LinkError: *parent* is not there, or the kernel refuses.
        """
        user = f"question {next(self._numbers)}"
        self._sockets.use(parent, user)
        try:
            await self._prepare()
            socket = await self._sockets.ready(parent)
            return await discover(socket, Client(socket.mac), self._environment)
        finally:
            await self._sockets.disuse(parent, user)

    async def acquire(self, terms: Terms, wanted: IPv4Address | None = None) -> Binding:
        """
        Acquire a lease, which is saved on return.

        :raises RequestRefused: no server leases an address, or not the wanted one.
        :raises LinkError: the parent is not there, or the kernel refuses.
        """
        key = terms.key
        if key in self._acquiring:
            raise _has_one_already(terms)
        async with self._locks.acquire(key):
            await self._prepare()
            socket = await self._sockets.ready(terms.parent)
            if key in self._known:
                raise _has_one_already(terms)
            lease = self._lease(socket, terms.client, terms.release, terms.conflict_detection)
            self._acquiring[key] = lease
            try:
                binding = await lease.acquire(wanted)
            except BaseException:
                lease.stop()
                await self._forget_attempt(key)
                raise
            finally:
                del self._acquiring[key]
            self._running[key] = lease
            return binding

    async def _forget_attempt(self, key: str) -> None:
        record = self._known.get(key)
        if record is not None:
            try:
                await self._forget(record)
            except StateError as failure:  # the first error is the one to report
                # Cause: writing the state failed. Remedy: free space on the disk of the state directory; the plugin
                # releases and deletes the lease at its next start.
                _log.error(
                    "DHCP {parent} {mac}: cannot delete the lease from the state; the plugin tries again at its next start "
                    "({reason})",
                    parent=record.parent,
                    mac=record.binding.mac,
                    reason=str(failure),
                )

    def _lease(self, socket: LanSocket, client: Client, release: bool, detection: ConflictDetection) -> Lease:
        return Lease(
            socket,
            client,
            PersistentLeaseStore(
                self._save,
                self._conflicts,
                self._reservations,
                self._readdresser,
                socket.parent,
                release,
                detection,
            ),
            self._environment,
        )

    def of_address(self, parent: str, address: IPAddress) -> Binding | None:
        """The lease behind an address that the engine knows."""
        key = self._by_address.get((parent, address))
        return None if key is None else self._known[key].binding

    def of_mac(self, parent: str, mac: str) -> Binding | None:
        record = self._known.get(lease_key(parent, mac))
        return record.binding if record is not None and record.granted else None

    def has(self, parent: str, mac: str) -> bool:
        """Whether there is a lease, or one is being acquired."""
        key = lease_key(parent, mac)
        return key in self._known or key in self._acquiring

    def taking(self, key: str) -> object | None:
        """An object that differs after the lease was released and acquired again."""
        return self._acquiring.get(key) or self._running.get(key)

    def set_hostname(self, parent: str, mac: str, hostname: str) -> None:
        """Send the container's name to the server, from the next message on."""
        lease = self._running.get(lease_key(parent, mac))
        if lease is not None:
            lease.hostname = host_name(hostname)

    def unnamed(self) -> list[tuple[str, str]]:
        """Parent and MAC of the leases without a host name."""
        return [
            (record.parent, record.binding.mac)
            for key, record in self._known.items()
            if (lease := self._running.get(key)) is not None and not lease.hostname
        ]

    async def release(self, parent: str, mac: str) -> None:
        """
        Release the lease of a container that is gone. Succeeds if it has none.

        :raises StateError: the row stays until the next start; the lease is released all the same.
        """
        key = lease_key(parent, mac)
        acquiring = self._acquiring.get(key)
        if acquiring is not None:
            acquiring.release()
        async with self._locks.acquire(key):
            record = self._known.get(key)
            if record is not None:
                await self._end(record)

    async def _end(self, record: LeaseRecord) -> None:
        lease = self._running.pop(record.key, None)
        if not record.release:
            if lease is not None:
                lease.stop()
            _log.debug(
                "DHCP {parent} {mac}: lease of {address} not released (dhcp_release=false)",
                parent=record.parent,
                address=record.binding.address,
                mac=record.binding.mac,
            )
        elif lease is not None:
            lease.release()
            if record.pending is not None:
                release(self._sockets.of(record.parent), record.pending, self._environment.random)
        else:
            await self._release_unheld(record)
        await self._forget(record)

    async def _release_unheld(self, record: LeaseRecord) -> None:
        user = f"farewell {next(self._numbers)}"  # its network may be gone, too
        self._sockets.use(record.parent, user)
        try:
            socket = await self._sockets.ready(record.parent)
            release(socket, record.binding, self._environment.random)
            if record.pending is not None:
                release(socket, record.pending, self._environment.random)
        except LinkError as failure:
            # Cause: the server could not be reached on the parent. Remedy: none needed; the server offers
            # the address again when the lease has expired.
            _log.warn(
                "DHCP {parent} {mac}: cannot release the lease of {address}, which expires by itself ({reason})",
                parent=record.parent,
                mac=record.binding.mac,
                address=record.binding.address,
                reason=str(failure),
            )
        finally:
            await self._sockets.disuse(record.parent, user)

    async def release_address(self, parent: str, address: IPAddress) -> None:
        """As :meth:`release`, by the address that the engine knows."""
        key = self._by_address.get((parent, address))
        if key is not None:
            await self.release(parent, self._known[key].binding.mac)

    def known(self) -> list[LeaseRecord]:
        """All leases, also those that are only requested."""
        return list(self._known.values())

    def half_moved(self) -> list[LeaseRecord]:
        """Leases whose server insisted on another address (``pending``) before we were killed."""
        return [each for each in self._known.values() if each.granted and each.pending is not None]

    async def accept_pending(self, record: LeaseRecord) -> None:
        """Before :meth:`resume`: the container uses the other address now."""
        if record.pending is not None:
            await self._save(evolve(record, binding=record.pending, pending=None))

    async def resume(self, owned: Container[str]) -> None:
        """
        After a start: resume the leases with *owned* keys; release those that a kill left half acquired, and those without
        an owner. A failure of one does not affect the others.
        """
        found = [each for each in self.known() if each.key not in self._running]
        found = [each for each in found if each.key not in self._acquiring]
        for record in sorted(found, key=lambda each: each.granted and each.key in owned):
            try:
                async with self._locks.acquire(record.key):
                    if self._known.get(record.key) is record:  # else a call has changed it meanwhile
                        await self._resume_one(record, record.granted and record.key in owned)
            except CancelledError:
                raise
            except MacvlanError as failure:
                # Cause: when the plugin started, the kernel refused, or writing the state failed. Remedy: see the
                # reason in the line, then restart the plugin.
                _log.error(
                    "DHCP {parent} {mac}: cannot resume or release the lease of {address} ({reason})",
                    **_subject(record),
                    reason=str(failure),
                )
            except Exception:
                _log.failure(
                    "DHCP {parent} {mac}: cannot resume or release the lease of {address}", **_subject(record)
                )

    async def _resume_one(self, record: LeaseRecord, is_owned: bool) -> None:
        if not is_owned:
            _log.info(
                "DHCP {parent} {mac}: lease of {address} released, no container uses it",
                parent=record.parent,
                address=record.binding.address,
                mac=record.binding.mac,
            )
            await self._end(record)
            return
        try:
            socket = await self._sockets.ready(record.parent)
        except LinkError as failure:
            # Cause: the parent was absent or down when the plugin started. Remedy: bring the parent up.
            _log.warn(
                "DHCP {parent} {mac}: lease of {address} not renewed until the parent is usable ({reason})",
                parent=record.parent,
                mac=record.binding.mac,
                address=record.binding.address,
                reason=str(failure),
            )
            socket = self._sockets.of(record.parent)
        lease = self._lease(socket, record.binding.client, record.release, record.detection)
        self._running[record.key] = lease
        lease.resume(record.binding)
        if record.pending is not None:
            release(socket, record.pending, self._environment.random)

    def close(self) -> None:
        """Stop all leases without a message to servers: containers keep them, and the next start resumes them."""
        for lease in tuple(self._acquiring.values()):
            lease.release()
        for lease in self._running.values():
            lease.stop()
        self._running.clear()

    async def _save(self, record: LeaseRecord) -> None:
        known = self._known.get(record.key)
        if known is not None and known.granted:
            if record.granted:
                record = evolve(record, reported_address=known.reported_address)
            elif record.binding.address == known.binding.address:
                return
            else:
                record = evolve(known, pending=record.binding)
        await self._records.save(RecordKind.LEASE, record.key, to_document(record))
        if known is not None:
            self._unlearn(known)
        self._learn(record)

    async def _forget(self, record: LeaseRecord) -> None:
        """Forget it in memory even if the row cannot be deleted."""
        try:
            await self._records.erase(RecordKind.LEASE, record.key)
        finally:
            self._unlearn(record)
            self._conflicts.release(record.parent, record.binding.address)


def _has_one_already(terms: Terms) -> RequestRefused:
    return RequestRefused(
        f"MAC address {terms.mac} has a DHCP lease on {terms.parent} already: use another "
        "--mac-address, or remove the container that has it"
    )


def _subject(record: LeaseRecord) -> dict[str, Any]:
    return {"parent": record.parent, "mac": record.binding.mac, "address": record.binding.address}
