"""
The format of log lines, and which levels are shown.

A JSON line is one flat object: ``time`` (ISO 8601, UTC), ``level``, ``logger``, ``message``, the fields of the event as
strings and numbers, and ``traceback`` where there is one.

``twist`` has options for both, which we set. ``twistd`` writes one format and every level, so it gets an observer of
ours, by its ``--logger`` option. That takes the name of a function without arguments, hence the module's variables; and
with it goes opening the log file, private. :func:`rotate` and :func:`reopen` are for signals.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import MutableMapping
from datetime import UTC, datetime
from math import isfinite
from time import localtime, strftime
from typing import IO, Any, cast

from attrs import frozen
from twisted.logger import (
    FileLogObserver,
    FilteringLogObserver,
    ILogFilterPredicate,
    ILogObserver,
    LogEvent,
    Logger,
    LogLevel,
    LogLevelFilterPredicate,
    formatEvent,
    formatEventAsClassicLogText,
)
from twisted.python.logfile import LogFile

_log = Logger(namespace="macvlan_twisted")


@frozen
class _Choice:
    runner: MutableMapping[str, Any]
    json: bool
    debug: bool


_choice = _Choice({}, False, False)
_opened: LogFile | None = None
"""The log file of ``twistd``, if we opened one."""


def configure(runner: MutableMapping[str, Any], *, json: bool, debug: bool) -> None:
    """
    Set the options of the program that runs the service, unless its user has set them.

    :param runner: the options of ``twistd`` or ``twist``.
    """
    global _choice  # noqa: PLW0603 - see the module's docstring
    _choice = _Choice(runner, json, debug)
    if "fileLogObserverFactory" in runner:  # twist
        if json:
            runner["fileLogObserverFactory"] = json_observer
        if debug:
            runner["logLevel"] = LogLevel.debug
    elif not runner.get("logger") and not runner.get("syslog"):
        runner["logger"] = f"{__name__}.{twistd_observer.__name__}"


def json_observer(file: IO[Any]) -> FileLogObserver:
    """As :func:`~twisted.logger.textFileLogObserver`, of lines that Loki and jq can read."""
    return FileLogObserver(file, json_line)


_COMMON_FIELDS = ("time", "level", "logger", "message", "traceback")


def json_line(event: LogEvent) -> str:
    """One event as a line with a JSON object."""
    failure = event.get("log_failure")
    level = event.get("log_level") or LogLevel.info
    line: dict[str, str | int | float | bool] = {
        "time": datetime.fromtimestamp(event.get("log_time", 0), UTC).isoformat(timespec="milliseconds"),
        "level": level.name,
        "logger": str(event.get("log_namespace") or event.get("log_system") or "-"),
        "message": formatEvent(event) or _text_of(event),
    }
    for name, value in event.items():
        # Twisted's own fields begin with log_ or are those of its older log system.
        if value is None or name.startswith("log_") or name in _COMMON_FIELDS or name in _LEGACY_FIELDS:
            continue
        is_plain = isinstance(value, str | int | bool) or (isinstance(value, float) and isfinite(value))
        line[name] = value if is_plain else str(value)
    if failure is not None:
        line["traceback"] = failure.getTraceback()
    return json.dumps(line, allow_nan=False) + "\n"


_LEGACY_FIELDS = frozenset(
    {"message", "time", "system", "isError", "logLevel", "format", "failure", "why", "printed"}
)


def _text_of(event: LogEvent) -> str:
    """Of an event without a format, such as an error that nobody handled."""
    failure = event.get("log_failure")
    return "" if failure is None else failure.getErrorMessage()


def text_observer(file: IO[Any]) -> FileLogObserver:
    """As :func:`~twisted.logger.textFileLogObserver`, which takes a third of its time to format that of the event."""
    return FileLogObserver(file, text_line)


def text_line(event: LogEvent) -> str | None:
    """One event as Twisted writes it; ``None`` if it has no text."""
    return formatEventAsClassicLogText(event, formatTime=_local_time)


def _local_time(when: float | None) -> str:
    return "-" if when is None else strftime("%Y-%m-%dT%H:%M:%S%z", localtime(when))


def twistd_observer() -> ILogObserver:
    """``twistd`` calls this when it begins to log."""
    observer_to = json_observer if _choice.json else text_observer
    level = LogLevel.debug if _choice.debug else LogLevel.info
    observer = cast(ILogObserver, observer_to(_log_file(_choice.runner)))
    shown = cast(ILogFilterPredicate, LogLevelFilterPredicate(level))
    return cast(ILogObserver, FilteringLogObserver(observer, [shown]))


def _log_file(runner: MutableMapping[str, Any]) -> IO[Any]:
    """The file that ``twistd`` would have opened; its own function for that is private."""
    name = runner.get("logfile")
    if name == "-" and not runner.get("nodaemon"):
        sys.exit("Daemons cannot log to stdout, exiting!")
    if name == "-" or (not name and runner.get("nodaemon")):
        return sys.stdout
    path = name or "twistd.log"
    global _opened  # noqa: PLW0603 - see the module's docstring
    # twistd sets its umask later
    _opened = LogFile.fromFullPath(path, defaultMode=None if os.path.exists(path) else 0o600)
    return cast(IO[Any], _opened)


def rotate() -> None:
    """Rename the file of ``twistd --logfile`` and begin a new one, as ``twistd`` does on SIGUSR1."""
    if _opened is not None:
        _opened.rotate()


_STANDARD = (1, 2)
"""The descriptors of standard output and standard error, whose names, such as ``<stdout>``, are no paths."""


def reopen() -> None:
    """
    Open the log file anew by its name, after a program like logrotate has moved it.

    Where that fails, the log goes on in the file that is open.
    """
    written = _opened or _choice.runner.get("logFile")  # twist has opened its own
    if written is None or (not isinstance(written, LogFile) and written.fileno() in _STANDARD):
        return
    try:
        if isinstance(written, LogFile):
            os.close(_open_to_append(written.path, written.defaultMode))
            written.reopen()
        else:
            file = _open_to_append(written.name, 0o600)
            os.dup2(file, written.fileno())
            os.close(file)
    except OSError as error:
        # Cause: the file's directory is gone or not writable; the log continues in the open file. Remedy:
        # create the directory or make it writable, and send SIGHUP again.
        _log.warn(
            "log file {path}: cannot be reopened ({reason})", path=error.filename, reason=error.strerror
        )


def _open_to_append(path: str, mode: int | None) -> int:
    return os.open(
        path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600 if mode is None else mode
    )
