"""``macvlan-twisted purge`` and ``sandboxes`` against a fake kernel."""

from __future__ import annotations

import os
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any
from unittest import mock

from attrs import evolve
from twisted.trial.unittest import SkipTest, SynchronousTestCase

from macvlan_twisted.addresses import parse_address
from macvlan_twisted.commands import purge
from macvlan_twisted.commands.cli import _agrees, main, make_parser
from macvlan_twisted.commands.stale_sandboxes import Sandbox, describe, processes_by_namespace
from macvlan_twisted.config import Config
from macvlan_twisted.engine.blocking_client import FoundEndpoint, FoundNetwork, Inspection
from macvlan_twisted.errors import RequestRefused, StartupError
from macvlan_twisted.failpoints import Failpoint, observe
from macvlan_twisted.lan.host_routes import ROUTE_PROTOCOL
from macvlan_twisted.listener.file_lock import FileLock
from macvlan_twisted.netlink.kernel import HostRoute
from macvlan_twisted.state.database import ENDPOINTS, IDENTITY, LEASES, MADE_LINKS, Put
from macvlan_twisted.state.directory import prepare_directory
from macvlan_twisted.state.generation import RuntimeGeneration
from macvlan_twisted.state.sqlite import identity_of, open_database
from macvlan_twisted.testing.kernel import FakeKernel, nic

from .helpers import fresh_directory

NO_CONTAINERS = Inspection((), picks_gateways=False)


class PurgeTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        place = fresh_directory(self)
        self.state = place / "state"
        self.state.mkdir()
        self.config = Config(
            state_dir=str(self.state), plugin_dir=str(place / "plugins"), runtime_dir=str(place / "run")
        )
        database = open_database(self.state, RuntimeGeneration(place / "run", self.state))
        identity = identity_of(database)
        self.group = identity.link_group
        database.commit(
            [
                Put(MADE_LINKS, ("eth1.30", '{"name":"eth1.30"}')),
                Put(ENDPOINTS, ("e" * 64, '{"link":"mvtaway","address":"10.0.0.7/24"}')),
            ]
        )
        database.close()
        self.ours = f"macvlan-twisted/{identity.instance}/"
        self.kernel = FakeKernel(
            [
                nic("eth1", 3),
                nic("mvhours", 4, kind="macvlan", lower_index=3, alias=self.ours + "host/eth1"),
                nic("eth1.20", 5, kind="vlan", vlan_id=20, lower_index=3, alias=self.ours + "vlan/eth1.20"),
                nic("mvhvlan", 6, kind="macvlan", lower_index=5, alias=self.ours + "host/eth1.20"),
                nic("eth1.30", 7, kind="vlan", vlan_id=30, lower_index=3, group=self.group),
                nic("eth1.40", 8, kind="vlan", vlan_id=40, lower_index=3),
                nic("mvhother", 9, kind="macvlan", lower_index=3, alias="macvlan-twisted/ffffffff/host/eth1"),
                nic("mvtstray", 10, kind="macvlan", lower_index=3, group=self.group),
            ]
        )
        self.foreign = {"lo", "eth1", "eth1.40", "mvhother", "mvtstray"}
        self.said: list[str] = []

    def purge(self, inspection: Inspection | None = NO_CONTAINERS, **words: Any) -> int:
        return purge.run(
            self.config,
            self.kernel,
            [self.state],
            echo=self.said.append,
            inspect=lambda _: inspection,
            **words,
        )

    def names(self) -> set[str]:
        return {link.name for link in self.kernel.links()}


class KilledAfter:
    """Ends the program after a failpoint was passed for the *number*-th time."""

    def __init__(self, name: str, number: int) -> None:
        self._name = name
        self._left = number

    def __call__(self, step: Failpoint, is_done: bool) -> None:
        if step.name == self._name and is_done:
            self._left -= 1
            if not self._left:
                raise KeyboardInterrupt


