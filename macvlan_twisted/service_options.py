"""
The options of the service: names and help, each with its parser and its setting.

The command line, the environment variables and the generated reference are all made from :data:`OPTIONS`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from attrs import frozen

from .addresses import parse_address, parse_network, parse_range
from .config import Config
from .option_values import (
    MODES,
    parse_absolute_path,
    parse_conflict_detection,
    parse_conflict_wait,
    parse_dhcp_timeout,
    parse_docker_host,
    parse_flag,
    parse_group_name,
    parse_identity,
    parse_interface_name,
    parse_log_format,
    parse_mode,
    parse_mtu,
    parse_network_name,
    parse_plugin_name,
    parse_reconcile_every,
    parse_threads,
    parse_vendor_class,
)

ENVIRONMENT_PREFIX = "MACVLAN_TWISTED_"


@frozen
class Option:
    """One option of the command line and of the environment."""

    name: str
    help: str
    parse: Callable[[str], Any]
    setting: str
    short: str | None = None
    metavar: str = "VALUE"
    repeats: bool = False
    is_flag: bool = False
    is_off_when_empty: bool = False
    """Whether an empty variable in the environment says something; else it is as if it were not there."""

    @property
    def environment_variable(self) -> str:
        return ENVIRONMENT_PREFIX + self.name.upper().replace("-", "_")

    @property
    def default_text(self) -> str:
        default = getattr(Config(), self.setting)
        if default is None or default == ():
            return ""
        if isinstance(default, bool):
            return "on" if default else "off"
        return f"{default:g}" if isinstance(default, float) else str(default)


OPTIONS: tuple[Option, ...] = (
    Option(
        "gateway",
        "The LAN's router. Once a family. Default: the one that the default route shows.",
        parse_address,
        "gateways",
        metavar="ADDRESS",
        repeats=True,
    ),
    Option(
        "macvlan-subnet",
        "The LAN's subnet. Once a family. Default: the one that the host interface is in.",
        parse_network,
        "subnets",
        metavar="SUBNET",
        repeats=True,
    ),
    Option(
        "ip-range",
        "Hand out addresses from this part of the subnet only. Once a family. Default: the whole subnet.",
        parse_network,
        "ip_ranges",
        metavar="SUBNET",
        repeats=True,
    ),
    Option(
        "exclude",
        "Never hand out this address, subnet or FIRST-LAST range by itself, say the router's own DHCP "
        "range. May be given several times.",
        parse_range,
        "excluded",
        metavar="RANGE",
        repeats=True,
    ),
    Option(
        "host-interface",
        "The NIC on the LAN, parent of networks that name none. Default: the one of the default route.",
        parse_interface_name,
        "host_interface",
        metavar="LINK",
    ),
    Option(
        "mode",
        f"The macvlan mode of networks that name none: {', '.join(MODES)}.",
        parse_mode,
        "mode",
        metavar="MODE",
    ),
    Option(
        "mtu",
        "The MTU in bytes of networks that name none. Default: the parent's.",
        parse_mtu,
        "mtu",
        metavar="BYTES",
    ),
    Option(
        "plugin-name",
        "The name of the driver, as in docker network create -d NAME.",
        parse_plugin_name,
        "plugin_name",
        metavar="NAME",
    ),
    Option(
        "plugin-dir",
        "The directory in which Docker Engine looks for sockets of plugins. Made if it is missing.",
        parse_absolute_path,
        "plugin_dir",
        metavar="DIRECTORY",
    ),
    Option(
        "listen",
        "Listen here instead: any server endpoint string of Twisted, systemd:domain=UNIX:index=0 among them. "
        "Overrides --plugin-dir and --plugin-name. unix:PATH has mode 0600 unless it names another, as in "
        "unix:PATH:mode=660.",
        str,
        "listen",
        metavar="ENDPOINT",
    ),
    Option(
        "socket-group",
        "The group whose members may use the socket, too: it has mode 0660 then. Default: only the service's own user "
        "and root.",
        parse_group_name,
        "socket_group",
        metavar="GROUP",
    ),
    Option(
        "state-dir",
        "Where networks, endpoints, pools and addresses are kept. Made if it is missing.",
        parse_absolute_path,
        "state_dir",
        metavar="DIRECTORY",
    ),
    Option(
        "runtime-dir",
        "Where, until the host is booted again, it is noted how far the state has come: so it is noticed when that is "
        "gone, or older. Made if it is missing; nothing fails where it cannot be.",
        parse_absolute_path,
        "runtime_dir",
        metavar="DIRECTORY",
    ),
    Option(
        "netlink-threads",
        "How many threads talk to the kernel (1 to 64).",
        parse_threads,
        "netlink_threads",
        metavar="NUMBER",
    ),
    Option(
        "network",
        "Create this network in the engine with the service's own settings, if it does not exist, as soon as "
        "the engine answers.",
        parse_network_name,
        "network",
        metavar="NAME",
    ),
    Option(
        "docker-host",
        "The engine's socket, which is asked in the background only, for --network and about what is still in use; or "
        "none: then no engine is asked, and only what the kernel proves to be unused is removed.",
        parse_docker_host,
        "docker_host",
        metavar="URL",
        is_off_when_empty=True,
    ),
    Option(
        "reconcile-every",
        "After how many seconds (1 to 86400) kernel, state and engine are compared again, so that what containers and "
        "networks left behind is removed. 0: only once, some minutes after the start.",
        parse_reconcile_every,
        "reconcile_every",
        metavar="SECONDS",
    ),
    Option(
        "conflict-detection",
        "Whether an address is known to be free on the LAN before a container gets it: on, off, or strict, "
        "which refuses the address where it cannot be found out. For pools and networks that do not say.",
        parse_conflict_detection,
        "conflict_detection",
        metavar="HOW",
    ),
    Option(
        "conflict-wait",
        "How many seconds (0.05 to 10) are spent on finding out whether an address is in use where nothing is "
        "known yet, or rfc5227 for that document's own timing of 4 to 7 seconds.",
        parse_conflict_wait,
        "conflict_wait",
        metavar="SECONDS",
    ),
    Option(
        "announce",
        "Whether a container's addresses are announced on the LAN when it joins, so that neighbours forget "
        "the MAC that had them before. For networks that do not say.",
        parse_flag,
        "announce",
        metavar="BOOL",
    ),
    Option(
        "host-access",
        "Whether the host and its containers reach each other. For networks that do not say, in mode bridge.",
        parse_flag,
        "host_access",
        metavar="BOOL",
    ),
    Option(
        "dhcp",
        "Whether addresses are leased from the LAN's own DHCP server. For pools that do not say, and networks without "
        "address management.",
        parse_flag,
        "dhcp",
        metavar="BOOL",
    ),
    Option(
        "dhcp-release",
        "Whether a lease is given back when its container has gone. For pools and networks that do not say.",
        parse_flag,
        "dhcp_release",
        metavar="BOOL",
    ),
    Option(
        "dhcp-readdress",
        "Whether a running container gets another address when its DHCP server insists on one. For networks "
        "that do not say.",
        parse_flag,
        "dhcp_readdress",
        metavar="BOOL",
    ),
    Option(
        "dhcp-vendor-class",
        "What DHCP servers are told of the kind of client (option 60). For pools and networks that do not say.",
        parse_vendor_class,
        "dhcp_vendor_class",
        metavar="TEXT",
    ),
    Option(
        "dhcp-timeout",
        "For how many seconds (1 to 300) a DHCP server's answer is waited for when a container starts.",
        parse_dhcp_timeout,
        "dhcp_timeout",
        metavar="SECONDS",
    ),
    Option(
        "identity",
        "What a container's MAC is made of: its name (only Docker Engine 29 tells it), its address, or nothing "
        "(random). For pools and networks that do not say.",
        parse_identity,
        "identity",
        metavar="WHAT",
    ),
    Option(
        "recover",
        "Rebuild state that was lost or damaged from what the engine and the kernel know; to be given once, with the "
        "engine running.",
        parse_flag,
        "recover",
        is_flag=True,
    ),
    Option(
        "log-format", "How log lines look: text or json.", parse_log_format, "log_format", metavar="FORMAT"
    ),
    Option("debug", "Log every call with its duration.", parse_flag, "debug", short="d", is_flag=True),
)
