"""Creation of directories, and the private state directory."""

from __future__ import annotations

import os
import pwd
import stat
from pathlib import Path

from ..errors import StartupError
from ..failpoints import Failpoint
from .damage import FILE_NAMES, UNFINISHED_NAME
from .database import DATABASE_NAME

_MAKE_DIRECTORY = Failpoint(
    "state.directory.make", "the state directory is made if it is missing, with what is above it"
)
_CLOSE_DIRECTORY = Failpoint(
    "state.directory.close", "the state directory is closed to others, if it was not"
)

LOCK_NAME = "lock"
"""The file in a state directory that the service locks."""
_STATE_NAMES = frozenset({*FILE_NAMES, f"{DATABASE_NAME}-journal", UNFINISHED_NAME, LOCK_NAME})


def make_directory(directory: Path, mode: int, step: Failpoint) -> None:
    """Create a directory if it is missing, and its parents, which others may not write to, whatever the umask."""
    with step:
        for above in reversed(directory.parents):
            above.mkdir(mode=0o755, exist_ok=True)
        directory.mkdir(mode=mode, exist_ok=True)


def prepare_directory(directory: Path) -> None:
    """
    Create the state directory if it is missing, and make sure that nobody else can have put files into it.

    What is there is checked first, and closed to others only if it is empty or holds nothing but files of a state.

    :raises StartupError: another user owns it, or a file in it, or it is shared with others. Nothing was changed.
    """
    make_directory(directory, 0o700, _MAKE_DIRECTORY)
    us = os.geteuid()
    found = directory.stat()
    if found.st_uid != us:
        raise StartupError(
            f"state directory {directory} belongs to {_user(found.st_uid)}, but the plugin runs as {_user(us)}: run it as "
            f"{_user(found.st_uid)}, or choose another --state-dir"
        )
    mode = stat.S_IMODE(found.st_mode)
    if mode & stat.S_ISVTX:
        raise StartupError(
            f"state directory {directory} is shared by all users (mode {mode:04o}): choose another --state-dir"
        )
    names = _refuse_files_of_others(directory, us)
    if mode & 0o077:
        entry = next((name for name in names if not _is_of_a_state(name)), None)
        if entry is not None:
            raise StartupError(
                f"state directory {directory} is accessible to other users (mode {mode:04o}) and contains {entry}, which "
                f"is not a file of the plugin: choose another --state-dir, or restrict it with chmod 700 {directory}"
            )
    with _CLOSE_DIRECTORY:
        os.chmod(directory, 0o700)
    _refuse_files_of_others(directory, us)  # what came before it was closed


def _refuse_files_of_others(directory: Path, us: int) -> list[str]:
    """
    :return: the names in *directory*, sorted.
    :raises StartupError: one of them is a link, or belongs to another user than *us*.
    """
    names = []
    for entry in sorted(directory.iterdir()):
        try:
            it = entry.lstat()
        except FileNotFoundError:  # of a service that is ending; its lock is tried later
            continue
        if stat.S_ISLNK(it.st_mode):
            raise StartupError(
                f"{entry} is a symbolic link, but the state directory must not contain one: find out who put it there, and "
                "remove it; or choose another --state-dir"
            )
        if it.st_uid != us:
            owner = _user(us)
            raise StartupError(
                f"{entry} belongs to {_user(it.st_uid)}, but files in the state directory must belong to {owner}: find "
                f"out who put it there, and remove it or change its owner to {owner}; or choose another --state-dir"
            )
        names.append(entry.name)
    return names


def _is_of_a_state(name: str) -> bool:
    return name in _STATE_NAMES or name.startswith("damaged-")


def _user(user: int) -> str:
    try:
        return pwd.getpwuid(user).pw_name
    except KeyError:
        return f"user {user}"
