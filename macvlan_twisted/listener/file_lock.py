"""Locks that keep two instances from sharing a state directory or a socket."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from ..errors import StartupError
from ..failpoints import Failpoint

_MAKE_LOCK = Failpoint(
    "listener.lock.make", "a file is made under which a lock is held, of the state or of the socket"
)
_REMOVE_LOCK = Failpoint("listener.lock.remove", "the file of a lock is removed")


class FileLock:
    """
    A file locked by flock(2). The kernel unlocks it when the process ends, so a killed process blocks nobody.

    :param resource: what the lock protects, for the error.
    :param option: the option by which a user chooses another one.
    """

    def __init__(self, path: Path, resource: str, option: str) -> None:
        self._path = path
        self._resource = resource
        self._option = option
        self._file: int | None = None

    def acquire(self) -> None:
        """
        :raises StartupError: another process holds the lock.
        :raises OSError: the file cannot be created.
        """
        while self._file is None:
            with _MAKE_LOCK:
                file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(file)
                raise StartupError(
                    f"another macvlan-twisted is using {self._resource}: stop it, or choose another {self._option}"
                ) from None
            try:
                if os.path.samestat(os.fstat(file), os.stat(self._path)):
                    self._file = file
                    return
            except FileNotFoundError:
                pass
            os.close(file)  # the last holder has removed the file

    def release(self) -> None:
        """Remove the file, if the lock is held."""
        file, self._file = self._file, None
        if file is not None:
            with _REMOVE_LOCK:
                self._path.unlink(missing_ok=True)
            os.close(file)