class PurgeTests(PurgeTestCase):
    def test_everything_of_ours_goes_and_nothing_else(self) -> None:
        route = HostRoute(parse_address("10.0.0.7"), "mvhours", None, ROUTE_PROTOCOL)
        self.kernel.add_host_route(route)
        self.kernel.add_host_route(evolve(route, destination=parse_address("10.0.0.8"), protocol=4))
        self.assertEqual(self.purge(), 0)
        self.assertEqual(self.names(), self.foreign)
        self.assertFalse(self.state.exists())
        self.assertFalse(Path(self.config.runtime_dir).exists())
        for thing in ("mvhours", "mvhvlan", "eth1.20", "eth1.30", "route to 10.0.0.7", "state.sqlite"):
            self.assertTrue(
                [each for each in self.said if each.startswith("removed") and thing in each], thing
            )
        self.assertFalse([each for each in self.said if "10.0.0.8" in each])

    def test_nothing_is_removed_in_a_dry_run_or_without_consent(self) -> None:
        before = self.names()
        for words, status in (({"dry_run": True}, 0), ({"is_agreed": lambda: False}, 1)):
            self.assertEqual(self.purge(**words), status)
            self.assertEqual(self.names(), before)
            self.assertTrue((self.state / "state.sqlite").exists())
            self.assertTrue(list(Path(self.config.runtime_dir).iterdir()))

    def test_running_service_prevents_it(self) -> None:
        lock = FileLock(self.state / "lock", "x", "y")
        lock.acquire()
        self.addCleanup(lock.release)
        with self.assertRaises(StartupError):
            self.purge()

    def test_running_containers_prevent_it_unless_forced(self) -> None:
        box = FoundEndpoint("e" * 64, "box")
        network = FoundNetwork("n" * 64, "lan", "macvlan-twisted", {}, False, "default", {}, (), (box,))
        with self.assertRaisesRegex(RequestRefused, "box"):
            self.purge(Inspection((network,), picks_gateways=False))
        self.assertEqual(self.purge(Inspection((network,), picks_gateways=False), force=True), 0)

    def test_links_in_other_namespaces_prevent_it_unless_forced(self) -> None:
        name, alias = "mvtbox", f"{self.ours}endpoint/{'e' * 64}"
        box = nic(name, 21, kind="macvlan", lower_index=5, alias=alias)
        self.kernel = FakeKernel([*self.kernel.links()[1:], box])
        self.kernel.move_away(name, up=True)
        with self.assertRaisesRegex(RequestRefused, "eeeeeeeeeeee"):
            self.purge()
        self.assertIn("eth1.20", self.names())
        self.assertEqual(self.purge(force=True), 0)

    def test_silent_engine_prevents_it_while_links_are_away(self) -> None:
        with self.assertRaisesRegex(RequestRefused, "10.0.0.7"):
            self.purge(None)
        self.assertTrue((self.state / "state.sqlite").exists())

    def test_vlan_that_others_use_stays_with_the_state(self) -> None:
        self.kernel = FakeKernel(
            [*self.kernel.links()[1:], nic("br0port", 20, kind="macvlan", lower_index=5)]
        )
        self.assertEqual(self.purge(), 1)
        self.assertEqual(self.names(), {*self.foreign, "eth1.20", "br0port"})
        self.assertTrue((self.state / "state.sqlite").exists(), "state of the remaining links is gone")
        self.assertTrue([each for each in self.said if "br0port of others hang on it" in each])

    def test_every_instance_includes_links_of_others(self) -> None:
        self.assertEqual(self.purge(every_instance=True), 0)
        self.assertEqual(self.names(), self.foreign - {"mvhother"})

    def test_runtime_file_identifies_links_of_lost_state(self) -> None:
        (self.state / "state.sqlite").write_bytes(b"rubbish")
        self.assertEqual(self.purge(force=True), 0)
        self.assertEqual(self.names(), {*self.foreign, "eth1.30"}, "by alias alone")

    def test_start_and_second_run_succeed_after_a_kill_during_removal(self) -> None:
        for is_started in (True, False):
            number, was_killed = 0, True
            while was_killed:
                number += 1
                self.setUp()
                stop = observe(KilledAfter("commands.state.remove", number))
                try:
                    self.purge()
                    was_killed = False
                except KeyboardInterrupt:
                    pass
                finally:
                    stop()
                if was_killed and is_started:
                    prepare_directory(self.state)
                    outside = RuntimeGeneration(Path(self.config.runtime_dir), self.state)
                    open_database(self.state, outside).close()
                self.purge()
                self.assertFalse(self.state.exists(), number)
                self.assertFalse(Path(self.config.runtime_dir).exists(), number)
            self.assertGreater(number, 4)

    def test_root_does_not_follow_a_symlink_of_the_owner(self) -> None:
        if os.geteuid() != 0:
            raise SkipTest("only root can be somebody else")
        self.state.parent.chmod(0o711)
        roots = self.state.parent / "roots"
        aside = self.state / "damaged-x"
        for directory in (roots, aside):
            directory.mkdir(mode=0o700)
            (directory / "state.sqlite").write_text("precious")
        for path in (self.state, *self.state.rglob("*")):
            os.chown(path, 4711, 4711)

        def agree() -> bool:
            aside.rename(self.state / "elsewhere")
            aside.symlink_to(roots)
            return True

        self.assertEqual(self.purge(is_agreed=agree), 1)
        self.assertTrue((roots / "state.sqlite").exists())

    def test_terminal_escapes_of_others_are_not_obeyed(self) -> None:
        database = open_database(self.state, RuntimeGeneration(Path(self.config.runtime_dir), self.state))
        database.commit([Put(LEASES, ("x", '{"facts":{"address":"\\u001b[2J"}}'))])
        database.close()
        self.purge(dry_run=True)
        self.assertTrue(any("lease of \\x1b[2J" in each for each in self.said))
        self.assertFalse(any("\x1b" in each for each in self.said))

    def test_low_link_group_in_the_state_is_ignored(self) -> None:
        """Links without a group of their own are in group 0, and the state's user could name them."""
        database = open_database(self.state, RuntimeGeneration(Path(self.config.runtime_dir), self.state))
        database.commit([Put(IDENTITY, ("link_group", "-1")), Put(MADE_LINKS, ("eth1.40", "{}"))])
        database.close()
        self.assertEqual(self.purge(), 0)
        self.assertIn("eth1.40", self.names())

    def test_damaged_rows_are_skipped(self) -> None:
        outside = RuntimeGeneration(Path(self.config.runtime_dir), self.state)
        for table, document in ((LEASES, "[]"), (LEASES, '{"facts":7}'), (ENDPOINTS, '{"link":[]}')):
            database = open_database(self.state, outside)
            database.commit([Put(table, ("damaged", document))])
            database.close()
            self.assertEqual(self.purge(dry_run=True), 0)

    def test_file_in_place_of_the_socket_does_not_keep_the_state(self) -> None:
        plugins = self.state.parent / "uplink"
        plugins.mkdir()
        self.config = evolve(self.config, plugin_dir=str(plugins))
        Path(self.config.socket_path).write_text("somebody's")
        self.assertEqual(self.purge(), 1)
        self.assertFalse(self.state.exists())

    def test_root_creates_no_files_of_its_own_in_the_state(self) -> None:
        if os.geteuid() != 0:
            raise SkipTest("only root can be somebody else")
        self.state.parent.chmod(0o711)
        for path in (self.state, *self.state.iterdir()):
            os.chown(path, 4711, 4711)
        owners: list[int] = []

        def look(step: Failpoint, is_done: bool) -> None:
            if step.name != "commands.state.remove":
                owners.extend(each.stat().st_uid for each in self.state.iterdir())

        self.addCleanup(observe(look))
        self.assertEqual(self.purge(dry_run=True), 0)
        self.assertEqual({*owners, *(each.stat().st_uid for each in self.state.iterdir())}, {4711})
        self.assertEqual(self.purge(), 0)
        self.assertFalse(self.state.exists())

    def test_nothing_to_remove_is_reported(self) -> None:
        self.purge()
        self.said.clear()
        self.kernel = FakeKernel([nic("eth1", 3)])
        self.assertEqual(self.purge(), 0)
        self.assertEqual(self.said, ["there is nothing of ours here"])


