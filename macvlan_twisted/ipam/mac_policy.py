"""Chooses a container's MAC: made from its name, random, or made from its address by the driver."""

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
    :param host: identifies this host, so that containers with the same name on two hosts get different MACs.
    """

    def __init__(
        self, host: str, random: Random, pools: PoolRegistry, sticky_addresses: StickyAddresses
    ) -> None:
        self._host = host
        self._random = random
        self._pools = pools
        self._sticky_addresses = sticky_addresses
        self._warned: set[str] = set()

    def mac_for_name(self, pool: Pool, name: str) -> str:
        """
        The MAC to store for the container *name*; empty if the driver makes it from the address.

        It is also empty in a container's second network on the same parent and subnet, because the kernel accepts a MAC only
        once per parent.
        """
        if pool.identity != IdentitySource.NAME:
            return ""
        if name:
            before = self._sticky_addresses.of_name(pool.pool_id, name)
            mac = self._mac_from_name(pool, name) if before is None else before.mac
            others = [
                each
                for each in self._pools.by_id.values()
                if each.lan_parent == pool.lan_parent and each is not pool
            ]
            return "" if any(self._uses_mac(each, name, mac) for each in others) else mac
        if pool.pool_id not in self._warned:
            self._warned.add(pool.pool_id)
            _log.warn(
                "pool {pool} has --ipam-opt identity=name, but this engine does not tell containers' names (29 does): MACs "
                "are made of addresses; an identity lasts with docker run --ip or --mac-address",
                pool=pool.described(),
            )
        return ""

    def _mac_from_name(self, pool: Pool, name: str) -> str:
        return mac_from_name(self._host, pool.lan_parent, str(pool.prefix), name)

    def mac_for(self, parent: str, address: IPAddress) -> str | None:
        """The MAC for an allocated address on *parent*; ``None`` if it is made from the address, or no pool allocated that."""
        pool = self._pools.pool_of_endpoint(parent, address)
        if pool is None:
            return None
        if pool.identity == IdentitySource.RANDOM:
            return random_mac(self._random)
        sticky = self._sticky_addresses.of_address(pool.pool_id, address)
        return sticky.mac or None if sticky is not None else None

    def mac_for_lease(self, pool: Pool, name: str) -> str:
        """The MAC for leasing an address, before the container exists."""
        if name and pool.identity != IdentitySource.RANDOM:
            return self._mac_from_name(pool, name)
        return random_mac(self._random)

    def _uses_mac(self, pool: Pool, name: str, mac: str) -> bool:
        """Whether the container *name* has an address with *mac* in this pool."""
        sticky = self._sticky_addresses.of_name(pool.pool_id, name)
        return (
            sticky is not None
            and sticky.mac == mac
            and self._pools.pool_of_endpoint(pool.lan_parent, sticky.address) is pool
        )
