"""The parts behind bin/test: which there are, and which of them run side by side.

Tests that want a reactor of their own (pytest-twisted) and trial's asynchronous test cases do not share a
process; that, and that one part's crash must not hide the others, is why there are several. Tests with
engines wait most of the time, for containers and for time-outs of the engine's, so these run beside the others.
"""

import argparse
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from bin.lib.watching import Outcome, Part, Watch, counts, why_failed
from tests.lab.requirements import missing_for_engine, missing_for_lan
from tests.lab.roots import OWN_VERSION, VERSIONS, cache
from tests.uml import boot

CHECKOUT = Path(__file__).resolve().parents[2]
PARTS = ("unit", "conversations", "integration", "uml", "torture")
PYTEST = (sys.executable, "-m", "pytest")
NOTHING_SKIPPED = os.environ.get("MACVLAN_TWISTED_NOTHING_SKIPPED") == "1"


def unit_parts(
    later: Sequence[str], unusable: Sequence[str], extra: Sequence[str], elsewhere: str
) -> list[Part]:
    """List the unit tests, on all Pythons; they run `elsewhere`, where trial's cases may leave files."""
    where = ("--rootdir", str(CHECKOUT), "-c", str(CHECKOUT / "pyproject.toml"), str(CHECKOUT / "tests/unit"))
    parts = [Part(f"unit, {version_of(sys.executable)}", [*PYTEST, *where, *extra], directory=elsewhere)]
    if not extra:
        trial = (sys.executable, "-m", "twisted.trial", "tests.unit")
        parts.append(Part("unit, by trial", trial, directory=elsewhere))
    for python in later:
        command = [python, "-m", "pytest", "-p", "no:cacheprovider", *where, *extra]
        parts.append(Part(f"unit, {version_of(python)}", command, directory=elsewhere))
    reason = "pip could not install what setup.cfg requires (see above)"
    return parts + [Part(f"unit, {version_of(python)}", missing=reason) for python in unusable]


def integration_lanes(engines: Sequence[str], extra: Sequence[str]) -> list[list[Part]]:
    """Lay out the tests with root, which mostly wait: those of the first engine, of the others, and of none."""
    absent = {engine: missing for engine in engines if (missing := missing_for_engine(engine))}
    lanes = [[Part(f"integration, {engine}", missing=missing) for engine, missing in absent.items()]]
    if missing_for_lan():
        return lanes
    usable = [engine for engine in engines if engine not in absent]

    def part(title: str, *chosen: str) -> Part:
        places = [] if any(each.startswith("tests/") for each in chosen) else ["tests/integration"]
        command = [*PYTEST, *places, *chosen, *extra]
        return Part(
            f"integration, {title}", command, environment={"MACVLAN_TWISTED_ENGINES": ",".join(usable)}
        )

    if extra or len(usable) < 2:
        return [*lanes, [part(", ".join(usable) or "no engine")]]
    # An engine's version is a part of the name of each test that uses one.
    first, others = usable[0], usable[1:]
    files = sorted(str(each.relative_to(CHECKOUT)) for each in CHECKOUT.glob("tests/integration/test_*.py"))
    for title, words in ((first, first), (", ".join(others), " or ".join(others))):
        for number in range(2):
            lanes.append([part(f"{title}, half {number + 1}", *files[number::2], "-k", words)])
    lanes.append([part("no engine", "-k", f"not {' and not '.join(usable)}")])
    return lanes


def lanes_of(
    names: Sequence[str], unit: Sequence[Part], integration: Sequence[Sequence[Part]], extra: Sequence[str]
) -> list[list[Part]]:
    """Lay the named parts out: what uses a processor in one lane, what waits in others."""
    busy = list(unit) if "unit" in names else []
    if "conversations" in names:
        busy.append(Part("conversations", [*PYTEST, "tests/conversations", *extra]))
    if "uml" in names:
        command = [sys.executable, "-m", "tests.uml.boot", *extra]
        busy.append(Part("uml", command, missing=boot.missing() or ""))
    waiting = [list(lane) for lane in integration] if "integration" in names else []
    if "torture" in names:  # in its short form, for its long one is a command of its own
        command = [sys.executable, "-m", "tests.torture", "--short", *extra]
        waiting.append([Part("torture", command, missing=missing_for_lan())])
    return [lane for lane in (busy, *waiting) if lane]


def version_of(python: str) -> str:
    """Say which Python that is."""
    return subprocess.run([python, "--version"], check=True, capture_output=True, text=True).stdout.strip()


@contextmanager
def engines_being_made(versions: Sequence[str]) -> Iterator[None]:
    """Begin to install what is missing of the engines, beside the first parts; who needs one waits for it."""
    made = [version for version in VERSIONS if (cache() / f"engine-{version}").is_dir()]
    absent = [each for each in versions if not missing_for_engine(each) and each not in (OWN_VERSION, *made)]
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


def tell(outcomes: Sequence[Outcome]) -> int:
    """Print the summary, and return the exit status that it means."""
    print("\n===== summary =====")
    for outcome in outcomes:
        if NOTHING_SKIPPED and outcome.skipped:
            outcome.remark = (outcome.remark + "; " if outcome.remark else "") + "nothing may be skipped here"
            outcome.failed, outcome.skipped = outcome.failed + outcome.skipped, 0
        print(outcome)
    for line in why_failed(outcomes):
        print(line)
    passed = sum(each.passed for each in outcomes)
    failed = sum(each.failed for each in outcomes)
    print(counts(passed, failed, sum(each.skipped for each in outcomes)))
    return 1 if failed or not passed else 0


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
    parser.add_argument("--one-by-one", action="store_true", help="run nothing side by side")
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
    names = options.parts or PARTS
    elsewhere = tempfile.mkdtemp(prefix="macvlan-twisted-unit-")
    try:
        unit = unit_parts(options.later, options.unusable, extra, elsewhere)
        lanes = lanes_of(names, unit, integration_lanes(engines, extra), extra)
        if options.one_by_one:
            lanes = [[part for lane in lanes for part in lane]]
        with engines_being_made(engines if "integration" in names else []):
            return tell(Watch().run(lanes))
    finally:
        shutil.rmtree(elsewhere)


if __name__ == "__main__":
    os.chdir(CHECKOUT)
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(130)
