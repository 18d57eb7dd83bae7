"""
HTTP by twisted.web, with limits for a client that is none of the engine's.

The engine's own requests hardly come here: :mod:`.shortcut` answers them.
"""

from __future__ import annotations

from typing import Any, cast
from urllib.parse import unquote_to_bytes

from twisted.internet.interfaces import ISSLTransport, IWriteDescriptor
from twisted.python.failure import Failure
from twisted.web.http import HTTPChannel
from twisted.web.server import Request

from ..failpoints import Failpoint
from .errors import error_body
from .replies import as_json, with_head

BODY_LIMIT = 1024 * 1024
"""Bytes of a body; the engine's largest are a few kilobytes."""
HEADER_NAME_LIMIT = 100
"""Bytes: Twisted keeps the names of the first 10,000 headers that it has not seen before, in two spellings, for good."""

ANSWER = Failpoint("protocol.answer.write", "the engine is answered: its reply goes into the connection")
_REFUSE_REQUEST = Failpoint("protocol.request.refuse", "a client is told that its request is none")
_REFUSE = Failpoint("protocol.body.refuse", "the engine is told that a body is too large")


class StrictChannel(HTTPChannel):
    """
    Twisted's, which takes a Content-Length of thousands of digits for a number that Python would read, and a name of
    kilobytes for one that comes again.
    """

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


class LimitedRequest(Request):
    """A request that is cut off, with an answer, when its body grows beyond the limit, and whose path is text."""

    _is_refused = False

    def process(self) -> None:
        if self._is_refused:
            return  # the rest of its body came together with what was too much
        try:
            unquote_to_bytes(self.path).decode()
        except UnicodeDecodeError:
            body = as_json(error_body("no such method: the path is not text"))
            with _REFUSE_REQUEST:
                self.write(with_head(self, 404, body))
            self.finish()
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

    def finish(self) -> None:
        """Send the answer at once: the reactor alone would do so when it has gone round once more."""
        connection: Any = self.transport
        with ANSWER:
            super().finish()
            if (
                IWriteDescriptor.providedBy(connection)
                and not ISSLTransport.providedBy(connection)
                and connection.connected
                and not connection.disconnecting
            ):
                connection.doWrite()  # if that fails, it fails again when the reactor does it, who knows what to do

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
