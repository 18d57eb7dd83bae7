"""The locks that keep two instances apart, of a state directory or of a socket."""

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
    A file under flock: held by a process, not by a pid, so a killed one leaves nothing that blocks.

    :param what: the thing that two instances must not share.
    :param option: what a user sets to have another one.
    :raises StartupError: another process holds it.
    """

    def __init__(self, path: Path, what: str, option: str) -> None:
        self._path = path
        while True:
            with _MAKE_LOCK:
                self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            try:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(self._file)
                raise StartupError(
                    f"another macvlan-twisted is using {what}: stop it, or choose another {option}"
                ) from None
            try:
                if os.path.samestat(os.fstat(self._file), os.stat(path)):
                    return
            except FileNotFoundError:
                pass
            os.close(self._file)  # its last holder removed it just now

    def release(self) -> None:
        with _REMOVE_LOCK:
            self._path.unlink(missing_ok=True)
        os.close(self._file)
