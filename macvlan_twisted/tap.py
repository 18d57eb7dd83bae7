"""The command line ``twistd macvlan``."""

from __future__ import annotations

import faulthandler
import gc
import os
import signal
import sys
import textwrap
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from getopt import GetoptError
from typing import Any, cast

from twisted.internet.error import ReactorNotRunning
from twisted.logger import Logger
from twisted.python import usage

from . import logs
from ._version import VERSION_TEXT
from .config import OPTIONS, Config, grouped_options, misspelt_variables
from .daemon_start import DaemonStart
from .option_values import LogFormat, did_you_mean
from .options import ServiceOption
from .service import MacvlanService, make_macvlan_service
from .systemd_notify import Notifier

_log = Logger(namespace="macvlan_twisted")


class Options(usage.Options):
    """The command line of ``twistd macvlan``, made from :data:`macvlan_twisted.config.OPTIONS`."""

    longdesc = "Docker network and IPAM plugin that puts containers directly onto the LAN, with macvlan."

    def __init__(self) -> None:
        self.texts: list[tuple[str, str]] = []
        super().__init__()
        self.config = Config()

    def opt_version(self) -> None:
        """Show the version and exit."""
        print(f"macvlan-twisted {VERSION_TEXT}")
        sys.exit(0)

    def parseOptions(self, options: Any = None) -> None:
        """
        Accept ``-mode=bridge``, as Go programs write it, for ``--mode=bridge``.

        :raises usage.UsageError: unless a program runs the service: it would print all of the help with the error.
        """
        arguments = sys.argv[1:] if options is None else list(options)
        names = {spelling for option in OPTIONS for spelling in option.spellings}
        try:
            super().parseOptions(
                [
                    "-" + each if each.startswith("-") and each[1:].split("=", 1)[0] in names else each
                    for each in arguments
                ]
            )
        except usage.UsageError as error:
            message = _explained(error)
            if self.parent is None:
                raise usage.UsageError(message) from None
            print(f"macvlan-twisted: {message} (see twistd macvlan --help)", file=sys.stderr)
            sys.exit(1)

    def parseArgs(self, *arguments: str) -> None:
        if arguments:
            raise usage.UsageError(f"{arguments[0]!r} is not an option: write --NAME=VALUE")

    def getUsage(self, width: int | None = None) -> str:
        """All options by purpose. Twisted's own text has them in one list, by the alphabet."""
        width = width or int(os.environ.get("COLUMNS", "80"))
        parts = [_wrapped(self.longdesc, width)]
        for title, options in grouped_options():
            parts.append(f"{title}:\n" + "\n".join(_usage_of(option, width) for option in options))
        parts.append(
            "  --help                  Show this help and exit.\n"
            "  --version               Show the version and exit."
        )
        parts.append(_wrapped(_EPILOGUE, width))
        return "\n\n".join(parts) + "\n"

    def postOptions(self) -> None:
        if not sys.platform.startswith("linux"):
            raise usage.UsageError(
                f"macvlan is a feature of Linux, but this is {sys.platform}: run it on Linux"
            )
        try:
            self.config = Config.from_texts(self.texts, os.environ)
        except ValueError as error:
            raise usage.UsageError(str(error)) from None
        if self.parent is not None:
            logs.configure(
                self.parent, json=self.config.log_format == LogFormat.JSON, debug=self.config.debug
            )


_EPILOGUE = (
    "Each option can also be set by an environment variable: --host-interface by MACVLAN_TWISTED_HOST_INTERFACE, and so "
    "on. The command line overrides the environment. BOOL is on, true, yes or 1; or off, false, no or 0. Options of twistd, "
    "such as --nodaemon and --logfile, go before macvlan: see twistd --help."
)
_HELP_COLUMN = 26


def _wrapped(text: str, width: int, indent: int = 0) -> str:
    margin = " " * indent
    return textwrap.fill(
        text,
        max(width, indent + 30),
        initial_indent=margin,
        subsequent_indent=margin,
        break_long_words=False,
        break_on_hyphens=False,
    )


def _usage_of(option: ServiceOption, width: int) -> str:
    default = f" [default: {option.default_text}]" if option.default_text and not option.is_flag else ""
    names, text = f"  {option.usage}", _wrapped(option.help + default, width, _HELP_COLUMN)
    if len(names) + 1 < _HELP_COLUMN:
        return names + text[len(names) :]
    return f"{names}\n{text}"


