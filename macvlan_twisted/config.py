"""
What the service is set to, as a value: embedding code makes one directly.

On the command line and in the environment it is given by :data:`macvlan_twisted.service_options.OPTIONS`; the defaults
are here.
"""

from __future__ import annotations

import os

from attrs import frozen

from .addresses import AddressRange, IPAddress, IPNetwork
from .option_values import DEFAULT_MODE, ConflictWait

SHADOWED_PLUGIN_NAME = "macvlan"
"""Docker Engine has a driver of that name."""
QUICK_WAIT = ConflictWait(0.5)
"""RFC 5227's timing takes 4 to 7 seconds, made for radio links of 2008; a wired LAN answers in less than 1 ms."""


@frozen
class Config:
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
