"""Log format and log level, as twistd and twist are asked for them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

from twisted.logger import ILogObserver, LogEvent, LogLevel, jsonFileLogObserver
from twisted.python.reflect import namedAny
from twisted.trial.unittest import SynchronousTestCase

from macvlan_twisted.tap import Options

from .helpers import fresh_directory


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
        self.assertIs(runner["fileLogObserverFactory"], jsonFileLogObserver)
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

    def test_json_lines_are_events(self) -> None:
        self.assertEqual(json.loads(self.written("--log-format=json").lstrip("\x1e"))["text"], "at info")
