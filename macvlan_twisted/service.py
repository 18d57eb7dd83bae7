"""
Life: lock, open state, reconcile, listen ... stop listening, drain, close.

All of the start happens at once in ``startService``, so that a failure is known there and then.
"""

from __future__ import annotations

import fcntl
import os
import socket
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any, Protocol, cast

from twisted.application.service import Service
from twisted.internet.defer import Deferred, ensureDeferred, maybeDeferred
from twisted.internet.endpoints import UNIXServerEndpoint, serverFromString
from twisted.internet.interfaces import IListeningPort
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure

from .errors import CannotStart, MacvlanError

_log = Logger(namespace="macvlan_twisted")

BACKLOG = 1024
"""Connections that may wait to be accepted; an engine that removes a hundred containers dials as often at once."""
QUIET_BEFORE_CLOSING = 0.1
"""Seconds without a call after which, at the end, the engine's idle connections are closed."""


class Lock:
    """
    A file under flock: held by a process, not by a pid, so a killed one leaves nothing that blocks.

    :raises CannotStart: another process holds it.
    """

    def __init__(self, path: Path, what: str) -> None:
        self._path = path
        while True:
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(self._file)
                raise CannotStart(f"another macvlan-twisted is using {what}") from None
            try:
                if os.path.samestat(os.fstat(self._file), os.stat(path)):
                    return
            except FileNotFoundError:
                pass
            os.close(self._file)  # its last holder removed it just now

    def release(self) -> None:
        self._path.unlink(missing_ok=True)
        os.close(self._file)


def remove_stale_socket(path: str) -> None:
    """
    Make room for our socket. The lock is ours, so no other instance of ours is listening there.

    :raises CannotStart: something is there that is not ours to remove.
    """
    try:
        kind = os.lstat(path).st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(kind):
        raise CannotStart(f"{path} exists and is no socket: remove it")
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(path)
        except OSError:
            os.unlink(path)
        else:
            raise CannotStart(f"another program is listening on {path}")


class Parts(Protocol):
    """What :mod:`macvlan_twisted.tap` wires together once the state directory is ours."""

    site: Any
    calls: Any

    def listening(self) -> None:
        """Called once the service answers: work on threads and in the background may begin."""

    def stop_background(self) -> None:
        """Called first of all when the service stops."""

    async def close(self) -> None:
        """Called when the last call has been answered."""


