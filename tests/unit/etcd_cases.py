"""An agent that stands for the members of an etcd cluster, in memory."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from twisted.internet.defer import CancelledError, Deferred, fail, succeed
from twisted.internet.error import ConnectionRefusedError
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.web.client import ResponseDone, ResponseNeverReceived
from twisted.web.http_headers import Headers
from twisted.web.iweb import IResponse
from zope.interface import implementer

A, B, C = MEMBERS = ("http://a:2379", "http://b:2379", "http://c:2379")
HEADER = {"cluster_id": "7", "member_id": "1", "revision": "5", "raft_term": "2"}
Json = Mapping[str, Any]


@implementer(IResponse)
class Response:
    """The beginning of an answer; a test may write its body, or *whole* is it."""

    version, phrase, length = (b"HTTP", 1, 1), b"", 0
    request = previousResponse = None

    def __init__(self, code: int = 200, whole: bytes | None = None) -> None:
        self.code = code
        self.headers = Headers()
        self.transport = StringTransport()
        self._whole = whole

    def deliverBody(self, protocol: Any) -> None:
        self.body = protocol
        protocol.makeConnection(self.transport)
        if self._whole is not None:
            protocol.dataReceived(self._whole)
            self.end()

    def write(self, *messages: Json) -> None:
        for each in messages:
            self.body.dataReceived(json.dumps(each).encode() + b"\n")

    def end(self, last: bytes = b"") -> None:
        if last:
            self.body.dataReceived(last)
        self.body.connectionLost(Failure(ResponseDone()))

    def setPreviousResponse(self, response: Any) -> None:
        raise NotImplementedError


def answer(fields: Json | None = None, code: int = 200) -> Response:
    return Response(code, json.dumps({"header": HEADER, **(fields or {})}).encode())


def refusal(code: int, message: str, status: int = 400) -> Response:
    return Response(status, json.dumps({"code": code, "message": message}).encode())


def refused() -> Deferred[Any]:
    """Nobody listens."""
    return fail(ConnectionRefusedError("nobody listens"))


def silence() -> Deferred[Any]:
    """No answer; reports an aborted request as Twisted's agent does."""
    return Deferred(lambda result: result.errback(ResponseNeverReceived([Failure(CancelledError())])))


Behaviour = Callable[[str, Json], Response | Deferred[Any]]


class FakeEtcd:
    """
    ``IAgent``: each member answers as the test wants.

    A test replaces :attr:`behaviours`, by URL: from the path and the body of a request to the answer.
    """

    def __init__(self, members: Sequence[str] = MEMBERS) -> None:
        self.behaviours: dict[str, Behaviour] = dict.fromkeys(members, lambda path, body: answer())
        self.asked: list[tuple[str, str]] = []
        """Members and paths; member lists are left out, unless a test wants them."""
        self.tokens: list[str] = []
        self.bodies: list[Json] = []
        self.lists_members: Sequence[str] = ()

    def request(self, method: bytes, uri: bytes, headers: Headers, producer: Any) -> Deferred[Any]:
        parts = urlsplit(uri.decode())
        member = f"{parts.scheme}://{parts.netloc}"
        written = StringTransport()
        producer.startProducing(written)
        body = json.loads(written.value())
        if parts.path == "/v3/cluster/member/list":
            members = [{"name": "m", "clientURLs": [each]} for each in self.lists_members]
            return succeed(answer({"members": members}))
        self.asked.append((member, parts.path))
        self.bodies.append(body)
        self.tokens.append(headers.getRawHeaders("Authorization", [""])[0])
        result = self.behaviours[member](parts.path, body)
        return succeed(result) if isinstance(result, Response) else result

    def take_asked(self) -> list[str]:
        """The members that were asked since the last time."""
        asked, self.asked = self.asked, []
        return [member for member, _ in asked]
