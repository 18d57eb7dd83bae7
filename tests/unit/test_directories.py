"""The state directory: ours alone, or the start is refused."""

from __future__ import annotations

import os
from pathlib import Path
from unittest import mock

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from macvlan_twisted.errors import StartupError
from macvlan_twisted.state.directory import as_owner_of, prepare_directory

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

    def test_a_umask_opens_it_or_what_is_above_it(self) -> None:
        before = os.umask(0)
        self.addCleanup(os.umask, before)
        prepare_directory(self.state)
        self.assertEqual(mode(self.state), 0o700)
        self.assertEqual([mode(each) for each in (self.state.parent, self.state.parent.parent)], [0o755] * 2)

    def test_a_directory_that_was_open_stays_open(self) -> None:
        self.state.mkdir(parents=True)
        self.state.chmod(0o777)
        prepare_directory(self.state)
        self.assertEqual(mode(self.state), 0o700)

    def test_what_is_there_already_does_not_start(self) -> None:
        for _ in range(2):
            prepare_directory(self.state)
            (self.state / "state.sqlite").touch(mode=0o600)

    def test_somebody_elses_directory_is_used(self) -> None:
        prepare_directory(self.state)
        with mock.patch("os.geteuid", return_value=4711):
            told = self._refused()
        self.assertIn(f"state directory {self.state} belongs to ", told)
        self.assertIn("this runs as user 4711", told)
        self.assertIn("--state-dir", told)

    def test_a_link_to_a_file_is_written_through(self) -> None:
        prepare_directory(self.state)
        (self.state / "lock").symlink_to(self.top / "passwd")
        self.assertIn(f"{self.state / 'lock'} is a link", self._refused())
        self.assertFalse((self.top / "passwd").exists())

    def test_somebody_elses_file_is_trusted(self) -> None:
        if os.geteuid() != 0:
            raise SkipTest("only root gives files away")
        prepare_directory(self.state)
        database = self.state / "state.sqlite"
        database.touch()
        os.chown(database, 4711, -1)
        self.assertIn(f"{database} belongs to user 4711", self._refused())

    def test_what_goes_at_this_moment_keeps_it_from_starting(self) -> None:
        prepare_directory(self.state)
        (self.state / "lock").touch()
        with mock.patch("pathlib.Path.lstat", side_effect=FileNotFoundError):
            prepare_directory(self.state)

    def test_what_root_makes_in_somebodys_directory_is_roots(self) -> None:
        if os.geteuid() != 0:
            raise SkipTest("only root can be somebody else")
        place = self.top
        place.chmod(0o711)
        state = place / "theirs"
        state.mkdir(0o700)
        os.chown(state, 4711, 4712)
        with as_owner_of(state):
            (state / "lock").touch()
        made = (state / "lock").stat()
        self.assertEqual((made.st_uid, made.st_gid), (4711, 4712))
        self.assertEqual((os.geteuid(), os.getegid()), (0, 0))
