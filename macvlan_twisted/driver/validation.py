"""Refuses options that contradict each other or the network's IPAM driver, or that the kernel did not apply."""

from __future__ import annotations

from collections.abc import Iterable

from ..addresses import is_link_local
from ..config import Config
from ..errors import RequestRefused
from ..netlink.kernel import MacvlanLink
from ..option_values import IdentitySource, MacvlanMode
from . import requests
from .models import Subnet
from .options import NetworkOptions


def refuse_contradictions(options: NetworkOptions, mode: MacvlanMode) -> None:
    """
    :raises RequestRefused: options that mean nothing in *mode*.
    """
    if options.source_macs and mode != MacvlanMode.SOURCE:
        raise RequestRefused(
            f"-o source_macs needs mode source, but the mode is {mode}: add -o macvlan_mode=source, "
            "or leave source_macs out"
        )
    if mode == MacvlanMode.SOURCE and not options.source_macs:
        raise RequestRefused(
            "mode source admits no sender without -o source_macs: add -o source_macs=MAC,MAC"
        )
    if options.nopromisc and mode != MacvlanMode.PASSTHRU:
        raise RequestRefused(f"-o nopromisc needs mode passthru, but the mode is {mode}: leave it out")
    if options.allow_parent_mac_change and mode != MacvlanMode.PASSTHRU:
        raise RequestRefused(
            f"-o allow_parent_mac_change needs mode passthru, but the mode is {mode}: leave it out"
        )
    if options.host_access and mode != MacvlanMode.BRIDGE:
        raise RequestRefused(
            f"-o host_access=true needs mode bridge, but the mode is {mode}: use -o "
            "macvlan_mode=bridge, or leave host_access out"
        )


def refuse_link_local(subnets: Iterable[Subnet], internal: bool) -> None:
    """
    :raises RequestRefused: our address management is to allocate link-local addresses on a LAN, where hosts choose them by
        themselves (RFC 3927).
    """
    for each in subnets:
        if each.managed_here and is_link_local(each.pool) and not internal:
            raise RequestRefused(
                f"subnet {each.pool} is link-local and works on internal networks only: add --internal, "
                "or use the LAN's own --subnet"
            )


def refuse_name_identity(request: requests.CreateNetwork, options: NetworkOptions) -> None:
    """
    :raises RequestRefused: ``-o identity=name`` with another IPAM driver: only that driver gets the names of containers.
    """
    if options.identity == IdentitySource.NAME and not any(each.managed_here for each in request.subnets):
        raise RequestRefused(
            "-o identity=name needs the plugin's IPAM, because engines send no container names to "
            "network drivers: use --ipam-driver macvlan-twisted and --ipam-opt identity=name"
        )


def leases_addresses(request: requests.CreateNetwork, options: NetworkOptions, default: bool) -> bool:
    """
    Whether CreateEndpoint leases addresses by DHCP, since nothing manages them.

    :raises RequestRefused: ``-o dhcp=true`` where Docker manages them. Where this plugin does, its pool decides.
    """
    is_null_ipam = bool(request.subnets) and all(each.null_ipam for each in request.subnets)
    if options.dhcp and not is_null_ipam and not any(each.managed_here for each in request.subnets):
        raise RequestRefused(
            "-o dhcp=true cannot be combined with Docker's own IPAM: add --ipam-driver null, or "
            "--ipam-driver macvlan-twisted with --ipam-opt dhcp=true"
        )
    return is_null_ipam and (default if options.dhcp is None else options.dhcp)


def readdresses(request: requests.CreateNetwork, options: NetworkOptions, config: Config) -> bool:
    """
    Whether running containers are moved to other addresses when their DHCP server insists on it.

    :raises RequestRefused: ``-o dhcp_readdress=true`` where no address is leased.
    """
    is_leased = leases_addresses(request, options, config.dhcp) or any(
        each.managed_here for each in request.subnets
    )
    if options.dhcp_readdress and not is_leased:
        raise RequestRefused(
            "-o dhcp_readdress=true needs addresses leased by DHCP: add --ipam-driver null and -o "
            "dhcp=true, or --ipam-driver macvlan-twisted with --ipam-opt dhcp=true, or leave it out"
        )
    return is_leased and (config.dhcp_readdress if options.dhcp_readdress is None else options.dhcp_readdress)


def refuse_ignored_options(wanted: MacvlanLink, found: MacvlanLink) -> None:
    """
    :raises RequestRefused: the kernel did not do what an option asked for.
    """
    compared = (
        ("-o macvlan_mode", wanted.mode, found.mode),
        ("-o mtu", wanted.mtu, found.mtu),
        ("-o bcqueuelen", wanted.broadcast_queue_length, found.broadcast_queue_length),
        ("-o bclim", wanted.broadcast_limit, found.broadcast_limit),
        ("-o nopromisc", "true" if wanted.nopromisc else None, "true" if found.nopromisc else None),
        ("-o source_macs", _joined(wanted.source_macs), _joined(found.source_macs)),
    )
    for option, value, got in compared:
        if value is not None and value != got:
            raise RequestRefused(
                f"{option}={value} is not supported by this kernel"
                f"{f', which uses {got}' if got is not None else ''}: leave it out"
            )


def _joined(macs: Iterable[str]) -> str | None:
    """As in the option, but sorted; ``None`` if there are none."""
    return ",".join(sorted(set(macs))) or None
