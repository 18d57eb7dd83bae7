"""
The calls: the Klein resource tree, what is answered to each, and how many are being answered.

No other file touches an HTTP request of the engine's; what comes before there is a whole one is in :mod:`.site`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from time import monotonic
from typing import Any, cast

from klein import Klein
from klein.resource import KleinResource
from twisted.internet.defer import Deferred, ensureDeferred, maybeDeferred
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.iweb import IRequest
from twisted.web.server import NOT_DONE_YET
from werkzeug.exceptions import HTTPException

from .errors import error_reply, legible
from .methods import Method
from .replies import CONTENT_TYPE, as_json
from .site import LimitedRequest

Handler = Callable[[IRequest], "Deferred[bytes]"]

_log = Logger(namespace="macvlan_twisted.protocol")


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

    def resource(self) -> CallsResource:
        app = Klein()
        by_path = {}
        for name in self._methods:
            handler = by_path[f"/{name}".encode()] = self._route(name)
            app.route(f"/{name}", methods=["POST"])(handler)
        app.handle_errors(HTTPException)(self._wrong_request)
        app.handle_errors(Exception)(self._wrong_request)
        return CallsResource(app, by_path, self._wrong_request)

    def _route(self, name: str) -> Handler:
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
                encoded = as_json(body)
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
        return self._written(request, status, as_json(body))

    def _written(self, request: Any, status: int, encoded: bytes) -> bytes:
        request.setResponseCode(status)
        request.setHeader(b"Content-Type", CONTENT_TYPE)
        if self.closing:
            request.setHeader(b"Connection", b"close")
        # Chunked replies cost the engine a new connection a call.
        request.setHeader(b"Content-Length", b"%d" % len(encoded))
        return encoded


async def _encoded_reply(method: Method, raw: bytes) -> bytes:
    return as_json(await method(raw))


class CallsResource(KleinResource):
    """
    Klein's tree of our calls. What the engine posts to is always spelt as the tree has it, and goes to its handler from here:
    klein's way there, made for routes with parts that vary, takes a fifth of all that a call costs us. Whatever is spelt
    otherwise, or is wrong, klein finds a handler for.

    :param by_path: the handlers of the tree's POST routes.
    :param fail: answers when a handler fails, as the tree's own handler of errors does.
    """

    def __init__(
        self,
        app: Klein,
        by_path: Mapping[bytes, Handler],
        fail: Callable[[IRequest, Failure], bytes],
    ) -> None:
        super().__init__(app)
        self._by_path = by_path
        self._fail = fail

    def render(self, request: IRequest) -> Any:
        handler = self._by_path.get(request.path) if request.method == b"POST" else None
        if handler is None:
            return super().render(request)
        answer = maybeDeferred(handler, request)
        answer.addErrback(lambda failure: self._fail(request, failure))
        answer.addCallback(cast(LimitedRequest, request).answer)
        return NOT_DONE_YET
