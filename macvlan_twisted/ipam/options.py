"""
The ``--ipam-opt`` options of a pool, in one place.

Address management is asked before the network exists: it never sees ``-o`` options.
"""

from __future__ import annotations

from collections.abc import Mapping

from attrs import frozen

from ..option_values import (
    CONFLICT_DETECTION,
    IDENTITIES,
    parse_conflict_detection,
    parse_flag,
    parse_identity,
    parse_interface_name,
    parse_vendor_class,
)
from ..options import DriverOption, parse_driver_options


@frozen
class PoolOptions:
    """What a user said with ``--ipam-opt``, parsed. ``None``: not said."""

    parent: str | None = None
    conflict_detection: str | None = None
    dhcp: bool | None = None
    dhcp_release: bool | None = None
    dhcp_vendor_class: str | None = None
    identity: str | None = None


OPTIONS: tuple[DriverOption, ...] = (
    DriverOption(
        "parent",
        "parent",
        "The NIC on the LAN that the addresses belong to: networks with equal subnets on one parent share "
        "their addresses. Default: the service's host interface.",
        parse_interface_name,
        metavar="LINK",
    ),
    DriverOption(
        "conflict_detection",
        "conflict_detection",
        f"Never hand out an address that someone else has: {', '.join(CONFLICT_DETECTION)}. strict refuses an address "
        "where that cannot be found out. Default: the service's --conflict-detection.",
        parse_conflict_detection,
        metavar="HOW",
    ),
    DriverOption(
        "dhcp",
        "dhcp",
        "Lease each container's address from the LAN's own DHCP server. Default: the service's --dhcp.",
        parse_flag,
        metavar="BOOL",
    ),
    DriverOption(
        "dhcp_release",
        "dhcp_release",
        "Give a lease back when its container has gone. Default: the service's --dhcp-release.",
        parse_flag,
        metavar="BOOL",
    ),
    DriverOption(
        "dhcp_vendor_class",
        "dhcp_vendor_class",
        "What DHCP servers are told of the kind of client (option 60). Default: the service's "
        "--dhcp-vendor-class.",
        parse_vendor_class,
        metavar="TEXT",
    ),
    DriverOption(
        "identity",
        "identity",
        f"What a container's MAC is made of: {', '.join(IDENTITIES)}. By name works with engines that tell it (29); "
        "with older ones the MAC is made of the address, and --ip and --mac-address keep an identity. "
        "Default: the service's --identity.",
        parse_identity,
        metavar="WHAT",
    ),
)


def parse_options(given: Mapping[str, str]) -> PoolOptions:
    """
    :raises Refused: an unknown key or a wrong value.
    """
    return PoolOptions(**parse_driver_options("--ipam-opt", OPTIONS, given))
