"""Run processes of tests side by side, follow their output, and report how they ended.

A part that prints nothing for a while is taken to hang and is ended. Its report still counts the tests that passed
before, and names those that did not run. Time alone never ends a part: on a busy machine everything takes longer.
"""

import os
import re
import selectors
import signal
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass, field

IDLE_LIMIT = 600.0
"""Seconds without output after which a part is taken to hang."""
GRACE = 60.0
"""Seconds that an interrupted part has for its cleanup, before it is killed."""
PROGRESS_INTERVAL = 20.0
"""Seconds between two lines of progress."""
NO_TESTS_COLLECTED = 5  # pytest's exit status
LAST_LINES = 24
"""About how many lines of failed parts are repeated at the end, where a reader of a long log looks first."""
NAMES_AT_END = 20
"""How many tests that did not run are repeated at the end."""


@dataclass(frozen=True)
class Part:
    """One process of tests, or the reason why there is none."""

    title: str
    command: Sequence[str] = ()
    listing: Sequence[str] = ()
    """A command that prints the names of the part's tests; needed only if the part hangs."""
    missing: str = ""
    environment: dict[str, str] = field(default_factory=dict)
    directory: str = "."


@dataclass
class Outcome:
    """How a part ended."""

    title: str
    passed: int = 0
    failed: int = 0
    skipped: int = 0
    seconds: float = 0
    remark: str = ""
    last_lines: Sequence[str] = ()
    """The end of a failed part's output: there the tests say why they failed."""
    not_run: Sequence[str] = ()
    """The tests that had no result when the part was ended; the first one may be the test that hung."""

    def __str__(self) -> str:
        """Return the outcome in one line."""
        line = f"{self.title:<36} {counts(self.passed, self.failed, self.skipped):<36} {self.seconds:6.1f} s"
        return f"{line}  ({self.remark})" if self.remark else line


def counts(passed: int, failed: int, skipped: int) -> str:
    """Return the counts as text."""
    return f"{passed} passed, {failed} failed" + (f", {skipped} skipped" if skipped else "")


