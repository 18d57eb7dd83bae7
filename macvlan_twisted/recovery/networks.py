"""Rebuild networks, endpoints and leases from what the engine reports."""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Interface

from attrs import evolve

from ..addresses import IPAddress
from ..config import Config
from ..dhcp.binding import Binding, Client
from ..dhcp.store import LeaseRecord
from ..driver import requests
from ..driver.host_access import routes_to_host
from ..driver.host_addresses import RESERVED_NAMES
from ..driver.models import Endpoint, MadeLink, Network, Subnet
from ..driver.network_plan import network_on
from ..driver.options import NetworkOptions, parse_options
from ..driver.parent_plan import ParentPlan, needed_by, plan_parent
from ..driver.validation import readdresses
from ..engine.blocking_client import FoundEndpoint, FoundNetwork, FoundSubnet
from ..errors import RequestRefused
from ..ipam.allocator import usable_span
from ..ipam.pool import Pool
from ..link_names import endpoint_link_name
from ..netlink.kernel import LinkFacts
from ..netlink.netns import sandbox_path
from ..option_values import MacvlanMode

NULL_DRIVER = "null"
"""The engine's IPAM driver that allocates no addresses."""
_UNTIL_CONFIRMED = 3600
"""Seconds assumed for a lease of unknown length. Its server is asked at once, and tells the real ones."""


def rebuilt_network(
    found: FoundNetwork, config: Config, links: Sequence[LinkFacts], picks_gateways: bool
) -> Network:
    """
    The network as it would be, had it just been created.

    :param links: those of the host. If the parent is not among them, the network waits for it.
    :param picks_gateways: as in :class:`~macvlan_twisted.engine.blocking_client.Inspection`.
    :raises RequestRefused: this version does not know one of its options.
    """
    options = parse_options(found.options)
    request = requests.CreateNetwork(
        network_id=found.network_id,
        options=found.options,
        internal=found.internal,
        subnets=tuple(_subnet(each, found, config, picks_gateways) for each in found.subnets),
    )
    plan = _plan_parent(request, options, config, links)
    return network_on(plan, request, options, config, readdresses(request, options, config))


def _subnet(subnet: FoundSubnet, found: FoundNetwork, config: Config, picks_gateways: bool) -> Subnet:
    gateway = subnet.gateway
    null_ipam = found.ipam_driver == NULL_DRIVER
    if gateway is None and picks_gateways and not null_ipam and subnet.pool.prefixlen:
        gateway = picked_gateway(subnet, found, config)
    return Subnet(
        pool=subnet.pool,
        gateway=gateway,
        auxiliary=subnet.auxiliary,
        managed_here=found.ipam_driver == config.plugin_name,
        null_ipam=null_ipam,
    )


def picked_gateway(subnet: FoundSubnet, found: FoundNetwork, config: Config) -> IPAddress:
    """The gateway that the engine picked for a subnet: as shown by running containers, else by the usual rule."""
    for endpoint in found.endpoints:
        for shown in (endpoint.gateway, endpoint.gateway_v6):
            if shown is not None and shown in subnet.pool:
                return shown
    if found.ipam_driver == config.plugin_name:
        gateway = config.gateway_for(subnet.pool)
        return gateway or _address(subnet.pool.network_address, usable_span(subnet.pool).first)
    part = usable_span(subnet.pool, subnet.ip_range)  # Docker's own IPAM picks the first of the range
    return _address(subnet.pool.network_address, part.first)


def _address(like: IPAddress, number: int) -> IPAddress:
    return type(like)(number)


def _plan_parent(
    request: requests.CreateNetwork, options: NetworkOptions, config: Config, links: Sequence[LinkFacts]
) -> ParentPlan:
    def plan(present: Sequence[LinkFacts]) -> ParentPlan:
        return plan_parent(request.network_id, options, request.internal, config.host_interface, present)

    try:
        return plan(links)
    except RequestRefused:  # the parent may appear later
        name = options.parent or config.host_interface or ""
        missing = name.partition(".")[0]
        try:
            return plan((*links, LinkFacts(-1, missing, "", "", 65535, up=True)))
        except RequestRefused:
            return ParentPlan(name)


