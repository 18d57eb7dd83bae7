"""An answer leaves in one piece, past the reactor, and never out of turn."""

from __future__ import annotations

from typing import Any, cast

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.address import UNIXAddress
from twisted.internet.error import ConnectionLost
from twisted.internet.interfaces import ISSLTransport, IWriteDescriptor
from twisted.internet.testing import StringTransport
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from macvlan_twisted.protocol.calls import Calls
from macvlan_twisted.protocol.site import PluginSite

from .site_cases import read_replies, request


@implementer(IWriteDescriptor)
class Descriptor(StringTransport):
    """A connection that takes some bytes at once; what is written to it otherwise is sent when the reactor comes round."""

    def __init__(self, room: int) -> None:
        super().__init__(hostAddress=cast(Any, UNIXAddress(b"/run/x.sock")))
        self.room = room
        self.is_broken = False
        self.taken = b""
        self.waiting = b""

    def writeSomeData(self, data: bytes) -> int | Exception:
        if self.is_broken:
            return ConnectionLost()
        some = data[: self.room]
        self.room -= len(some)
        self.taken += some
        return len(some)

    def write(self, data: bytes) -> None:
        self.waiting += data

    def come_round(self) -> None:
        self.taken += self.waiting
        self.waiting = b""


@implementer(ISSLTransport)
class Encrypted(Descriptor):
    """One that encrypts what is written to it, and below which somebody could write past that."""

    def setTcpNoDelay(self, enabled: bool) -> None:
        """As TLS over TCP has it."""


class Unwilling(Descriptor):
    """One whose reactor has no room for it."""

    def writeSomeData(self, data: bytes) -> int:
        raise OSError("a test has it fail")


async def echo(raw: bytes) -> dict[str, Any]:
    return {"said": raw.decode()}


class AnswerTests(SynchronousTestCase):
    def connect(self, room: int, kind: type[Descriptor] = Descriptor) -> None:
        self.calls = Calls({"Echo": echo}, debug=False)
        site = PluginSite(self.calls.resource(), self.calls.by_path())
        self.protocol: Any = site.buildProtocol(cast(Any, UNIXAddress(None)))
        self.transport = kind(room)
        self.protocol.makeConnection(self.transport)

    def said(self) -> list[Any]:
        return [each.body["said"] for each in read_replies(self.transport.taken)]

    def test_an_answer_waits_for_the_reactor(self) -> None:
        self.connect(room=1 << 20)
        for number in range(3):
            self.protocol.dataReceived(request("Echo", b"%d" % number))
            self.assertEqual(self.said(), [str(each) for each in range(number + 1)])
        self.assertEqual(self.transport.waiting, b"")

    @given(st.integers(0, 700), st.integers(1, 4), st.integers(0, 4))
    def test_answers_overtake_what_the_client_has_not_taken_yet(
        self, room: int, at_once: int, goes_round: int
    ) -> None:
        self.connect(room)
        for number in range(6):
            self.protocol.dataReceived(request("Echo", b"%d" % number * at_once))
            if number == goes_round:
                self.transport.come_round()
                self.transport.room = 1 << 20
        self.transport.come_round()
        self.assertEqual(self.said(), [str(each) * at_once for each in range(6)])

    def test_requests_that_come_together_are_answered_out_of_turn(self) -> None:
        self.connect(room=100)
        self.protocol.dataReceived(b"".join(request("Echo", b"%d" % number) for number in range(3)))
        self.transport.come_round()
        self.assertEqual(self.said(), ["0", "1", "2"])

    def test_an_answer_overtakes_what_twisted_says_before_it(self) -> None:
        self.connect(room=1 << 20)
        head, _, body = request("Echo", b"x").partition(b"\r\n\r\n")
        self.protocol.dataReceived(head + b"\r\nExpect: 100-continue\r\n\r\n" + body)
        self.transport.come_round()
        first, _, answer = self.transport.taken.partition(b"\r\n\r\n")
        self.assertEqual(first, b"HTTP/1.1 100 Continue")
        self.assertEqual([each.body for each in read_replies(answer)], [{"said": "x"}])

    def test_a_broken_connection_is_not_left_to_the_reactor(self) -> None:
        self.connect(room=1 << 20)
        self.transport.is_broken = True
        self.protocol.dataReceived(request("Echo", b"x"))
        self.transport.come_round()
        self.assertEqual(self.said(), ["x"])

    def test_an_answer_goes_past_the_encryption(self) -> None:
        self.connect(1 << 20, Encrypted)
        self.protocol.dataReceived(request("Echo", b"x"))
        self.assertEqual(self.transport.taken, b"")
        self.transport.come_round()
        self.assertEqual(self.said(), ["x"])

    def test_a_call_whose_answer_cannot_be_sent_is_under_way_for_good(self) -> None:
        self.connect(1 << 20, Unwilling)
        self.protocol.dataReceived(request("Echo", b"x"))
        self.assertEqual(len(self.flushLoggedErrors(OSError)), 1)
        self.successResultOf(self.calls.none_under_way())

    def test_the_last_answer_is_lost_when_the_connection_is_to_end(self) -> None:
        self.connect(room=1 << 20)
        self.protocol.dataReceived(request("Echo", b"x").replace(b"HTTP/1.1", b"HTTP/1.0"))
        self.assertEqual(self.said(), ["x"])
        self.assertTrue(self.transport.disconnecting)

    def test_a_name_that_nobody_knows_is_answered_without_its_length(self) -> None:
        self.connect(room=1 << 20)
        self.protocol.dataReceived(
            request("Ech", b"x") + request("Echo", b"y", verb="HEAD") + request("Echo", b"z")
        )
        head, _, _ = self.transport.taken.partition(b"\r\n\r\n")
        self.assertTrue(head.startswith(b"HTTP/1.1 404 Not Found\r\n"), head)
        self.assertIn(b"\r\n\r\n" + b'{"said": "z"}\n', self.transport.taken)
