"""HTTP requests that can be cancelled at any time, for the clients of Docker's API and of etcd."""

from __future__ import annotations

from typing import Any, cast

from twisted.internet.defer import Deferred
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.web.client import ResponseDone
from twisted.web.http import PotentialDataLoss


class _Body(Protocol):
    """
    Reads a whole body. ``readBody`` cannot be cancelled here: it wants to abort the connection, which the transport of a response
    cannot, and then has two results when the connection ends.
    """

    def __init__(self) -> None:
        self._received: list[bytes] = []
        self.read: Deferred[bytes] = Deferred(self._end)

    def _end(self, _: Deferred[bytes]) -> None:
        cast(Any, self.transport).loseConnection()

    def dataReceived(self, data: bytes) -> None:
        self._received.append(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self.read.called:  # it was cancelled
            return
        if reason.check(ResponseDone, PotentialDataLoss):
            self.read.callback(b"".join(self._received))
        else:
            self.read.errback(reason)


def read_body(response: Any) -> Deferred[bytes]:
    """:return: fires with the body of a response; cancelled, it closes the connection."""
    body = _Body()
    response.deliverBody(body)
    return body.read


def cancellable(work: Deferred[Any]) -> Deferred[Any]:
    """:return: fires as *work* does. Cancelled, it fails by CancelledError, whatever Twisted makes of an aborted request."""
    is_cancelled = False

    def cancel(result: Deferred[Any]) -> None:
        nonlocal is_cancelled
        is_cancelled = True
        work.cancel()

    def fire(outcome: Any) -> None:
        if not is_cancelled:
            result.callback(outcome)

    result: Deferred[Any] = Deferred(cancel)
    work.addBoth(fire)
    return result
