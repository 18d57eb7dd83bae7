"""The state directory: ours alone, or the start is refused."""

from __future__ import annotations

import os
from pathlib import Path
from unittest import mock

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from macvlan_twisted.errors import StartupError
from macvlan_twisted.state.directory import prepare_directory
from macvlan_twisted.state.owner import Owner

from .helpers import fresh_directory


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


class DirectoryTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.top = fresh_directory(self)
        self.state = self.top / "lib" / "of ours" / "state"

    def _refused(self) -> str:
        with self.assertRaises(StartupError) as caught:
            prepare_directory(self.state)
        return str(caught.exception)

    def test_umask_does_not_open_it_or_what_is_above_it(self) -> None:
        before = os.umask(0)
        self.addCleanup(os.umask, before)
        prepare_directory(self.state)
        self.assertEqual(mode(self.state), 0o700)
        self.assertEqual([mode(each) for each in (self.state.parent, self.state.parent.parent)], [0o755] * 2)

    def test_empty_directory_that_was_open_is_closed(self) -> None:
        self.state.mkdir(parents=True)
        self.state.chmod(0o777)
        prepare_directory(self.state)
        self.assertEqual(mode(self.state), 0o700)

    def test_existing_state_is_accepted(self) -> None:
        for _ in range(2):
            prepare_directory(self.state)
            (self.state / "state.sqlite").touch(mode=0o600)

    def test_directory_of_another_user_is_refused(self) -> None:
        prepare_directory(self.state)
        with mock.patch("os.geteuid", return_value=4711):
            told = self._refused()
        self.assertIn(f"state directory {self.state} belongs to ", told)
        self.assertIn("but the plugin runs as user 4711", told)
        self.assertIn("--state-dir", told)

    def test_link_to_a_file_is_refused(self) -> None:
        prepare_directory(self.state)
        (self.state / "lock").symlink_to(self.top / "passwd")
        self.assertIn(f"{self.state / 'lock'} is a symbolic link", self._refused())
        self.assertFalse((self.top / "passwd").exists())

    def test_file_of_another_user_is_refused(self) -> None:
        if os.geteuid() != 0:
            raise SkipTest("only root gives files away")
        prepare_directory(self.state)
        database = self.state / "state.sqlite"
        database.touch()
        os.chown(database, 4711, -1)
        self.assertIn(f"{database} belongs to user 4711", self._refused())

    def test_shared_directory_is_refused_and_stays_open(self) -> None:
        shared = 0o1777
        self.state.mkdir(parents=True)
        self.state.chmod(shared)
        self.assertIn("is shared by all users (mode 1777)", self._refused())
        (self.state / "state.sqlite").touch()
        self._refused()
        self.assertEqual(self.state.stat().st_mode & 0o7777, shared)

    def test_open_directory_with_other_files_is_refused_and_stays_open(self) -> None:
        self.state.mkdir(parents=True)
        for name in ("state.sqlite", "notes"):
            (self.state / name).touch()
        self.state.chmod(0o755)
        told = self._refused()
        self.assertIn(
            "is accessible to other users (mode 0755) and contains notes, which is not a file of", told
        )
        self.assertIn(f"chmod 700 {self.state}", told)
        self.assertEqual(mode(self.state), 0o755)
        self.state.chmod(0o700)
        prepare_directory(self.state)

    def test_open_directory_with_a_foreign_owners_file_stays_open(self) -> None:
        if os.geteuid() != 0:
            raise SkipTest("only root gives files away")
        self.state.mkdir(parents=True)
        (self.state / "state.sqlite").touch()
        os.chown(self.state / "state.sqlite", 4711, -1)
        self.state.chmod(0o777)
        self._refused()
        self.assertEqual(mode(self.state), 0o777)

    def test_open_directory_with_a_state_is_closed(self) -> None:
        self.state.mkdir(parents=True)
        for name in ("state.sqlite", "state.sqlite-wal", "generation", "lock", "recovering"):
            (self.state / name).touch()
        (self.state / "damaged-20261101T000000-7").mkdir()
        self.state.chmod(0o755)
        prepare_directory(self.state)
        self.assertEqual(mode(self.state), 0o700)

    def test_file_that_vanishes_meanwhile_is_ignored(self) -> None:
        prepare_directory(self.state)
        (self.state / "lock").touch()
        with mock.patch("pathlib.Path.lstat", side_effect=FileNotFoundError):
            prepare_directory(self.state)

    def test_acting_as_owner_has_the_owners_rights_only(self) -> None:
        if os.geteuid() != 0:
            raise SkipTest("only root can be somebody else")
        place = self.top
        place.chmod(0o711)
        state = place / "theirs"
        state.mkdir(0o700)
        os.chown(state, 4711, 4712)
        before = os.getgroups()
        self.addCleanup(os.setgroups, before)
        os.setgroups([0, 4])
        with Owner.of(state).acting():
            (state / "lock").touch()
            self.assertEqual(os.getgroups(), [])
        self.assertEqual(os.getgroups(), [0, 4])
        made = (state / "lock").stat()
        self.assertEqual((made.st_uid, made.st_gid), (4711, 4712))
        self.assertEqual((os.geteuid(), os.getegid()), (0, 0))
