"""This host as a member of a fleet, as the configuration says."""

from __future__ import annotations

import socket
from pathlib import Path
from random import Random
from secrets import token_hex
from typing import Any

from attrs import frozen

from ..config import Config
from ..errors import StartupError
from ..option_values import FleetTakeover
from .interfaces import FleetClaims, Host, HostRecord

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@frozen
class FleetMember:
    """
    :param record: of this start of the service.
    :param takes_over: whether to take the addresses of hosts that are silent for long.
    """

    record: HostRecord
    claims: FleetClaims
    takes_over: bool = False


def fleet_member(config: Config, instance: str, reactor: Any, random: Random) -> FleetMember | None:
    """
    ``None`` without ``--fleet``. Connects to nothing yet.

    :param instance: the random name of the state directory.
    :raises StartupError: the options contradict each other.
    """
    if config.fleet is None:
        return None
    if (config.fleet_cert is None) != (config.fleet_key is None) or (
        config.fleet_cert and not config.fleet_ca
    ):
        raise StartupError(
            "--fleet-cert needs --fleet-key and --fleet-ca: give all three, or --fleet-ca alone"
        )
    try:  # its libraries take 13 MB of memory, and most hosts are in no fleet
        from .etcd_claims import EtcdClaims
        from .etcd_credentials import TlsFiles
        from .etcd_gateway import EtcdGateway
    except ImportError as error:
        raise StartupError(
            f"--fleet needs a library that is not installed ({error}): run pip install 'macvlan-twisted[fleet]'"
        ) from error
    tls = None
    if config.fleet_ca is not None:
        tls = TlsFiles(Path(config.fleet_ca), _path(config.fleet_cert), _path(config.fleet_key))
    gateway = EtcdGateway.connect(
        reactor, config.fleet, random, tls=tls, login=_path(config.fleet_password_file)
    )
    host = Host(config.fleet_host or socket.gethostname(), instance)
    record = HostRecord(host, token_hex(8), _BOOT_ID.read_text().strip())
    takes_over = config.fleet_takeover is FleetTakeover.SILENT
    return FleetMember(record, EtcdClaims(gateway, config.fleet.prefix, reactor), takes_over)


def _path(text: str | None) -> Path | None:
    return None if text is None else Path(text)
