"""Log format and log level, as twistd and twist are asked for them."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from ipaddress import ip_address
from pathlib import Path
from runpy import run_path
from typing import Any, cast

from twisted.logger import ILogObserver, LogEvent, Logger, LogLevel, formatEventAsClassicLogText
from twisted.python.failure import Failure
from twisted.python.reflect import namedAny
from twisted.trial.unittest import SynchronousTestCase

from macvlan_twisted.logs import json_line, json_observer, text_line
from macvlan_twisted.tap import Options

from .helpers import fresh_directory

MESSAGES = run_path(str(Path(__file__).resolve().parents[2] / "docs" / "_ext" / "message_tables.py"))


def event(level: object, text: str) -> LogEvent:
    return {
        "log_time": 1e9,
        "log_level": level,
        "log_namespace": "macvlan_twisted",
        "log_format": "{text}",
        "text": text,
    }


class RunnerTests(SynchronousTestCase):
    def parsed_under(self, runner: dict[str, Any], *arguments: str) -> dict[str, Any]:
        """The options of *runner* after ours were parsed."""
        options = Options()
        options.parent = cast(Any, runner)
        options.parseOptions(list(arguments))
        return runner

    def written(self, *arguments: str) -> str:
        """What twistd writes with our observer, of one debug and one info event."""
        path = fresh_directory(self) / "log"
        runner = self.parsed_under({"logger": None, "logfile": str(path)}, *arguments)
        observer = namedAny(runner["logger"])()
        for level in (LogLevel.debug, LogLevel.info):
            observer(event(level, f"at {level.name}"))
        return Path(path).read_text(encoding="utf-8")

    def test_twist_is_asked_for_json(self) -> None:
        runner = self.parsed_under({"fileLogObserverFactory": None, "logLevel": None}, "--log-format=json")
        self.assertIs(runner["fileLogObserverFactory"], json_observer)
        self.assertIsNone(runner["logLevel"])

    def test_twist_is_asked_for_debug_lines(self) -> None:
        runner = self.parsed_under({"fileLogObserverFactory": None, "logLevel": LogLevel.info}, "-d")
        self.assertIs(runner["logLevel"], LogLevel.debug)

    def test_twistd_gets_our_observer(self) -> None:
        for arguments in ((), ("-d",), ("--log-format=json",)):
            runner = self.parsed_under({"logger": None, "nodaemon": 1}, *arguments)
            self.assertTrue(ILogObserver.providedBy(namedAny(runner["logger"])()), arguments)

    def test_logger_and_syslog_of_the_user_win(self) -> None:
        self.assertEqual(self.parsed_under({"logger": "mine"}, "--log-format=json")["logger"], "mine")
        self.assertIsNone(self.parsed_under({"logger": None, "syslog": 1})["logger"])

    def test_debug_lines_are_written_on_request_only(self) -> None:
        self.assertRegex(self.written(), r"^2001-09-09T\S+ \[macvlan_twisted#info\] at info\n$")
        self.assertRegex(self.written("-d"), r"#debug\] at debug\n.*#info\] at info\n$")

    def test_json_lines_are_flat_objects(self) -> None:
        self.assertEqual(
            json.loads(self.written("--log-format=json")),
            {
                "time": "2001-09-09T01:46:40.000+00:00",
                "level": "info",
                "logger": "macvlan_twisted",
                "message": "at info",
                "text": "at info",
            },
        )


class TextLineTests(SynchronousTestCase):
    def set_time_zone(self, name: str | None) -> None:
        if name is None:
            os.environ.pop("TZ", None)
        else:
            os.environ["TZ"] = name
        time.tzset()

    def test_line_is_that_of_twisted(self) -> None:
        self.addCleanup(self.set_time_zone, os.environ.get("TZ"))
        winter, summer = 1.7e9, 1.72e9
        for zone in ("UTC", "CET-1CEST,M3.5.0,M10.5.0/3", "IST-5:30", "<-0330>3:30"):
            self.set_time_zone(zone)
            for when in (winter, summer, None):
                logged = {**event(LogLevel.info, "endpoint 0123456789ab: made"), "log_time": when}
                self.assertEqual(text_line(logged), formatEventAsClassicLogText(logged), (zone, when))

    def test_event_without_text_has_no_line(self) -> None:
        self.assertIsNone(text_line({"log_time": 1e9, "log_level": LogLevel.info}))


class JsonLineTests(SynchronousTestCase):
    def parsed(self, emit: Callable[[Logger], None]) -> dict[str, Any]:
        events: list[LogEvent] = []
        emit(Logger(namespace="macvlan_twisted.driver", observer=cast(Any, events.append)))
        (event,) = events
        line = json_line(event)
        self.assertTrue(line.endswith("\n"))
        self.assertNotIn("\n", line[:-1])
        parsed: dict[str, Any] = json.loads(line)
        for name, value in parsed.items():
            self.assertIsInstance(value, str | int | float, name)
        return parsed

    def test_fields_are_strings_and_numbers(self) -> None:
        line = self.parsed(
            lambda log: log.warn(
                "parent {parent}: absent, {networks} networks, {address}",
                parent="eth1",
                networks=2,
                address=ip_address("192.168.1.128"),
            )
        )
        self.assertEqual(line["message"], "parent eth1: absent, 2 networks, 192.168.1.128")
        self.assertEqual((line["level"], line["logger"]), ("warn", "macvlan_twisted.driver"))
        self.assertEqual((line["parent"], line["networks"], line["address"]), ("eth1", 2, "192.168.1.128"))

    def test_failure_has_its_traceback(self) -> None:
        line = self.parsed(lambda log: log.failure("reply: failed", Failure(ValueError("a test\nraises it"))))
        self.assertEqual(line["message"], "reply: failed")
        self.assertIn("ValueError: a test\nraises it", line["traceback"])

    def test_values_that_json_lacks_become_strings(self) -> None:
        line = self.parsed(lambda log: log.info("{number} {text}", number=float("nan"), text="\udcff\n"))
        self.assertEqual(line["number"], "nan")

    def test_events_of_the_older_log_system_are_lines(self) -> None:
        line = json.loads(json_line({"log_time": 1e9, "log_system": "-", "log_text": "x", "isError": 0}))
        self.assertEqual((line["level"], line["message"]), ("info", ""))

    def test_every_log_call_makes_a_line(self) -> None:
        """With a value of another type for each field, as it is given in the code."""
        calls = list(MESSAGES["log_calls"]())
        self.assertGreater(len(calls), 100)
        values = ["text", 7, ip_address("192.168.1.7"), True, 1.5, Path("/run"), ["a", "b"]]
        for call in calls:
            with self.subTest(call=call):
                fields = {name: values[at % len(values)] for at, name in enumerate(call.fields)}
                if "milliseconds" in fields:
                    fields["milliseconds"] = 1.5
                line = self.parsed(lambda log: log.emit(LogLevel.warn, call.template, **fields))  # noqa: B023
                self.assertNotIn("Unable to format event", line["message"])
                self.assertGreaterEqual(line.keys(), {"time", "level", "logger", "message", *call.fields})


class MessageTableTests(SynchronousTestCase):
    """The pages themselves are compared in ``test_option_reference``."""

    def test_warnings_and_errors_have_cause_and_remedy(self) -> None:
        self.assertEqual(MESSAGES["complaints"](), [])

    def test_errors_raised_through_helpers_are_listed(self) -> None:
        """By context managers, with texts in variables, by functions that return them, and parts that may be missing."""
        listed = {each.text for each in (*MESSAGES["error_texts"](), *MESSAGES["_returned_texts"]())}
        for text in (
            "cannot create macvlan link NAME on PARENT: REASON",
            "cannot add the route to DESTINATION through LINK: the host has another route to that address",
            "cannot write PATH: REASON",
            "parent PARENT is absent[, because LINK is absent]",
            "DHCP server SERVER on PARENT offered ADDRESS to MAC, but did not confirm it",
            "option --OPT takes no value",
        ):
            with self.subTest(text=text):
                self.assertIn(text, listed)

    def test_commands_in_remedies_are_literals(self) -> None:
        prose = MESSAGES["_prose"]
        self.assertEqual(prose("run modprobe 8021q on the host"), "Run ``modprobe 8021q`` on the host.")
        remedy = "remove it; ip route show DESTINATION lists it"
        self.assertEqual(prose(remedy), "Remove it; ``ip route show DESTINATION`` lists it.")
        remedy = "use conflict_detection=on, or -o conflict_detection=off"
        self.assertEqual(prose(remedy), "Use ``conflict_detection=on``, or ``-o conflict_detection=off``.")

    def test_a_line_begins_with_its_object(self) -> None:
        """Its first words, up to a colon, name what ``grep`` looks for."""
        without = {"{reason}", "{hint}", "stopped", "listening on {where}"}
        for call in MESSAGES["log_calls"]():
            if call.template not in without and not call.template.startswith("{method} refused"):
                self.assertRegex(call.template, r"^[^:]{3,45}: ", call.place)

    def test_fields_of_a_line_are_given(self) -> None:
        for call in MESSAGES["log_calls"]():
            self.assertEqual(set(call.fields) - set(call.given), set(), call.place)
