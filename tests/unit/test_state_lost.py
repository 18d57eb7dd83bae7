"""A state directory that is gone, older or of elsewhere is told of; what is damaged is moved aside, never deleted."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from zlib import crc32

from macvlan_twisted.errors import StateError
from macvlan_twisted.state.damage import DamageRecovery, is_damage, refuse_unfinished
from macvlan_twisted.state.database import DATABASE_NAME, NETWORKS, Database, Drop, Put
from macvlan_twisted.state.generation import WITNESS_NAME, RuntimeGeneration
from macvlan_twisted.state.sqlite import StateIdentity, open_database

from .database_cases import LedgerTestCase, contents

IDENTITY = StateIdentity("0123abcd", 70000)


class LostTestCase(LedgerTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.directory = self.make_directory() / "state"
        self.directory.mkdir()
        self.runtime = self.make_directory() / "run"
        database = self.begin()
        database.commit([Put(NETWORKS, ("network", "{}"))])
        database.close()

    def outside(self, directory: Path | None = None) -> RuntimeGeneration:
        return RuntimeGeneration(self.runtime, directory or self.directory)

    def begin(self, directory: Path | None = None) -> Database:
        database = open_database(directory or self.directory, self.outside(directory))
        self.addCleanup(database.close)
        return database

    def copied(self) -> Path:
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
        """Also the second time: looking at it makes nothing good."""
        for _ in range(2):
            with self.assertRaises(StateError) as caught:
                self.begin()
            for word in (str(self.directory), *words):
                self.assertIn(word, str(caught.exception))
            self.assertTrue(is_damage(caught.exception))


class OutsideTests(LostTestCase):
    def test_all_files_are_gone(self) -> None:
        self.replace_by(None)
        self.assert_refused("is gone", "with 1 records")

    def test_the_directory_was_put_back_older(self) -> None:
        older = self.copied()
        database = self.begin()
        database.commit([Put(NETWORKS, ("another", "{}"))])
        database.close()
        self.replace_by(older)
        self.assert_refused("an older copy")

    def test_one_of_elsewhere_was_put_there(self) -> None:
        elsewhere = self.make_directory()
        self.begin(elsewhere).close()
        self.replace_by(elsewhere)
        self.assert_refused("another directory")

    def test_a_directory_that_held_nothing_is_not_missed(self) -> None:
        database = self.begin()
        database.commit([Drop(NETWORKS, ("network",))])
        database.close()
        self.replace_by(None)
        self.begin()

    def test_after_the_next_boot_nothing_is_known_of_it(self) -> None:
        shutil.rmtree(self.runtime)
        self.replace_by(None)
        self.begin()

    def test_two_states_on_one_host_do_not_disturb_each_other(self) -> None:
        other = self.make_directory()
        database = self.begin(other)
        database.commit([Put(NETWORKS, ("network", "{}"))])
        database.close()
        self.begin().close()
        self.begin(other).close()
        self.assertEqual(len(list(self.runtime.iterdir())), 2)

    def test_where_nothing_can_be_noted_nothing_fails(self) -> None:
        self.runtime = self.make_directory() / "file"
        self.runtime.touch()
        database = self.begin()
        database.commit([Put(NETWORKS, ("another", "{}"))])
        database.close()
        self.begin()

    def test_a_note_that_is_damaged_says_nothing(self) -> None:
        for path in self.runtime.iterdir():
            path.write_bytes(b"x" * 100)
        self.begin()

    def test_a_file_noted_for_one_state_is_for_root_alone(self) -> None:
        (noted,) = self.runtime.iterdir()
        for path in (self.runtime, noted):
            self.assertEqual(os.stat(path).st_mode & 0o077, 0, path)

    def test_a_note_is_written_into_what_somebody_linked_there(self) -> None:
        (noted,) = self.runtime.iterdir()
        precious = self.make_directory() / "precious"
        precious.write_text("precious")
        (self.runtime / f".{noted.name}").symlink_to(precious)
        self.begin()
        self.assertEqual(precious.read_text(), "precious")
        self.assertFalse(noted.is_symlink())


class DirectoryTests(LostTestCase):
    def test_a_database_of_another_directory(self) -> None:
        elsewhere = self.make_directory()
        database = self.begin(elsewhere)
        for number in range(9):
            database.commit([Put(NETWORKS, (f"n{number}", "{}"))])
        database.close()
        shutil.copy(elsewhere / DATABASE_NAME, self.directory / DATABASE_NAME)
        shutil.rmtree(self.runtime)
        self.assert_refused("another directory")

    def test_a_database_that_is_gone_while_its_log_is_there(self) -> None:
        database = self.begin()
        killed = self.copied()
        database.close()
        (killed / DATABASE_NAME).unlink()
        (killed / WITNESS_NAME).unlink()
        with self.assertRaisesRegex(StateError, "write-ahead log"):
            Database(killed)

    def test_a_witness_of_an_earlier_version_is_read(self) -> None:
        number = (2).to_bytes(8)
        path = self.directory / WITNESS_NAME
        path.write_bytes(number + crc32(number).to_bytes(4))
        self.begin().close()
        number = (99).to_bytes(8)
        path.write_bytes(number + crc32(number).to_bytes(4))
        with self.assertRaisesRegex(StateError, "99 was committed"):
            Database(self.directory)


class RecoveringTests(LostTestCase):
    def test_what_is_damaged_is_moved_aside_whole(self) -> None:
        raw = bytearray(self.database_path.read_bytes())
        raw[raw.rindex(b"network{}")] ^= 1
        self.database_path.write_bytes(raw)
        with DamageRecovery(self.directory, self.outside()) as recovering:
            opened, damage = recovering.opened(contents)
            self.assertIsNone(opened)
            self.assertIn("damaged", damage)
            aside, database = recovering.begun_anew(IDENTITY, [Put(NETWORKS, ("again", "{}"))])
            database.close()
        assert aside is not None
        self.assertEqual((aside / DATABASE_NAME).stat().st_size, len(raw))
        self.assertTrue((aside / WITNESS_NAME).exists())
        again = self.begin()
        self.assertEqual([row[0] for row in again.rows(NETWORKS)], ["again"])
        self.assertEqual(again.instance, IDENTITY.instance)

    def test_what_is_sound_is_used(self) -> None:
        with DamageRecovery(self.directory, self.outside()) as recovering:
            opened, damage = recovering.opened(contents)
            assert opened is not None
            self.assertEqual(damage, "")
            recovering.complete(opened[0], [Put(NETWORKS, ("more", "{}"))])
            opened[0].close()
        self.assertEqual(len(self.begin().rows(NETWORKS)), 2)

    def test_an_older_copy_from_before_is_older_however_many_commits_it_had(self) -> None:
        database = self.begin()
        for number in range(50):
            database.commit([Put(NETWORKS, (f"n{number}", "{}"))])
        database.close()
        copy = self.copied()
        self.replace_by(None)
        with DamageRecovery(self.directory, self.outside()) as recovering:
            recovering.begun_anew(IDENTITY, [Put(NETWORKS, ("again", "{}"))])[1].close()
        self.replace_by(copy)
        self.assert_refused()

    def test_a_kill_half_way_is_not_taken_for_an_empty_state(self) -> None:
        class Killed(Exception):
            pass

        with self.assertRaises(Killed), DamageRecovery(self.directory, self.outside()) as recovering:
            recovering._mark.touch()
            recovering._moved_aside()
            raise Killed
        with self.assertRaisesRegex(StateError, "not finished"):
            refuse_unfinished(self.directory)
        with DamageRecovery(self.directory, self.outside()) as recovering:
            self.assertEqual(recovering.opened(contents), (None, "an earlier --recover was not finished"))
            recovering.begun_anew(IDENTITY, [])[1].close()
        refuse_unfinished(self.directory)

    def test_a_database_that_another_program_has_open_is_not_moved_aside(self) -> None:
        other = self.begin()
        with self.assertRaises(StateError), DamageRecovery(self.directory, self.outside()) as recovering:
            recovering.opened(contents)
        self.assertTrue(self.database_path.exists())
        other.close()
