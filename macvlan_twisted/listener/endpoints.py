"""
Server endpoints of Twisted: what their strings name, that they listen at once, and how that is ended.
"""

from __future__ import annotations

from typing import Any, cast

from twisted.internet.defer import maybeDeferred
from twisted.internet.endpoints import serverFromString
from twisted.internet.interfaces import IListeningPort
from twisted.logger import Logger
from twisted.python.failure import Failure

from ..errors import StartupError
from ..failpoints import Failpoint
from .systemd import handed_over

_log = Logger(namespace="macvlan_twisted")

_LISTEN = Failpoint("listener.socket.make", "the socket is made, and from now on calls come in")
_STOP = Failpoint("listener.socket.close", "the socket is closed: who dials gets no connection any more")

BACKLOG = 1024
"""Connections that may wait to be accepted; an engine that removes a hundred containers dials as often at once."""


def endpoint_of(reactor: Any, listen: str) -> Any:
    """
    :raises StartupError: Twisted does not know such an endpoint, or systemd has handed over no such socket.
    """
    try:
        return (handed_over if listen.startswith("systemd:") else serverFromString)(reactor, listen)
    except (LookupError, ValueError, TypeError, AttributeError) as error:  # as each kind of endpoint pleases
        hint = ": is this started by a socket unit of systemd?" if listen.startswith("systemd:") else ""
        raise StartupError(f"--listen {listen} is no endpoint to listen on ({error}){hint}") from error


_UNSAID = 0o10000
"""No mode of a socket, in the place of one that was not named."""


class Said:
    """Stands in for a reactor, to learn what an endpoint string says as Twisted reads it."""

    path: str
    mode: int | None
    backlog: int

    def listenUNIX(self, address: str, factory: Any, *, backlog: int, mode: int, wantPID: bool) -> None:
        """Twisted's lock file holds a pid, so that one of a dead process may block for ever: it is not wanted."""
        self.path, self.mode, self.backlog = address, mode if mode != _UNSAID else None, backlog


def read_unix(listen: str) -> Said:
    """
    What a ``unix:`` endpoint string says; a mode and a backlog that it does not name are ours.

    :raises StartupError: it is not well-formed.
    """
    said = Said()
    # Of two values by name the later one counts; a value by its position contradicts one by name.
    ours = f"unix:mode={_UNSAID:o}:backlog={BACKLOG}:{listen.removeprefix('unix:')}"
    try:
        endpoint = serverFromString(cast(Any, said), ours)
    except (TypeError, ValueError):  # told of the string as the user wrote it
        endpoint = endpoint_of(said, listen)
    endpoint.listen(cast(Any, None))
    if not said.path:
        raise StartupError(f"--listen {listen} is no endpoint to listen on: give a path, as unix:/run/x.sock")
    return said


def listening_port(endpoint: Any, site: Any, where: str) -> IListeningPort:
    outcome: list[Any] = []
    with _LISTEN:
        endpoint.listen(site).addBoth(outcome.append)
    if not outcome:
        raise StartupError(f"--listen {where} does not listen at once: give a unix, tcp or systemd endpoint")
    if isinstance(outcome[0], Failure):
        raise StartupError(f"cannot listen on {where}: {outcome[0].getErrorMessage()}")
    return cast(IListeningPort, outcome[0])


async def stopped(port: IListeningPort) -> None:
    try:
        with _STOP:
            await maybeDeferred(cast(Any, port).stopListening)
    except FileNotFoundError as error:  # Twisted removes the file
        _log.warn("somebody else has removed the socket {path}", path=error.filename)


def stop_in_background(port: IListeningPort) -> None:
    with _STOP:
        stopped = maybeDeferred(cast(Any, port).stopListening)
    stopped.addErrback(lambda failure: failure.trap(FileNotFoundError))  # we are about to remove it ourselves
    stopped.addErrback(lambda failure: _log.failure("stopping to listen failed", failure=failure))
