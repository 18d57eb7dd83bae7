"""The UNIX socket that the service creates: locked, in place of a stale one, owned by a group, and removed at the end."""

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
from .endpoints import BACKLOG, close_in_background, close_port, listening_port
from .file_lock import FileLock

_MAKE_DIRECTORY = Failpoint("listener.directory.make", "the directory of the socket is made if it is missing")
_CLEAR_STALE = Failpoint("listener.socket.clear", "a socket that nobody listens on is removed")
_CHANGE_GROUP = Failpoint("listener.socket.give", "the socket is given to the group of --socket-group")
_REPLACE_SOCKET = Failpoint(
    "listener.socket.replace", "a socket that nobody listens on is put in the place of ours"
)
_MAKE_DEAD = Failpoint("listener.dead_socket.make", "a socket that nobody listens on is made, beside ours")
_CLEAR_DEAD = Failpoint(
    "listener.dead_socket.clear", "such a socket that an earlier stop has left is removed"
)
_REMOVE_SOCKET = Failpoint("listener.socket.remove", "the socket's file is removed")


class SocketFile:
    """
    The file of a UNIX socket. :meth:`release` is also called after a failure.

    :param path: an absolute path.
    :param option: the option by which a user chooses another one.
    :param mode: ``None`` for 0600, or for 0660 with a group.
    :param group: the name of the group that owns the file.
    :param creates_directory: whether a missing directory is created.
    """

    def __init__(
        self,
        path: str,
        option: str,
        mode: int | None = None,
        group: str | None = None,
        creates_directory: bool = False,
    ) -> None:
        self.path = path
        self._option = option
        self._mode = mode if mode is not None else 0o600 if group is None else 0o660
        self._group = group
        self._creates_directory = creates_directory
        self._lock = FileLock(Path(path + ".lock"), f"socket {path}", option)
        self._file: os.stat_result | None = None

    @property
    def first_mode(self) -> int:
        """The mode with which the socket is made: private until the group owns it."""
        return self._mode if self._group is None else 0o600

    def prepare(self) -> None:
        """
        Make the directory, and look for the group.

        :raises StartupError: there is no such group. :raises OSError: the file system refuses.
        """
        if self._creates_directory:
            make_directory(Path(self.path).parent, 0o755, _MAKE_DIRECTORY)
        if self._group is not None:
            _group_id(self._group)

    def acquire(self) -> None:
        """
        Lock the path, and remove a stale socket.

        :raises StartupError: another process uses it. :raises OSError: the file system refuses.
        """
        self._lock.acquire()
        remove_stale_socket(self.path, self._option)

    def own(self) -> None:
        """
        The socket has been made: give it to the group, and remove it at the end.

        :raises StartupError: it cannot be given to the group.
        """
        self._file = os.lstat(self.path)
        if self._group is not None:
            self._change_group(self._group)

    def _change_group(self, group: str) -> None:
        try:
            with _CHANGE_GROUP:
                os.chown(self.path, -1, _group_id(group), follow_symlinks=False)
                os.chmod(self.path, self._mode)
        except OSError as error:
            raise StartupError(
                f"--socket-group {group}: cannot set the socket's group ({error.strerror}): run as "
                "root or as a member of it"
            ) from error

    def replace(self) -> None:
        """Put a socket on which nobody listens in its place."""
        if self._file is not None:
            with suppress(OSError):  # the file is gone, perhaps with its directory
                self._file = _put_dead_socket(self.path, self._file)

    def release(self) -> None:
        """Remove the file and the lock, as far as they exist and are ours."""
        if self._file is not None:
            with suppress(FileNotFoundError):
                if os.path.samestat(self._file, os.lstat(self.path)):
                    with _REMOVE_SOCKET:
                        os.unlink(self.path)
            self._file = None
        self._lock.release()


class UnixSocketListener:
    """
    A :class:`~macvlan_twisted.listener.listener.Listener` on a socket file.

    :param where: the place as the user knows it, for errors.
    :param backlog: how many connections may wait to be accepted.
    """

    def __init__(self, reactor: Any, file: SocketFile, where: str, backlog: int = BACKLOG) -> None:
        self._reactor = reactor
        self._file = file
        self._where = where
        self._backlog = backlog
        self._port: IListeningPort | None = None

    def acquire(self) -> None:
        self._file.prepare()
        try:
            self._file.acquire()
        except OSError as error:
            # Remedy: see the reason in the message, or choose another --listen or --plugin-dir.
            raise StartupError(f"cannot listen on {self._where}: {error.strerror}") from error

    def listen(self, site: Any) -> None:
        endpoint = UNIXServerEndpoint(
            self._reactor, self._file.path, backlog=self._backlog, mode=self._file.first_mode
        )
        self._port = listening_port(endpoint, site, self._where)
        self._file.own()

    async def stop_accepting(self) -> None:
        """
        Replace the file by a socket on which nobody listens.

        An engine that gets "connection refused" repeats its call, with the body. Our own socket has no name any more, and
        goes on to accept the connections that wait.
        """
        self._file.replace()

    async def stop_listening(self) -> None:
        port, self._port = self._port, None
        if port is not None:
            await close_port(port)

    def release(self) -> None:
        port, self._port = self._port, None
        if port is not None:  # the start has failed
            close_in_background(port)
        self._file.release()


def _group_id(group: str) -> int:
    """
    The number of a group.

    :raises StartupError: there is no such group.
    """
    try:
        return grp.getgrnam(group).gr_gid
    except KeyError:
        raise StartupError(
            f"--socket-group {group}: there is no such group: create it (groupadd --system {group}), or choose another"
        ) from None


def remove_stale_socket(path: str, option: str) -> None:
    """
    Remove a socket on which nobody listens. The caller holds the lock, so no other instance listens there.

    :param option: the option by which a user chooses another socket.
    :raises StartupError: another program listens there, or the file is no socket.
    """
    try:
        kind = os.lstat(path).st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(kind):
        raise StartupError(f"{path} exists and is not a socket: remove it")
    with socket.socket(socket.AF_UNIX) as probe:
        probe.setblocking(False)  # connect() blocks while the backlog is full
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            with _CLEAR_STALE:
                os.unlink(path)
            return
        except FileNotFoundError:
            return
        except OSError:  # another socket type, no permission, or a full backlog: somebody may listen
            pass
    raise StartupError(f"another program is listening on {path}: stop it, or choose another {option}")


def _put_dead_socket(path: str, ours: os.stat_result) -> os.stat_result:
    """
    Replace *path* by a socket on which nobody listens.

    :param ours: the status of our socket. A file of somebody else stays.
    :return: the status of the file that :meth:`SocketFile.release` removes.
    """
    if not os.path.samestat(ours, os.lstat(path)):
        return ours
    beside = path + ".closing"
    with suppress(FileNotFoundError), _CLEAR_DEAD:
        os.unlink(beside)
    with socket.socket(socket.AF_UNIX) as dead, _MAKE_DEAD:
        dead.bind(beside)
        os.chmod(beside, stat.S_IMODE(ours.st_mode))
    with _REPLACE_SOCKET:
        os.rename(beside, path)
    return os.lstat(path)
