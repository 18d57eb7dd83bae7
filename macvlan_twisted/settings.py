"""
What a user may set for the whole service: names, defaults, help and parsing in one place.

The command line, the environment variables and the generated reference are all made from
:data:`OPTIONS`. A :class:`Settings` is what they amount to; embedding code may make one directly.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from attrs import frozen

from .addresses import (
    AddressRange,
    IPAddress,
    IPNetwork,
    parse_address,
    parse_network,
    parse_range,
)

MODES = ("bridge", "private", "vepa", "passthru", "source")
DEFAULT_MODE = "bridge"
ENVIRONMENT_PREFIX = "MACVLAN_TWISTED_"
SHADOWED_PLUGIN_NAME = "macvlan"
CONFLICT_DETECTION = ("on", "off", "strict")
IDENTITIES = ("name", "address", "random")


@frozen
class ConflictWait:
    """How long it is listened whether an address is in use: seconds, ``None`` for RFC 5227's own timing."""

    seconds: float | None

    def __str__(self) -> str:
        return "rfc5227" if self.seconds is None else f"{self.seconds:g}"


QUICK_WAIT = ConflictWait(0.5)
"""RFC 5227's timing takes 4 to 7 seconds, made for radio links of 2008; a wired LAN answers in less than 1 ms."""


@frozen
class Settings:
    """The service's settings, validated. ``None`` and empty tuples mean: choose what the host shows."""

    gateways: tuple[IPAddress, ...] = ()
    subnets: tuple[IPNetwork, ...] = ()
    ip_ranges: tuple[IPNetwork, ...] = ()
    excluded: tuple[AddressRange, ...] = ()
    host_interface: str | None = None
    mode: str = DEFAULT_MODE
    mtu: int | None = None
    plugin_name: str = "macvlan-twisted"
    plugin_dir: str = "/run/docker/plugins"
    listen: str | None = None
    socket_group: str | None = None
    state_dir: str = "/var/lib/macvlan-twisted"
    netlink_threads: int = 4
    network: str | None = None
    docker_host: str = "unix:///var/run/docker.sock"
    """Empty: no engine is ever asked."""
    reconcile_every: float = 60.0
    conflict_detection: str = "on"
    conflict_wait: ConflictWait = QUICK_WAIT
    announce: bool = True
    host_access: bool = False
    dhcp: bool = False
    dhcp_release: bool = True
    dhcp_readdress: bool = False
    dhcp_vendor_class: str = ""
    dhcp_timeout: float = 10.0
    identity: str = "address"
    runtime_dir: str = "/run/macvlan-twisted"
    recover: bool = False
    log_format: str = "text"
    debug: bool = False

    @property
    def socket_path(self) -> str:
        """Where the engine looks for a plugin of this name."""
        return os.path.join(self.plugin_dir, f"{self.plugin_name}.sock")

    def gateway_for(self, subnet: IPNetwork) -> IPAddress | None:
        """The gateway of ours that lies in *subnet*."""
        return next((each for each in self.gateways if each in subnet), None)

    def subnet_of_version(self, version: int) -> IPNetwork | None:
        return next((each for each in self.subnets if each.version == version), None)

    def gateway_of_version(self, version: int) -> IPAddress | None:
        return next((each for each in self.gateways if each.version == version), None)

    def ip_range_in(self, subnet: IPNetwork) -> IPNetwork | None:
        return next(
            (each for each in self.ip_ranges if each.version == subnet.version and each.subnet_of(subnet)),  # type: ignore[arg-type]
            None,
        )


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
        default = getattr(Settings(), self.setting)
        if default is None or default == ():
            return ""
        if isinstance(default, bool):
            return "on" if default else "off"
        return f"{default:g}" if isinstance(default, float) else str(default)


def _mode(text: str) -> str:
    if text not in MODES:
        raise ValueError(f"{text!r} is not a macvlan mode: give one of {', '.join(MODES)}")
    return text


def parse_whole_number(text: str, least: int, most: int, what: str) -> int:
    try:
        number = int(text if len(text) < 32 else "x")  # int() takes a long time over long numbers
    except ValueError:
        raise ValueError(f"{text!r} is not a whole number: give {what} from {least} to {most}") from None
    if not least <= number <= most:
        raise ValueError(f"{number} is out of range: give {what} from {least} to {most}")
    return number


def parse_mtu(text: str) -> int:
    """An MTU in bytes; 68 is the least that IPv4 allows (RFC 791), 65535 the most that Linux takes."""
    return parse_whole_number(text, 68, 65535, "an MTU in bytes")


