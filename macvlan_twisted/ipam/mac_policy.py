"""The MAC that goes with an address: of the container's name, or new, or made of the address by the driver."""

from __future__ import annotations

from random import Random

from twisted.logger import Logger

from ..addresses import IPAddress
from ..macs import mac_from_name, random_mac
from ..option_values import IdentitySource
from .pool import Pool
from .pool_registry import PoolRegistry
from .sticky_addresses import StickyAddresses

_log = Logger(namespace="macvlan_twisted.ipam")


class MacPolicy:
    """
    :param host: what tells this host from others, so that containers of one name on two of them have two MACs.
    """

    def __init__(
        self, host: str, random: Random, pools: PoolRegistry, sticky_addresses: StickyAddresses
    ) -> None:
        self._host = host
        self._random = random
        self._pools = pools
        self._sticky_addresses = sticky_addresses
        self._told: set[str] = set()

    def named(self, pool: Pool, name: str) -> str:
        """
        The MAC to be kept for a container of *name*; empty where it is made of the address.

        So is that of a container's second network on one parent and subnet, for the kernel takes a MAC once a parent.
        """
        if pool.identity != IdentitySource.NAME:
            return ""
        if name:
            before = self._sticky_addresses.of_name(pool.pool_id, name)
            mac = self._of_name(pool, name) if before is None else before.mac
            others = [
                each
                for each in self._pools.by_id.values()
                if each.lan_parent == pool.lan_parent and each is not pool
            ]
            return "" if any(self._has(each, name, mac) for each in others) else mac
        if pool.pool_id not in self._told:
            self._told.add(pool.pool_id)
            _log.warn(
                "pool {pool} has --ipam-opt identity=name, but this engine does not tell containers' names (29 does): MACs "
                "are made of addresses; an identity lasts with docker run --ip or --mac-address",
                pool=pool.described(),
            )
        return ""

    def _of_name(self, pool: Pool, name: str) -> str:
        return mac_from_name(self._host, pool.lan_parent, str(pool.prefix), name)

    def mac_for(self, parent: str, address: IPAddress) -> str | None:
        """The MAC that goes with an address of ours on *parent*; ``None``: it is made of the address, or not ours."""
        pool = self._pools.of_endpoint(parent, address)
        if pool is None:
            return None
        if pool.identity == IdentitySource.RANDOM:
            return random_mac(self._random)
        sticky = self._sticky_addresses.of_address(pool.pool_id, address)
        return sticky.mac or None if sticky is not None else None

    def for_lease(self, pool: Pool, name: str) -> str:
        """The MAC under which a lease is taken, before the container exists."""
        if name and pool.identity != IdentitySource.RANDOM:
            return self._of_name(pool, name)
        return random_mac(self._random)

    def _has(self, pool: Pool, name: str, mac: str) -> bool:
        """Whether the container of *name* is in this network under *mac*."""
        kept = self._sticky_addresses.of_name(pool.pool_id, name)
        return (
            kept is not None
            and kept.mac == mac
            and self._pools.of_endpoint(pool.lan_parent, kept.address) is pool
        )
