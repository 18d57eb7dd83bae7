"""The state, opened for a start: rebuilt if that is asked for, refused with what to do if it cannot be used."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .errors import CannotStart, StateFailed
from .links.interface import Kernel
from .recovery.rebuild import recover_state
from .recovery.traces import tell_of_others
from .settings import Settings
from .state.ledger import Ledger
from .state.recovering import is_damage, is_in_use, refuse_unfinished
from .state.sqlite import open_ledger
from .state.witness import RuntimeWitness


@contextmanager
def opened_state(settings: Settings, kernel: Kernel) -> Iterator[Ledger]:
    """
    For those who read it and go on with it: it stays open, unless they raise. Blocks.

    :raises CannotStart: it cannot be used, as was found here or by them.
    """
    directory = Path(settings.state_dir)
    outside = RuntimeWitness(Path(settings.runtime_dir), directory)
    try:
        ledger = _opened(settings, kernel, directory, outside)
        try:
            if ledger.is_new:
                tell_of_others(ledger.instance, kernel.links(), outside)
            yield ledger
        except BaseException:
            ledger.close()
            raise
    except StateFailed as failure:
        raise CannotStart(f"state: {failure}{_advice(failure, directory)}") from failure


def _opened(settings: Settings, kernel: Kernel, directory: Path, outside: RuntimeWitness) -> Ledger:
    if settings.recover:
        return recover_state(settings, kernel, directory, outside)
    refuse_unfinished(directory)
    return open_ledger(directory, outside)


def _advice(failure: StateFailed, directory: Path) -> str:
    """What to do about state that does not open: only what is damaged is to be given up."""
    if is_in_use(failure):
        return f": another program has the database in {directory} open: end it and start again"
    if not is_damage(failure):
        return ""
    return (
        ". With the engine running, start once with --recover: what the engine and the kernel know is kept. Or begin anew: "
        "remove this plugin's networks and their containers, run macvlan-twisted leave, and start again"
    )