class DeputyTests(PurgeTestCase):
    """What the service's user writes is not an order to root."""

    def setUp(self) -> None:
        super().setUp()
        self.runtime = Path(self.config.runtime_dir)
        self.other = self.state.parent / "other"
        self.other.mkdir(mode=0o700)

    def note(self, instance: str, directory: Path) -> Path:
        """A note that names *directory*, as the service writes it."""
        outside = RuntimeGeneration(self.runtime, directory)
        outside.begin(instance, 1, 1)
        outside.close()
        return self.runtime / instance

    def give(self, *paths: Path) -> None:
        if os.geteuid() != 0:
            raise SkipTest("only root can be somebody else")
        self.state.parent.chmod(0o711)
        for path in paths:
            os.chown(path, 4711, 4711)

    def stays(self, word: str) -> None:
        self.assertTrue([each for each in self.said if each.startswith("stays:") and word in each], self.said)

    def test_every_instance_removes_other_states_that_notes_name(self) -> None:
        database = open_database(self.other, RuntimeGeneration(self.runtime, self.other))
        database.close()
        self.assertEqual(self.purge(every_instance=True), 0)
        self.assertFalse(self.other.exists())
        self.assertFalse(self.runtime.exists())

    def test_note_of_another_user_does_not_lead_root_to_a_directory(self) -> None:
        for name in ("state.sqlite", "generation"):
            (self.other / name).write_text("precious")
        note = self.note("12345678", self.other)
        self.give(note)
        self.assertEqual(self.purge(every_instance=True), 1)
        self.assertEqual({each.name for each in self.other.iterdir()}, {"state.sqlite", "generation"})
        self.stays(
            f"{self.other}, which {note} names: the file and the directory must belong to the same user"
        )

    def test_directory_of_another_instance_stays(self) -> None:
        open_database(self.other).close()
        note = self.note("12345678", self.other)
        self.assertEqual(self.purge(every_instance=True), 1)
        self.assertTrue((self.other / "state.sqlite").exists())
        self.assertTrue(note.exists())
        self.stays("no readable state of instance 12345678")

    def test_link_that_replaces_a_noted_directory_gives_no_rights(self) -> None:
        theirs = self.state.parent / "theirs"
        theirs.mkdir()
        database = open_database(self.other, RuntimeGeneration(self.runtime, theirs / "state"))
        instance = database.instance
        database.close()
        self.other.rename(theirs / "state")
        roots = self.state.parent / "roots"
        roots.mkdir(mode=0o700)
        (roots / "state.sqlite").write_text("precious")
        self.give(theirs, theirs / "state", *(theirs / "state").iterdir(), self.runtime / instance)

        def agree() -> bool:
            (theirs / "state").rename(theirs / "elsewhere")
            (theirs / "state").symlink_to(roots)
            return True

        self.assertEqual(self.purge(every_instance=True, is_agreed=agree), 1)
        self.assertTrue((roots / "state.sqlite").exists())

    def test_odd_files_among_the_notes_are_ignored_at_once(self) -> None:
        os.mkfifo(self.runtime / "fifo")
        (self.runtime / "device").symlink_to("/dev/zero")
        (self.runtime / "loop").symlink_to("loop")
        with (self.runtime / "large").open("wb") as large:
            large.truncate(1 << 40)
        self.assertEqual(self.purge(every_instance=True), 0)
        self.assertFalse(self.state.exists())

    def test_note_behind_a_link_is_not_read(self) -> None:
        database = open_database(self.other, RuntimeGeneration(self.runtime, self.other))
        instance = database.instance
        database.close()
        (self.runtime / instance).rename(self.state.parent / "kept")
        (self.runtime / instance).symlink_to(self.state.parent / "kept")
        self.assertEqual(self.purge(every_instance=True), 0)
        self.assertTrue((self.other / "state.sqlite").exists())

    def test_fifo_in_place_of_the_database_is_left(self) -> None:
        (self.state / "state.sqlite").unlink()
        os.mkfifo(self.state / "state.sqlite")
        self.purge(force=True)
        self.assertTrue((self.state / "state.sqlite").is_fifo())


