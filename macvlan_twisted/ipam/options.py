"""
The ``--ipam-opt`` options of a pool, in one place.

Address management is asked before the network exists: it never sees ``-o`` options.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from attrs import frozen

from ..errors import Refused
from ..settings import parse_interface_name

_FOREIGN_PREFIX = "com.docker."


@frozen
class PoolOptions:
    parent: str | None = None


@frozen
class PoolOption:
    """One key of ``--ipam-opt``."""

    key: str
    setting: str
    help: str
    parse: Callable[[str], Any]
    metavar: str = "VALUE"


OPTIONS: tuple[PoolOption, ...] = (
    PoolOption(
        "parent",
        "parent",
        "The NIC on the LAN that the addresses belong to: networks with equal subnets on one parent share "
        "their addresses. Default: the service's host interface.",
        parse_interface_name,
        "LINK",
    ),
)

_BY_KEY = {option.key: option for option in OPTIONS}


def parse_options(given: Mapping[str, str]) -> PoolOptions:
    """
    :raises Refused: an unknown key or a wrong value.
    """
    values: dict[str, Any] = {}
    for key, text in given.items():
        option = _BY_KEY.get(key)
        if option is None:
            if key.startswith(_FOREIGN_PREFIX):
                continue
            raise Refused(f"unknown option --ipam-opt {key}: known are {', '.join(sorted(_BY_KEY))}")
        try:
            values[option.setting] = option.parse(text)
        except ValueError as error:
            raise Refused(f"--ipam-opt {key}: {error}") from None
    return PoolOptions(**values)
