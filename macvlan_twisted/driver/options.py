"""
The ``-o`` options of a network: names, synonyms, help and parsing in one place.

The generated reference is made from :data:`OPTIONS`. Where Docker's builtin macvlan driver has a message
for a wrong value we use its words, because people search for them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from attrs import frozen

from ..addresses import parse_mac
from ..keyed_options import KeyedOption, parse_keyed
from ..settings import DEFAULT_MODE, MODES, parse_interface_name, parse_mtu, parse_whole_number


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


def _flag(text: str) -> bool:
    """``-o flag`` arrives as the empty string and means yes."""
    if text.lower() in ("", "1", "true", "yes", "on"):
        return True
    if text.lower() in ("0", "false", "no", "off"):
        return False
    raise ValueError(f"{text!r} is neither true nor false: give one of them")


def _macs(text: str) -> tuple[str, ...]:
    macs = tuple(parse_mac(each) for each in text.replace(",", " ").split())
    if not macs:
        raise ValueError("name at least one MAC address, several with commas between them")
    return tuple(dict.fromkeys(macs))


OPTIONS: tuple[KeyedOption, ...] = (
    KeyedOption(
        "parent",
        "parent",
        "The NIC on the LAN, or a VLAN of it as eth1.20, which is made if it is absent. Default: the "
        "service's host interface; with --internal a dummy link of the network's own.",
        _parent,
        ("host_iface",),
        "LINK",
    ),
    KeyedOption(
        "macvlan_mode",
        "mode",
        f"How the kernel switches between containers: {', '.join(MODES)}. Default: the service's --mode.",
        _mode,
        ("mode",),
        "MODE",
    ),
    KeyedOption(
        "mtu",
        "mtu",
        "MTU of the containers' links in bytes, at most the parent's. Default: the service's --mtu, else the "
        "parent's.",
        parse_mtu,
        ("com.docker.network.driver.mtu",),
        "BYTES",
    ),
    KeyedOption(
        "vlan_id",
        "vlan_id",
        "Use this VLAN (802.1Q, 1 to 4094) of the parent; the sub-interface is made if it is absent.",
        parse_vlan_id,
        (),
        "ID",
    ),
    KeyedOption(
        "bcqueuelen",
        "broadcast_queue_length",
        "Length of the parent's queue of broadcast frames, in frames.",
        _whole_number(0, 2**32 - 1),
        (),
        "FRAMES",
    ),
    KeyedOption(
        "bclim",
        "broadcast_limit",
        "From how many receivers on a multicast is handed on by the broadcast queue; -1 never (Linux 6.4).",
        _whole_number(-1, 2**31 - 1),
        (),
        "NUMBER",
    ),
    KeyedOption(
        "nopromisc",
        "nopromisc",
        "In passthru mode, do not put the parent into promiscuous mode.",
        _flag,
        (),
        "BOOL",
    ),
    KeyedOption(
        "source_macs",
        "source_macs",
        "In source mode, the MAC addresses from which frames are admitted, with commas between them.",
        _macs,
        (),
        "MACS",
    ),
    KeyedOption(
        "force_wifi",
        "force_wifi",
        "Take a Wi-Fi parent although access points drop frames of MACs that did not associate.",
        _flag,
        (),
        "BOOL",
    ),
    KeyedOption(
        "force_mac",
        "force_mac",
        "In passthru mode, allow --mac-address although it changes the MAC of the parent NIC itself.",
        _flag,
        (),
        "BOOL",
    ),
)


def parse_options(given: Mapping[str, str]) -> NetworkOptions:
    """
    :raises Refused: an unknown key, a wrong value, or two synonyms that contradict each other.
    """
    return NetworkOptions(**parse_keyed("-o", OPTIONS, given))
