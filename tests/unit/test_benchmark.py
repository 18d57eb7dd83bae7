"""The figures that ``bin/benchmark`` prints, and the manual shows, follow from what was measured."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from runpy import run_path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.benchmark import breakdown, stopwatch
from tests.benchmark.arithmetic import spread
from tests.benchmark.breakdown import Interval
from tests.benchmark.kernel_trace import SystemCall, system_calls
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


KERNEL_TRACE = """\
# tracer: nop
         dockerd-13758   [000] .....   595.011716: sys_sendto(fd: f, buff: 3f14, len: 28, flags: 0)
  Web Content 2-13687   [001] .....   595.013000: sys_fdatasync(fd: c)
         dockerd-13687   [001] .....   595.014000: sys_fdatasync -> 0x0
         dockerd-13758   [000] .....   595.031716: sys_sendto -> 0x28
         dockerd-13759   [000] .....   595.040000: sys_read -> 0xc8
"""


class BreakdownTests(SynchronousTestCase):
    def test_pieces_add_up_to_the_whole(self) -> None:
        ours = [Interval(1.0, 2.0, "plan"), Interval(2.0, 3.0, "SQLite commit")]
        kernel = [Interval(1.5, 3.5, "netlink"), Interval(9.0, 12.0, "netlink")]
        seconds = breakdown.partition(0.0, 10.0, [ours, kernel], "everything else")
        self.assertEqual(seconds, {"everything else": 6.5, "plan": 1.0, "SQLite commit": 1.0, "netlink": 1.5})

    def test_marks_are_cut_into_calls(self) -> None:
        marks = [
            (0.5, stopwatch.PLAN, ""),  # of nothing that an engine asked
            (1.0, stopwatch.REQUEST_READ, ""),
            (1.2, stopwatch.JSON_PARSED, "Join"),
            (1.3, stopwatch.PLAN, ""),
            (1.7, stopwatch.REPLY_IN_TRANSIT, ""),
            (1.8, stopwatch.ANNOUNCEMENT, ""),
            (2.0, stopwatch.REQUEST_READ, ""),
        ]
        [call] = breakdown.plugin_calls(reversed(marks))
        self.assertEqual((call.method, call.began, call.ended), ("Join", 1.0, 1.7))
        self.assertEqual(
            [each.piece for each in call.pieces],
            [stopwatch.REQUEST_READ, stopwatch.JSON_PARSED, stopwatch.PLAN],
        )
        kernel = [SystemCall("write", 0.8, 0.9), SystemCall("read", 1.7, 1.9), SystemCall("read", 3.0, 3.1)]
        self.assertEqual(
            breakdown.transits([call], kernel),
            [
                Interval(0.9, 1.0, breakdown.REQUEST_IN_TRANSIT),
                Interval(1.7, 1.9, stopwatch.REPLY_IN_TRANSIT),
            ],
        )

    def test_outliers_do_not_count(self) -> None:
        runs = [{"plan": 1.0}, {"plan": 2.0, "commit": 1.0}, {"plan": 2.0, "commit": 3.0}, {"plan": 90.0}]
        self.assertEqual(breakdown.means(runs), {"plan": 2.0, "commit": 2.0})

    def test_kernel_trace_is_read(self) -> None:
        """The end of a read whose beginning was before the trace is left out."""
        self.assertEqual(
            list(system_calls(KERNEL_TRACE)),
            [SystemCall("fdatasync", 595.013, 595.014), SystemCall("sendto", 595.011716, 595.031716)],
        )


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

    def test_table_that_was_not_measured_yet_says_so(self) -> None:
        self.assertEqual(self.text("breakdown", "nothing"), "*Not measured yet.*")

    def test_table_shows_every_column(self) -> None:
        lines = self.text("protocol", "calls-1").splitlines()
        self.assertEqual(sum(line.startswith("   * - ") for line in lines), 6)
        self.assertEqual(sum(line.startswith("     - ") for line in lines), 24)
