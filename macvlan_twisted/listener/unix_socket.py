"""A UNIX socket of our own: locked, made in the place of one that is dead, given to a group, and removed at the end."""

from __future__ import annotations

import grp
import os
import socket
import stat
from contextlib import suppress
from pathlib import Path
from typing import Any

from twisted.internet.endpoints import UNIXServerEndpoint
from twisted.internet.interfaces import IListeningPort

from ..errors import StartupError
from ..failpoints import Failpoint
from ..state.directory import make_directory
from .endpoints import BACKLOG, listening_port, stop_in_background, stopped
from .file_lock import FileLock

_MAKE_PLACE = Failpoint("listener.directory.make", "the directory of the socket is made if it is missing")
_CLEAR_PLACE = Failpoint("listener.socket.clear", "a socket that nobody listens on is removed")
_GIVE_TO_GROUP = Failpoint("listener.socket.give", "the socket is given to the group of --socket-group")
_TURN_AWAY = Failpoint(
    "listener.socket.replace", "a socket that nobody listens on is put in the place of ours"
)
_MAKE_DEAD = Failpoint("listener.dead_socket.make", "a socket that nobody listens on is made, beside ours")
_CLEAR_DEAD = Failpoint(
    "listener.dead_socket.clear", "such a socket that an earlier stop has left is removed"
)
_REMOVE_SOCKET = Failpoint("listener.socket.remove", "the socket's file is removed")


class UnixSocketListener:
    """
    A UNIX socket of our own: locked, put in the place of a stale one, removed at the end.

    :param where: how the user named it.
    :param option: with which option.
    :param mode: its mode; None for 0600, or 0660 if it is a group's.
    :param group: the group that it is given to.
    :param made_in: whether its directory is made if it is missing.
    """

    def __init__(
        self,
        reactor: Any,
        path: str,
        where: str,
        option: str,
        mode: int | None = None,
        backlog: int = BACKLOG,
        *,
        group: str | None = None,
        made_in: bool = False,
    ) -> None:
        self._path = path = os.path.abspath(path)
        self._where = where
        self._option = option
        self._made_in = made_in
        self._group = group
        self._mode = mode if mode is not None else 0o600 if group is None else 0o660
        # It is nobody else's until it is the group's.
        self._endpoint = UNIXServerEndpoint(
            reactor, path, backlog=backlog, mode=self._mode if group is None else 0o600
        )
        self._lock = FileLock(Path(path + ".lock"), f"socket {path}", option)
        self._port: IListeningPort | None = None
        self._file: os.stat_result | None = None

    def take(self) -> None:
        if self._made_in:
            make_directory(Path(self._path).parent, 0o755, _MAKE_PLACE)
        if self._group is not None:
            _group_id(self._group)
        try:
            self._lock.acquire()
            remove_stale_socket(self._path, self._option)
        except OSError as error:
            raise StartupError(f"cannot listen on {self._where}: {error.strerror}") from error

    def listen(self, site: Any) -> None:
        self._port = listening_port(self._endpoint, site, self._where)
        self._file = os.lstat(self._path)
        if self._group is not None:
            self._give_to_group(self._group)

    def _give_to_group(self, group: str) -> None:
        try:
            with _GIVE_TO_GROUP:
                os.chown(self._path, -1, _group_id(group), follow_symlinks=False)
                os.chmod(self._path, self._mode)
        except OSError as error:
            raise StartupError(
                f"--socket-group {group}: the socket cannot be given to that group ({error.strerror}): run as root or as a "
                "member of it"
            ) from error

    async def stop_accepting(self) -> None:
        """
        Put a socket on which nobody listens in the place of ours.

        Such a one makes an engine try again, with its call intact. Our own socket goes on to listen, without a
        name, for those who have dialled it already.
        """
        if self._file is not None:
            with suppress(OSError):  # it was removed, perhaps with its directory
                self._file = _put_dead_socket(self._path, self._file)

    async def stop_listening(self) -> None:
        port, self._port = self._port, None
        if port is not None:
            await stopped(port)

    def release(self) -> None:
        port, self._port = self._port, None
        if port is not None:  # the start failed after it
            stop_in_background(port)
        if self._file is not None:
            with suppress(FileNotFoundError):
                if os.path.samestat(self._file, os.lstat(self._path)):
                    with _REMOVE_SOCKET:
                        os.unlink(self._path)
            self._file = None
        self._lock.release()


def _group_id(group: str) -> int:
    """
    :raises StartupError: there is no such group.
    """
    try:
        return grp.getgrnam(group).gr_gid
    except KeyError:
        raise StartupError(
            f"--socket-group {group}: there is no such group: make it (groupadd --system {group}), or choose another"
        ) from None


def remove_stale_socket(path: str, option: str) -> None:
    """
    Make room for our socket. The lock is ours, so no other instance of ours is listening there.

    :param option: what a user sets to have another socket.
    :raises StartupError: something is there that is not ours to remove.
    """
    try:
        kind = os.lstat(path).st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(kind):
        raise StartupError(f"{path} exists and is no socket: remove it")
    with socket.socket(socket.AF_UNIX) as probe:
        probe.setblocking(False)  # where more wait than may, who comes next would wait, too
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            with _CLEAR_PLACE:
                os.unlink(path)
            return
        except FileNotFoundError:
            return
        except OSError:  # of another kind, not for us, or all places taken: somebody may be there
            pass
    raise StartupError(f"another program is listening on {path}: stop it, or choose another {option}")


def _put_dead_socket(path: str, ours: os.stat_result) -> os.stat_result:
    """Put a socket on which nobody listens in the place of ours; it is removed like that one."""
    if not os.path.samestat(ours, os.lstat(path)):
        return ours
    beside = path + ".closing"
    with suppress(FileNotFoundError), _CLEAR_DEAD:
        os.unlink(beside)
    with socket.socket(socket.AF_UNIX) as nobody, _MAKE_DEAD:
        nobody.bind(beside)
        os.chmod(beside, stat.S_IMODE(ours.st_mode))
    with _TURN_AWAY:
        os.rename(beside, path)
    return os.lstat(path)
