"""The state of a service that runs: it lets nobody else into its SQLite file, so a copy is read."""

import shutil
import sqlite3
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

FILES = ("state.sqlite", "state.sqlite-wal")
TRIES = 250
"""How often a copy is begun anew because the service wrote meanwhile, with a pause between."""


@contextmanager
def copied(directory: Path) -> Iterator[sqlite3.Connection | None]:
    """Open a copy of the state in that directory; there is none if there is no state.

    Files that are written to while they are copied would be a database that never was.
    """
    with tempfile.TemporaryDirectory(prefix="mt-state-") as name:
        for _ in range(TRIES):
            before = _seen(directory)
            try:
                for file in before:
                    shutil.copy(directory / file, name)
            except FileNotFoundError:
                pass
            if _seen(directory) == before:
                break
            for file in FILES:
                Path(name, file).unlink(missing_ok=True)
            time.sleep(0.02)
        else:
            raise TimeoutError(f"the service writes without a pause to {directory}")
        if not Path(name, FILES[0]).exists():
            yield None
            return
        with closing(sqlite3.connect(Path(name, FILES[0]))) as database:
            yield database


def _seen(directory: Path) -> dict[str, tuple[int, int, int]]:
    """What of each file changes with what is written to it."""
    found = {}
    for file in FILES:
        try:
            status = (directory / file).stat()
        except FileNotFoundError:
            continue
        found[file] = (status.st_ino, status.st_size, status.st_mtime_ns)
    return found
