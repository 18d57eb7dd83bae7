"""The order in which the service starts and stops its parts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, cast

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from macvlan_twisted.errors import LinkError, StartupError
from macvlan_twisted.protocol.routes import PluginApp
from macvlan_twisted.protocol.site import PluginSite
from macvlan_twisted.server import Server
from macvlan_twisted.service import STOP_TIMEOUT, BackgroundTask, MacvlanService, Part
from macvlan_twisted.worker_threads import StuckThread

from .site_cases import Connection, request


class PartTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.events: list[str] = []
        self.failures: dict[str, Exception] = {}
        self.waits: dict[str, Deferred[None]] = {}
        self.clock = Clock()
        self.service = MacvlanService(self.parts, self.clock)

    def parts(self) -> Iterator[Part]:
        for name in ("lock", "threads", "server"):
            yield Part(name, self.event(f"start {name}"), self.stop_of(name))

    def event(self, name: str) -> Callable[[], None]:
        def happen() -> None:
            self.events.append(name)
            if name in self.failures:
                raise self.failures[name]

        return happen

    def stop_of(self, name: str) -> Callable[[], Deferred[None] | None]:
        def stop() -> Deferred[None] | None:
            self.event(f"stop {name}")()
            return self.waits.get(name)

        return stop

    def test_parts_stop_in_reverse_order_and_start_again(self) -> None:
        for _ in range(2):
            self.service.startService()
            self.assertEqual(self.events, ["start lock", "start threads", "start server"])
            self.events.clear()
            self.successResultOf(self.service.stopService())
            self.assertEqual(self.events, ["stop server", "stop threads", "stop lock"])
            self.events.clear()

    def test_failed_start_stops_what_was_started(self) -> None:
        """The part that failed, too: it may have come half-way."""
        self.failures["start threads"] = LinkError("no")
        self.assertRaises(StartupError, self.service.startService)
        self.assertEqual(self.events, ["start lock", "start threads", "stop threads", "stop lock"])
        self.assertFalse(self.service.running)

    def test_next_part_stops_after_the_previous_one_has_stopped(self) -> None:
        self.waits["server"] = Deferred()
        self.service.startService()
        stopped = self.service.stopService()
        self.assertEqual(self.events[3:], ["stop server"])
        self.waits["server"].callback(None)
        self.successResultOf(stopped)
        self.assertEqual(self.events[3:], ["stop server", "stop threads", "stop lock"])

    def test_error_of_one_part_does_not_keep_the_others_running(self) -> None:
        self.failures["stop server"] = ValueError("a bug")
        self.service.startService()
        self.successResultOf(self.service.stopService())
        self.assertEqual(self.events[3:], ["stop server", "stop threads", "stop lock"])
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)

    def test_parts_that_do_not_stop_hold_up_the_end_for_a_minute(self) -> None:
        self.waits["server"], self.waits["threads"] = Deferred(), Deferred()
        self.failures["stop lock"] = StuckThread("no")
        self.service.startService()
        with capturedLogs() as events:
            stopped = self.service.stopService()
            self.clock.advance(STOP_TIMEOUT - 1)
            self.assertEqual(self.events[3:], ["stop server"])
            self.clock.advance(1)
            self.clock.advance(0)
        self.successResultOf(stopped)
        self.assertEqual(self.events[3:], ["stop server", "stop threads", "stop lock"])
        logged = [each.get("part", "stopped") for each in events]
        self.assertEqual(logged, ["server", "threads", "lock", "stopped"])
        self.assertEqual(self.clock.getDelayedCalls(), [])


class ServerTests(SynchronousTestCase):
    def test_stuck_call_is_named_and_does_not_hold_up_the_end(self) -> None:
        async def stuck(body: bytes) -> dict[str, object]:
            await Deferred()
            return {}

        clock, listener = Clock(), RecordingListener()
        app = PluginApp({"NetworkDriver.Join": stuck}, debug=False)
        site = PluginSite(app.resource(), clock)
        server = Server(cast(Any, listener), site, app, clock)
        service = MacvlanService(lambda: [Part("server", server.start, server.stop)], clock)
        service.startService()
        Connection(site).send(request("NetworkDriver.Join", b"{}"))
        with capturedLogs() as events:
            stopped = service.stopService()
            clock.advance(1)
            clock.advance(STOP_TIMEOUT - 2)
            self.assertNoResult(stopped)
            self.assertEqual(listener.events, ["listen", "stop accepting"])
            clock.advance(1)
        self.successResultOf(stopped)
        self.assertEqual(listener.events[2:], ["stop listening"])
        self.assertIn("without answering NetworkDriver.Join", formatEvent(events[0]))


class RecordingListener:
    def __init__(self) -> None:
        self.events: list[str] = []

    def listen(self, site: object) -> None:
        self.events.append("listen")

    async def stop_accepting(self) -> None:
        self.events.append("stop accepting")

    async def stop_listening(self) -> None:
        self.events.append("stop listening")


class BackgroundTaskTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.waiting: Deferred[None] = Deferred()
        self.cancelled = False

    async def run_until_cancelled(self) -> None:
        try:
            await self.waiting
        except CancelledError:
            self.cancelled = True
            raise

    def test_stop_cancels_the_task_without_a_log_line(self) -> None:
        task = BackgroundTask(self.run_until_cancelled)
        task.start()
        self.assertFalse(self.cancelled)
        task.stop()
        self.assertTrue(self.cancelled)
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_failure_of_a_task_is_logged(self) -> None:
        task = BackgroundTask(self.run_until_cancelled)
        task.start()
        self.waiting.errback(ValueError("a bug"))
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)
        task.stop()
