"""File locks and UNIX sockets: one instance at a time, also after a kill."""

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


class DirectoryTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.place = fresh_directory(self)


class LockTests(DirectoryTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.path = self.place / "lock"

    def locked(self, what: str = "a place", option: str = "--place") -> FileLock:
        lock = FileLock(self.path, what, option)
        lock.acquire()
        self.addCleanup(lock.release)
        return lock

    def test_second_holder_is_refused_with_the_option(self) -> None:
        self.locked()
        with self.assertRaises(StartupError) as caught:
            self.locked("state directory /x", "--state-dir")
        self.assertEqual(
            str(caught.exception),
            "another macvlan-twisted is using state directory /x: stop it, or choose another --state-dir",
        )

    def test_released_lock_leaves_no_file(self) -> None:
        for _ in range(3):
            self.locked().release()
            self.assertFalse(self.path.exists())

    def test_leftover_file_does_not_block(self) -> None:
        self.path.write_text("4711")
        self.locked().release()

    def test_refusal_leaves_no_descriptor_open(self) -> None:
        self.locked()
        before = len(os.listdir("/proc/self/fd"))
        for _ in range(5):
            with self.assertRaises(StartupError):
                self.locked()
        self.assertEqual(len(os.listdir("/proc/self/fd")), before)

    def test_lock_on_a_removed_file_is_repeated(self) -> None:
        flock = fcntl.flock
        left = [1]

        def slow_flock(file: int, operation: int) -> None:
            if left:
                left.pop()
                self.path.unlink()
            flock(file, operation)

        self.patch(fcntl, "flock", slow_flock)
        self.locked()
        self.assertTrue(self.path.exists())
        with self.assertRaises(StartupError):
            self.locked()

    def test_killed_holder_does_not_block(self) -> None:
        with subprocess.Popen(
            [sys.executable, "-c", HOLDER, str(self.path.absolute())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=Path(__file__).parents[2],
        ) as process:
            assert process.stdout is not None
            self.assertEqual(process.stdout.readline(), b"held\n")
            with self.assertRaises(StartupError):
                self.locked()
            process.kill()
        self.locked().release()


class StaleSocketTests(DirectoryTestCase):
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

    def test_missing_socket_is_fine(self) -> None:
        remove_stale_socket("x.sock", "--place")
        self.assertFalse(os.path.lexists("x.sock"))

    def test_stale_socket_is_removed(self) -> None:
        self.listening().close()
        self.assertTrue(os.path.exists("x.sock"))
        remove_stale_socket("x.sock", "--place")
        self.assertFalse(os.path.lexists("x.sock"))

    def test_listening_socket_stays(self) -> None:
        self.listening()
        with self.assertRaises(StartupError) as caught:
            remove_stale_socket("x.sock", "--place")
        self.assertEqual(
            str(caught.exception),
            "another program is listening on x.sock: stop it, or choose another --place",
        )
        self.assertTrue(os.path.exists("x.sock"))

    def test_socket_with_a_full_backlog_stays(self) -> None:
        self.listening().listen(0)
        with socket.socket(socket.AF_UNIX) as first:
            first.connect("x.sock")
            with self.assertRaisesRegex(StartupError, "another program is listening on x.sock"):
                remove_stale_socket("x.sock", "--place")

    def test_datagram_socket_stays(self) -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as somebodys:
            somebodys.bind("x.sock")
            with self.assertRaisesRegex(StartupError, "another program is listening on x.sock"):
                remove_stale_socket("x.sock", "--place")
        self.assertTrue(os.path.exists("x.sock"))

    def test_other_files_stay(self) -> None:
        Path("file").write_text("precious")
        os.mkdir("directory")
        os.symlink("file", "link")
        for name in ("file", "directory", "link"):
            with self.assertRaises(StartupError) as caught:
                remove_stale_socket(name, "--place")
            self.assertIn(f"{name} exists and is no socket: remove it", str(caught.exception))
            self.assertTrue(os.path.lexists(name))


class RecordingReactor(list[dict[str, Any]]):
    """Records what it is asked to listen on."""

    def listenUNIX(self, address: str, factory: Any, backlog: int, mode: int, wantPID: int) -> Any:
        Path(address).touch()
        self.append({"path": address, "backlog": backlog, "mode": mode, "lock file": bool(wantPID)})
        return self

    async def stopListening(self) -> None:
        """There is no port."""


class UnixEndpointTests(DirectoryTestCase):
    """``--listen unix:...`` is locked and private, as the default socket."""

    def listened(self, listen: str) -> dict[str, Any]:
        reactor = RecordingReactor()
        listener = make_listener(reactor, Config(listen=listen))
        try:
            listener.take()
            listener.listen(None)
        finally:
            listener.release()
        (asked,) = reactor
        return asked

    def test_socket_is_private_without_twisteds_lock_file(self) -> None:
        path = str(self.place / "x.sock")
        for listen in (f"unix:{path}", f"unix:address={path}", f"unix:{path}:lockfile=1"):
            expected = {"path": path, "backlog": 1024, "mode": 0o600, "lock file": False}
            self.assertEqual(self.listened(listen), expected, listen)

    def owned_by(self, group: str, listen: str) -> os.stat_result:
        listener = make_listener(RecordingReactor(), Config(listen=listen, socket_group=group))
        try:
            listener.take()
            listener.listen(None)
            return (self.place / "x.sock").stat()
        finally:
            listener.release()

    def test_group_owns_the_socket(self) -> None:
        ours = grp.getgrgid(os.getegid())
        it = self.owned_by(ours.gr_name, f"unix:{self.place}/x.sock")
        self.assertEqual((it.st_gid, it.st_mode & 0o777), (ours.gr_gid, 0o660))

    def test_mode_of_the_string_wins_over_that_of_the_group(self) -> None:
        it = self.owned_by(grp.getgrgid(os.getegid()).gr_name, f"unix:{self.place}/x.sock:mode=640")
        self.assertEqual(it.st_mode & 0o777, 0o640)

    def test_missing_group_is_refused_before_the_socket_exists(self) -> None:
        with self.assertRaisesRegex(StartupError, "--socket-group nobody-s: there is no such group: make it"):
            self.owned_by("nobody-s", f"unix:{self.place}/x.sock")
        self.assertEqual(list(self.place.iterdir()), [])

    def test_group_of_another_endpoint_is_refused(self) -> None:
        for listen in ("tcp:0:interface=127.0.0.1", "unix:\0mvt"):
            with self.assertRaisesRegex(
                StartupError, "--socket-group docker is for a socket that the service makes"
            ):
                make_listener(RecordingReactor(), Config(listen=listen, socket_group="docker"))

    def test_symlink_in_place_of_the_lock_is_refused(self) -> None:
        (self.place / "x.sock.lock").symlink_to(self.place / "passwd")
        with self.assertRaisesRegex(StartupError, "cannot listen on unix:.*/x.sock"):
            make_listener(RecordingReactor(), Config(listen=f"unix:{self.place}/x.sock")).take()
        self.assertFalse((self.place / "passwd").exists())

    def test_mode_and_backlog_of_the_string_are_used(self) -> None:
        for listen in ("mode=660:backlog=7", "backlog=7:mode=660", "660:7"):
            asked = self.listened(f"unix:{self.place}/x.sock:{listen}")
            self.assertEqual((asked["mode"], asked["backlog"]), (0o660, 7), listen)

    def test_malformed_string_is_refused(self) -> None:
        for listen in ("unix:", "unix:/x:mode=rw", "unix:/x:colour=red"):
            with self.assertRaises(StartupError, msg=listen) as caught:
                make_listener(RecordingReactor(), Config(listen=listen))
            self.assertIn(f"--listen {listen} is no endpoint to listen on", str(caught.exception))

    def test_second_instance_is_refused_with_the_option(self) -> None:
        config = Config(listen=f"unix:{self.place}/x.sock")
        first = make_listener(RecordingReactor(), config)
        first.take()
        self.addCleanup(first.release)
        second = make_listener(RecordingReactor(), config)
        self.addCleanup(second.release)
        with self.assertRaisesRegex(StartupError, "is using socket .*/x.sock: .*another --listen"):
            second.take()

    def test_missing_directory_is_reported(self) -> None:
        with self.assertRaisesRegex(StartupError, "cannot listen on unix:.*/no/x.sock: No such file"):
            make_listener(RecordingReactor(), Config(listen=f"unix:{self.place}/no/x.sock")).take()

    def test_release_leaves_nothing(self) -> None:
        reactor = RecordingReactor()
        listener = make_listener(reactor, Config(listen=f"unix:{self.place}/x.sock"))
        listener.take()
        listener.listen(None)
        listener.release()
        listener.release()
        self.assertEqual(list(self.place.iterdir()), [])


class StartupErrorTests(SynchronousTestCase):
    def test_interpreter_ends_with_status_1_and_one_line(self) -> None:
        script = "from macvlan_twisted.errors import StartupError; raise StartupError('why')"
        ended = subprocess.run(
            [sys.executable, "-c", script],
            cwd=Path(__file__).parents[2],
            capture_output=True,
            text=True,
            check=False,
        )
        self.assertEqual((ended.returncode, ended.stderr), (1, "why\n"))
