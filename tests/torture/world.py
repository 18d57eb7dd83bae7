"""
A docker host without an engine, in which the program is started and killed many times a minute.
"""

import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import astuple
from http.client import HTTPException
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from tests.lab.commands import attempt, run
from tests.lab.dhcp_server import DhcpServer
from tests.lab.fork_server import ForkedProcess, ForkServer
from tests.lab.lan import Lan
from tests.lab.plugin import ShortGracePeriods
from tests.lab.unix_http import UnixConnection, answers
from tests.torture.netns_netlink import NetnsNetlink

T = TypeVar("T")
BOXES = 3
"""Network namespaces that serve as sandboxes; more containers than that share them."""
Rule = dict[str, Any]


class Cut(Exception):
    """The connection broke during a call. Whether the program executed it is unknown."""


class Unreached(Exception):
    """The program does not listen."""


class World:
    """The LAN, its sandboxes, and the processes of the program."""

    def __init__(self, lan: Lan) -> None:
        """Prepare; `lan` is there already."""
        self.lan = lan
        self.dhcp: DhcpServer | None = None
        """The DHCP server of the LAN, for scenarios that reconfigure it."""
        self.at_end = ExitStack()
        """Clean-up for the end of a try."""
        self._undo = ExitStack()
        self.directory = Path()
        self._process: ForkedProcess | None = None
        self._life = 0

    def __enter__(self) -> Self:
        """Create the sandboxes, and start the fork server."""
        with ExitStack() as undo:
            self.root = Path(tempfile.mkdtemp(prefix=f"{self.lan.tag}-torture-"))
            undo.callback(shutil.rmtree, self.root, ignore_errors=True)
            self._boxes = []
            self._box_paths = []
            for number in range(BOXES):
                name = f"{self.lan.tag}-box{number}"
                undo.callback(attempt, "ip", "netns", "delete", name)
                run("ip", "netns", "add", name)
                self._box_paths.append(f"/run/netns/{name}")
                self._boxes.append(NetnsNetlink(self._box_paths[-1]))
                undo.callback(self._boxes[-1].close)
            self.host = NetnsNetlink(self.lan.namespace_path("host"))
            undo.callback(self.host.close)
            self._fork_server = ForkServer("tests.torture.forked_program")
            self._fork_server.open()
            undo.callback(self._fork_server.close)
            self._undo = undo.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End all of it."""
        self.kill()
        self._undo.close()

    # One try.

    @contextmanager
    def try_out(self, *arguments: str, on: Path | None = None) -> Iterator[None]:
        """
        Begin anew: no state, no links. What is left at the end is removed.

        :param on: where the state directory is to be, if not beside everything else.
        """
        self.directory = Path(tempfile.mkdtemp(prefix="try-", dir=self.root))
        self.state = (on or self.directory) / "state"
        self.arguments = arguments
        self.docker_host = "none"
        self._life = 0
        self._process = None
        try:
            with ExitStack() as self.at_end:
                yield
        finally:
            self.kill()
            self.sweep()
            shutil.rmtree(self.directory, ignore_errors=True)
            shutil.rmtree(self.state, ignore_errors=True)

    def sweep(self) -> None:
        """Remove the macvlan links that containers and the program have on eth1."""
        for netns in (self.host, *self._boxes):
            for name, link in netns.links().items():
                info = link.get_attr("IFLA_LINKINFO")
                kind = info.get_attr("IFLA_INFO_KIND") if info else ""
                foreign = (link.get_attr("IFLA_IFALIAS") or "").startswith("foreign")
                if kind == "macvlan" and not foreign:
                    netns.delete(name)

    @property
    def socket(self) -> Path:
        """Where the program listens."""
        return self.directory / "plugins" / "macvlan-twisted.sock"

    @property
    def log_file(self) -> Path:
        """The log of all processes of this try."""
        return self.directory / "log"

    @property
    def switch(self) -> Path:
        """The file that enables rules marked ``while_held``."""
        return self.directory / "switch"

    def failpoints_of(self, life: int) -> list[str]:
        """Return the failpoints that a process has passed; processes are numbered from 1."""
        path = self.directory / f"steps{life}"
        return path.read_text().splitlines() if path.exists() else []

    @property
    def was_refused(self) -> bool:
        """Whether a failpoint of any process was refused."""
        lives = range(1, self.life + 1)
        return any(line.endswith(" refused") for life in lives for line in self.failpoints_of(life))

    def begin(
        self,
        rules: Sequence[Rule],
        limits: Mapping[str, tuple[int, int]],
        user: int,
        short_grace_periods: ShortGracePeriods | None = None,
    ) -> None:
        """Start a process, and do not wait for it."""
        self._life += 1
        order = {
            "arguments": [
                *self._places,
                f"--docker-host={self.docker_host}",
                *(() if short_grace_periods is None else ("--reconcile-interval=1",)),
                *self.arguments,
            ],
            **self._order(rules),
            "limits": limits,
            "user": user,
            "grace_periods": None if short_grace_periods is None else astuple(short_grace_periods),
        }
        self._process = self._fork_server.fork(order)

    @property
    def _places(self) -> tuple[str, ...]:
        return (
            f"--plugin-dir={self.socket.parent}",
            f"--state-dir={self.state}",
            f"--runtime-dir={self.directory / 'run'}",
        )

    def _order(self, rules: Sequence[Rule]) -> dict[str, Any]:
        if not self.switch.exists():
            self.switch.write_text("1")
        return {
            "namespaces": [self.lan.namespace_path("host")],
            "environment": None,
            "log": str(self.log_file),
            "trace": str(self.directory / f"steps{self._life}"),
            "switch": str(self.switch),
            "rules": rules,
        }

    def command(self, *words: str, rules: Sequence[Rule] = (), seconds: float = 60) -> int:
        """
        Run an administrator's command in a process of its own, and return its status.

        :raises RuntimeError: it does not end.
        """
        self._life += 1
        places = self._places if words[0] == "purge" else ()
        arguments = [*words, *places, f"--docker-host={self.docker_host}"]
        process = self._fork_server.fork({"command": True, "arguments": arguments, **self._order(rules)})
        try:
            return process.wait(seconds)
        except subprocess.TimeoutExpired:
            os.kill(process.pid, signal.SIGKILL)
            process.wait(20)
            raise RuntimeError(f"macvlan-twisted {' '.join(words)} does not end:\n{self.log()}") from None

    @property
    def pid(self) -> int:
        """The id of the process; 0 when there is none."""
        return 0 if self._process is None else self._process.pid

    @property
    def life(self) -> int:
        """The number of the process, from 1."""
        return self._life

    def wait(self, seconds: float) -> int | None:
        """Wait for the end of the process, and return its status; ``None`` if it still runs."""
        if self._process is None:
            return -signal.SIGKILL
        try:
            status = self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return None
        self._process = None
        return status

    def start(
        self,
        *rules: Rule,
        seconds: float = 30,
        limits: Mapping[str, tuple[int, int]] | None = None,
        user: int = 0,
        short_grace_periods: ShortGracePeriods | None = None,
    ) -> bool:
        """
        Start a process, and wait until it answers; ``False`` if it ended before.

        :param limits: by the names of the resource module. :param user: the user id; without root it has only the
            capabilities that the program needs. :param short_grace_periods: for the reconciler.
        """
        self.begin(rules, limits or {}, user, short_grace_periods)
        return self.comes_up(seconds)

    def comes_up(self, seconds: float = 30) -> bool:
        """Wait until the program answers; ``False`` if it ended before."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if answers(self.socket, "POST", "/Plugin.Activate"):
                return True
            if self.wait(0.003) is not None:
                return False
        raise RuntimeError(f"the program does not answer after {seconds:g} s:\n{self.log()}")

    def kill(self) -> None:
        """Kill the program, if it runs."""
        if self.pid:
            with suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
            self.wait(20)

    def stop(self, seconds: float = 20) -> int | None:
        """Stop the program by SIGTERM, and return its status."""
        if self.pid:
            with suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGTERM)
        return self.wait(seconds)

    def log(self) -> str:
        """Return the log of all processes of this try."""
        return self.log_file.read_text(errors="replace") if self.log_file.exists() else ""

    def call(self, method: str, body: Mapping[str, Any] | None, seconds: float = 30) -> dict[str, Any]:
        """
        Make one call, and return the answer.

        :raises Unreached: the program is not there. :raises Cut: it went while it should have answered.
        """
        connection = UnixConnection(self.socket, seconds)
        try:
            try:
                connection.connect()
            except OSError:
                raise Unreached(method) from None
            try:
                connection.request(
                    "POST", f"/{method}", b"" if body is None else json.dumps(body).encode() + b"\n"
                )
                response = connection.getresponse()
                answer = json.loads(response.read())
            except TimeoutError:
                raise
            except (OSError, HTTPException, ValueError):
                raise Cut(method) from None
            if not isinstance(answer, dict):
                raise TypeError(f"{method} was answered with {answer!r}")
            return answer
        finally:
            connection.close()

    def send(self, raw: bytes, seconds: float = 30) -> bytes:
        """Send bytes, which need not be a request; return what comes until the connection closes."""
        with socket.socket(socket.AF_UNIX) as dialled:
            dialled.settimeout(seconds)
            dialled.connect(str(self.socket))
            dialled.sendall(raw)
            answer = b""
            with suppress(ConnectionError):
                while more := dialled.recv(1 << 16):
                    answer += more
            return answer

    # What an engine does to links.

    def box(self, number: int) -> NetnsNetlink:
        """Netlink in a sandbox."""
        return self._boxes[number % BOXES]

    def box_path(self, number: int) -> str:
        """The file of a sandbox, as an engine names it."""
        return self._box_paths[number % BOXES]

    def into_box(self, link: str, number: int) -> bool:
        """Move a container's link into its sandbox; ``False`` if there is none in the host."""
        path = self.box_path(number)

        def work() -> bool:
            try:
                index = socket.if_nametoindex(link)
            except OSError:
                return False
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                self.host.netlink.link("set", index=index, net_ns_fd=descriptor)
            finally:
                os.close(descriptor)
            return True

        if not self.host.do(work):
            return False
        box = self.box(number)
        box.do(lambda: box.netlink.link("set", index=socket.if_nametoindex(link), state="up"))
        return True

    def out_of_box(self, link: str, number: int) -> None:
        """Move it back, down, as an engine does after Leave."""
        box = self.box(number)
        path = self.lan.namespace_path("host")

        def work() -> None:
            try:
                index = socket.if_nametoindex(link)
            except OSError:
                return
            box.netlink.link("set", index=index, state="down")
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                box.netlink.link("set", index=index, net_ns_fd=descriptor)
            finally:
                os.close(descriptor)

        box.do(work)

    def empty_boxes(self, kept: set[str]) -> None:
        """Delete the links of all other containers, as the kernel does with their sandboxes."""
        for box in self._boxes:
            for name in box.links():
                if name != "lo" and name not in kept:
                    box.delete(name)

    def boxed(self) -> set[str]:
        """Return the names of all links in sandboxes."""
        return {name for box in self._boxes for name in box.links() if name != "lo"}
