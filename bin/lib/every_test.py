"""The parts behind bin/test: each in a process of its own, with a summary at the end.

Tests that want a reactor of their own (pytest-twisted) and trial's asynchronous test cases do not share a
process; that, and that one part's crash must not hide the others, is why there are several.
"""

import argparse
import atexit
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.lab.requirements import missing_for_engine, missing_for_lan
from tests.lab.roots import OWN_VERSION, VERSIONS, cache
from tests.uml import boot

CHECKOUT = Path(__file__).resolve().parents[2]
PARTS = ("unit", "conversations", "integration", "uml")
LIMIT = 1200
"""Seconds after which one process of tests is taken to hang."""
TAIL = 65536
NOTHING_SKIPPED = os.environ.get("MACVLAN_TWISTED_NOTHING_SKIPPED") == "1"
NO_TESTS_COLLECTED = 5  # pytest's exit status


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

    def __str__(self) -> str:
        """Say it in a line."""
        told = f"{self.title:<42} {counts(self.passed, self.failed, self.skipped):<36} {self.seconds:6.1f} s"
        return f"{told}  ({self.remark})" if self.remark else told


def counts(passed: int, failed: int, skipped: int) -> str:
    """Say what was counted."""
    return f"{passed} passed, {failed} failed" + (f", {skipped} skipped" if skipped else "")


def chosen_parts(
    names: Sequence[str],
    engines: Sequence[str],
    later: Sequence[str],
    unusable: Sequence[str],
    extra: list[str],
) -> list[Part]:
    """List the processes that the named parts amount to."""
    pytest = [sys.executable, "-m", "pytest"]
    parts: list[Part] = []
    if "unit" in names:
        # trial's test cases make their temporary files where they are run
        own = [
            "--rootdir",
            str(CHECKOUT),
            "-c",
            str(CHECKOUT / "pyproject.toml"),
            str(CHECKOUT / "tests/unit"),
        ]
        elsewhere = tempfile.mkdtemp(prefix="macvlan-twisted-unit-")
        atexit.register(shutil.rmtree, elsewhere)
        parts.append(
            Part(f"unit, {version_of(sys.executable)}", [*pytest, *own, *extra], directory=elsewhere)
        )
        trial = [sys.executable, "-m", "twisted.trial", "tests.unit"]
        if not extra:
            parts.append(Part("unit, by trial", trial, directory=elsewhere))
        for python in later:
            command = [python, "-m", "pytest", "-p", "no:cacheprovider", *own, *extra]
            parts.append(Part(f"unit, {version_of(python)}", command, directory=elsewhere))
        for python in unusable:
            reason = "pip could not install what setup.cfg requires (see above)"
            parts.append(Part(f"unit, {version_of(python)}", missing=reason))
    if "conversations" in names:
        parts.append(Part("conversations", [*pytest, "tests/conversations", *extra]))
    if "integration" in names:
        runnable = []
        for engine in engines:
            if missing := missing_for_engine(engine):
                parts.append(Part(f"integration, engine {engine}", missing=missing))
            else:
                runnable.append(engine)
        title = f"integration, {'engines ' + ', '.join(runnable) if runnable else 'without engines'}"
        environment = {"MACVLAN_TWISTED_ENGINES": ",".join(runnable)}
        if runnable or not missing_for_lan():
            parts.append(Part(title, [*pytest, "tests/integration", *extra], environment=environment))
    if "uml" in names:
        command = [sys.executable, "-m", "tests.uml.boot", *extra]
        parts.append(Part("uml", command, missing=boot.missing() or ""))
    return parts


def version_of(python: str) -> str:
    """Say which Python that is."""
    return subprocess.run([python, "--version"], check=True, capture_output=True, text=True).stdout.strip()


def run(part: Part) -> Outcome:
    """Run a part, showing what it prints, and count."""
    print(f"\n===== {part.title} =====", flush=True)
    if part.missing:
        print(f"skipped: {part.missing}", flush=True)
        return Outcome(part.title, skipped=1, remark=part.missing)
    began = time.monotonic()
    status, output = watched(part)
    outcome = count(part.title, status, output)
    outcome.seconds = time.monotonic() - began
    return outcome