class SandboxTests(SynchronousTestCase):
    def test_sandbox_is_stale_only_when_nobody_can_use_it(self) -> None:
        plain = Sandbox(Path("/x/0123456789ab"), True, (), False, ("eth0",))
        self.assertTrue(plain.is_stale)
        for doubtful in (
            evolve(plain, is_known=True),
            evolve(plain, is_known=None),
            evolve(plain, processes=(7,)),
        ):
            self.assertFalse(doubtful.is_stale, doubtful)
        self.assertIn("links of ours inside: eth0", describe(plain))

    def test_hidden_processes_prove_nothing(self) -> None:
        with self.assertRaisesRegex(RequestRefused, "hidden"):
            processes_by_namespace(fresh_directory(self))

    def test_own_namespace_has_inhabitants(self) -> None:
        number = Path("/proc/self/ns/net").stat().st_ino
        self.assertIn(number, processes_by_namespace())


class CommandLineTests(SynchronousTestCase):
    def test_wrong_command_lines_exit_with_status_2(self) -> None:
        for words in (["dance"], ["purge", "--colour"], ["purge", "--runtime-dir", "run"]):
            with self.assertRaises(SystemExit) as caught:
                main(words)
            self.assertEqual(caught.exception.code, 2, words)

    def test_leave_is_an_alias_of_purge(self) -> None:
        with mock.patch("macvlan_twisted.commands.purge.run", return_value=0) as run:
            self.assertEqual(main(["leave", "--dry-run", "--state-dir", "/x"]), 0)
        self.assertTrue(run.call_args.kwargs["dry_run"])
        self.assertNotIn("leave", make_parser().format_help())

    def test_missing_permission_is_one_line(self) -> None:
        told = StringIO()
        refused = PermissionError(13, "Permission denied", "/var/lib/x")
        with redirect_stderr(told), mock.patch("macvlan_twisted.commands.purge.run", side_effect=refused):
            self.assertEqual(main(["purge"]), 1)
        self.assertEqual(told.getvalue(), "macvlan-twisted: /var/lib/x: Permission denied\n")

    def test_end_of_input_means_no(self) -> None:
        with (
            mock.patch("sys.stdin.isatty", return_value=True),
            mock.patch("builtins.input", side_effect=EOFError),
            redirect_stdout(StringIO()),
        ):
            self.assertFalse(_agrees())
