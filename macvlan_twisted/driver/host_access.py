"""The ways between the host and the containers of networks with access from the host."""

from __future__ import annotations

from collections.abc import Sequence

from attrs import evolve
from twisted.logger import Logger

from ..addresses import IPAddress
from ..config import Config
from ..errors import RequestRefused
from ..lan.conflicts import Conflicts
from ..lan.host_routes import HostRoutes
from ..netlink.links import Links
from . import requests
from .free_addresses import refuse_used_by_others
from .host_addresses import HostAddresses, choose_host_addresses
from .models import Endpoint, Network
from .registry import Registry
from .static_routes import routes_to_host

_log = Logger(namespace="macvlan_twisted.driver")


class HostAccess:
    """
    Opened with a network, met by an endpoint that joins.

    :param addresses: our address management, which keeps an address for the host.
    """

    def __init__(
        self,
        config: Config,
        registry: Registry,
        links: Links,
        access: HostRoutes,
        addresses: HostAddresses,
        conflicts: Conflicts,
    ) -> None:
        self._config = config
        self._registry = registry
        self._links = links
        self._access = access
        self._addresses = addresses
        self._conflicts = conflicts

    def remember(self, network: Network) -> None:
        """At start: what :meth:`opened` did in an earlier life."""
        if network.host_addresses:
            self._access.remember(network.parent, network.network_id, network.host_addresses)

    async def opened(self, network: Network, given: Sequence[IPAddress]) -> Network:
        """
        The host's addresses are chosen and made; who else is made meanwhile sees that they are taken.

        :param given: by ``-o host_address``.
        :return: the network with the host's addresses.
        :raises Refused: there is none, or it is in use.
        """
        present = self._access.addresses_on(network.parent)
        others = {
            address: link
            for address, link in (await self._links.host_addresses()).items()
            if address not in present
        }
        routers = {*self._config.gateways, *(each.gateway for each in network.subnets if each.gateway)}
        chosen = await choose_host_addresses(network, given, present, others, routers, self._addresses)
        try:
            for address in chosen:
                self._refuse_used_by_us(address, network)
                subnet = network.subnet_of(address)
                # What our address management has picked was looked for there; what a user reserved was not.
                is_picked = (
                    subnet is not None and subnet.managed_here and address not in subnet.auxiliary.values()
                )
                if address not in present and not is_picked:
                    await refuse_used_by_others(
                        self._conflicts, network, address, "host address", "choose one that nobody has"
                    )
        except BaseException:
            for address in chosen:
                if address not in present:
                    self._conflicts.let_go(network.parent, address, network.network_id)
            raise
        network = evolve(network, host_addresses=chosen)
        self._registry.add_network(network)
        await self._access.grant(network.parent, network.network_id, chosen)
        _log.info(
            "network {network}: the host is {addresses} to its containers",
            network=network.short_id,
            addresses=" and ".join(str(each) for each in chosen),
        )
        return network

    def _refuse_used_by_us(self, address: IPAddress, network: Network) -> None:
        for endpoint in self._registry.endpoints.values():
            if endpoint.parent == network.parent and address in endpoint.addresses:
                raise RequestRefused(
                    f"host address {address} is in use by endpoint {endpoint.endpoint_id} of network "
                    f"{endpoint.network_id}: choose another one, or stop that container"
                )

    async def close(self, network: Network) -> None:
        await self._access.withdraw(network.parent, network.network_id)

    async def meet(self, endpoint: Endpoint, network: Network) -> tuple[requests.StaticRoute, ...]:
        """
        Make the host's routes to the container.

        :return: the routes that the container is to have; none where its network has no access from the host.
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
        await self._access.reach(
            endpoint.parent, endpoint.endpoint_id, endpoint.addresses, network.host_addresses
        )
        return routes_to_host(endpoint, network, own, present)

    async def move(self, endpoint: Endpoint, network: Network) -> tuple[requests.StaticRoute, ...]:
        """As :meth:`meet`, for a container that has other addresses now; the routes to those that it had go."""
        return await self.meet(endpoint, network)

    async def part(self, endpoint: Endpoint) -> None:
        """The endpoint is gone, or was never made."""
        await self._access.forget(endpoint.endpoint_id)
