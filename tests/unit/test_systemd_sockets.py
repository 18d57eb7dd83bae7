"""A UNIX socket that systemd has created and keeps."""

from __future__ import annotations

import os
import socket
from typing import Any

from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from macvlan_twisted.listener.systemd import _AdoptingReactor

from .helpers import fresh_directory


class _Reactor(Clock):
    """Remembers its readers."""

    def __init__(self) -> None:
        super().__init__()
        self.readers: set[Any] = set()

    def addReader(self, reader: Any) -> None:
        self.readers.add(reader)

    def removeReader(self, reader: Any) -> None:
        self.readers.discard(reader)

    def removeWriter(self, writer: Any) -> None:
        """There are no writers."""

    def adoptStreamPort(self, fileno: int, family: int, factory: Any) -> str:
        return "adopted by the reactor"


class InheritedPortTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.path = str(fresh_directory(self) / "plugin.sock")
        self.socket = socket.socket(socket.AF_UNIX)
        self.addCleanup(self.socket.close)
        self.socket.bind(self.path)
        os.chmod(self.path, 0o600)
        self.socket.listen(7)
        self.socket.setblocking(False)
        self.reactor = _Reactor()

    def adopt(self) -> Any:
        factory = Factory.forProtocol(Protocol)
        return _AdoptingReactor(self.reactor).adoptStreamPort(self.socket.fileno(), socket.AF_UNIX, factory)

    def close(self, port: Any) -> None:
        stopped = port.stopListening()
        self.reactor.advance(0)
        self.successResultOf(stopped)

    def connect(self) -> socket.socket:
        caller = socket.socket(socket.AF_UNIX)
        self.addCleanup(caller.close)
        caller.connect(self.path)
        return caller

    def test_socket_and_its_mode_stay_with_the_owner(self) -> None:
        port = self.adopt()
        self.assertEqual(os.stat(self.path).st_mode & 0o777, 0o600)
        self.close(port)
        self.connect()
        self.socket.accept()[0].close()

    def test_waiting_connections_are_left_to_the_next_port(self) -> None:
        port = self.adopt()
        self.connect()
        self.close(port)
        again = self.adopt()
        (reader,) = self.reactor.readers
        reader.doRead()
        self.assertEqual(len(self.reactor.readers), 2, "the port and one connection")
        self.close(again)

    def test_other_families_are_adopted_by_the_reactor(self) -> None:
        with socket.socket() as it:
            adopted = _AdoptingReactor(self.reactor).adoptStreamPort(it.fileno(), socket.AF_INET, None)
        self.assertEqual(adopted, "adopted by the reactor")
