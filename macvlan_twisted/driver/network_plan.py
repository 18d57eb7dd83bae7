"""What a network is going to be: decided before anything is touched."""

from __future__ import annotations

from collections.abc import Sequence

from twisted.logger import Logger

from ..config import Config
from ..errors import RequestRefused
from ..netlink.kernel import LinkFacts
from ..option_values import MacvlanMode
from . import requests
from .models import Network
from .options import NetworkOptions
from .parent_plan import ParentPlan, plan_parent, refuse_unfit
from .validation import leases_addresses, refuse_contradictions

_log = Logger(namespace="macvlan_twisted.driver")


def plan_network(
    request: requests.CreateNetwork,
    options: NetworkOptions,
    config: Config,
    links: Sequence[LinkFacts],
    dhcp_readdress: bool,
) -> Network:
    """
    The network that the request means, validated against the host as it is now.

    :param links: those of the host.
    :raises Refused: the options contradict each other or the host.
    """
    mode = options.mode or config.mode
    if config.host_access and options.host_access is None and mode != MacvlanMode.BRIDGE:
        _log.warn(
            "network {network} has no access from the host, in spite of --host-access: in mode {mode} the kernel "
            "does not allow it",
            network=request.network_id[:12],
            mode=mode,
        )
    refuse_contradictions(options, mode)
    if options.host_addresses and not _host_access(options, config):
        raise RequestRefused("-o host_address has a meaning with host access only: add -o host_access=true")
    plan = plan_parent(request.network_id, options, request.internal, config.host_interface, links)
    if plan.on_dummy and not request.internal:
        _log.warn(
            "network {network} has no parent and is internal, on a dummy link: name the NIC on the LAN with "
            "-o parent=, or start the plugin with --host-interface",
            network=request.network_id[:12],
        )
    mtu = options.mtu or config.mtu
    for link in links:
        if link.name == plan.parent or any(link.name == step.lower for step in plan.vlan_steps):
            refuse_unfit(link, options.allow_wireless_parent, mtu)
        if link.name == plan.parent and not link.up and not plan.vlan_steps:
            _log.warn(
                "parent {parent} is down: its containers reach nobody before: ip link set {parent} up",
                parent=link.name,
            )
    return network_on(plan, request, options, config, dhcp_readdress)


def _host_access(options: NetworkOptions, config: Config) -> bool:
    if options.host_access is not None:
        return options.host_access
    return config.host_access and (options.mode or config.mode) == MacvlanMode.BRIDGE


def network_on(
    plan: ParentPlan,
    request: requests.CreateNetwork,
    options: NetworkOptions,
    config: Config,
    dhcp_readdress: bool,
) -> Network:
    """What request, options and the service's settings make of a network whose parent is known."""
    return Network(
        network_id=request.network_id,
        parent=plan.parent,
        mode=options.mode or config.mode,
        subnets=request.subnets,
        mtu=options.mtu or config.mtu,
        internal=request.internal or plan.on_dummy,
        on_dummy=plan.on_dummy,
        vlan_steps=plan.vlan_steps,
        broadcast_queue_length=options.broadcast_queue_length,
        broadcast_limit=options.broadcast_limit,
        nopromisc=options.nopromisc,
        source_macs=options.source_macs,
        allow_parent_mac_change=options.allow_parent_mac_change,
        conflict_detection=options.conflict_detection or config.conflict_detection,
        announce=config.announce if options.announce is None else options.announce,
        identity=options.identity or config.identity,
        dhcp=leases_addresses(request, options, config.dhcp),
        dhcp_release=config.dhcp_release if options.dhcp_release is None else options.dhcp_release,
        dhcp_readdress=dhcp_readdress,
        dhcp_vendor_class=(
            config.dhcp_vendor_class if options.dhcp_vendor_class is None else options.dhcp_vendor_class
        ),
        host_access=_host_access(options, config),
        allow_wireless_parent=options.allow_wireless_parent,
    )
