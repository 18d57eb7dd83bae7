"""The routes between the host and the containers of networks with host access."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from ipaddress import ip_network

from ..addresses import IPAddress, IPInterface, IPNetwork
from ..lan.host_routes import HostRoutes
from ..netlink.links import Links
from .models import Endpoint, Network
from .registry import Registry
from .requests import StaticRoute


class HostAccess:
    """Connects an endpoint that joins, and disconnects one that is deleted."""

    def __init__(self, registry: Registry, links: Links, host_routes: HostRoutes) -> None:
        self._registry = registry
        self._links = links
        self._host_routes = host_routes

    async def connect(self, endpoint: Endpoint, network: Network) -> tuple[StaticRoute, ...]:
        """
        Make the host's routes to the container. Routes to addresses that it had before are removed.

        :return: the routes that the container needs; none if its network has no host access.
        :raises LinkError: the kernel refuses a route.
        """
        if not network.host_access:
            return ()
        own = [each.ip for each in await self._links.addresses_of(network.parent)]
        present = {
            destination
            for other in self._registry.endpoints.values()
            if endpoint.sandbox and other.sandbox == endpoint.sandbox
            if other.endpoint_id != endpoint.endpoint_id
            for destination in other.static_routes
        }
        await self._host_routes.reach(
            endpoint.parent, endpoint.endpoint_id, endpoint.addresses, network.host_addresses
        )
        return routes_to_host(endpoint, network, own, present)

    async def disconnect(self, endpoint: Endpoint) -> None:
        """
        Remove the host's routes to the container; succeeds when there are none.

        :raises LinkError: the kernel refuses.
        """
        await self._host_routes.forget(endpoint.endpoint_id)


def routes_to_host(
    endpoint: Endpoint,
    network: Network,
    own: Iterable[IPAddress],
    present: Collection[IPNetwork] = (),
) -> tuple[StaticRoute, ...]:
    """
    The container's routes to the host's addresses on the parent, by way of the host's address for containers. A parent
    does not receive what a macvlan link on it sends.

    :param own: the host's addresses on the parent.
    :param present: destinations of routes by other endpoints of the same sandbox; a second route would fail the start.
    """
    routes = []
    for address in (endpoint.address, endpoint.address_v6):
        host = None if address is None else network.host_address(address.version)
        if address is None or host is None:
            continue
        if host not in address.network:
            routes.append(StaticRoute(_alone(host)))
        routes += [
            StaticRoute(_alone(each), host) for each in own if _is_routed(each, address, host, network)
        ]
    return tuple(route for route in routes if route.destination not in present)


def _is_routed(own: IPAddress, address: IPInterface, host: IPAddress, network: Network) -> bool:
    """
    A router gets no route: it has to be on the link itself, or the kernel refuses a default route by way of it. Nor does
    an address outside the container's subnet: the engine refuses a later network of the container whose subnet contains
    the destination of a route in the sandbox, and Engine 28 joins the networks of a restarted container in any order.
    """
    is_gateway = own == network.gateway_for(address)
    return own in address.network and not own.is_link_local and own != host and not is_gateway


def _alone(address: IPAddress) -> IPNetwork:
    return ip_network(f"{address}/{address.max_prefixlen}")
