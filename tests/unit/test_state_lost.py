"""A state directory that is missing, outdated or foreign is refused; damaged state is moved aside, never deleted."""

from __future__ import annotations

import os
import shutil
import sqlite3
from functools import partial
from pathlib import Path
from zlib import crc32

from macvlan_twisted.errors import StateError
from macvlan_twisted.state.damage import DamageRecovery, is_damage, refuse_unfinished
from macvlan_twisted.state.database import DATABASE_NAME, NETWORKS, Database, Drop, Put
from macvlan_twisted.state.generation import WITNESS_NAME, RuntimeGeneration
from macvlan_twisted.state.sqlite import StateIdentity, open_database

from .database_cases import LedgerTestCase, contents, opened

IDENTITY = StateIdentity("0123abcd", 70000)


class LostStateTestCase(LedgerTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.directory = self.make_directory() / "state"
        self.directory.mkdir()
        self.runtime = self.make_directory() / "run"
        self.commit("network")

    def commit(self, *keys: str, directory: Path | None = None) -> None:
        """Open the state, save a row in each commit, and close it."""
        database = self.begin(directory)
        for key in keys:
            database.commit([Put(NETWORKS, (key, "{}"))])
        database.close()

    def outside(self, directory: Path | None = None) -> RuntimeGeneration:
        return RuntimeGeneration(self.runtime, directory or self.directory)

    def begin(self, directory: Path | None = None) -> Database:
        database = open_database(directory or self.directory, self.outside(directory))
        self.addCleanup(database.close)
        return database

    def copy_of_state(self) -> Path:
        copy = self.make_directory() / "copy"
        shutil.copytree(self.directory, copy)
        return copy

    def replace_by(self, copy: Path | None) -> None:
        shutil.rmtree(self.directory)
        if copy is None:
            self.directory.mkdir()
        else:
            shutil.copytree(copy, self.directory)

    def assert_refused(self, *words: str) -> None:
        """Twice: a failed attempt must not repair anything."""
        for _ in range(2):
            with self.assertRaises(StateError) as caught:
                self.begin()
            for word in (str(self.directory), *words):
                self.assertIn(word, str(caught.exception))
            self.assertTrue(is_damage(caught.exception))


class RuntimeNoteTests(LostStateTestCase):
    def test_a_start_without_the_noted_files_is_refused(self) -> None:
        self.replace_by(None)
        self.assert_refused("is gone", "with 1 records")

    def test_an_older_copy_of_the_directory_is_refused(self) -> None:
        older = self.copy_of_state()
        self.commit("another")
        self.replace_by(older)
        self.assert_refused("an older copy")

    def test_a_directory_from_elsewhere_is_refused(self) -> None:
        elsewhere = self.make_directory()
        self.begin(elsewhere).close()
        self.replace_by(elsewhere)
        self.assert_refused("another directory")

    def test_an_empty_state_may_be_lost(self) -> None:
        database = self.begin()
        database.commit([Drop(NETWORKS, ("network",))])
        database.close()
        self.replace_by(None)
        self.begin()

    def test_a_boot_forgets_the_note(self) -> None:
        shutil.rmtree(self.runtime)
        self.replace_by(None)
        self.begin()

    def test_two_states_on_one_host_have_separate_notes(self) -> None:
        other = self.make_directory()
        self.commit("network", directory=other)
        self.begin().close()
        self.begin(other).close()
        self.assertEqual(len(list(self.runtime.iterdir())), 2)

    def test_a_note_that_cannot_be_written_is_no_error(self) -> None:
        self.runtime = self.make_directory() / "file"
        self.runtime.touch()
        self.commit("another")
        self.begin()

    def test_a_damaged_note_is_ignored(self) -> None:
        for path in self.runtime.iterdir():
            path.write_bytes(b"x" * 100)
        self.begin()

    def test_a_note_is_readable_by_its_owner_only(self) -> None:
        (noted,) = self.runtime.iterdir()
        for path in (self.runtime, noted):
            self.assertEqual(os.stat(path).st_mode & 0o077, 0, path)

    def test_a_note_is_not_written_through_a_symlink(self) -> None:
        (noted,) = self.runtime.iterdir()
        precious = self.make_directory() / "precious"
        precious.write_text("precious")
        (self.runtime / f".{noted.name}").symlink_to(precious)
        self.begin()
        self.assertEqual(precious.read_text(), "precious")
        self.assertFalse(noted.is_symlink())


class ForeignDatabaseTests(LostStateTestCase):
    def test_the_database_of_another_directory_is_refused(self) -> None:
        elsewhere = self.make_directory()
        self.commit(*map(str, range(9)), directory=elsewhere)
        shutil.copy(elsewhere / DATABASE_NAME, self.directory / DATABASE_NAME)
        shutil.rmtree(self.runtime)
        self.assert_refused("another directory")

    def test_a_write_ahead_log_without_its_database_is_refused(self) -> None:
        database = self.begin()
        killed = self.copy_of_state()
        database.close()
        (killed / DATABASE_NAME).unlink()
        (killed / WITNESS_NAME).unlink()
        with self.assertRaisesRegex(StateError, "write-ahead log"):
            opened(killed)

    def test_the_generation_file_of_an_earlier_version_is_read(self) -> None:
        number = (2).to_bytes(8)
        path = self.directory / WITNESS_NAME
        path.write_bytes(number + crc32(number).to_bytes(4))
        self.begin().close()
        number = (99).to_bytes(8)
        path.write_bytes(number + crc32(number).to_bytes(4))
        with self.assertRaisesRegex(StateError, "99 was committed"):
            opened(self.directory)


class DamageRecoveryTests(LostStateTestCase):
    def test_damaged_state_is_moved_aside_with_all_files(self) -> None:
        raw = bytearray(self.database_path.read_bytes())
        raw[raw.rindex(b"network{}")] ^= 1
        self.database_path.write_bytes(raw)
        with DamageRecovery(self.directory, self.outside()) as recovery:
            opened, damage = recovery.opened(contents)
            self.assertIsNone(opened)
            self.assertIn("damaged", damage)
            aside, database = recovery.begun_anew(IDENTITY, [Put(NETWORKS, ("again", "{}"))])
            database.close()
        assert aside is not None
        self.assertEqual((aside / DATABASE_NAME).stat().st_size, len(raw))
        self.assertTrue((aside / WITNESS_NAME).exists())
        again = self.begin()
        self.assertEqual([row[0] for row in again.rows(NETWORKS)], ["again"])
        self.assertEqual(again.instance, IDENTITY.instance)

    def test_sound_state_is_completed_in_place(self) -> None:
        with DamageRecovery(self.directory, self.outside()) as recovery:
            opened, damage = recovery.opened(contents)
            assert opened is not None
            self.assertEqual(damage, "")
            recovery.complete(opened[0], [Put(NETWORKS, ("more", "{}"))])
            opened[0].close()
        self.assertEqual(len(self.begin().rows(NETWORKS)), 2)

    def test_a_copy_from_before_the_rebuild_is_refused(self) -> None:
        self.commit(*map(str, range(50)))
        copy = self.copy_of_state()
        self.replace_by(None)
        with DamageRecovery(self.directory, self.outside()) as recovery:
            recovery.begun_anew(IDENTITY, [Put(NETWORKS, ("again", "{}"))])[1].close()
        self.replace_by(copy)
        self.assert_refused()

    def recover(self, at: float) -> None:
        """Rebuild the state at this time of day."""
        with DamageRecovery(self.directory, self.outside(), lambda: at) as recovery:
            opened, _ = recovery.opened(contents)
            self.assertIsNone(opened)
            recovery.begun_anew(IDENTITY, [Put(NETWORKS, ("again", "{}"))])[1].close()

    def test_copies_are_refused_after_a_clock_went_back(self) -> None:
        """A recovery of an earlier time of day must have a higher generation than what it replaces."""
        self.replace_by(None)
        self.recover(at=2e9)
        self.commit(*map(str, range(50)))
        copy = self.copy_of_state()
        self.replace_by(None)
        self.recover(at=1e9)
        self.replace_by(copy)
        self.assert_refused("older copy")

    def test_generations_of_former_files_count_in_a_recovery(self) -> None:
        """The host was booted since the damage, so nothing outside of the directory shows the last generation."""
        self.replace_by(None)
        self.recover(at=2e9)
        self.commit(*map(str, range(50)))
        copy = self.copy_of_state()
        for at in (1e9, 0.9e9):
            self.database_path.write_bytes(b"x" * 4096)
            shutil.rmtree(self.runtime)
            self.recover(at)
        (self.directory / WITNESS_NAME).unlink()
        self.database_path.unlink()
        shutil.rmtree(self.runtime)
        self.recover(at=0.8e9)
        self.replace_by(copy)
        self.assert_refused("older copy")

    def test_a_killed_recovery_must_be_run_again(self) -> None:
        class Killed(Exception):
            pass

        with self.assertRaises(Killed), DamageRecovery(self.directory, self.outside()) as recovery:
            recovery._mark.touch()
            recovery._moved_aside()
            raise Killed
        with self.assertRaisesRegex(StateError, "was interrupted"):
            refuse_unfinished(self.directory)
        with DamageRecovery(self.directory, self.outside()) as recovery:
            self.assertEqual(recovery.opened(contents), (None, "an earlier --recover was not finished"))
            recovery.begun_anew(IDENTITY, [])[1].close()
        refuse_unfinished(self.directory)

    def test_a_database_in_use_is_not_moved_aside(self) -> None:
        other = self.begin()
        self.patch(sqlite3, "connect", partial(sqlite3.connect, timeout=0))
        with self.assertRaises(StateError), DamageRecovery(self.directory, self.outside()) as recovery:
            recovery.opened(contents)
        self.assertTrue(self.database_path.exists())
        other.close()
