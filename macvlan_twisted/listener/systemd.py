"""
Listening on a UNIX socket that somebody else has made, as systemd does for its socket units.

It stays theirs: its mode, its file, how many may wait in it, and that it listens at all. Twisted's own way to adopt
such a socket makes it everybody's (mode 0666), and at the end removes its file and shuts it down, for its owner, too.
"""

from __future__ import annotations

import socket
from typing import Any, cast

from twisted.internet import tcp, unix
from twisted.internet.endpoints import serverFromString


class HandedOverPort(unix.Port):
    """Accepts from a socket of somebody else's, and lets go of it again."""

    _shouldShutdown = False

    def startListening(self) -> None:
        adopted = cast(Any, self)
        adopted.socket, adopted._preexistingSocket = adopted._preexistingSocket, None
        adopted.fileno = adopted.socket.fileno
        adopted.numberAccepts = 100  # as Twisted's own: so many at once
        adopted.connected = True
        tcp._reservedFD.reserve()
        adopted.factory.doStart()
        adopted.startReading()

    def connectionLost(self, reason: Any) -> None:
        tcp.Port.connectionLost(self, reason)


class _Adopting:
    """A reactor that adopts UNIX sockets in our way, and is itself in everything else."""

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reactor, name)

    def adoptStreamPort(self, fileno: int, family: int, factory: Any) -> Any:
        if family != socket.AF_UNIX:
            return self._reactor.adoptStreamPort(fileno, family, factory)
        port = HandedOverPort._fromListeningDescriptor(self._reactor, fileno, factory)
        port.startListening()
        return port


def handed_over(reactor: Any, listen: str) -> Any:
    """
    The endpoint that a ``systemd:`` string of Twisted's names.

    :raises LookupError: no such socket has been handed over. :raises ValueError: it is not well-formed.
    """
    return serverFromString(cast(Any, _Adopting(reactor)), listen)
