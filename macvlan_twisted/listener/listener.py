"""
Where the service listens.

A place is either a UNIX socket of our own, which we lock, make and remove, or whatever else a server endpoint
string of Twisted names, of which only the listening is ours.
"""

from __future__ import annotations

from typing import Any, Protocol

from twisted.internet.interfaces import IListeningPort

from ..config import Config
from ..errors import StartupError
from .endpoints import endpoint_of, listening_port, read_unix, stop_in_background, stopped
from .unix_socket import UnixSocketListener


class Listener(Protocol):
    """A place to listen on; its functions are called in this order, :meth:`release` also after a failure."""

    def take(self) -> None:
        """
        Make sure that it is ours. Blocks.

        :raises StartupError: it is somebody else's.
        """

    def listen(self, site: Any) -> None:
        """
        :raises StartupError: and nobody listens.
        """

    async def stop_accepting(self) -> None:
        """Let nobody in who dials from now on. Who has dialled before is still to be answered."""

    async def stop_listening(self) -> None:
        """Let nobody in any more."""

    def release(self) -> None:
        """Leave nothing of ours behind, whatever was reached. May be called twice."""


def make_listener(reactor: Any, config: Config) -> Listener:
    """
    The place that the settings name; nothing is touched yet.

    :raises StartupError: ``--listen`` names none.
    """
    group = config.socket_group
    if config.listen is None:
        path = config.socket_path
        return UnixSocketListener(reactor, path, path, "--plugin-name", group=group, made_in=True)
    if config.listen.startswith("unix:"):
        said = read_unix(config.listen)
        if not said.path.startswith("\0"):  # a socket without a file needs no lock and cannot be stale
            return UnixSocketListener(
                reactor, said.path, config.listen, "--listen", said.mode, said.backlog, group=group
            )
    if group is not None:
        raise StartupError(
            f"--socket-group {group} is for a socket that the service makes, and --listen {config.listen} names another: "
            "leave it out; a socket unit of systemd's has SocketGroup="
        )
    return EndpointListener(config.listen, endpoint_of(reactor, config.listen))


class EndpointListener:
    """Any other endpoint: sockets of systemd's, which stay systemd's; TCP."""

    def __init__(self, listen: str, endpoint: Any) -> None:
        self._where = listen
        self._endpoint = endpoint
        self._port: IListeningPort | None = None

    def take(self) -> None:
        """Whether it is free is known when it listens."""

    def listen(self, site: Any) -> None:
        self._port = listening_port(self._endpoint, site, self._where)

    async def stop_accepting(self) -> None:
        port, self._port = self._port, None
        if port is not None:
            await stopped(port)

    async def stop_listening(self) -> None:
        """Done already."""

    def release(self) -> None:
        port, self._port = self._port, None
        if port is not None:
            stop_in_background(port)
