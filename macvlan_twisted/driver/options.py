"""
The ``-o`` options of a network: names, synonyms, help and parsing in one place.

The generated reference is made from :data:`OPTIONS`. Where Docker's builtin macvlan driver has a message
for a wrong value we use its words, because people search for them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from attrs import frozen

from ..addresses import parse_mac
from ..errors import Refused
from ..settings import DEFAULT_MODE, MODES, parse_interface_name, parse_mtu

_FOREIGN_PREFIX = "com.docker."


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


@frozen
class NetworkOption:
    """One key of ``-o``, with the other names that it goes by."""

    key: str
    setting: str
    help: str
    parse: Callable[[str], Any]
    synonyms: tuple[str, ...] = ()
    metavar: str = "VALUE"

    @property
    def names(self) -> tuple[str, ...]:
        return (self.key, *self.synonyms)


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
    def parse(text: str) -> int:
        digits = text.removeprefix("-")
        if not (digits.isascii() and digits.isdigit()) or len(digits) > 10 or not least <= int(text) <= most:
            raise ValueError(f"{text!r} is not a whole number from {least} to {most}")
        return int(text)

    return parse


def _flag(text: str) -> bool:
    """``-o flag`` arrives as the empty string and means yes."""
    if text.lower() in ("", "1", "true", "yes", "on"):
        return True
    if text.lower() in ("0", "false", "no", "off"):
        return False
    raise ValueError(f"{text!r} is neither true nor false")


def _macs(text: str) -> tuple[str, ...]:
    macs = tuple(parse_mac(each) for each in text.replace(",", " ").split())
    if not macs:
        raise ValueError("name at least one MAC address, several with commas between them")
    return tuple(dict.fromkeys(macs))


OPTIONS: tuple[NetworkOption, ...] = (
    NetworkOption(
        "parent",
        "parent",
        "The NIC on the LAN, or a VLAN of it as eth1.20, which is made if it is absent. Default: the "
        "service's host interface; with --internal a dummy link of the network's own.",
        _parent,
        ("host_iface",),
        "LINK",
    ),
    NetworkOption(
        "macvlan_mode",
        "mode",
        f"How the kernel switches between containers: {', '.join(MODES)}. Default: the service's --mode.",
        _mode,
        ("mode",),
        "MODE",
    ),
    NetworkOption(
        "mtu",
        "mtu",
        "MTU of the containers' links in bytes, at most the parent's. Default: the service's --mtu, else the "
        "parent's.",
        parse_mtu,
        ("com.docker.network.driver.mtu",),
        "BYTES",
    ),
    NetworkOption(
        "vlan_id",
        "vlan_id",
        "Use this VLAN (802.1Q, 1 to 4094) of the parent; the sub-interface is made if it is absent.",
        parse_vlan_id,
        (),
        "ID",
    ),
    NetworkOption(
        "bcqueuelen",
        "broadcast_queue_length",
        "Length of the parent's queue of broadcast frames, in frames.",
        _whole_number(0, 2**32 - 1),
        (),
        "FRAMES",
    ),
    NetworkOption(
        "bclim",
        "broadcast_limit",
        "From how many receivers on a multicast is handed on by the broadcast queue; -1 never (Linux 6.4).",
        _whole_number(-1, 2**31 - 1),
        (),
        "NUMBER",
    ),
    NetworkOption(
        "nopromisc",
        "nopromisc",
        "In passthru mode, do not put the parent into promiscuous mode.",
        _flag,
        (),
        "BOOL",
    ),
    NetworkOption(
        "source_macs",
        "source_macs",
        "In source mode, the MAC addresses from which frames are admitted, with commas between them.",
        _macs,
        (),
        "MACS",
    ),
    NetworkOption(
        "force_wifi",
        "force_wifi",
        "Take a Wi-Fi parent although access points drop frames of MACs that did not associate.",
        _flag,
        (),
        "BOOL",
    ),
    NetworkOption(
        "force_mac",
        "force_mac",
        "In passthru mode, allow --mac-address although it changes the MAC of the parent NIC itself.",
        _flag,
        (),
        "BOOL",
    ),
)

_BY_NAME = {name: option for option in OPTIONS for name in option.names}


def parse_options(given: Mapping[str, str]) -> NetworkOptions:
    """
    :raises Refused: an unknown key, a wrong value, or two synonyms that contradict each other.
    """
    values: dict[str, Any] = {}
    named_by: dict[str, str] = {}
    for name, text in given.items():
        option = _BY_NAME.get(name)
        if option is None:
            if name.startswith(_FOREIGN_PREFIX):
                continue
            raise Refused(
                f"unknown option -o {name}: known are {', '.join(sorted(key.key for key in OPTIONS))}"
            )
        try:
            value = option.parse(text)
        except ValueError as error:
            raise Refused(f"-o {name}: {error}") from None
        if option.setting in values and values[option.setting] != value:
            other = named_by[option.setting]
            raise Refused(
                f"-o {name}={text} contradicts -o {other}={given[other]}: they mean the same, give one of them"
            )
        values[option.setting], named_by[option.setting] = value, name
    return NetworkOptions(**values)
