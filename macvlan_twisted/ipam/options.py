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
    parse_lan_name,
    parse_vendor_class,
)
from ..options import DriverOption, driver_option, options_of, parse_driver_options


@frozen
class PoolOptions:
    """The parsed ``--ipam-opt`` options; ``None`` if not set."""

    parent: str | None = driver_option(
        "parent",
        parse_interface_name,
        "The network interface on the LAN to which the addresses belong. Networks with the same subnet "
        "on the same parent share their addresses. Default: the plugin's --host-interface.",
        metavar="LINK",
    )
    conflict_detection: ConflictDetection | None = driver_option(
        "conflict_detection",
        parse_conflict_detection,
        "Never allocate an address that another machine on the LAN uses: "
        f"{', '.join(ConflictDetection)}. With strict, an address is refused if the check is "
        "inconclusive. Default: the plugin's --conflict-detection.",
        metavar="POLICY",
    )
    dhcp: bool | None = driver_option(
        "dhcp",
        parse_flag,
        "Lease each container's address from the LAN's DHCP server. Default: the plugin's --dhcp.",
        metavar="BOOL",
    )
    dhcp_release: bool | None = driver_option(
        "dhcp_release",
        parse_flag,
        "Release a lease after its container stops. Default: the plugin's --dhcp-release.",
        metavar="BOOL",
    )
    dhcp_vendor_class: str | None = driver_option(
        "dhcp_vendor_class",
        parse_vendor_class,
        "The vendor class that DHCP servers see (option 60). Default: the plugin's --dhcp-vendor-class.",
        metavar="TEXT",
    )
    identity: IdentitySource | None = driver_option(
        "identity",
        parse_identity,
        "How a container gets its MAC address: address (derived from its IP address), name (derived from "
        "its name) or random. With engines before 29, which do not send names, name has the effect of "
        "address: set --ip or --mac-address to keep the MAC address. Default: the plugin's --identity.",
        metavar="SOURCE",
    )
    lan: str | None = driver_option(
        "lan",
        parse_lan_name,
        "The LAN's name in a fleet (--fleet): no two hosts use the same address on one LAN. Needed only where a fleet has "
        "several LANs. Default: default.",
        metavar="NAME",
    )


OPTIONS: tuple[DriverOption, ...] = options_of(PoolOptions)


def parse_options(texts: Mapping[str, str]) -> PoolOptions:
    """
    :raises RequestRefused: an unknown option or an invalid value.
    """
    return parse_driver_options("--ipam-opt", PoolOptions, texts)
