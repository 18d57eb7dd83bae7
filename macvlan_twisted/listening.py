"""
Where the service listens, and the locks that keep two instances apart.

A place is either a UNIX socket of our own, which we lock, make and remove, or whatever else a server endpoint
string of Twisted names, of which only the listening is ours.
"""

from __future__ import annotations

import fcntl
import grp
import os
import socket
import stat
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol, cast

from twisted.internet.defer import maybeDeferred
from twisted.internet.endpoints import UNIXServerEndpoint, serverFromString
from twisted.internet.interfaces import IListeningPort
from twisted.logger import Logger
from twisted.python.failure import Failure

from .directories import make_directory
from .errors import CannotStart
from .handed_over import handed_over
from .settings import Settings
from .steps import Step

_log = Logger(namespace="macvlan_twisted")

_MAKE_LOCK = Step(
    "listening.lock.make", "a file is made under which a lock is held, of the state or of the socket"
)
_REMOVE_LOCK = Step("listening.lock.remove", "the file of a lock is removed")
_MAKE_PLACE = Step("listening.directory.make", "the directory of the socket is made if it is missing")
_CLEAR_PLACE = Step("listening.socket.clear", "a socket that nobody listens on is removed")
_LISTEN = Step("listening.socket.make", "the socket is made, and from now on calls come in")
_GIVE_TO_GROUP = Step("listening.socket.give", "the socket is given to the group of --socket-group")
_TURN_AWAY = Step("listening.socket.replace", "a socket that nobody listens on is put in the place of ours")
_MAKE_DEAD = Step("listening.dead_socket.make", "a socket that nobody listens on is made, beside ours")
_CLEAR_DEAD = Step("listening.dead_socket.clear", "such a socket that an earlier stop has left is removed")
_STOP = Step("listening.socket.close", "the socket is closed: who dials gets no connection any more")
_REMOVE_SOCKET = Step("listening.socket.remove", "the socket's file is removed")

BACKLOG = 1024
"""Connections that may wait to be accepted; an engine that removes a hundred containers dials as often at once."""


