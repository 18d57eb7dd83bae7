"""A state directory whose files may be damaged: what is sound is opened, the rest is moved aside, never deleted."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from ..errors import StateFailed
from ..steps import Step
from .ledger import DATABASE_NAME, Change, Ledger
from .sqlite import StateIdentity, identity_rows
from .witness import WITNESS_NAME, RuntimeWitness

_MARK = Step("state.recovery.mark", "it is noted that state is being rebuilt")
_MOVE_ASIDE = Step("state.recovery.aside", "what is damaged is moved into a directory beside it")
_UNMARK = Step("state.recovery.unmark", "state is rebuilt, and the note of it removed")

UNFINISHED_NAME = "recovering"
"""The file that is there while state is rebuilt: what is found beside it after a kill is not whole."""
FILE_NAMES = (DATABASE_NAME, f"{DATABASE_NAME}-wal", f"{DATABASE_NAME}-shm", WITNESS_NAME)


class Recovering:
    """From the beginning to the end of a ``with`` block; while it lasts, a start without it is refused."""

    def __init__(self, directory: Path, outside: RuntimeWitness) -> None:
        self._directory = directory
        self._outside = outside
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

    def opened(self) -> tuple[Ledger | None, str]:
        """
        The state if it is sound; else ``None``, and what is wrong with it.
        """
        if self._was_unfinished:
            return None, "an earlier --recover was not finished"
        if not any((self._directory / name).exists() for name in FILE_NAMES):
            return None, "it was gone"
        try:
            ledger = Ledger(self._directory)
        except StateFailed as failure:
            return None, str(failure)
        if not ledger.instance:
            ledger.close()
            return None, "it was empty"
        return ledger, ""

    def begun_anew(self, identity: StateIdentity, changes: Sequence[Change]) -> tuple[Path | None, Ledger]:
        """
        A new state with *identity* and *changes* in one commit.

        :return: where the files that were there are now, if there were any.
        """
        with _MARK:
            self._mark.touch(mode=0o600)
        aside = self._moved_aside()
        ledger = Ledger(self._directory)
        self.complete(ledger, [*identity_rows(identity), *changes])
        return aside, ledger

    def complete(self, ledger: Ledger, changes: Sequence[Change]) -> None:
        """
        Commit *changes* under a generation that none before can have reached: so an older copy, put back one day, is
        known to be older.
        """
        ledger.generation = max(ledger.generation, time.time_ns() // 1000)
        try:
            ledger.commit(changes)
        except BaseException:
            ledger.close()
            raise
        ledger.be_witnessed(self._outside)

    def _moved_aside(self) -> Path | None:
        present = [name for name in FILE_NAMES if (self._directory / name).exists()]
        if not present:
            return None
        stamp = time.strftime("%Y%m%dT%H%M%S", time.gmtime())
        aside = self._directory / f"damaged-{stamp}-{os.getpid()}"
        with _MOVE_ASIDE:
            aside.mkdir(mode=0o700)
            for name in present:
                os.rename(self._directory / name, aside / name)
        return aside


def refuse_unfinished(directory: Path) -> None:
    """
    :raises StateFailed: a kill ended an earlier recovery half-way.
    """
    mark = directory / UNFINISHED_NAME
    if mark.exists():
        raise StateFailed(f"rebuilding the state in {directory} was begun and not finished")
