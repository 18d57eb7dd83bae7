"""What a container is told of the ways to its host."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from ipaddress import ip_network

from ..addresses import IPAddress, IPInterface, IPNetwork
from .models import Endpoint, Network
from .requests import StaticRoute


def routes_to_host(
    endpoint: Endpoint,
    network: Network,
    own: Iterable[IPAddress],
    present: Collection[IPNetwork] = (),
) -> tuple[StaticRoute, ...]:
    """
    Routes to the host's addresses on the parent by the one that it has for containers: the parent itself does not hear
    what a macvlan link on it sends.

    :param own: the host's addresses on the parent.
    :param present: where other endpoints of the same sandbox have a route to: a second one would fail the start.
    """
    routes = []
    for address in (endpoint.address, endpoint.address_v6):
        host = None if address is None else network.host_address(address.version)
        if address is None or host is None:
            continue
        if host not in address.network:
            routes.append(StaticRoute(_alone(host)))
        routes += [
            StaticRoute(_alone(each), host) for each in own if _is_to_be_told(each, address, host, network)
        ]
    return tuple(route for route in routes if route.destination not in present)


def _is_to_be_told(own: IPAddress, address: IPInterface, host: IPAddress, network: Network) -> bool:
    """
    Not of a router: that one has to be on the link itself, or the kernel takes no default route by it. Nor outside the
    container's subnet: the engine refuses a later network of the container whose subnet has an address that a route of
    the sandbox leads to, and Engine 28 joins the networks of a container in any order when it starts again.
    """
    is_gateway = own == network.gateway_for(address)
    return own in address.network and not own.is_link_local and own != host and not is_gateway


def _alone(address: IPAddress) -> IPNetwork:
    return ip_network(f"{address}/{address.max_prefixlen}")
