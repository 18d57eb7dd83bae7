"""
The engine's connections.

What the engine's client is like (docs/reference/protocol): blank Host, no Content-Type, keep-alive, many
connections at once, and no time-out of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from twisted.web.resource import Resource
from twisted.web.server import Site

from .shortcut import Answer, EngineChannel
from .strict_http import LimitedRequest


class PluginSite(Site):
    """
    The engine's connections.

    Calls are not logged one by one: it costs a fifth of a call, and ``--debug`` tells more.

    :param answers: to the engine's calls, by path, where they come as an engine sends them.
    :param resource: answers whatever else comes.
    """

    protocol = cast(Any, EngineChannel)
    requestFactory = LimitedRequest
    noisy = False

    def __init__(self, resource: Resource, answers: Mapping[bytes, Answer], reactor: Any = None) -> None:
        # The engine closes its idle connections itself, or keeps them for good; a time-out of ours could
        # only hit a connection on which it is about to send.
        super().__init__(resource, timeout=None, reactor=reactor)
        self.answers = answers
        self.connections: set[EngineChannel] = set()

    def startFactory(self) -> None:
        """Nothing: it is for the log's sake that the time of day is told each second, and would wake an idle service."""

    def log(self, request: object) -> None:
        """No access log."""

    def close_connections(self) -> None:
        for connection in list(self.connections):
            connection.loseConnection()
