"""
The HTTP server: twisted.web with limits, and how a reply is written.

Docker Engine's client (docs/reference/protocol) sends a blank Host and no Content-Type, keeps connections alive, opens
several at once, and has no timeout of its own.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, cast

from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.python.failure import Failure
from twisted.web.http import HTTPChannel
from twisted.web.resource import Resource
from twisted.web.server import Request, Site
from zope.interface import implementer

from ..failpoints import Failpoint
from .errors import error_body

BODY_LIMIT = 1024 * 1024
"""Bytes of a request's body. The engine's largest are a few kilobytes."""
HEADER_NAME_LIMIT = 100
"""Bytes. Twisted caches the first 10,000 header names that it has not seen before, each in two spellings, for good."""
CONTENT_TYPE = b"application/vnd.docker.plugins.v1.2+json"

_ANSWER = Failpoint("protocol.answer.write", "the engine is answered: its reply goes into the connection")
_REFUSE_REQUEST = Failpoint("protocol.request.refuse", "a client is told that its request is none")
_REFUSE_BODY = Failpoint("protocol.body.refuse", "the engine is told that a body is too large")


def encode_reply(body: Mapping[str, Any]) -> bytes:
    return json.dumps(body).encode() + b"\n"


def set_reply_head(request: Any, status: int, body: bytes, close: bool) -> None:
    """
    Set status and headers of the reply to *request*.

    :param body: as it is going to be written, for the Content-Length: a chunked reply costs the engine a new
        connection for its next call.
    :param close: whether to close the connection after the reply.
    """
    request.setResponseCode(status)
    request.setHeader(b"Content-Type", CONTENT_TYPE)
    request.setHeader(b"Content-Length", b"%d" % len(body))
    if close:
        request.setHeader(b"Connection", b"close")


@implementer(IHalfCloseableProtocol)
class PluginChannel(HTTPChannel):
    """
    One connection, with two limits that Twisted lacks, and with an end that waits for the last reply.

    A header name that is too long, and a Content-Length of more digits than :func:`int` converts, get status 400. A client
    that has sent all and closes its side (shutdown(2) with SHUT_WR) gets the replies to its requests.
    """

    is_answering = False
    """Whether a request has been read to its end, and its reply has not been written."""
    _is_half_closed = False

    def readConnectionLost(self) -> None:
        """The client sends no more."""
        self._is_half_closed = True
        self._close_if_answered()

    def writeConnectionLost(self) -> None:
        """We do not close our side alone."""

    def requestDone(self, request: Any) -> None:
        self.is_answering = False
        super().requestDone(request)  # which begins the next request, if the client has sent one
        if self._is_half_closed:
            self._close_if_answered()

    def _close_if_answered(self) -> None:
        if not self.is_answering:
            self.loseConnection()

    def connectionMade(self) -> None:
        channel: Any = self
        super().connectionMade()
        channel.site.connections.add(self)

    def connectionLost(self, reason: Failure) -> None:  # type: ignore[override]
        channel: Any = self
        channel.site.connections.discard(self)
        super().connectionLost(reason)

    def headerReceived(self, line: bytes) -> bool:
        if len(line.partition(b":")[0]) > HEADER_NAME_LIMIT:
            return self._refuse()
        try:
            return bool(super().headerReceived(line))
        except ValueError:
            return self._refuse()

    def _refuse(self) -> bool:
        channel: Any = self
        with _REFUSE_REQUEST:
            channel.transport.write(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n")
        channel.loseConnection()
        return False


class PluginRequest(Request):
    """A request whose body has a limit: what is larger is answered with 413 as soon as that is known."""

    _is_refused = False

    def getRequestHostname(self) -> bytes:
        """The host in the URLs that Klein builds and nobody reads; the engine's Host may be blank, or no text."""
        return b"localhost"

    def gotLength(self, length: int | None) -> None:
        super().gotLength(length)
        if length is not None and length > BODY_LIMIT:
            self._refuse_body()

    def handleContentChunk(self, data: bytes) -> None:
        if cast(Any, self.content).tell() + len(data) > BODY_LIMIT:
            self._refuse_body()
        else:
            super().handleContentChunk(data)

    def process(self) -> None:
        if not self._is_refused:  # else the end of the body came in one read with the part that was refused
            cast(Any, self.channel).is_answering = True
            super().process()

    def write(self, data: bytes) -> None:
        with _ANSWER:
            super().write(data)

    def _refuse_body(self) -> None:
        if self.finished or self._is_refused:
            return
        self._is_refused = True
        # Remedy: use Docker Engine; no engine sends a call that large.
        body = encode_reply(error_body(f"the body is larger than {BODY_LIMIT} bytes"))
        channel: Any = self.channel
        with _REFUSE_BODY:
            channel.transport.write(
                b"HTTP/1.1 413 Request Entity Too Large\r\nContent-Type: application/json\r\nConnection: close\r\n"
                b"Content-Length: %d\r\n\r\n%s" % (len(body), body)
            )
        channel.loseConnection()


class PluginSite(Site):
    """
    Serves *resource*, without an idle timeout and without an access log.

    The engine closes idle connections itself, or never: a timeout could only hit a connection that it is about to use.
    An access log would cost a fifth of a call; ``--debug`` logs more.

    :param clock: ``IReactorTime``
    """

    noisy = False
    protocol = cast(Any, PluginChannel)

    def __init__(self, resource: Resource, clock: Any = None) -> None:
        super().__init__(resource, requestFactory=PluginRequest, timeout=None, reactor=clock)
        self.connections: set[PluginChannel] = set()

    def startFactory(self) -> None:
        """Leave out Twisted's, which formats the time for the access log every second and wakes an idle process."""

    def log(self, request: object) -> None:
        """Write no access log."""

    def close_connections(self) -> None:
        for connection in list(self.connections):
            connection.loseConnection()
