"""Endpoint strings of Twisted, and ports that listen at once."""

from __future__ import annotations

from typing import Any, cast

from twisted.internet.defer import maybeDeferred
from twisted.internet.endpoints import serverFromString
from twisted.internet.interfaces import IListeningPort
from twisted.logger import Logger
from twisted.python.failure import Failure

from ..errors import StartupError
from ..failpoints import Failpoint
from .systemd import inherited_endpoint

_log = Logger(namespace="macvlan_twisted")

_LISTEN = Failpoint("listener.socket.make", "the socket is made, and from now on calls come in")
_STOP = Failpoint("listener.socket.close", "the socket is closed: who dials gets no connection any more")

BACKLOG = 1024
"""Connections that may wait to be accepted. An engine that removes a hundred containers opens as many at once."""


def endpoint_of(reactor: Any, listen: str) -> Any:
    """
    The server endpoint that *listen* describes.

    :raises StartupError: Twisted has no such endpoint, or systemd has passed no such socket.
    """
    try:
        return (inherited_endpoint if listen.startswith("systemd:") else serverFromString)(reactor, listen)
    except (
        LookupError,
        ValueError,
        TypeError,
        AttributeError,
        ImportError,
    ) as error:  # each kind has its own
        hint = ": was the plugin started by a systemd socket unit?" if listen.startswith("systemd:") else ""
        # Remedy: specify an endpoint, for example unix:/run/x.sock; the message may say more.
        raise StartupError(f"--listen {listen} is not an endpoint to listen on ({error}){hint}") from error


_NO_MODE = 0o10000
"""Not a mode of a file: the default that tells that the string has none."""


class UnixEndpoint:
    """
    The values of a ``unix:`` endpoint string.

    It stands in for the reactor, so that Twisted parses the string and passes the values to it. ``lockfile`` is ignored:
    Twisted's lock file holds a pid, and blocks for ever when a later process has the pid of a killed one.
    """

    path: str
    mode: int | None
    backlog: int

    def listenUNIX(self, address: str, factory: Any, *, backlog: int, mode: int, wantPID: bool) -> None:
        self.path, self.mode, self.backlog = address, mode if mode != _NO_MODE else None, backlog


def parse_unix(listen: str) -> UnixEndpoint:
    """
    Parse a ``unix:`` endpoint string. The mode is ``None`` and the backlog is ours if it has none.

    :raises StartupError: the string is malformed.
    """
    parsed = UnixEndpoint()
    # Of two values of one name Twisted takes the later. Two arguments of which one is positional are an error.
    with_defaults = f"unix:mode={_NO_MODE:o}:backlog={BACKLOG}:{listen.removeprefix('unix:')}"
    try:
        endpoint = serverFromString(cast(Any, parsed), with_defaults)
    except (
        TypeError,
        ValueError,
    ):  # mode and backlog are positional, or the error is to show the user's string
        endpoint = endpoint_of(parsed, listen)
    endpoint.listen(cast(Any, None))
    if not parsed.path:
        raise StartupError(
            f"--listen {listen} is not an endpoint to listen on: specify an endpoint, for example unix:/run/x.sock"
        )
    return parsed


def listening_port(endpoint: Any, site: Any, where: str) -> IListeningPort:
    """
    Listen on *endpoint*.

    :param where: the endpoint as the user knows it, for errors.
    :raises StartupError: it does not listen.
    """
    outcome: list[Any] = []
    with _LISTEN:
        endpoint.listen(site).addBoth(outcome.append)
    if not outcome:
        raise StartupError(
            f"--listen {where}: this type of endpoint is not supported; use a unix, tcp or systemd endpoint"
        )
    if isinstance(outcome[0], Failure):
        # Remedy: see the reason in the message, or choose another --listen or --plugin-dir.
        raise StartupError(f"cannot listen on {where}: {outcome[0].getErrorMessage()}")
    return cast(IListeningPort, outcome[0])


async def close_port(port: IListeningPort) -> None:
    """Stop listening. A socket whose file is gone is logged."""
    try:
        with _STOP:
            await maybeDeferred(cast(Any, port).stopListening)
    except FileNotFoundError as error:  # Twisted removes the file
        # Cause: another program deleted the socket file, and calls since then did not reach the plugin; the plugin
        # notices it when it stops. Remedy: find that program; the plugin creates the socket again at its next start.
        _log.warn("socket {path}: was removed by another program", path=error.filename)


def close_in_background(port: IListeningPort) -> None:
    """Stop listening after a failed start, when nothing can wait for it."""
    with _STOP:
        closed = maybeDeferred(cast(Any, port).stopListening)
    closed.addErrback(lambda failure: failure.trap(FileNotFoundError))  # the listener removes the file itself
    closed.addErrback(lambda failure: _log.failure("listener: stopping failed", failure=failure))
