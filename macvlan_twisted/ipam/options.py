"""
The ``--ipam-opt`` options of a pool.

The engine requests a pool before it creates the network, and never sends ``-o`` options to IPAM drivers.
"""

from __future__ import annotations

from collections.abc import Mapping

from attrs import frozen

from ..option_values import (
    ConflictDetection,
    IdentitySource,
    parse_conflict_detection,
    parse_flag,
    parse_identity,
    parse_interface_name,
    parse_vendor_class,
)
from ..options import DriverOption, driver_option, options_of, parse_driver_options


@frozen
class PoolOptions:
    """The parsed ``--ipam-opt`` options; ``None`` if not set."""

    parent: str | None = driver_option(
        "parent",
        parse_interface_name,
        "The NIC on the LAN that the addresses belong to: networks with equal subnets on one parent share "
        "their addresses. Default: the service's host interface.",
        metavar="LINK",
    )
    conflict_detection: ConflictDetection | None = driver_option(
        "conflict_detection",
        parse_conflict_detection,
        f"Never hand out an address that someone else has: {', '.join(ConflictDetection)}. strict refuses an address where "
        "that cannot be found out. Default: the service's --conflict-detection.",
        metavar="POLICY",
    )
    dhcp: bool | None = driver_option(
        "dhcp",
        parse_flag,
        "Lease each container's address from the LAN's own DHCP server. Default: the service's --dhcp.",
        metavar="BOOL",
    )
    dhcp_release: bool | None = driver_option(
        "dhcp_release",
        parse_flag,
        "Give a lease back when its container has gone. Default: the service's --dhcp-release.",
        metavar="BOOL",
    )
    dhcp_vendor_class: str | None = driver_option(
        "dhcp_vendor_class",
        parse_vendor_class,
        "What DHCP servers are told of the kind of client (option 60). Default: the service's "
        "--dhcp-vendor-class.",
        metavar="TEXT",
    )
    identity: IdentitySource | None = driver_option(
        "identity",
        parse_identity,
        f"What a container's MAC is made of: {', '.join(IdentitySource)}. By name works with engines that tell it (29); "
        "with older ones the MAC is made of the address, and --ip and --mac-address keep an "
        "identity. Default: the service's --identity.",
        metavar="SOURCE",
    )


OPTIONS: tuple[DriverOption, ...] = options_of(PoolOptions)


def parse_options(texts: Mapping[str, str]) -> PoolOptions:
    """
    :raises RequestRefused: an unknown option or an invalid value.
    """
    return parse_driver_options("--ipam-opt", PoolOptions, texts)
