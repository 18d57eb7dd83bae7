"""What a lab that was killed has left behind, and its removal by the next one.

Each lab holds a lock on a file that carries its tag, and the kernel drops the lock with the process. A file
that nobody has locked is that of a dead lab. Engines and plugins die with their lab without our help;
namespaces, directories and control groups stay. Nothing is touched that does not carry a dead lab's tag.
"""

import fcntl
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.lab import cgroups
from tests.lab.commands import attempt

LOCKS = Path("/run/macvlan-twisted-lab")


@contextmanager
def claimed(tag: str) -> Iterator[None]:
    """Keep others from taking what carries this tag for a leftover."""
    LOCKS.mkdir(exist_ok=True)
    path = LOCKS / tag
    unlocked = LOCKS / f"new-{tag}"  # a name that sweep() does not look for: it would take the lock before us
    with unlocked.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        unlocked.rename(path)
        try:
            yield
        finally:
            path.unlink()


def sweep() -> None:
    """Remove what dead labs have left."""
    for path in LOCKS.glob("mtl-*"):
        try:
            with path.open() as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                _remove(path.name)
                path.unlink()
        except (BlockingIOError, FileNotFoundError):
            continue  # its lab lives, or has just ended


def _remove(tag: str) -> None:
    for namespace in Path("/run/netns").glob(f"{tag}-*"):
        attempt("ip", "netns", "delete", namespace.name)
    for directory in Path(tempfile.gettempdir()).glob(f"{tag}-*"):
        cgroups.remove(directory.name)
        shutil.rmtree(directory)
