"""The database file: commits survive."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from tempfile import TemporaryDirectory

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from macvlan_twisted.errors import StateError
from macvlan_twisted.state.database import (
    ADDRESSES,
    CURSORS,
    DATABASE_NAME,
    NETWORKS,
    TABLES,
    Change,
    Drop,
    Put,
    Table,
)
from macvlan_twisted.state.migrations import VERSION

from .database_cases import LedgerTestCase, contents, opened

ROWS: list[Change] = [
    Put(NETWORKS, ("n1", '{"parent":"eth0"}')),
    Put(NETWORKS, ("n2", '{"parent":"\\u00e9\x1f\x00"}')),
    Put(ADDRESSES, ("p1", "10.0.0.1", "endpoint")),
    Put(ADDRESSES, ("p1", "10.0.0.2", "gateway")),
    Put(ADDRESSES, ("p2", "10.0.0.1", "gateway")),
]


class RoundTripTests(LedgerTestCase):
    def test_new_database_is_empty_and_private(self) -> None:
        database = self.open()
        self.assertEqual(contents(database), {table.name: set() for table in TABLES})
        self.assertEqual(self.database_path.stat().st_mode & 0o777, 0o600)

    def test_commit_waits_for_the_disk(self) -> None:
        connection = self.connection_of(self.open())
        for pragma, value in (("synchronous", 2), ("journal_mode", "wal"), ("locking_mode", "exclusive")):
            self.assertEqual(connection.execute(f"PRAGMA {pragma}").fetchone(), (value,))

    def test_second_database_on_a_directory_is_refused(self) -> None:
        self.open().commit(ROWS)
        self.patch(sqlite3, "connect", lambda path, **more: connect(path, timeout=0, **more))
        with self.assertRaises(StateError):
            opened(self.directory)


connect = sqlite3.connect


class AllOrNothingTests(LedgerTestCase):
    def test_commit_with_an_invalid_change_changes_nothing(self) -> None:
        database = self.open()
        database.commit(ROWS)
        before, generation = contents(database), database.generation
        wrong = Put(Table("no_such_table", ("a",), ("a",)), ("x",))
        with self.assertRaises(StateError):
            database.commit([Put(NETWORKS, ("n9", "{}")), Drop(ADDRESSES, ("p1",)), wrong])
        self.assertEqual((contents(database), database.generation), (before, generation))
        database.commit([Put(NETWORKS, ("n9", "{}"))])
        database.close()
        self.assertEqual(len(self.open().rows(NETWORKS)), 3)

    def test_full_disk_raises_and_changes_nothing(self) -> None:
        database = self.open()
        database.commit(ROWS)
        before = contents(database)
        connection = self.connection_of(database)
        (pages,) = connection.execute("PRAGMA page_count").fetchone()
        connection.execute(f"PRAGMA max_page_count = {pages}")
        with self.assertRaises(StateError) as caught:
            database.commit([Put(NETWORKS, (f"n{number}", "x" * 5000)) for number in range(9)])
        self.assertIn("full", str(caught.exception))
        self.assertIn(DATABASE_NAME, str(caught.exception))
        self.assertEqual(contents(database), before)
        connection.execute("PRAGMA max_page_count = 100000")
        database.commit([Put(NETWORKS, ("n9", "x" * 5000))])
        database.close()
        self.assertEqual(len(self.open().rows(NETWORKS)), 3)


class SchemaTests(LedgerTestCase):
    def test_newer_schema_is_refused_and_untouched(self) -> None:
        database = self.open()
        database.commit(ROWS)
        database.close()
        other = sqlite3.connect(self.database_path)
        other.execute(f"PRAGMA user_version = {VERSION + 1}")
        other.close()
        with self.assertRaisesRegex(StateError, f"schema version {VERSION + 1}.*install the newer"):
            opened(self.directory)

    def test_interrupted_migration_is_repeated(self) -> None:
        self.database_path.touch()
        self.open().commit(ROWS)


TEXTS = st.text(st.characters(codec="utf-8"), max_size=8)
KEYS = st.sampled_from(["a", "b", "ä", ""])
CHANGES = st.one_of(
    st.builds(lambda key, text: Put(NETWORKS, (key, text)), KEYS, TEXTS),
    st.builds(lambda key, text: Put(CURSORS, (key, text)), KEYS, TEXTS),
    st.builds(lambda one, two, text: Put(ADDRESSES, (one, two, text)), KEYS, KEYS, TEXTS),
    st.builds(lambda key: Drop(NETWORKS, (key,)), KEYS),
    st.builds(lambda key: Drop(ADDRESSES, (key,)), KEYS),
    st.builds(lambda one, two: Drop(ADDRESSES, (one, two)), KEYS, KEYS),
)


class LedgerMachine(RuleBasedStateMachine):
    """Random commits compared with dictionaries, with reopening in between."""

    def __init__(self) -> None:
        super().__init__()
        self.directory = TemporaryDirectory()
        self.database = opened(Path(self.directory.name))
        self.rows: dict[tuple[str, ...], tuple[str, ...]] = {}
        self.commits = 0

    @rule(changes=st.lists(CHANGES, max_size=8))
    def commit(self, changes: list[Change]) -> None:
        self.database.commit(changes)
        self.commits += 1
        for change in changes:
            if isinstance(change, Put):
                size = len(change.table.key)
                self.rows[change.table.name, *change.row[:size]] = change.row
            else:
                gone = (change.table.name, *change.key)
                self.rows = {key: row for key, row in self.rows.items() if key[: len(gone)] != gone}

    @rule()
    def open_again(self) -> None:
        self.database.close()
        self.database = opened(Path(self.directory.name))

    @invariant()
    def holds_what_was_committed(self) -> None:
        found = {(table.name, *row) for table in TABLES for row in self.database.rows(table)}
        assert found == {(key[0], *row) for key, row in self.rows.items()}
        assert self.database.generation == self.commits

    def teardown(self) -> None:
        self.database.close()
        self.directory.cleanup()


LedgerModelTests = LedgerMachine.TestCase
LedgerModelTests.settings = settings(max_examples=15, stateful_step_count=15)
