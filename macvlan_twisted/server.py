"""The server of the engine's calls: it ends when all that have arrived are answered."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import CancelledError
from twisted.internet.task import deferLater
from twisted.logger import Logger

from .listener.listener import Listener
from .protocol.routes import PluginApp
from .protocol.site import PluginSite

_log = Logger(namespace="macvlan_twisted")

QUIET_BEFORE_CLOSING = 0.1
"""Seconds without a call after which, at the end, the engine's idle connections are closed."""


class Server:
    """Serves the engine's calls, and answers all that have arrived before it stops."""

    def __init__(self, listener: Listener, site: PluginSite, app: PluginApp, clock: Any) -> None:
        self._listener = listener
        self._site = site
        self._app = app
        self._clock = clock
        self._is_listening = False

    def start(self) -> None:
        """:raises StartupError: the listener cannot listen."""
        self._listener.listen(self._site)
        self._is_listening = True

    async def stop(self) -> None:
        if not self._is_listening:
            return
        self._is_listening = False
        self._app.closing = True
        await self._listener.stop_accepting()
        try:
            await self._drain()
        except CancelledError:
            # Cause: the kernel or the disk did not answer in time. Remedy: none needed; the engine
            # repeats the calls when the plugin is back.
            _log.error(
                "plugin: stopped without answering {calls}",
                calls=", ".join(self._app.under_way()),
            )
        await self._listener.stop_listening()
        self._site.close_connections()

    async def _drain(self) -> None:
        """
        Answer until no more calls arrive.

        A connection that ends without a reply costs the engine its call: it repeats the call without its body, and gives
        up. So whatever was sent before is answered. The engine sends its next call the moment it has a reply, over any
        open connection. Each reply now closes its connection, so this ends soon.
        """
        while True:
            answered = self._app.answered
            await deferLater(self._clock, QUIET_BEFORE_CLOSING)
            await self._app.none_under_way()
            if self._app.answered == answered:
                return
