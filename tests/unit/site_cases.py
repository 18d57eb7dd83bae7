"""The site without sockets: a test writes a client's bytes and reads the reply's."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, cast

from attrs import define
from twisted.internet.address import UNIXAddress
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure

from macvlan_twisted.protocol.routes import Method, PluginApp, all_methods
from macvlan_twisted.protocol.site import PluginSite

from .helpers import PluginHarness, PluginTestCase


@define
class Reply:
    """One reply as the engine's client reads it: by its Content-Length."""

    status: int
    headers: dict[str, str]
    body: Any


def read_replies(raw: bytes) -> list[Reply]:
    replies = []
    while raw:
        head, _, rest = raw.partition(b"\r\n\r\n")
        first, *lines = head.decode().split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        length = int(headers["content-length"])
        replies.append(Reply(int(first.split()[1]), headers, json.loads(rest[:length])))
        raw = rest[length:]
    return replies


def request(method: str, body: bytes, verb: str = "POST", host: str = "Host: ") -> bytes:
    """A request as engine 20.10 writes it: a blank Host and no Content-Type."""
    head = (
        f"{verb} /{method} HTTP/1.1\r\n{host}\r\nUser-Agent: Go-http-client/1.1\r\n"
        f"Content-Length: {len(body)}\r\nAccept: application/vnd.docker.plugins.v1.2+json\r\n\r\n"
    )
    return head.encode() + body


class Connection:
    """One connection of a client."""

    def __init__(self, site: PluginSite, transport: type[StringTransport] = StringTransport) -> None:
        address: Any = UNIXAddress(b"/run/macvlan-twisted.sock")
        self._protocol: Any = site.buildProtocol(address)
        self.transport = cast(Any, transport(hostAddress=address))
        self._protocol.makeConnection(self.transport)
        self._is_connected = True

    def send(self, raw: bytes) -> None:
        self._protocol.dataReceived(raw)

    @property
    def raw(self) -> bytes:
        value: bytes = self.transport.value()
        return value

    @property
    def replies(self) -> list[Reply]:
        return read_replies(self.raw)

    @property
    def is_open(self) -> bool:
        return self._is_connected and not self.transport.disconnecting

    def half_close(self) -> None:
        """Send no more, and go on to read."""
        half_closeable: Any = IHalfCloseableProtocol(self._protocol)
        half_closeable.readConnectionLost()

    def hang_up(self) -> None:
        self._is_connected = False
        self._protocol.connectionLost(Failure(ConnectionDone()))


class SiteTestCase(PluginTestCase):
    """The whole plugin on fakes, behind its site."""

    def setUp(self) -> None:
        super().setUp()
        self.serve(self.plugin)

    def serve(self, plugin: PluginHarness) -> None:
        self.plugin = plugin
        self.serve_methods(
            all_methods(
                plugin.networks,
                plugin.endpoints,
                plugin.joining,
                plugin.removal,
                plugin.pool_binding,
                plugin.pools,
                plugin.addresses,
            )
        )

    def serve_methods(self, methods: Mapping[str, Method]) -> None:
        self.app = PluginApp(methods, debug=False)
        self.site = PluginSite(self.app.resource())

    def connect(self) -> Connection:
        return Connection(self.site)

    def post_raw(self, method: str, body: bytes) -> Reply:
        connection = self.connect()
        connection.send(request(method, body))
        (reply,) = connection.replies
        connection.hang_up()
        return reply

    def post(self, method: str, **body: Any) -> Any:
        reply = self.post_raw(method, json.dumps(body).encode() + b"\n")
        self.assertEqual(reply.status, 200, reply)
        return reply.body

    def refused(self, method: str, *words: str, **body: Any) -> None:
        reply = self.post(method, **body)
        self.assertEqual(set(reply), {"Err", "Error"})
        self.assertEqual(reply["Err"], reply["Error"])
        for word in words:
            self.assertIn(word, reply["Err"])
