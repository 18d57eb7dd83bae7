"""The command line ``twistd macvlan``."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any, cast

from twisted.python import usage

from . import logs
from ._version import VERSION_TEXT
from .config import Config
from .given_settings import settings_from
from .plugin import make_macvlan_service
from .service import MacvlanService
from .service_options import OPTIONS, Option
from .whole_program import exit_with_zero_on_signals, spare_garbage_collection


class Options(usage.Options):
    """The options of ``twistd macvlan``, made from :data:`macvlan_twisted.service_options.OPTIONS`."""

    longdesc = "Docker network and IPAM plugin: puts containers straight onto the LAN with macvlan."

    def __init__(self) -> None:
        self.given: dict[str, list[str]] = {}
        super().__init__()
        self.config = Config()

    def opt_version(self) -> None:
        """Show the version and exit."""
        print(f"macvlan-twisted {VERSION_TEXT}")
        sys.exit(0)

    def parseOptions(self, options: Any = None) -> None:
        """Take ``-mode=bridge``, as Go's flags are written, for ``--mode=bridge``."""
        arguments = sys.argv[1:] if options is None else list(options)
        names = {option.name for option in OPTIONS}
        super().parseOptions(
            [
                "-" + each if each.startswith("-") and each[1:].split("=", 1)[0] in names else each
                for each in arguments
            ]
        )

    def postOptions(self) -> None:
        if not sys.platform.startswith("linux"):
            raise usage.UsageError(
                f"macvlan is a feature of Linux, and this is {sys.platform}: run it on Linux"
            )
        try:
            self.config = settings_from(self.given, os.environ)
        except ValueError as error:
            raise usage.UsageError(str(error)) from None
        if self.parent is not None:
            logs.choose(self.parent, json=self.config.log_format == "json", debug=self.config.debug)


def _method_for(option: Option) -> Callable[..., None]:
    """``usage.Options`` finds an option by a method ``opt_...`` of the class, and shows its docstring."""

    def take(self: Options, text: str) -> None:
        self.given.setdefault(option.name, []).append(text)

    def take_flag(self: Options) -> None:
        self.given.setdefault(option.name, []).append("1")

    method = take_flag if option.is_flag else take
    method.__doc__ = f"{option.help} [default: {option.default_text}]" if option.default_text else option.help
    return method


for _option in OPTIONS:
    _method = _method_for(_option)
    setattr(Options, "opt_" + _option.name.replace("-", "_"), _method)
    if _option.short is not None:
        setattr(Options, "opt_" + _option.short, _method)


def makeService(options: Options) -> MacvlanService:
    """What the ``twistd`` plugin calls."""
    from twisted.internet import reactor

    service = make_macvlan_service(options.config, reactor=reactor)
    cast(Any, reactor).callWhenRunning(exit_with_zero_on_signals, reactor)
    cast(Any, reactor).callWhenRunning(spare_garbage_collection)
    return service


__all__ = ["Options", "makeService", "make_macvlan_service"]
