"""Locks and sockets: what keeps two instances apart and what a killed one leaves."""

from __future__ import annotations

import fcntl
import grp
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from macvlan_twisted.config import Config
from macvlan_twisted.errors import StartupError
from macvlan_twisted.listener.file_lock import FileLock
from macvlan_twisted.listener.listener import make_listener
from macvlan_twisted.listener.unix_socket import remove_stale_socket

from .helpers import fresh_directory

HOLDER = """
import sys
from pathlib import Path
from macvlan_twisted.listener.file_lock import FileLock
lock = FileLock(Path(sys.argv[1]), "a place", "--place")
lock.acquire()
print("held", flush=True)
sys.stdin.read()
"""


class PlaceTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.place = fresh_directory(self)


class LockTests(PlaceTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.path = self.place / "lock"

    def test_a_second_holder_is_refused_by_the_name_of_the_place(self) -> None:
        lock = FileLock(self.path, "a place", "--place")
        lock.acquire()
        self.addCleanup(lock.release)
        with self.assertRaises(StartupError) as caught:
            FileLock(self.path, "state directory /x", "--state-dir").acquire()
        self.assertEqual(
            str(caught.exception),
            "another macvlan-twisted is using state directory /x: stop it, or choose another --state-dir",
        )

    def test_a_released_lock_leaves_no_file_and_can_be_taken_again(self) -> None:
        for _ in range(3):
            lock = FileLock(self.path, "a place", "--place")
            lock.acquire()
            lock.release()
            self.assertFalse(self.path.exists())

    def test_a_file_that_was_left_behind_blocks_nobody(self) -> None:
        self.path.write_text("4711")
        lock = FileLock(self.path, "a place", "--place")
        lock.acquire()
        lock.release()

    def test_a_refusal_leaves_no_descriptor_open(self) -> None:
        lock = FileLock(self.path, "a place", "--place")
        lock.acquire()
        self.addCleanup(lock.release)
        before = len(os.listdir("/proc/self/fd"))
        for _ in range(5):
            with self.assertRaises(StartupError):
                FileLock(self.path, "a place", "--place").acquire()
        self.assertEqual(len(os.listdir("/proc/self/fd")), before)

    def test_a_file_that_its_last_holder_removed_meanwhile_is_no_lock(self) -> None:
        flock = fcntl.flock
        left = [1]

        def slow_flock(file: int, operation: int) -> None:
            if left:
                left.pop()
                self.path.unlink()
            flock(file, operation)

        self.patch(fcntl, "flock", slow_flock)
        lock = FileLock(self.path, "a place", "--place")
        lock.acquire()
        self.addCleanup(lock.release)
        self.assertTrue(self.path.exists())
        with self.assertRaises(StartupError):
            FileLock(self.path, "a place", "--place").acquire()

    def test_a_killed_holder_blocks_nobody(self) -> None:
        with subprocess.Popen(
            [sys.executable, "-c", HOLDER, str(self.path.absolute())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=Path(__file__).parents[2],
        ) as process:
            assert process.stdout is not None
            self.assertEqual(process.stdout.readline(), b"held\n")
            with self.assertRaises(StartupError):
                FileLock(self.path, "a place", "--place").acquire()
            process.kill()
        lock = FileLock(self.path, "a place", "--place")
        lock.acquire()
        lock.release()


class StaleSocketTests(PlaceTestCase):
    def setUp(self) -> None:
        super().setUp()
        # A socket's path holds 107 bytes, and the directories of tests are deep.
        self.addCleanup(os.chdir, os.getcwd())
        os.chdir(self.place)

    def listening(self) -> socket.socket:
        listener = socket.socket(socket.AF_UNIX)
        listener.bind("x.sock")
        listener.listen()
        self.addCleanup(listener.close)
        return listener

    def test_nothing_there_is_fine(self) -> None:
        remove_stale_socket("x.sock", "--place")
        self.assertFalse(os.path.lexists("x.sock"))

    def test_a_dead_one_is_removed(self) -> None:
        self.listening().close()
        self.assertTrue(os.path.exists("x.sock"))
        remove_stale_socket("x.sock", "--place")
        self.assertFalse(os.path.lexists("x.sock"))

    def test_one_that_answers_is_refused_and_stays(self) -> None:
        self.listening()
        with self.assertRaises(StartupError) as caught:
            remove_stale_socket("x.sock", "--place")
        self.assertEqual(
            str(caught.exception),
            "another program is listening on x.sock: stop it, or choose another --place",
        )
        self.assertTrue(os.path.exists("x.sock"))

    def test_one_at_which_more_wait_than_may_is_not_waited_for(self) -> None:
        self.listening().listen(0)
        with socket.socket(socket.AF_UNIX) as first:
            first.connect("x.sock")
            with self.assertRaisesRegex(StartupError, "another program is listening on x.sock"):
                remove_stale_socket("x.sock", "--place")

    def test_one_of_another_kind_is_somebodys_and_stays(self) -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as somebodys:
            somebodys.bind("x.sock")
            with self.assertRaisesRegex(StartupError, "another program is listening on x.sock"):
                remove_stale_socket("x.sock", "--place")
        self.assertTrue(os.path.exists("x.sock"))

    def test_what_is_no_socket_is_refused_and_stays(self) -> None:
        Path("file").write_text("precious")
        os.mkdir("directory")
        os.symlink("file", "link")
        for name in ("file", "directory", "link"):
            with self.assertRaises(StartupError) as caught:
                remove_stale_socket(name, "--place")
            self.assertIn(f"{name} exists and is no socket: remove it", str(caught.exception))
            self.assertTrue(os.path.lexists(name))


class Listened(list[dict[str, Any]]):
    """Stands in for a reactor and notes what it is asked to listen on."""

    def listenUNIX(self, address: str, factory: Any, backlog: int, mode: int, wantPID: int) -> Any:
        Path(address).touch()
        self.append({"path": address, "backlog": backlog, "mode": mode, "lock file": bool(wantPID)})
        return self

    async def stopListening(self) -> None:
        """Nobody listens."""


class UnixEndpointTests(PlaceTestCase):
    """``--listen unix:...``: ours, as the socket is that we choose ourselves."""

    def listened(self, said: str) -> dict[str, Any]:
        reactor = Listened()
        place = make_listener(reactor, Config(listen=said))
        try:
            place.take()
            place.listen(None)
        finally:
            place.release()
        (asked,) = reactor
        return asked

    def test_it_is_roots_only_and_has_no_lock_file_with_a_pid(self) -> None:
        path = str(self.place / "x.sock")
        for said in (f"unix:{path}", f"unix:address={path}", f"unix:{path}:lockfile=1"):
            expected = {"path": path, "backlog": 1024, "mode": 0o600, "lock file": False}
            self.assertEqual(self.listened(said), expected, said)

    def _given_to(self, group: str, said: str) -> os.stat_result:
        place = make_listener(Listened(), Config(listen=said, socket_group=group))
        try:
            place.take()
            place.listen(None)
            return (self.place / "x.sock").stat()
        finally:
            place.release()

    def test_a_socket_of_a_group_is_not_its_own(self) -> None:
        ours = grp.getgrgid(os.getegid())
        it = self._given_to(ours.gr_name, f"unix:{self.place}/x.sock")
        self.assertEqual((it.st_gid, it.st_mode & 0o777), (ours.gr_gid, 0o660))

    def test_a_mode_that_is_said_is_not_that_of_a_groups_socket(self) -> None:
        it = self._given_to(grp.getgrgid(os.getegid()).gr_name, f"unix:{self.place}/x.sock:mode=640")
        self.assertEqual(it.st_mode & 0o777, 0o640)

    def test_a_group_that_is_not_there_leaves_a_socket(self) -> None:
        with self.assertRaisesRegex(StartupError, "--socket-group nobody-s: there is no such group: make it"):
            self._given_to("nobody-s", f"unix:{self.place}/x.sock")
        self.assertEqual(list(self.place.iterdir()), [])

    def test_a_group_is_promised_for_a_socket_that_is_not_ours(self) -> None:
        for said in ("tcp:0:interface=127.0.0.1", "unix:\0mvt"):
            with self.assertRaisesRegex(
                StartupError, "--socket-group docker is for a socket that the service makes"
            ):
                make_listener(Listened(), Config(listen=said, socket_group="docker"))

    def test_a_link_in_the_place_of_the_lock_is_followed(self) -> None:
        (self.place / "x.sock.lock").symlink_to(self.place / "passwd")
        with self.assertRaisesRegex(StartupError, "cannot listen on unix:.*/x.sock"):
            make_listener(Listened(), Config(listen=f"unix:{self.place}/x.sock")).take()
        self.assertFalse((self.place / "passwd").exists())

    def test_what_is_said_is_respected(self) -> None:
        for said in ("mode=660:backlog=7", "backlog=7:mode=660", "660:7"):
            asked = self.listened(f"unix:{self.place}/x.sock:{said}")
            self.assertEqual((asked["mode"], asked["backlog"]), (0o660, 7), said)

    def test_one_that_is_not_well_formed_is_refused(self) -> None:
        for said in ("unix:", "unix:/x:mode=rw", "unix:/x:colour=red"):
            with self.assertRaises(StartupError, msg=said) as caught:
                make_listener(Listened(), Config(listen=said))
            self.assertIn(f"--listen {said} is no endpoint to listen on", str(caught.exception))

    def test_a_second_one_is_refused_by_the_option(self) -> None:
        config = Config(listen=f"unix:{self.place}/x.sock")
        first = make_listener(Listened(), config)
        first.take()
        self.addCleanup(first.release)
        second = make_listener(Listened(), config)
        self.addCleanup(second.release)
        with self.assertRaisesRegex(StartupError, "is using socket .*/x.sock: .*another --listen"):
            second.take()

    def test_a_missing_directory_is_named(self) -> None:
        with self.assertRaisesRegex(StartupError, "cannot listen on unix:.*/no/x.sock: No such file"):
            make_listener(Listened(), Config(listen=f"unix:{self.place}/no/x.sock")).take()

    def test_nothing_is_left(self) -> None:
        reactor = Listened()
        place = make_listener(reactor, Config(listen=f"unix:{self.place}/x.sock"))
        place.take()
        place.listen(None)
        place.release()
        place.release()
        self.assertEqual(list(self.place.iterdir()), [])


class CannotStartTests(SynchronousTestCase):
    def test_it_ends_the_interpreter_with_status_1_and_one_line(self) -> None:
        script = "from macvlan_twisted.errors import StartupError; raise StartupError('why')"
        ended = subprocess.run(
            [sys.executable, "-c", script],
            cwd=Path(__file__).parents[2],
            capture_output=True,
            text=True,
            check=False,
        )
        self.assertEqual((ended.returncode, ended.stderr), (1, "why\n"))
