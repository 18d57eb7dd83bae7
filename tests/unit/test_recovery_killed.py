"""``--recover``, killed before and after each of its failpoints and run again, completes the rebuild."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from attrs import evolve

from macvlan_twisted.addresses import parse_interface, parse_network
from macvlan_twisted.engine.blocking_client import FoundEndpoint, FoundNetwork, FoundSubnet, Inspection
from macvlan_twisted.errors import LinkError, StateError
from macvlan_twisted.failpoints import Failpoint, observe
from macvlan_twisted.recovery.rebuild import recover_state
from macvlan_twisted.recovery.snapshot import Snapshot
from macvlan_twisted.state.damage import refuse_unfinished
from macvlan_twisted.state.database import Database
from macvlan_twisted.state.directory import prepare_directory
from macvlan_twisted.state.generation import RuntimeGeneration
from macvlan_twisted.state.sqlite import open_database

from .helpers import ENDPOINT, LAN, NETWORK, PluginTestCase, fresh_directory

INSPECTION = Inspection(
    (
        FoundNetwork(
            NETWORK,
            "lan",
            LAN.plugin_name,
            {"parent": "eth1"},
            False,
            "default",
            {},
            (FoundSubnet(parse_network("192.168.1.0/24")),),
            (FoundEndpoint(ENDPOINT, "box", "7a:42:c0:a8:01:07", parse_interface("192.168.1.7/24")),),
        ),
    ),
    picks_gateways=False,
)


class KillAt:
    """Counts the moments before and after each failpoint, and ends the process at one of them, as SIGKILL would."""

    def __init__(self, last: int | None = None) -> None:
        self._last = last
        self.seen = 0

    def __call__(self, step: Failpoint, is_done: bool) -> None:
        self.seen += 1
        if self.seen == self._last:
            os._exit(9)


class KilledTests(PluginTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.top = fresh_directory(self)
        self.config = evolve(self.plugin.config, runtime_dir=str(self.top / "run"))
        self.state = self.top / "state"

    def recover(self) -> Database:
        outside = RuntimeGeneration(Path(self.config.runtime_dir), self.state)
        return recover_state(self.config, self.plugin.kernel, self.state, outside, lambda _: INSPECTION)

    def count_moments(self) -> int:
        """:return: the number of moments of a run that is not killed."""
        count_moments = KillAt()
        stop = observe(count_moments)
        try:
            self.recover().close()
        finally:
            stop()
        return count_moments.seen

    def kill_at(self, moment: int) -> None:
        """In a process of its own, whose open files are closed with it."""
        child = os.fork()
        if not child:
            try:
                observe(KillAt(moment))
                self.recover().close()
            finally:
                os._exit(1)
        self.assertEqual(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), 9)

    def begin(self, damage: bytes | None) -> None:
        for each in (self.state, self.top / "run"):
            shutil.rmtree(each, ignore_errors=True)
        prepare_directory(self.state)
        outside = RuntimeGeneration(Path(self.config.runtime_dir), self.state)
        database = open_database(self.state, outside)
        self.instance = database.instance
        database.close()
        if damage is not None:
            (self.state / "state.sqlite").write_bytes(damage)

    def assert_recovered_after_a_kill_at_each_moment(self, damage: bytes | None) -> None:
        self.begin(damage)
        count_moments = self.count_moments()
        self.assertGreater(count_moments, 6)
        for at in range(1, count_moments + 1):
            self.begin(damage)
            self.kill_at(at)
            try:  # a start without --recover succeeds, or is refused with the remedy
                refuse_unfinished(self.state)
                outside = RuntimeGeneration(Path(self.config.runtime_dir), self.state)
                open_database(self.state, outside).close()
            except StateError:
                self.assertIsNotNone(damage, "a start on a sound state is refused after a kill")
            database = self.recover()
            snapshot = Snapshot.of(database)
            self.assertEqual(database.instance, self.instance, "links of before are not known as ours")
            database.close()
            self.assertEqual((list(snapshot.networks), list(snapshot.endpoints)), ([NETWORK], [ENDPOINT]), at)
            refuse_unfinished(self.state)
            outside = RuntimeGeneration(Path(self.config.runtime_dir), self.state)
            open_database(self.state, outside).close()

    def test_damaged_state_is_rebuilt_after_a_kill_at_any_moment(self) -> None:
        self.assert_recovered_after_a_kill_at_each_moment(b"rubbish" * 1000)

    def test_sound_state_is_completed_after_a_kill_at_any_moment(self) -> None:
        self.assert_recovered_after_a_kill_at_each_moment(None)

    def test_a_kernel_error_closes_the_database(self) -> None:
        def refuse(name: str) -> None:
            raise LinkError("the kernel refuses")

        self.begin(None)
        self.patch(self.plugin.kernel, "addresses_of", refuse)
        refused = None
        try:
            self.recover()
        except LinkError as failure:
            refused = failure  # with all that its frames hold
        self.assertIsNotNone(refused)
        open_database(self.state).close()