class Lock:
    """
    A file under flock: held by a process, not by a pid, so a killed one leaves nothing that blocks.

    :param what: the thing that two instances must not share.
    :param option: what a user sets to have another one.
    :raises CannotStart: another process holds it.
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
                raise CannotStart(
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


class Place(Protocol):
    """A place to listen on; its functions are called in this order, :meth:`release` also after a failure."""

    def take(self) -> None:
        """
        Make sure that it is ours. Blocks.

        :raises CannotStart: it is somebody else's.
        """

    def listen(self, site: Any) -> None:
        """
        :raises CannotStart: and nobody listens.
        """

    async def stop_accepting(self) -> None:
        """Let nobody in who dials from now on. Who has dialled before is still to be answered."""

    async def stop_listening(self) -> None:
        """Let nobody in any more."""

    def release(self) -> None:
        """Leave nothing of ours behind, whatever was reached. May be called twice."""


def place_to_listen(reactor: Any, settings: Settings) -> Place:
    """
    The place that the settings name; nothing is touched yet.

    :raises CannotStart: ``--listen`` names none.
    """
    group = settings.socket_group
    if settings.listen is None:
        path = settings.socket_path
        return OwnSocket(reactor, path, path, "--plugin-name", group=group, made_in=True)
    if settings.listen.startswith("unix:"):
        said = _read_unix(settings.listen)
        if not said.path.startswith("\0"):  # a socket without a file needs no lock and cannot be stale
            return OwnSocket(
                reactor, said.path, settings.listen, "--listen", said.mode, said.backlog, group=group
            )
    if group is not None:
        raise CannotStart(
            f"--socket-group {group} is for a socket that the service makes, and --listen {settings.listen} names another: "
            "leave it out; a socket unit of systemd's has SocketGroup="
        )
    return OtherEndpoint(settings.listen, _endpoint(reactor, settings.listen))


class OwnSocket:
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
        self._lock: Lock | None = None
        self._port: IListeningPort | None = None
        self._file: os.stat_result | None = None

    def take(self) -> None:
        if self._made_in:
            make_directory(Path(self._path).parent, 0o755, _MAKE_PLACE)
        if self._group is not None:
            _group_id(self._group)
        try:
            self._lock = Lock(Path(self._path + ".lock"), f"socket {self._path}", self._option)
            remove_stale_socket(self._path, self._option)
        except OSError as error:
            raise CannotStart(f"cannot listen on {self._where}: {error.strerror}") from error

    def listen(self, site: Any) -> None:
        self._port = _listening_port(self._endpoint, site, self._where)
        self._file = os.lstat(self._path)
        if self._group is not None:
            self._give_to_group(self._group)

    def _give_to_group(self, group: str) -> None:
        try:
            with _GIVE_TO_GROUP:
                os.chown(self._path, -1, _group_id(group), follow_symlinks=False)
                os.chmod(self._path, self._mode)
        except OSError as error:
            raise CannotStart(
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
            await _stopped(port)

    def release(self) -> None:
        port, self._port = self._port, None
        if port is not None:  # the start failed after it
            _stop_in_background(port)
        if self._file is not None:
            with suppress(FileNotFoundError):
                if os.path.samestat(self._file, os.lstat(self._path)):
                    with _REMOVE_SOCKET:
                        os.unlink(self._path)
            self._file = None
        if self._lock is not None:
            self._lock.release()
            self._lock = None


class OtherEndpoint:
    """Any other endpoint: sockets of systemd's, which stay systemd's; TCP."""

    def __init__(self, listen: str, endpoint: Any) -> None:
        self._where = listen
        self._endpoint = endpoint
        self._port: IListeningPort | None = None

    def take(self) -> None:
        """Whether it is free is known when it listens."""

    def listen(self, site: Any) -> None:
        self._port = _listening_port(self._endpoint, site, self._where)

    async def stop_accepting(self) -> None:
        port, self._port = self._port, None
        if port is not None:
            await _stopped(port)

    async def stop_listening(self) -> None:
        """Done already."""

    def release(self) -> None:
        port, self._port = self._port, None
        if port is not None:
            _stop_in_background(port)


def _listening_port(endpoint: Any, site: Any, where: str) -> IListeningPort:
    outcome: list[Any] = []
    with _LISTEN:
        endpoint.listen(site).addBoth(outcome.append)
    if not outcome:
        raise CannotStart(f"--listen {where} does not listen at once: give a unix, tcp or systemd endpoint")
    if isinstance(outcome[0], Failure):
        raise CannotStart(f"cannot listen on {where}: {outcome[0].getErrorMessage()}")
    return cast(IListeningPort, outcome[0])


async def _stopped(port: IListeningPort) -> None:
    try:
        with _STOP:
            await maybeDeferred(cast(Any, port).stopListening)
    except FileNotFoundError as error:  # Twisted removes the file
        _log.warn("somebody else has removed the socket {path}", path=error.filename)


def _stop_in_background(port: IListeningPort) -> None:
    with _STOP:
        stopped = maybeDeferred(cast(Any, port).stopListening)
    stopped.addErrback(lambda failure: failure.trap(FileNotFoundError))  # we are about to remove it ourselves
    stopped.addErrback(lambda failure: _log.failure("stopping to listen failed", failure=failure))


def _group_id(group: str) -> int:
    """
    :raises CannotStart: there is no such group.
    """
    try:
        return grp.getgrnam(group).gr_gid
    except KeyError:
        raise CannotStart(
            f"--socket-group {group}: there is no such group: make it (groupadd --system {group}), or choose another"
        ) from None


def remove_stale_socket(path: str, option: str) -> None:
    """
    Make room for our socket. The lock is ours, so no other instance of ours is listening there.

    :param option: what a user sets to have another socket.
    :raises CannotStart: something is there that is not ours to remove.
    """
    try:
        kind = os.lstat(path).st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(kind):
        raise CannotStart(f"{path} exists and is no socket: remove it")
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
    raise CannotStart(f"another program is listening on {path}: stop it, or choose another {option}")


def _endpoint(reactor: Any, listen: str) -> Any:
    """
    :raises CannotStart: Twisted does not know such an endpoint, or systemd has handed over no such socket.
    """
    try:
        return (handed_over if listen.startswith("systemd:") else serverFromString)(reactor, listen)
    except (LookupError, ValueError, TypeError, AttributeError) as error:  # as each kind of endpoint pleases
        hint = ": is this started by a socket unit of systemd?" if listen.startswith("systemd:") else ""
        raise CannotStart(f"--listen {listen} is no endpoint to listen on ({error}){hint}") from error


_UNSAID = 0o10000
"""No mode of a socket, in the place of one that was not named."""


class _Said:
    """Stands in for a reactor, to learn what an endpoint string says as Twisted reads it."""

    path: str
    mode: int | None
    backlog: int

    def listenUNIX(self, address: str, factory: Any, *, backlog: int, mode: int, wantPID: bool) -> None:
        """Twisted's lock file holds a pid, so that one of a dead process may block for ever: it is not wanted."""
        self.path, self.mode, self.backlog = address, mode if mode != _UNSAID else None, backlog


def _read_unix(listen: str) -> _Said:
    """
    What a ``unix:`` endpoint string says; a mode and a backlog that it does not name are ours.

    :raises CannotStart: it is not well-formed.
    """
    said = _Said()
    # Of two values by name the later one counts; a value by its position contradicts one by name.
    ours = f"unix:mode={_UNSAID:o}:backlog={BACKLOG}:{listen.removeprefix('unix:')}"
    try:
        endpoint = serverFromString(cast(Any, said), ours)
    except (TypeError, ValueError):  # told of the string as the user wrote it
        endpoint = _endpoint(said, listen)
    endpoint.listen(cast(Any, None))
    if not said.path:
        raise CannotStart(f"--listen {listen} is no endpoint to listen on: give a path, as unix:/run/x.sock")
    return said


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
