"""The errors and log lines that the how-to guides quote are those of the program, word for word."""

import re
from pathlib import Path

import pytest

from macvlan_twisted.lan.address_probe import Evidence

DOCS = Path(__file__).resolve().parents[2] / "docs"
GUIDES = sorted((DOCS / "howto").glob("*.rst"))
ERRORS = [
    each
    for page in ("errors", "log")
    for each in re.findall(
        r"(?m)^   \* - ``(.*)``$", (DOCS / f"reference/{page}.rst").read_text(encoding="utf-8")
    )
]
"""As the reference has them, which is made from the code."""
QUOTATION = re.compile(r"(?m)^ *``([^`\n]*\.\.\.[^`\n]*)``")
"""In a page: at the beginning of a line, with ``...`` for what varies. Docker's own words are in italics."""


def is_quoted_from(error: str, quotation: str) -> bool:
    """Say whether the parts of a quotation are in an error, in their order; ``eth1`` stands for any parent."""
    parts = [part.strip() for part in re.split(r"\.\.\.|\beth1\b", quotation)]
    return re.match(".*".join(map(re.escape, parts)), error) is not None


@pytest.mark.parametrize("guide", GUIDES, ids=lambda guide: guide.stem)
def test_quoted_errors_exist(guide: Path) -> None:
    quotations = QUOTATION.findall(guide.read_text(encoding="utf-8"))
    assert [each for each in quotations if not any(is_quoted_from(error, each) for error in ERRORS)] == []


def test_every_evidence_of_a_conflict_is_explained() -> None:
    page = (DOCS / "howto/conflicts.rst").read_text(encoding="utf-8")
    assert [each.value for each in Evidence if f"*{each.value}*" not in page] == []
