"""The host's own addresses for its containers: one for each address family of a network with host access."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Protocol

from attrs import evolve
from twisted.logger import Logger

from ..addresses import IPAddress, IPNetwork
from ..config import Config
from ..errors import RequestRefused
from ..lan.conflicts import Conflicts
from ..lan.host_routes import HostRoutes
from ..netlink.links import Links
from .endpoint_addresses import refuse_used_by_others
from .models import Network, Subnet
from .registry import Registry

_log = Logger(namespace="macvlan_twisted.driver")

RESERVED_NAMES = ("host", "host4", "host6")
"""Auxiliary addresses of these names are the host's own; more than one, for Docker's client takes each name once."""


class HostPools(Protocol):
    """Our address management, as far as it provides for the host."""

    async def reserve_for_host(
        self,
        network_id: str,
        parent: str,
        subnet: IPNetwork,
        auxiliary: Collection[IPAddress],
        wanted: IPAddress | None,
        preferred: Sequence[IPAddress],
    ) -> IPAddress:
        """
        Reserve an address of a pool for the host itself, until the pool is released.

        :param subnet: with the other arguments it identifies the pool.
        :param wanted: this one and no other.
        :param preferred: what the host has on the parent already: one of them that is in the pool, else any free one.
        :raises RequestRefused: a container has *wanted*, or the pool has no free address.
        """


class HostAddresses:
    """
    Chooses the host's addresses when a network is created, and takes them back when it is removed.

    :param pools: our address management, which reserves an address for the host.
    """

    def __init__(
        self,
        config: Config,
        registry: Registry,
        links: Links,
        host_routes: HostRoutes,
        pools: HostPools,
        conflicts: Conflicts,
    ) -> None:
        self._config = config
        self._registry = registry
        self._links = links
        self._host_routes = host_routes
        self._pools = pools
        self._conflicts = conflicts

    def load(self) -> None:
        """At start: what :meth:`enable` did in an earlier life."""
        for network in self._registry.networks.values():
            if network.host_addresses:
                self._host_routes.remember(network.parent, network.network_id, network.host_addresses)

    async def enable(self, network: Network, requested: Sequence[IPAddress]) -> Network:
        """
        Choose the host's addresses and set them on our link. Networks that are created at the same time see them as used.

        :param requested: by ``-o host_address``.
        :return: the network with the host's addresses.
        :raises RequestRefused: there is none, or it is in use.
        """
        present = self._host_routes.addresses_on(network.parent)
        others = {
            address: link
            for address, link in (await self._links.host_addresses()).items()
            if address not in present
        }
        routers = {*self._config.gateways, *(each.gateway for each in network.subnets if each.gateway)}
        chosen = await choose_host_addresses(network, requested, present, others, routers, self._pools)
        try:
            for address in chosen:
                self._refuse_used_by_us(address, network)
                subnet = network.subnet_of(address)
                # Our address management has probed what it picked itself, but not what a user reserved.
                is_picked = (
                    subnet is not None and subnet.managed_here and address not in subnet.auxiliary.values()
                )
                if address not in present and not is_picked:
                    await refuse_used_by_others(
                        self._conflicts,
                        network,
                        address,
                        "host address",
                        "use another one with -o host_address or --aux-address",
                    )
        except BaseException:
            for address in chosen:
                if address not in present:
                    self._conflicts.release(network.parent, address, network.network_id)
            raise
        network = evolve(network, host_addresses=chosen)
        self._registry.add_network(network)
        await self._host_routes.grant(network.parent, network.network_id, chosen)
        _log.debug(
            "network {network}: containers reach the host at {addresses}",
            network=network.short_id,
            addresses=" and ".join(str(each) for each in chosen),
        )
        return network

    def _refuse_used_by_us(self, address: IPAddress, network: Network) -> None:
        for endpoint in self._registry.endpoints.values():
            if endpoint.parent == network.parent and address in endpoint.addresses:
                raise RequestRefused(
                    f"host address {address} is in use by "
                    f"{self._registry.names.endpoint(endpoint.endpoint_id)}: use another one, or stop that "
                    "container"
                )

    async def disable(self, network: Network) -> None:
        """Take back the addresses that no other network needs."""
        await self._host_routes.withdraw(network.parent, network.network_id)


async def choose_host_addresses(
    network: Network,
    requested: Sequence[IPAddress],
    present: Sequence[IPAddress],
    others: Mapping[IPAddress, str],
    routers: Collection[IPAddress],
    pools: HostPools,
) -> tuple[IPAddress, ...]:
    """
    :param requested: by ``-o host_address``.
    :param present: what the host has on the network's parent already, for its containers.
    :param others: all other addresses of the host, each with the name of its link.
    :param routers: the LAN's; what is refused here is not taken before.
    :raises RequestRefused: there is no address for one of the families, or it is in use.
    """
    versions = sorted({subnet.pool.version for subnet in network.subnets})
    for address in requested:
        if address.version not in versions:
            raise RequestRefused(
                f"-o host_address={address}: this network has no IPv{address.version} subnet; add one "
                "with --subnet, or leave the address out"
            )
    chosen = []
    for version in versions:
        subnets = [subnet for subnet in network.subnets if subnet.pool.version == version]
        asked = _requested_address(subnets, [each for each in requested if each.version == version])
        if asked is not None and asked in others:
            raise RequestRefused(
                f"host address {asked} is already assigned to the host on {others[asked]}: use a free address"
            )
        if asked is not None and asked in routers:
            raise RequestRefused(
                f"host address {asked} is the address of the LAN's router: use a free address"
            )
        chosen.append(await _secured(network, subnets, asked, present, pools))
    return tuple(chosen)


def _requested_address(subnets: Sequence[Subnet], requested: Sequence[IPAddress]) -> IPAddress | None:
    """What the user requested of one family: the address itself, else what is reserved under the host's name."""
    named = [
        subnet.auxiliary[name] for subnet in subnets for name in RESERVED_NAMES if name in subnet.auxiliary
    ]
    return next(iter((*requested, *named)), None)


async def _secured(
    network: Network,
    subnets: Sequence[Subnet],
    address: IPAddress | None,
    present: Sequence[IPAddress],
    pools: HostPools,
) -> IPAddress:
    for subnet in subnets:
        if subnet.managed_here and (address is None or address in subnet.pool):
            auxiliary = subnet.auxiliary.values()
            if address is not None and address in auxiliary:
                return address
            return await pools.reserve_for_host(
                network.network_id, network.parent, subnet.pool, auxiliary, address, present
            )
    if address is None:
        raise _no_address(subnets[0])
    return address


def _no_address(subnet: Subnet) -> RequestRefused:
    name = "host" if subnet.pool.version == 4 else "host6"
    if subnet.null_ipam:
        return RequestRefused(
            "host access needs an address for the host, but this network has no IPAM: specify one outside "
            "the DHCP server's range with -o host_address=ADDRESS, or use -o host_access=false"
        )
    # Remedy: reserve one with --aux-address host=ADDRESS (host6=ADDRESS for IPv6), specify one with -o
    # host_address=ADDRESS, or use -o host_access=false.
    return RequestRefused(
        f"host access needs an address for the host in {subnet.pool}, which another IPAM driver "
        f"manages: reserve one with --aux-address {name}=ADDRESS, specify one with -o "
        "host_address=ADDRESS, or use -o host_access=false"
    )
