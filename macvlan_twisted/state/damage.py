"""Recovery of damaged state: intact files are opened, damaged ones are moved aside, never deleted."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

from ..errors import NewerStateError, StateError
from ..failpoints import Failpoint
from .database import DATABASE_NAME, Change, Database
from .generation import WITNESS_NAME, GenerationFile, RuntimeGeneration
from .sqlite import StateIdentity, identity_rows

# Remedy of these errors: if you have an intact, up-to-date copy of the state directory, restore it; otherwise start the
# plugin once with --recover.

T = TypeVar("T")

_MARK = Failpoint("state.recovery.mark", "it is noted that state is being rebuilt")
_MOVE_ASIDE = Failpoint("state.recovery.aside", "what is damaged is moved into a directory beside it")
_UNMARK = Failpoint("state.recovery.unmark", "state is rebuilt, and the note of it removed")

UNFINISHED_NAME = "recovering"
"""Exists while state is rebuilt. After a kill it shows that the state beside it is incomplete."""
_ASIDE = "damaged-"
"""Begins the names of directories with files that were moved aside."""
FILE_NAMES = (DATABASE_NAME, f"{DATABASE_NAME}-wal", f"{DATABASE_NAME}-shm", WITNESS_NAME)


_NOT_THE_FILES_FAULT = frozenset(
    {
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_NOMEM,
        sqlite3.SQLITE_PERM,
        sqlite3.SQLITE_READONLY,
    }
)


def _sqlite_code(failure: StateError) -> int:
    cause = failure.__cause__
    if not isinstance(cause, sqlite3.Error):
        return sqlite3.SQLITE_OK
    return getattr(cause, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF


def is_in_use(failure: StateError) -> bool:
    """Whether another program has the database open."""
    return _sqlite_code(failure) in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


def is_damage(failure: StateError) -> bool:
    """
    Whether the files are damaged; false for errors of the disk, of permissions, or by another program, and for state of a
    later version.
    """
    if isinstance(failure, NewerStateError):
        return False
    is_others = isinstance(failure.__cause__, OSError) or _sqlite_code(failure) in _NOT_THE_FILES_FAULT
    return not is_others and not is_in_use(failure)


class DamageRecovery:
    """
    A ``with`` block that rebuilds state. If it does not end, later starts without ``--recover`` are refused.

    :param wall_time: the time of day, in seconds since 1970.
    """

    def __init__(
        self,
        directory: Path,
        outside: RuntimeGeneration,
        wall_time: Callable[[], float] = time.time,
    ) -> None:
        self._directory = directory
        self._outside = outside
        self._wall_time = wall_time
        self._mark = directory / UNFINISHED_NAME

    def __enter__(self) -> Self:
        self._was_unfinished = self._mark.exists()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            with _UNMARK:
                self._mark.unlink(missing_ok=True)

    def opened(self, read: Callable[[Database], T]) -> tuple[tuple[Database, T] | None, str]:
        """
        Open the state.

        :return: the database with the result of *read*; else ``None`` and the reason why it is not intact.
        :raises StateError: it cannot be opened, for a reason other than damage.
        """
        if self._was_unfinished:
            return None, "an earlier --recover was not finished"
        if not any((self._directory / name).exists() for name in FILE_NAMES):
            return None, "it was gone"
        database = Database(self._directory)
        try:
            database.open()
        except StateError as failure:
            if not is_damage(failure):
                raise
            return None, str(failure)
        reason = "it was empty"
        try:
            if database.instance:
                return (database, read(database)), ""
        except StateError as failure:
            reason = str(failure)
        database.close()
        return None, reason

    def begun_anew(self, identity: StateIdentity, changes: Sequence[Change]) -> tuple[Path | None, Database]:
        """
        Create a new state with *identity* and *changes* in one commit.

        :return: the directory to which former files were moved, if there were any, and the database.
        """
        with _MARK:
            self._mark.touch(mode=0o600)
        aside = self._moved_aside()
        database = Database(self._directory)
        database.open()
        self.complete(database, [*identity_rows(identity), *changes])
        return aside, database

    def complete(self, database: Database, changes: Sequence[Change]) -> None:
        """
        Commit *changes* with a generation higher than any before, so that an older copy, restored one day, is recognised.
        """
        database.generation = max(database.generation, self._highest_recorded(), int(self._wall_time() * 1e6))
        try:
            database.commit(changes)
        except BaseException:
            database.close()
            raise
        database.repeat_generation(self._outside)

    def _highest_recorded(self) -> int:
        """
        The highest generation in the files beside present and former databases, and outside.

        The time of day alone would do, for commits are rarer than microseconds. But it may have been set back since an earlier
        recovery.
        """
        found = [each.generation for each in self._outside.all()]
        for place in (self._directory, *self._directory.glob(f"{_ASIDE}*")):
            with suppress(StateError, OSError):
                recorded = GenerationFile(place / WITNESS_NAME).read()
                found.append(0 if recorded is None else recorded.generation)
        return max(found, default=0)

    def _moved_aside(self) -> Path | None:
        present = [name for name in FILE_NAMES if (self._directory / name).exists()]
        if not present:
            return None
        stamp = time.strftime("%Y%m%dT%H%M%S", time.gmtime(self._wall_time()))
        aside = self._directory / f"{_ASIDE}{stamp}-{os.getpid()}"
        with _MOVE_ASIDE:
            aside.mkdir(mode=0o700)
            for name in present:
                os.rename(self._directory / name, aside / name)
        return aside


def refuse_unfinished(directory: Path) -> None:
    """
    :raises StateError: an earlier recovery was killed.
    """
    mark = directory / UNFINISHED_NAME
    if mark.exists():
        raise StateError(f"rebuilding the state in {directory} was interrupted")
