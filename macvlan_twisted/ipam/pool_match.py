"""Finds the pool of a network: CreateNetwork names the network's subnets and auxiliary addresses, but not its pools."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from attrs import frozen

from ..addresses import IPAddress, IPNetwork
from ..errors import RequestRefused
from .new_pools import NewPools
from .options import OPTIONS
from .pool import Pool, reported_subnet
from .pool_registry import PoolRegistry

_SHARED_OPTIONS = frozenset(option.attribute for option in OPTIONS if option.attribute != "parent")
"""Options of pools whose value is a member of :class:`Pool`. Some are options of networks, too (``-o``)."""
_LEASE_OPTIONS = frozenset({"dhcp", "dhcp_release", "dhcp_vendor_class"})


@frozen
class Match:
    """The pool of a network, and the pools that are not new any more: it, and all others that could be meant."""

    pool: Pool | None
    not_new: tuple[Pool, ...] = ()


class PoolMatch:
    """Matches pools and networks, which may be created in parallel."""

    def __init__(self, pools: PoolRegistry, new_pools: NewPools) -> None:
        self._pools = pools
        self._new_pools = new_pools
        self._meant: dict[str, str] = {}
        """By pool id: the network that a pool probably belongs to, though others fit, too."""

    def refuse_other_parent(
        self, network_id: str, parents: Collection[str], subnet: IPNetwork, auxiliary: Collection[IPAddress]
    ) -> None:
        """
        :raises RequestRefused: every pool that may be the network's was requested for another parent.
        """
        found = self._candidates(network_id, subnet, auxiliary)
        if found and not any(each.fits(parents) for each in found):
            raise RequestRefused(
                f"--ipam-opt parent={found[0].parent} and the network's parent {' or '.join(sorted(parents))} differ, so addresses "
                f"of pool {found[0].described()} would be looked for on another LAN: give the same parent in -o parent= and "
                "--ipam-opt parent="
            )

    def refuse_other_options(
        self,
        network_id: str,
        parents: Collection[str],
        subnet: IPNetwork,
        auxiliary: Collection[IPAddress],
        options: Mapping[str, object],
    ) -> None:
        """
        :param options: those of the network that its user set, by name.
        :raises RequestRefused: one of them is an option of pools, too, and every pool that may be the network's has another
            value: it would have no effect.
        """
        wanted = {name: value for name, value in options.items() if name in _SHARED_OPTIONS}
        if subnet.version == 6:  # leases are of IPv4
            wanted = {name: value for name, value in wanted.items() if name not in _LEASE_OPTIONS}
        found = [
            each
            for each in self._candidates(network_id, subnet, auxiliary)
            if each.fits(parents) and not each.is_global
        ]
        lacking = [{name for name in wanted if getattr(each, name) != wanted[name]} for each in found]
        if found and all(lacking):
            option, value = next((each, wanted[each]) for each in wanted if each in lacking[0])
            text = str(value).lower() if isinstance(value, bool) else str(value)
            raise RequestRefused(
                f"-o {option}={text} has no effect where this plugin manages the addresses, and pool {found[0].described()} was "
                f"requested without --ipam-opt {option}={text}: add that. Docker Compose drops ipam.options: create the network "
                "with docker network create and name it as external in the compose file, or start the plugin with "
                f"--{option.replace('_', '-')} {text}"
            )

    def find(
        self, network_id: str, parents: Collection[str], subnet: IPNetwork, auxiliary: Collection[IPAddress]
    ) -> Match:
        """
        Find the pool of a network for which CreateNetwork has come: that of an earlier call; else of the pools that fit the
        one on the right parent, and of those the newest.
        """
        found = self._candidates(network_id, subnet, auxiliary)
        if network_id and any(each.network_id == network_id for each in found):
            return Match(None)
        before = [each for each in found if self._is_meant(each, network_id)]
        if before:
            return Match(before[0])
        fitting = [each for each in found if each.fits(parents)]
        exact = [each for each in fitting if self._new_pools.named(each.pool_id) == set(auxiliary)]
        new = [each for each in fitting if self._new_pools.is_new(each.pool_id)]
        choice = exact or new or (fitting if len(fitting) == 1 else [])
        if not choice:
            return Match(None)
        chosen = min(
            choice,
            key=lambda pool: (
                not self._new_pools.is_young(pool.pool_id),
                pool.lan_parent not in parents,
            ),
        )
        if network_id:
            self._meant[chosen.pool_id] = network_id
        return Match(chosen, (chosen, *exact))

    def _candidates(self, network_id: str, subnet: IPNetwork, auxiliary: Collection[IPAddress]) -> list[Pool]:
        """The pools that may be a network's on any parent, the newest first. They have its auxiliary addresses."""
        self._meant = {key: meant for key, meant in self._meant.items() if key in self._pools.by_id}
        return [
            pool
            for pool in reversed(self._pools.by_id.values())
            if reported_subnet(pool) == subnet
            and not pool.stands_for
            and pool.network_id in (None, network_id)
            and self._meant.get(pool.pool_id, network_id) == network_id
            and self._has_all(pool, auxiliary)
        ]

    def _is_meant(self, pool: Pool, network_id: str) -> bool:
        return bool(network_id) and self._meant.get(pool.pool_id) == network_id

    def _has_all(self, pool: Pool, addresses: Collection[IPAddress]) -> bool:
        shared = self._pools.set_of(pool)
        return all(shared.holds(pool.pool_id, int(each)) for each in addresses)

    def only_candidate(
        self, network_id: str, parent: str, subnet: IPNetwork, auxiliary: Collection[IPAddress]
    ) -> Pool | None:
        """The pool of a network, if no other can be it, whatever was found before."""
        found = [
            pool
            for pool in self._pools.by_id.values()
            if reported_subnet(pool) == subnet
            and not pool.is_left_alone
            and pool.network_id is None
            and (pool.fits({parent}) or self._is_meant(pool, network_id))
            and self._has_all(pool, auxiliary)
        ]
        return found[0] if len(found) == 1 else None

    def pools_for_host(
        self, network_id: str, parent: str, subnet: IPNetwork, auxiliary: frozenset[IPAddress]
    ) -> list[Pool]:
        """
        The pools that may belong to a network that is being created. The engine does not state which one does, and networks
        are created in parallel. All of them share one set of addresses.
        """
        fitting = [
            each
            for each in self._candidates(network_id, subnet, auxiliary)
            if each.fits({parent}) or self._is_meant(each, network_id)
        ]
        fitting.sort(key=lambda pool: (not self._is_meant(pool, network_id), pool.lan_parent != parent))
        return [pool for pool in fitting if pool.shared_set == fitting[0].shared_set]

    def settle(self, match: Match) -> None:
        for pool in match.not_new:
            self._new_pools.settled(pool.pool_id)
