"""
The values of options: enumerations, and parsers that raise :exc:`ValueError` with the value and the remedy.

Options of the service, of networks and of pools share them.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from difflib import SequenceMatcher
from enum import StrEnum

from attrs import frozen


class MacvlanMode(StrEnum):
    """How the kernel switches frames between the links of one parent (``MACVLAN_MODE_*`` in if_link.h)."""

    BRIDGE = "bridge"
    PRIVATE = "private"
    VEPA = "vepa"
    PASSTHRU = "passthru"
    SOURCE = "source"


class FleetTakeover(StrEnum):
    """What to do about an address of a host of the fleet that is down."""

    NEVER = "never"
    SILENT = "silent"


class ConflictDetection(StrEnum):
    """Whether an address is probed before a container gets it; strict refuses it if the probe is inconclusive."""

    ON = "on"
    OFF = "off"
    STRICT = "strict"


class IdentitySource(StrEnum):
    """What a container's MAC is derived from."""

    NAME = "name"
    ADDRESS = "address"
    RANDOM = "random"


class LogFormat(StrEnum):
    TEXT = "text"
    JSON = "json"


MAX_FLEET_SHARES = 64


@frozen
class FleetShare:
    """Which of the equal parts of each range is this host's: the *number*-th, from 1, of *parts*."""

    number: int
    parts: int

    def __str__(self) -> str:
        return f"{self.number}/{self.parts}"


@frozen
class ProbeTimeout:
    """How long a probe waits for an answer: seconds, or ``None`` for the timing of RFC 5227."""

    seconds: float | None

    def __str__(self) -> str:
        return "rfc5227" if self.seconds is None else f"{self.seconds:g}"


_NEAR = 0.7
"""Of 1: how similar a word has to be."""


def nearest(text: str, known: Iterable[str]) -> str:
    """The word of *known* that may have been meant by *text*, or an empty string."""
    ratios = {each: SequenceMatcher(None, each, text.lower()).ratio() for each in known}
    near = max(ratios, key=lambda each: ratios[each], default="")  # the first of those that are equally near
    return near if ratios.get(near, 0) >= _NEAR else ""


def did_you_mean(text: str, known: Iterable[str]) -> str:
    """A question that names the nearest word of *known*, with a blank behind it; empty if none is near."""
    near = nearest(text, known)
    return f"did you mean {near}? " if near else ""


def parse_mode(text: str) -> MacvlanMode:
    try:
        return MacvlanMode(text)
    except ValueError:
        raise ValueError(
            f"{text!r} is not a macvlan mode: {did_you_mean(text, MacvlanMode)}use one of {', '.join(MacvlanMode)}"
        ) from None


def parse_whole_number(text: str, least: int, most: int, what: str) -> int:
    try:
        value = int(text if len(text) < 32 else "x")  # int() takes a long time over long numbers
    except ValueError:
        # Remedy: use a number from LEAST to MOST; the message names the unit.
        raise ValueError(f"{text!r} is not a whole number: use {what} from {least} to {most}") from None
    if not least <= value <= most:
        # Remedy: use a number from LEAST to MOST; the message names the unit.
        raise ValueError(f"{value} is out of range: use {what} from {least} to {most}")
    return value


def parse_mtu(text: str) -> int:
    """An MTU in bytes, from the least of IPv4 (68, RFC 791) to the most of Linux (65535)."""
    return parse_whole_number(text, 68, 65535, "an MTU in bytes")


def parse_threads(text: str) -> int:
    return parse_whole_number(text, 1, 64, "a number of threads")


def parse_interface_name(text: str) -> str:
    """A name that the kernel accepts for a link (``dev_valid_name`` in net/core/dev.c): 1 to 15 bytes."""
    if (
        not text
        or len(text.encode()) > 15
        or text in (".", "..")
        or any(sign in "/:" or sign.isspace() or not sign.isprintable() for sign in text)
    ):
        raise ValueError(
            f"{text!r} is not an interface name: use 1 to 15 characters without blanks, '/' or ':', like eth1"
        )
    return text


def parse_plugin_name(text: str) -> str:
    if (
        not text
        or text.startswith(".")
        or any(not (c.isascii() and (c.isalnum() or c in "-_.")) for c in text)
    ):
        raise ValueError(f"{text!r} is not a plugin name: use letters, digits, '-', '_' and '.'")
    return text


def parse_absolute_path(text: str) -> str:
    if not os.path.isabs(text):
        raise ValueError(f"{text!r} is not an absolute path: start it with '/'")
    return os.path.normpath(text)


def parse_group_name(text: str) -> str:
    if not text or any(sign in ":,/" or sign.isspace() or not sign.isprintable() for sign in text):
        raise ValueError(f"{text!r} is not a group name: use a name from /etc/group, like docker")
    return text


