"""
The format of log lines, and which levels are shown.

``twist`` has options for both, which we set. ``twistd`` writes one format and every level, so it gets an observer of
ours, by its ``--logger`` option. That takes the name of a function without arguments, hence the module's variable; and
with it goes opening the log file, private and rotated by SIGUSR1 as ``twistd`` does.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import MutableMapping
from typing import IO, Any, cast

from attrs import frozen
from twisted.logger import (
    FilteringLogObserver,
    ILogFilterPredicate,
    ILogObserver,
    LogLevel,
    LogLevelFilterPredicate,
    jsonFileLogObserver,
    textFileLogObserver,
)
from twisted.python.logfile import LogFile


@frozen
class _Choice:
    runner: MutableMapping[str, Any]
    json: bool
    debug: bool


_choice = _Choice({}, False, False)


def configure(runner: MutableMapping[str, Any], *, json: bool, debug: bool) -> None:
    """
    Set the options of the program that runs the service, unless its user has set them.

    :param runner: the options of ``twistd`` or ``twist``.
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
    """``twistd`` calls this when it begins to log."""
    observer_to = jsonFileLogObserver if _choice.json else textFileLogObserver
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
    # twistd sets its umask later
    file = LogFile.fromFullPath(path, defaultMode=None if os.path.exists(path) else 0o600)
    if not signal.getsignal(signal.SIGUSR1):

        def rotate(number: int, frame: object) -> None:
            from twisted.internet import reactor

            cast(Any, reactor).callFromThread(file.rotate)

        signal.signal(signal.SIGUSR1, rotate)
    return cast(IO[Any], file)
