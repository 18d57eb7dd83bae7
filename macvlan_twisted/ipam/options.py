"""
The ``--ipam-opt`` options of a pool, in one place.

Address management is asked before the network exists: it never sees ``-o`` options.
"""

from __future__ import annotations

from collections.abc import Mapping

from attrs import frozen

from ..keyed_options import KeyedOption, parse_keyed
from ..settings import parse_interface_name


@frozen
class PoolOptions:
    parent: str | None = None


OPTIONS: tuple[KeyedOption, ...] = (
    KeyedOption(
        "parent",
        "parent",
        "The NIC on the LAN that the addresses belong to: networks with equal subnets on one parent share "
        "their addresses. Default: the service's host interface.",
        parse_interface_name,
        metavar="LINK",
    ),
)


def parse_options(given: Mapping[str, str]) -> PoolOptions:
    """
    :raises Refused: an unknown key or a wrong value.
    """
    return PoolOptions(**parse_keyed("--ipam-opt", OPTIONS, given))
