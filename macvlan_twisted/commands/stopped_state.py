"""The state of a service that does not run, for commands that read and change it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from attrs import evolve, frozen
from twisted.internet.defer import Deferred, succeed

from ..config import Config
from ..errors import RequestRefused
from ..fleet.rows import ClaimRows
from ..ipam.pool_registry import PoolRegistry
from ..listener.file_lock import FileLock
from ..netlink.kernel import Kernel
from ..recovery.open_state import open_state
from ..state.database import DATABASE_NAME, Change, Database
from ..state.directory import LOCK_NAME
from ..state.owner import Owner
from ..state.sqlite import SqliteAddressStore, SqliteHostRecords, identity_of


@frozen
class StoppedState:
    """The state of a service that does not run."""

    instance: str
    rows: ClaimRows
    pools: PoolRegistry


@contextmanager
def stopped_state(config: Config, kernel: Kernel) -> Iterator[StoppedState]:
    """
    Lock the state directory and open the state, with the rights of the service's user.

    :raises StartupError: the service is running, or the state cannot be used.
    :raises RequestRefused: there is no state.
    """
    directory = Path(config.state_dir)
    if not (directory / DATABASE_NAME).is_file():
        raise RequestRefused(f"there is no state in {directory}: set --state-dir to the plugin's")
    owner = Owner.of(directory)
    lock = FileLock(directory / LOCK_NAME, f"state directory {directory}", "--state-dir")

    def as_owner(work: Callable[[], None]) -> None:
        with owner.acting(), suppress(OSError):
            work()

    with ExitStack() as held:
        with owner.acting():
            lock.acquire()
            held.callback(as_owner, lock.release)
            with open_state(evolve(config, recover=False), kernel) as database:
                writer = _Writer(database, owner)
                records = SqliteHostRecords(database, writer, identity_of(database))
                rows, pools = ClaimRows(records), PoolRegistry(SqliteAddressStore(database, writer))
                rows.load()
                pools.load()
            held.callback(as_owner, database.close)
        yield StoppedState(records.instance, rows, pools)


@frozen
class _Writer:
    """Commits at once: a command has nothing else to do meanwhile."""

    database: Database
    owner: Owner

    def submit(self, changes: list[Change]) -> Deferred[None]:
        with self.owner.acting():
            self.database.commit(changes)
        return succeed(None)

    def close(self) -> None:
        """The database is closed by whoever opened it."""
