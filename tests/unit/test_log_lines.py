"""Log lines as ``twistd`` writes them, with a time of day that is not worked out for each."""

from __future__ import annotations

from io import StringIO

from hypothesis import given
from hypothesis import strategies as some
from twisted.logger import LogLevel, formatEventAsClassicLogText, textFileLogObserver
from twisted.trial.unittest import SynchronousTestCase

from macvlan_twisted.log_lines import text_observer


def event(when: float, text: str = "a link was made") -> dict[str, object]:
    return {
        "log_time": when,
        "log_level": LogLevel.info,
        "log_namespace": "macvlan_twisted",
        "log_system": "macvlan_twisted",
        "log_format": "{text}",
        "text": text,
    }


def lines(*events: dict[str, object]) -> str:
    written = StringIO()
    observe = text_observer(written)
    for each in events:
        observe(dict(each))
    return written.getvalue()


def twistds(*events: dict[str, object]) -> str:
    written = StringIO()
    observe = textFileLogObserver(written)
    for each in events:
        observe(dict(each))
    return written.getvalue()


class TextObserverTests(SynchronousTestCase):
    @given(some.lists(some.floats(0, 4e9), max_size=5))
    def test_a_line_is_not_as_twistd_writes_it(self, times: list[float]) -> None:
        events = [event(when) for when in times]
        self.assertEqual(lines(*events), twistds(*events))

    def test_a_line_has_the_time_of_the_one_before(self) -> None:
        first, second, third = lines(event(1e9), event(1e9 + 0.9), event(1e9 + 1)).splitlines()
        self.assertEqual(first, second)
        self.assertNotEqual(second, third)

    def test_an_event_without_a_time_has_one(self) -> None:
        self.assertTrue(lines({**event(0), "log_time": None}).startswith("- "))

    def test_an_event_without_words_makes_an_empty_line(self) -> None:
        self.assertIsNone(formatEventAsClassicLogText({}))
        self.assertEqual(lines({"log_time": 1e9}), "")