class MacvlanService(Service):
    """
    The whole plugin as one Twisted service.

    :param open_parts: opens the state, reconciles and wires; blocks, and runs with the state's lock held.
    """

    def __init__(self, reactor: Any, settings: Any, open_parts: Callable[[], Parts]) -> None:
        self.name = "macvlan-twisted"
        self._reactor = reactor
        self._settings = settings
        self._open_parts = open_parts
        self._locks: list[Lock] = []
        self._parts: Parts | None = None
        self._port: IListeningPort | None = None
        self._socket: tuple[str, os.stat_result] | None = None

    def startService(self) -> None:
        """
        :raises CannotStart: and nothing of ours is left behind.
        """
        try:
            self._start()
        except CannotStart:
            self._release()
            raise
        except (MacvlanError, OSError) as error:
            self._release()
            raise CannotStart(_one_line(error)) from error
        super().startService()

    def _start(self) -> None:
        settings = self._settings
        state_dir = Path(settings.state_dir)
        state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._locks.append(Lock(state_dir / "lock", f"state directory {state_dir}"))
        if settings.listen is None:
            os.makedirs(settings.plugin_dir, mode=0o755, exist_ok=True)
            path = settings.socket_path
            self._locks.append(Lock(Path(path + ".lock"), f"socket {path}"))
            remove_stale_socket(path)
        self._parts = self._open_parts()
        self._listen(self._parts.site)
        self._parts.listening()

    def _listen(self, site: Any) -> None:
        listen = self._settings.listen
        path = self._settings.socket_path
        endpoint = (
            _endpoint(self._reactor, listen)
            if listen is not None
            else UNIXServerEndpoint(self._reactor, path, backlog=BACKLOG, mode=0o600)
        )
        outcome: list[Any] = []
        endpoint.listen(site).addBoth(outcome.append)
        if not outcome:
            raise CannotStart(
                f"--listen {listen} does not listen at once: give a unix, tcp or systemd endpoint"
            )
        if isinstance(outcome[0], Failure):
            raise CannotStart(f"cannot listen on {listen or path}: {outcome[0].getErrorMessage()}")
        self._port = outcome[0]
        if listen is None:
            self._socket = (path, os.lstat(path))
        _log.info("listening on {where}", where=listen or path)

    def stopService(self) -> Deferred[None]:
        """Stop accepting, finish and answer what has started, remove the socket."""
        super().stopService()
        stopped = ensureDeferred(self._stop())
        stopped.addErrback(lambda failure: _log.failure("stopping failed", failure=failure))
        return stopped

    async def _stop(self) -> None:
        parts, self._parts = self._parts, None
        port, self._port = self._port, None
        if parts is not None:
            parts.stop_background()
            parts.calls.closing = True
        try:
            if self._socket is None and port is not None:
                await self._stop_listening(port)
            if parts is not None:
                await self._hear_out(parts)
            if self._socket is not None and port is not None:
                await self._stop_listening(port)
            if parts is not None:
                parts.site.close_connections()
        finally:
            try:
                if parts is not None:
                    await parts.close()  # or its threads would keep the process alive
            finally:
                self._release()
        _log.info("stopped")

    async def _stop_listening(self, port: IListeningPort) -> None:
        systemds = (self._settings.listen or "").startswith("systemd:")
        with _kept(_file_of(port)) if systemds else nullcontext():
            try:
                await maybeDeferred(cast(Any, port).stopListening)
            except FileNotFoundError as error:  # Twisted removes the file
                _log.warn("somebody else has removed the socket {path}", path=error.filename)

    async def _hear_out(self, parts: Parts) -> None:
        """
        Answer until nothing comes any more.

        A connection that ends without an answer costs the engine its call: it repeats it without the body, and
        gives up. A socket that nobody listens on makes it try again, with the call intact. So our socket gets
        such a one in its place, and what was dialled or sent before is answered. The engine sends its next call
        the moment it has an answer, over any connection that it keeps; but each answer asks for the end of its
        connection, so this ends soon.
        """
        if self._socket is not None:
            with suppress(OSError):  # it was removed, perhaps with its directory
                self._socket = _put_dead_socket(*self._socket)
        while True:
            answered = parts.calls.answered
            await deferLater(self._reactor, QUIET_BEFORE_CLOSING)
            await parts.calls.none_under_way()
            if parts.calls.answered == answered:
                return

    def _release(self) -> None:
        if self._socket is not None:
            path, ours = self._socket
            try:
                if os.path.samestat(ours, os.lstat(path)):
                    os.unlink(path)
            except FileNotFoundError:
                pass
            self._socket = None
        while self._locks:
            self._locks.pop().release()


def _endpoint(reactor: Any, listen: str) -> Any:
    """
    :raises CannotStart: Twisted does not know such an endpoint, or systemd has handed over no such socket.
    """
    try:
        return serverFromString(reactor, listen)
    except (LookupError, ValueError, TypeError, AttributeError) as error:  # as each kind of endpoint pleases
        hint = ": is this started by a socket unit of systemd?" if listen.startswith("systemd:") else ""
        raise CannotStart(f"--listen {listen} is no endpoint to listen on ({error}){hint}") from error


def _file_of(port: IListeningPort) -> str | None:
    """The path of a listening UNIX socket; None for sockets of other kinds, and those without a path."""
    name = getattr(cast(Any, port).getHost(), "name", None)
    return os.fsdecode(name) if name and name[:1] not in ("\0", b"\0") else None


@contextmanager
def _kept(path: str | None) -> Iterator[None]:
    """
    Put the file of a socket back after Twisted has removed it.

    A socket that systemd has handed over stays systemd's: it goes on to listen there, and starts us again when
    a call comes.
    """
    if path is None or not os.path.exists(path):
        yield
        return
    spare = f"{path}.kept"
    os.link(path, spare)
    try:
        yield
    finally:
        os.rename(spare, path)
        Path(spare).unlink(missing_ok=True)  # renaming does nothing where both are the same file still


def _put_dead_socket(path: str, ours: os.stat_result) -> tuple[str, os.stat_result]:
    """Put a socket on which nobody listens in the place of ours; it is removed like that one."""
    if not os.path.samestat(ours, os.lstat(path)):
        return path, ours
    beside = path + ".closing"
    with suppress(FileNotFoundError):
        os.unlink(beside)
    with socket.socket(socket.AF_UNIX) as nobody:
        nobody.bind(beside)
    os.rename(beside, path)
    return path, os.lstat(path)


def _one_line(error: BaseException) -> str:
    if isinstance(error, OSError):
        return f"{error.filename or ''}: {error.strerror}".removeprefix(": ")
    return str(error)
