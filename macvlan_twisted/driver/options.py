"""
The ``-o`` options of a network: names, synonyms, help and parsing in one place.

The generated reference is made from :data:`OPTIONS`. Where Docker's builtin macvlan driver has a message
for a wrong value we use its words, because people search for them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from attrs import frozen

from ..addresses import IPAddress, parse_address, parse_mac
from ..option_values import (
    CONFLICT_DETECTION,
    DEFAULT_MODE,
    MODES,
    parse_conflict_detection,
    parse_flag,
    parse_identity,
    parse_interface_name,
    parse_mtu,
    parse_vendor_class,
    parse_whole_number,
)
from ..options import DriverOption, parse_driver_options


@frozen
class NetworkOptions:
    """What a user said with ``-o``, parsed. ``None``: not said."""

    parent: str | None = None
    mode: str | None = None
    mtu: int | None = None
    vlan_id: int | None = None
    broadcast_queue_length: int | None = None
    broadcast_limit: int | None = None
    nopromisc: bool = False
    source_macs: tuple[str, ...] = ()
    force_wifi: bool = False
    force_mac: bool = False
    conflict_detection: str | None = None
    announce: bool | None = None
    host_access: bool | None = None
    host_addresses: tuple[IPAddress, ...] = ()
    dhcp: bool | None = None
    dhcp_release: bool | None = None
    dhcp_readdress: bool | None = None
    dhcp_vendor_class: str | None = None
    identity: str | None = None


def _parent(text: str) -> str:
    name = parse_interface_name(text)
    if name == "lo":
        raise ValueError("loopback interface is not a valid macvlan parent link: name a NIC on the LAN")
    return name


def _mode(text: str) -> str:
    if text == "":
        return DEFAULT_MODE
    if text not in MODES:
        raise ValueError(
            f"requested macvlan mode '{text}' is not valid, 'bridge' mode is the macvlan driver default: "
            f"give one of {', '.join(MODES)}"
        )
    return text


def parse_vlan_id(text: str) -> int:
    """A VLAN id of 802.1Q, 1 to 4094; 0 and 4095 are reserved."""
    if not (text.isascii() and text.isdigit()) or len(text) > 9:
        raise ValueError(f"unable to parse a valid vlan id from: {text} (ex. eth0.10 for vlan 10)")
    if not 1 <= int(text) <= 4094:
        raise ValueError(f"vlan id must be between 1-4094, received: {int(text)}")
    return int(text)


def _whole_number(least: int, most: int) -> Callable[[str], int]:
    return lambda text: parse_whole_number(text, least, most, "a number")


def _macs(text: str) -> tuple[str, ...]:
    macs = tuple(parse_mac(each) for each in text.replace(",", " ").split())
    if not macs:
        raise ValueError("name at least one MAC address, several with commas between them")
    return tuple(dict.fromkeys(macs))


def _host_addresses(text: str) -> tuple[IPAddress, ...]:
    addresses = tuple(parse_address(each) for each in text.replace(",", " ").split())
    if not addresses or len({each.version for each in addresses}) < len(addresses):
        raise ValueError(
            f"{text!r} is not one address a family: give one, or an IPv4 and an IPv6 address with a comma"
        )
    return addresses


def _identity(text: str) -> str:
    if text == "name":
        raise ValueError(
            "the engine does not tell network drivers a container's name: use --ipam-driver with this plugin and "
            "--ipam-opt identity=name"
        )
    return parse_identity(text)


OPTIONS: tuple[DriverOption, ...] = (
    DriverOption(
        "parent",
        "parent",
        "The NIC on the LAN, or a VLAN of it as eth1.20, which is made if it is absent. Default: the "
        "service's host interface; with --internal a dummy link of the network's own.",
        _parent,
        ("host_iface",),
        "LINK",
    ),
    DriverOption(
        "macvlan_mode",
        "mode",
        f"How the kernel switches between containers: {', '.join(MODES)}. Default: the service's --mode.",
        _mode,
        ("mode",),
        "MODE",
    ),
    DriverOption(
        "mtu",
        "mtu",
        "MTU of the containers' links in bytes, at most the parent's. Default: the service's --mtu, else the "
        "parent's.",
        parse_mtu,
        ("com.docker.network.driver.mtu",),
        "BYTES",
    ),
    DriverOption(
        "vlan_id",
        "vlan_id",
        "Use this VLAN (802.1Q, 1 to 4094) of the parent; the sub-interface is made if it is absent.",
        parse_vlan_id,
        (),
        "ID",
    ),
    DriverOption(
        "bcqueuelen",
        "broadcast_queue_length",
        "Length of the parent's queue of broadcast frames, in frames.",
        _whole_number(0, 2**32 - 1),
        (),
        "FRAMES",
    ),
    DriverOption(
        "bclim",
        "broadcast_limit",
        "From how many receivers on a multicast is handed on by the broadcast queue; -1 never (Linux 6.4).",
        _whole_number(-1, 2**31 - 1),
        (),
        "NUMBER",
    ),
    DriverOption(
        "nopromisc",
        "nopromisc",
        "In passthru mode, do not put the parent into promiscuous mode.",
        parse_flag,
        (),
        "BOOL",
    ),
    DriverOption(
        "source_macs",
        "source_macs",
        "In source mode, the MAC addresses from which frames are admitted, with commas between them.",
        _macs,
        (),
        "MACS",
    ),
    DriverOption(
        "force_wifi",
        "force_wifi",
        "Take a Wi-Fi parent although access points drop frames of MACs that did not associate.",
        parse_flag,
        (),
        "BOOL",
    ),
    DriverOption(
        "force_mac",
        "force_mac",
        "In passthru mode, allow --mac-address although it changes the MAC of the parent NIC itself.",
        parse_flag,
        (),
        "BOOL",
    ),
    DriverOption(
        "host_access",
        "host_access",
        "Let the host and the network's containers reach each other, by a link of ours on the host; in mode bridge "
        "only. Default: the service's --host-access.",
        parse_flag,
        (),
        "BOOL",
    ),
    DriverOption(
        "host_address",
        "host_addresses",
        "The host's own address for host_access, one a family with a comma between them. Default: one of the "
        "pool's where this plugin manages its addresses, else the auxiliary address that is named host.",
        _host_addresses,
        (),
        "ADDRESSES",
    ),
    DriverOption(
        "conflict_detection",
        "conflict_detection",
        f"Refuse an address that someone else has: {', '.join(CONFLICT_DETECTION)}. For address management that is "
        "not ours; ours has an option of the same name. Default: the service's --conflict-detection.",
        parse_conflict_detection,
        (),
        "HOW",
    ),
    DriverOption(
        "announce",
        "announce",
        "Announce a container's addresses on the LAN when it joins. Default: the service's --announce.",
        parse_flag,
        (),
        "BOOL",
    ),
    DriverOption(
        "dhcp",
        "dhcp",
        "Lease each container's address from the LAN's own DHCP server; with --ipam-driver null. Default: the "
        "service's --dhcp.",
        parse_flag,
        (),
        "BOOL",
    ),
    DriverOption(
        "dhcp_release",
        "dhcp_release",
        "Give a lease back when its container has gone. Default: the service's --dhcp-release.",
        parse_flag,
        (),
        "BOOL",
    ),
    DriverOption(
        "dhcp_readdress",
        "dhcp_readdress",
        "Give a running container another address when its DHCP server insists on one. Default: the service's "
        "--dhcp-readdress.",
        parse_flag,
        (),
        "BOOL",
    ),
    DriverOption(
        "dhcp_vendor_class",
        "dhcp_vendor_class",
        "What DHCP servers are told of the kind of client (option 60). Default: the service's "
        "--dhcp-vendor-class.",
        parse_vendor_class,
        (),
        "TEXT",
    ),
    DriverOption(
        "identity",
        "identity",
        "What a container's MAC is made of: its address, or nothing (random). Where this plugin manages addresses, "
        "its own option of this name decides. Default: the service's --identity.",
        _identity,
        (),
        "WHAT",
    ),
)


def parse_options(given: Mapping[str, str]) -> NetworkOptions:
    """
    :raises Refused: an unknown key, a wrong value, or two synonyms that contradict each other.
    """
    return NetworkOptions(**parse_driver_options("-o", OPTIONS, given))
