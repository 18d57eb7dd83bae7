"""Interface, subnets and gateways from the default route, where the configuration names none."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from attrs import evolve, field, frozen

from .addresses import AddressRange, IPAddress, IPInterface, IPNetwork
from .config import Config
from .errors import RequestRefused
from .netlink.kernel import DefaultRoute, Kernel, LinkFacts
from .option_values import did_you_mean

_ONE_MAC_DRIVERS = {
    "virtio_net": "a virtual machine",
    "vmxnet3": "VMware",
    "hv_netvsc": "Hyper-V",
    "xen_netfront": "Xen",
    "vif": "Xen",
    "ena": "Amazon's cloud",
    "gve": "Google's cloud",
    "mana": "Microsoft's cloud",
}


_NO_PARENTS = ("lo", "docker", "br-", "veth", "mvt", "mvx", "mvd", "mvh", "mvv")
"""How names begin of links that are Docker's, or ours."""


@frozen
class Detected:
    """A configuration that is as complete as the host allows, and lines for the log."""

    config: Config
    reasons: tuple[str, ...] = field(default=())
    hints: tuple[str, ...] = field(default=())


def detect_defaults(config: Config, kernel: Kernel) -> Detected:
    """
    Complete *config* from the kernel's routes, links and addresses. Blocks.

    :raises RequestRefused: the configuration contradicts the host.
    """
    return detect(config, kernel.default_routes(), kernel.find, kernel.addresses_of, kernel.names)


def detect(
    config: Config,
    default_routes: Sequence[DefaultRoute],
    find: Callable[[str], LinkFacts | None],
    addresses_of: Callable[[str], Sequence[IPInterface]],
    names: Callable[[], Sequence[str]] = tuple,
) -> Detected:
    """
    Complete *config*, as a pure function.

    :param find: returns the link of a name.
    :param addresses_of: returns the addresses of a link.
    :param names: returns the names of all links.
    :raises RequestRefused: the configuration contradicts the host.
    """
    reasons: list[str] = []
    hints: list[str] = []
    interface = config.host_interface
    if interface is not None:
        reasons.append(f"host interface {interface}: as configured")
    elif default_routes:
        interface = default_routes[0].link
        reasons.append(f"host interface {interface}: from the default route")
    else:
        # Cause: --host-interface is not set, and the host has no default route to take it from. Remedy: set
        # --host-interface, or -o parent= for each network.
        hints.append(
            "host interface: unknown, because there is no default route; networks without -o parent= will be internal; set "
            "--host-interface, or -o parent= for each network"
        )
    link = find(interface) if interface is not None else None
    if interface is not None and link is None:
        # Cause: the name is misspelt, or the NIC does not exist yet. Remedy: correct --host-interface, or restart the
        # plugin once the NIC exists.
        hints.append(
            f"host interface {interface}: does not exist; {_interfaces(interface, names())}correct --host-interface, or "
            f"restart the plugin once {interface} exists, so that it detects the subnet and the gateway"
        )
    subnets, gateways, excluded = list(config.subnets), list(config.gateways), list(config.excluded)
    if link is not None and interface is not None:
        own = [each for each in addresses_of(interface) if not each.ip.is_link_local]
        routers = [
            each.gateway for each in default_routes if each.link == interface and each.gateway is not None
        ]
        for version in (4, 6):
            _fill_family(version, config, interface, own, routers, subnets, gateways, reasons)
        own_addresses = [each.ip for each in own]
        excluded += [AddressRange(address, address) for address in own_addresses]
        reasons += [f"address {address}: never allocated, it is the host's own" for address in own_addresses]
    for ip_range in config.ip_ranges:
        fitting = [each for each in subnets if each.version == ip_range.version]
        if not fitting:
            reasons.append(f"--ip-range {ip_range}: no effect, no IPv{ip_range.version} subnet is known")
        elif not ip_range.subnet_of(fitting[0]):  # type: ignore[arg-type]
            raise RequestRefused(
                f"--ip-range {ip_range} is not in subnet {fitting[0]}: use a part of that subnet, or set the "
                "subnet with --macvlan-subnet"
            )
    return Detected(
        evolve(
            config,
            host_interface=interface,
            subnets=tuple(subnets),
            gateways=tuple(gateways),
            excluded=tuple(excluded),
        ),
        tuple(reasons),
        (*hints, *(_hints(link) if link is not None else ())),
    )


def _fill_family(
    version: int,
    config: Config,
    interface: str,
    own: Sequence[IPInterface],
    routers: Sequence[IPAddress],
    subnets: list[IPNetwork],
    gateways: list[IPAddress],
    reasons: list[str],
) -> None:
    subnet, gateway = config.subnet_of_version(version), config.gateway_of_version(version)
    if subnet is not None:
        reasons.append(f"subnet {subnet}: as configured")
    else:
        fitting = [
            each.network
            for each in own
            if each.version == version
            and each.network.num_addresses > 1
            and (gateway is None or gateway in each.network)
        ]
        if fitting:
            subnet = fitting[0]
            subnets.append(subnet)
            reasons.append(f"subnet {subnet}: from the address of {interface}")
        elif gateway is not None:
            reasons.append(
                f"gateway {gateway}: in no subnet of {interface}, so no IPv{version} subnet is known; set --macvlan-subnet"
            )
    if gateway is not None:
        reasons.append(f"gateway {gateway}: as configured")
    elif subnet is not None:
        router = next((each for each in routers if each in subnet), None)
        if router is not None:
            gateways.append(router)
            reasons.append(f"gateway {router}: from the default route of {interface}")


def _interfaces(wrong: str, names: Sequence[str]) -> str:
    """The interfaces that may have been meant, as the beginning of a remedy."""
    able = sorted(name for name in names if not name.startswith(_NO_PARENTS))
    return did_you_mean(wrong, able) or (f"this host has {', '.join(able[:8])}: " if able else "")


def _hints(link: LinkFacts) -> list[str]:
    hints, interface = [], link.name
    if link.is_wireless:
        # Cause: the host interface is a Wi-Fi NIC. Remedy: use a wired NIC.
        hints.append(
            f"host interface {interface}: a Wi-Fi NIC, and access points drop frames from MAC addresses that did not "
            "associate with them, so containers cannot reach the LAN; use a wired NIC"
        )
    if link.bridge is not None:
        # Cause: the host interface belongs to a bridge. Remedy: set --host-interface to the bridge.
        hints.append(
            f"host interface {interface}: a port of bridge {link.bridge}, which takes its frames; use "
            f"--host-interface={link.bridge}"
        )
    if link.driver in _ONE_MAC_DRIVERS:
        # Cause: the host is a virtual machine, and its host interface is a virtual NIC. Remedy: allow MAC
        # spoofing or promiscuous mode on its port of the virtual switch if containers cannot reach the LAN.
        hints.append(
            f"host interface {interface}: a virtual NIC of {_ONE_MAC_DRIVERS[link.driver]}, and many virtual switches pass "
            "the frames of one MAC address only; allow MAC spoofing or promiscuous mode on its port if containers cannot "
            "reach the LAN"
        )
    return hints
