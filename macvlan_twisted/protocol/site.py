"""
The HTTP side: connections and requests, with limits for those of a client that is none of the engine's.

What the engine's client is like (docs/reference/protocol): blank Host, no Content-Type, keep-alive, many
connections at once, and no time-out of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, cast
from urllib.parse import unquote_to_bytes

from twisted.internet.interfaces import ISSLTransport, IWriteDescriptor
from twisted.python.failure import Failure
from twisted.web.http import HTTPChannel
from twisted.web.iweb import IRequest
from twisted.web.resource import Resource
from twisted.web.server import Request, Site

from ..steps import Step
from .errors import error_body
from .replies import CONTENT_TYPE, as_json

BODY_LIMIT = 1024 * 1024
"""Bytes of a body; the engine's largest are a few kilobytes."""
HEADER_NAME_LIMIT = 100
"""Bytes: Twisted keeps the names of the first 10,000 headers that it has not seen before, in two spellings, for good."""

Answer = Callable[[IRequest, Callable[[bytes], object]], None]
"""Answers a request; tells the body when it is there."""

_EACH_TIME = frozenset(
    (
        b"Host: ",
        b"Host: plugin.moby.localhost",
        b"User-Agent: Go-http-client/1.1",
        b"Accept: application/vnd.docker.plugins.v1.2+json",
    )
)
"""Lines of a request's head that engines send with each call, and that tell us nothing."""

_ANSWER = Step("protocol.answer.write", "the engine is answered: its reply goes into the connection")
_REFUSE_REQUEST = Step("protocol.request.refuse", "a client is told that its request is none")
_REFUSE = Step("protocol.body.refuse", "the engine is told that a body is too large")


