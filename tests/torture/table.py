"""The report of a torture run: the table of its parts, and why parts failed."""

import os
import platform
import time
from collections.abc import Sequence
from typing import Any

Row = dict[str, Any]
LINES = 14
"""About how many findings are repeated after the table; at least one for each failed part."""
BEGINNING, END = 200, 300
"""Characters of a finding that are repeated."""


def has_failed(row: Row) -> bool:
    """Whether a part has found something."""
    return bool(row.get("lost") or row.get("leaked"))


def table(rows: Sequence[Row]) -> list[str]:
    """Lay the rows out."""
    head = f"{'part':<14}{'tried':>9}{'survived':>10}{'lost':>7}{'leaked':>8}{'seconds':>9}"
    lines = [head, "-" * len(head)]
    for row in rows:
        if "skipped" in row:
            lines.append(f"{row['part']:<14}skipped: {row['skipped']}")
            continue
        numbers = (
            f"{row['tried']:>9}{row['survived']:>10}{row['lost']:>7}{row['leaked']:>8}{row['seconds']:>9}"
        )
        lines.append(f"{row['part']:<14}{numbers}")
        lines += [f"{'':<14}  {name}: {value}" for name, value in row["figures"].items()]
    return lines


def what_failed(failed: Sequence[Row]) -> list[str]:
    """Return the failed parts with their first findings, in a few lines."""
    lines = []
    for row in failed:
        if "skipped" in row:
            lines.append(f"FAILED: {row['part']}: skipped: {row['skipped']}")
            continue
        findings = row["findings"]
        few = findings[: max(1, LINES // len(failed))]
        counts = f"{row['lost']} lost, {row['leaked']} leaked of {row['tried']}"
        more = f"; {len(few)} of {len(findings)}, the others above:" if len(few) < len(findings) else ":"
        lines.append(f"FAILED: {row['part']}: {counts}{more}")
        lines += [f"  {in_a_line(each)}" for each in few]
    return lines


def in_a_line(finding: str) -> str:
    """Shorten a finding in its middle."""
    line = " ".join(finding.split())
    if len(line) <= BEGINNING + END:
        return line
    return f"{line[:BEGINNING]} ... {line[-END:]}"


def surroundings() -> dict[str, Any]:
    """Return time and machine of the run."""
    return {
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "kernel": platform.release(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
    }