def watched(part: Part) -> tuple[int | None, str]:
    """Run the command of a part, pass on what it prints, and return its status (None: it hung) and its last words."""
    tail = b""
    with subprocess.Popen(
        part.command,
        cwd=part.directory,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={**os.environ, "PYTHONUNBUFFERED": "1", "PYTHONDONTWRITEBYTECODE": "1", **part.environment},
    ) as process:
        assert process.stdout is not None
        hung: list[bool] = []

        def give_up(_signal: int, _frame: object) -> None:
            # First the way of Ctrl-C, so that fixtures clear up; then for good.
            process.send_signal(signal.SIGKILL if hung else signal.SIGINT)
            hung.append(True)
            signal.alarm(60)

        signal.signal(signal.SIGALRM, give_up)
        signal.alarm(LIMIT)
        while chunk := os.read(process.stdout.fileno(), TAIL):
            sys.stdout.buffer.write(chunk)
            sys.stdout.flush()
            tail = (tail + chunk)[-TAIL:]
        status = process.wait()
        signal.alarm(0)
    return (None if hung else status), re.sub(r"\x1b\[[0-9;]*m", "", tail.decode(errors="replace"))


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


def interrupted(_signal: int, _frame: object) -> None:
    """End as Ctrl-C does."""
    raise KeyboardInterrupt


def main(arguments: Sequence[str]) -> int:
    """Run what the command line asks for, and say how it went."""
    own, extra = list(arguments), []
    if "--" in own:
        extra = own[own.index("--") + 1 :]
        del own[own.index("--") :]
    parser = argparse.ArgumentParser(prog="bin/test", epilog="What follows -- is handed to pytest.")
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"{', '.join(PARTS)}; without one: all")
    parser.add_argument("--engines", default=",".join(VERSIONS), help="Docker Engines (default: %(default)s)")
    parser.add_argument("--later", action="append", default=[], help=argparse.SUPPRESS)
    parser.add_argument("--unusable", action="append", default=[], help=argparse.SUPPRESS)
    options = parser.parse_args(own)
    for name in options.parts:
        if name not in PARTS:
            parser.error(f"there is no part {name!r}: give {', '.join(PARTS)}")
    engines = [each.strip() for each in options.engines.split(",")]
    for engine in engines:
        if engine not in VERSIONS:
            parser.error(f"there is no engine {engine!r}: give {', '.join(VERSIONS)}")
    signal.signal(signal.SIGTERM, interrupted)
    parts = chosen_parts(options.parts or PARTS, engines, options.later, options.unusable, extra)
    with engines_being_made(engines if "integration" in (options.parts or PARTS) else []):
        return tell([run(part) for part in parts])


@contextmanager
def engines_being_made(versions: Sequence[str]) -> Iterator[None]:
    """Begin to install what is missing of the engines, beside the first parts; who needs one waits for it."""
    absent = [
        each for each in versions if not missing_for_engine(each) and each not in (OWN_VERSION, *made())
    ]
    if not absent:
        yield
        return
    print(f"installing engines {', '.join(absent)} in the background (once, about a minute each)", flush=True)
    script = "import sys; from tests.lab.roots import root_of; [root_of(each) for each in sys.argv[1:]]"
    maker = subprocess.Popen([sys.executable, "-c", script, *absent], stdin=subprocess.DEVNULL)
    try:
        yield
    finally:
        maker.terminate()
        maker.wait()


def made() -> list[str]:
    """List the engines that are installed in the cache."""
    return [version for version in VERSIONS if (cache() / f"engine-{version}").is_dir()]


def tell(outcomes: Sequence[Outcome]) -> int:
    """Print the summary, and return the exit status that it means."""
    print("\n===== summary =====")
    for outcome in outcomes:
        if NOTHING_SKIPPED and outcome.skipped:
            outcome.remark = (outcome.remark + "; " if outcome.remark else "") + "nothing may be skipped here"
            outcome.failed, outcome.skipped = outcome.failed + outcome.skipped, 0
        print(outcome)
    passed = sum(each.passed for each in outcomes)
    failed = sum(each.failed for each in outcomes)
    print(counts(passed, failed, sum(each.skipped for each in outcomes)))
    return 1 if failed or not passed else 0


if __name__ == "__main__":
    os.chdir(CHECKOUT)
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(130)
