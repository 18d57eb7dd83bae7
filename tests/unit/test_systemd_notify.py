"""What systemd receives: when calls are answered, signs of life, and none while something is stuck."""

from __future__ import annotations

import os
import socket
import threading
from typing import Any, cast

from attrs import evolve
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase

from macvlan_twisted import service as life
from macvlan_twisted.config import Config
from macvlan_twisted.protocol.routes import Call, PluginApp
from macvlan_twisted.systemd_notify import (
    LONGEST_CALL,
    RETRY_DELAY,
    Notifier,
    SystemdNotifications,
    Watched,
    watch,
)
from macvlan_twisted.testing.kernel import FakeKernel, nic
from macvlan_twisted.worker_threads import WorkerThreads

from .helpers import fresh_directory
from .test_service_start import Reactor
from .test_worker_threads import ManualReactor

READY = "READY=1\nSTATUS=listening on lan.sock"
ALIVE = "WATCHDOG=1\nSTATUS=listening on lan.sock; 2 networks"
STOPPING = "STOPPING=1\nSTATUS=stopping"


class NotifyTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.place = fresh_directory(self) / "notify"
        self.socket = self.receiver(str(self.place))
        self.notifier = Notifier(str(self.place), 120.0)
        self.clock = Clock()

    def receiver(self, address: str) -> socket.socket:
        receiver = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self.addCleanup(receiver.close)
        receiver.bind(address)
        return receiver

    def received(self, receiver: socket.socket | None = None) -> list[str]:
        messages = []
        while True:
            try:
                messages.append((receiver or self.socket).recv(4096).decode())
            except BlockingIOError:
                return messages

    def notifications(
        self, *watched: Watched, notifier: Notifier | None = None, reactor: Any = None
    ) -> SystemdNotifications:
        self.reactor = reactor or MemoryReactorClock()
        return SystemdNotifications(
            notifier or self.notifier, self.reactor, self.clock, watched, "lan.sock", lambda: "2 networks"
        )

    def run_reactor(self) -> None:
        for call, arguments, words in self.reactor.whenRunningHooks:
            call(*arguments, **words)


class NotifierTests(NotifyTestCase):
    def test_environment_names_socket_and_watchdog(self) -> None:
        environment = {"NOTIFY_SOCKET": "/run/notify", "WATCHDOG_USEC": "120000000", "WATCHDOG_PID": "7"}
        self.assertEqual(Notifier.from_environment(environment, 7), Notifier("/run/notify", 120.0))
        self.assertEqual(Notifier.from_environment(environment, 8), Notifier("/run/notify", 0.0))
        del environment["WATCHDOG_PID"]
        self.assertEqual(Notifier.from_environment(environment, 8), Notifier("/run/notify", 120.0))
        self.assertEqual(Notifier.from_environment({}, 7), Notifier())

    def test_assignments_of_one_message_are_lines(self) -> None:
        self.notifier.notify("READY=1", "STATUS=one")
        self.assertEqual(self.received(), ["READY=1\nSTATUS=one"])

    def test_at_sign_begins_an_abstract_socket(self) -> None:
        name = f"macvlan-twisted-test-{os.getpid()}"
        receiver = self.receiver("\0" + name)
        Notifier("@" + name).notify("READY=1")
        self.assertEqual(self.received(receiver), ["READY=1"])


class ReadyTests(NotifyTestCase):
    def test_ready_is_sent_when_the_reactor_runs(self) -> None:
        self.notifications().start()
        self.assertEqual(self.received(), [])
        self.run_reactor()
        self.assertEqual(self.received(), [READY, ALIVE])

    def test_full_queue_of_systemd_delays_ready(self) -> None:
        fillers = 0
        try:
            while True:
                self.notifier.notify("filler")
                fillers += 1
        except BlockingIOError:
            pass
        self.notifications().start()
        self.run_reactor()
        self.assertEqual(self.received(), ["filler"] * fillers)
        self.clock.advance(RETRY_DELAY)
        self.assertEqual(self.received(), [READY, ALIVE])

    def test_missing_socket_is_a_warning_and_not_tried_again(self) -> None:
        self.place.unlink()
        notifications = self.notifications()
        notifications.start()
        self.run_reactor()
        self.assertEqual(self.clock.getDelayedCalls(), [])
        notifications.stop()

    def test_stop_is_reported_and_ends_all_timers(self) -> None:
        notifications = self.notifications()
        notifications.start()
        self.run_reactor()
        notifications.stop()
        self.assertEqual(self.received(), [READY, ALIVE, STOPPING])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_stop_before_the_reactor_runs_sends_no_ready(self) -> None:
        notifications = self.notifications()
        notifications.start()
        notifications.stop()
        self.run_reactor()
        self.assertEqual(self.received(), [STOPPING])


