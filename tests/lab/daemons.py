"""Programs that stay: started, watched through their log, and ended by the process id that we were given."""

import os
import shlex
import signal
import subprocess
import tempfile
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import IO, Protocol

from tests.lab.commands import SLACK, Narrate, TookTooLong, wait_until


class Process(Protocol):
    """What a daemon needs of :class:`subprocess.Popen`."""

    @property
    def pid(self) -> int: ...

    @property
    def stdin(self) -> IO[bytes] | None: ...

    @property
    def stdout(self) -> IO[bytes] | None: ...

    def poll(self) -> int | None: ...

    def wait(self, timeout: float) -> int: ...


class Daemon:
    """One program of ours that runs until it is told to end. It can be started again after its end.

    What it prints goes into a log file, which :meth:`log` reads; with ``stdout=subprocess.PIPE`` only its
    errors do. The file descriptors `inherited` are open in it, too. `forks` says that the command is a mere wrapper (`nsenter --pid`, `unshare --fork`) that waits
    for its one child: signals are then sent to that child.
    """

    def __init__(
        self,
        name: str,
        command: tuple[str, ...],
        *,
        log: Path | None = None,
        env: Mapping[str, str] | None = None,
        narrate: Narrate | None = None,
        told: str | None = None,
        forks: bool = False,
        stdin: int = subprocess.DEVNULL,
        stdout: int | None = None,
        inherited: tuple[int, ...] = (),
    ) -> None:
        """Remember what to run; without `log` the log is a nameless temporary file."""
        self.name = name
        self.command = command
        self._env = env
        self._narrate = narrate
        self._told = told or shlex.join(command)
        self._forks = forks
        self._stdin = stdin
        self._stdout = stdout
        self.inherited = inherited
        self._log = tempfile.TemporaryFile() if log is None else log.open("a+b")  # noqa: SIM115 - kept until we go
        self._process: Process | None = None

    @property
    def running(self) -> bool:
        """Whether the program was started and has not ended."""
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        """The process id of the program itself, behind a wrapper if there is one."""
        process = self._require()
        if not self._forks:
            return process.pid
        children = children_of(process.pid)
        if not children:
            raise ProcessLookupError(f"{self.name} has no process: it is not yet or no longer there")
        return children[0]

    @property
    def status(self) -> int | None:
        """The exit status (negative: the signal that killed it), or None while the program runs."""
        return self._require().poll()

    @property
    def stdin(self) -> IO[bytes]:
        """The pipe into the program, if `stdin` asked for one."""
        pipe = self._require().stdin
        assert pipe is not None
        return pipe

    @property
    def stdout(self) -> IO[bytes]:
        """The pipe out of the program, if `stdout` asked for one."""
        pipe = self._require().stdout
        assert pipe is not None
        return pipe

    def start(self) -> None:
        """Start the program, in a session of its own, so that a Ctrl-C is ours alone to handle.

        If this is done in the main thread, the program is killed when we die.
        """
        if self.running:
            raise RuntimeError(f"{self.name} is running already")
        if self._narrate is not None:
            self._narrate(f"$ {self._told} &")
        self._process = self._spawn()

    def _spawn(self) -> Process:
        # The kernel takes the end of the thread that started a program for the end of its parent.
        lasting = threading.current_thread() is threading.main_thread()
        return subprocess.Popen(
            ("setpriv", "--pdeathsig", "KILL", "--", *self.command) if lasting else self.command,
            stdin=self._stdin,
            stdout=self._log if self._stdout is None else self._stdout,
            stderr=self._log,
            start_new_session=True,
            env=self._env,
            pass_fds=self.inherited,
        )

    def send(self, number: signal.Signals) -> None:
        """Send a signal to the program; nothing happens when it has ended."""
        with suppress(ProcessLookupError, FileNotFoundError):
            if self.running:
                os.kill(self.pid, number)

    def wait(self, seconds: float) -> int:
        """Wait for the end and return the exit status; raise :exc:`TookTooLong` after `seconds` times the slack."""
        try:
            return self._require().wait(seconds * SLACK)
        except subprocess.TimeoutExpired:
            raise TookTooLong(
                f"{self.name} still runs after {seconds * SLACK:g} seconds:\n{self.log_tail()}"
            ) from None

    def terminate(self, seconds: float) -> int:
        """Ask the program to end (SIGTERM), and return its exit status."""
        self.send(signal.SIGTERM)
        return self.wait(seconds)

    def kill(self) -> None:
        """Kill the program (SIGKILL) if it runs, and wait until it is gone."""
        if self._process is None:
            return
        self.send(signal.SIGKILL)
        self.wait(10)
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with suppress(BrokenPipeError):
                    pipe.close()

    def log(self) -> str:
        """Return everything that the program has printed, over all its starts."""
        return os.pread(self._log.fileno(), os.fstat(self._log.fileno()).st_size, 0).decode(errors="replace")

    def log_tail(self, lines: int = 30) -> str:
        """Return the end of the log."""
        return "\n".join(self.log().splitlines()[-lines:])

    def wait_for_log(self, text: str, *, seconds: float) -> None:
        """Wait until the log holds `text`, on the terms of :meth:`wait_until`."""
        self.wait_until(lambda: text in self.log(), seconds, f"{text!r} in the log of {self.name}")

    def wait_until(self, ready: Callable[[], bool], seconds: float, what: str) -> None:
        """Wait until `ready` says yes. Its end, or that of the time, is an error with the log."""
        try:
            wait_until(lambda: not self.running or ready(), seconds, what)
        except TookTooLong as error:
            raise TookTooLong(f"{error}\n{self.log_tail()}") from None
        if not self.running and not ready():
            raise RuntimeError(f"{self.name} ended with status {self.status}:\n{self.log_tail()}")

    def _require(self) -> Process:
        if self._process is None:
            raise RuntimeError(f"{self.name} was never started")
        return self._process


def children_of(pid: int) -> list[int]:
    """Return the process ids of the children of a process that has one thread."""
    return list(map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()))
