"""dockerd's client for plugins: one call, with dockerd's reaction to bad replies and to none."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

from attrs import define, field

from . import rules
from .recording import Headers
from .rules import CallContext
from .wire import Connection, NoReply, request_bytes

Json = dict[str, Any]

HEADERS: Headers = (
    ("Host", "plugin.moby.localhost"),
    ("User-Agent", "Go-http-client/1.1"),
    ("Content-Length", None),
    ("Accept", "application/vnd.docker.plugins.v1.2+json"),
)

#: Seconds between attempts to connect; the call fails after the last one.
DIAL_AGAIN_AFTER = (1, 2, 4, 8)


class PluginRefused(Exception):
    """The plugin answered with an error; the user sees "remote: ..."."""


class BadReply(AssertionError):
    """The plugin's reply is one that a real engine could not use."""


@define
class PluginClient:
    """Makes calls as dockerd 29 does, and keeps a list of them."""

    socket_path: str
    sleep: Callable[[float], None] = time.sleep
    #: Methods in the order in which they were called.
    calls: list[str] = field(factory=list, init=False)
    _connection: Connection | None = field(default=None, init=False)

    def call(self, method: str, body: Json | None = None, context: CallContext | None = None) -> Json:
        """One call.

        :raises PluginRefused: the plugin said no.
        :raises BadReply: an engine could not have used the answer.
        """
        self.calls.append(method)
        text = "" if body is None else json.dumps(body, separators=(",", ":")) + "\n"
        reply = self._reply_to(method, text)
        complaints = rules.check_http(reply.status, reply.headers, reply.body, reply.json)
        if complaints:
            raise BadReply(f"{method}: {'; '.join(complaints)}")
        if rules.is_error(reply.json):
            complaints = rules.check_error(reply.json)
            if complaints:
                raise BadReply(f"{method}: {'; '.join(complaints)}")
            raise PluginRefused(f"remote: {reply.json['Err']}")
        complaints = rules.check_successful_reply(method, body or {}, reply.json, context or CallContext())
        if complaints:
            raise BadReply(f"{method}: {'; '.join(complaints)}")
        answer: Json = reply.json
        return answer

    def attempt(self, method: str, body: Json) -> None:
        """A call whose failure an engine logs and forgets: all removals, and EndpointOperInfo."""
        try:
            self.call(method, body)
        except PluginRefused:
            return

    def close(self) -> None:
        """Hang up, as an idle engine does."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _reply_to(self, method: str, text: str) -> Any:
        self._dial()
        assert self._connection is not None
        try:
            return self._connection.exchange(request_bytes(method, HEADERS, text))
        except NoReply:
            # A bug of all engines: the body was consumed by the first attempt.
            self.sleep(1)
            self.close()
            self._dial()
            return self._connection.exchange(request_bytes(method, HEADERS, ""))

    def _dial(self) -> None:
        if self._connection is not None and not self._connection.is_dead():
            return
        self.close()
        connection = Connection(self.socket_path)
        for pause in DIAL_AGAIN_AFTER:
            try:
                connection.open()
                break
            except OSError:
                connection.close()
                self.sleep(pause)
        else:
            connection.open()
        self._connection = connection
