"""
Where the service listens: on a UNIX socket that it creates, or on another endpoint of Twisted.
"""

from __future__ import annotations

import os
from typing import Any, Protocol

from twisted.internet.interfaces import IListeningPort

from ..config import Config
from ..errors import StartupError
from .endpoints import close_in_background, close_port, endpoint_of, listening_port, parse_unix
from .unix_socket import SocketFile, UnixSocketListener


class Listener(Protocol):
    """The methods are called in this order. :meth:`release` is also called after a failure."""

    def acquire(self) -> None:
        """
        Lock the place and clear it of a stale socket. Blocks.

        :raises StartupError: another process uses it.
        """

    def listen(self, site: Any) -> None:
        """
        Begin to accept connections.

        :raises StartupError: it is impossible, and nothing listens.
        """

    async def stop_accepting(self) -> None:
        """Turn away new connections. Those that wait to be accepted are still accepted."""

    async def stop_listening(self) -> None:
        """Accept no more connections at all."""

    def release(self) -> None:
        """Remove the socket and the lock, as far as they exist. May be called twice."""


def make_listener(reactor: Any, config: Config) -> Listener:
    """
    The listener that the configuration names. Touches nothing yet.

    :raises StartupError: ``--listen`` names no endpoint.
    """
    group = config.socket_group
    if config.listen is None:
        path = os.path.abspath(config.socket_path)
        file = SocketFile(path, "--plugin-name", group=group, creates_directory=True)
        return UnixSocketListener(reactor, file, path)
    if config.listen.startswith("unix:"):
        parsed = parse_unix(config.listen)
        if not parsed.path.startswith("\0"):  # an abstract socket has no file, so no lock, and is never stale
            file = SocketFile(os.path.abspath(parsed.path), "--listen", parsed.mode, group)
            return UnixSocketListener(reactor, file, config.listen, parsed.backlog)
    if group is not None:
        raise StartupError(
            f"--socket-group {group} cannot be used, because the plugin does not create the socket of --listen "
            f"{config.listen}: leave it out; in a systemd socket unit, set SocketGroup="
        )
    return EndpointListener(config.listen, endpoint_of(reactor, config.listen))


class EndpointListener:
    """Any other endpoint: TCP, an abstract socket, or a socket that systemd passes and keeps."""

    def __init__(self, where: str, endpoint: Any) -> None:
        self._where = where
        self._endpoint = endpoint
        self._port: IListeningPort | None = None

    def acquire(self) -> None:
        """Nothing to do: :meth:`listen` fails if another process listens there."""

    def listen(self, site: Any) -> None:
        self._port = listening_port(self._endpoint, site, self._where)

    async def stop_accepting(self) -> None:
        port, self._port = self._port, None
        if port is not None:
            await close_port(port)

    async def stop_listening(self) -> None:
        """:meth:`stop_accepting` has done it."""

    def release(self) -> None:
        port, self._port = self._port, None
        if port is not None:
            close_in_background(port)
