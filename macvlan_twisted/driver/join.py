"""Join and Leave: a container takes an endpoint's link into its sandbox, and gives it back."""

from __future__ import annotations

from attrs import evolve

from ..last_seen import EngineCalls
from ..netlink.netns import sandbox_path
from . import requests
from .endpoint_addresses import EndpointAddresses
from .host_access import HostAccess
from .macvlan_links import MacvlanLinks
from .registry import Registry


class Joining:
    """:param calls: of endpoints."""

    def __init__(
        self,
        registry: Registry,
        macvlan_links: MacvlanLinks,
        addresses: EndpointAddresses,
        host_access: HostAccess,
        calls: EngineCalls,
    ) -> None:
        self._registry = registry
        self._macvlan_links = macvlan_links
        self._addresses = addresses
        self._host_access = host_access
        self._calls = calls

    async def join(self, request: requests.Join) -> requests.Joined:
        """
        :raises NotFound: the endpoint or its link is not there.
        :raises LinkError: the kernel refuses a route between host and container.
        """
        async with self._calls.call(request.endpoint_id):
            endpoint = self._registry.endpoint(request.endpoint_id)
            network = self._registry.network(endpoint.network_id)
            self._macvlan_links.refuse_absent(endpoint)
            joined = endpoint
            if network.host_access or (network.dhcp_readdress and self._addresses.is_leased(endpoint)):
                joined = evolve(endpoint, sandbox=sandbox_path(request.sandbox))
            routes = await self._host_access.connect(joined, network)
            joined = evolve(joined, static_routes=tuple(route.destination for route in routes))
            if joined != endpoint:
                await self._registry.store_endpoint(joined)
                self._registry.replace_endpoint(joined)
        self._addresses.announce(endpoint, network)
        gateway = network.gateway_for(endpoint.address) or self._addresses.leased_router(endpoint, network)
        return requests.Joined(endpoint.link, gateway, network.gateway_for(endpoint.address_v6), routes)

    async def leave(self, request: requests.EndpointCall) -> None:
        """Nothing: the engine moves the link back and then asks for its removal, or for another Leave."""
        self._calls.last_seen.note(request.endpoint_id)