def _explained(error: usage.UsageError) -> str:
    """The error with what getopt leaves out: which option may have been meant, and what is missing."""
    cause = error.__context__
    if not isinstance(cause, GetoptError):
        return str(error)
    spelling = f"{'--' if len(cause.opt) > 1 else '-'}{cause.opt}"
    option = next((each for each in OPTIONS if cause.opt in each.spellings), None)
    if "requires argument" in cause.msg and option is not None:
        return f"option {spelling} needs a value: write {spelling}={option.metavar}"
    if "must not have" in cause.msg:
        return f"option {spelling} takes no value: leave it out"
    if "unique prefix" in cause.msg:
        meant = [f"--{each.name}" for each in OPTIONS if each.name.startswith(cause.opt)]
        return f"option {spelling} is ambiguous: write {' or '.join(meant)}"
    # Remedy: use an option that twistd macvlan --help lists.
    suggestion = did_you_mean(spelling, [f"--{each.name}" for each in OPTIONS]).strip()
    return f"unknown option {spelling}" + (f": {suggestion}" if suggestion else "")


def _method_for(option: ServiceOption, spelling: str) -> Callable[..., None]:
    """``usage.Options`` finds an option by a method ``opt_...`` of the class."""

    def opt(self: Options, text: str) -> None:
        self.texts.append((spelling, text))

    def opt_flag(self: Options) -> None:
        self.texts.append((spelling, "1"))

    method = opt_flag if option.is_flag else opt
    method.__doc__ = option.help
    return method


for _option in OPTIONS:
    for _spelling in _option.spellings:
        setattr(Options, "opt_" + _spelling.replace("-", "_"), _method_for(_option, _spelling))
    if _option.short is not None:
        setattr(Options, "opt_" + _option.short, getattr(Options, "opt_" + _option.name.replace("-", "_")))


def makeService(options: Options) -> MacvlanService:
    """
    Called by ``twistd``.

    Signals, garbage collection and systemd are dealt with here, since they are the whole program's matter, not that of a
    service within one.
    """
    from twisted.internet import reactor

    _handle_signals(cast(Any, reactor))
    cast(Any, reactor).callWhenRunning(_spare_garbage_collection)
    for variable, suggestion in misspelt_variables(os.environ):
        # Cause: the name of a variable is misspelt, so it has no effect. Remedy: correct the name; the systemd unit
        # reads it from ``/etc/default/macvlan-twisted``.
        _log.warn(
            "environment variable {variable}: does not match any option; did you mean {suggestion}?",
            variable=variable,
            suggestion=suggestion,
        )
    daemon_start = DaemonStart()
    if options.parent is not None and not options.parent.get("nodaemon", True):
        daemon_start.watch()
    notifier = Notifier.from_environment(os.environ, os.getpid())
    if notifier.watchdog:
        faulthandler.enable()  # systemd ends a service that is stuck by SIGABRT: the log then shows where each thread was

    def report_start(error: str) -> None:
        daemon_start.report(error)
        if error and notifier.address:
            with suppress(OSError):  # the error is in the log, too
                notifier.notify(f"STATUS={error}")

    return make_macvlan_service(options.config, reactor=reactor, notifier=notifier, report_start=report_start)


def _spare_garbage_collection() -> None:
    """Leave out what lives as long as the program: full collections of it took 23 to 39 ms."""
    gc.collect()
    gc.freeze()


def _handle_signals(reactor: Any) -> None:
    """
    SIGTERM and SIGINT end the program in order, with status 0. ``twistd`` alone repeats the signal that the reactor's own
    handlers have seen, so that it ends by the signal.

    SIGUSR1 rotates the log file of ``--logfile``, and SIGHUP reopens log files. By default both would kill the program.
    """
    was_started = False

    def stop(number: int, frame: object) -> None:
        if not was_started:  # nothing has been served: as at Ctrl-C, what has begun is undone on the way out
            sys.exit(0)
        reactor.callFromThread(_stop_if_running, reactor)

    def install_stop() -> None:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, stop)

    def begin() -> None:
        nonlocal was_started
        was_started = True
        install_stop()  # the reactor has installed its own

    install_stop()
    reactor.callWhenRunning(begin)
    for number, act in ((signal.SIGUSR1, logs.rotate), (signal.SIGHUP, logs.reopen)):
        if signal.getsignal(number) == signal.SIG_DFL:  # not if started by nohup
            signal.signal(number, partial(_call_on_signal, reactor, act))


def _call_on_signal(reactor: Any, act: Callable[[], None], number: int, frame: object) -> None:
    reactor.callFromThread(act)


def _stop_if_running(reactor: Any) -> None:
    with suppress(ReactorNotRunning):  # a second signal during the stop
        reactor.stop()


__all__ = ["Options", "makeService", "make_macvlan_service"]
