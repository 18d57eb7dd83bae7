"""Damage to the state's files is reported, never hidden."""

from __future__ import annotations

import shutil
from pathlib import Path

from macvlan_twisted.errors import StateError
from macvlan_twisted.state.database import ADDRESSES, DATABASE_NAME, ENDPOINTS, NETWORKS, Put
from macvlan_twisted.state.generation import WITNESS_NAME

from .database_cases import LedgerTestCase, contents, opened


class DamageTestCase(LedgerTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.database = self.open()
        self.database.commit(
            [Put(NETWORKS, (f"network-{number}", '{"parent":"eth0"}')) for number in range(5)]
        )
        self.database.commit(
            [Put(ADDRESSES, ("pool", f"10.0.0.{number}", "endpoint")) for number in range(9)]
        )
        self.database.commit([Put(ENDPOINTS, ("endpoint", '{"link":"mvt0"}'))])
        self.contents = contents(self.database)

    def told(self, directory: Path, *words: str) -> str:
        """Opening fails twice: nothing was repaired silently."""
        for _ in range(2):
            with self.assertRaises(StateError) as caught:
                opened(directory)
        for word in (str(directory), *words):
            self.assertIn(word, str(caught.exception))
        return str(caught.exception)


class LossTests(DamageTestCase):
    def test_missing_database_is_refused(self) -> None:
        self.database.close()
        self.database_path.unlink()
        self.told(self.directory, "is gone", "generation 3")

    def test_empty_database_is_refused(self) -> None:
        self.database.close()
        self.database_path.write_bytes(b"")
        self.told(self.directory, "generation")

    def test_truncated_write_ahead_log_is_refused(self) -> None:
        whole = self.after_kill()
        log = (whole / (DATABASE_NAME + "-wal")).read_bytes()
        self.assertGreater(len(log), 1000)
        for kept in (len(log) - 1, len(log) - 4000, len(log) // 2, 40, 1, 0):
            cut = self.make_directory() / "cut"
            shutil.copytree(whole, cut)
            (cut / (DATABASE_NAME + "-wal")).write_bytes(log[:kept])
            self.told(cut, "generation")

    def test_older_copy_is_refused(self) -> None:
        older = self.after_kill()
        self.database.commit([Put(NETWORKS, ("network-6", "{}"))])
        newer = self.after_kill()
        shutil.copy(newer / WITNESS_NAME, older / WITNESS_NAME)
        self.told(older, "generation 3", "4 was committed", "older copy")

    def test_missing_generation_file_is_harmless(self) -> None:
        """A backup of the database alone can be restored."""
        self.database.close()
        (self.directory / WITNESS_NAME).unlink()
        self.assertEqual(contents(self.open()), self.contents)

    def test_lagging_generation_file_is_harmless(self) -> None:
        older = (self.directory / WITNESS_NAME).read_bytes()
        self.database.commit([Put(NETWORKS, ("network-6", "{}"))])
        killed = self.after_kill()
        (killed / WITNESS_NAME).write_bytes(older)
        self.assertEqual(len(self.open(killed).rows(NETWORKS)), 6)

    def test_kill_before_the_first_commit_is_no_damage(self) -> None:
        fresh = self.make_directory()
        (fresh / WITNESS_NAME).touch()
        (fresh / DATABASE_NAME).touch()
        self.assertEqual(self.open(fresh).generation, 0)


class ChangeTests(DamageTestCase):
    def test_damaged_generation_file_is_refused(self) -> None:
        self.database.close()
        path = self.directory / WITNESS_NAME
        whole = path.read_bytes()
        for raw in (
            whole[:-1],
            whole + b"x",
            bytes([whole[0] ^ 1]) + whole[1:],
            whole[:-1] + b"\xff",
            whole * 999,
        ):
            path.write_bytes(raw)
            self.told(self.directory, WITNESS_NAME, "damaged")

    def test_row_changed_by_hand_is_refused(self) -> None:
        connection = self.connection_of(self.database)
        for statement in (
            "DELETE FROM networks WHERE id = 'network-1'",
            "UPDATE networks SET document = '{}' WHERE id = 'network-1'",
            "INSERT INTO endpoints SELECT * FROM networks",
            "UPDATE addresses SET purpose = x'00ff'",
            "UPDATE networks SET document = 7 WHERE id = 'network-1'",
            "DELETE FROM ledger",
            "UPDATE ledger SET row_count = 0",
            "UPDATE ledger SET digest = 'x'",
            "UPDATE ledger SET generation = 0",
            "UPDATE ledger SET generation = 'x'",
            "DROP TABLE networks",
            "DROP TABLE ledger",
        ):
            connection.execute("BEGIN")
            connection.execute(statement)
            connection.execute("COMMIT")
            copy = self.after_kill()
            with self.assertRaises(StateError, msg=statement):
                opened(copy)
            # The next statement is tried on whole state.
            self.database.close()
            self.directory = self.make_directory()
            self.setUp()
            connection = self.connection_of(self.database)

    def test_any_changed_byte_is_reported_or_harmless(self) -> None:
        """Some bytes have no meaning; but a database that opens holds all commits."""
        self.database.close()
        raw = self.database_path.read_bytes()
        used = [place for place in range(len(raw)) if raw[place]]
        self.assertGreater(len(used), 500)
        told = 0
        for place in used[::7]:
            self.database_path.write_bytes(
                raw[:place] + bytes([raw[place] ^ (1 << place % 8)]) + raw[place + 1 :]
            )
            try:
                database = opened(self.directory)
            except StateError:
                told += 1
                continue
            try:
                self.assertEqual(contents(database), self.contents, place)
            finally:
                database.close()
        self.assertGreater(told, len(used[::7]) // 3)