def host_addresses(
    network: Network, found: FoundNetwork, present: Sequence[IPAddress]
) -> tuple[IPAddress, ...]:
    """
    The host's own addresses for host access, at most one of each family: from the options or auxiliary addresses, else
    one that the host still has.

    :param present: the addresses on the host link of the network's parent.
    """
    from_options = parse_options(found.options).host_addresses
    named = [
        subnet.auxiliary[name]
        for subnet in network.subnets
        for name in RESERVED_NAMES
        if name in subnet.auxiliary
    ]
    fitting = [each for each in (*from_options, *named, *present) if network.subnet_of(each) is not None]
    chosen = (next((each for each in fitting if each.version == version), None) for version in (4, 6))
    return tuple(each for each in chosen if each is not None)


def missing_links(network: Network, links: Sequence[LinkFacts]) -> list[MadeLink]:
    """:return: VLANs and dummy links that the network needs and that do not exist."""
    present = {link.name for link in links}
    return [each for each in needed_by(network) if each.name not in present]


def rebuilt_endpoint(
    found: FoundEndpoint, network: Network, parent_addresses: Sequence[IPAddress]
) -> Endpoint:
    """
    The endpoint as it would be, had it just been created.

    :param parent_addresses: the host's addresses on the network's parent.
    """
    mac = found.mac if network.mode != MacvlanMode.PASSTHRU or network.allow_parent_mac_change else None
    needs_sandbox = network.host_access or network.dhcp_readdress
    endpoint = Endpoint(
        endpoint_id=found.endpoint_id,
        network_id=network.network_id,
        link=endpoint_link_name(found.endpoint_id),
        parent=network.parent,
        mac=mac,
        mac_generated=mac is not None,
        address=found.address,
        address_v6=found.address_v6,
        sandbox=sandbox_path(found.sandbox) if needs_sandbox else "",
    )
    if not network.host_access:
        return endpoint
    static_routes = tuple(route.destination for route in routes_to_host(endpoint, network, parent_addresses))
    return evolve(endpoint, static_routes=static_routes)


def rebuilt_lease(
    endpoint: Endpoint,
    found: FoundEndpoint,
    network: Network,
    dhcp_options: Network | Pool,
    now: float,
) -> LeaseRecord | None:
    """
    A lease with the endpoint's address and MAC. They suffice for a DHCP server to confirm it and to tell the rest.

    :param dhcp_options: whose DHCP options apply: the network's, or those of its pool.
    :param now: wall-clock time in seconds.
    :return: ``None`` if the endpoint has no IPv4 address or no MAC.
    """
    if not isinstance(endpoint.address, IPv4Interface) or endpoint.mac is None:
        return None
    client = Client(endpoint.mac, vendor_class=dhcp_options.dhcp_vendor_class or None)
    router = network.gateway_for(endpoint.address) or found.gateway
    facts = Binding(
        address=endpoint.address.ip,
        prefix_length=endpoint.address.network.prefixlen,
        router=router if isinstance(router, IPv4Address) else None,
        server_id=IPv4Address(0),
        server_mac="ff:ff:ff:ff:ff:ff",
        mac=endpoint.mac,
        client_id=client.identifier.hex(),
        lease_seconds=_UNTIL_CONFIRMED,
        t1=_UNTIL_CONFIRMED // 2,
        t2=_UNTIL_CONFIRMED * 7 // 8,
        obtained_at=now,
        vendor_class=client.vendor_class,
    )
    return LeaseRecord(
        endpoint.parent,
        facts,
        endpoint.address.ip,
        granted=True,
        release=dhcp_options.dhcp_release,
        detection=dhcp_options.conflict_detection,
    )
