"""
Networks and pools that their engine has removed while we were not there.

A network that is removed wrongly is lost: the engine never creates it again. So only the engine that once listed a
network proves that it is gone, and only while the network has no endpoints.
"""

from __future__ import annotations

from collections.abc import Mapping

from attrs import frozen
from twisted.logger import Logger

from ..driver.models import Network
from ..driver.networks import Networks
from ..driver.registry import Registry
from ..engine.interfaces import ListedNetwork
from ..errors import MacvlanError
from ..ipam.new_pools import AddressPurposes
from ..ipam.pool import Pool, reported_subnet
from ..ipam.pool_binding import PoolBinding
from ..ipam.pool_requests import PoolRequests
from .engine_snapshot import EngineSnapshot
from .engine_snapshot import Networks as Listed

_log = Logger(namespace="macvlan_twisted.driver")

_NOT_OURS = ("default", "null")
"""The engine's own IPAM drivers."""
_DIGITS_OF_AN_ID = 64
"""A network of a single engine; ids of swarm networks have 25."""


@frozen
class StaleNetworksFound:
    """What an engine has removed, by id."""

    networks: Mapping[str, Network]
    pools: Mapping[str, Pool]


class StaleNetworks:
    """Finds and removes them."""

    def __init__(
        self,
        registry: Registry,
        networks: Networks,
        pools: PoolRequests,
        pool_binding: PoolBinding,
        purposes: AddressPurposes,
    ) -> None:
        self._registry = registry
        self._networks = networks
        self._pools = pools
        self._pool_binding = pool_binding
        self._purposes = purposes

    async def note(self, snapshot: EngineSnapshot) -> None:
        """Store which engine lists which network and pool."""
        if snapshot.networks is None or not snapshot.engine_id:
            return
        for network in list(self._registry.networks.values()):
            if network.network_id in snapshot.networks and network.engine_id != snapshot.engine_id:
                await self._networks.is_listed_by(network.network_id, snapshot.engine_id)
        for pool in self._pools.open_pools:
            if (
                not pool.is_untracked
                and _is_listed(pool, snapshot.networks)
                and pool.engine_id != snapshot.engine_id
            ):
                await self._pool_binding.is_listed_by(pool.pool_id, snapshot.engine_id)

    def find(self, snapshot: EngineSnapshot, idle: float) -> StaleNetworksFound:
        """:param idle: seconds for which the engine must not have mentioned them."""
        if snapshot.networks is None or not snapshot.engine_id:
            return StaleNetworksFound({}, {})
        networks = {
            id_: network
            for id_, network in self._registry.networks.items()
            if network.engine_id == snapshot.engine_id
            and id_ not in snapshot.networks
            and len(id_) == _DIGITS_OF_AN_ID
            and not self._registry.endpoints_of(id_)
            and self._networks.idle_for(id_) >= idle
        }
        is_only_engine = self._is_only_engine(snapshot.engine_id)
        pools = {
            pool.pool_id: pool
            for pool in self._pools.open_pools
            if not pool.is_untracked
            and (not _is_listed(pool, snapshot.networks) or self._is_replaced(pool, snapshot.networks))
            and (pool.network_id is None or pool.network_id not in self._registry.networks)
            and self._pools.idle_for(pool.pool_id) >= idle
            and (
                pool.engine_id == snapshot.engine_id
                # No engine ever listed its network, which was never created: nothing of it is in use.
                or (
                    not pool.engine_id
                    and is_only_engine
                    and (not self._pools.has_containers(pool) or self._purposes.is_only_named(pool))
                )
            )
        }
        return StaleNetworksFound(networks, pools)

    def _is_only_engine(self, engine_id: str) -> bool:
        """Whether this engine has all our networks, if any, so that no other engine is known to use us."""
        ids = {network.engine_id for network in self._registry.networks.values()}
        ids |= {pool.engine_id for pool in self._pools.open_pools if pool.engine_id}
        return ids <= {engine_id}

    def _is_replaced(self, pool: Pool, listed: Listed) -> bool:
        """
        Whether only swarm networks may be the pool's, and all of them have newer pools. An engine forgets the pools of swarm networks
        when it is killed, and requests others for the next tasks, after it has activated the plugin.
        """
        if pool.network_id is not None or not self._pools.is_of_earlier_life(pool.pool_id):
            return False
        networks = [network_id for network_id, each in listed.items() if _fits(pool, each)]
        newer = [
            each
            for each in self._pools.open_pools
            if each.network_id is None
            and not each.is_untracked
            and reported_subnet(each) == reported_subnet(pool)
            and not self._pools.is_of_earlier_life(each.pool_id)
        ]
        return len(networks) <= len(newer) and not any(len(each) == _DIGITS_OF_AN_ID for each in networks)

    async def drop_network(self, network: Network, idle: float) -> tuple[int, int]:
        """
        :return: the numbers of networks and of pools that were removed.
        :raises MacvlanError: the next reconciliation tries again.
        """
        name = self._registry.names.network(network.network_id)
        if not await self._networks.drop(network, idle):
            return 0, 0
        # Cause: the command ``docker network rm`` succeeds without the plugin. Remedy: none needed.
        _log.warn(
            "network {network}: removed, because the engine removed it while the plugin was not running",
            network=name,
        )
        pools = [each for each in self._pools.open_pools if each.network_id == network.network_id]
        return 1, sum([await self.drop_pool(pool, idle) for pool in pools])

    async def drop_pool(self, pool: Pool, idle: float) -> int:
        try:
            if not pool.engine_id:
                await self._purposes.release_all_named(pool)
            elif pool.network_id is None:
                await self._purposes.release_all_unanswered(pool)
            if pool.network_id is None and self._pools.has_containers(pool):
                return 0
            if not await self._pools.drop_pool(pool, idle):
                return 0
        except MacvlanError as failure:
            # Cause: the kernel refused, or writing the state failed; the plugin tries again at the next reconciliation.
            # Remedy: see the reason in the line.
            _log.error(
                "pool {pool}: cannot be released ({reason})", pool=pool.described(), reason=str(failure)
            )
            return 0
        # Cause: the network was removed while the plugin was not running, or was never created. Remedy: none needed.
        _log.warn("pool {pool}: released, because it has no network in the engine", pool=pool.described())
        return 1


def _is_listed(pool: Pool, listed: Listed) -> bool:
    """Whether the engine lists the pool's network or, if that is unknown, one that may be it."""
    if pool.network_id is not None:
        return pool.network_id in listed
    return any(_fits(pool, network) for network in listed.values())


def _fits(pool: Pool, network: ListedNetwork) -> bool:
    """Whether *network* may be that of *pool*, as far as the list shows."""
    if network.ipam_driver in _NOT_OURS:
        return False
    return not network.subnets or reported_subnet(pool) in network.subnets
