"""
Listening on a UNIX socket that systemd has created and passes to the service.

The socket stays systemd's: its mode, its file, its backlog, and its being a listening socket. Twisted's own way to adopt
a socket gives it mode 0666, and at the end removes its file and shuts it down, also for systemd.
"""

from __future__ import annotations

import socket
from typing import Any, cast

from twisted.internet import tcp, unix
from twisted.internet.endpoints import serverFromString


class InheritedPort(unix.Port):
    """A port that accepts from an inherited socket, and at the end closes its own descriptor only."""

    _shouldShutdown = False

    def startListening(self) -> None:
        adopted = cast(Any, self)
        adopted.socket, adopted._preexistingSocket = adopted._preexistingSocket, None
        adopted.fileno = adopted.socket.fileno
        adopted.numberAccepts = 100  # connections to accept at once, as in Twisted
        adopted.connected = True
        tcp._reservedFD.reserve()
        adopted.factory.doStart()
        adopted.startReading()

    def connectionLost(self, reason: Any) -> None:
        tcp.Port.connectionLost(self, reason)


class _AdoptingReactor:
    """A reactor that adopts UNIX sockets as :class:`InheritedPort`, and delegates everything else."""

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reactor, name)

    def adoptStreamPort(self, fileno: int, family: int, factory: Any) -> Any:
        if family != socket.AF_UNIX:
            return self._reactor.adoptStreamPort(fileno, family, factory)
        port = InheritedPort._fromListeningDescriptor(self._reactor, fileno, factory)
        port.startListening()
        return port


def inherited_endpoint(reactor: Any, listen: str) -> Any:
    """
    The endpoint of a ``systemd:`` string.

    :raises LookupError: systemd has passed no such socket.
    :raises ValueError: the string is malformed.
    """
    return serverFromString(cast(Any, _AdoptingReactor(reactor)), listen)
