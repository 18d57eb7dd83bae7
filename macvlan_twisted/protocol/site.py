"""
The HTTP side: the Klein resource tree, the only place that touches a request, and orderly closing.

What the engine's client is like (docs/reference/protocol): blank Host, no Content-Type, keep-alive, many
connections at once, and no time-out of its own.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from time import monotonic
from typing import Any, cast
from urllib.parse import unquote_to_bytes

from klein import Klein
from klein.resource import KleinResource
from twisted.internet.defer import Deferred, ensureDeferred
from twisted.internet.interfaces import IWriteDescriptor
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.http import HTTPChannel
from twisted.web.iweb import IRequest
from twisted.web.resource import Resource
from twisted.web.server import Request, Site
from werkzeug.exceptions import HTTPException

from ..steps import Step
from .errors import error_body, error_reply, legible
from .methods import Method

BODY_LIMIT = 1024 * 1024
"""Bytes of a body; the engine's largest are a few kilobytes."""
HEADER_NAME_LIMIT = 100
"""Bytes: Twisted keeps the names of the first 10,000 headers that it has not seen before, in two spellings, for good."""
CONTENT_TYPE = b"application/vnd.docker.plugins.v1.2+json"

_log = Logger(namespace="macvlan_twisted.protocol")

_ANSWER = Step("protocol.answer.write", "the engine is answered: its reply goes into the connection")
_REFUSE_REQUEST = Step("protocol.request.refuse", "a client is told that its request is none")
_REFUSE = Step("protocol.body.refuse", "the engine is told that a body is too large")


class Calls:
    """
    Answers requests, and knows how many are being answered.

    :param now: a clock in seconds, for the durations that ``--debug`` logs.
    """

    def __init__(
        self, methods: Mapping[str, Method], debug: bool, now: Callable[[], float] = monotonic
    ) -> None:
        self._methods = methods
        self._debug = debug
        self._now = now
        self._under_way = 0
        self._waiting_for_none: list[Deferred[None]] = []
        self.closing = False
        self.answered = 0

    def none_under_way(self) -> Deferred[None]:
        """Fires when every call that was started has been answered."""
        done: Deferred[None] = Deferred()
        if self._under_way:
            self._waiting_for_none.append(done)
        else:
            done.callback(None)
        return done

    def resource(self) -> KleinResource:
        app = Klein()
        for name in self._methods:
            app.route(f"/{name}", methods=["POST"])(self._route(name))
        app.handle_errors(HTTPException)(self._wrong_request)
        app.handle_errors(Exception)(self._wrong_request)
        return app.resource()

    def _route(self, name: str) -> Callable[[IRequest], Deferred[bytes]]:
        def handler(request: IRequest) -> Deferred[bytes]:
            return self._answer(name, request)

        handler.__name__ = name.replace(".", "_")
        return handler

    def _answer(self, name: str, request: IRequest) -> Deferred[bytes]:
        """
        Started means finished: Klein cancels what we return when the client hangs up, so that is a
        Deferred of its own, and the call itself goes on.
        """
        self._under_way += 1
        started = self._now()
        answer: Deferred[bytes] = Deferred(canceller=lambda _: None)
        raw = cast(Any, request).content.read()

        def finished(result: bytes | Failure) -> None:
            status, encoded = 200, result
            if isinstance(encoded, Failure):
                status, body = error_reply(name, encoded)
                encoded = _encoded(body)
            if self._debug:
                _log.debug(
                    "{method} answered in {milliseconds:.2f} ms: {body}",
                    method=name,
                    milliseconds=(self._now() - started) * 1000,
                    body=encoded.decode().rstrip(),
                )
            if not answer.called:
                answer.callback(self._written(request, status, encoded))
            self._under_way -= 1
            self.answered += 1
            if not self._under_way:
                waiting, self._waiting_for_none = self._waiting_for_none, []
                for done in waiting:
                    done.callback(None)

        ensureDeferred(_encoded_reply(self._methods[name], raw)).addBoth(finished)
        return answer

    def _wrong_request(self, request: IRequest, failure: Failure) -> bytes:
        """No such method, or not a POST."""
        name = legible(request.path.decode("ascii", "replace").lstrip("/"))
        status, body = error_reply(name, failure)
        return self._written(request, status, _encoded(body))

    def _written(self, request: Any, status: int, encoded: bytes) -> bytes:
        request.setResponseCode(status)
        request.setHeader(b"Content-Type", CONTENT_TYPE)
        if self.closing:
            request.setHeader(b"Connection", b"close")
        # Chunked replies cost the engine a new connection a call.
        request.setHeader(b"Content-Length", b"%d" % len(encoded))
        return encoded


def _encoded(body: Mapping[str, Any]) -> bytes:
    return json.dumps(body).encode() + b"\n"


async def _encoded_reply(method: Method, raw: bytes) -> bytes:
    return _encoded(await method(raw))


class StrictChannel(HTTPChannel):
    """
    Twisted's, which takes a Content-Length of thousands of digits for a number that Python would read, and a name of
    kilobytes for one that comes again.
    """

    _host: object = None

    def connectionMade(self) -> None:
        channel: Any = self
        super().connectionMade()
        channel.site.connections.add(self)

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
        try:
            unquote_to_bytes(self.path).decode()
        except UnicodeDecodeError:
            body = _encoded(error_body("no such method: the path is not text"))
            self.setResponseCode(404)
            self.setHeader(b"Content-Type", CONTENT_TYPE)
            self.setHeader(b"Content-Length", b"%d" % len(body))
            with _REFUSE_REQUEST:
                self.write(body)
            self.finish()
            return
        super().process()

    def isSecure(self) -> bool:
        """Sockets here have no TLS; klein asks with each call, and finding it out costs 4 % of one."""
        return False

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
        """
        Send the answer. The reactor alone would do so when it has gone round once more: 4 % fewer calls from 16 callers.
        """
        connection: Any = self.transport
        with _ANSWER:
            super().finish()
            if (
                IWriteDescriptor.providedBy(connection)
                and connection.connected
                and not connection.disconnecting
            ):
                connection.doWrite()  # if that fails, it fails again when the reactor does it, who knows what to do

    def _refuse_body(self) -> None:
        if self.finished or self._is_refused:
            return
        self._is_refused = True
        body = json.dumps(error_body(f"the body is larger than {BODY_LIMIT} bytes")).encode() + b"\n"
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
    """

    protocol = cast(Any, StrictChannel)
    requestFactory = LimitedRequest
    noisy = False

    def __init__(self, resource: Resource, reactor: Any = None) -> None:
        # The engine closes its idle connections itself, or keeps them for good; a time-out of ours could
        # only hit a connection on which it is about to send.
        super().__init__(resource, timeout=None, reactor=reactor)
        self.connections: set[StrictChannel] = set()

    def startFactory(self) -> None:
        """Nothing: it is for the log's sake that the time of day is told each second, and would wake an idle service."""

    def log(self, request: object) -> None:
        """No access log."""

    def close_connections(self) -> None:
        for connection in list(self.connections):
            connection.loseConnection()
