"""The benchmark, part by part: progress while it runs, tables at the end."""

import argparse
import json
import os
import platform
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path
from typing import Any

from macvlan_twisted._version import VERSION_TEXT
from tests.benchmark.part import Figure, Measurement, Part, shown, told
from tests.lab.roots import VERSIONS

NAMES = (
    "protocol",
    "breakdown",
    "growth",
    "addresses",
    "startup",
    "prefetch",
    "engine",
    "features",
    "flood",
    "fleet",
)
"""The modules beside this one that hold a ``PART``, in the order in which they run."""


def parts_named(names: Sequence[str]) -> list[Part]:
    """Import the parts."""
    return [import_module(f"tests.benchmark.{name}").PART for name in names]


def run(part: Part, measurement: Measurement) -> dict[str, Any]:
    """Run one part, and return what goes into the tables."""
    row: dict[str, Any] = {"part": part.name, "what": part.what}
    missing = part.missing(measurement)
    if missing:
        print(f"{part.name}: skipped: {missing}", flush=True)
        return {**row, "skipped": missing}
    print(f"{part.name}: {part.what}", flush=True)
    try:
        part.run(measurement)
    except Exception as error:
        import traceback

        traceback.print_exc()
        row["failed"] = repr(error)
    taken = time.monotonic() - measurement.began
    print(f"{part.name}: {taken:.0f} s", flush=True)
    return {**row, "seconds": round(taken), **measurement.document()}


def laid_out(row: dict[str, Any]) -> list[str]:
    """Lay out what a part has reported."""
    title = f"{row['part']}: {row['what']}"
    lines = ["", title, "=" * len(title)]
    for trouble in ("skipped", "failed"):
        if trouble in row:
            lines.append(f"{trouble}: {row[trouble]}")
    for table in row.get("tables", ()):
        cells = [list(table["columns"]), *([shown(cell) for cell in each] for each in table["rows"])]
        widths = [max(len(each[column]) for each in cells) for column in range(len(table["columns"]))]
        lines += ["", table["title"]]
        for each in cells:
            first, *rest = (
                cell.rjust(width) if number else cell.ljust(width)
                for number, (cell, width) in enumerate(zip(each, widths, strict=True))
            )
            lines.append("  " + "  ".join([first, *rest]).rstrip())
    lines.append("")
    lines += [f"  {told(Figure(**each))}" for each in row.get("figures", ())]
    lines += [f"  {each}" for each in row.get("notes", ())]
    if row.get("client"):
        lines.append(f"  the client took {row['client']:.0%} of one processor at most")
    return lines


def machine() -> dict[str, Any]:
    """Return a description of the machine."""
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "version": VERSION_TEXT,
        "kernel": platform.release(),
        "python": platform.python_version(),
        "cores": os.cpu_count(),
        "load": round(os.getloadavg()[0], 1),
    }


def main(arguments: Sequence[str]) -> int:
    """Measure what the command line asks for."""
    parser = argparse.ArgumentParser(prog="bin/benchmark", description=__doc__)
    known = parts_named(NAMES)
    words = "; ".join(f"{part.name}: {part.what}" for part in known)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"{words}. Without one: all.")
    parser.add_argument(
        "--short", action="store_true", help="run for a few minutes only, to see that everything works"
    )
    parser.add_argument(
        "--seconds", type=float, help="the duration of one measurement (default: 4; 0.5 with --short)"
    )
    parser.add_argument(
        "--engine",
        default=VERSIONS[-1],
        choices=VERSIONS,
        help="the version of Docker Engine (default: %(default)s)",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write all numbers to FILE")
    parser.add_argument("--plots", type=Path, metavar="DIRECTORY", help="write charts to DIRECTORY")
    options = parser.parse_args(arguments)
    for name in options.parts:
        if name not in NAMES:
            parser.error(f"there is no part {name!r}: use {', '.join(NAMES)}")
    seconds = options.seconds or (0.5 if options.short else 4.0)
    told_of = machine()
    print(", ".join(f"{name} {value}" for name, value in told_of.items()), flush=True)
    rows = []
    for part in known:
        if not options.parts or part.name in options.parts:
            begun = time.monotonic()

            def say(text: str, name: str = part.name, begun: float = begun) -> None:
                print(f"{name} | {time.monotonic() - begun:5.0f} s  {text}", flush=True)

            rows.append(run(part, Measurement(part.name, options.short, seconds, options.engine, say)))
    print("\n".join(line for row in rows for line in laid_out(row)))
    document = {**told_of, "short": options.short, "engine": options.engine, "parts": rows}
    if options.json is not None:
        options.json.write_text(json.dumps(document, indent=1) + "\n")
    if options.plots is not None:
        from tests.benchmark.plots import draw

        for path in draw(document, options.plots):
            print(path)
    missed = [each for row in rows for each in row.get("figures", ()) if each["is_met"] is False]
    print(f"\n{len(missed)} figures are not what was wanted" if missed else "")
    return 1 if any("failed" in row for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
