"""Run programs: never without a time limit, and never with a failure that hides what was printed.

A time limit here ends what hangs, and measures nothing. Tests give one that is ample on a quiet machine, and wait
:data:`SLACK` times as long before they fail: a busy machine must not make them fail.
"""

import os
import shlex
import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass

Narrate = Callable[[str], None]
"""Receives one line of text for whoever watches, such as ``$ ip netns add ...``."""


SLACK = 10
"""How much slower than a quiet machine a busy one may be."""
LONGEST_PAUSE = 0.25
"""Seconds between two looks at what is waited for: a look often starts a program."""


@dataclass(frozen=True)
class Finished:
    """What a program that came to its end has left behind."""

    command: tuple[str, ...]
    status: int
    stdout: str
    stderr: str

    def __str__(self) -> str:
        """Tell everything: the command, how it ended, and all that it printed."""
        told = [f"$ {shlex.join(self.command)}", f"(exit status {self.status})"]
        told += [text.rstrip() for text in (self.stdout, self.stderr) if text.strip()]
        return "\n".join(told)


class CommandFailed(Exception):
    """A program ended with an error; its whole output is in the text, the parts are in `finished`."""

    def __init__(self, finished: Finished) -> None:
        """Keep what the program left behind."""
        super().__init__(str(finished))
        self.finished = finished


class TookTooLong(Exception):
    """Something did not happen within the time that it had."""


def attempt(
    *command: str,
    timeout: float = 30,
    narrate: Narrate | None = None,
    told: str | None = None,
    stdin: bytes | None = None,
    env: Mapping[str, str] | None = None,
) -> Finished:
    """Run a program to its end, and answer how it ended, be it well or badly.

    The program gets a session of its own, so that after `timeout` seconds (times :data:`SLACK`) it is killed
    with all its children (:exc:`TookTooLong`). `told` is what `narrate` is shown in place of the literal command.
    """
    if narrate is not None:
        narrate(f"$ {told or shlex.join(command)}")
    with subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL if stdin is None else subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
        env=env,
    ) as process:
        try:
            out, err = process.communicate(stdin, timeout=timeout * SLACK)
        except BaseException as error:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            out, err = process.communicate()
            if not isinstance(error, subprocess.TimeoutExpired):
                raise
            finished = Finished(command, process.returncode, _text(out), _text(err))
            raise TookTooLong(f"killed after {timeout * SLACK:g} seconds:\n{finished}") from None
    return Finished(command, process.returncode, _text(out), _text(err))


def run(
    *command: str,
    timeout: float = 30,
    narrate: Narrate | None = None,
    told: str | None = None,
    stdin: bytes | None = None,
    env: Mapping[str, str] | None = None,
) -> str:
    """Run a program and return its standard output; :exc:`CommandFailed` unless it ends with status 0."""
    finished = attempt(*command, timeout=timeout, narrate=narrate, told=told, stdin=stdin, env=env)
    if finished.status != 0:
        raise CommandFailed(finished)
    return finished.stdout


def wait_until(ready: Callable[[], bool], seconds: float, what: str, *, pause: float = 0.02) -> None:
    """Wait until `ready` returns true; raise :exc:`TookTooLong`, naming `what`, after `seconds` times :data:`SLACK`."""
    if not within(seconds, ready, pause=pause):
        raise TookTooLong(f"waited {seconds * SLACK:g} seconds in vain: {what}")


def within(seconds: float, done: Callable[[], bool], *, pause: float = 0.05) -> bool:
    """Wait until `done` returns true, for `seconds` times :data:`SLACK` at most, and return whether it did."""
    deadline = time.monotonic() + seconds * SLACK
    while not done():
        if time.monotonic() > deadline:
            return False
        time.sleep(pause)
        pause = max(pause, min(pause * 1.3, LONGEST_PAUSE))
    return True


def _text(raw: bytes) -> str:
    return raw.decode(errors="replace")
