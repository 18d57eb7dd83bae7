"""
Write the tables of options, commands, log lines and errors into the pages of the reference: ``python docs/make_reference.py``.

Each stands between two comments, ``.. table NAME begins`` and ``.. table NAME ends``. A unit test fails when a page differs
from what the program has.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

DOCS = Path(__file__).resolve().parent
sys.path[:0] = [str(DOCS.parent), str(DOCS / "_ext")]
PAGES = (
    "reference/options.rst",
    "reference/commands.rst",
    "reference/api.rst",
    "reference/log.rst",
    "reference/errors.rst",
)


def filled(page: str) -> str:
    """*page* with every table as it should be."""
    from message_tables import TABLES, message_text
    from option_tables import reference_text

    def table(match: re.Match[str]) -> str:
        kind = match[2]
        text = message_text(kind) if kind in TABLES else reference_text(kind)
        return f"{match[1]}\n\n{text}\n\n.. table {match[2]} ends"

    return re.sub(r"^(\.\. table (\w+) begins[^\n]*)\n.*?^\.\. table \2 ends", table, page, flags=re.S | re.M)


def main() -> None:
    for name in PAGES:
        path = DOCS / name
        path.write_text(filled(path.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
