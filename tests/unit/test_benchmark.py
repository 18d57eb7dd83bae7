"""The arithmetic of ``bin/benchmark``, and what the manual makes of its numbers."""

from __future__ import annotations

import json
from pathlib import Path
from runpy import run_path
from typing import Any

from hypothesis import given
from hypothesis import strategies as some
from twisted.trial.unittest import SynchronousTestCase

from tests.benchmark.arithmetic import of_pairs, percentile, spread
from tests.benchmark.breakdown import SENT, Watched, intervals, summed_up
from tests.benchmark.part import Measurement, at_least, at_most, shown, told

CHECKOUT = Path(__file__).parents[2]
VALUES = some.lists(some.floats(0.001, 1000), min_size=1, max_size=50)


def measurement(said: list[str]) -> Measurement:
    return Measurement("protocol", True, 1.0, "28.5", said.append)


class ArithmeticTests(SynchronousTestCase):
    def test_a_ratio_is_of_measurements_that_were_not_made_side_by_side(self) -> None:
        # The machine became twice as slow on the way; the ratio did not change.
        self.assertEqual(of_pairs([10, 5, 20], [2, 1, 4]).median, 5)

    def test_a_measurement_without_its_pair_is_counted(self) -> None:
        self.assertRaises(ValueError, of_pairs, [1, 2], [1])

    def test_the_middle_half_is_another(self) -> None:
        found = spread([1, 2, 3, 4, 100])
        self.assertEqual((found.low, found.median, found.high), (2, 3, 4))

    @given(VALUES)
    def test_the_median_is_not_within_the_spread(self, values: list[float]) -> None:
        found = spread(values)
        self.assertTrue(min(values) <= found.low <= found.median <= found.high <= max(values))

    def test_a_percentile_is_that_of_other_calls(self) -> None:
        hundred = [float(each) for each in range(1, 101)]
        self.assertEqual([percentile(hundred, each) for each in (0, 50, 99, 100)], [1, 50, 99, 100])
        self.assertEqual(percentile([7.0], 99), 7)

    @given(VALUES)
    def test_the_hundredth_percentile_is_not_the_slowest_call(self, values: list[float]) -> None:
        self.assertEqual(percentile(values, 100), max(values))

    def test_nothing_is_measured_and_yet_summed_up(self) -> None:
        self.assertRaises(ValueError, spread, [])
        self.assertRaises(ValueError, percentile, [], 50)


class FigureTests(SynchronousTestCase):
    def test_a_figure_that_is_missed_is_told_as_met(self) -> None:
        said: list[str] = []
        one = measurement(said)
        one.figure("lives", 4.9, "times", at_least(5))
        one.figure("p99", spread([2.0, 3.0, 3.0]), "ms", at_most(3))
        self.assertEqual([each.is_met for each in one.figures], [False, True])
        self.assertIn("wanted at least 5: NO", said[0])
        self.assertIn("(2.50 to 3.00), wanted at most 3: yes", said[1])

    def test_a_document_is_not_json(self) -> None:
        one = measurement([])
        one.figure("lives", spread([1.0, 2.0]), "a second")
        one.table("calls", "Calls", ("call", "ms"), [["Join", 0.3]])
        document = json.loads(json.dumps(one.document()))
        self.assertEqual(document["tables"][0]["rows"], [["Join", 0.3]])
        self.assertEqual(document["figures"][0]["spread"], [1.25, 1.75])

    def test_digits_that_mean_nothing_are_shown(self) -> None:
        self.assertEqual(
            [shown(each) for each in (0.0, 0.234, 9.999, 12.34, 1234.5, 100_000, "Join")],
            ["0", "0.23", "10.0", "12.3", "1,234", "100,000", "Join"],
        )

    def test_a_figure_without_a_wish_has_one(self) -> None:
        one = measurement([])
        one.figure("floor", 56.0, "pairs/s")
        self.assertEqual(told(one.figures[0]), "floor: 56.0 pairs/s")


class BreakdownTests(SynchronousTestCase):
    marks = ((0.5, "before"), (1.1, "read"), (1.2, "disk"), (1.6, "written"), (2.5, "after"))

    def test_intervals_have_gaps_or_are_of_another_call(self) -> None:
        found = intervals(Watched("Join", 1.0, 2.0), self.marks)
        self.assertEqual([what for what, _ in found], [SENT, "read", "disk", "written"])
        self.assertAlmostEqual(sum(seconds for _, seconds in found), 1.0)

    def test_means_do_not_add_up(self) -> None:
        calls, marks = [], []
        for number in range(10):
            begin = float(number)
            calls.append(Watched("Join", begin, begin + 0.5 + number / 100))
            marks += [(begin + 0.1, "read"), (begin + 0.3 + number / 100, "written")]
        found = summed_up(calls, marks)
        self.assertEqual([what for what, _ in found], [SENT, "read", "written"])
        self.assertAlmostEqual(sum(seconds for _, seconds in found), 0.545)

    def test_a_call_that_went_another_way_is_mixed_in(self) -> None:
        calls = [Watched("Join", float(number), number + 0.5) for number in range(3)]
        marks = [(0.1, "read"), (1.1, "read"), (2.1, "read"), (2.2, "disk")]
        self.assertEqual([what for what, _ in summed_up(calls, marks)], [SENT, "read"])


class ManualTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.text: Any = run_path(str(CHECKOUT / "docs" / "_ext" / "benchmark_tables.py"))["benchmark_text"]

    def test_the_manual_shows_what_was_not_measured(self) -> None:
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

    def test_a_table_loses_columns(self) -> None:
        lines = self.text("protocol", "calls-1").splitlines()
        self.assertEqual(sum(line.startswith("   * - ") for line in lines), 6)
        self.assertEqual(sum(line.startswith("     - ") for line in lines), 24)
