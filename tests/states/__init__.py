"""States that earlier revisions wrote: one of each format that there has been (see README.rst)."""

import json
import sqlite3
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
NAMES = tuple(sorted(path.name for path in HERE.iterdir() if (path / "state.sql").exists()))
"""In the order in which the formats came."""


def restore(name: str, directory: Path) -> None:
    """Make a state directory of what the revision left."""
    directory.mkdir(parents=True, exist_ok=True)
    directory.chmod(0o700)
    with closing(sqlite3.connect(directory / "state.sqlite")) as database:
        database.executescript((HERE / name / "state.sql").read_text(encoding="utf-8"))
    (directory / "generation").write_bytes(bytes.fromhex((HERE / name / "generation.hex").read_text()))


def contents(name: str) -> Mapping[str, Any]:
    """What an engine knows of the networks and endpoints in it, and the kernel of their links."""
    found: Mapping[str, Any] = json.loads((HERE / name / "contents.json").read_text(encoding="utf-8"))
    return found


def dump(directory: Path) -> str:
    """A database as SQL, with the version of its format."""
    with closing(sqlite3.connect(directory / "state.sqlite")) as database:
        (version,) = database.execute("PRAGMA user_version").fetchone()
        return "\n".join((*database.iterdump(), f"PRAGMA user_version = {version};", ""))
