"""
The engine's requests without twisted.web and klein.

An engine writes all of its requests alike, a few lines that do not vary and a body (docs/reference/protocol). To find that out
takes one regular expression; the HTTP library's way took nearly half of what a call cost us. So a connection begins here. With
the first thing on it that looks otherwise, it is twisted.web's, for good.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from http import HTTPStatus
from typing import Any

from twisted.internet.interfaces import ISSLTransport, IWriteDescriptor
from twisted.python.failure import Failure

from .replies import CONTENT_TYPE
from .strict_http import ANSWER, BODY_LIMIT, StrictChannel

Answer = Callable[[bytes, Callable[[int, bytes, bool], None]], None]
"""
Is given a body, and a function that is to be told the answer when it is there: status, body, and whether the connection is to
end with it.
"""

_HEAD = re.compile(
    rb"POST (/[A-Za-z.]+) HTTP/1\.1\r\n"
    rb"Host: [^\r\n]{0,200}\r\n"
    rb"User-Agent: Go-http-client/1\.1\r\n"
    rb"Content-Length: (\d{1,7})\r\n"
    rb"Accept: application/vnd\.docker\.plugins\.v1\.2\+json\r\n"
    rb"(?:Accept-Encoding: gzip\r\n)?"  # over TCP
    rb"\r\n"
)


class EngineChannel(StrictChannel):
    """One connection of an engine, or of somebody else."""

    _is_an_engines = True
    _is_answering = False
    _is_taking = False
    _is_lost = False
    _is_full = False
    _goes_past_the_reactor = False
    """Whether an answer may: nothing of this connection's may wait in the reactor, which cannot be asked."""

    def __init__(self) -> None:
        super().__init__()
        self._received = bytearray()

    def connectionMade(self) -> None:
        super().connectionMade()
        connection = self._connection
        is_plain = not ISSLTransport.providedBy(connection)  # else it would go past the encryption, too
        self._goes_past_the_reactor = is_plain and IWriteDescriptor.providedBy(connection)

    def connectionLost(self, reason: Failure) -> None:  # type: ignore[override]
        self._is_lost = True
        super().connectionLost(reason)

    @property
    def _connection(self) -> Any:
        channel: Any = self
        return channel.transport

    # The transport asks for a pause while it has too much to send.

    def pauseProducing(self) -> None:
        self._is_full = True
        super().pauseProducing()

    def resumeProducing(self) -> None:
        self._is_full = False
        super().resumeProducing()

    def dataReceived(self, data: bytes) -> None:
        if not self._is_an_engines:
            super().dataReceived(data)
            return
        self._received += data
        if self._is_answering:  # no engine sends the next request before it has the answer to this one
            self._connection.pauseProducing()
        else:
            self._take_requests()

    def _take_requests(self) -> None:
        self._is_taking = True
        try:
            while self._received and not self._is_answering and self._take_request():
                pass
        finally:
            self._is_taking = False

    def _take_request(self) -> bool:
        """:return: whether there was one, whole and as engines write it."""
        channel: Any = self
        head = _HEAD.match(self._received)
        answer: Answer | None = None if head is None else channel.site.answers.get(head[1])
        if head is None or answer is None or int(head[2]) > BODY_LIMIT:
            self._hand_over()
            return False
        begin, end = head.end(), head.end() + int(head[2])
        if len(self._received) < end:
            return False
        body = bytes(self._received[begin:end])
        del head, self._received[:end]
        self._is_answering = True
        answer(body, self._answered)
        return True

    def _hand_over(self) -> None:
        received = bytes(self._received)
        self._received.clear()
        self._is_an_engines = False
        super().dataReceived(received)

    def _answered(self, status: int, body: bytes, is_last: bool) -> None:
        if self._is_lost:
            return
        self._is_answering = False
        try:
            with ANSWER:
                self._send(_written(status, body, is_last))
        except BaseException:
            self._connection.abortConnection()  # or whoever asked would wait for ever
            raise
        if self._received and not self._is_taking:
            if not self._is_full:
                self._connection.resumeProducing()
            self._hand_over()  # which knows what to do with those who do not wait

    def _send(self, data: bytes) -> None:
        """
        Straight into the socket. To have the reactor do it, which waits until the socket takes bytes and then stops waiting, took
        a tenth of a call.
        """
        sent = 0
        if self._goes_past_the_reactor and not self._connection.disconnecting:
            taken = self._connection.writeSomeData(data)
            # Else the connection is broken: the reactor notices that, too, and knows what to do.
            sent = taken if isinstance(taken, int) else 0
        if sent < len(data):
            self._goes_past_the_reactor = False  # for good: a client that is as slow as this is no engine
            self._connection.write(data[sent:])


def _written(status: int, body: bytes, is_last: bool) -> bytes:
    return b"HTTP/1.1 %d %b\r\nContent-Type: %b\r\nContent-Length: %d\r\n%b\r\n%b" % (
        status,
        HTTPStatus(status).phrase.encode(),
        CONTENT_TYPE,
        len(body),
        b"Connection: close\r\n" if is_last else b"",
        body,
    )
