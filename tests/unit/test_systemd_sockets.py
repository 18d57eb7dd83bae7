"""A UNIX socket that somebody else has made and keeps, as systemd does."""

from __future__ import annotations

import os
import socket
from typing import Any

from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from macvlan_twisted.listener.systemd import _Adopting

from .helpers import fresh_directory


class _Reactor(Clock):
    """Remembers who is to be told of what there is to read."""

    def __init__(self) -> None:
        super().__init__()
        self.readers: set[Any] = set()

    def addReader(self, reader: Any) -> None:
        self.readers.add(reader)

    def removeReader(self, reader: Any) -> None:
        self.readers.discard(reader)

    def removeWriter(self, writer: Any) -> None:
        """Nobody writes here."""

    def adoptStreamPort(self, fileno: int, family: int, factory: Any) -> str:
        return "adopted by the reactor"


class HandedOverTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.place = str(fresh_directory(self) / "plugin.sock")
        self.theirs = socket.socket(socket.AF_UNIX)
        self.addCleanup(self.theirs.close)
        self.theirs.bind(self.place)
        os.chmod(self.place, 0o600)
        self.theirs.listen(7)
        self.theirs.setblocking(False)
        self.reactor = _Reactor()

    def _adopt(self) -> Any:
        factory = Factory.forProtocol(Protocol)
        return _Adopting(self.reactor).adoptStreamPort(self.theirs.fileno(), socket.AF_UNIX, factory)

    def _let_go(self, port: Any) -> None:
        stopped = port.stopListening()
        self.reactor.advance(0)
        self.successResultOf(stopped)

    def _dial(self) -> socket.socket:
        caller = socket.socket(socket.AF_UNIX)
        self.addCleanup(caller.close)
        caller.connect(self.place)
        return caller

    def test_it_becomes_everybodys(self) -> None:
        port = self._adopt()
        self.assertEqual(os.stat(self.place).st_mode & 0o777, 0o600)
        self._let_go(port)

    def test_nobody_is_let_in(self) -> None:
        port = self._adopt()
        self._dial()
        (reader,) = self.reactor.readers
        reader.doRead()
        self.assertEqual(len(self.reactor.readers), 2, "the port and one connection")
        self._let_go(port)

    def test_at_the_end_its_file_is_removed(self) -> None:
        self._let_go(self._adopt())
        self.assertTrue(os.path.exists(self.place))

    def test_at_the_end_its_owner_cannot_listen_on(self) -> None:
        self._let_go(self._adopt())
        self._dial()
        self.theirs.accept()[0].close()

    def test_who_dialled_before_the_end_is_lost_to_the_next_one(self) -> None:
        port = self._adopt()
        self._dial()
        self._let_go(port)
        again = self._adopt()
        (reader,) = self.reactor.readers
        reader.doRead()
        self.assertEqual(len(self.reactor.readers), 2)
        self._let_go(again)

    def test_a_socket_of_another_family_is_adopted_in_this_way(self) -> None:
        with socket.socket() as it:
            adopted = _Adopting(self.reactor).adoptStreamPort(it.fileno(), socket.AF_INET, None)
        self.assertEqual(adopted, "adopted by the reactor")
