"""
The pools' part in a fleet of hosts: an address is claimed for this host before it is allocated here.

Address management works the same without a fleet: then every address counts as claimed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sortedcontainers import SortedList

from ..addresses import IPAddress
from ..errors import RequestRefused
from ..fleet.interfaces import Claim, ClaimState, Entry, FleetUnavailable, SharedAddress
from ..fleet.own_claims import OwnClaims, described
from ..fleet.reserve import reserve_size
from .pool import Pool
from .pool_registry import PoolRegistry

REST = 300.0
"""Seconds for which a released address is left to its container, before it is used for another one or given back."""

Key = tuple[str, IPAddress]


class ClaimedElsewhere(RequestRefused):
    """Another host of the fleet has the address."""


class FleetAddresses:
    """:param own_claims: ``None`` without a fleet. :param clock: ``IReactorTime``"""

    def __init__(self, own_claims: OwnClaims | None, pools: PoolRegistry, clock: Any) -> None:
        self.own_claims = own_claims
        self._pools = pools
        self._clock = clock
        self._rests_until: dict[Key, float] = {}
        self._being_allocated: Counter[Key] = Counter()

    def load(self) -> None:
        """
        Read the state at start.

        :raises StateError: a row cannot be decoded.
        """
        if self.own_claims is not None:
            self.own_claims.rows.load()

    def takes_part(self, pool: Pool) -> bool:
        """Whether the addresses of *pool* are claimed: not those of a DHCP server, and not those that a swarm's nodes request."""
        return self.own_claims is not None and not pool.dhcp and not pool.is_global

    def pools_of(self, lan: str, address: IPAddress) -> list[Pool]:
        return [
            pool
            for pool in self._pools.index.containing(address)
            if pool.lan == lan and self.takes_part(pool)
        ]

    def in_use(self) -> Iterator[Key]:
        """All addresses that containers and the host itself have, in pools that take part."""
        for pool in self._pools.by_id.values():
            if self.takes_part(pool):
                shared = self._pools.set_of(pool)
                hosts = {number for pool_id, number in shared.hosts if pool_id == pool.pool_id}
                for number in (*shared.endpoints.get(pool.pool_id, ()), *hosts):
                    yield pool.lan, pool.address(number)

    def reserved(self) -> Iterator[Key]:
        """All gateway and auxiliary addresses of pools that take part."""
        for pool in self._pools.by_id.values():
            if self.takes_part(pool):
                shared = self._pools.set_of(pool)
                for number, holders in shared.reserved.items():
                    if pool.pool_id in holders and (pool.pool_id, number) not in shared.hosts:
                        yield pool.lan, pool.address(number)

    # What may be chosen.

    def barred(self, pool: Pool) -> list[SortedList]:
        """The addresses that another host has, and those of forgotten claims of this host, as numbers."""
        if self.own_claims is None or not self.takes_part(pool):
            return []
        version = pool.prefix.version
        strays = self.own_claims.strays
        numbers = [int(each) for lan, each in strays if (lan, each.version) == (pool.lan, version)]
        return [self.own_claims.mirror.elsewhere(pool.lan, version), SortedList(numbers)]

    def may_claim(self, pool: Pool) -> bool:
        """Whether an address that is not claimed yet may be chosen."""
        return self.own_claims is None or not self.takes_part(pool) or not self.own_claims.unavailable

    @property
    def unavailable(self) -> str:
        """Why no address can be claimed now; empty if one can."""
        return "" if self.own_claims is None else self.own_claims.unavailable

    def next_spare(self, pool: Pool) -> int | None:
        """
        A claimed address in the range of *pool* that nothing uses. Resting ones are left to their containers, unless no other
        address can be claimed.
        """
        if not self.takes_part(pool):
            return None
        resting = None
        for number in self.spare(pool):
            if not self.is_resting(pool.lan, pool.address(number)):
                return number
            resting = number if resting is None else resting
        return None if self.may_claim(pool) else resting

    def is_resting(self, lan: str, address: IPAddress) -> bool:
        """Whether its container has released *address* a short time ago."""
        until = self._rests_until.get((lan, address))
        if until is not None and until <= self._clock.seconds():
            del self._rests_until[lan, address]
            until = None
        return until is not None

    def spare(self, pool: Pool) -> Iterator[int]:
        """The claimed addresses in the range of *pool* that are neither allocated nor held for the next container."""
        assert self.own_claims is not None
        taken = self._pools.set_of(pool).taken
        owned = self.own_claims.rows.owned_numbers(pool.lan, pool.prefix.version)
        for number in owned.irange(pool.span.first, pool.span.last):
            if number not in taken:
                yield number

    def reserve_size(self, pool: Pool, wanted: int, free: int) -> int:
        """
        How many addresses to hold for the next containers.

        :param wanted: how many without a fleet. :param free: how many nobody has, with those that are held.
        """
        if self.own_claims is None or not self.takes_part(pool):
            return wanted
        return reserve_size(wanted, free, pool.span.size, len(self.own_claims.mirror.known))

    # Claims.

    async def claim_ahead(self, pool: Pool, address: IPAddress) -> bool:
        """
        Claim *address* for one of the next containers.

        :return: whether it is ours now; not if another host has it.
        :raises FleetUnavailable: the fleet's store does not answer. :raises StateError: the disk refuses.
        """
        if self.own_claims is None or not self.takes_part(pool):
            return True
        return await self.own_claims.claim(pool.lan, address) is None

    async def claim(self, pool: Pool, address: IPAddress, container: str = "") -> bool:
        """
        Claim *address* for a container that asks for it; a host that does not use it any more hands it over.

        :return: whether another host had it until now.
        :raises ClaimedElsewhere: another host has it. :raises RequestRefused: the fleet's store does not answer.
        """
        if self.own_claims is None or not self.takes_part(pool):
            return False
        before = self.own_claims.mirror.entry(pool.lan, address)
        try:
            entry = await self.own_claims.claim(pool.lan, address, container, asks_owner=True)
        except FleetUnavailable as failure:
            raise _unavailable_error(pool, str(failure)) from failure
        if isinstance(entry, SharedAddress) and pool.network_id is None:
            # It may be an auxiliary address of a new network.
            await self.share(pool, address)
        elif entry is not None:
            raise self._elsewhere_error(address, entry)
        return isinstance(before, Claim) and before.owner != self.own_claims.host

    def former_claim(self, pool: Pool, container: str) -> Claim | None:
        """What *container* had last on another host, in the range of *pool*, if it does not run there any more."""
        if self.own_claims is None or not self.takes_part(pool) or not container:
            return None
        mirror = self.own_claims.mirror
        for claim in mirror.last_claims(pool.lan, container):
            is_usable = claim.address.version == pool.prefix.version and pool.span.contains(
                int(claim.address)
            )
            is_used = claim.state is ClaimState.USED and mirror.is_alive(claim.owner)
            if is_usable and mirror.is_elsewhere(claim) and not is_used:
                return claim
        return None

    async def share(self, pool: Pool, address: IPAddress) -> None:
        """
        Reserve a gateway or auxiliary address.

        :raises ClaimedElsewhere: a host has it for a container. :raises RequestRefused: the fleet's store does not answer.
        """
        if self.own_claims is None or not self.takes_part(pool):
            return
        try:
            entry = await self.own_claims.share(pool.lan, address)
        except FleetUnavailable as failure:
            raise _unavailable_error(pool, str(failure)) from failure
        if entry is not None:
            raise self._elsewhere_error(address, entry)

    # What becomes of allocated addresses.

    @contextmanager
    def allocating(self, pool: Pool, address: IPAddress) -> Iterator[None]:
        """Surround an allocation: meanwhile the claim is not given up."""
        key = pool.lan, address
        self._being_allocated[key] += 1
        try:
            yield
        finally:
            self._being_allocated[key] -= 1
            if not self._being_allocated[key]:
                del self._being_allocated[key]

    def is_being_allocated(self, lan: str, address: IPAddress) -> bool:
        return (lan, address) in self._being_allocated

    def allocated(self, pool: Pool, address: IPAddress) -> None:
        if self.own_claims is not None and self.takes_part(pool):
            self._rests_until.pop((pool.lan, address), None)
            self.own_claims.use_changed(pool.lan, address)

    def released(self, pool: Pool, address: IPAddress) -> None:
        if self.own_claims is not None and self.takes_part(pool):
            self._rests_until[pool.lan, address] = self._clock.seconds() + REST
            self.own_claims.use_changed(pool.lan, address)

    def _elsewhere_error(self, address: IPAddress, entry: Entry) -> ClaimedElsewhere:
        remedy = "use another address"
        if isinstance(entry, SharedAddress):
            pass
        elif self.own_claims is not None and entry.owner == self.own_claims.host:
            remedy = "this host gives it up in ten minutes; use another address until then"
        elif self.own_claims is not None and not self.own_claims.mirror.is_alive(entry.owner):
            remedy = f"start that host, or if it is gone for good, run 'macvlan-twisted fleet forget {entry.owner.name}'"
            if self.own_claims.takes_over:
                self.own_claims.of_silent_hosts.put(entry)
                remedy += (
                    "; when it has been silent for ten minutes, the address is taken over within a minute"
                )
        elif entry.state is ClaimState.USED:
            remedy = "remove that container first, or use another address"
        else:
            remedy = "that host did not hand it over in time: try again"
        return ClaimedElsewhere(f"address {address} belongs to {described(entry)}: {remedy}")


def no_claim_error(pool: Pool, reason: str) -> RequestRefused:
    """No address is claimed ahead, and none can be claimed."""
    return RequestRefused(
        f"this host has no spare address in pool {pool.described()}, and cannot claim one: {reason}; "
        "start etcd, or remove a container of this host"
    )


def _unavailable_error(pool: Pool, reason: str) -> RequestRefused:
    return RequestRefused(
        f"the fleet cannot be asked about the address in pool {pool.described()}: {reason}; start etcd, or leave --ip out"
    )
