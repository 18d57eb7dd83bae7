"""The manual's page of the torture says what a run wrote down."""

from __future__ import annotations

import json
from pathlib import Path
from runpy import run_path

from twisted.trial.unittest import SynchronousTestCase

from .helpers import fresh_directory

EXTENSION = Path(__file__).resolve().parents[2] / "docs" / "_ext" / "torture_table.py"
RUN = {
    "seed": 7,
    "short": False,
    "date": "2026-11-25",
    "kernel": "6.1_2",
    "cores": 2,
    "python": "3.11.7",
    "parts": [
        {
            "part": "lives",
            "what": "lives",
            "tried": 10000,
            "survived": 9999,
            "lost": 0,
            "leaked": 1,
            "seconds": 800,
            "figures": {"kills": "700"},
            "findings": ["leaked: row of *pools*"],
        },
        {"part": "crash", "what": "kills", "skipped": "no root"},
    ],
}


class TortureTableTests(SynchronousTestCase):
    def text(self, path: Path) -> str:
        text: str = run_path(str(EXTENSION))["reference_text"](path)
        return text

    def test_the_table_lacks_a_number_or_the_page_the_circumstances(self) -> None:
        path = fresh_directory(self) / "torture.json"
        path.write_text(json.dumps(RUN), encoding="utf-8")
        text = self.text(path)
        for told in (
            "2026-11-25",
            "seed 7",
            "2 cores",
            "6.1\\_2",
            "- 10000",
            "- 9999",
            "kills: 700",
            "skipped",
        ):
            self.assertIn(told, text)
        self.assertIn("\\*pools\\*", text)

    def test_without_a_run_the_page_cannot_be_made(self) -> None:
        self.assertIn("no full run", self.text(fresh_directory(self) / "torture.json"))
