"""What a network will be: decided before anything is touched."""

from __future__ import annotations

from collections.abc import Sequence

from twisted.logger import Logger

from ..config import Config
from ..errors import LinkError, RequestRefused
from ..netlink.kernel import LinkFacts
from ..netlink.links import Links
from ..option_values import MacvlanMode
from . import requests
from .models import Network
from .options import NetworkOptions, parse_options
from .parent_plan import ParentPlan, plan_parent, refuse_unfit
from .parent_status import ParentStatus
from .readdress import ContainerSandboxes
from .validation import (
    leases_addresses,
    readdresses,
    refuse_contradictions,
    refuse_link_local,
    refuse_name_identity,
)

_log = Logger(namespace="macvlan_twisted.driver")


class NetworkPlanner:
    """Decides what CreateNetwork makes, from the request, the configuration and the host's links."""

    def __init__(
        self, config: Config, links: Links, status: ParentStatus, sandboxes: ContainerSandboxes
    ) -> None:
        self._config = config
        self._links = links
        self._status = status
        self._sandboxes = sandboxes

    async def network(self, request: requests.CreateNetwork) -> Network:
        """
        The network that the request means, validated against the host as it is now.

        :raises RequestRefused: the options contradict each other, or the host.
        """
        options = parse_options(request.options)
        links = await self._links.all()
        readdress = await self._readdresses(request, options)
        try:
            return plan_network(request, options, self._config, links, readdress)
        except RequestRefused:
            self._refuse_absent(options.parent or self._config.host_interface or "")
            raise

    def _refuse_absent(self, parent: str) -> None:
        """
        :raises RequestRefused: other networks wait for *parent*, too.
        """
        if self._status.is_absent(parent):
            raise RequestRefused(self._status.why_absent(parent, "create the network again"))

    async def _readdresses(self, request: requests.CreateNetwork, options: NetworkOptions) -> bool:
        """
        Whether running containers are moved to other addresses.

        :raises RequestRefused: the network's options ask for it, and the service cannot do it.
        """
        readdress = readdresses(request, options, self._config)
        if options.dhcp_readdress:
            lacking = await self._sandboxes.lacking()
            if lacking:
                # Remedy: grant what the message names, or leave the option out.
                raise RequestRefused(
                    f"-o dhcp_readdress=true cannot work ({lacking}): grant that, or leave the option out"
                )
        return readdress

    async def warn(self, network: Network) -> None:
        """Log what the network's containers will lack, or may do to the LAN."""
        self._warn_of_gateways(network)
        self._warn_of_other_ipam(network)
        await self._warn_of_subnets(network)

    def _warn_of_other_ipam(self, network: Network) -> None:
        subnets = [each.pool for each in network.subnets if not each.managed_here and not each.null_ipam]
        if not subnets or network.internal:
            return
        # Cause: the network has no --ipam-driver. Docker's own IPAM does not see other hosts; an address that
        # is in use is noticed only when a container starts with it. Remedy: remove the network and create it again
        # with --ipam-driver macvlan-twisted.
        _log.warn(
            "network {network}: created without --ipam-driver {plugin}, so Docker assigns addresses from {subnets} without "
            "checking whether they are in use on the LAN",
            network=network.short_id,
            plugin=self._config.plugin_name,
            subnets=", ".join(map(str, subnets)),
        )

    async def _warn_of_subnets(self, network: Network) -> None:
        """A subnet of which the parent has no address, though it has one of the family, is hardly that of its LAN."""
        if network.on_dummy or network.internal:
            return
        try:
            addresses = await self._links.host_addresses()
        except LinkError:
            return
        own = [each for each, link in addresses.items() if link == network.parent and not each.is_link_local]
        for pool in (each.pool for each in network.subnets if each.pool.prefixlen):
            family = [each for each in own if each.version == pool.version]
            if family and not any(each in pool for each in family):
                # Cause: a typing error, or a second subnet on the same LAN. Remedy: remove the network and create it
                # again with the LAN's subnet; a second subnet works if a router on the LAN has an address in it.
                _log.warn(
                    "network {network}: subnet {subnet} is not the subnet of parent {parent}, which has {addresses}",
                    network=network.short_id,
                    subnet=str(pool),
                    parent=network.parent,
                    addresses=", ".join(map(str, sorted(family))),
                )

    def _warn_of_gateways(self, network: Network) -> None:
        """
        Say what a network without a gateway lacks. Docker Engine 29 forwards DNS queries only for containers with a gateway or a
        default route (``hasGatewayOrDefaultRoute`` in libnetwork); its own macvlan driver may say that a gateway is not
        needed (ForceGw), and the protocol of plugins has no word for that.
        """
        if network.internal:
            return
        lacking = [each for each in network.subnets if each.gateway is None and each.pool.prefixlen]
        dns = (
            ", and Docker Engine 29 resolves only the names of other containers for them (SERVFAIL)"
            if len(lacking) == len(network.subnets)
            else ""
        )
        routers = [(each.pool, self._config.gateway_for(each.pool)) for each in lacking]
        for pool, router in routers:
            if router is not None:
                # Cause: Docker's own IPAM manages the addresses, and the network was created without --gateway. The
                # part in brackets adds that Docker Engine 29 then resolves only container names. Remedy: remove the
                # network and create it again with --gateway and the router's address.
                _log.warn(
                    "network {network}: no gateway in subnet {subnet}, so its containers have no default route{dns}, and "
                    "Docker's own IPAM may assign the router's address {router} to a container; remove the network and "
                    "create it again with --gateway {router}",
                    network=network.short_id,
                    subnet=pool,
                    dns=dns,
                    router=router,
                )
        if dns and lacking and not any(router for _, router in routers):
            # Cause: no subnet of the network has a gateway. The part in brackets adds that Docker Engine 29 then
            # resolves only container names. Remedy: remove the network and create it again with --gateway,
            # or with --internal if it needs none.
            _log.warn(
                "network {network}: no gateway, so its containers have no default route{dns}; remove the network and create it "
                "again with --gateway",
                network=network.short_id,
                dns=dns,
            )


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
    :raises RequestRefused: the options contradict each other or the host.
    """
    mode = options.mode or config.mode
    if config.host_access and options.host_access is None and mode != MacvlanMode.BRIDGE:
        # Cause: the kernel passes frames between the host's link and containers in mode bridge only. Remedy: remove the
        # network and create it again with -o macvlan_mode=bridge, or with -o host_access=false to silence the warning.
        _log.warn(
            "network {network}: no host access, because mode {mode} does not allow it (--host-access is on)",
            network=request.network_id[:12],
            mode=mode,
        )
    refuse_contradictions(options, mode)
    refuse_link_local(request.subnets, request.internal)
    refuse_name_identity(request, options)
    if options.host_addresses and not _host_access(options, config):
        raise RequestRefused("-o host_address needs host access: add -o host_access=true")
    plan = plan_parent(request.network_id, options, request.internal, config.host_interface, links)
    if plan.on_dummy and not request.internal:
        # Cause: neither -o parent= nor --host-interface names a NIC, and there is no default route. Remedy: remove the
        # network and create it again with -o parent=, or after restarting the plugin with --host-interface.
        _log.warn(
            "network {network}: internal, on a dummy link, because there is no parent; remove the network and create it again "
            "with -o parent=, or after restarting the plugin with --host-interface",
            network=request.network_id[:12],
        )
    mtu = options.mtu or config.mtu
    for link in links:
        if link.name == plan.parent or any(link.name == step.lower for step in plan.vlan_steps):
            refuse_unfit(link, options.allow_wireless_parent, mtu)
        if link.name == plan.parent and not link.up and not plan.vlan_steps:
            # Cause: the NIC was not brought up. Remedy: run ``ip link set PARENT up``.
            _log.warn(
                "parent {parent}: down, so containers on it have no network; run: ip link set {parent} up",
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
    """The network that request, options and configuration make, on a parent that is known."""
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
