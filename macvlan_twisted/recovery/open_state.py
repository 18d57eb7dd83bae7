"""Open the state for a start of the service, or say what to do about state that cannot be used."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..config import Config
from ..errors import StartupError, StateError
from ..netlink.kernel import Kernel
from ..state.damage import is_damage, is_in_use, refuse_unfinished
from ..state.database import Database
from ..state.generation import RuntimeGeneration
from ..state.sqlite import open_database
from .link_evidence import warn_of_other_instances
from .rebuild import recover_state


@contextmanager
def open_state(config: Config, kernel: Kernel) -> Iterator[Database]:
    """
    Open the state, with ``--recover`` rebuilt. Blocks.

    A context manager for the code that reads it: the database stays open, unless that code raises.

    :raises StartupError: the state cannot be used, as found here or by that code (:exc:`StateError`).
    """
    directory = Path(config.state_dir)
    outside = RuntimeGeneration(Path(config.runtime_dir), directory)
    try:
        database = _open(config, kernel, directory, outside)
        try:
            if database.is_new:
                warn_of_other_instances(database.instance, kernel.links(), outside)
            yield database
        except BaseException:
            database.close()
            raise
    except StateError as failure:
        # Remedy: do what the message says; if state is damaged, restore a newer copy of the state directory if you have
        # one; otherwise start the plugin once with --recover.
        raise StartupError(f"state: {failure}{_advice(failure, directory)}") from failure


def _open(config: Config, kernel: Kernel, directory: Path, outside: RuntimeGeneration) -> Database:
    if config.recover:
        return recover_state(config, kernel, directory, outside)
    refuse_unfinished(directory)
    return open_database(directory, outside)


def _advice(failure: StateError, directory: Path) -> str:
    """The remedy for state that does not open: only damaged state is worth giving up."""
    if is_in_use(failure):
        return f": another program has the database in {directory} open: end it and start again"
    if not is_damage(failure):
        return ""
    return (
        ". With the engine running, start once with --recover: what the engine and the kernel know is kept. Or begin anew: "
        "remove this plugin's networks and their containers, run macvlan-twisted purge, and start again"
    )