def why_failed(outcomes: Sequence[Outcome]) -> list[str]:
    """Repeat the last lines of the parts that failed, and the first names of what did not run."""
    failed = [each for each in outcomes if each.last_lines or each.not_run]
    lines = []
    for each in failed:
        lines.append(f"===== the last lines of {each.title} =====")
        lines += each.last_lines[-max(4, LAST_LINES // len(failed)) :]
        lines += [f"did not run: {name}" for name in each.not_run[:NAMES_AT_END]]
        if len(each.not_run) > NAMES_AT_END:
            lines.append(f"did not run: {len(each.not_run) - NAMES_AT_END} more, listed above")
    return lines


class Results:
    """The results that a test program has printed so far, by pytest -v, trial --reporter=timing or bin/torture."""

    def __init__(self) -> None:
        """Begin without results."""
        self.by_test: dict[str, str] = {}
        self.expected = 0
        """The number of tests, if the program has printed it."""

    def add(self, line: str) -> bool:
        """Take in a line; return whether it says no more than that a test has passed."""
        if found := EXPECTED.match(line):
            self.expected = int(found[2] or found[1])
        elif found := TORTURE_RESULT.match(line):
            self.by_test[found[1]] = "passed" if found[2] == found[3] == "0" else "failed"
        elif found := PYTEST_RESULT.match(line) or TRIAL_RESULT.match(line):
            word = WORDS[found[2]]
            if self.by_test.get(found[1]) != "failed":  # a test that passed may still fail in its cleanup
                self.by_test[found[1]] = word
            return word == "passed"
        return False

    def count(self, word: str) -> int:
        """Count the tests that passed, failed or were skipped."""
        return sum(each == word for each in self.by_test.values())

    def without(self, listed: str) -> list[str]:
        """Return the tests of a listing that have no result."""
        names = [name for line in listed.splitlines() if (name := _listed_name(line))]
        return [name for name in dict.fromkeys(names) if name not in self.by_test]


class PartRunner:
    """Runs lanes of parts: the parts of a lane one after the other, the lanes side by side."""

    def __init__(self, idle_limit: float = IDLE_LIMIT, grace: float = GRACE) -> None:
        """Take the limits, in seconds; nothing runs yet."""
        self._idle_limit = idle_limit
        self._grace = grace
        self._printing = threading.Lock()
        self._running: dict[subprocess.Popen[bytes], tuple[Part, Results]] = {}
        self._over = False

    def run(self, lanes: Sequence[Sequence[Part]]) -> list[Outcome]:
        """Run all parts, and return their outcomes in the order of the parts."""
        began = time.monotonic()
        with ThreadPoolExecutor(max(len(lanes), 1)) as pool:
            begun = [pool.submit(lambda lane=lane: [self._run(part) for part in lane]) for lane in lanes]  # type: ignore[misc]
            try:
                while wait(begun, timeout=PROGRESS_INTERVAL).not_done:
                    self._print_progress(time.monotonic() - began)
                return [outcome for each in begun for outcome in each.result()]
            except KeyboardInterrupt:
                self._over = True
                for process in list(self._running):
                    process.send_signal(signal.SIGINT)  # so that fixtures clean up
                raise

    def _run(self, part: Part) -> Outcome:
        if self._over:
            return Outcome(part.title, remark="interrupted")
        if part.missing:
            self._print(f"{part.title}: skipped: {part.missing}")
            return Outcome(part.title, skipped=1, remark=part.missing)
        self._print(f"{part.title}: begins")
        began = time.monotonic()
        results = Results()
        status, lines = self._followed(part, results)
        outcome = count(part.title, status, lines)
        if status is None:
            outcome = self._ended(part, results)
        outcome.seconds = time.monotonic() - began
        if outcome.failed:
            outcome.last_lines = [line for line in lines if line.strip()][-LAST_LINES:]
            unheard = [f"did not run: {name}" for name in outcome.not_run]
            text = "\n".join([f"\n===== {part.title}, in one piece =====", *lines, *unheard])
            self._print(f"{text}\n===== end of {part.title} =====\n")
        self._print(str(outcome))
        return outcome

    def _ended(self, part: Part, results: Results) -> Outcome:
        """Report a part that was ended, from the results that it had printed."""
        failed = results.count("failed") + 1
        outcome = Outcome(part.title, results.count("passed"), failed, results.count("skipped"))
        if part.listing:
            listed = subprocess.run(
                part.listing, cwd=part.directory, env=_environment(part), capture_output=True, text=True, check=False
            )  # fmt: skip
            outcome.not_run = results.without(listed.stdout)
        outcome.remark = f"ended: no output for {self._idle_limit:g} s; {len(outcome.not_run)} did not run"
        return outcome

    def _followed(self, part: Part, results: Results) -> tuple[int | None, list[str]]:
        """Run a part's command; return its status (None: it hung) and its output without the tests that passed."""
        lines: list[str] = []
        with subprocess.Popen(
            part.command,
            cwd=part.directory,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=_environment(part),
        ) as process:
            self._running[process] = part, results
            hung = False
            for raw in self._lines(process):
                if raw is None:
                    hung = True
                    continue
                line = re.sub(r"\x1b\[[0-9;]*m", "", raw.decode(errors="replace")).rstrip("\r\n")
                if results.add(line):
                    continue
                lines.append(line)
                if line.strip():
                    self._print(f"{part.title} | {line}")
            status = process.wait()
            del self._running[process]
        return (None if hung else status), lines

    def _lines(self, process: subprocess.Popen[bytes]) -> Iterator[bytes | None]:
        """Yield the lines of a process until it closes its output, and None when it is taken to hang and ended."""
        assert process.stdout is not None
        descriptor = process.stdout.fileno()
        unread = b""
        signals = [signal.SIGINT, signal.SIGKILL]
        deadline = time.monotonic() + self._idle_limit
        with selectors.DefaultSelector() as selector:
            selector.register(descriptor, selectors.EVENT_READ)
            while True:
                if selector.select(max(0.0, deadline - time.monotonic())):
                    chunk = os.read(descriptor, 65536)
                    if not chunk:
                        break
                    *whole, unread = (unread + chunk).split(b"\n")
                    yield from whole
                    if len(signals) == 2:
                        deadline = time.monotonic() + self._idle_limit
                elif signals:
                    process.send_signal(signals.pop(0))
                    deadline = time.monotonic() + self._grace
                    yield None
                else:
                    break  # it was killed, and a process that it left behind holds the pipe
        if unread:
            yield unread

    def _print_progress(self, seconds: float) -> None:
        told = []
        for part, results in list(self._running.values()):
            of = f" of {results.expected}" if results.expected else ""
            told.append(f"{part.title}: {len(results.by_test)}{of}")
        if told:
            self._print(f"[{int(seconds) // 60}:{int(seconds) % 60:02d}] tests done: {'; '.join(told)}")

    def _print(self, text: str) -> None:
        with self._printing:
            print(text, flush=True)


def count(title: str, status: int | None, lines: Sequence[str]) -> Outcome:
    """Read the counts out of the last line of pytest, trial or bin/torture."""
    outcome = Outcome(title)
    last = next((line for line in reversed(lines) if SUMMARY.search(line)), "")
    trial = TRIAL.match(last)
    found = (
        [(number, word) for word, number in re.findall(r"(\w+)=(\d+)", trial[2])]
        if trial
        else re.findall(r"(\d+) (\w+)", last)
    )
    for number, word in found:
        if name := WORDS.get(word):
            setattr(outcome, name, getattr(outcome, name) + int(number))
    if status not in (0, NO_TESTS_COLLECTED) and not outcome.failed:
        outcome.failed += 1
        outcome.remark = f"ended with status {status}"
    elif not (outcome.passed or outcome.failed or outcome.skipped):
        outcome.skipped += 1
        outcome.remark = "no tests there"
    return outcome


def _environment(part: Part) -> dict[str, str]:
    return {**os.environ, "PYTHONUNBUFFERED": "1", "PYTHONDONTWRITEBYTECODE": "1", **part.environment}


def _listed_name(line: str) -> str:
    """Return the name of a test in the output of ``pytest --collect-only -q``, ``trial --dry-run`` or our own lists."""
    for pattern in (LISTED, TRIAL_RESULT):
        if found := pattern.match(line):
            return found[1]
    return ""


TRIAL = re.compile(r"(PASSED|FAILED) \((.*)\)$")
SUMMARY = re.compile(
    r"^(PASSED|FAILED) \(|^=+ .*\d+ \w+.* in [0-9.]+s|^\d+ \w+.* in [0-9.]+s|^=+ no tests ran"
)
# pytest shows paths from the directory that it runs in, which need not be the checkout.
PYTEST_RESULT = re.compile(
    r"\S*?(tests/\S+?\.py::.+?)(?: <- \S+)? (PASSED|FAILED|ERROR|SKIPPED|XFAIL|XPASS)(?: \(.*\))?(?: +\[ *\d+%\])?$"
)
TRIAL_RESULT = re.compile(r"(tests\.\S+) \.\.\. \[(OK|FAIL|ERROR|SKIPPED|TODO|SUCCESS!\?!)\]$")
TORTURE_RESULT = re.compile(r"(\w+): \d+ tried, \d+ survived, (\d+) lost, (\d+) leaked, \d+ s$")
EXPECTED = re.compile(r"(?:collecting \.\.\. )?collected (\d+) items?(?: / .*?(\d+) selected)?$")
LISTED = re.compile(r"\S*?(tests/\S+?\.py::.+|\w+)$")
WORDS = {
    "passed": "passed",
    "PASSED": "passed",
    "OK": "passed",
    "XFAIL": "passed",
    "TODO": "passed",
    "successes": "passed",
    "xfailed": "passed",
    "expectedFailures": "passed",
    "failed": "failed",
    "FAILED": "failed",
    "FAIL": "failed",
    "ERROR": "failed",
    "XPASS": "failed",
    "SUCCESS!?!": "failed",
    "failures": "failed",
    "error": "failed",
    "errors": "failed",
    "xpassed": "failed",
    "unexpectedSuccesses": "failed",
    "skipped": "skipped",
    "SKIPPED": "skipped",
    "skips": "skipped",
}
