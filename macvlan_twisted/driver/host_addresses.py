"""Which addresses the host has for a network with access from the host: one for each family of the network's subnets."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Protocol

from ..addresses import IPAddress, IPNetwork
from ..errors import RequestRefused
from .models import Network, Subnet

RESERVED_NAMES = ("host", "host4", "host6")
"""Auxiliary addresses of these names are the host's own; more than one, for Docker's client takes each name once."""


class HostAddresses(Protocol):
    """What address management of ours does for the host."""

    async def reserve_for_host(
        self,
        parent: str,
        subnet: IPNetwork,
        auxiliary: Collection[IPAddress],
        wanted: IPAddress | None,
        preferred: Sequence[IPAddress],
    ) -> IPAddress:
        """
        Take an address of a pool for the host itself, until the pool is released.

        :param subnet: with *parent* and *auxiliary* it tells which pool.
        :param wanted: this one and no other.
        :param preferred: what the host has on the parent already: one of them that is in the pool, else any free one.
        :raises Refused: *wanted* is a container's, or the pool has none (any more).
        """


async def choose_host_addresses(
    network: Network,
    given: Sequence[IPAddress],
    present: Sequence[IPAddress],
    others: Mapping[IPAddress, str],
    routers: Collection[IPAddress],
    pools: HostAddresses,
) -> tuple[IPAddress, ...]:
    """
    :param given: by ``-o host_address``.
    :param present: what the host has on the network's parent already, for its containers.
    :param others: all other addresses of the host, each with the name of its link.
    :param routers: the LAN's; what is refused here is not taken before.
    :raises Refused: there is no address for one of the families, or it is in use.
    """
    versions = sorted({subnet.pool.version for subnet in network.subnets})
    for address in given:
        if address.version not in versions:
            raise RequestRefused(
                f"-o host_address={address}: the network has no subnet of IPv{address.version}: add one with --subnet, "
                "or leave that address out"
            )
    chosen = []
    for version in versions:
        subnets = [subnet for subnet in network.subnets if subnet.pool.version == version]
        said = _said(subnets, [each for each in given if each.version == version])
        if said is not None and said in others:
            raise RequestRefused(
                f"host address {said} is the host's own already, on {others[said]}: choose one that nobody has, "
                "containers reach the host's other addresses by it"
            )
        if said is not None and said in routers:
            raise RequestRefused(
                f"host address {said} is that of the LAN's router: choose one that nobody has"
            )
        chosen.append(await _secured(network.parent, subnets, said, present, pools))
    return tuple(chosen)


def _said(subnets: Sequence[Subnet], given: Sequence[IPAddress]) -> IPAddress | None:
    """What the user said of one family: the address itself, else what is reserved under the host's name."""
    named = [
        subnet.auxiliary[name] for subnet in subnets for name in RESERVED_NAMES if name in subnet.auxiliary
    ]
    return next(iter((*given, *named)), None)


async def _secured(
    parent: str,
    subnets: Sequence[Subnet],
    address: IPAddress | None,
    present: Sequence[IPAddress],
    pools: HostAddresses,
) -> IPAddress:
    for subnet in subnets:
        if subnet.managed_here and (address is None or address in subnet.pool):
            auxiliary = subnet.auxiliary.values()
            if address is not None and address in auxiliary:
                return address
            return await pools.reserve_for_host(parent, subnet.pool, auxiliary, address, present)
    if address is None:
        raise _no_address(subnets[0])
    return address


def _no_address(subnet: Subnet) -> RequestRefused:
    name = "host" if subnet.pool.version == 4 else "host6"
    if subnet.null_ipam:
        return RequestRefused(
            "access from the host needs an address of the host's own, and nobody manages the addresses of this network: "
            "choose one on the LAN that nobody has and no DHCP server hands out, and give it with -o host_address=ADDRESS, "
            "or leave host access out with -o host_access=false"
        )
    return RequestRefused(
        f"access from the host needs an address of the host's own in {subnet.pool}, and the addresses there are not "
        f"managed by this plugin: reserve one with --aux-address {name}=ADDRESS, or give one that nobody else gets with "
        "-o host_address=ADDRESS, or leave host access out with -o host_access=false"
    )
