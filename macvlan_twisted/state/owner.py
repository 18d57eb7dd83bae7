"""Work on files that belong to another user, for commands that root runs: what is there was perhaps put there for root."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from attrs import frozen


@frozen
class Owner:
    """The user whose files root works on, and the group of these files."""

    user: int
    group: int

    @classmethod
    def of(cls, path: Path) -> Owner:
        """
        :raises OSError: *path* cannot be looked at.
        """
        it = path.stat()
        return cls(it.st_uid, it.st_gid)

    @contextmanager
    def acting(self) -> Iterator[None]:
        """
        Let root work with this user's rights, and with no others.

        A file of root in this user's directory would prevent the user's service from starting, and root must not open what
        the user put there with its own rights. Somebody else than root goes on as he is.
        """
        us = Owner(os.geteuid(), os.getegid())
        if us.user != 0 or self.user == 0:
            yield
            return
        groups = os.getgroups()
        os.setgroups([])
        os.setegid(self.group)
        os.seteuid(self.user)
        try:
            yield
        finally:
            os.seteuid(us.user)
            os.setegid(us.group)
            os.setgroups(groups)


ROOT = Owner(0, 0)


def is_roots_alone(path: Path) -> bool:
    """Whether nobody but root can put something else in the place of *path*, which may be missing."""
    for above in path.parents:
        it = above.lstat()
        if it.st_uid != 0 or not stat.S_ISDIR(it.st_mode) or it.st_mode & 0o022:
            return False
    return True


def read_small_file(path: Path, limit: int) -> tuple[bytes, Owner]:
    """
    Read a file that somebody else may have put there: no link is followed, and no FIFO is waited for.

    :param limit: in bytes.
    :return: the contents, and whose file it is.
    :raises OSError: it cannot be opened.
    :raises ValueError: it is not a regular file, or larger than *limit*.
    """
    file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        it = os.fstat(file)
        if not stat.S_ISREG(it.st_mode) or it.st_size > limit:
            raise ValueError(f"{path} is no regular file of at most {limit} bytes")
        return os.read(file, limit), Owner(it.st_uid, it.st_gid)
    finally:
        os.close(file)
