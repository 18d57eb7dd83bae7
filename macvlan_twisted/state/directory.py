"""Creation of directories, and the private state directory."""

from __future__ import annotations

import os
import pwd
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..errors import StartupError
from ..failpoints import Failpoint

_MAKE_DIRECTORY = Failpoint(
    "state.directory.make", "the state directory is made if it is missing, with what is above it"
)
_CLOSE_DIRECTORY = Failpoint(
    "state.directory.close", "the state directory is closed to others, if it was not"
)


def make_directory(directory: Path, mode: int, step: Failpoint) -> None:
    """Create a directory if it is missing, and its parents, which others may not write to, whatever the umask."""
    with step:
        for above in reversed(directory.parents):
            above.mkdir(mode=0o755, exist_ok=True)
        directory.mkdir(mode=mode, exist_ok=True)


def prepare_directory(directory: Path) -> None:
    """
    Create the state directory if it is missing, and make sure that nobody else can have put files into it.

    :raises StartupError: another user owns it, or a file in it.
    """
    make_directory(directory, 0o700, _MAKE_DIRECTORY)
    us = os.geteuid()
    owner = directory.stat().st_uid
    if owner != us:
        raise StartupError(
            f"state directory {directory} belongs to {_name(owner)}, and this runs as {_name(us)}: run it as "
            f"{_name(owner)}, or choose another --state-dir"
        )
    with _CLOSE_DIRECTORY:
        os.chmod(directory, 0o700)
    for entry in directory.iterdir():
        try:
            it = entry.lstat()
        except FileNotFoundError:  # of a service that is ending; its lock is tried later
            continue
        if it.st_uid != us or stat.S_ISLNK(it.st_mode):
            what = "is a link" if stat.S_ISLNK(it.st_mode) else f"belongs to {_name(it.st_uid)}"
            raise StartupError(
                f"{entry} {what}, and what is in a state directory must be a file of {_name(us)}: find out who put it "
                "there, and remove it or give it to that user"
            )


@contextmanager
def as_owner_of(directory: Path) -> Iterator[None]:
    """
    Let root work as the directory's owner: a file of root that is left there would prevent the owner's service from
    starting, and root must not open what the owner put there with its own rights.
    """
    user, group = os.geteuid(), os.getegid()
    it = directory.stat()
    if user != 0 or it.st_uid == 0:
        yield
        return
    os.setegid(it.st_gid)
    os.seteuid(it.st_uid)
    try:
        yield
    finally:
        os.seteuid(user)
        os.setegid(group)


def _name(user: int) -> str:
    try:
        return pwd.getpwuid(user).pw_name
    except KeyError:
        return f"user {user}"
