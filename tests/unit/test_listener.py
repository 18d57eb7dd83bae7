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
        said = "^another macvlan-twisted is using state directory /x: stop it, or choose another --state-dir$"
        with self.assertRaisesRegex(StartupError, said):
            self.locked("state directory /x", "--state-dir")

    def test_released_lock_leaves_no_file(self) -> None:
        self.path.write_text("4711")  # of a killed holder
        for _ in range(3):
            self.locked().release()
            self.assertFalse(self.path.exists())

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

    def test_stale_socket_is_removed(self) -> None:
        self.listening().close()
        self.assertTrue(os.path.exists("x.sock"))
        for _ in range(2):
            remove_stale_socket("x.sock", "--place")
            self.assertFalse(os.path.lexists("x.sock"))

    def assert_stays(self) -> None:
        said = "^another program is listening on x.sock: stop it, or choose another --place$"
        with self.assertRaisesRegex(StartupError, said):
            remove_stale_socket("x.sock", "--place")
        self.assertTrue(os.path.exists("x.sock"))

    def test_listening_socket_stays(self) -> None:
        self.listening()
        self.assert_stays()

    def test_socket_with_a_full_backlog_stays(self) -> None:
        self.listening().listen(0)
        with socket.socket(socket.AF_UNIX) as first:
            first.connect("x.sock")
            self.assert_stays()

    def test_datagram_socket_stays(self) -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as somebodys:
            somebodys.bind("x.sock")
            self.assert_stays()

    def test_other_files_stay(self) -> None:
        Path("file").write_text("precious")
        os.mkdir("directory")
        os.symlink("file", "link")
        for name in ("file", "directory", "link"):
            with self.assertRaisesRegex(StartupError, f"{name} exists and is not a socket: remove it"):
                remove_stale_socket(name, "--place")
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

    def setUp(self) -> None:
        super().setUp()
        self.socket = f"unix:{self.place}/x.sock"

    def listened(self, listen: str, group: str | None = None) -> tuple[dict[str, Any], os.stat_result]:
        """What the reactor was asked for, and the file."""
        reactor = RecordingReactor()
        listener = make_listener(reactor, Config(listen=listen, socket_group=group))
        try:
            listener.acquire()
            listener.listen(None)
            (asked,) = reactor
            return asked, (self.place / "x.sock").stat()
        finally:
            listener.release()

    def test_socket_is_as_the_string_says_without_twisteds_lock_file(self) -> None:
        path = str(self.place / "x.sock")
        for listen, mode, backlog in (
            (f"unix:{path}", 0o600, 1024),
            (f"unix:address={path}", 0o600, 1024),
            (f"unix:{path}:lockfile=1", 0o600, 1024),
            (f"unix:{path}:mode=660:backlog=7", 0o660, 7),
            (f"unix:{path}:backlog=7:mode=660", 0o660, 7),
            (f"unix:{path}:660:7", 0o660, 7),
        ):
            expected = {"path": path, "backlog": backlog, "mode": mode, "lock file": False}
            self.assertEqual(self.listened(listen)[0], expected, listen)

    def test_group_owns_the_socket_and_the_mode_of_the_string_wins(self) -> None:
        ours = grp.getgrgid(os.getegid())
        for listen, mode in ((self.socket, 0o660), (f"{self.socket}:mode=640", 0o640)):
            _, it = self.listened(listen, ours.gr_name)
            self.assertEqual((it.st_gid, it.st_mode & 0o777), (ours.gr_gid, mode))

    def test_missing_group_is_refused_before_the_socket_exists(self) -> None:
        with self.assertRaisesRegex(
            StartupError, "--socket-group nobody-s: there is no such group: create it"
        ):
            make_listener(RecordingReactor(), Config(listen=self.socket, socket_group="nobody-s")).acquire()
        self.assertEqual(list(self.place.iterdir()), [])

    def test_group_of_another_endpoint_is_refused(self) -> None:
        for listen in ("tcp:0:interface=127.0.0.1", "unix:\0mvt"):
            with self.assertRaisesRegex(
                StartupError, "--socket-group docker cannot be used, because the plugin does not create"
            ):
                make_listener(RecordingReactor(), Config(listen=listen, socket_group="docker"))

    def test_symlink_in_place_of_the_lock_is_refused(self) -> None:
        (self.place / "x.sock.lock").symlink_to(self.place / "passwd")
        with self.assertRaisesRegex(StartupError, "cannot listen on unix:.*/x.sock"):
            make_listener(RecordingReactor(), Config(listen=self.socket)).acquire()
        self.assertFalse((self.place / "passwd").exists())

    def test_malformed_string_is_refused(self) -> None:
        for listen in ("unix:", "unix:/x:mode=rw", "unix:/x:colour=red"):
            with self.assertRaisesRegex(StartupError, f"--listen {listen} is not an endpoint to listen on"):
                make_listener(RecordingReactor(), Config(listen=listen))

    def test_second_instance_is_refused_with_the_option(self) -> None:
        config = Config(listen=self.socket)
        first = make_listener(RecordingReactor(), config)
        first.acquire()
        self.addCleanup(first.release)
        second = make_listener(RecordingReactor(), config)
        self.addCleanup(second.release)
        with self.assertRaisesRegex(StartupError, "is using socket .*/x.sock: .*another --listen"):
            second.acquire()

    def test_missing_directory_is_reported(self) -> None:
        with self.assertRaisesRegex(StartupError, "cannot listen on unix:.*/no/x.sock: No such file"):
            make_listener(RecordingReactor(), Config(listen=f"unix:{self.place}/no/x.sock")).acquire()

    def test_release_leaves_nothing(self) -> None:
        reactor = RecordingReactor()
        listener = make_listener(reactor, Config(listen=self.socket))
        listener.acquire()
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
