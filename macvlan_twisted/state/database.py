"""
The database file: every row has a checksum, and one row, the ledger, shows whether rows are missing.

SQLite reports neither a flipped byte in a row nor the loss of the last commits when its write-ahead log is damaged or
missing (measured; see docs/explanation/architecture). So

* every row has a checksum over its table and values;
* the ledger holds a generation that grows by one with each commit, the number of rows, and the exclusive or of their
  checksums;
* a small file beside the database repeats the generation after each commit, and so does a file outside of the directory
  that lives until the next boot (:mod:`macvlan_twisted.state.generation`).
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from hashlib import blake2b
from pathlib import Path
from typing import Any

from attrs import frozen
from twisted.logger import Logger

from ..errors import NewerStateError, StateError
from ..failpoints import Failpoint
from .generation import WITNESS_NAME, GenerationFile, RecordedGeneration, RuntimeGeneration
from .migrations import MIGRATIONS, VERSION, Documents

_log = Logger(namespace="macvlan_twisted.state")

# Remedy of these errors: if you have an intact, up-to-date copy of the state directory, restore it; otherwise start the
# plugin once with --recover.

DATABASE_NAME = "state.sqlite"

_OPEN = Failpoint("state.database.open", "the database's file is made if there is none, for our eyes only")
_OPEN_LOG = Failpoint(
    "state.log.open", "SQLite opens its write-ahead log, and takes in one that a kill has left"
)
_MIGRATE = Failpoint("state.schema.migrate", "the database gets its tables, or those of a newer version")
_COMMIT = Failpoint("state.changes.commit", "what was asked for is committed, all of it together")
_CLOSE = Failpoint("state.database.close", "the database is closed, its write-ahead log taken in and removed")


@frozen(eq=False)
class Table:
    """One of :data:`TABLES`."""

    name: str
    columns: tuple[str, ...]
    key: tuple[str, ...]
    since: int = 1
    """The version of the format in which it came."""

    @cached_property
    def put(self) -> str:
        """The statement that writes a row, its checksum last."""
        marks = ", ".join("?" * (len(self.columns) + 1))
        return f"INSERT OR REPLACE INTO {self.name} VALUES ({marks})"

    @cached_property
    def of_key(self) -> tuple[str, ...]:
        """The FROM and WHERE clauses that select rows by the first column of the key, by the first two, ..."""
        terms = [f"{column} = ?" for column in self.key]
        return tuple(
            f"FROM {self.name} WHERE {' AND '.join(terms[: last + 1])}" for last in range(len(terms))
        )


IDENTITY = Table("identity", ("name", "value"), ("name",))
NETWORKS = Table("networks", ("id", "document"), ("id",))
ENDPOINTS = Table("endpoints", ("id", "document"), ("id",))
MADE_LINKS = Table("made_links", ("id", "document"), ("id",))
POOLS = Table("pools", ("id", "document"), ("id",))
CURSORS = Table("cursors", ("shared_set", "address"), ("shared_set",))
ADDRESSES = Table("addresses", ("pool_id", "address", "purpose"), ("pool_id", "address"))
HOST_LINKS = Table("host_links", ("id", "document"), ("id",), since=2)
CONFLICTS = Table("conflicts", ("id", "document"), ("id",), since=2)
LEASES = Table("leases", ("id", "document"), ("id",), since=2)
IDENTITIES = Table("identities", ("pool_id", "name", "address", "mac"), ("pool_id", "name"), since=2)
RETURNED = Table("returned", ("pool_id", "address", "released_at"), ("pool_id", "address"), since=4)
LAST_ADDRESSES = Table(
    "last_addresses", ("pool_id", "container_id", "address", "traits"), ("pool_id", "container_id"), since=5
)
FLEET = Table("fleet", ("id", "document"), ("id",), since=6)
TABLES = (
    IDENTITY,
    NETWORKS,
    ENDPOINTS,
    MADE_LINKS,
    POOLS,
    CURSORS,
    ADDRESSES,
    HOST_LINKS,
    CONFLICTS,
    LEASES,
    IDENTITIES,
    RETURNED,
    LAST_ADDRESSES,
    FLEET,
)

_NOT_MISSED = (IDENTITY, CURSORS, CONFLICTS, IDENTITIES, RETURNED, LAST_ADDRESSES, FLEET)
"""Tables whose rows remain when the last network is deleted: no container depends on them."""


@frozen
class Put:
    """Insert a row or replace the one with its key."""

    table: Table
    row: tuple[str, ...]

    @property
    def key(self) -> tuple[str, ...]:
        return self.row[: len(self.table.key)]


@frozen
class Drop:
    """Delete the rows whose first key columns have these values."""

    table: Table
    key: tuple[str, ...]


Change = Put | Drop


def effective(changes: Sequence[Change]) -> Sequence[Change]:
    """
    *changes* without those that a later one replaces, or drops by the whole key.

    Calls that are committed together advance the same cursor, and allocate addresses that others have just released.
    """
    if len(changes) == 1:
        return changes
    last = {(change.table.name, change.key): number for number, change in enumerate(changes)}
    if len(last) == len(changes):
        return changes
    return [
        change
        for number, change in enumerate(changes)
        if isinstance(change, Drop) or last[change.table.name, change.key] == number
    ]


_ENCODER = json.JSONEncoder(separators=(",", ":"), sort_keys=True)


def to_json(document: Mapping[str, Any]) -> str:
    """A document as it is stored."""
    return _ENCODER.encode(document)


def _checksum(table: Table, row: Sequence[str]) -> int:
    """64 bits, signed as in SQLite."""
    text = "\x1f".join((table.name, *row))
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "big", signed=True)


class Database:
    """All functions block; after :meth:`open` only one thread may use it."""

    _database: sqlite3.Connection
    generation: int
    """Grows by one with each commit."""
    instance: str
    """The instance whose state it is; empty in a new database."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / DATABASE_NAME
        self._generation_file = GenerationFile(directory / WITNESS_NAME)
        self._outside: RuntimeGeneration | None = None
        self.is_new = False
        """Whether it was created now."""

    def open(self, accept: Callable[[], None] = lambda: None) -> None:
        """
        Open or create the database, check every row, and bring it to the current version of the format.

        :param accept: called before an existing database is changed; what it raises is raised, and nothing was changed.
        :raises NewerStateError: a later version of the program wrote it.
        :raises StateError: something is missing or damaged.
        """
        # Remedy: see the reason in the message. If the file is damaged and you have an intact, up-to-date copy of the state
        # directory, restore it; otherwise start the plugin once with --recover.
        with self._sqlite_errors("cannot open"):
            if not self._path.exists():
                self._check_not_lost(self._generation_file.read())
            with _OPEN:
                self._database = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False)
                os.chmod(self._path, 0o600)
            try:
                version = self._prepare()
                self._check(self._generation_file.read(), version)
                accept()
                for number in range(version, VERSION):
                    self._migrate(number + 1)
            except (AttributeError, KeyError, TypeError, ValueError) as error:
                # a value of the wrong type, text that is not UTF-8, or a document without a field that it must have
                self._database.close()
                raise StateError(f"{self._path} is damaged: {error}") from error
            except BaseException:
                self._database.close()
                raise

    def _check_not_lost(self, recorded: RecordedGeneration | None) -> None:
        """
        :raises StateError: there is no database, but there was one.
        """
        if recorded is not None:
            raise StateError(f"{self._path} is gone, but it was at generation {recorded.generation}")
        log = self._path.with_name(DATABASE_NAME + "-wal")
        if log.exists():
            raise StateError(f"{self._path} is gone, but its write-ahead log {log.name} exists")

    @contextmanager
    def _sqlite_errors(self, doing: str) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise StateError(f"{doing} {self._path}: {error}") from error
        except OSError as error:
            raise StateError(f"{doing} {self._path}: {os.strerror(error.errno or 0)}") from error

    def _prepare(self) -> int:
        """:return: the version of the format that was found."""
        run = self._database.execute
        run("PRAGMA locking_mode = EXCLUSIVE")
        with _OPEN_LOG:
            run("PRAGMA journal_mode = WAL")
        run("PRAGMA synchronous = FULL")
        version: int = run("PRAGMA user_version").fetchone()[0]
        if version > VERSION:
            raise NewerStateError(
                f"{self._path} has schema version {version}, but the plugin knows versions up to {VERSION}: install the "
                "newer macvlan-twisted that wrote it"
            )
        if version == 0:  # a new file, or one of a start that was killed
            with _MIGRATE:
                run("BEGIN IMMEDIATE")
                for number in range(VERSION):
                    self._change_tables(number + 1)
                run("COMMIT")
            version = VERSION
        return version

    def _change_tables(self, version: int) -> None:
        """Make the tables of *version* from those of the version before."""
        for statement in MIGRATIONS[version - 1].statements:
            self._database.execute(statement)
        self._database.execute(f"PRAGMA user_version = {version}")

    def _migrate(self, version: int) -> None:
        """
        Make *version* from the version before, in one commit, so that a kill leaves one or the other.
        """
        documents: Documents = {
            table.name: {key: json.loads(text) for key, text in self.rows(table)}
            for table in TABLES
            if table.since < version and table.columns == ("id", "document")
        }
        tables = {table.name: table for table in TABLES}
        changes = [
            Put(tables[name], (key, to_json(document)))
            for name, key, document in MIGRATIONS[version - 1].changed(documents)
        ]
        with _MIGRATE:
            self.commit(changes, lambda: self._change_tables(version))

    def _check(self, recorded: RecordedGeneration | None, version: int) -> None:
        (verdict,) = self._database.execute("PRAGMA quick_check(1)").fetchone()
        if verdict != "ok":
            raise StateError(f"{self._path} is damaged: {verdict}")
        self.generation, count, digest = self._database.execute(
            "SELECT generation, row_count, digest FROM ledger"
        ).fetchone()
        seen, seen_digest = 0, 0
        self._missed = 0
        """The number of rows outside of :data:`_NOT_MISSED`."""
        for table in (each for each in TABLES if each.since <= version):
            for *row, checksum in self._select(table):
                if checksum != _checksum(table, row):
                    raise StateError(
                        f"{self._path} is damaged: a row of table {table.name} fails its checksum ({row[0]})"
                    )
                seen += 1
                self._missed += table not in _NOT_MISSED
                seen_digest ^= checksum
        if (seen, seen_digest) != (count, digest):
            raise StateError(
                f"{self._path} is damaged: its rows are not those that were committed ({count} expected, {seen} "
                "found)"
            )
        if recorded is None and self.generation > 0:
            # Cause: the file ``generation`` in the state directory was removed, or only the database was copied.
            # Remedy: none needed; the plugin creates the file again. To copy the state, copy both files.
            _log.warn(
                "state: generation file missing beside {path}, so lost commits cannot be detected this time",
                path=self._path,
            )
        if recorded is not None and self.generation < recorded.generation:
            raise StateError(
                f"{self._path} is at generation {self.generation}, but {recorded.generation} was "
                "committed: its last commits are lost, or an older copy was restored"
            )
        self._count, self._digest = count, digest
        self.instance = {row[0]: row[1] for row in self.rows(IDENTITY)}.get("instance", "")
        if recorded is not None and recorded.instance not in ("", self.instance):
            raise StateError(
                f"{self._path} belongs to instance {self.instance or '(none)'}, but {WITNESS_NAME} beside it belongs to "
                f"{recorded.instance}: one of them was copied from another directory"
            )

    def repeat_generation(self, outside: RuntimeGeneration) -> None:
        """Repeat the generation in *outside*, too, from now on. What is there was checked before."""
        self._outside = outside
        outside.begin(self.instance, self.generation, self._missed)

    def _select(self, table: Table) -> sqlite3.Cursor:
        return self._database.execute(f"SELECT {', '.join(table.columns)}, checksum FROM {table.name}")

    def rows(self, table: Table) -> list[tuple[str, ...]]:
        return list(self.each_row(table))

    def each_row(self, table: Table) -> Iterator[tuple[str, ...]]:
        """An iterator, for there may be a million rows."""
        return (tuple(row[:-1]) for row in self._select(table))

    def commit(self, changes: Sequence[Change], first: Callable[[], object] = lambda: None) -> None:
        """
        Commit all *changes* or none; they are on disk on return.

        :param first: more statements of the same commit.
        :raises StateError: none of them was made.
        """
        count, digest, missed, instance = self._count, self._digest, self._missed, self.instance
        # Remedy: free space on the disk of the state directory, or see the reason in the message.
        with self._sqlite_errors("cannot write"):
            run = self._database.execute
            run("BEGIN IMMEDIATE")
            try:
                first()
                for change in effective(changes):
                    table, key = change.table, change.key
                    rows = table.of_key[len(key) - 1]
                    is_missed = table not in _NOT_MISSED
                    for (checksum,) in run(f"SELECT checksum {rows}", key).fetchall():
                        count, digest, missed = count - 1, digest ^ checksum, missed - is_missed
                    if isinstance(change, Drop):
                        run(f"DELETE {rows}", key)
                    else:
                        if table is IDENTITY and change.row[0] == "instance":
                            instance = change.row[1]
                        checksum = _checksum(table, change.row)
                        run(table.put, (*change.row, checksum))
                        count, digest, missed = count + 1, digest ^ checksum, missed + is_missed
                run(
                    "UPDATE ledger SET generation = ?, row_count = ?, digest = ?",
                    (self.generation + 1, count, digest),
                )
                with _COMMIT:
                    run("COMMIT")
            except BaseException:
                if self._database.in_transaction:
                    run("ROLLBACK")
                raise
        self.generation += 1
        self._count, self._digest, self._missed, self.instance = count, digest, missed, instance
        try:
            self._generation_file.write(self.generation, self.instance)
            if self._outside is not None:
                self._outside.write(self.generation, self._missed)
        except OSError as error:  # the file may lag behind; the commit is durable
            # Cause: the file ``generation`` in the state directory, or its copy in the runtime directory, cannot be
            # written; no data is lost. Remedy: free space on the disks of both directories.
            _log.warn("state: generation file not updated ({reason})", reason=error.strerror)

    def close(self) -> None:
        with _CLOSE:
            self._database.close()
        self._generation_file.close()
        if self._outside is not None:
            self._outside.close()
