"""What this host does with the addresses that it has claimed in the fleet: the answers to the fleet's session."""

from __future__ import annotations

from collections.abc import Iterator

from ..addresses import IPAddress
from ..display_names import DisplayNames
from ..fleet.address_users import AddressUse
from ..fleet.interfaces import Claim, ClaimState
from ..lan.address_probe import Free
from ..lan.conflicts import Conflicts, Holder
from ..netlink.links import Links
from ..option_values import ConflictDetection
from .endpoint_claims import EndpointClaims
from .fleet_addresses import FleetAddresses
from .identity import StickyAddresses
from .pool import Pool
from .pool_registry import PoolRegistry
from .prefetch_queue import PrefetchQueue
from .selection import AddressSelection

_PROBER = Holder("fleet")


class FleetUsers:
    """See :class:`~macvlan_twisted.fleet.address_users.AddressUsers`."""

    def __init__(
        self,
        pools: PoolRegistry,
        fleet: FleetAddresses,
        selection: AddressSelection,
        prefetch: PrefetchQueue,
        sticky_addresses: StickyAddresses,
        claims: EndpointClaims,
        names: DisplayNames,
        conflicts: Conflicts,
        links: Links,
    ) -> None:
        self._pools = pools
        self._fleet = fleet
        self._selection = selection
        self._prefetch = prefetch
        self._sticky_addresses = sticky_addresses
        self._claims = claims
        self._names = names
        self._conflicts = conflicts
        self._links = links

    def use_of(self, lan: str, address: IPAddress) -> AddressUse:
        state = ClaimState.RESTING if self._fleet.is_resting(lan, address) else ClaimState.RESERVE
        container = mac = ""
        for pool in self._fleet.pools_of(lan, address):
            if self._is_used(pool, address):
                state = ClaimState.USED
            sticky = self._sticky_addresses.of_address(pool.pool_id, address)
            if sticky is not None:
                container, mac = sticky.name, sticky.mac
            else:  # engines before 29 do not send the name, but list it
                endpoint_id = self._claims.user(pool.pool_id, int(address)) or ""
                container = container or self._names.containers.get(endpoint_id, "")
        return AddressUse(state, container, mac)

    def container_named(self, endpoint_id: str) -> None:
        """The engine has listed the container of an endpoint: the fleet is told its name."""
        for pool_id, number in self._claims.of_endpoint(endpoint_id):
            pool = self._pools.by_id.get(pool_id)
            if pool is not None:
                self._fleet.allocated(pool, pool.address(number))

    def take(self, lan: str, address: IPAddress) -> bool:
        return all(
            not self._is_used(pool, address) and self._selection.give_up(pool, address)
            for pool in self._fleet.pools_of(lan, address)
        )

    def _is_used(self, pool: Pool, address: IPAddress) -> bool:
        """Whether *address* is allocated, or about to be."""
        is_allocated = self._pools.set_of(pool).is_allocated(int(address))
        return is_allocated or self._fleet.is_being_allocated(pool.lan, address)

    def is_shared(self, lan: str, address: IPAddress) -> bool:
        return self._fleet.is_being_allocated(lan, address) or any(
            int(address) in self._pools.set_of(pool).reserved for pool in self._fleet.pools_of(lan, address)
        )

    def allocated(self) -> Iterator[tuple[str, IPAddress]]:
        return self._fleet.in_use()

    def reserved(self) -> Iterator[tuple[str, IPAddress]]:
        return self._fleet.reserved()

    def surplus(self) -> Iterator[tuple[str, IPAddress]]:
        """Those of no pool, and those that their pools neither hold nor need."""
        pools = [pool for pool in self._pools.by_id.values() if self._fleet.takes_part(pool)]
        needed: set[tuple[str, IPAddress]] = set()
        for pool in pools:
            self._selection.shrink(pool)
            missing = self._selection.missing(pool)
            for number in self._fleet.spare(pool):
                key = pool.lan, pool.address(number)
                if missing > 0 or self._fleet.is_resting(*key):
                    needed.add(key)
                    missing -= 1
        for row in self._fleet.own_claims.rows.owned() if self._fleet.own_claims is not None else ():
            if row.key not in needed and not any(
                self._holds(pool, row.address) for pool in self._fleet.pools_of(*row.key)
            ):
                yield row.key

    def _holds(self, pool: Pool, address: IPAddress) -> bool:
        """Whether *address* is allocated, or held for the next container."""
        return self._is_used(pool, address) or self._selection.is_held(pool, address)

    async def is_abandoned(self, claim: Claim) -> bool:
        if claim.mac and claim.mac in await self._macs():
            return False
        pools = self._fleet.pools_of(claim.lan, claim.address)
        return await self._is_free(
            claim.address, [pool for pool in pools if pool.conflict_detection != ConflictDetection.OFF]
        )

    async def is_silent(self, claim: Claim) -> bool:
        pools = self._fleet.pools_of(claim.lan, claim.address)
        may_probe = bool(pools) and all(each.conflict_detection != ConflictDetection.OFF for each in pools)
        return may_probe and await self._is_free(claim.address, pools)

    async def _is_free(self, address: IPAddress, pools: list[Pool]) -> bool:
        """Whether nobody on the LANs of *pools* has *address*."""
        for parent in {pool.lan_parent for pool in pools}:
            verdict = await self._conflicts.hold(parent, address, _PROBER)
            self._conflicts.release(parent, address, _PROBER.name)
            if not isinstance(verdict, Free):
                return False
        return True

    async def _macs(self) -> set[str]:
        """Of the links in all namespaces that this host can see."""
        here, elsewhere = await self._links.all(), await self._links.elsewhere()
        return {link.mac for link in here} | {link.mac for link in elsewhere}

    def refill(self) -> None:
        self._prefetch.prepare_all()