def _threads(text: str) -> int:
    return parse_whole_number(text, 1, 64, "a number of threads")


def parse_interface_name(text: str) -> str:
    """A name that the kernel takes for a link: 1 to 15 bytes without blanks, slashes or colons."""
    if (
        not text
        or len(text.encode()) > 15
        or text in (".", "..")
        or any(sign in "/:" or sign.isspace() or not sign.isprintable() for sign in text)
    ):
        raise ValueError(
            f"{text!r} is not an interface name: give 1 to 15 characters without blanks, '/' or ':', like eth1"
        )
    return text


def _plugin_name(text: str) -> str:
    if (
        not text
        or text.startswith(".")
        or any(not (c.isascii() and (c.isalnum() or c in "-_.")) for c in text)
    ):
        raise ValueError(f"{text!r} is not a plugin name: use letters, digits, '-', '_' and '.'")
    return text


def _absolute_path(text: str) -> str:
    if not os.path.isabs(text):
        raise ValueError(f"{text!r} is not an absolute path: let it start with '/'")
    return os.path.normpath(text)


def _group_name(text: str) -> str:
    if not text or any(sign in ":,/" or sign.isspace() or not sign.isprintable() for sign in text):
        raise ValueError(f"{text!r} is not the name of a group: give one that /etc/group has, like docker")
    return text


def _docker_host(text: str) -> str:
    if text.lower() in ("", "none"):
        return ""
    if not text.startswith("unix:///"):
        raise ValueError(
            f"{text!r} is not a local engine: give its socket, like unix:///var/run/docker.sock, or none"
        )
    return text


def _log_format(text: str) -> str:
    if text not in ("text", "json"):
        raise ValueError(f"{text!r} is not a log format: give text or json")
    return text


def parse_flag(text: str) -> bool:
    """``-o flag`` arrives as the empty string and means yes."""
    if text.lower() in ("", "1", "true", "yes", "on"):
        return True
    if text.lower() in ("0", "false", "no", "off"):
        return False
    raise ValueError(f"{text!r} is neither true nor false: give one of them")


def parse_conflict_detection(text: str) -> str:
    if text.lower() == "strict":
        return "strict"
    try:
        return "on" if parse_flag(text) else "off"
    except ValueError:
        raise ValueError(
            f"{text!r} is no way to detect conflicts: give one of {', '.join(CONFLICT_DETECTION)}"
        ) from None


def parse_identity(text: str) -> str:
    if text not in IDENTITIES:
        raise ValueError(
            f"{text!r} is not what an identity can be made of: give one of {', '.join(IDENTITIES)}"
        )
    return text


def parse_vendor_class(text: str) -> str:
    if len(text.encode()) > 255 or not text.isprintable():
        raise ValueError(f"{text!r} is not a vendor class: give up to 255 printable bytes")
    return text


def _seconds(text: str, least: float, most: float) -> float:
    try:
        seconds = float(text)
    except ValueError:
        raise ValueError(f"{text!r} is not a number: give seconds from {least:g} to {most:g}") from None
    if not least <= seconds <= most:
        raise ValueError(f"{text} is out of range: give seconds from {least:g} to {most:g}")
    return seconds


def _conflict_wait(text: str) -> ConflictWait:
    return ConflictWait(None) if text.lower() == "rfc5227" else ConflictWait(_seconds(text, 0.05, 10))


def _reconcile_every(text: str) -> float:
    seconds = _seconds(text, 0, 86400)
    if 0 < seconds < 1:
        raise ValueError(
            f"{text} is out of range: give seconds from 1 to 86400, or 0 for once after the start"
        )
    return seconds


def _dhcp_timeout(text: str) -> float:
    return _seconds(text, 1, 300)


