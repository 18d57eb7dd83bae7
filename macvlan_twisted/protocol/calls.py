"""
The calls: the Klein resource tree, what is answered to each, and how many are being answered.

What comes before there is a whole request is in :mod:`.shortcut` and :mod:`.strict_http`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from time import monotonic
from typing import Any, cast

from klein import Klein
from klein.resource import KleinResource
from twisted.internet.defer import Deferred, ensureDeferred
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.iweb import IRequest
from werkzeug.exceptions import HTTPException

from .errors import error_reply, legible
from .replies import as_json, with_head
from .routes import Method
from .shortcut import Answer

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

    def resource(self) -> KleinResource:
        app = Klein()
        for name in self._methods:
            app.route(f"/{name}", methods=["POST"], endpoint=name)(self._route(name))
        app.handle_errors(HTTPException)(self._wrong_request)
        app.handle_errors(Exception)(self._wrong_request)
        return app.resource()

    def by_path(self) -> dict[bytes, Answer]:
        """The tree's routes once more, for the :mod:`.shortcut`."""
        return {f"/{name}".encode(): partial(self._answer, name) for name in self._methods}

    def _route(self, name: str) -> Callable[[IRequest], Deferred[bytes]]:
        def route(request: IRequest) -> Deferred[bytes]:
            answered: Deferred[bytes] = Deferred(canceller=lambda _: None)  # by klein, if the client hangs up

            def tell(status: int, body: bytes, is_last: bool) -> None:
                if not answered.called:
                    answered.callback(with_head(request, status, body, is_last))

            self._answer(name, cast(Any, request).content.read(), tell)
            return answered

        return route

    def _answer(self, name: str, raw: bytes, tell: Callable[[int, bytes, bool], None]) -> None:
        """
        Started means finished: nothing that the client does reaches what is done for it.

        :param tell: as in :data:`.shortcut.Answer`.
        """
        self._under_way += 1
        started = self._now()

        def finished(result: bytes | Failure) -> None:
            try:
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
                tell(status, encoded, self.closing)
            except Exception:  # also of what comes behind it on the same connection, and begins now
                _log.failure("{method} was not answered", method=name)
            finally:
                self._is_answered()

        ensureDeferred(_encoded_reply(self._methods[name], raw)).addBoth(finished)

    def _is_answered(self) -> None:
        self._under_way -= 1
        self.answered += 1
        if not self._under_way:
            waiting, self._waiting_for_none = self._waiting_for_none, []
            for done in waiting:
                done.callback(None)

    def _wrong_request(self, request: IRequest, failure: Failure) -> bytes:
        """No such method, or not a POST."""
        name = legible(request.path.decode("ascii", "replace").lstrip("/"))
        status, body = error_reply(name, failure)
        return with_head(request, status, as_json(body), self.closing)


async def _encoded_reply(method: Method, raw: bytes) -> bytes:
    return as_json(await method(raw))