class WatchdogTests(NotifyTestCase):
    def started(self, *watched: Watched) -> SystemdNotifications:
        notifications = self.notifications(*watched)
        notifications.start()
        self.run_reactor()
        self.received()
        return notifications

    def signs_of_life(self, seconds: int) -> list[int]:
        """In which of the next *seconds* one is received."""
        signs = []
        for second in range(1, seconds + 1):
            self.clock.advance(1)
            signs += [second for each in self.received() if "WATCHDOG=1" in each]
        return signs

    def stuck_since(self, moment: float, limit: float = 90.0) -> Watched:
        return Watched("disk", lambda: self.clock.seconds() - moment, limit)

    def test_signs_of_life_come_every_40_seconds(self) -> None:
        """Fewer wake-ups than one in 30 seconds, and a reactor that stalls for a minute is in time."""
        self.started()
        self.assertEqual(self.signs_of_life(200), [40, 80, 120, 160, 200])

    def test_unit_without_watchdog_gets_no_signs_of_life(self) -> None:
        self.notifications(notifier=evolve(self.notifier, watchdog=0.0)).start()
        self.run_reactor()
        self.assertEqual(self.received(), [READY])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_job_older_than_its_limit_ends_the_signs_of_life(self) -> None:
        self.started(self.stuck_since(0))
        self.assertEqual(self.signs_of_life(400), [40, 80])

    def test_status_names_what_is_stuck(self) -> None:
        self.started(self.stuck_since(0))
        self.clock.pump([40] * 3)
        self.assertEqual(self.received()[-1], "STATUS=stuck: disk has not answered for 120 s")

    def test_each_thread_is_watched_for_three_quarters_of_the_time(self) -> None:
        """A thread that spends 60 s on a job, as for a disk that stalls, is fine. One that goes on is not."""
        for number, name in enumerate(("netlink", "netlink deletion", "state")):
            with self.subTest(name):
                reactor, release = ManualReactor(), threading.Event()
                pools = [
                    WorkerThreads(reactor, 1, each, now=self.clock.seconds)
                    for each in ("netlink", "netlink deletion", "state")
                ]
                for pool in pools:
                    pool.start()
                notifications = self.started(*watch(self.notifier, pools, self.app()))
                job = pools[number](release.wait)
                self.assertEqual(self.signs_of_life(60), [40])
                release.set()
                reactor.turn()
                self.successResultOf(job)
                self.assertEqual(self.signs_of_life(60), [20, 60])
                release.clear()
                pools[number](release.wait)
                self.assertEqual(self.signs_of_life(400), [40, 80])
                self.assertIn(f"stuck: thread macvlan-twisted {name} has not", self.status())
                release.set()
                reactor.turn()
                self.assertTrue(self.signs_of_life(40), "it has come back")
                notifications.stop()
                for pool in pools:
                    pool.stop()

    def status(self) -> str:
        """The next status that is received."""
        self.clock.advance(40)
        return self.received()[-1]

    def app(self) -> PluginApp:
        return PluginApp({}, False, self.clock.seconds)

    def test_call_that_is_never_answered_ends_the_signs_of_life(self) -> None:
        """After a time that no DHCP server may take."""
        app = self.app()
        app._under_way[Call("NetworkDriver.CreateEndpoint", 0.0, cast(Any, None), Deferred())] = None
        self.started(*watch(self.notifier, [], app))
        self.assertEqual(len(self.signs_of_life(2000)), LONGEST_CALL // 40)

    def test_second_job_counts_from_its_own_beginning(self) -> None:
        reactor, first, second = ManualReactor(), threading.Event(), threading.Event()
        threads = WorkerThreads(reactor, 2, "netlink", now=self.clock.seconds)
        threads.start()
        self.addCleanup(threads.stop)
        threads(first.wait)
        self.clock.advance(50)
        threads(second.wait)
        self.clock.advance(10)
        self.assertEqual(threads.longest_wait(), 60)
        first.set()
        reactor.turn()
        self.assertEqual(threads.longest_wait(), 10)
        second.set()
        reactor.turn()
        self.assertEqual(threads.longest_wait(), 0)


class ServiceTests(NotifyTestCase):
    def service(self, notifier: Notifier | None) -> life.MacvlanService:
        place = self.place.parent
        reactor = self.reactor = Reactor()
        service = life.make_macvlan_service(
            Config(
                host_interface="eth0",
                state_dir=str(place / "state"),
                listen=f"unix:{place}/plugin.sock",
                runtime_dir=str(place / "run"),
                docker_host="",
            ),
            reactor=reactor,
            kernel=FakeKernel([nic("eth0", 2)]),
            clock=reactor,
            notifier=notifier,
        )
        self.addCleanup(service.stopService)
        return service

    def test_service_reports_what_it_has(self) -> None:
        self.service(self.notifier).startService()
        self.run_reactor()
        where = f"listening on unix:{self.place.parent}/plugin.sock"
        self.assertEqual(
            self.received(),
            [f"READY=1\nSTATUS={where}", f"WATCHDOG=1\nSTATUS={where}; 0 networks, 0 endpoints"],
        )

    def test_embedded_service_reports_nothing(self) -> None:
        """The program around it knows when it is ready."""
        self.patch(os, "environ", {**os.environ, "NOTIFY_SOCKET": str(self.place)})
        self.service(None).startService()
        self.run_reactor()
        self.assertEqual(self.received(), [])
