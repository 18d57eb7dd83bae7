"""
Life: lock, open state, reconcile, listen ... stop listening, drain, close.

All of the start happens at once in ``startService``, so that a failure is known there and then.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from twisted.application.service import Service
from twisted.internet.defer import Deferred, ensureDeferred
from twisted.internet.task import deferLater
from twisted.logger import Logger

from .config import Config
from .errors import MacvlanError, StartupError
from .listener.file_lock import FileLock
from .listener.listener import Listener, make_listener
from .state.directory import prepare_directory

_log = Logger(namespace="macvlan_twisted")

QUIET_BEFORE_CLOSING = 0.1
"""Seconds without a call after which, at the end, the engine's idle connections are closed."""


class Parts(Protocol):
    """What :mod:`macvlan_twisted.plugin` wires together once the state directory is ours."""

    site: Any
    calls: Any

    def start_threads(self) -> None:
        """Called before the service listens: from now on nothing blocks."""

    def start_background(self) -> None:
        """Called once the service answers."""

    def stop_background(self) -> None:
        """Called first of all when the service stops, also if it was never started."""

    async def close(self) -> None:
        """Called when the last call has been answered, or the start has failed."""


class MacvlanService(Service):
    """
    The whole plugin as one Twisted service.

    :param open_parts: opens the state, reconciles and wires; blocks, and runs with the state's lock held. What it
        has opened it closes itself if it fails.
    """

    def __init__(self, reactor: Any, config: Config, open_parts: Callable[[], Parts]) -> None:
        self.name = "macvlan-twisted"
        self._reactor = reactor
        self._config = config
        self._open_parts = open_parts
        self._lock: FileLock | None = None
        self._place: Listener | None = None
        self._parts: Parts | None = None

    def startService(self) -> None:
        """
        :raises StartupError: and nothing of ours is left behind, whatever is raised.
        """
        try:
            self._start()
        except BaseException as error:
            self._give_up()
            if isinstance(error, StartupError) or not isinstance(error, (MacvlanError, OSError)):
                raise
            raise StartupError(_one_line(error)) from error
        super().startService()

    def _start(self) -> None:
        directory = Path(self._config.state_dir)
        prepare_directory(directory)
        self._lock = FileLock(directory / "lock", f"state directory {directory}", "--state-dir")
        self._place = make_listener(self._reactor, self._config)
        self._place.take()
        self._parts = self._open_parts()
        self._parts.start_threads()
        self._place.listen(self._parts.site)
        _log.info("listening on {where}", where=self._config.listen or self._config.socket_path)
        self._parts.start_background()

    def _give_up(self) -> None:
        parts, self._parts = self._parts, None
        try:
            if parts is not None:
                parts.stop_background()
                closed = ensureDeferred(parts.close())  # at once, for nothing is under way yet
                closed.addErrback(
                    lambda failure: _log.failure("closing after a failed start failed", failure=failure)
                )
        finally:
            self._release()

    def stopService(self) -> Deferred[None]:
        """Stop accepting, finish and answer what has started, remove the socket."""
        super().stopService()
        stopped = ensureDeferred(self._stop())
        stopped.addErrback(lambda failure: _log.failure("stopping failed", failure=failure))
        return stopped

    async def _stop(self) -> None:
        parts, self._parts = self._parts, None
        try:
            if parts is not None and self._place is not None:
                parts.stop_background()
                parts.calls.closing = True
                await self._place.stop_accepting()
                await self._drain(parts)
                await self._place.stop_listening()
                parts.site.close_connections()
        finally:
            try:
                if parts is not None:
                    await parts.close()  # or its threads would keep the process alive
            finally:
                self._release()
        _log.info("stopped")

    async def _drain(self, parts: Parts) -> None:
        """
        Answer until nothing comes any more.

        A connection that ends without an answer costs the engine its call: it repeats it without the body, and
        gives up. So what was dialled or sent before is answered. The engine sends its next call the moment it has
        an answer, over any connection that it keeps; but each answer asks for the end of its connection, so this
        ends soon.
        """
        while True:
            answered = parts.calls.answered
            await deferLater(self._reactor, QUIET_BEFORE_CLOSING)
            await parts.calls.none_under_way()
            if parts.calls.answered == answered:
                return

    def _release(self) -> None:
        place, self._place = self._place, None
        lock, self._lock = self._lock, None
        try:
            if place is not None:
                place.release()
        finally:
            if lock is not None:
                lock.release()


def _one_line(error: BaseException) -> str:
    if isinstance(error, OSError):
        return f"{error.filename or ''}: {error.strerror}".removeprefix(": ")
    return str(error)
