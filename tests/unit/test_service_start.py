"""Starts that fail: nothing stays open or locked, and the error says why."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from attrs import evolve
from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase

from macvlan_twisted import plugin
from macvlan_twisted import service as life
from macvlan_twisted.config import Config
from macvlan_twisted.driver.registry import Registry
from macvlan_twisted.errors import MacvlanError, StartupError, StateError
from macvlan_twisted.service import MacvlanService
from macvlan_twisted.state.database import NETWORKS, Put
from macvlan_twisted.state.directory import prepare_directory
from macvlan_twisted.state.sqlite import open_database
from macvlan_twisted.testing.kernel import FakeKernel, nic

from .helpers import fresh_directory


class Bug(KeyError):
    """An unexpected exception."""


class Reactor(MemoryReactorClock):
    """Listens on nothing, and calls from threads at once."""

    def callFromThread(self, call: Any, *arguments: Any, **words: Any) -> None:
        call(*arguments, **words)

    def listenUNIX(self, address: Any, *arguments: Any, **words: Any) -> Any:
        Path(address).touch()
        return super().listenUNIX(address, *arguments, **words)


def _module_of(name: str) -> Any:
    """The module that makes the part of that name."""
    return plugin if hasattr(plugin, name) else life


class StartTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        place = fresh_directory(self)
        self.state = place / "state"
        self.plugins = place / "plugins"
        self.runtime = place / "run"
        self.config = Config(
            host_interface="eth0",
            state_dir=str(self.state),
            plugin_dir=str(self.plugins),
            runtime_dir=str(self.runtime),
        )

    def service(self, config: Config | None = None) -> MacvlanService:
        self.reactor = Reactor()
        return life.make_macvlan_service(
            config or self.config,
            reactor=self.reactor,
            kernel=FakeKernel([nic("eth0", 2)]),
            clock=self.reactor,
        )

    def assert_nothing_is_left(self) -> None:
        """Neither locks nor an open database: the same process opens it once more."""
        left = [path.name for place in (self.state, self.plugins) for path in place.glob("*")]
        self.assertEqual([name for name in left if name == "lock" or ".sock" in name], [])
        open_database(self.state).close()

    def fails(self, service: MacvlanService, kind: type[BaseException] = StartupError) -> str:
        with self.assertRaises(kind) as caught:
            service.startService()
        self.assertFalse(service.running)
        self.assert_nothing_is_left()
        return str(caught.exception)

    def fail_in(self, name: str, error: BaseException) -> None:
        """Let one of the parts raise while it is made."""

        def part(*_: Any) -> Any:
            raise error

        self.patch(_module_of(name), name, part)


class FailedStartTests(StartTestCase):
    def test_listener_error_is_reported(self) -> None:
        message = self.fails(self.service(evolve(self.config, listen="systemd:domain=UNIX:index=0")))
        self.assertIn("is not an endpoint to listen on", message)

        def refuse(*_: Any, **__: Any) -> None:
            raise OSError(98, "Address already in use")

        self.patch(Reactor, "listenUNIX", refuse)
        for config in (self.config, evolve(self.config, listen=f"unix:{self.state}/x.sock")):
            self.assertIn("cannot listen on", self.fails(self.service(config)))
        self.patch(Reactor, "listenTCP", refuse)
        self.assertIn("tcp:9", self.fails(self.service(evolve(self.config, listen="tcp:9"))))

    def test_failure_of_any_part_leaves_nothing_open(self) -> None:
        for name in ("Registry", "PoolRegistry", "reconcile", "PluginApp", "PluginSite"):
            for error in (Bug("x"), KeyboardInterrupt(), MacvlanError("no"), OSError(5, "bad")):
                with self.subTest(part=name, error=error):
                    original = getattr(_module_of(name), name)
                    self.fail_in(name, error)
                    expected = StartupError if isinstance(error, (MacvlanError, OSError)) else type(error)
                    self.fails(self.service(), expected)
                    self.patch(_module_of(name), name, original)

    def test_thread_limit_is_reported(self) -> None:
        """Python says it by a RuntimeError, and a user should hear what to do."""
        start, begun = threading.Thread.start, threading.active_count()
        for number in range(6):  # four for netlink, one for deletions, one for commits
            left = iter(range(number))

            def refuse(thread: threading.Thread, left: Iterator[int] = left) -> None:
                if next(left, None) is None:
                    raise RuntimeError("can't start new thread")
                start(thread)

            with self.subTest(started=number):
                self.patch(threading.Thread, "start", refuse)
                message = self.fails(self.service())
                self.patch(threading.Thread, "start", start)
                self.assertIn(
                    "the limit on processes and threads has been reached (can't start new thread)", message
                )
                self.assertEqual(threading.active_count(), begun)

    def test_service_can_start_after_a_failed_start(self) -> None:
        service = self.service()
        with self.subTest("fails"):
            original = Registry
            self.fail_in("Registry", Bug("x"))
            self.fails(service, Bug)
            self.patch(plugin, "Registry", original)
        service.startService()
        self.assertTrue(service.running)
        reactor = self.reactor
        with self.assertRaisesRegex(StartupError, "another macvlan-twisted is using state directory"):
            self.service().startService()
        stopped = service.stopService()
        reactor.pump([1, 1, 1])
        self.successResultOf(stopped)
        self.assert_nothing_is_left()


class StateAdviceTests(StartTestCase):
    """What the error advises if state cannot be opened."""

    BEGIN_ANEW = "start once with --recover"

    def test_damage_found_by_a_part_suggests_recover(self) -> None:
        for name in ("Registry", "PoolRegistry", "reconcile"):
            original = getattr(_module_of(name), name)
            self.fail_in(name, StateError("state holds nonsense"))
            message = self.fails(self.service())
            self.assertTrue(
                message.startswith("state: state holds nonsense: start once with --recover"), message
            )
            self.assertIn(self.BEGIN_ANEW, message)
            self.patch(_module_of(name), name, original)

    def test_invalid_network_record_suggests_recover(self) -> None:
        prepare_directory(self.state)
        database = open_database(self.state)
        database.commit([Put(NETWORKS, ("n" * 64, "{}"))])
        database.close()
        message = self.fails(self.service())
        self.assertIn("record in the state is not of kind Network", message)
        self.assertIn(self.BEGIN_ANEW, message)

    def test_database_in_use_does_not_suggest_recover(self) -> None:
        prepare_directory(self.state)
        other = open_database(self.state)
        self.patch(sqlite3, "connect", partial(sqlite3.connect, timeout=0))
        with self.assertRaises(StartupError) as caught:
            self.service().startService()
        message = str(caught.exception)
        other.close()
        self.assertIn("locked", message)
        self.assertIn("another program has the database", message)
        self.assertNotIn(self.BEGIN_ANEW, message)
        self.assert_nothing_is_left()

    def test_full_disk_does_not_suggest_recover(self) -> None:
        def refuse(*_: Any) -> Any:
            full = sqlite3.OperationalError("database or disk is full")
            full.sqlite_errorcode = sqlite3.SQLITE_FULL
            raise StateError("writing: database or disk is full") from full

        self.patch(plugin, "reconcile", refuse)
        self.assertEqual(self.fails(self.service()), "state: writing: database or disk is full")
