"""
Where the service listens.

A place is either a UNIX socket of our own, which we lock, make and remove, or whatever else a server endpoint
string of Twisted names, of which only the listening is ours.
"""

from __future__ import annotations

from typing import Any, Protocol

from twisted.internet.interfaces import IListeningPort

from .errors import CannotStart
from .own_socket import OwnSocket
from .server_endpoints import endpoint_of, listening_port, read_unix, stop_in_background, stopped
from .settings import Settings


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
        said = read_unix(settings.listen)
        if not said.path.startswith("\0"):  # a socket without a file needs no lock and cannot be stale
            return OwnSocket(
                reactor, said.path, settings.listen, "--listen", said.mode, said.backlog, group=group
            )
    if group is not None:
        raise CannotStart(
            f"--socket-group {group} is for a socket that the service makes, and --listen {settings.listen} names another: "
            "leave it out; a socket unit of systemd's has SocketGroup="
        )
    return OtherEndpoint(settings.listen, endpoint_of(reactor, settings.listen))


class OtherEndpoint:
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
