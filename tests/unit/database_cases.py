"""Temporary state directories."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from macvlan_twisted.state.database import DATABASE_NAME, TABLES, Database

from .helpers import fresh_directory


def opened(directory: Path) -> Database:
    database = Database(directory)
    database.open()
    return database


def contents(database: Database) -> dict[str, set[tuple[str, ...]]]:
    return {table.name: set(database.rows(table)) for table in TABLES}


class LedgerTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.directory = self.make_directory()

    def make_directory(self) -> Path:
        return fresh_directory(self)

    def open(self, directory: Path | None = None) -> Database:
        database = opened(directory or self.directory)
        self.addCleanup(database.close)
        return database

    def after_kill(self) -> Path:
        """A copy of the files as they are after a kill."""
        copy = self.make_directory() / "copy"
        shutil.copytree(self.directory, copy)
        return copy

    @property
    def database_path(self) -> Path:
        return self.directory / DATABASE_NAME

    @staticmethod
    def connection_of(database: Database) -> Any:
        return vars(database)["_database"]
