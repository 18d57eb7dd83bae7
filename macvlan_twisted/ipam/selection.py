"""Selects a container's address, and refuses requested addresses that are not available."""

from __future__ import annotations

from typing import Any

from sortedcontainers import SortedList
from twisted.logger import Logger

from ..addresses import IPAddress
from ..config import Config
from ..demand import Demand
from ..errors import RequestRefused
from ..lan.conflicts import Conflicts, Holder, Inconclusive, InUse, Verdict
from ..option_values import ConflictDetection, IdentitySource
from ..state.interfaces import StickyAddress
from .allocator import AddressSearch, count_excluded, excluded_spans, next_free, usable_span
from .fleet_addresses import FleetAddresses
from .pool import Pool, pool_released_error
from .pool_registry import PoolRegistry
from .prefetch import AddressPrefetch, inconclusive_error
from .previous_owners import PreviousOwners
from .requests import Purpose

_log = Logger(namespace="macvlan_twisted.ipam")


class AddressSelection:
    """
    Selects from the sets of addresses, after probing the LAN.

    :param probe_seconds: the longest duration of a probe. :param clock: ``IReactorTime``
    """

    def __init__(
        self,
        config: Config,
        pools: PoolRegistry,
        conflicts: Conflicts,
        owners: PreviousOwners,
        fleet: FleetAddresses,
        probe_seconds: float,
        clock: Any,
    ) -> None:
        self._pools = pools
        self._fleet = fleet
        self._probe_seconds = probe_seconds
        self._clock = clock
        self._owners = owners
        self._conflicts = conflicts
        self._prefetches: dict[tuple[str, str], AddressPrefetch] = {}
        """By cursor key and parent: pools with the same ones share the prefetched addresses."""
        self._excluded = {
            version: excluded_spans(config.excluded, config.gateways, version) for version in (4, 6)
        }

    def use_lan(self, pool: Pool) -> None:
        """Listen on the LAN of *pool*'s parent, if the pool uses conflict detection or DHCP."""
        if pool.conflict_detection != ConflictDetection.OFF or pool.dhcp:
            self._conflicts.monitors.use(pool.lan_parent, f"pool {pool.pool_id}", pool.prefix)

    async def disuse_lan(self, pool: Pool) -> None:
        await self._conflicts.monitors.disuse(f"pool {pool.pool_id}")

    def prepare(self, pool: Pool) -> None:
        """Start prefetching addresses for the next containers."""
        if self._is_prefetched(pool):
            self._prefetch_for(pool).fill()

    async def prepare_and_wait(self, pool: Pool) -> None:
        """Prefetch addresses, and wait until their probes have ended."""
        self.prepare(pool)
        prefetch = self._prefetches.get(_key(pool))
        if prefetch is not None:
            await prefetch.settled()

    def was_inconclusive(self, pool: Pool) -> bool:
        """Whether the last probe of the pool's prefetch could not run."""
        prefetch = self._prefetches.get(_key(pool))
        return prefetch is not None and bool(prefetch.reason)

    def stop(self) -> None:
        """Leave no delayed call behind."""
        for prefetch in self._prefetches.values():
            prefetch.stop()

    def close(self, pool: Pool) -> None:
        """The pool is released; its set of addresses still exists."""
        others = self._pools.sharing_with(pool)
        self.forget(pool)
        if not others:
            self._conflicts.table.forget_within(pool.lan_parent, pool.prefix)

    def forget(self, pool: Pool) -> None:
        """Drop the prefetched addresses of *pool* on its parent, unless another pool uses them there."""
        if _key(pool) in [_key(each) for each in self._pools.sharing_with(pool)]:
            return
        prefetch = self._prefetches.pop(_key(pool), None)
        if prefetch is not None:
            prefetch.close()

    def is_held(self, pool: Pool, address: IPAddress) -> bool:
        """Whether *address* is probed or held for the next container."""
        return any(prefetch.has(int(address)) for prefetch in self._prefetches_of(pool))

    def give_up(self, pool: Pool, address: IPAddress) -> bool:
        """
        Do not hold *address* for the next container any more.

        :return: whether that is so now; not while it is being probed, or about to be allocated.
        """
        for prefetch in self._prefetches_of(pool):
            if prefetch.remove_ready(int(address)):
                self._conflicts.release(pool.lan_parent, address, pool.shared_set)
        return not self.is_held(pool, address)

    def shrink(self, pool: Pool) -> None:
        """Hold no more addresses for the next containers than are needed now."""
        prefetch = self._prefetches.get(_key(pool))
        if prefetch is not None:
            prefetch.shrink()

    def missing(self, pool: Pool) -> int:
        """How many addresses for the next containers are neither held nor probed."""
        prefetch = self._prefetches.get(_key(pool))
        return 0 if prefetch is None else prefetch.missing()

    def reserved(self, pool: Pool, address: IPAddress) -> None:
        """*address* is now reserved as a gateway, host or auxiliary address: drop it if it is prefetched."""
        for prefetch in self._prefetches.values():
            if prefetch.pool.shared_set == pool.shared_set and prefetch.remove_ready(int(address)):
                self._conflicts.release(prefetch.pool.lan_parent, address, pool.shared_set)

    async def next(self, pool: Pool, *, checks_later: bool = True) -> IPAddress:
        """
        Select the next free address.

        :param checks_later: whether the caller looks at :meth:`noticed` before it relies on the address.
        :raises RequestRefused: none is left, or probing is inconclusive and ``conflict_detection`` is ``strict``.
        """
        if pool.pool_id not in self._pools.by_id:
            raise pool_released_error(pool)
        if self._is_prefetched(pool):
            address = await self._prefetch_for(pool).next(pool, checks_later)
        else:
            number = self._next_number(pool)
            address = None if number is None else pool.address(number)
        if address is None:
            raise self._exhausted(pool)
        return address

    async def previous(self, pool: Pool, name: str) -> IPAddress | None:
        """
        The address that a container had before, as far as that is known and the address is free.

        :param name: of the container; empty if the engine does not send it.
        :raises RequestRefused: it had the address on another host of the fleet, which does not hand it over.
        """
        if not name:
            address = self._owners.take_for_unnamed(pool.pool_id)
        elif pool.identity == IdentitySource.RANDOM:
            address = None
        else:
            sticky = self._owners.of_name(pool.pool_id, name)
            if sticky is None:
                return await self._from_other_host(pool, name)
            address = sticky.address
        return None if address is None else await self._again(pool, address, name)

    async def _from_other_host(self, pool: Pool, name: str) -> IPAddress | None:
        """The address that the container *name* had on another host of the fleet, with its MAC."""
        claim = self._fleet.former_claim(pool, name)
        if claim is None:
            return None
        await self.refuse_used_by_others(pool, claim.address, container=name)
        self._owners.came_from_other_host(StickyAddress(pool.pool_id, name, claim.address, claim.mac))
        return claim.address

    async def _again(self, pool: Pool, address: IPAddress, name: str) -> IPAddress | None:
        """*address*, which the container *name* had before, if it is still free."""
        if not self._may_choose(pool, address):
            return None  # it was requested with --ip, and is outside the range from which we choose
        try:
            self.refuse_taken(pool, address, Purpose.ENDPOINT)
            await self.refuse_used_by_others(pool, address, container=name)
        except RequestRefused as refusal:
            _log.info(
                "{subject}: does not get its previous address ({reason})",
                subject=f"container {name}" if name else "container that starts again",
                reason=str(refusal),
                **({"container": name} if name else {}),
            )
            return None
        return address

    def release(self, pool: Pool, address: IPAddress, holder: str | None = None) -> None:
        """
        Stop defending *address*. If another host has it, it is not chosen for a while.

        :param holder: release it only if this holder has it.
        """
        self._conflicts.release(pool.lan_parent, address, holder)
        table = self._conflicts.table
        if table.user_of(pool.lan_parent, address) and not table.may_retry(pool.lan_parent, address):
            for prefetch in self._prefetches_of(pool):
                if int(address) not in (*prefetch.ready, *prefetch.probing, *prefetch.verifying):
                    prefetch.quarantine(address)

    def noticed(self, pool: Pool, address: IPAddress) -> str | None:
        """Another host that was noticed with *address* since it was found free, as words; ``None`` if there is none."""
        if pool.conflict_detection == ConflictDetection.OFF:
            return None
        return self._conflicts.noticed(pool.lan_parent, address)

    def refuse_noticed(self, pool: Pool, address: IPAddress) -> None:
        """
        :raises RequestRefused: another host was noticed with *address* after it was allocated.
        """
        foreign_host = self.noticed(pool, address)
        if foreign_host is not None:
            raise RequestRefused(
                f"address {address} is in use on {pool.lan_parent} by {foreign_host}; this was noticed only after "
                "the allocation: start the container again; with --ip, use another address or change "
                "the address of that host"
            )

    def _may_choose(self, pool: Pool, address: IPAddress) -> bool:
        """Whether we may choose *address* for a container of *pool* that did not request it."""
        number = int(address)
        return pool.span.contains(number) and not any(
            each.contains(number) for each in self._excluded[pool.prefix.version]
        )

    def _is_prefetched(self, pool: Pool) -> bool:
        return not pool.dhcp and (
            pool.conflict_detection != ConflictDetection.OFF or self._fleet.takes_part(pool)
        )

    def _prefetch_for(self, pool: Pool) -> AddressPrefetch:
        prefetch = self._prefetches.get(_key(pool))
        if prefetch is None:
            prefetch = self._prefetches[_key(pool)] = AddressPrefetch(
                pool,
                self._pools.set_of(pool),
                AddressSearch(pool.span, lambda after: self._next_number(pool, after)),
                lambda number: any(number in numbers for numbers in self._avoided(pool)),
                self._conflicts,
                self._prefetches.values(),
                lambda: self._count_free(pool),
                self._fleet,
                Demand(self._probe_seconds, self._clock),
                self._clock,
            )
            for address in self._conflicts.table.quarantined(pool.lan_parent):
                prefetch.quarantine(address)
        return prefetch

    def _prefetches_of(self, pool: Pool) -> list[AddressPrefetch]:
        """Those on the pool's parent that share its set of addresses."""
        return [
            each
            for each in self._prefetches.values()
            if each.pool.shared_set == pool.shared_set and each.pool.lan_parent == pool.lan_parent
        ]

    def _take_prefetched(self, pool: Pool, address: IPAddress) -> None:
        """Take *address*, which a user requested, out of the prefetch. The caller owns it then."""
        for prefetch in self._prefetches_of(pool):
            if prefetch.remove_ready(int(address)):
                return

    def _avoided(self, pool: Pool) -> list[SortedList]:
        """The addresses to which their former owners may come back, and which come last."""
        return self._owners.addresses(self._pools.set_of(pool).pools)

    def _next_number(self, pool: Pool, after: int | None = None) -> int | None:
        """:param after: the number after which the search begins; by default the last allocated one."""
        return next_free(
            self._pools.set_of(pool).taken,
            pool.span,
            self._excluded[pool.prefix.version],
            self._pools.cursors.get(pool.cursor_key) if after is None else after,
            self._avoided(pool),
            self._fleet.barred(pool),
        )

    def _count_free(self, pool: Pool) -> int:
        """How many addresses of the pool's range are neither allocated, nor set aside, nor excluded."""
        span, taken = pool.span, self._pools.set_of(pool).taken
        excluded = count_excluded(span, self._excluded[pool.prefix.version], taken)
        unavailable: int = taken.bisect_right(span.last) - taken.bisect_left(span.first)
        for barred in self._fleet.barred(pool):
            unavailable += barred.bisect_right(span.last) - barred.bisect_left(span.first)
        return span.size - excluded - unavailable

    def _exhausted(self, pool: Pool) -> RequestRefused:
        span = pool.span
        shared = self._pools.set_of(pool)
        excluded = count_excluded(span, self._excluded[pool.prefix.version], shared.taken)
        aside = sum(span.first <= each <= span.last for each in shared.aside)
        taken = shared.taken.bisect_right(span.last) - shared.taken.bisect_left(span.first) - aside
        others = f", {aside} in use by other hosts on {pool.lan_parent}" if aside else ""
        barred = f", {excluded} excluded (the host's own, routers, --exclude)" if excluded else ""
        larger = (
            "larger --ip-range" if pool.part is not None and pool.part != pool.prefix else "larger --subnet"
        )
        share = f" of --fleet-share {pool.fleet_share}" if pool.fleet_share is not None else ""
        # Remedy: remove containers, or create the network again with a larger --subnet or --ip-range.
        return RequestRefused(
            f"pool {pool.described()} is exhausted: {taken} of {span.size} addresses{share} are allocated{others}{barred}; remove "
            f"containers, or create the network again with a {larger}"
        )

    async def refuse_used_by_others(
        self, pool: Pool, address: IPAddress, *, checks_later: bool = True, container: str = ""
    ) -> None:
        """
        Claim *address* in the fleet, and hold it for the pool, if it uses conflict detection.

        :param container: its name, if it is known.
        :param checks_later: whether the caller looks at :meth:`noticed` before it relies on the address.
        :raises RequestRefused: another host uses *address*, another container got it during the probe, or the probe is
            inconclusive and ``conflict_detection`` is ``strict``.
        """
        if await self._fleet.claim(pool, address, container):
            self._conflicts.given_up(pool.lan_parent, address)
        if pool.conflict_detection == ConflictDetection.OFF:
            return
        verdict = await self.hold(pool, address, checks_later=checks_later)
        if isinstance(verdict, InUse):
            raise in_use_error(pool, address, verdict.user)
        self.refuse_taken(pool, address, Purpose.ENDPOINT)
        if isinstance(verdict, Inconclusive):
            if pool.conflict_detection == ConflictDetection.STRICT:
                raise inconclusive_error(pool, verdict.reason)
            self._conflicts.count_inconclusive(pool.lan_parent, address, verdict.reason)

    async def hold(
        self,
        pool: Pool,
        address: IPAddress,
        *,
        may_be_allocated: bool = False,
        checks_later: bool = False,
    ) -> Verdict:
        """
        Find out whether another host has *address*, and hold it if not.

        :param may_be_allocated: whether the address is free although we have allocated it, if nobody answers for it.
        :param checks_later: whether the caller looks at :meth:`noticed` before it relies on the verdict.
        :raises RequestRefused: the pool was released meanwhile.
        """
        self._take_prefetched(pool, address)  # already defended, so the probe is short
        shared = self._pools.set_of(pool)
        was_aside = int(address) in shared.aside
        shared.set_aside(int(address))
        try:
            verdict = await self._conflicts.hold(
                pool.lan_parent,
                address,
                Holder(pool.shared_set),
                is_managed=True,
                may_be_allocated=may_be_allocated,
                checks_later=checks_later,
            )
        finally:
            if not was_aside:
                shared.put_back(int(address))
        if pool.pool_id not in self._pools.by_id:
            self._conflicts.release(pool.lan_parent, address)
            raise pool_released_error(pool)
        self._take_prefetched(pool, address)
        return verdict

    def refuse_outside(self, pool: Pool, address: IPAddress, purpose: Purpose) -> None:
        span = usable_span(pool.prefix)
        if address not in pool.prefix or not span.first <= int(address) <= span.last:
            # Remedy: use an address inside SUBNET, but not its network or broadcast address. PURPOSE is what it was
            # requested for, such as gateway.
            raise RequestRefused(
                f"{purpose.value} address {address} is not a usable address of {pool.prefix}: use one from "
                f"{pool.address(span.first)} to {pool.address(span.last)}"
            )

    def refuse_taken(self, pool: Pool, address: IPAddress, purpose: Purpose) -> None:
        """
        Several networks may reserve the same address; an endpoint's address is exclusive.

        :raises RequestRefused: *address* is not available for *purpose*.
        """
        shared = self._pools.set_of(pool)
        number = int(address)
        if shared.is_endpoint_address(number):
            # Until the network is created, its auxiliary addresses count as containers' ones.
            is_named_twice = purpose is Purpose.AUXILIARY and shared.is_endpoint_of(pool.pool_id, number)
            user = "a container or an --aux-address" if is_named_twice else "a container"
            raise AddressTaken(
                f"{purpose.value} address {address} of {pool.prefix} is in use by {user}: use another one"
            )
        # The engine requests each auxiliary address once per pool: the second request comes from a user or a container.
        is_repeated = purpose is Purpose.AUXILIARY and pool.pool_id in shared.reserved.get(number, ())
        if is_repeated or (purpose is Purpose.ENDPOINT and number in shared.reserved):
            raise RequestRefused(
                f"address {address} of {pool.prefix} is reserved as a network's gateway or auxiliary "
                "address: use another one"
            )
        if purpose in (Purpose.AUXILIARY, Purpose.HOST) and shared.is_unconfirmed(number):
            raise RequestRefused(
                f"{purpose.value} address {address} of {pool.prefix} is in use by another network, as the "
                "address of a container or as an auxiliary address: use another one, or remove that network first"
            )


def _key(pool: Pool) -> tuple[str, str]:
    return pool.cursor_key, pool.lan_parent


class AddressTaken(RequestRefused):
    """Another container of this host has the address."""


class AddressInUse(RequestRefused):
    """Another host on the LAN has the address."""


def in_use_error(pool: Pool, address: IPAddress, foreign_host: str) -> AddressInUse:
    """:param foreign_host: its MAC and how we know of it, as words."""
    return AddressInUse(
        f"address {address} is in use on {pool.lan_parent} by {foreign_host}: use another --ip, or change the address "
        "of that host"
    )
