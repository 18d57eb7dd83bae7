"""
The ``-o`` options of a network.

Where Docker's built-in macvlan driver has a message for a wrong value, ours has the same words, because people search for
them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from attrs import frozen

from ..addresses import IPAddress, parse_address, parse_mac
from ..option_values import (
    ConflictDetection,
    IdentitySource,
    MacvlanMode,
    did_you_mean,
    parse_conflict_detection,
    parse_flag,
    parse_identity,
    parse_interface_name,
    parse_mtu,
    parse_vendor_class,
    parse_whole_number,
)
from ..options import DriverOption, driver_option, options_of, parse_driver_options


def _parent(text: str) -> str:
    name = parse_interface_name(text)
    if name == "lo":
        raise ValueError("loopback interface is not a valid macvlan parent link: name a NIC on the LAN")
    return name


def _mode(text: str) -> MacvlanMode:
    if text == "":  # the built-in driver's default
        return MacvlanMode.BRIDGE
    try:
        return MacvlanMode(text)
    except ValueError:
        raise ValueError(
            f"requested macvlan mode '{text}' is not valid: {did_you_mean(text, MacvlanMode)}use one "
            f"of {', '.join(MacvlanMode)}; 'bridge' mode is the macvlan driver default"
        ) from None


def parse_vlan_id(text: str) -> int:
    """A VLAN id of 802.1Q, 1 to 4094; 0 and 4095 are reserved."""
    if not (text.isascii() and text.isdigit()) or len(text) > 9:
        raise ValueError(
            f"unable to parse a valid vlan id from: {text} (ex. eth0.10 for vlan 10): use a number "
            "from 1 to 4094"
        )
    if not 1 <= int(text) <= 4094:
        raise ValueError(f"vlan id must be between 1-4094, received: {int(text)}: use a number in that range")
    return int(text)


def _whole_number(least: int, most: int) -> Callable[[str], int]:
    return lambda text: parse_whole_number(text, least, most, "a number")


def _macs(text: str) -> tuple[str, ...]:
    macs = tuple(parse_mac(each) for each in text.replace(",", " ").split())
    if not macs:
        raise ValueError("no MAC address is set: name one or more, separated by commas")
    return tuple(dict.fromkeys(macs))


def _host_addresses(text: str) -> tuple[IPAddress, ...]:
    addresses = tuple(parse_address(each) for each in text.replace(",", " ").split() or [text])
    if len({each.version for each in addresses}) < len(addresses):
        raise ValueError(
            f"{text!r} has more than one address of the same family: use one, or an IPv4 and an IPv6 address separated by "
            "a comma"
        )
    return addresses


@frozen
class NetworkOptions:
    """What a user sets with ``-o``, parsed. ``None``: not set."""

    parent: str | None = driver_option(
        "parent",
        _parent,
        "The network interface on the LAN, or a VLAN of it, such as eth1.20, which is created if it is "
        "missing. Default: the plugin's --host-interface; with --internal, a dummy link of the "
        "network's own.",
        metavar="LINK",
        synonyms=("host_iface",),
    )
    mode: MacvlanMode | None = driver_option(
        "macvlan_mode",
        _mode,
        f"How the kernel switches frames between containers: {', '.join(MacvlanMode)}. Default: the "
        "plugin's --mode.",
        metavar="MODE",
        synonyms=("mode",),
    )
    mtu: int | None = driver_option(
        "mtu",
        parse_mtu,
        "The MTU of the containers' links in bytes, at most that of the parent. Default: the plugin's "
        "--mtu, or else the MTU of the parent.",
        metavar="BYTES",
        synonyms=("com.docker.network.driver.mtu",),
    )
    vlan_id: int | None = driver_option(
        "vlan_id",
        parse_vlan_id,
        "Use this VLAN (802.1Q, 1 to 4094) of the parent. The VLAN interface is created if it is missing.",
        metavar="ID",
    )
    broadcast_queue_length: int | None = driver_option(
        "bcqueuelen",
        _whole_number(0, 2**32 - 1),
        "The length of the parent's queue for broadcast frames, in frames.",
        metavar="FRAMES",
    )
    broadcast_limit: int | None = driver_option(
        "bclim",
        _whole_number(-1, 2**31 - 1),
        "Send multicast frames through the broadcast queue if they have this number of receivers or more; "
        "-1: never. Needs Linux 6.4 or later.",
        metavar="NUMBER",
    )
    nopromisc: bool = driver_option(
        "nopromisc",
        parse_flag,
        "In passthru mode, do not put the parent into promiscuous mode.",
        default=False,
        metavar="BOOL",
    )
    source_macs: tuple[str, ...] = driver_option(
        "source_macs",
        _macs,
        "In source mode, the MAC addresses whose frames are accepted, separated by commas.",
        default=(),
        metavar="MACS",
    )
    allow_wireless_parent: bool = driver_option(
        "allow_wireless_parent",
        parse_flag,
        "Accept a Wi-Fi interface as the parent, although access points drop frames from MAC addresses "
        "that are not associated with them.",
        default=False,
        metavar="BOOL",
        aliases=("force_wifi",),
    )
    allow_parent_mac_change: bool = driver_option(
        "allow_parent_mac_change",
        parse_flag,
        "In passthru mode, allow --mac-address, although it changes the MAC address of the parent itself.",
        default=False,
        metavar="BOOL",
        aliases=("force_mac",),
    )
    host_access: bool | None = driver_option(
        "host_access",
        parse_flag,
        "In bridge mode, let the host and the network's containers reach each other, over an extra link "
        "on the host. Default: the plugin's --host-access.",
        metavar="BOOL",
    )
    host_addresses: tuple[IPAddress, ...] = driver_option(
        "host_address",
        _host_addresses,
        "The host's own address for host_access, one per address family, separated by commas. Default: "
        "an address from the pool if the plugin manages the addresses, or else the --aux-address named "
        "host.",
        default=(),
        metavar="ADDRESSES",
    )
    conflict_detection: ConflictDetection | None = driver_option(
        "conflict_detection",
        parse_conflict_detection,
        f"Refuse an address that another machine on the LAN uses: {', '.join(ConflictDetection)}. For "
        "networks whose addresses the plugin does not manage; with --ipam-driver macvlan-twisted, set "
        "--ipam-opt conflict_detection instead. Default: the plugin's --conflict-detection.",
        metavar="POLICY",
    )
    announce: bool | None = driver_option(
        "announce",
        parse_flag,
        "Announce a container's addresses on the LAN when it starts. Default: the plugin's --announce.",
        metavar="BOOL",
    )
    dhcp: bool | None = driver_option(
        "dhcp",
        parse_flag,
        "Lease each container's address from the LAN's DHCP server. Needs --ipam-driver null, or "
        "--ipam-opt dhcp=true. Default: the plugin's --dhcp.",
        metavar="BOOL",
    )
    dhcp_release: bool | None = driver_option(
        "dhcp_release",
        parse_flag,
        "Release a lease after its container stops. Default: the plugin's --dhcp-release.",
        metavar="BOOL",
    )
    dhcp_readdress: bool | None = driver_option(
        "dhcp_readdress",
        parse_flag,
        "Give a running container another address when the DHCP server insists on one. Default: the "
        "plugin's --dhcp-readdress.",
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
        "How a container gets its MAC address: address (derived from its IP address) or random. With "
        "--ipam-driver macvlan-twisted, set --ipam-opt identity instead. Default: the plugin's "
        "--identity.",
        metavar="SOURCE",
    )

    def set_by_user(self) -> dict[str, object]:
        """What the user has set, by the names of the fields."""
        return {
            option.attribute: value
            for option in OPTIONS
            if (value := getattr(self, option.attribute)) is not None
        }


OPTIONS: tuple[DriverOption, ...] = options_of(NetworkOptions)
GROUPS: dict[str, tuple[str, ...]] = {
    "Links": (
        "parent",
        "vlan_id",
        "macvlan_mode",
        "mtu",
        "nopromisc",
        "source_macs",
        "allow_wireless_parent",
        "allow_parent_mac_change",
        "bcqueuelen",
        "bclim",
    ),
    "Host access": ("host_access", "host_address"),
    "Addresses": ("conflict_detection", "announce", "identity"),
    "DHCP": ("dhcp", "dhcp_release", "dhcp_readdress", "dhcp_vendor_class"),
}
"""The options by purpose, in the order of the reference."""


def grouped_options() -> Iterator[tuple[str, list[DriverOption]]]:
    """Each group of :data:`GROUPS` with its options."""
    by_name = {option.name: option for option in OPTIONS}
    for title, names in GROUPS.items():
        yield title, [by_name[name] for name in names]


def parse_options(texts: Mapping[str, str]) -> NetworkOptions:
    """
    :raises RequestRefused: an unknown key, a wrong value, or two spellings of one option that contradict each other.
    """
    return parse_driver_options("-o", NetworkOptions, texts)
