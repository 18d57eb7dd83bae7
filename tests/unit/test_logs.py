"""Log lines as ``twistd`` writes them, with a time of day that is not worked out for each."""

from __future__ import annotations

from io import StringIO
from ipaddress import ip_address

from hypothesis import example, given
from hypothesis import strategies as some
from twisted.logger import LogLevel, formatEventAsClassicLogText, textFileLogObserver
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from macvlan_twisted.logs import text_observer


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


def own(**more: object) -> dict[str, object]:
    """As the service's own loggers write it."""
    said = {
        "log_time": 1e9,
        "log_level": LogLevel.info,
        "log_namespace": "macvlan_twisted.ipam",
        "log_format": "address allocated: {address} of pool {pool}{name} in {seconds:.2f} s, {size.real}",
        "address": ip_address("192.168.1.20"),
        "pool": "192.168.1.0/24",
        "name": "",
        "seconds": 0.5,
        "size": 3,
    }
    return {**said, **more}


class OwnLinesTests(SynchronousTestCase):
    @given(some.text(), some.sampled_from((LogLevel.debug, LogLevel.info, LogLevel.error)))
    def test_a_line_of_ours_is_not_as_twistd_writes_it(self, name: str, level: object) -> None:
        event = own(name=name, log_level=level)
        self.assertEqual(lines(event), twistds(event))

    def test_a_line_that_only_twisted_can_write_is_lost(self) -> None:
        events = [
            own(log_format="it is {told()}", told=lambda: "told by a call"),
            own(log_format="{missing}"),
            own(log_format=b"address {address}"),
            own(log_format=""),
            own(log_format="{name}"),
            own(log_format=None),
            own(log_system="-"),
            own(log_failure=Failure(ValueError("with a reason"))),
            own(log_time=None),
        ]
        for event in events:
            self.assertEqual(lines(event), twistds(event))
        self.assertIn("told by a call", lines(events[0]))
        self.assertIn("with a reason", lines(events[-2]))


class TextObserverTests(SynchronousTestCase):
    @given(some.lists(some.floats(0, 4e9), max_size=5))
    @example([3999999999.0, 3999999999.9999995])
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
