"""What engines ask is answered past twisted.web and the reactor, whatever else comes by them, and nothing out of turn."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, cast

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.address import UNIXAddress
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.interfaces import ISSLTransport, IWriteDescriptor
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from macvlan_twisted.protocol.calls import Calls
from macvlan_twisted.protocol.site import PluginSite
from macvlan_twisted.protocol.strict_http import StrictChannel

from .site_cases import oddly, read_replies, request


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

    def writeSequence(self, data: Iterable[bytes]) -> None:
        self.write(b"".join(data))

    def doWrite(self) -> None:
        self.come_round()

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


class Slow:
    """A call that is answered when the test says so."""

    def __init__(self) -> None:
        self.gates: list[Deferred[dict[str, Any]]] = []

    async def __call__(self, raw: bytes) -> dict[str, Any]:
        self.gates.append(Deferred())
        return await self.gates[-1]

    def answer(self, said: str) -> None:
        self.gates.pop(0).callback({"said": said})


async def echo(raw: bytes) -> dict[str, Any]:
    return {"said": raw.decode()}


class AnswerTests(SynchronousTestCase):
    def connect(self, room: int, kind: type[Descriptor] = Descriptor) -> None:
        self.slow = Slow()
        self.calls = Calls({"Echo": echo, "Slow": self.slow}, debug=False)
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
        self.assertTrue(self.transport.disconnecting)
        self.successResultOf(self.calls.none_under_way())

    def test_an_answer_says_that_the_connection_is_to_end_too_early_or_not_at_all(self) -> None:
        self.connect(room=1 << 20)
        for is_closing in (False, True):
            self.calls.closing = is_closing
            self.transport.taken = b""
            self.protocol.dataReceived(request("Echo", b"x"))
            (reply,) = read_replies(self.transport.taken)
            self.assertEqual(reply.headers.get("connection"), "close" if is_closing else None)

    def test_an_engines_request_goes_the_long_way(self) -> None:
        self.patch(StrictChannel, "dataReceived", lambda channel, data: self.fail(f"the long way: {data!r}"))
        self.connect(room=1 << 20)
        for host in ("Host: ", "Host: plugin.moby.localhost", "Host: %2Frun%2Fdocker%2Fplugins%2Fx.sock"):
            self.protocol.dataReceived(request("Echo", b"x", host=host))
        over_tcp = request("Echo", b"x", host="Host: 127.0.0.1:18999")
        self.protocol.dataReceived(
            over_tcp.replace(b"json\r\n\r\n", b"json\r\nAccept-Encoding: gzip\r\n\r\n")
        )
        self.assertEqual(self.said(), ["x"] * 4)

    def test_a_request_that_comes_while_another_is_answered_is_lost_or_fills_the_memory(self) -> None:
        self.connect(room=1 << 20)
        self.protocol.dataReceived(request("Slow", b""))
        self.protocol.dataReceived(request("Slow", b"") + oddly(request("Echo", b"third")))
        self.assertEqual((len(self.slow.gates), self.transport.producerState), (1, "paused"))
        self.slow.answer("first")
        self.assertEqual(len(self.slow.gates), 1)
        self.slow.answer("second")
        self.assertEqual(
            (self.said(), self.transport.producerState), (["first", "second", "third"], "producing")
        )

    def test_a_client_that_does_not_wait_for_answers_fills_the_memory(self) -> None:
        self.connect(room=1 << 20)
        self.protocol.dataReceived(request("Slow", b""))
        sent = 0
        for _ in range(20):
            while self.transport.producerState == "producing" and sent < 1 << 22:
                self.protocol.dataReceived(request("Slow", b"") * 300)
                sent += 300 * len(request("Slow", b""))
            self.slow.answer("x")
        self.assertLess(sent, 1 << 18)

    def test_a_client_that_hangs_up_is_answered_and_what_it_sent_before_is_begun(self) -> None:
        self.connect(room=1 << 20)
        self.protocol.dataReceived(request("Slow", b"") + request("Slow", b""))
        self.protocol.connectionLost(Failure(ConnectionDone()))
        self.slow.answer("first")
        self.assertEqual((self.slow.gates, self.transport.taken), ([], b""))
        self.successResultOf(self.calls.none_under_way())

    @given(st.lists(st.tuples(st.booleans(), st.text(max_size=20)), max_size=6), st.data())
    def test_in_which_pieces_requests_come_makes_a_difference(
        self, requests: list[tuple[bool, str]], data: st.DataObject
    ) -> None:
        self.connect(room=1 << 20)
        sent = b""
        for is_odd, text in requests:
            one = request("Echo", text.encode())
            sent += oddly(one) if is_odd else one
        while sent:
            length = data.draw(st.integers(1, len(sent)))
            self.protocol.dataReceived(sent[:length])
            sent = sent[length:]
        self.transport.come_round()
        self.assertEqual(self.said(), [text for _, text in requests])

    def test_the_last_answer_is_lost_when_the_connection_is_to_end(self) -> None:
        self.connect(room=1 << 20)
        self.protocol.dataReceived(request("Echo", b"x").replace(b"HTTP/1.1", b"HTTP/1.0"))
        self.transport.come_round()
        self.assertEqual(self.said(), ["x"])
        self.assertTrue(self.transport.disconnecting)
