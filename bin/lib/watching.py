"""Processes of tests: run side by side, watched, counted.

Lines are passed on as they come, with the name of their part before them. When a part has failed, all that it
said is printed once more, in one piece; the end of that is kept for who tells the outcome.
"""

import os
import re
import signal
import subprocess
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

LIMIT = 1800
"""Seconds after which one process of tests is taken to hang."""
NO_TESTS_COLLECTED = 5  # pytest's exit status
LAST_LINES = 24
"""About how many lines tell of failures in the end, where somebody sees only the end of a long log."""


@dataclass(frozen=True)
class Part:
    """One process of tests, or the reason why there is none."""

    title: str
    command: Sequence[str] = ()
    missing: str = ""
    environment: dict[str, str] = field(default_factory=dict)
    directory: str = "."


@dataclass
class Outcome:
    """What became of a part."""

    title: str
    passed: int = 0
    failed: int = 0
    skipped: int = 0
    seconds: float = 0
    remark: str = ""
    last_lines: Sequence[str] = ()
    """The last ones that a part has printed, if it failed: there tests say why."""

    def __str__(self) -> str:
        """Say it in a line."""
        told = f"{self.title:<36} {counts(self.passed, self.failed, self.skipped):<36} {self.seconds:6.1f} s"
        return f"{told}  ({self.remark})" if self.remark else told


def counts(passed: int, failed: int, skipped: int) -> str:
    """Say what was counted."""
    return f"{passed} passed, {failed} failed" + (f", {skipped} skipped" if skipped else "")


def why_failed(outcomes: Sequence[Outcome]) -> list[str]:
    """Repeat the last lines of all parts that failed."""
    failed = [each for each in outcomes if each.last_lines]
    lines = []
    for each in failed:
        lines.append(f"===== the last lines of {each.title} =====")
        lines += each.last_lines[-max(4, LAST_LINES // len(failed)) :]
    return lines


class Watch:
    """Runs lanes of parts: the parts of a lane one after the other, the lanes side by side."""

    def __init__(self) -> None:
        """Begin with nothing."""
        self._printing = threading.Lock()
        self._running: set[subprocess.Popen[bytes]] = set()
        self._over = False

    def run(self, lanes: Sequence[Sequence[Part]]) -> list[Outcome]:
        """Run them all, and return the outcomes in the order of the parts."""
        with ThreadPoolExecutor(max(len(lanes), 1)) as pool:
            begun = [pool.submit(lambda lane=lane: [self._run(part) for part in lane]) for lane in lanes]  # type: ignore[misc]
            try:
                return [outcome for each in begun for outcome in each.result()]
            except KeyboardInterrupt:
                self._over = True
                for process in list(self._running):
                    process.send_signal(signal.SIGINT)  # so that fixtures clear up
                raise

    def _run(self, part: Part) -> Outcome:
        if self._over:
            return Outcome(part.title, remark="interrupted")
        if part.missing:
            self._print(f"{part.title}: skipped: {part.missing}")
            return Outcome(part.title, skipped=1, remark=part.missing)
        self._print(f"{part.title}: begins")
        began = time.monotonic()
        status, output = self._watched(part)
        outcome = count(part.title, status, output)
        outcome.seconds = time.monotonic() - began
        if outcome.failed:
            outcome.last_lines = [line for line in output.splitlines() if line.strip()][-LAST_LINES:]
            self._print(
                f"\n===== {part.title}, in one piece =====\n{output}\n===== end of {part.title} =====\n"
            )
        self._print(str(outcome))
        return outcome

    def _watched(self, part: Part) -> tuple[int | None, str]:
        """Run the command of a part, and return its status (None: it hung) and what it has printed."""
        lines: list[str] = []
        hung = threading.Event()
        environment = {"PYTHONUNBUFFERED": "1", "PYTHONDONTWRITEBYTECODE": "1", **part.environment}
        with subprocess.Popen(
            part.command,
            cwd=part.directory,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={**os.environ, **environment},
        ) as process:
            self._running.add(process)

            def give_up() -> None:
                hung.set()
                process.send_signal(signal.SIGINT)
                threading.Timer(60, process.kill).start()

            timer = threading.Timer(LIMIT, give_up)
            timer.daemon = True
            timer.start()
            assert process.stdout is not None
            for raw in process.stdout:
                line = re.sub(r"\x1b\[[0-9;]*m", "", raw.decode(errors="replace")).rstrip("\n")
                lines.append(line)
                if line.strip():
                    self._print(f"{part.title} | {line}")
            status = process.wait()
            timer.cancel()
            self._running.discard(process)
        return (None if hung.is_set() else status), "\n".join(lines)

    def _print(self, text: str) -> None:
        with self._printing:
            print(text, flush=True)


def count(title: str, status: int | None, output: str) -> Outcome:
    """Read the counts out of the last line that pytest, or trial, has printed."""
    outcome = Outcome(title)
    last = next((line for line in reversed(output.splitlines()) if SUMMARY.search(line)), "")
    trial = TRIAL.match(last)
    found = (
        [(number, word) for word, number in re.findall(r"(\w+)=(\d+)", trial[2])]
        if trial
        else re.findall(r"(\d+) (\w+)", last)
    )
    for number, word in found:
        if name := WORDS.get(word):
            setattr(outcome, name, getattr(outcome, name) + int(number))
    if status is None:
        outcome.failed += 1
        outcome.remark = f"stopped: it took more than {LIMIT} seconds"
    elif status not in (0, NO_TESTS_COLLECTED) and not outcome.failed:
        outcome.failed += 1
        outcome.remark = f"ended with status {status}"
    elif not (outcome.passed or outcome.failed or outcome.skipped):
        outcome.skipped += 1
        outcome.remark = "no tests there"
    return outcome


TRIAL = re.compile(r"(PASSED|FAILED) \((.*)\)$")
SUMMARY = re.compile(
    r"^(PASSED|FAILED) \(|^=+ .*\d+ \w+.* in [0-9.]+s|^\d+ \w+.* in [0-9.]+s|^=+ no tests ran"
)
WORDS = {
    "passed": "passed",
    "successes": "passed",
    "xfailed": "passed",
    "expectedFailures": "passed",
    "failed": "failed",
    "failures": "failed",
    "error": "failed",
    "errors": "failed",
    "xpassed": "failed",
    "unexpectedSuccesses": "failed",
    "skipped": "skipped",
    "skips": "skipped",
}
