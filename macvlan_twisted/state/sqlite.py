"""Both interfaces to state, in one SQLite file."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from secrets import randbelow, token_hex
from typing import Protocol

from attrs import frozen
from twisted.internet.defer import Deferred

from ..addresses import IPAddress, parse_address
from ..errors import StateError
from . import database as tables
from .database import Change, Database, Drop, Put, Table, to_json
from .generation import RuntimeGeneration
from .interfaces import (
    Allocation,
    Document,
    LastAddress,
    RecordKind,
    ReturnedAddress,
    StickyAddress,
)

# Remedy of these errors: if you have an intact, up-to-date copy of the state directory, restore it; otherwise start the
# plugin once with --recover.

_TABLE_OF = {
    RecordKind.NETWORK: tables.NETWORKS,
    RecordKind.ENDPOINT: tables.ENDPOINTS,
    RecordKind.MADE_LINK: tables.MADE_LINKS,
    RecordKind.HOST_LINK: tables.HOST_LINKS,
    RecordKind.CONFLICT: tables.CONFLICTS,
    RecordKind.LEASE: tables.LEASES,
    RecordKind.FLEET: tables.FLEET,
}
LOWEST_GROUP = 2**16
"""Link groups below this one are for others."""
_GROUP_STEP = 32
"""Least distance between the first link groups of two instances; an instance uses fewer groups."""


_CHOSEN = ", chosen"
"""Behind the purpose of an allocation: a column of its own would change the checksums of all rows."""


class CommitQueue(Protocol):
    """Commits changes: :class:`~macvlan_twisted.state.group_commit.GroupCommit`, or a test's own."""

    def submit(self, changes: list[Change], /) -> Deferred[None]: ...

    def close(self) -> None: ...


@frozen
class StateIdentity:
    """Identifies the links that belong to one state directory."""

    instance: str
    link_group: int

    @classmethod
    def drawn(cls) -> StateIdentity:
        return cls(token_hex(4), drawn_group())


def drawn_group() -> int:
    """A random link group that is hardly used by others, positive as a C int."""
    return LOWEST_GROUP + randbelow(2**25) * _GROUP_STEP


def first_group_of(group: int) -> int:
    """The first link group of the instance that *group* belongs to."""
    return group - (group - LOWEST_GROUP) % _GROUP_STEP


def identity_rows(identity: StateIdentity) -> list[Change]:
    return [
        Put(tables.IDENTITY, ("instance", identity.instance)),
        Put(tables.IDENTITY, ("link_group", str(identity.link_group))),
    ]


def identity_of(database: Database) -> StateIdentity:
    """
    :raises StateError: it has none.
    """
    rows = {row[0]: row[1] for row in database.rows(tables.IDENTITY)}
    try:
        return StateIdentity(rows["instance"], int(rows["link_group"]))
    except (KeyError, ValueError) as error:
        raise StateError(f"state has no instance id (rows found: {rows})") from error


def open_database(directory: Path, outside: RuntimeGeneration | None = None) -> Database:
    """
    Open and check the state in *directory*, or create it. Blocks, so it is called before we listen.

    :param outside: the generation that is recorded outside of the directory.
    :raises StateError: it cannot be used; nothing was changed.
    """
    record = None if outside is None else outside.of_directory()
    path = directory / tables.DATABASE_NAME
    if record is not None and record.rows and not path.exists():
        raise StateError(
            f"{path} is gone, but it was at generation {record.generation} "
            f"with {record.rows} records after the host booted"
        )
    database = Database(directory)
    database.open(lambda: None if outside is None else refuse_older(database, directory, outside))
    try:
        if not database.rows(tables.IDENTITY):
            database.commit(identity_rows(StateIdentity.drawn()))
            database.is_new = True
        if outside is not None:
            database.repeat_generation(outside)
    except BaseException:
        database.close()
        raise
    return database


def refuse_older(database: Database, directory: Path, outside: RuntimeGeneration) -> None:
    """
    :raises StateError: *directory* holds another or an older state than it did since the host booted.
    """
    here = outside.of_directory()
    if here is not None and here.rows and here.instance != database.instance:
        raise StateError(
            f"state in {directory} belongs to instance {database.instance or '(none)'}, but instance {here.instance} "
            f"({here.rows} records) has used the directory since the host booted: the state was copied from another "
            "directory"
        )
    own = outside.of_instance(database.instance)
    if own is not None and own.generation > database.generation:
        raise StateError(
            f"state in {directory} is at generation {database.generation}, but it was at {own.generation} after the "
            "host booted: an older copy was restored"
        )


class SqliteHostRecords:
    """
    :class:`~macvlan_twisted.state.interfaces.HostRecords` in the database.

    :param identity: as :func:`identity_of` reads it from there.
    """

    def __init__(self, database: Database, writer: CommitQueue, identity: StateIdentity) -> None:
        self._database = database
        self._writer = writer
        self.instance: str = identity.instance
        self.link_group: int = identity.link_group

    def documents(self, kind: RecordKind) -> dict[str, Document]:
        return _documents(self._database, _TABLE_OF[kind])

    def save(self, kind: RecordKind, key: str, document: Document) -> Deferred[None]:
        return self._writer.submit([Put(_TABLE_OF[kind], (key, to_json(document)))])

    def erase(self, kind: RecordKind, key: str) -> Deferred[None]:
        return self._writer.submit([Drop(_TABLE_OF[kind], (key,))])


