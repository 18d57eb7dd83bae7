"""Starts of the service that take a tenth of a second, since the program is imported once for all of them."""

import atexit
import json
import os
import select
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from threading import RLock
from typing import Any

from tests.lab.commands import Narrate
from tests.lab.daemons import Daemon

CHECKOUT = Path(__file__).resolve().parents[2]
TWISTD = "tests.lab.forked_twistd"


class ForkServer:
    """A process that has imported the service, and forks a process for each order.

    An order is a mapping with ``namespaces`` (files of the namespaces to enter), ``environment`` (None: that of the
    server), ``log`` (the file that gets what the process prints), and whatever the `program`, a module, reads itself.
    """

    def __init__(self, program: str = TWISTD) -> None:
        """Prepare; nothing runs before :meth:`open`."""
        self._program = program
        self._lock = RLock()

    def open(self) -> None:
        """Start the server, and wait until it has imported everything."""
        self._channel, theirs = socket.socketpair()
        self._server = Daemon(
            "the fork server",
            (sys.executable, "-P", "-B", "-m", "tests.lab.fork_server_process", self._program),
            env={**os.environ, "PYTHONPATH": str(CHECKOUT)},
            stdin=theirs.fileno(),
        )
        self._server.start()
        theirs.close()
        self._lines = self._channel.makefile("r")
        self._answer()

    def close(self) -> None:
        """End the server and every process that it has forked."""
        self._server.kill()
        self._lines.close()
        self._channel.close()

    def fork(self, order: Mapping[str, Any]) -> "ForkedProcess":
        """Start a process."""
        return ForkedProcess(self, self._ask(order))

    def status_of(self, pid: int) -> int:
        """Return the exit status of a process that has ended; it can be asked for once."""
        return self._ask(pid)

    def _ask(self, request: Mapping[str, Any] | int) -> int:
        with self._lock:
            self._channel.sendall(json.dumps(request).encode() + b"\n")
            return self._answer()

    def _answer(self) -> int:
        if not (line := self._lines.readline()):
            raise RuntimeError(f"the fork server has ended:\n{self._server.log()}")
        return int(line)


class ForkedProcess:
    """A process that a fork server has started, as :class:`subprocess.Popen` would show it."""

    stdin = stdout = None

    def __init__(self, server: ForkServer, pid: int) -> None:
        """Remember whom to ask for the exit status."""
        self.pid = pid
        self._server = server
        self._status: int | None = None
        self._lock = RLock()

    def poll(self) -> int | None:
        """Return the exit status (negative: the signal that killed it), or None while the process runs."""
        return self._status if self._has_ended(0) else None

    def wait(self, timeout: float) -> int:
        """Wait for the end, and return the exit status.

        :raises subprocess.TimeoutExpired: the process still runs after `timeout` seconds.
        """
        if not self._has_ended(timeout):
            raise subprocess.TimeoutExpired(str(self.pid), timeout)
        assert self._status is not None
        return self._status

    def _has_ended(self, seconds: float) -> bool:
        with self._lock:
            if self._status is None:
                if not ended_within(
                    self.pid, seconds
                ):  # until its status is asked for the id is nobody else's
                    return False
                self._status = self._server.status_of(self.pid)
            return True


class ForkedDaemon(Daemon):
    """A daemon whose start is an order to the shared fork server."""

    def __init__(
        self,
        name: str,
        order: Callable[[], Mapping[str, Any]],
        *,
        log: Path,
        told: str,
        narrate: Narrate | None = None,
    ) -> None:
        """Remember what makes the order, but for the log, at each start; the rest is as in :class:`Daemon`."""
        super().__init__(name, (), log=log, told=told, narrate=narrate)
        self._order = order
        self._log_file = str(log)

    def _spawn(self) -> ForkedProcess:
        return shared_fork_server().fork({"log": self._log_file, **self._order()})


def ended_within(pid: int, seconds: float) -> bool:
    """Wait for the end of any process, however it is related to us, and return whether it came."""
    descriptor = os.pidfd_open(pid)
    try:
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        return bool(poll.poll(seconds * 1000))
    finally:
        os.close(descriptor)


@cache
def shared_fork_server() -> ForkServer:
    """Return the one server for all services of this process; it ends with us."""
    server = ForkServer()
    server.open()
    atexit.register(server.close)
    return server
