"""
Finds the pools of a network, binds them to it, and reserves the host's address in them.

The engine requests pools before it creates the network, and never states which pools a network uses: CreateNetwork names the
network's subnets and auxiliary addresses. Networks of other drivers may use our pools, too. So a pool is bound to a network
only if no other pool fits the network, or if a new endpoint of the network has an address of the pool. Only addresses of bound
pools are released without a call of the engine.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

from attrs import evolve, frozen
from twisted.logger import Logger

from ..addresses import IPAddress, IPNetwork
from ..errors import LinkError, NotFound, RequestRefused, StateError
from ..keyed_lock import KeyedLock
from ..state.interfaces import Allocation
from .allocations import Allocations
from .endpoint_claims import EndpointClaims
from .new_pools import NewPools
from .options import OPTIONS
from .pool import Pool, pool_released_error
from .pool_registry import PoolRegistry
from .requests import Purpose
from .selection import AddressSelection

_log = Logger(namespace="macvlan_twisted.ipam")

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
                f"--ipam-opt parent={found[0].parent} is not the network's parent "
                f"{' or '.join(sorted(parents))} (pool {found[0].described()}): use the same parent in "
                "-o parent= and --ipam-opt parent="
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
                f"-o {option}={text} alone has no effect, because the plugin's IPAM manages the addresses (pool "
                f"{found[0].described()}): add --ipam-opt {option}={text} as well. Docker Compose drops ipam.options: create the network with docker "
                f"network create and use it as an external network, or start the plugin with --{option.replace('_', '-')} {text}"
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
        if len(self._meant) > 2 * len(self._pools.by_id):  # most are of pools that are released
            self._meant = {key: meant for key, meant in self._meant.items() if key in self._pools.by_id}
        return [
            pool
            for pool in reversed(self._pools.index.reported_as(subnet))
            if not pool.rebuilt_for
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
            for pool in self._pools.index.reported_as(subnet)
            if not pool.is_untracked
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


class PoolBinding:
    """:param locks: keyed by pool id."""

    def __init__(
        self,
        pools: PoolRegistry,
        match: PoolMatch,
        locks: KeyedLock,
        allocations: Allocations,
        selection: AddressSelection,
        claims: EndpointClaims,
    ) -> None:
        self._pools = pools
        self._match = match
        self._locks = locks
        self._allocations = allocations
        self._selection = selection
        self._claims = claims

    async def network_requested(
        self,
        network_id: str,
        parent: str,
        named_parent: str | None,
        subnets: Iterable[tuple[IPNetwork, Collection[IPAddress]]],
        options: Mapping[str, object],
    ) -> None:
        """See :class:`~macvlan_twisted.driver.networks.NetworkPools`."""
        parents = {parent, named_parent or parent}
        subnets = list(subnets)
        for subnet, auxiliary in subnets:
            self._match.refuse_other_parent(network_id, parents, subnet, auxiliary)
            self._match.refuse_other_options(network_id, parents, subnet, auxiliary, options)
        for subnet, auxiliary in subnets:
            match = self._match.find(network_id, parents, subnet, auxiliary)
            try:
                if match.pool is not None:
                    await self._confirm_purposes(match.pool, auxiliary)
            finally:
                self._match.settle(match)

    async def _confirm_purposes(self, pool: Pool, auxiliary: Collection[IPAddress]) -> None:
        """Say of each address that was named in *pool* whether it is auxiliary or a container's."""
        shared = self._pools.set_of(pool)
        for number in [number for pool_id, number in shared.unconfirmed if pool_id == pool.pool_id]:
            if pool.address(number) not in auxiliary:
                await self._allocations.confirm_purpose(pool, pool.address(number), is_auxiliary=False)
        for address in auxiliary:
            await self._allocations.confirm_purpose(pool, address, is_auxiliary=True)

    async def network_created(
        self,
        parent: str,
        subnets: Iterable[tuple[IPNetwork, Iterable[IPAddress]]],
        network_id: str = "",
    ) -> None:
        """
        A network of our driver is created: from now on a requested address of its pools is a container's.

        :param parent: the network's parent. A pool for which the user named none moves there.
        :param subnets: each with its auxiliary addresses. Both distinguish its pool from that of another network on the same
            subnet that is created in parallel.
        :param network_id: bind the network's pools to this id, so that their orphaned addresses are released.
        """
        for subnet, addresses in subnets:
            auxiliary = frozenset(addresses)
            only = self._match.only_candidate(network_id, parent, subnet, auxiliary) if network_id else None
            match = self._match.find(network_id, {parent}, subnet, auxiliary)
            self._match.settle(match)
            if only is not None:
                await self.assign_network(only.pool_id, network_id)
            if match.pool is not None and match.pool.pool_id in self._pools.by_id:
                await self._ensure_parent(self._pools.by_id[match.pool.pool_id], parent)

    async def _ensure_parent(self, pool: Pool, parent: str) -> None:
        if pool.lan_parent != parent:
            # Another call may change the pool at the same time, or release it.
            async with self._locks.acquire(pool.pool_id):
                before = self._pools.by_id.get(pool.pool_id)
                if before is None:
                    return
                pool = before if before.lan_parent == parent else await self._move(before, parent)
        self._selection.prepare(pool)

    async def _move(self, pool: Pool, parent: str) -> Pool:
        """Log errors instead of raising them: the kernel may have the network already, and the engine would not delete it."""
        _log.info(
            "pool {pool}: probes addresses on {parent}, the network's parent, instead of {other_parent}; add "
            "--ipam-opt parent={parent} if several networks on {parent} are to share this subnet",
            pool=pool.described(),
            other_parent=pool.parent or "no parent",
            parent=parent,
        )
        moved = evolve(pool, network_parent=parent)
        try:
            await self._pools.save_pool(moved)
        except StateError as failure:
            # Cause: writing the state failed; the plugin remembers the parent until it stops. Remedy: free
            # space on the disk of the state directory.
            _log.error(
                "pool {pool}: cannot save its parent ({reason})", pool=pool.described(), reason=str(failure)
            )
        self._selection.forget(pool)
        self._pools.index.put(moved)
        try:
            await self._selection.disuse_lan(pool)
        except LinkError as failure:
            # Cause: the kernel refused to remove the plugin's link. Remedy: none needed; the plugin removes it at its
            # next start.
            _log.error(
                "pool {pool}: cannot stop using parent {parent} ({reason})",
                pool=pool.described(),
                parent=pool.lan_parent,
                reason=str(failure),
            )
        self._selection.use_lan(moved)
        return moved

    async def reserve_for_host(
        self,
        network_id: str,
        parent: str,
        subnet: IPNetwork,
        auxiliary: Collection[IPAddress],
        wanted: IPAddress | None,
        preferred: Sequence[IPAddress],
    ) -> IPAddress:
        """See :class:`~macvlan_twisted.driver.host_addresses.HostPools`. Called while the network is being created."""
        pools = self._match.pools_for_host(network_id, parent, subnet, frozenset(auxiliary))
        if not pools:
            raise NotFound(
                f"pool {subnet} is not known to the plugin: remove the network and create it again"
            )
        found = pools
        for each in found:
            await self._ensure_parent(each, parent)
        pools = [self._pools.by_id[each.pool_id] for each in found if each.pool_id in self._pools.by_id]
        if not pools:
            raise pool_released_error(found[0])
        address = wanted
        if address is None:
            address = next((each for each in preferred if each in pools[0].prefix), None)
        if address is None and pools[0].dhcp:
            raise RequestRefused(
                f"host access needs an address for the host in {pools[0].prefix}, where a DHCP server "
                "assigns the containers' addresses: specify one outside the DHCP server's range with -o "
                "host_address=ADDRESS, or use -o host_access=false"
            )
        if address is None:
            address = await self._selection.next(pools[0], checks_later=False)
        else:
            self._selection.refuse_outside(pools[0], address, Purpose.HOST)
            self._selection.refuse_taken(pools[0], address, Purpose.HOST)
            if wanted is not None:
                await self._selection.refuse_used_by_others(pools[0], address, checks_later=False)
        for pool in pools:
            await self._allocations.allocate(
                pool, Allocation(pool.pool_id, address, Purpose.HOST.value), advances=False
            )
        _log.debug(
            "address {address}: allocated from pool {pool} ({purpose})",
            address=address,
            pool=pools[0].described(),
            purpose=Purpose.HOST.value,
        )
        return address

    async def assign_network(self, pool_id: str, network_id: str) -> None:
        await self._change(pool_id, lambda pool: evolve(pool, network_id=network_id))
        pool = self._pools.by_id.get(pool_id)
        if pool is not None:
            for number in self._pools.set_of(pool).endpoints.get(pool_id, ()):
                if self._claims.pending_since(pool_id, number) is None:
                    self._claims.begin_pending(pool_id, number)

    async def is_listed_by(self, pool_id: str, engine_id: str) -> None:
        """Store the engine that last listed a network with the pool."""
        await self._change(pool_id, lambda pool: evolve(pool, engine_id=engine_id))

    async def _change(self, pool_id: str, change: Callable[[Pool], Pool]) -> None:
        async with self._locks.acquire(pool_id):
            pool = self._pools.by_id.get(pool_id)
            if pool is None or change(pool) == pool:
                return
            try:
                await self._pools.save_pool(change(pool))
            except StateError as failure:
                # The next observation stores it. Until then, the reconciler releases nothing of the pool.
                # Cause: writing the state failed; the plugin tries again. Remedy: free space on the disk of the state
                # directory.
                _log.error(
                    "pool {pool}: cannot save which network it belongs to ({reason})",
                    pool=pool_id,
                    reason=str(failure),
                )
                return
            if pool_id in self._pools.by_id:
                self._pools.index.put(change(self._pools.by_id[pool_id]))
