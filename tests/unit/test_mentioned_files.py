"""Files of the project that README, manual, tests and code mention exist."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

CHECKOUT = Path(__file__).resolve().parents[2]


def texts(*patterns: str) -> Iterator[tuple[Path, str]]:
    for pattern in patterns:
        for path in filter(Path.is_file, sorted(CHECKOUT.glob(pattern))):
            yield path, path.read_text(encoding="utf-8")


class MentionedFileTests(SynchronousTestCase):
    def test_links_between_files_lead_somewhere(self) -> None:
        """Links that a browser of the repository follows, without Sphinx."""
        missing = [
            f"{path.name}: {target}"
            for path, text in texts("*.rst", "docs/*.rst", "docs/*/*.rst")
            for target in re.findall(r"<([\w./-]+)>`__?", text)
            if not (path.parent / target).exists()
        ]
        self.assertEqual(missing, [])

    def test_pages_named_in_code_exist(self) -> None:
        missing = [
            f"{path.relative_to(CHECKOUT)}: {page}"
            for path, text in texts(
                "macvlan_twisted/**/*.py", "tests/**/*.py", "docs/**/*.py", "bin/*", "*.rst"
            )
            for page in re.findall(r"\bdocs/((?:explanation|reference|howto)/[\w-]+)", text)
            if not (CHECKOUT / "docs" / f"{page}.rst").exists()
        ]
        self.assertEqual(missing, [])

    def test_modules_named_in_the_manual_exist(self) -> None:
        """By their path in the checkout, or in the package."""
        missing = [
            f"{path.name}: {module}"
            for path, text in texts("*.rst", "docs/*.rst", "docs/*/*.rst")
            for module in re.findall(r"``((?:\w+/)*\w+\.py)``", text)
            if not any((CHECKOUT / parent / module).is_file() for parent in ("", "macvlan_twisted"))
        ]
        self.assertEqual(missing, [])
