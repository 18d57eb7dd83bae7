"""
The configuration of the service: each option once, with its default, flag, help and parser.

``twistd macvlan``, the environment variables and the generated reference read :data:`OPTIONS`. A program that embeds the
service makes a :class:`Config` itself.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from attrs import frozen

from .addresses import AddressRange, IPAddress, IPNetwork, parse_address, parse_network, parse_range
from .fleet.location import EtcdLocation, parse_etcd_location
from .option_values import (
    ConflictDetection,
    FleetShare,
    FleetTakeover,
    IdentitySource,
    LogFormat,
    MacvlanMode,
    ProbeTimeout,
    nearest,
    parse_absolute_path,
    parse_conflict_detection,
    parse_dhcp_timeout,
    parse_docker_host,
    parse_flag,
    parse_fleet_host,
    parse_fleet_share,
    parse_fleet_takeover,
    parse_group_name,
    parse_identity,
    parse_interface_name,
    parse_log_format,
    parse_mode,
    parse_mtu,
    parse_network_name,
    parse_plugin_name,
    parse_probe_timeout,
    parse_reconcile_interval,
    parse_return_grace,
    parse_threads,
    parse_vendor_class,
)
from .options import ENVIRONMENT_PREFIX, ServiceOption, options_of, service_option, variable_of

SHADOWED_PLUGIN_NAME = "macvlan"
"""Docker Engine has a driver of that name."""


@frozen
class Config:
    """The configuration, parsed. ``None`` and empty tuples are filled in from the host."""

    gateways: tuple[IPAddress, ...] = service_option(
        (),
        "gateway",
        parse_address,
        "The LAN's router; once per address family. Default: the router of the default route through the host interface.",
        metavar="ADDRESS",
        repeats=True,
    )
    subnets: tuple[IPNetwork, ...] = service_option(
        (),
        "macvlan-subnet",
        parse_network,
        "The LAN's subnet, such as 192.168.1.0/24, for networks that are created without one; once per "
        "address family. Default: the subnet of the host interface.",
        metavar="SUBNET",
        aliases=("subnet",),
        repeats=True,
    )
    ip_ranges: tuple[IPNetwork, ...] = service_option(
        (),
        "ip-range",
        parse_network,
        "Allocate addresses only from this part of the subnet, in networks that are created without "
        "--ip-range; once per address family. Default: the whole subnet.",
        metavar="SUBNET",
        repeats=True,
    )
    excluded: tuple[AddressRange, ...] = service_option(
        (),
        "exclude",
        parse_range,
        "Never allocate this address, subnet or FIRST-LAST range automatically: for example, the range "
        "of the router's DHCP server. May be repeated.",
        metavar="RANGE",
        repeats=True,
    )
    fleet_share: FleetShare | None = service_option(
        None,
        "fleet-share",
        parse_fleet_share,
        "Choose addresses only from the K-th of N equal parts of each network's --ip-range or subnet. Give each of N Docker "
        "hosts on the LAN another K, so that they never choose the same address. Does not apply to addresses from a DHCP server.",
        metavar="K/N",
    )
    host_interface: str | None = service_option(
        None,
        "host-interface",
        parse_interface_name,
        "The network interface on the LAN: the parent of networks that are created without -o parent=. "
        "Default: the interface of the default route.",
        metavar="LINK",
    )
    mode: MacvlanMode = service_option(
        MacvlanMode.BRIDGE,
        "mode",
        parse_mode,
        f"The macvlan mode ({', '.join(MacvlanMode)}) of networks that are created without -o macvlan_mode=.",
        metavar="MODE",
    )
    mtu: int | None = service_option(
        None,
        "mtu",
        parse_mtu,
        "The MTU, in bytes, of networks that are created without -o mtu=. Default: the MTU of the parent.",
        metavar="BYTES",
    )
    plugin_name: str = service_option(
        "macvlan-twisted",
        "plugin-name",
        parse_plugin_name,
        "The name of the driver, as in docker network create -d NAME.",
        metavar="NAME",
    )
    plugin_dir: str = service_option(
        "/run/docker/plugins",
        "plugin-dir",
        parse_absolute_path,
        "The directory where Docker Engine looks for plugin sockets. It is created if it is missing.",
        metavar="DIRECTORY",
    )
    listen: str | None = service_option(
        None,
        "listen",
        str,
        "Listen on this Twisted server endpoint, for example systemd:domain=UNIX:index=0, instead of a "
        "socket named after --plugin-name in --plugin-dir. A UNIX socket gets mode 0600 unless the endpoint "
        "says otherwise, as in unix:PATH:mode=660.",
        metavar="ENDPOINT",
    )
    socket_group: str | None = service_option(
        None,
        "socket-group",
        parse_group_name,
        "Let the members of this group use the socket, too; its mode is then 0660. Default: only root "
        "and the user that runs the plugin can use it.",
        metavar="GROUP",
    )
    state_dir: str = service_option(
        "/var/lib/macvlan-twisted",
        "state-dir",
        parse_absolute_path,
        "The directory for the state: networks, endpoints, pools and addresses. It is created if it is "
        "missing.",
        metavar="DIRECTORY",
    )
    runtime_dir: str = service_option(
        "/run/macvlan-twisted",
        "runtime-dir",
        parse_absolute_path,
        "A directory that does not survive a reboot. The plugin records the version of the latest state there, to "
        "detect a state that is lost or outdated. It is created if it is missing; if that "
        "fails, the plugin runs without it.",
        metavar="DIRECTORY",
    )
    netlink_threads: int = service_option(
        4,
        "netlink-threads",
        parse_threads,
        "The number of threads (1 to 64) that send requests to the kernel.",
        metavar="NUMBER",
    )
    create_network: str | None = service_option(
        None,
        "create-network",
        parse_network_name,
        "Create this network in Docker as soon as the engine answers, unless it exists. Its parent, "
        "subnets and gateways come from the options under LAN.",
        metavar="NAME",
        aliases=("network",),
    )
    docker_host: str = service_option(
        "unix:///var/run/docker.sock",
        "docker-host",
        parse_docker_host,
        "The socket of Docker Engine's API. The plugin uses it for --create-network and --recover, to "
        "learn container names, and to find out what is still in use. With the value none, the plugin "
        "does not use the API, and removes only what the kernel shows to be unused.",
        metavar="URL",
        counts_when_empty=True,
    )
    """Empty: no engine is asked."""
    reconcile_interval: float = service_option(
        60.0,
        "reconcile-interval",
        parse_reconcile_interval,
        "Compare kernel, state and engine every SECONDS (1 to 86400), and remove what containers and "
        "networks left behind. With 0, compare once, a few minutes after the start.",
        metavar="SECONDS",
        aliases=("reconcile-every",),
    )
    conflict_detection: ConflictDetection = service_option(
        ConflictDetection.ON,
        "conflict-detection",
        parse_conflict_detection,
        "Check that an address is free on the LAN before a container gets it: on, off, or strict, which "
        "refuses the address if the check is inconclusive. Applies to networks that are created with neither -o conflict_detection= nor --ipam-opt conflict_detection=.",
        metavar="POLICY",
    )
    probe_timeout: ProbeTimeout = service_option(
        # RFC 5227 takes 4 to 7 seconds, for radio links of 2008. On a wired LAN an answer takes less than 1 ms.
        ProbeTimeout(0.5),
        "probe-timeout",
        parse_probe_timeout,
        "Wait SECONDS (0.05 to 10) for an answer when an address is probed. The value rfc5227 selects the "
        "timing of that RFC (4 to 7 seconds).",
        metavar="SECONDS",
        aliases=("conflict-wait",),
    )
    announce: bool = service_option(
        True,
        "announce",
        parse_flag,
        "Announce a container's addresses on the LAN when it starts, so that neighbours update the MAC "
        "address that they have cached. Applies to networks that are created without -o announce=.",
        metavar="BOOL",
    )
    host_access: bool = service_option(
        False,
        "host-access",
        parse_flag,
        "In bridge mode, let the host and its containers reach each other. Applies to networks that are created without -o host_access=.",
        metavar="BOOL",
    )
    dhcp: bool = service_option(
        False,
        "dhcp",
        parse_flag,
        "Lease addresses from the LAN's DHCP server. Applies to networks that are created without --ipam-opt dhcp= "
        "or, with --ipam-driver null, without -o dhcp=.",
        metavar="BOOL",
    )
    dhcp_release: bool = service_option(
        True,
        "dhcp-release",
        parse_flag,
        "Release a lease after its container stops. Applies to networks that are created with neither -o dhcp_release= nor --ipam-opt dhcp_release=.",
        metavar="BOOL",
    )
    dhcp_readdress: bool = service_option(
        False,
        "dhcp-readdress",
        parse_flag,
        "Give a running container another address when the DHCP server insists on one. Applies to "
        "networks that are created without -o dhcp_readdress=.",
        metavar="BOOL",
    )
    dhcp_vendor_class: str = service_option(
        "",
        "dhcp-vendor-class",
        parse_vendor_class,
        "The vendor class that DHCP servers see (option 60). Applies to networks that are created with neither -o dhcp_vendor_class= nor --ipam-opt dhcp_vendor_class=.",
        metavar="TEXT",
    )
    dhcp_timeout: float = service_option(
        10.0,
        "dhcp-timeout",
        parse_dhcp_timeout,
        "Wait SECONDS (1 to 300) for the answer of a DHCP server when a container starts.",
        metavar="SECONDS",
    )
    identity: IdentitySource = service_option(
        IdentitySource.ADDRESS,
        "identity",
        parse_identity,
        "How a container gets its MAC address: address (derived from its IP address), name (derived from "
        "its name; needs Docker Engine 29 or later) or random. Applies to networks that are created with neither -o identity= nor --ipam-opt identity=.",
        metavar="SOURCE",
    )
    return_grace: float = service_option(
        5.0,
        "return-grace",
        parse_return_grace,
        "With engines before 29, which do not send container names: for SECONDS (0 to 3600) after a container "
        "stops, give its address to the next container that starts on the network, unless another address is "
        "released meanwhile. This way docker restart keeps the IP and the MAC address. 0 switches this off.",
        metavar="SECONDS",
    )
    fleet: EtcdLocation | None = service_option(
        None,
        "fleet",
        parse_etcd_location,
        "Share the LAN's addresses with other Docker hosts: the etcd cluster in which all of them claim addresses, such as "
        "etcd://a:2379,b:2379,c:2379. A /PREFIX at the end keeps several fleets apart in one cluster. Applies to networks "
        "with --ipam-driver macvlan-twisted, without DHCP.",
        metavar="URL",
    )
    fleet_host: str = service_option(
        "",
        "fleet-host",
        parse_fleet_host,
        "The name of this host in the fleet, which no other host has. Default: the host's name.",
        metavar="NAME",
    )
    fleet_ca: str | None = service_option(
        None,
        "fleet-ca",
        parse_absolute_path,
        "Use TLS for etcd, and trust the certificates of this authority (a file in PEM).",
        metavar="FILE",
    )
    fleet_cert: str | None = service_option(
        None,
        "fleet-cert",
        parse_absolute_path,
        "The certificate that this host shows to etcd (a file in PEM). It needs --fleet-ca and --fleet-key. A new file is "
        "used without a restart.",
        metavar="FILE",
    )
    fleet_key: str | None = service_option(
        None,
        "fleet-key",
        parse_absolute_path,
        "The private key of --fleet-cert (a file in PEM).",
        metavar="FILE",
    )
    fleet_password_file: str | None = service_option(
        None,
        "fleet-password-file",
        parse_absolute_path,
        "Log in to etcd with the user and password on the first line of this file, as USER:PASSWORD.",
        metavar="FILE",
    )
    fleet_takeover: FleetTakeover = service_option(
        FleetTakeover.NEVER,
        "fleet-takeover",
        parse_fleet_takeover,
        "What to do when a container asks for an address of a host that is down: never (refuse; an administrator decides) or "
        "silent (take the address if its host has been silent for ten minutes and nobody on the LAN answers for it; this needs "
        "conflict detection). After a "
        "network partition, silent can lead to duplicate addresses.",
        metavar="POLICY",
    )
    recover: bool = service_option(
        False,
        "recover",
        parse_flag,
        "Rebuild lost or damaged state from what the engine and the kernel know. Use it for one "
        "start only; the engine must be running.",
        is_flag=True,
    )
    log_format: LogFormat = service_option(
        LogFormat.TEXT,
        "log-format",
        parse_log_format,
        "The format of log lines: text, or json (one flat object per line).",
        metavar="FORMAT",
    )
    debug: bool = service_option(
        False,
        "debug",
        parse_flag,
        "Log every call from the engine, with its duration.",
        short="d",
        is_flag=True,
    )

    @classmethod
    def from_texts(cls, texts: Iterable[tuple[str, str]], environment: Mapping[str, str]) -> Config:
        """
        Parse and check the texts of options.

        The command line wins over the environment, and the environment over the defaults.

        :param texts: pairs of an option's spelling, without dashes, and its value, in the order of the command line. The
            last value counts, unless the option may be repeated.
        :raises ValueError: names the option or the variable, the value and the remedy.
        """
        texts = list(texts)
        values: dict[str, Any] = {}
        for option in OPTIONS:
            found = [(f"--{name}", text) for name, text in texts if name in option.spellings]
            parsed = []
            for source, text in found or option.texts_in(environment):
                try:
                    parsed.append(option.parse(text))
                except ValueError as error:
                    raise ValueError(f"{source}: {error}") from None
            if parsed:
                values[option.attribute] = tuple(parsed) if option.repeats else parsed[-1]
        config = cls(**values)
        config._check_addresses()
        if config.create_network is not None and not config.docker_host:
            raise ValueError(
                f"--create-network {config.create_network} needs Docker's API, but --docker-host is none: set --docker-host "
                "(with the systemd unit: install the drop-in engine-api.conf), or leave --create-network out"
            )
        return config

    def _check_addresses(self) -> None:
        """
        :raises ValueError: gateways, subnets and ranges do not go together.
        """
        for option, values in (
            ("--gateway", self.gateways),
            ("--macvlan-subnet", self.subnets),
            ("--ip-range", self.ip_ranges),
        ):
            versions = [value.version for value in values]
            for version in (4, 6):
                if versions.count(version) > 1:
                    raise ValueError(
                        f"{option} is set {versions.count(version)} times for IPv{version}: set it once for each "
                        "family"
                    )
        for gateway in self.gateways:
            if gateway.is_link_local:
                raise ValueError(
                    f"--gateway {gateway} is link-local, which no engine accepts: leave it out; containers "
                    "learn an IPv6 router from router advertisements"
                )
            subnet = self.subnet_of_version(gateway.version)
            if subnet is not None and gateway not in subnet:
                raise ValueError(
                    f"--gateway {gateway} is not in --macvlan-subnet {subnet}: use the router's address in that subnet"
                )
        for ip_range in self.ip_ranges:
            subnet = self.subnet_of_version(ip_range.version)
            if subnet is not None and not ip_range.subnet_of(subnet):  # type: ignore[arg-type]
                raise ValueError(
                    f"--ip-range {ip_range} is not in --macvlan-subnet {subnet}: use a part of that subnet"
                )

    @property
    def socket_path(self) -> str:
        """Where the engine looks for a plugin of this name."""
        return os.path.join(self.plugin_dir, f"{self.plugin_name}.sock")

    def gateway_for(self, subnet: IPNetwork) -> IPAddress | None:
        """The configured gateway that lies in *subnet*."""
        return next((each for each in self.gateways if each in subnet), None)

    def subnet_of_version(self, version: int) -> IPNetwork | None:
        return next((each for each in self.subnets if each.version == version), None)

    def gateway_of_version(self, version: int) -> IPAddress | None:
        return next((each for each in self.gateways if each.version == version), None)

    def ip_range_in(self, subnet: IPNetwork) -> IPNetwork | None:
        """The configured range that lies in *subnet*."""
        return next(
            (each for each in self.ip_ranges if each.version == subnet.version and each.subnet_of(subnet)),  # type: ignore[arg-type]
            None,
        )


OPTIONS: tuple[ServiceOption, ...] = options_of(Config)

GROUPS: dict[str, tuple[str, ...]] = {
    "LAN": (
        "host-interface",
        "macvlan-subnet",
        "gateway",
        "ip-range",
        "exclude",
        "fleet-share",
        "mode",
        "mtu",
        "host-access",
    ),
    "Docker": ("plugin-name", "plugin-dir", "socket-group", "listen", "docker-host", "create-network"),
    "Addresses": ("conflict-detection", "probe-timeout", "announce", "identity", "return-grace"),
    "DHCP": (
        "dhcp",
        "dhcp-release",
        "dhcp-readdress",
        "dhcp-vendor-class",
        "dhcp-timeout",
    ),
    "State": ("state-dir", "runtime-dir", "reconcile-interval", "recover"),
    "Fleet": (
        "fleet",
        "fleet-host",
        "fleet-ca",
        "fleet-cert",
        "fleet-key",
        "fleet-password-file",
        "fleet-takeover",
    ),
    "Program": ("log-format", "debug", "netlink-threads"),
}
"""The options by purpose, in the order of the help and the reference."""


def grouped_options() -> Iterator[tuple[str, list[ServiceOption]]]:
    """Each group of :data:`GROUPS` with its options."""
    by_name = {option.name: option for option in OPTIONS}
    for title, names in GROUPS.items():
        yield title, [by_name[name] for name in names]


def misspelt_variables(environment: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Each variable that is no option's but nearly, with the one that may have been meant."""
    known = {variable_of(spelling): spelling for option in OPTIONS for spelling in option.spellings}
    for variable in environment:
        if variable.startswith(ENVIRONMENT_PREFIX) and variable not in known:
            near = nearest(variable.removeprefix(ENVIRONMENT_PREFIX).replace("_", "-"), known.values())
            if near:
                yield variable, variable_of(near)
