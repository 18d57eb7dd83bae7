"""The torture, part by part: progress while it runs, a table at the end."""

import argparse
import json
import os
import secrets
import sys
import time
import traceback
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from tests.torture.part import Part, TortureRun
from tests.torture.table import has_failed, surroundings, table, what_failed

NAMES = ("crash", "faults", "damage", "parents", "boots", "interleavings", "lives", "fleet", "bodies")
"""The modules beside this one that hold a ``PART``, in the order in which they run."""
NOTHING_SKIPPED = os.environ.get("MACVLAN_TWISTED_NOTHING_SKIPPED") == "1"


def parts_named(names: Sequence[str]) -> list[Part]:
    """Import the parts."""
    return [import_module(f"tests.torture.{name}").PART for name in names]


def run(
    part: Part, short: bool, seed: int, minutes: float | None, scenarios: Sequence[str] = ()
) -> dict[str, Any]:
    """Run one part, and return what goes into the table."""
    row: dict[str, Any] = {"part": part.name, "what": part.what}
    missing = part.missing()
    if missing:
        print(f"{part.name}: skipped: {missing}", flush=True)
        return {**row, "skipped": missing}
    seconds = minutes * 60 if minutes else part.short_seconds if short else part.seconds
    print(f"{part.name}: {part.what}; at most {seconds / 60:.0f} min", flush=True)
    torture = TortureRun(
        part.name,
        short,
        seed,
        seconds,
        lambda text: print(f"{part.name} | {text}", flush=True),
        least=1 if minutes else part.least,
        scenarios=tuple(scenarios),
    )
    began = time.monotonic()
    try:
        part.run(torture)
    except Exception as error:
        traceback.print_exc()
        torture.tally.lose(f"the part itself failed: {''.join(traceback.format_exception(error)[-3:])}")
    tally = torture.tally
    taken = time.monotonic() - began
    if not tally.tried:
        tally.lose(f"nothing was tried within {taken:.0f} s")
    for finding in tally.findings[:50]:
        print(f"{part.name} | {finding}", flush=True)
    print(f"{part.name}: {tally.summary()}, {taken:.0f} s", flush=True)
    counts = {name: getattr(tally, name) for name in ("tried", "survived", "lost", "leaked")}
    return {**row, **counts, "seconds": round(taken), "figures": tally.figures, "findings": tally.findings}


def main(arguments: Sequence[str]) -> int:
    """Run what the command line asks for, and say how it went."""
    parser = argparse.ArgumentParser(prog="bin/torture", description=__doc__)
    known = parts_named(NAMES)
    text = "; ".join(f"{part.name}: {part.what}" for part in known)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"{text}. Without one: all.")
    parser.add_argument(
        "--short", action="store_true", help="run a sample, short enough for continuous integration"
    )
    parser.add_argument(
        "--seed", type=int, help="the seed of samples and random choices (default: a random one)"
    )
    parser.add_argument(
        "--minutes", type=float, help="end each part after MINUTES (default: when it is complete)"
    )
    parser.add_argument(
        "--scenario",
        action="append",
        default=[],
        metavar="NAME",
        help="in crash and faults, run only this scenario of tests/torture/scenarios.py; may be repeated",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the table to FILE")
    options = parser.parse_args(arguments)
    for name in options.parts:
        if name not in NAMES:
            parser.error(f"there is no part {name!r}: use {', '.join(NAMES)}")
    seed = secrets.randbelow(1 << 32) if options.seed is None else options.seed
    began = time.monotonic()
    print(f"seed {seed}", flush=True)
    chosen = [part for part in known if not options.parts or part.name in options.parts]
    rows = [run(part, options.short, seed, options.minutes, options.scenario) for part in chosen]
    print("\n" + "\n".join(table(rows)))
    if options.json is not None:
        whole = {"seed": seed, "short": options.short, **surroundings(), "parts": rows}
        options.json.write_text(json.dumps(whole, indent=1) + "\n", encoding="utf-8")
    skipped = [row for row in rows if "skipped" in row]
    failed = [row for row in rows if has_failed(row)]
    if NOTHING_SKIPPED:
        failed, skipped = failed + skipped, []
    passed = len(rows) - len(failed) - len(skipped)
    text = f"{passed} passed, {len(failed)} failed" + (f", {len(skipped)} skipped" if skipped else "")
    print("\n".join(["", *what_failed(failed)]))
    print(f"=== {text} in {time.monotonic() - began:.2f}s ===  (again: --seed {seed})")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
