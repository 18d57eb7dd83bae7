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
        if is_in_use(failure):
            raise StartupError(
                f"state: {failure}: another program has the database in {directory} open: stop that program, then start the plugin again"
            ) from failure
        if is_damage(failure):  # only damaged state is worth giving up
            # Remedy: see the reason in the message. If you have an intact, up-to-date copy of the state directory, restore
            # it; otherwise start the plugin once with --recover.
            raise StartupError(
                f"state: {failure}: start once with --recover while the engine is running, which recovers what the engine and "
                "the kernel know; or begin anew: remove the plugin's networks and their containers, run macvlan-twisted "
                "purge, and start again"
            ) from failure
        # Remedy: see the reason in the message. If the state is damaged and you have an intact, up-to-date copy of the state
        # directory, restore it; otherwise start the plugin once with --recover.
        raise StartupError(f"state: {failure}") from failure


def _open(config: Config, kernel: Kernel, directory: Path, outside: RuntimeGeneration) -> Database:
    if config.recover:
        return recover_state(config, kernel, directory, outside)
    refuse_unfinished(directory)
    return open_database(directory, outside)
