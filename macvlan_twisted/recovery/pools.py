"""Rebuild pools and allocations from what the engine reports."""

from __future__ import annotations

from ipaddress import IPv4Address

from attrs import evolve

from ..addresses import IPAddress
from ..config import Config
from ..driver.models import Network
from ..engine.blocking_client import FoundNetwork, FoundSubnet
from ..errors import RequestRefused
from ..ipam.pool import Pool, id_without_nonce, pool_id_for
from ..ipam.pool_plan import plan_pool
from ..ipam.requests import Purpose, RequestPool
from ..protocol.messages import LOCAL_ADDRESS_SPACE
from .snapshot import Snapshot


def add_pools(
    snapshot: Snapshot,
    found: FoundNetwork,
    network: Network | None,
    config: Config,
    nonce: str,
    seen: dict[str, int],
) -> list[tuple[str, str]]:
    """
    Add to *snapshot* the pools of one network of the engine, and the addresses in use, as far as they are missing.

    The engine does not show the PoolID that it will use in its calls. But a PoolID describes its pool, so a rebuilt pool
    stands for all ids with the same description (:meth:`~macvlan_twisted.ipam.pool_registry.PoolRegistry.find`).

    :param network: the rebuilt network; ``None`` if it belongs to another network driver.
    :param seen: networks so far by the description of their pool; updated here.
    :return: each pool that cannot be rebuilt, and why.
    """
    missing = []
    for subnet in found.subnets:
        try:
            planned = _plan_pool(subnet, found, network, config, nonce)
        except RequestRefused as refused:
            missing.append((f"pool {subnet.pool} of network {found.name}", str(refused)))
            continue
        description = id_without_nonce(planned.pool_id)
        seen[description] = seen.get(description, 0) + 1
        fitting = [pool for key, pool in snapshot.pools.items() if id_without_nonce(key) == description]
        pool = fitting[0] if fitting else planned
        unknown = max(1, seen[description] + 1 - len(fitting or [pool]))
        snapshot.pools[pool.pool_id] = pool = evolve(pool, rebuilt_for=unknown, released_ids=())
        _add_allocations(snapshot, pool, fitting or [pool], subnet, found, network)
    return missing


def _plan_pool(
    subnet: FoundSubnet, found: FoundNetwork, network: Network | None, config: Config, nonce: str
) -> Pool:
    request = RequestPool(
        address_space=LOCAL_ADDRESS_SPACE,
        pool=None if subnet.pool.prefixlen == 0 else subnet.pool,
        sub_pool=subnet.ip_range,
        options=found.ipam_options,
        v6=subnet.pool.version == 6,
    )
    if request.pool is None:
        pool = _plan_pool_without_subnet(request, subnet, found, config, nonce)
    else:
        pool = plan_pool(request, config, nonce)
    if pool.dhcp and request.v6:
        pool = evolve(pool, dhcp=False)
    if network is not None and network.parent != pool.parent:
        pool = evolve(pool, network_parent=network.parent)
    return pool


def _plan_pool_without_subnet(
    request: RequestPool, subnet: FoundSubnet, found: FoundNetwork, config: Config, nonce: str
) -> Pool:
    """
    Rebuild a pool that the user named no subnet for: take that of a running container, else the service's.

    :raises RequestRefused: neither is known.
    """
    shown = [each.address_v6 if request.v6 else each.address for each in found.endpoints]
    prefix = next((each.network for each in shown if each is not None), None)
    if prefix is None:
        prefix = plan_pool(request, config, nonce).prefix
    pool = plan_pool(evolve(request, pool=prefix), config, nonce)
    if pool.dhcp and not request.v6:  # its id contains the subnet from the server's lease
        router = subnet.gateway if isinstance(subnet.gateway, IPv4Address) else None
        return evolve(pool, any_subnet=True, part=None, leased_router=router)
    part = pool.part or config.ip_range_in(prefix)
    return evolve(
        pool,
        pool_id=pool_id_for(request, nonce),
        any_subnet=True,
        part=None if part == prefix else part,
    )


def _add_allocations(
    snapshot: Snapshot,
    pool: Pool,
    group: list[Pool],
    subnet: FoundSubnet,
    found: FoundNetwork,
    network: Network | None,
) -> None:
    """Add the addresses in use that no pool of *group*, the pools with the same description, has."""

    def allocate(address: IPAddress, purpose: Purpose) -> None:
        if address in pool.prefix and not any(
            (each.pool_id, address) in snapshot.allocations for each in group
        ):
            snapshot.allocations[pool.pool_id, address] = purpose

    ours = None if network is None else next((s for s in network.subnets if s.pool == subnet.pool), None)
    gateway = subnet.gateway if ours is None else ours.gateway
    if gateway is not None:
        allocate(gateway, Purpose.GATEWAY)
    for address in subnet.auxiliary.values():
        allocate(address, Purpose.AUXILIARY)
    for host in () if network is None else network.host_addresses:
        if host not in subnet.auxiliary.values():
            allocate(host, Purpose.HOST)
    for endpoint in found.endpoints:
        for interface in (endpoint.address, endpoint.address_v6):
            if interface is not None:
                allocate(interface.ip, Purpose.ENDPOINT)