def _name(text: str) -> str:
    if not text.strip():
        raise ValueError(f"{text!r} is not a network's name: give one, like lan, or leave the option out")
    return text


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
        _mode,
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
        _plugin_name,
        "plugin_name",
        metavar="NAME",
    ),
    Option(
        "plugin-dir",
        "The directory in which Docker Engine looks for sockets of plugins. Made if it is missing.",
        _absolute_path,
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
        _group_name,
        "socket_group",
        metavar="GROUP",
    ),
    Option(
        "state-dir",
        "Where networks, endpoints, pools and addresses are kept. Made if it is missing.",
        _absolute_path,
        "state_dir",
        metavar="DIRECTORY",
    ),
    Option(
        "runtime-dir",
        "Where, until the host is booted again, it is noted how far the state has come: so it is noticed when that is "
        "gone, or older. Made if it is missing; nothing fails where it cannot be.",
        _absolute_path,
        "runtime_dir",
        metavar="DIRECTORY",
    ),
    Option(
        "netlink-threads",
        "How many threads talk to the kernel (1 to 64).",
        _threads,
        "netlink_threads",
        metavar="NUMBER",
    ),
    Option(
        "network",
        "Create this network in the engine with the service's own settings, if it does not exist, as soon as "
        "the engine answers.",
        _name,
        "network",
        metavar="NAME",
    ),
    Option(
        "docker-host",
        "The engine's socket, which is asked in the background only, for --network and about what is still in use; or "
        "none: then no engine is asked, and only what the kernel proves to be unused is removed.",
        _docker_host,
        "docker_host",
        metavar="URL",
        is_off_when_empty=True,
    ),
    Option(
        "reconcile-every",
        "After how many seconds (1 to 86400) kernel, state and engine are compared again, so that what containers and "
        "networks left behind is removed. 0: only once, some minutes after the start.",
        _reconcile_every,
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
        _conflict_wait,
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
        _dhcp_timeout,
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
        str,
        "recover",
        is_flag=True,
    ),
    Option("log-format", "How log lines look: text or json.", _log_format, "log_format", metavar="FORMAT"),
    Option("debug", "Log every call with its duration.", str, "debug", short="d", is_flag=True),
)


def settings_from(given: Mapping[str, Sequence[str]], environment: Mapping[str, str]) -> Settings:
    """
    The settings that option texts amount to; *given* wins over *environment*, which wins over defaults.

    :param given: texts by option name, in the order in which they came.
    :raises ValueError: names the option, the value and the remedy.
    """
    values: dict[str, Any] = {}
    for option in OPTIONS:
        texts = list(given.get(option.name, ()))
        source = f"--{option.name}"
        in_environment = environment.get(option.environment_variable)
        if not texts and (in_environment or (option.is_off_when_empty and in_environment is not None)):
            source = option.environment_variable
            text = environment[source]
            texts = text.replace(",", " ").split() if option.repeats else [text]
        if not texts:
            continue
        if option.is_flag:
            values[option.setting] = texts[-1].lower() not in ("0", "no", "off", "false")
            continue
        try:
            parsed = [option.parse(text) for text in texts]
        except ValueError as error:
            raise ValueError(f"{source}: {error}") from None
        values[option.setting] = tuple(parsed) if option.repeats else parsed[-1]
    settings = Settings(**values)
    _check_families(settings)
    if settings.network is not None and not settings.docker_host:
        raise ValueError(
            f"--network {settings.network} has an engine create that network, and --docker-host none says that no engine "
            "is to be asked: leave one of them out"
        )
    return settings


def _check_families(settings: Settings) -> None:
    for name, values in (
        ("--gateway", settings.gateways),
        ("--macvlan-subnet", settings.subnets),
        ("--ip-range", settings.ip_ranges),
    ):
        versions = [value.version for value in values]
        for version in (4, 6):
            if versions.count(version) > 1:
                raise ValueError(
                    f"{name} was given {versions.count(version)} times for IPv{version}: give it once a family"
                )
    for gateway in settings.gateways:
        if gateway.is_link_local:
            raise ValueError(
                f"--gateway {gateway} is link-local, and no engine takes such a gateway: leave it out; containers learn "
                "an IPv6 router from its advertisements"
            )
        subnet = settings.subnet_of_version(gateway.version)
        if subnet is not None and gateway not in subnet:
            raise ValueError(
                f"--gateway {gateway} is not in --macvlan-subnet {subnet}: give the router's address in it"
            )
    for ip_range in settings.ip_ranges:
        subnet = settings.subnet_of_version(ip_range.version)
        if subnet is not None and not ip_range.subnet_of(subnet):  # type: ignore[arg-type]
            raise ValueError(f"--ip-range {ip_range} is not in --macvlan-subnet {subnet}: give a part of it")


__all__ = [
    "DEFAULT_MODE",
    "ENVIRONMENT_PREFIX",
    "MODES",
    "OPTIONS",
    "SHADOWED_PLUGIN_NAME",
    "Option",
    "Settings",
    "parse_interface_name",
    "parse_mtu",
    "settings_from",
]