class SqliteAddressStore:
    """:class:`~macvlan_twisted.state.interfaces.AddressStore` in the database."""

    def __init__(self, database: Database, writer: CommitQueue) -> None:
        self._database = database
        self._writer = writer

    def pools(self) -> dict[str, Document]:
        return _documents(self._database, tables.POOLS)

    def allocations(self) -> Iterator[Allocation]:
        return (
            _allocation(pool_id, address, purpose)
            for pool_id, address, purpose in self._database.each_row(tables.ADDRESSES)
        )

    def cursors(self) -> dict[str, IPAddress]:
        return {name: parse_address(address) for name, address in self._database.rows(tables.CURSORS)}

    def last_addresses(self) -> list[LastAddress]:
        return [
            LastAddress(
                pool_id,
                container_id,
                parse_address(address) if address else None,
                is_asked="asked" in traits.split(),
                returns="returns" in traits.split(),
            )
            for pool_id, container_id, address, traits in self._database.rows(tables.LAST_ADDRESSES)
        ]

    def save_last_addresses(
        self, saved: Sequence[LastAddress], forgotten: Sequence[tuple[str, str]]
    ) -> Deferred[None]:
        changes: list[Change] = [Drop(tables.LAST_ADDRESSES, key) for key in forgotten]
        for row in saved:
            traits = ["asked"] * row.is_asked + ["returns"] * row.returns
            address = "" if row.address is None else str(row.address)
            changes.append(
                Put(tables.LAST_ADDRESSES, (row.pool_id, row.container_id, address, " ".join(traits)))
            )
        return self._writer.submit(changes)

    def returned(self) -> list[ReturnedAddress]:
        return [
            ReturnedAddress(pool_id, parse_address(address), float(released_at))
            for pool_id, address, released_at in self._database.rows(tables.RETURNED)
        ]

    def save_pool(self, pool_id: str, document: Document) -> Deferred[None]:
        return self._writer.submit([Put(tables.POOLS, (pool_id, to_json(document)))])

    def erase_pool(self, pool_id: str) -> Deferred[None]:
        return self._writer.submit(
            [
                Drop(tables.ADDRESSES, (pool_id,)),
                Drop(tables.IDENTITIES, (pool_id,)),
                Drop(tables.RETURNED, (pool_id,)),
                Drop(tables.LAST_ADDRESSES, (pool_id,)),
                Drop(tables.POOLS, (pool_id,)),
            ]
        )

    def identities(self) -> list[StickyAddress]:
        return [
            StickyAddress(pool_id, name, parse_address(address), mac)
            for pool_id, name, address, mac in self._database.rows(tables.IDENTITIES)
        ]

    def save_allocation(
        self,
        allocation: Allocation,
        shared_set: str,
        advances: bool,
        forgotten_names: Sequence[str] = (),
        forgotten_sets: Sequence[str] = (),
        forgotten_returns: Sequence[IPAddress] = (),
    ) -> Deferred[None]:
        address = str(allocation.address)
        purpose = allocation.purpose + (_CHOSEN if allocation.is_chosen else "")
        changes: list[Change] = [Put(tables.ADDRESSES, (allocation.pool_id, address, purpose))]
        if advances:
            changes.append(Put(tables.CURSORS, (shared_set, address)))
        changes += [Drop(tables.CURSORS, (each,)) for each in forgotten_sets]
        changes += [Drop(tables.IDENTITIES, (allocation.pool_id, name)) for name in forgotten_names]
        if allocation.name:
            changes.append(
                Put(tables.IDENTITIES, (allocation.pool_id, allocation.name, address, allocation.mac))
            )
        changes += [Drop(tables.RETURNED, (allocation.pool_id, str(each))) for each in forgotten_returns]
        return self._writer.submit(changes)

    def erase_allocation(
        self,
        pool_id: str,
        address: IPAddress,
        returned: ReturnedAddress | None = None,
        forgotten_returns: Sequence[IPAddress] = (),
    ) -> Deferred[None]:
        changes: list[Change] = [Drop(tables.ADDRESSES, (pool_id, str(address)))]
        changes += [Drop(tables.RETURNED, (pool_id, str(each))) for each in forgotten_returns]
        if returned is not None:
            changes.append(Put(tables.RETURNED, (pool_id, str(address), repr(returned.released_at))))
        return self._writer.submit(changes)


def _allocation(pool_id: str, address: str, purpose: str) -> Allocation:
    return Allocation(
        pool_id,
        parse_address(address),
        purpose_in(purpose),
        is_chosen=purpose.endswith(_CHOSEN),
    )


def purpose_in(column: str) -> str:
    """The purpose in a column of :data:`~macvlan_twisted.state.database.ADDRESSES`."""
    return column.removesuffix(_CHOSEN)


def _documents(database: Database, table: Table) -> dict[str, Document]:
    return {key: json.loads(text) for key, text in database.rows(table)}
