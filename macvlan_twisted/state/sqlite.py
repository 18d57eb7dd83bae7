"""Both interfaces of state in one SQLite file."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from secrets import randbelow, token_hex
from typing import Protocol

from attrs import frozen
from twisted.internet.defer import Deferred

from ..addresses import IPAddress, parse_address
from ..errors import StateFailed
from . import ledger as tables
from .interface import Claim, Document, Identity, Kind
from .ledger import Change, Drop, Ledger, Put, Table
from .witness import RuntimeWitness

_TABLE_OF = {
    Kind.NETWORK: tables.NETWORKS,
    Kind.ENDPOINT: tables.ENDPOINTS,
    Kind.MADE_LINK: tables.MADE_LINKS,
    Kind.HOST_LINK: tables.HOST_LINKS,
    Kind.CONFLICT: tables.CONFLICTS,
    Kind.LEASE: tables.LEASES,
}
_FIRST_GROUP = 2**16
_GROUP_STEP = 32
"""Distance between the groups of links that two instances may draw; one uses fewer of them."""


class Submits(Protocol):
    """Where changes go: :class:`~macvlan_twisted.state.writer.Writer`, or a test's own."""

    def submit(self, changes: list[Change], /) -> Deferred[None]: ...

    def close(self) -> None: ...


@frozen
class StateIdentity:
    """By what links are known as those of one state directory."""

    instance: str
    link_group: int

    @classmethod
    def drawn(cls) -> StateIdentity:
        return cls(token_hex(4), drawn_group())


def drawn_group() -> int:
    """A random group of links that nobody else is likely to use, positive in the kernel's int."""
    return _FIRST_GROUP + randbelow(2**25) * _GROUP_STEP


def first_group_of(group: int) -> int:
    """The first of an instance's groups, by any of them."""
    return group - (group - _FIRST_GROUP) % _GROUP_STEP


def identity_rows(identity: StateIdentity) -> list[Change]:
    return [
        Put(tables.IDENTITY, ("instance", identity.instance)),
        Put(tables.IDENTITY, ("link_group", str(identity.link_group))),
    ]


def identity_of(ledger: Ledger) -> StateIdentity:
    """
    :raises StateFailed: it has none.
    """
    rows = {row[0]: row[1] for row in ledger.rows(tables.IDENTITY)}
    try:
        return StateIdentity(rows["instance"], int(rows["link_group"]))
    except (KeyError, ValueError) as error:
        raise StateFailed(f"state does not say which instance it is of: {rows}") from error


def open_ledger(directory: Path, outside: RuntimeWitness | None = None) -> Ledger:
    """
    Open or make the state in *directory*, checked. Blocks, so only before listening.

    :param outside: what is witnessed outside of it.
    :raises StateFailed: says what is wrong; nothing was changed.
    """
    said = None if outside is None else outside.of_directory()
    if said is not None and said.rows and not (directory / tables.DATABASE_NAME).exists():
        raise StateFailed(
            f"{directory / tables.DATABASE_NAME} is gone: since the host was booted it was at generation "
            f"{said.generation}, with {said.rows} records"
        )
    ledger = Ledger(directory)
    try:
        if outside is not None:
            refuse_older(ledger, directory, outside)
        if not ledger.rows(tables.IDENTITY):
            ledger.commit(identity_rows(StateIdentity.drawn()))
            ledger.is_new = True
        if outside is not None:
            ledger.be_witnessed(outside)
    except BaseException:
        ledger.close()
        raise
    return ledger


def refuse_older(ledger: Ledger, directory: Path, outside: RuntimeWitness) -> None:
    """
    :raises StateFailed: what is in *directory* is not what was there last since the host was booted.
    """
    here = outside.of_directory()
    if here is not None and here.rows and here.instance != ledger.instance:
        raise StateFailed(
            f"the state in {directory} is that of instance {ledger.instance or '(none)'}, and since the host was booted that "
            f"of {here.instance} was here, with {here.rows} records: it was put here from another directory"
        )
    own = outside.of_instance(ledger.instance)
    if own is not None and own.generation > ledger.generation:
        raise StateFailed(
            f"the state in {directory} is at generation {ledger.generation}, but since the host was booted it was at "
            f"{own.generation}: an older copy was put in its place"
        )


def _json(document: Document) -> str:
    return json.dumps(document, separators=(",", ":"), sort_keys=True)


class SqliteHostRecords:
    """:class:`~macvlan_twisted.state.interface.HostRecords` in the database."""

    def __init__(self, ledger: Ledger, writer: Submits) -> None:
        self._ledger = ledger
        self._writer = writer
        identity = identity_of(ledger)
        self.instance: str = identity.instance
        self.link_group: int = identity.link_group

    def documents(self, kind: Kind) -> dict[str, Document]:
        return _documents(self._ledger, _TABLE_OF[kind])

    def save(self, kind: Kind, key: str, document: Document) -> Deferred[None]:
        return self._writer.submit([Put(_TABLE_OF[kind], (key, _json(document)))])

    def forget(self, kind: Kind, key: str) -> Deferred[None]:
        return self._writer.submit([Drop(_TABLE_OF[kind], (key,))])


class SqliteAddressBook:
    """:class:`~macvlan_twisted.state.interface.AddressBook` in the database."""

    def __init__(self, ledger: Ledger, writer: Submits) -> None:
        self._ledger = ledger
        self._writer = writer

    def pools(self) -> dict[str, Document]:
        return _documents(self._ledger, tables.POOLS)

    def claims(self) -> Iterator[Claim]:
        return (
            Claim(pool_id, parse_address(address), purpose)
            for pool_id, address, purpose in self._ledger.each_row(tables.ADDRESSES)
        )

    def cursors(self) -> dict[str, IPAddress]:
        return {name: parse_address(address) for name, address in self._ledger.rows(tables.CURSORS)}

    def open_pool(self, pool_id: str, document: Document) -> Deferred[None]:
        return self._writer.submit([Put(tables.POOLS, (pool_id, _json(document)))])

    def close_pool(self, pool_id: str) -> Deferred[None]:
        return self._writer.submit(
            [
                Drop(tables.ADDRESSES, (pool_id,)),
                Drop(tables.IDENTITIES, (pool_id,)),
                Drop(tables.POOLS, (pool_id,)),
            ]
        )

    def identities(self) -> list[Identity]:
        return [
            Identity(pool_id, name, parse_address(address), mac)
            for pool_id, name, address, mac in self._ledger.rows(tables.IDENTITIES)
        ]

    def claim(
        self,
        claim: Claim,
        shared_set: str,
        advances: bool,
        forgotten_names: Sequence[str] = (),
        forgotten_sets: Sequence[str] = (),
    ) -> Deferred[None]:
        address = str(claim.address)
        changes: list[Change] = [Put(tables.ADDRESSES, (claim.pool_id, address, claim.purpose))]
        if advances:
            changes.append(Put(tables.CURSORS, (shared_set, address)))
        changes += [Drop(tables.CURSORS, (each,)) for each in forgotten_sets]
        changes += [Drop(tables.IDENTITIES, (claim.pool_id, name)) for name in forgotten_names]
        if claim.name:
            changes.append(Put(tables.IDENTITIES, (claim.pool_id, claim.name, address, claim.mac)))
        return self._writer.submit(changes)

    def release(self, pool_id: str, address: IPAddress) -> Deferred[None]:
        return self._writer.submit([Drop(tables.ADDRESSES, (pool_id, str(address)))])


def _documents(ledger: Ledger, table: Table) -> dict[str, Document]:
    return {key: json.loads(text) for key, text in ledger.rows(table)}
