"""
The share of a host in a fleet without etcd (``--fleet-share K/N``): the K-th of N parts of each pool's range.

A part is fixed when the pool is opened, and is stored with it. Hosts with the same subnet and range, and different shares of the same
N, never choose the same address, although they do not know of each other.
"""

from __future__ import annotations

from attrs import evolve

from ..addresses import IPAddress
from ..errors import RequestRefused, StartupError
from ..option_values import FleetShare
from .pool import Pool
from .pool_registry import PoolRegistry

_NAMED_ADDRESSES = 5
"""How many addresses an error lists."""


def with_share(pool: Pool, share: FleetShare | None) -> Pool:
    """
    *pool* with the host's share. A DHCP server chooses addresses by itself, and the nodes of a swarm request those of a
    manager's pool again: neither has a share.

    :raises RequestRefused: the range has fewer addresses than the fleet has parts.
    """
    shared = evolve(pool, fleet_share=None if pool.dhcp or pool.is_global else share)
    if shared.fleet_share is not None and shared.span.size < 1:
        raise RequestRefused(
            f"pool {shared.described()} has {shared.whole_span.size} addresses, too few for --fleet-share {share}: use a larger "
            "--subnet or --ip-range, or --fleet-share with fewer parts"
        )
    return shared


def refuse_other_share(pool: Pool, address: IPAddress) -> None:
    """
    :raises RequestRefused: *address* is in the part of another host, which may allocate it at any time.
    """
    if pool.is_in_other_share(int(address)):
        first, last = pool.address(pool.span.first), pool.address(pool.span.last)
        unshared = f", or one of {pool.prefix} outside {pool.part}" if pool.part is not None else ""
        # Remedy: use an address in this host's part, or one that is in no host's part.
        raise RequestRefused(
            f"address {address} of {pool.prefix} belongs to another host, because this one has --fleet-share {pool.fleet_share}: "
            f"use one from {first} to {last}{unshared}"
        )


class StoredShares:
    """The shares of the pools that the state contains, at start, when the service may have another one."""

    def __init__(self, pools: PoolRegistry, share: FleetShare | None) -> None:
        self._pools = pools
        self._share = share

    def check(self) -> None:
        """
        :raises StartupError: a pool cannot get the service's share. To go on with the stored one could allocate an address
            that belongs to another host by now.
        """
        for pool in self._pools.by_id.values():
            self._changed(pool)

    async def apply(self) -> None:
        """
        Give all pools the service's share, after :meth:`check`.

        :raises StateError: the disk refuses.
        """
        for pool in list(self._pools.by_id.values()):
            changed = self._changed(pool)
            if changed != pool:
                await self._pools.save_pool(changed)
                self._pools.index.put(changed)

    def _changed(self, pool: Pool) -> Pool:
        try:
            changed = with_share(pool, self._share)
        except RequestRefused as refusal:
            raise StartupError(str(refusal)) from None
        if changed.fleet_share == pool.fleet_share:
            return pool
        numbers = sorted(self._pools.set_of(pool).endpoints.get(pool.pool_id, ()))
        outside = [str(pool.address(each)) for each in numbers if changed.is_in_other_share(each)]
        if outside:
            addresses = ", ".join(outside[:_NAMED_ADDRESSES]) + (
                ", ..." if outside[_NAMED_ADDRESSES:] else ""
            )
            before = f"--fleet-share {pool.fleet_share}" if pool.fleet_share else "no --fleet-share"
            # Remedy: start the plugin with the earlier --fleet-share, remove the containers with the named ADDRESSES, then change
            # the option.
            raise StartupError(
                f"--fleet-share {self._share} is not possible while containers have addresses outside that part of pool "
                f"{pool.described()}: {addresses}; start the plugin with {before} as before, remove these containers, then "
                "change the option"
            )
        return changed
