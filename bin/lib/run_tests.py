"""The parts behind bin/test: which there are, and which of them run side by side.

The short form runs each test once: with one Python, and with one of the engines. ``--all`` runs the unit tests with
every Python, the tests of an engine with every engine, and the exhaustive parts at length.

Tests that need a reactor of their own (pytest-twisted) and trial's asynchronous test cases do not share a process.
That, and that one part's crash must not hide the others, is why there are several. Tests with engines mostly wait, for
containers and for the engine's own timeouts, so they run beside the parts that compute.
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
from dataclasses import dataclass
from pathlib import Path

from bin.lib.parts import IDLE_LIMIT, Outcome, Part, PartRunner, counts, why_failed
from tests.lab.requirements import missing_for_engine, missing_for_lan
from tests.lab.roots import OWN_VERSION, VERSIONS, cache
from tests.uml import boot

CHECKOUT = Path(__file__).resolve().parents[2]
PYTEST = (sys.executable, "-m", "pytest", "-v", "-p", "no:cacheprovider")
LIST = ("--collect-only", "-q", "-q")
"""Arguments that make pytest -v print the names of its tests, one in a line."""
NOTHING_SKIPPED = os.environ.get("MACVLAN_TWISTED_NOTHING_SKIPPED") == "1"


@dataclass(frozen=True)
class Cost:
    """What a part takes, in minutes: of processor time, and until its longest lane ends on a quiet machine."""

    processor: float
    longest: float


SHORT = {
    "unit": Cost(2, 2),
    "conversations": Cost(0.3, 1),
    "integration": Cost(20, 14),
    "uml": Cost(5, 6),
    "torture": Cost(3, 5),
}
ALL = {
    "unit": Cost(6, 6),
    "conversations": Cost(0.3, 1),
    "integration": Cost(85, 50),
    "uml": Cost(35, 40),
    "torture": Cost(6, 8),
}
PARTS = tuple(SHORT)
CORES = 2
NICE = ("nice", "-n", "5")
TRIAL_SHARE = 5
"""In the short form trial runs one in so many modules of unit tests."""


def minutes(names: Sequence[str], everything: bool) -> int:
    """Estimate how long the named parts take on a quiet machine with two cores."""
    costs = [(ALL if everything else SHORT)[name] for name in names]
    return round(max(sum(each.processor for each in costs) / CORES, *(each.longest for each in costs), 1))


def unit_parts(
    later: Sequence[str], unusable: Sequence[str], everything: bool, extra: Sequence[str], elsewhere: str
) -> list[Part]:
    """List the unit tests with each Python; they run `elsewhere`, where trial's cases may leave files.

    They only compute, and let the tests go first that wait for something real.
    """
    where = ("--rootdir", str(CHECKOUT), "-c", str(CHECKOUT / "pyproject.toml"), str(CHECKOUT / "tests/unit"))
    parts = []
    for python in (sys.executable, *later):
        command = (*NICE, python, *PYTEST[1:], *where, *extra)
        parts.append(
            Part(f"unit, {version_of(python)}", command, listing=(*command, *LIST), directory=elsewhere)
        )
    if not extra:
        trial = (*NICE, sys.executable, "-m", "twisted.trial", "--reporter=timing")
        # pytest has run them all: in the short form a part shows that they are trial's tests, too.
        modules = [f"tests.unit.{each.stem}" for each in sorted(CHECKOUT.glob("tests/unit/test_*.py"))]
        chosen = ["tests.unit"] if everything else modules[::TRIAL_SHARE]
        listing = (*trial, "--dry-run", "--temp-directory=listing", *chosen)
        parts.insert(1, Part("unit, by trial", (*trial, *chosen), listing=listing, directory=elsewhere))
    reason = "pip could not install what setup.cfg requires (see above)"
    return parts + [Part(f"unit, {version_of(python)}", missing=reason) for python in unusable]


def integration_lanes(engines: Sequence[str], everything: bool, extra: Sequence[str]) -> list[list[Part]]:
    """Lay out the tests with root, which mostly wait: one lane or two for each engine, and two for what uses none."""
    absent = {engine: missing for engine in engines if (missing := missing_for_engine(engine))}
    lanes = [[Part(f"integration, {engine}", missing=missing) for engine, missing in absent.items()]]
    if missing_for_lan():
        return lanes
    usable = [engine for engine in engines if engine not in absent]
    environment = {"MACVLAN_TWISTED_ENGINES": ",".join(usable)}

    def part(title: str, *chosen: str) -> Part:
        places = [] if any(each.startswith("tests/") for each in (*chosen, *extra)) else ["tests/integration"]
        command = (*PYTEST, *places, *chosen, *extra)
        return Part(f"integration, {title}", command, listing=(*command, *LIST), environment=environment)

    if extra or len(usable) < 2:
        return [*lanes, [part(", ".join(usable) or "no engine")]]
    # An engine's version is a part of the name of each test that uses one.
    files = sorted(str(each.relative_to(CHECKOUT)) for each in CHECKOUT.glob("tests/integration/test_*.py"))
    for engine in usable:
        # In the short form the first engine has more than half of all tests: those that one engine is enough for.
        if everything or engine == usable[0]:
            lanes += [
                [part(f"{engine}, half {half + 1}", *files[half::2], "-k", engine)] for half in range(2)
            ]
        else:
            lanes.append([part(engine, "-k", engine)])
    others = f"not {' and not '.join(usable)}"
    lanes += [[part(f"no engine, half {half + 1}", *files[half::2], "-k", others)] for half in range(2)]
    return lanes


def lanes_of(
    names: Sequence[str], unit: Sequence[Part], integration: Sequence[list[Part]], extra: Sequence[str]
) -> list[list[Part]]:
    """Lay the named parts out in lanes: those of a lane follow each other, and the lanes run side by side."""
    lanes: list[Sequence[Part]] = []
    if "uml" in names:
        command = (sys.executable, "-m", "tests.uml.boot", "-v", *extra)
        listing = (*PYTEST, "tests/uml/inside", *extra, *LIST)
        lanes.append([Part("uml", command, listing=listing, missing=boot.missing() or "")])
    lanes += [list(each) for each in integration] if "integration" in names else []
    lanes.append(unit if "unit" in names else [])
    rest = []
    if "conversations" in names:
        command = (*PYTEST, "tests/conversations", *extra)
        rest.append(Part("conversations", command, listing=(*command, *LIST)))
    if "torture" in names:  # in its short form: its long one is a command of its own
        command = (sys.executable, "-m", "tests.torture", "--short", *extra)
        script = "from tests.torture.__main__ import NAMES; print(*NAMES, sep='\\n')"
        listing = (sys.executable, "-c", script)
        rest.append(Part("torture", command, listing=listing, missing=missing_for_lan()))
    return [list(lane) for lane in (*lanes, rest) if lane]


def version_of(python: str) -> str:
    """Return the version that a Python prints."""
    return subprocess.run([python, "--version"], check=True, capture_output=True, text=True).stdout.strip()


@contextmanager
def engines_being_made(versions: Sequence[str]) -> Iterator[None]:
    """Install the missing engines beside the first parts; a test that needs one waits for it."""
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


def report(outcomes: Sequence[Outcome]) -> int:
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


def parse(arguments: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """Read the command line, and return the options and pytest's arguments."""
    own, extra = list(arguments), []
    if "--" in own:
        extra = own[own.index("--") + 1 :]
        del own[own.index("--") :]
    parser = argparse.ArgumentParser(prog="bin/test", epilog="What follows -- is handed to pytest.")
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"{', '.join(PARTS)}; without one: all")
    parser.add_argument("--all", action="store_true", help="every test with every Python and every engine")
    parser.add_argument("--engines", default=",".join(VERSIONS), help="Docker Engines (default: %(default)s)")
    parser.add_argument("--one-by-one", action="store_true", help="run nothing side by side")
    parser.add_argument("--idle-limit", type=float, default=IDLE_LIMIT, metavar="SECONDS",
                        help="end a part that prints nothing for so long (default: %(default)g)")  # fmt: skip
    parser.add_argument("--later", action="append", default=[], help=argparse.SUPPRESS)
    parser.add_argument("--unusable", action="append", default=[], help=argparse.SUPPRESS)
    options = parser.parse_args(own)
    for name in options.parts:
        if name not in PARTS:
            parser.error(f"there is no part {name!r}: use {', '.join(PARTS)}")
    options.engines = [each.strip() for each in options.engines.split(",")]
    for engine in options.engines:
        if engine not in VERSIONS:
            parser.error(f"there is no engine {engine!r}: use {', '.join(VERSIONS)}")
    return options, extra


def main(arguments: Sequence[str]) -> int:
    """Run what the command line asks for, and report how it went."""
    options, extra = parse(arguments)
    # A shell ignores SIGINT for what it runs in the background, and the parts would inherit that.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, interrupted)
    names = options.parts or PARTS
    os.environ["MACVLAN_TWISTED_TEST_ALL"] = "1" if options.all else "0"
    if not extra:
        every = "" if options.all else f" (with --all: {minutes(names, True)} min)"
        print(
            f"about {minutes(names, options.all)} min{every} on a quiet machine with two cores; "
            "the first time some minutes more, to install what is missing",
            flush=True,
        )
    elsewhere = tempfile.mkdtemp(prefix="macvlan-twisted-unit-")
    try:
        unit = unit_parts(options.later, options.unusable, options.all, extra, elsewhere)
        lanes = lanes_of(names, unit, integration_lanes(options.engines, options.all, extra), extra)
        if options.one_by_one:
            lanes = [[part for lane in lanes for part in lane]]
        with engines_being_made(options.engines if "integration" in names else []):
            return report(PartRunner(options.idle_limit).run(lanes))
    finally:
        shutil.rmtree(elsewhere)


if __name__ == "__main__":
    os.chdir(CHECKOUT)
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(130)
