"""
The configuration of the service: each option once, with its default, flag, help and parser.

``twistd macvlan``, the environment variables and the generated reference read :data:`OPTIONS`. A program that embeds the
service makes a :class:`Config` itself.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import Any

from attrs import frozen

from .addresses import AddressRange, IPAddress, IPNetwork, parse_address, parse_network, parse_range
from .option_values import (
    ConflictDetection,
    IdentitySource,
    LogFormat,
    MacvlanMode,
    ProbeTimeout,
    parse_absolute_path,
    parse_conflict_detection,
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
    parse_probe_timeout,
    parse_reconcile_interval,
    parse_return_grace,
    parse_threads,
    parse_vendor_class,
)
from .options import ServiceOption, options_of, service_option

SHADOWED_PLUGIN_NAME = "macvlan"
"""Docker Engine has a driver of that name."""


@frozen
class Config:
    """The configuration, parsed. ``None`` and empty tuples are filled in from the host."""

    gateways: tuple[IPAddress, ...] = service_option(
        (),
        "gateway",
        parse_address,
        "The LAN's router. Once a family. Default: the one that the default route shows.",
        metavar="ADDRESS",
        repeats=True,
    )
    subnets: tuple[IPNetwork, ...] = service_option(
        (),
        "macvlan-subnet",
        parse_network,
        "The LAN's subnet. Once a family. Default: the one that the host interface is in.",
        metavar="SUBNET",
        aliases=("subnet",),
        repeats=True,
    )
    ip_ranges: tuple[IPNetwork, ...] = service_option(
        (),
        "ip-range",
        parse_network,
        "Hand out addresses from this part of the subnet only. Once a family. Default: the whole subnet.",
        metavar="SUBNET",
        repeats=True,
    )
    excluded: tuple[AddressRange, ...] = service_option(
        (),
        "exclude",
        parse_range,
        "Never hand out this address, subnet or FIRST-LAST range by itself, say the router's own DHCP "
        "range. May be given several times.",
        metavar="RANGE",
        repeats=True,
    )
    host_interface: str | None = service_option(
        None,
        "host-interface",
        parse_interface_name,
        "The NIC on the LAN, parent of networks that name none. Default: the one of the default route.",
        metavar="LINK",
    )
    mode: MacvlanMode = service_option(
        MacvlanMode.BRIDGE,
        "mode",
        parse_mode,
        f"The macvlan mode of networks that name none: {', '.join(MacvlanMode)}.",
        metavar="MODE",
    )
    mtu: int | None = service_option(
        None,
        "mtu",
        parse_mtu,
        "The MTU in bytes of networks that name none. Default: the parent's.",
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
        "The directory in which Docker Engine looks for sockets of plugins. Made if it is missing.",
        metavar="DIRECTORY",
    )
    listen: str | None = service_option(
        None,
        "listen",
        str,
        "Listen here instead: any server endpoint string of Twisted, systemd:domain=UNIX:index=0 among "
        "them. Overrides --plugin-dir and --plugin-name. unix:PATH has mode 0600 unless it names another, "
        "as in unix:PATH:mode=660.",
        metavar="ENDPOINT",
    )
    socket_group: str | None = service_option(
        None,
        "socket-group",
        parse_group_name,
        "The group whose members may use the socket, too: it has mode 0660 then. Default: only the "
        "service's own user and root.",
        metavar="GROUP",
    )
    state_dir: str = service_option(
        "/var/lib/macvlan-twisted",
        "state-dir",
        parse_absolute_path,
        "Where networks, endpoints, pools and addresses are kept. Made if it is missing.",
        metavar="DIRECTORY",
    )
    runtime_dir: str = service_option(
        "/run/macvlan-twisted",
        "runtime-dir",
        parse_absolute_path,
        "Where, until the host is booted again, it is noted how far the state has come: so it is noticed "
        "when that is gone, or older. Made if it is missing; nothing fails where it cannot be.",
        metavar="DIRECTORY",
    )
    netlink_threads: int = service_option(
        4,
        "netlink-threads",
        parse_threads,
        "How many threads talk to the kernel (1 to 64).",
        metavar="NUMBER",
    )
    create_network: str | None = service_option(
        None,
        "create-network",
        parse_network_name,
        "Create this network in the engine with the service's own settings, if it does not exist, as soon "
        "as the engine answers.",
        metavar="NAME",
        aliases=("network",),
    )
    docker_host: str = service_option(
        "unix:///var/run/docker.sock",
        "docker-host",
        parse_docker_host,
        "The engine's socket, which is asked in the background only, for --create-network and about what is "
        "still in use; or none: then no engine is asked, and only what the kernel proves to be unused is "
        "removed.",
        metavar="URL",
        counts_when_empty=True,
    )
    """Empty: no engine is asked."""
    reconcile_interval: float = service_option(
        60.0,
        "reconcile-interval",
        parse_reconcile_interval,
        "After how many seconds (1 to 86400) kernel, state and engine are compared again, so that what "
        "containers and networks left behind is removed. 0: only once, some minutes after the start.",
        metavar="SECONDS",
        aliases=("reconcile-every",),
    )
    conflict_detection: ConflictDetection = service_option(
        ConflictDetection.ON,
        "conflict-detection",
        parse_conflict_detection,
        "Whether an address is known to be free on the LAN before a container gets it: on, off, or strict, "
        "which refuses the address where it cannot be found out. For pools and networks that do not say.",
        metavar="POLICY",
    )
    probe_timeout: ProbeTimeout = service_option(
        # RFC 5227 takes 4 to 7 seconds, for radio links of 2008. On a wired LAN an answer takes less than 1 ms.
        ProbeTimeout(0.5),
        "probe-timeout",
        parse_probe_timeout,
        "How many seconds (0.05 to 10) are spent on finding out whether an address is in use where nothing "
        "is known yet, or rfc5227 for that document's own timing of 4 to 7 seconds.",
        metavar="SECONDS",
        aliases=("conflict-wait",),
    )
    announce: bool = service_option(
        True,
        "announce",
        parse_flag,
        "Whether a container's addresses are announced on the LAN when it joins, so that neighbours forget "
        "the MAC that had them before. For networks that do not say.",
        metavar="BOOL",
    )
    host_access: bool = service_option(
        False,
        "host-access",
        parse_flag,
        "Whether the host and its containers reach each other. For networks that do not say, in mode bridge.",
        metavar="BOOL",
    )
    dhcp: bool = service_option(
        False,
        "dhcp",
        parse_flag,
        "Whether addresses are leased from the LAN's own DHCP server. For pools that do not say, and "
        "networks without address management.",
        metavar="BOOL",
    )
    dhcp_release: bool = service_option(
        True,
        "dhcp-release",
        parse_flag,
        "Whether a lease is given back when its container has gone. For pools and networks that do not say.",
        metavar="BOOL",
    )
    dhcp_readdress: bool = service_option(
        False,
        "dhcp-readdress",
        parse_flag,
        "Whether a running container gets another address when its DHCP server insists on one. For networks "
        "that do not say.",
        metavar="BOOL",
    )
    dhcp_vendor_class: str = service_option(
        "",
        "dhcp-vendor-class",
        parse_vendor_class,
        "What DHCP servers are told of the kind of client (option 60). For pools and networks that do not "
        "say.",
        metavar="TEXT",
    )
    dhcp_timeout: float = service_option(
        10.0,
        "dhcp-timeout",
        parse_dhcp_timeout,
        "For how many seconds (1 to 300) a DHCP server's answer is waited for when a container starts.",
        metavar="SECONDS",
    )
    identity: IdentitySource = service_option(
        IdentitySource.ADDRESS,
        "identity",
        parse_identity,
        "What a container's MAC is made of: its name (only Docker Engine 29 tells it), its address, or "
        "nothing (random). For pools and networks that do not say.",
        metavar="SOURCE",
    )
    return_grace: float = service_option(
        5.0,
        "return-grace",
        parse_return_grace,
        "For how many seconds (0 to 3600) an address that a container has just left goes to the next container, if it was "
        "the only one of its network: so docker restart keeps address and MAC on engines before 29, which do not tell "
        "containers' names. 0: it rests like any other.",
        metavar="SECONDS",
    )
    recover: bool = service_option(
        False,
        "recover",
        parse_flag,
        "Rebuild state that was lost or damaged from what the engine and the kernel know; to be given once, "
        "with the engine running.",
        is_flag=True,
    )
    log_format: LogFormat = service_option(
        LogFormat.TEXT,
        "log-format",
        parse_log_format,
        "How log lines look: text or json (one flat object a line).",
        metavar="FORMAT",
    )
    debug: bool = service_option(
        False, "debug", parse_flag, "Log every call with its duration.", short="d", is_flag=True
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
                f"--create-network {config.create_network} has an engine create that network, and --docker-host none "
                "says that no engine is to be asked: leave one of them out"
            )
        return config

    def _check_addresses(self) -> None:
        """
        :raises ValueError: gateways, subnets and ranges do not go together.
        """
        for name, values in (
            ("--gateway", self.gateways),
            ("--macvlan-subnet", self.subnets),
            ("--ip-range", self.ip_ranges),
        ):
            versions = [value.version for value in values]
            for version in (4, 6):
                if versions.count(version) > 1:
                    raise ValueError(
                        f"{name} was given {versions.count(version)} times for IPv{version}: give it once a family"
                    )
        for gateway in self.gateways:
            if gateway.is_link_local:
                raise ValueError(
                    f"--gateway {gateway} is link-local, and no engine takes such a gateway: leave it out; containers "
                    "learn an IPv6 router from its advertisements"
                )
            subnet = self.subnet_of_version(gateway.version)
            if subnet is not None and gateway not in subnet:
                raise ValueError(
                    f"--gateway {gateway} is not in --macvlan-subnet {subnet}: give the router's address in it"
                )
        for ip_range in self.ip_ranges:
            subnet = self.subnet_of_version(ip_range.version)
            if subnet is not None and not ip_range.subnet_of(subnet):  # type: ignore[arg-type]
                raise ValueError(
                    f"--ip-range {ip_range} is not in --macvlan-subnet {subnet}: give a part of it"
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
