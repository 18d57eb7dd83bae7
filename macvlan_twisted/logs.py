"""
What log lines look like, and which are shown.

``twist`` has options of its own for that, which we set. ``twistd`` knows one format, shows every level, and
can only be given the name of a function without arguments; hence the module's variable.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import MutableMapping
from math import modf
from typing import IO, Any, cast

from attrs import frozen
from twisted.logger import (
    FileLogObserver,
    FilteringLogObserver,
    ILogFilterPredicate,
    ILogObserver,
    LogEvent,
    LogLevel,
    LogLevelFilterPredicate,
    formatEventAsClassicLogText,
    formatTime,
    jsonFileLogObserver,
)
from twisted.python.logfile import LogFile


@frozen
class _Choice:
    runner: MutableMapping[str, Any]
    json: bool
    debug: bool


_choice = _Choice({}, False, False)


def choose(runner: MutableMapping[str, Any], *, json: bool, debug: bool) -> None:
    """
    Set options of the program that runs us. What its user asked of it goes first.

    :param runner: the options of ``twistd`` or ``twist``, on which the options of ours follow.
    """
    global _choice  # noqa: PLW0603 - see the module's docstring
    if "fileLogObserverFactory" in runner:  # twist
        if json:
            runner["fileLogObserverFactory"] = jsonFileLogObserver
        if debug:
            runner["logLevel"] = LogLevel.debug
    elif not runner.get("logger") and not runner.get("syslog"):
        _choice = _Choice(runner, json, debug)
        runner["logger"] = f"{__name__}.{twistd_observer.__name__}"


def twistd_observer() -> ILogObserver:
    """What ``twistd`` calls once it is about to log."""
    lines = jsonFileLogObserver if _choice.json else text_observer
    level = LogLevel.debug if _choice.debug else LogLevel.info
    observer = cast(ILogObserver, lines(_log_file(_choice.runner)))
    shown = cast(ILogFilterPredicate, LogLevelFilterPredicate(level))
    return cast(ILogObserver, FilteringLogObserver(observer, [shown]))


def text_observer(file: IO[Any]) -> FileLogObserver:
    """
    Lines as ``twistd`` writes them. Two are written with each container's life, and the time of day, worked out anew
    each time, was the dearest part of them.
    """
    said, told = -1.0, ""

    def time_of_day(when: float | None) -> str:
        nonlocal said, told
        if when is None:
            return formatTime(when)
        fraction, second = modf(when)
        if round(fraction * 1e6) == 1_000_000:  # as datetime rounds, so that it is the next second's
            second += 1
        if second != said:
            said, told = second, formatTime(when)
        return told

    def line(event: LogEvent) -> str | None:
        words = _plain_words(event)
        if words is None:
            return formatEventAsClassicLogText(event, time_of_day)
        namespace, level = event["log_namespace"], event["log_level"].name
        return f"{time_of_day(event['log_time'])} [{namespace}#{level}] {words}\n"

    return FileLogObserver(file, line)


def _plain_words(event: LogEvent) -> str | None:
    """
    What an event says, if it is one of ours and plain. Twisted's formats may call what they name, and are read in Python
    each time, which took half of a line's 12 microseconds; Python's own, which ours keep to, say the same in one.

    :return: ``None`` if Twisted has to find the words.
    """
    is_ours = str(event.get("log_namespace")).startswith("macvlan_twisted")
    if not is_ours or "log_failure" in event or "log_system" in event:
        return None
    try:
        words: str = event["log_format"].format_map(event)
    except Exception:
        return None
    return words.replace("\n", "\n\t") or None


def _log_file(runner: MutableMapping[str, Any]) -> IO[Any]:
    """Where ``twistd`` would have logged to: its own way to find that is private."""
    name = runner.get("logfile")
    if name == "-" and not runner.get("nodaemon"):
        sys.exit("Daemons cannot log to stdout, exiting!")
    if name == "-" or (not name and runner.get("nodaemon")):
        return sys.stdout
    path = name or "twistd.log"
    # It is opened before twistd has set its umask.
    file = LogFile.fromFullPath(path, defaultMode=None if os.path.exists(path) else 0o600)
    if not signal.getsignal(signal.SIGUSR1):  # twistd's users rotate the log by it

        def rotate(number: int, frame: object) -> None:
            from twisted.internet import reactor

            cast(Any, reactor).callFromThread(file.rotate)

        signal.signal(signal.SIGUSR1, rotate)
    return cast(IO[Any], file)
