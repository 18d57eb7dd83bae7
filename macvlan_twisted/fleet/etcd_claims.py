"""The fleet's claims in etcd: one key an address, one transaction a change."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import contextmanager, suppress
from typing import Any, TypeVar

from attrs import evolve
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from ..addresses import IPAddress, parse_address
from .etcd_gateway import EtcdGateway
from .etcd_values import (
    Absent,
    Comparison,
    Delete,
    EtcdRefused,
    EtcdUnavailable,
    Event,
    Get,
    HasValue,
    Header,
    KeyValue,
    Operation,
    Put,
    TxnAnswer,
    Unchanged,
)
from .interfaces import (
    Claim,
    Entry,
    FleetObserver,
    FleetUnavailable,
    Host,
    HostRecord,
    SharedAddress,
    Snapshot,
    Wanted,
)
from .keys import (
    FleetKeys,
    decode_entry,
    decode_host,
    decode_record,
    decode_wanted,
    encode_entry,
    encode_host,
    encode_record,
    encode_wanted,
)

_log = Logger(namespace="macvlan_twisted.fleet")

T = TypeVar("T")

LEASE_SECONDS = 15
"""A host counts as alive for so long after its last sign of life."""
_TRIES = 5
"""How often a change is tried that others have overtaken."""


class EtcdClaims:
    """
    See :class:`~macvlan_twisted.fleet.interfaces.FleetClaims`.

    :param prefix: of all keys. :param clock: ``IReactorTime``
    """

    def __init__(self, gateway: EtcdGateway, prefix: str, clock: Any) -> None:
        self._gateway = gateway
        self._keys = FleetKeys(prefix)
        self._clock = clock
        self._revisions: dict[str, int] = {}
        """By key: the last revision of a claim of ours, as far as it is known."""
        self._lease = 0
        self._record: HostRecord | None = None
        self._alive = LoopingCall(self._keep_alive)
        self._alive.clock = clock

    # Claims.

    async def claim(self, claim: Claim) -> Entry:
        key = self._keys.address(*claim.key)
        answer = await self._txn([Absent(key)], [Put(key, encode_entry(claim))], [Get(key)])
        if answer.succeeded:
            self._revisions[key] = answer.header.revision
            return claim
        pair = answer.read[0][0] if answer.read[0] else None
        if pair is None:  # it was released meanwhile
            raise FleetUnavailable("the address has changed its owner at this moment: try again")
        entry = self._entry(pair)
        if isinstance(entry, Claim) and entry.claim_id == claim.claim_id:
            self._revisions[key] = pair.mod_revision
        return entry

    async def update(self, claim: Claim) -> bool:
        return await self._replace(claim, claim)

    async def hand_over(self, claim: Claim, successor: Claim) -> bool:
        is_done = await self._replace(claim, successor)
        self._revisions.pop(self._keys.address(*claim.key), None)
        return is_done

    async def release(self, claim: Claim) -> None:
        await self._replace(claim, None)
        self._revisions.pop(self._keys.address(*claim.key), None)

    async def _replace(self, claim: Claim, successor: Claim | None) -> bool:
        """
        Write *successor* over *claim*, or delete it.

        :return: whether *claim* was there, or *successor* is, from a try whose reply was lost.
        """
        key = self._keys.address(*claim.key)
        change: Operation = Delete(key) if successor is None else Put(key, encode_entry(successor))
        revision = self._revisions.get(key, -1)
        for _ in range(_TRIES):
            answer = await self._txn([Unchanged(key, revision)], [change], [Get(key)])
            if answer.succeeded:
                self._revisions[key] = answer.header.revision
                return True
            entry = self._entry(answer.read[0][0]) if answer.read[0] else None
            if entry is not None and entry == successor:
                return True
            if not isinstance(entry, Claim) or entry.claim_id != claim.claim_id:
                return False
            revision = answer.read[0][0].mod_revision
        raise _overtaken()

    async def share(self, shared: SharedAddress) -> Entry:
        key = self._keys.address(*shared.key)
        for _ in range(_TRIES):
            pair = await self._get(key)
            entry = None if pair is None else self._entry(pair)
            if isinstance(entry, Claim):
                return entry
            if entry is not None and shared.holders <= entry.holders:
                return entry
            joined = shared if entry is None else evolve(entry, holders=entry.holders | shared.holders)
            if await self._write(key, pair, joined):
                return joined
        raise _overtaken()

    async def unshare(self, shared: SharedAddress) -> None:
        key = self._keys.address(*shared.key)
        for _ in range(_TRIES):
            pair = await self._get(key)
            entry = None if pair is None else self._entry(pair)
            if not isinstance(entry, SharedAddress) or not entry.holders & shared.holders:
                return
            left = entry.holders - shared.holders
            if await self._write(key, pair, evolve(entry, holders=left) if left else None):
                return
        raise _overtaken()

    async def _write(self, key: str, before: KeyValue | None, entry: Entry | None) -> bool:
        comparison: Comparison = Absent(key) if before is None else Unchanged(key, before.mod_revision)
        change: Operation = Delete(key) if entry is None else Put(key, encode_entry(entry))
        return (await self._txn([comparison], [change], [])).succeeded

    async def want(self, wanted: Wanted) -> None:
        key = self._keys.wanted(wanted.lan, wanted.address)
        await self._txn([], [Put(key, encode_wanted(wanted), self._lease)], [])

    async def unwant(self, wanted: Wanted) -> None:
        key = self._keys.wanted(wanted.lan, wanted.address)
        await self._txn([HasValue(key, encode_wanted(wanted))], [Delete(key)], [])

    # Hosts.

    async def join(self, record: HostRecord) -> None:
        self._record = record
        await self._announce(record)
        if not self._alive.running:
            self._alive.start(LEASE_SECONDS / 3, now=False)

    async def _announce(self, record: HostRecord) -> None:
        with _translated():
            self._lease = (await self._gateway.grant_lease(LEASE_SECONDS)).id
        name = record.host.name
        await self._txn(
            [],
            [
                Put(self._keys.host(name), encode_record(record), self._lease),
                Put(self._keys.known(name), encode_host(record.host)),
            ],
            [],
        )

    async def _keep_alive(self) -> None:
        """If the lease has ended, the observer is told that the host is gone, and joins again."""
        if self._record is not None:
            with suppress(FleetUnavailable), _translated():
                await self._gateway.keep_alive(self._lease)

    async def leave(self, name: str) -> None:
        if self._record is not None and self._record.host.name == name:
            self._record = None
        await self._txn([], [Delete(self._keys.host(name)), Delete(self._keys.known(name))], [])

    # Everything.

    async def snapshot(self) -> Snapshot:
        with _translated():
            answer = await self._gateway.range(self._keys.prefix + "/")
        self._revisions.clear()
        reading = _SnapshotReader()
        for pair in answer.pairs:
            self._report(Event(pair), reading)
        return Snapshot(
            f"{answer.header.cluster_id:x}",
            answer.header.revision,
            reading.entries,
            reading.alive,
            reading.known,
            reading.wanted,
        )

    async def watch(self, cluster: str, revision: int, observer: FleetObserver) -> None:
        def report(events: Sequence[Event]) -> None:
            for event in events:
                self._report(event, observer)
            if events:
                observer.revision_reached(max(event.pair.mod_revision for event in events))

        with _translated():
            await self._gateway.watch(
                self._keys.prefix + "/",
                Header(int(cluster, 16), revision),
                report,
                observer.connection_changed,
            )

    def _report(self, event: Event, observer: FleetObserver) -> None:
        parts, pair = self._keys.parts(event.pair.key), event.pair
        try:
            match parts:
                case ("lans", lan, "addresses", text):
                    address = parse_address(text)
                    entry = None if event.is_deletion else decode_entry(lan, text, pair.value)
                    if pair.key in self._revisions:
                        self._revisions[pair.key] = pair.mod_revision
                    observer.entry_changed(lan, address, entry)
                case ("lans", lan, "wanted", text):
                    wanted = None if event.is_deletion else decode_wanted(lan, text, pair.value)
                    observer.wanted_changed(lan, parse_address(text), wanted)
                case ("hosts", name):
                    observer.host_changed(
                        name, None if event.is_deletion else decode_record(name, pair.value)
                    )
                case ("known", name):
                    observer.known_changed(name, None if event.is_deletion else decode_host(name, pair.value))
        except ValueError as error:
            # Cause: another program has written below the fleet's prefix. Remedy: delete the key with etcdctl, or use another
            # prefix in --fleet.
            _log.warn("fleet: key {key} in etcd is ignored ({reason})", key=pair.key, reason=str(error))

    async def close(self) -> None:
        self._record = None
        if self._alive.running:
            self._alive.stop()
        await self._gateway.stop()

    # Helpers.

    def _entry(self, pair: KeyValue) -> Entry:
        """:raises FleetUnavailable: another program has written the key."""
        _, lan, _, address = self._keys.parts(pair.key)
        try:
            return decode_entry(lan, address, pair.value)
        except ValueError as error:
            raise FleetUnavailable(
                f"key {pair.key} in etcd has a value that is not the plugin's ({error}): delete it with etcdctl"
            ) from error

    async def _get(self, key: str) -> KeyValue | None:
        with _translated():
            return await self._gateway.get(key)

    async def _txn(
        self, compare: Sequence[Comparison], success: Sequence[Operation], failure: Sequence[Operation]
    ) -> TxnAnswer:
        with _translated():
            return await self._gateway.txn(compare, success, failure, repeatable=True)


class _SnapshotReader:
    """Collects what a snapshot contains."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self.alive: list[HostRecord] = []
        self.known: list[Host] = []
        self.wanted: list[Wanted] = []

    def entry_changed(self, lan: str, address: IPAddress, entry: Entry | None) -> None:
        if entry is not None:
            self.entries.append(entry)

    def host_changed(self, name: str, record: HostRecord | None) -> None:
        if record is not None:
            self.alive.append(record)

    def known_changed(self, name: str, host: Host | None) -> None:
        if host is not None:
            self.known.append(host)

    def wanted_changed(self, lan: str, address: IPAddress, wanted: Wanted | None) -> None:
        if wanted is not None:
            self.wanted.append(wanted)

    def revision_reached(self, revision: int) -> None:
        pass

    def connection_changed(self, reason: str) -> None:
        pass


@contextmanager
def _translated() -> Any:
    """Turn etcd's exceptions into the fleet's."""
    try:
        yield
    except (EtcdUnavailable, EtcdRefused) as error:
        raise FleetUnavailable(str(error)) from error


def _overtaken() -> FleetUnavailable:
    return FleetUnavailable("other hosts change the same address at this moment: try again")