class StrictChannel(HTTPChannel):
    """
    Twisted's, which takes a Content-Length of thousands of digits for a number that Python would read, and a name of
    kilobytes for one that comes again; and which would send an answer in twenty pieces.
    """

    _host: object = None
    _goes_past_the_reactor = False
    """Whether an answer may: nothing of this connection's may wait in the reactor, which cannot be asked."""

    def __init__(self) -> None:
        super().__init__()
        self._answer: list[bytes] = []

    def connectionMade(self) -> None:
        channel: Any = self
        super().connectionMade()
        channel.site.connections.add(self)
        connection = channel.transport
        is_plain = not ISSLTransport.providedBy(connection)  # else it would go past the encryption, too
        self._goes_past_the_reactor = is_plain and IWriteDescriptor.providedBy(connection)

    def connectionLost(self, reason: Failure) -> None:  # type: ignore[override]
        channel: Any = self
        channel.site.connections.discard(self)
        super().connectionLost(reason)

    def getHost(self) -> object:
        """What the kernel says is the same for all requests of a connection; asked with each, it costs 4 % of the calls."""
        if self._host is None:
            self._host = super().getHost()
        return self._host

    def headerReceived(self, line: bytes) -> bool:
        if line in _EACH_TIME:  # to take them apart, and keep them, took 4 % of a call
            return True
        if line[:6].lower() == b"expect":  # Twisted says "100 Continue" then, by the reactor
            self._goes_past_the_reactor = False
        if len(line.partition(b":")[0]) > HEADER_NAME_LIMIT:
            return self._refuse()
        try:
            return bool(super().headerReceived(line))
        except ValueError:
            return self._refuse()

    # An answer is collected, and when it is finished sent in one piece, straight into the socket. To have the reactor do it,
    # which waits until the socket takes bytes and then stops waiting, and to look at each of twenty pieces, took a sixth of a
    # call.

    def writeHeaders(self, version: bytes, code: bytes, reason: bytes, headers: Any) -> None:
        lines = [b"%b %b %b" % (version, code, reason)]
        lines += [b"%b: %b" % (name, each) for name, values in headers.getAllRawHeaders() for each in values]
        self._answer += (b"\r\n".join(lines), b"\r\n\r\n")

    def write(self, data: bytes) -> None:
        self._answer.append(data)

    def writeSequence(self, pieces: Iterable[bytes]) -> None:
        self._answer += pieces

    def requestDone(self, request: Any) -> None:
        with _ANSWER:
            self._send(b"".join(self._answer))
        self._answer.clear()
        super().requestDone(request)

    def _send(self, data: bytes) -> None:
        connection = cast(Any, self).transport
        sent = 0
        if self._goes_past_the_reactor and not connection.disconnecting:
            taken = connection.writeSomeData(data)
            # Else the connection is broken: the reactor notices that, too, and knows what to do.
            sent = taken if isinstance(taken, int) else 0
        if sent < len(data):
            self._goes_past_the_reactor = False  # for good: a client that is as slow as this is no engine
            connection.write(data[sent:])

    def _refuse(self) -> bool:
        channel: Any = self
        with _REFUSE_REQUEST:
            channel.transport.write(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n")
        channel.loseConnection()
        return False


class LimitedRequest(Request):
    """A request that is cut off, with an answer, when its body grows beyond the limit, and whose path is text."""

    _is_refused = False
    _is_alone = False
    """Whether the client has hung up."""

    def process(self) -> None:
        if self._is_refused:
            return  # the rest of its body came together with what was too much
        answer = cast(Any, self).channel.site.answers.get(self.path) if self.method == b"POST" else None
        if answer is not None:
            answer(self, self.answer)
            return
        try:
            unquote_to_bytes(self.path).decode()
        except UnicodeDecodeError:
            body = as_json(error_body("no such method: the path is not text"))
            self.setResponseCode(404)
            self.setHeader(b"Content-Type", CONTENT_TYPE)
            self.setHeader(b"Content-Length", b"%d" % len(body))
            self.answer(body)
            return
        super().process()

    def getRequestHostname(self) -> bytes:
        """What klein needs for an address of its own making, which nobody sees. A socket's file has no host."""
        return b"localhost"

    def gotLength(self, length: int | None) -> None:
        super().gotLength(length)
        if length is not None and length > BODY_LIMIT:
            self._refuse_body()

    def handleContentChunk(self, data: bytes) -> None:
        if self._is_refused:
            return  # what came together with the head
        if cast(Any, self.content).tell() + len(data) > BODY_LIMIT:
            self._refuse_body()
        else:
            super().handleContentChunk(data)

    def answer(self, body: bytes) -> None:
        """The last that is written; nothing if the client has hung up."""
        if not self._is_alone:
            self.write(body)
            self.finish()

    def connectionLost(self, reason: Failure) -> None:
        self._is_alone = True
        super().connectionLost(reason)

    def _refuse_body(self) -> None:
        if self.finished or self._is_refused:
            return
        self._is_refused = True
        body = as_json(error_body(f"the body is larger than {BODY_LIMIT} bytes"))
        channel: Any = self.channel
        with _REFUSE:
            channel.transport.write(
                b"HTTP/1.1 413 Request Entity Too Large\r\nContent-Type: application/json\r\nConnection: close\r\n"
                b"Content-Length: %d\r\n\r\n%s" % (len(body), body)
            )
        channel.loseConnection()


class PluginSite(Site):
    """
    The engine's connections.

    Calls are not logged one by one: it costs a fifth of a call, and ``--debug`` tells more.

    :param resource: for whatever *answers* has not.
    :param answers: of POST requests, by path.
    """

    protocol = cast(Any, StrictChannel)
    requestFactory = LimitedRequest
    noisy = False

    def __init__(self, resource: Resource, answers: Mapping[bytes, Answer], reactor: Any = None) -> None:
        # The engine closes its idle connections itself, or keeps them for good; a time-out of ours could
        # only hit a connection on which it is about to send.
        super().__init__(resource, timeout=None, reactor=reactor)
        self.answers = answers
        self.connections: set[StrictChannel] = set()

    def startFactory(self) -> None:
        """Nothing: it is for the log's sake that the time of day is told each second, and would wake an idle service."""

    def log(self, request: object) -> None:
        """No access log."""

    def close_connections(self) -> None:
        for connection in list(self.connections):
            connection.loseConnection()
