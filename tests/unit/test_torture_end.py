"""When a part of the torture ends, and what is told of those that failed."""

from __future__ import annotations

import re
import sys
from contextlib import redirect_stdout
from io import StringIO
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from bin.lib import watching
from bin.lib.watching import Outcome, Watch, why_failed
from tests.torture import part
from tests.torture.__main__ import run
from tests.torture.part import MOST_MORE, TortureRun
from tests.torture.table import has_failed, in_a_line, what_failed


def lane(title: str, script: str) -> watching.Part:
    """A process of Python's in place of tests."""
    return watching.Part(title, (sys.executable, "-c", script))


def ordeal(seconds: float, least: int, ago: float) -> TortureRun:
    """One that began some time ago."""
    made = TortureRun("crash", True, 7, seconds, lambda text: None, least=least)
    made.began -= ago
    return made


class EndTests(SynchronousTestCase):
    def test_nothing_is_tried_because_the_preparations_took_all_the_time(self) -> None:
        late = ordeal(60, 2, ago=100)
        for over in (False, False, True):
            self.assertEqual(late.is_over, over)
            late.tally.survive()

    def test_a_part_that_cannot_try_anything_never_ends(self) -> None:
        self.assertTrue(ordeal(60, 2, ago=60 + MOST_MORE).is_over)

    def test_the_least_that_is_tried_ends_a_part_before_its_time(self) -> None:
        early = ordeal(60, 1, ago=1)
        early.tally.survive()
        self.assertFalse(early.is_over)


class ToldTests(SynchronousTestCase):
    def row(self, torment: part.Part) -> dict[str, Any]:
        self.said = StringIO()
        with redirect_stdout(self.said):
            return run(torment, True, 7, None)

    def test_a_part_in_which_nothing_was_tried_passes_or_does_not_say_so(self) -> None:
        row = self.row(part.Part("idle", "nothing", lambda ordeal: None, 1, 1))
        self.assertTrue(has_failed(row))
        self.assertIn("nothing was tried", self.said.getvalue())
        self.assertIn("nothing was tried", "\n".join(what_failed([row])))

    def test_the_reason_is_cut_off_a_long_finding(self) -> None:
        line = in_a_line("lost: dhcp: after x\n" + "  File ...\n" * 500 + "KeyError: 'the reason'")
        self.assertLess(len(line), 600)
        self.assertTrue(line.startswith("lost: dhcp"))
        self.assertTrue(line.endswith("KeyError: 'the reason'"))

    def test_a_failure_is_not_told_in_the_last_lines(self) -> None:
        failed = []
        for name in ("crash", "faults", "damage", "parents", "boots", "interleavings", "lives", "bodies"):
            findings = [f"lost: {number} of {name} " + "x\n" * 999 for number in range(60)]
            row: dict[str, Any] = {"part": name, "tried": 60, "lost": 60, "leaked": 0, "findings": findings}
            failed.append(row)
        lines = what_failed(failed)
        self.assertLess(len(lines), 25)
        for row in failed:
            self.assertTrue(any(f"FAILED: {row['part']}" in line for line in lines))
            self.assertTrue(any(f"0 of {row['part']}" in line for line in lines))

    def test_the_lanes_that_failed_do_not_repeat_their_last_lines_in_the_end(self) -> None:
        script = "print('early\\n' * 99 + 'FAILED: lives: 1 lost'); raise SystemExit(1)"
        with redirect_stdout(StringIO()):
            outcomes = Watch().run([[lane("torture", script), lane("unit", "print('1 passed in 1s')")]])
        self.assertEqual([each.failed for each in outcomes], [1, 0])
        lines = why_failed(outcomes)
        self.assertLess(len(lines), 40)
        self.assertEqual(lines[-1], "FAILED: lives: 1 lost")
        self.assertFalse(any("unit" in line for line in lines))

    def test_with_many_lanes_that_failed_the_last_lines_are_too_many(self) -> None:
        outcomes = [Outcome(f"lane {each}", failed=1, last_lines=["x"] * 24) for each in range(5)]
        self.assertLess(len(why_failed(outcomes)), 40)
        self.assertEqual(len(re.findall("lane [0-9]", "\n".join(why_failed(outcomes)))), 5)
