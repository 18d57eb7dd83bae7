"""bin/test ends what hangs and reports what it did not run; bin/torture does not pass without having tried anything."""

from __future__ import annotations

from contextlib import redirect_stdout
from io import StringIO

from twisted.trial.unittest import SynchronousTestCase

from bin.lib.parts import Outcome, Part, PartRunner, Results, why_failed
from tests.torture import part
from tests.torture.__main__ import run
from tests.torture.table import has_failed, what_failed

NAMES = "tests/a.py::one\ntests/a.py::two\ntests/a.py::three[x y]\n"


def shell(title: str, script: str, listing: str = "") -> Part:
    """Return a part that is a script."""
    return Part(title, ("sh", "-c", script), listing=("sh", "-c", f"printf '{listing}'"))


class PartRunnerTests(SynchronousTestCase):
    def outcomes(self, *parts: Part, idle_limit: float = 600) -> list[Outcome]:
        self.printed = StringIO()
        with redirect_stdout(self.printed):
            return PartRunner(idle_limit, grace=5).run([[each] for each in parts])

    def test_only_a_part_without_output_is_ended_and_reported(self) -> None:
        """Output counts without a line end, too."""
        hangs = "echo 'tests/a.py::one PASSED [ 33%]'; printf 'tests/a.py::two '; exec sleep 600"
        lives = "for each in 1 2 3; do printf .; sleep 1.5; done; echo; echo '1 passed in 4.5s'"
        outcome, other = self.outcomes(shell("slow", hangs, NAMES), shell("busy", lives), idle_limit=4)
        self.assertEqual((other.passed, other.failed), (1, 0))
        self.assertEqual((outcome.passed, outcome.failed), (1, 1))
        self.assertEqual(outcome.not_run, ["tests/a.py::two", "tests/a.py::three[x y]"])
        self.assertIn("no output for 4 s", outcome.remark)
        self.assertIn("did not run: tests/a.py::three[x y]", why_failed([outcome]))
        self.assertIn("did not run: tests/a.py::three[x y]", self.printed.getvalue())

    def test_failed_part_repeats_its_last_lines_at_the_end(self) -> None:
        script = "yes early | head -99; echo 'FAILED: lives: 1 lost'; exit 1"
        outcomes = self.outcomes(shell("torture", script), shell("unit", "echo '1 passed in 1s'"))
        self.assertEqual([each.failed for each in outcomes], [1, 0])
        lines = why_failed(outcomes)
        self.assertLess(len(lines), 40)
        self.assertEqual(lines[-1], "FAILED: lives: 1 lost")

    def test_results_of_each_program_are_understood(self) -> None:
        results = Results()
        for line in (
            "collecting ... collected 9 items / 2 deselected / 7 selected",
            "../checkout/tests/unit/test_a.py::A::test_x PASSED                     [ 10%]",
            "tests/unit/test_a.py::test_y <- tests/unit/cases.py SKIPPED (no root) [ 20%]",
            "tests/unit/test_a.py::test_z[a b] PASSED",
            "tests/unit/test_a.py::test_z[a b] ERROR                                [ 30%]",
            "tests.unit.test_a.A.test_x ... [OK]",
            "crash: 8 tried, 7 survived, 1 lost, 0 leaked, 12 s",
        ):
            results.add(line)
        self.assertEqual(results.expected, 7)
        self.assertEqual([results.count(word) for word in ("passed", "failed", "skipped")], [2, 2, 1])
        listed = "tests/unit/test_a.py::A::test_x\ncrash\nlives\ntests.unit.test_a.A.test_w ... [OK]\n"
        self.assertEqual(results.without(listed), ["lives", "tests.unit.test_a.A.test_w"])


class TortureReportTests(SynchronousTestCase):
    def test_part_that_tries_nothing_fails(self) -> None:
        with redirect_stdout(StringIO()):
            row = run(part.Part("idle", "nothing", lambda _: None, 1, 1), True, 7, None)
        self.assertTrue(has_failed(row))
        self.assertIn("nothing was tried", "\n".join(what_failed([row])))
