"""The figures that ``bin/benchmark`` prints, and the manual shows, follow from what was measured."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from runpy import run_path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.benchmark.arithmetic import spread
from tests.benchmark.part import Measurement, at_least, at_most

CHECKOUT = Path(__file__).parents[2]


class FigureTests(SynchronousTestCase):
    def test_missed_figure_is_reported_as_missed(self) -> None:
        said: list[str] = []
        one = Measurement("protocol", True, 1.0, "28.5", said.append)
        one.figure("lives", 4.9, "times", at_least(5))
        one.figure("p99", spread([2.0, 3.0, 3.0]), "ms", at_most(3))
        self.assertEqual([each.is_met for each in one.figures], [False, True])
        self.assertIn("wanted at least 5: NO", said[0])
        self.assertIn("(2.50 to 3.00), wanted at most 3: yes", said[1])
        self.assertEqual(json.loads(json.dumps(one.document()))["figures"][1]["spread"], [2.5, 3.0])


class StopwatchTests(SynchronousTestCase):
    def test_everything_that_the_stopwatch_wraps_exists(self) -> None:
        """It wraps private functions, by name, in a process of its own."""
        wrap = "from tests.benchmark.stopwatch import watch_all; watch_all()"
        subprocess.run([sys.executable, "-c", wrap], cwd=CHECKOUT, check=True)


class ManualTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.text: Any = run_path(str(CHECKOUT / "docs" / "_ext" / "benchmark_tables.py"))["benchmark_text"]

    def test_manual_shows_only_what_was_measured(self) -> None:
        page = (CHECKOUT / "docs" / "explanation" / "performance.rst").read_text(encoding="utf-8")
        shown_there = [
            line.partition("::")[2].split() for line in page.splitlines() if line.startswith(".. benchmark::")
        ]
        self.assertGreater(len(shown_there), 10)
        for words in shown_there:
            self.assertTrue(self.text(*words).strip(), words)
        for line in page.splitlines():
            if line.startswith(".. image::"):
                self.assertTrue((CHECKOUT / "docs" / "explanation" / line.split()[2]).is_file(), line)

    def test_table_shows_every_column(self) -> None:
        lines = self.text("protocol", "calls-1").splitlines()
        self.assertEqual(sum(line.startswith("   * - ") for line in lines), 6)
        self.assertEqual(sum(line.startswith("     - ") for line in lines), 24)