def parse_docker_host(text: str) -> str:
    if text.lower() in ("", "none"):
        return ""
    if not text.startswith("unix:///"):
        raise ValueError(
            f"{text!r} is not a local engine: set --docker-host to the engine's socket, like unix:///var/run/docker.sock, or "
            "to none"
        )
    return text


def parse_log_format(text: str) -> LogFormat:
    try:
        return LogFormat(text)
    except ValueError:
        # Remedy: use text or json.
        raise ValueError(
            f"{text!r} is not a log format: {did_you_mean(text, LogFormat)}use {' or '.join(LogFormat)}"
        ) from None


def parse_flag(text: str) -> bool:
    """The engine sends ``-o flag`` as an empty string; it means yes."""
    if text.lower() in ("", "1", "true", "yes", "on"):
        return True
    if text.lower() in ("0", "false", "no", "off"):
        return False
    raise ValueError(f"{text!r} is neither true nor false: use true or false")


def parse_conflict_detection(text: str) -> ConflictDetection:
    if text.lower() == ConflictDetection.STRICT:
        return ConflictDetection.STRICT
    try:
        return ConflictDetection.ON if parse_flag(text) else ConflictDetection.OFF
    except ValueError:
        raise ValueError(
            f"{text!r} is not a conflict detection mode: "
            f"{did_you_mean(text, ConflictDetection)}use one of {', '.join(ConflictDetection)}"
        ) from None


def parse_identity(text: str) -> IdentitySource:
    try:
        return IdentitySource(text)
    except ValueError:
        raise ValueError(
            f"{text!r} is not a source of identity: {did_you_mean(text, IdentitySource)}use one of "
            f"{', '.join(IdentitySource)}"
        ) from None


def parse_vendor_class(text: str) -> str:
    if len(text.encode()) > 255 or not text.isprintable():
        raise ValueError(f"{text!r} is not a vendor class: use up to 255 printable bytes")
    return text


def _seconds(text: str, least: float, most: float) -> float:
    try:
        seconds = float(text)
    except ValueError:
        raise ValueError(
            f"{text!r} is not a number: use a number of seconds from {least:g} to {most:g}"
        ) from None
    if not least <= seconds <= most:
        # Remedy: use a number from LEAST to MOST; the message names the unit.
        raise ValueError(f"{text} is out of range: use {least:g} to {most:g} seconds")
    return seconds


def parse_probe_timeout(text: str) -> ProbeTimeout:
    return ProbeTimeout(None) if text.lower() == "rfc5227" else ProbeTimeout(_seconds(text, 0.05, 10))


def parse_fleet_share(text: str) -> FleetShare:
    number, _, parts = text.partition("/")
    # int() takes more than digits, and a long time over long numbers
    if all(each.isascii() and each.isdigit() and len(each) <= 3 for each in (number, parts)):
        share = FleetShare(int(number), int(parts))
        if 1 <= share.number <= share.parts <= MAX_FLEET_SHARES:
            return share
    # Remedy: use K/N for the K-th of N hosts, like 1/2 on one host and 2/2 on the other; N is at most 64.
    raise ValueError(
        f"{text!r} is not a share: use K/N for the K-th of N hosts, like 1/2 on one host and 2/2 on the other; N is at most "
        f"{MAX_FLEET_SHARES}"
    )


def parse_reconcile_interval(text: str) -> float:
    seconds = _seconds(text, 0, 86400)
    if 0 < seconds < 1:
        # Remedy: use a number from LEAST to MOST; the message names the unit.
        raise ValueError(
            f"{text} is out of range: use 1 to 86400 seconds, or 0 to reconcile only once, after the start"
        )
    return seconds


def parse_dhcp_timeout(text: str) -> float:
    return _seconds(text, 1, 300)


def parse_return_grace(text: str) -> float:
    return _seconds(text, 0, 3600)


def parse_fleet_host(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,252}", text):
        raise ValueError(f"{text!r} is not a host name: use letters, digits, dots, hyphens and underscores")
    return text


def parse_fleet_takeover(text: str) -> FleetTakeover:
    try:
        return FleetTakeover(text.lower())
    except ValueError:
        raise ValueError(f"{text!r} is not a policy: use {' or '.join(FleetTakeover)}") from None


def parse_lan_name(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}", text):
        raise ValueError(
            f"{text!r} is not a LAN name: use up to 63 letters, digits, dots, hyphens and underscores"
        )
    return text


def parse_network_name(text: str) -> str:
    if not text.strip():
        raise ValueError(f"{text!r} is not a network name: use a name like lan, or leave the option out")
    return text
