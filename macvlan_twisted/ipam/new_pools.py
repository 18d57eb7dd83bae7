"""
Pools whose network is not created yet, and what the addresses that are requested in them are for.

An engine requests a pool, its gateway and its auxiliary addresses, and creates the network last. Before 29 it does not say
what an address is for, and the network of another driver is never created here. So an address that is named in a new pool may
be an auxiliary one, or a container's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Set
from contextlib import contextmanager
from functools import partial
from typing import Any

from attrs import define, field, frozen
from twisted.internet.defer import Deferred
from twisted.logger import Logger

from ..addresses import IPAddress
from ..lan.address_probe import Evidence, Free, InUse
from ..option_values import ConflictDetection
from .allocations import Allocations
from .pool import Pool, pool_released_error
from .pool_plan import PoolPlanner
from .pool_registry import PoolRegistry
from .requests import Purpose, ReleaseAddress, RequestAddress
from .selection import AddressSelection, in_use_error

_log = Logger(namespace="macvlan_twisted.ipam")

YOUNG_SECONDS = 5.0
"""
Seconds after RequestPool in which a named address may be an auxiliary one. An engine sends these calls without a pause, so what
our own probes take does not count.
"""


@define(eq=False)
class _NewPool:
    shared_set: str
    opened_at: float
    """Later by what probes took."""
    named: set[IPAddress] = field(factory=set)
    named_late: set[IPAddress] = field(factory=set)
    """Those of them that were named when the pool was not young any more, and so for containers."""
    has_turn: bool = False
    probes: int = 0
    probing_since: float = 0.0
    waiting: list[Deferred[None]] = field(factory=list)


class NewPools:
    """:param clock: ``IReactorTime``."""

    def __init__(self, clock: Any) -> None:
        self._clock = clock
        self._pools: dict[str, _NewPool] = {}
        self._used: set[str] = set()
        """Ids of pools of other drivers' networks: containers requested addresses there."""

    def opened(self, pool: Pool) -> None:
        self._pools[pool.pool_id] = _NewPool(pool.shared_set, self._clock.seconds())

    def settled(self, pool_id: str) -> None:
        """The pool's network is created, or the pool is released. Succeeds when it is not new."""
        self._used.discard(pool_id)
        self._end(pool_id)

    def used(self, pool_id: str) -> None:
        """A container requested an address: the pool's network exists. If we did not create it, it is another driver's."""
        self._used.add(pool_id)
        self._end(pool_id)

    def is_used(self, pool_id: str) -> bool:
        """Whether a container requested an address, since the service started."""
        return pool_id in self._used

    def _end(self, pool_id: str) -> None:
        new = self._pools.pop(pool_id, None)
        if new is not None:
            _wake(new)

    def is_new(self, pool_id: str) -> bool:
        return pool_id in self._pools

    def is_young(self, pool_id: str) -> bool:
        """Whether the pool is new, and may still be about to get auxiliary addresses."""
        new = self._pools.get(pool_id)
        return new is not None and self._remaining(new) > 0

    def named(self, pool_id: str) -> Set[IPAddress] | None:
        """The addresses that were named in the pool; ``None`` if it is not new."""
        new = self._pools.get(pool_id)
        return None if new is None else new.named

    def note_named(self, pool_id: str, address: IPAddress, is_late: bool = False) -> None:
        """:param is_late: whether the pool was not young."""
        if pool_id in self._pools:
            self._pools[pool_id].named.add(address)
            if is_late:
                self._pools[pool_id].named_late.add(address)

    def is_unfinished(self, pool_id: str) -> bool:
        """Whether the pool got only such requests as an engine makes before it creates the network."""
        return pool_id in self._pools and not self._pools[pool_id].named_late

    def is_named_late(self, pool_id: str, address: IPAddress) -> bool:
        return pool_id in self._pools and address in self._pools[pool_id].named_late

    @contextmanager
    def probing(self, pool_id: str) -> Iterator[None]:
        """Surround a probe: the pool does not grow older meanwhile."""
        new = self._pools.get(pool_id)
        if new is None:
            yield
            return
        if not new.probes:
            new.probing_since = self._clock.seconds()
        new.probes += 1
        try:
            yield
        finally:
            new.probes -= 1
            if not new.probes:
                new.opened_at += self._clock.seconds() - new.probing_since

    async def wait_for_turn(self, pool_id: str) -> None:
        """
        Wait until no other young pool with the same set of addresses names any: networks that are created in parallel may
        have the same auxiliary addresses, which they share once CreateNetwork has confirmed them.
        """
        started = self._clock.seconds()
        await self._wait_for(pool_id, lambda other: other.has_turn)
        new = self._pools.get(pool_id)
        if new is not None:
            new.has_turn = True
            new.opened_at += self._clock.seconds() - started

    async def wait_for_others(self, pool_id: str, address: IPAddress) -> None:
        """Wait until no other young pool with the same set names *address*."""
        await self._wait_for(pool_id, lambda other: address in other.named)

    async def _wait_for(self, pool_id: str, comes_first: Callable[[_NewPool], bool]) -> None:
        while (new := self._pools.get(pool_id)) is not None:
            others = [
                each
                for each in self._pools.values()
                if each is not new and each.shared_set == new.shared_set and comes_first(each)
            ]
            other = next((each for each in others if self._remaining(each) > 0), None)
            if other is None:
                return
            done: Deferred[None] = Deferred()
            other.waiting.append(done)
            timer = self._clock.callLater(self._remaining(other), _wake, other)
            try:
                await done
            finally:
                if timer.active():
                    timer.cancel()

    def _remaining(self, new: _NewPool) -> float:
        """Seconds for which the pool is young, if no probe runs from now on."""
        now = new.probing_since if new.probes else self._clock.seconds()
        return float(YOUNG_SECONDS - (now - new.opened_at))


def _wake(new: _NewPool) -> None:
    waiting, new.waiting = new.waiting, []
    for each in waiting:
        each.callback(None)


@frozen
class RequestedAddress:
    """What a request is for."""

    purpose: Purpose
    address: IPAddress | None
    """That of the request, or the default gateway; ``None`` if we choose an address for a container."""
    is_checked: bool = False
    """Whether it was probed for already."""


class AddressPurposes:
    """Decides by what is known of the pool, and by asking the LAN."""

    def __init__(
        self,
        pools: PoolRegistry,
        new_pools: NewPools,
        allocations: Allocations,
        selection: AddressSelection,
        planner: PoolPlanner,
    ) -> None:
        self._pools = pools
        self._new_pools = new_pools
        self._allocations = allocations
        self._selection = selection
        self._planner = planner

    async def of(self, request: RequestAddress, pool: Pool) -> RequestedAddress:
        """
        What an address is for. Engines do not mark auxiliary addresses, but request all of them before they create the network.

        :raises RequestRefused: the address is taken, or the pool was released meanwhile.
        """
        pool_id, address = pool.pool_id, request.address
        if request.purpose is Purpose.GATEWAY:
            if address is None:
                return RequestedAddress(Purpose.GATEWAY, await self._planner.default_gateway(pool))
            await self._new_pools.wait_for_others(pool_id, address)
            self._refuse_released(pool)
            return RequestedAddress(Purpose.GATEWAY, address)
        if address is None or request.endpoint_name:
            self._new_pools.used(pool_id)
            return RequestedAddress(Purpose.ENDPOINT, address)
        if not self._new_pools.is_young(pool_id):
            self._new_pools.note_named(pool_id, address, is_late=True)
            return RequestedAddress(Purpose.ENDPOINT, address)
        return await self._named(pool, address)

    async def _named(self, pool: Pool, address: IPAddress) -> RequestedAddress:
        """
        Probe for an address that is named in a young pool. If a neighbour has it, it is an auxiliary one; else it counts as a
        container's until CreateNetwork lists the auxiliary ones.
        """
        self._selection.refuse_outside(pool, address, Purpose.AUXILIARY)
        await self._new_pools.wait_for_turn(pool.pool_id)
        self._refuse_released(pool)
        if not self._new_pools.is_new(pool.pool_id):
            return RequestedAddress(Purpose.ENDPOINT, address)
        await self._release_forgotten(pool, address)
        self._selection.refuse_taken(pool, address, Purpose.AUXILIARY)
        self._new_pools.note_named(pool.pool_id, address)
        if (
            int(address) in self._pools.set_of(pool).reserved
        ):  # by networks that share their gateway and auxiliary addresses
            return RequestedAddress(Purpose.AUXILIARY, address, is_checked=True)
        if pool.conflict_detection == ConflictDetection.OFF:
            return RequestedAddress(Purpose.ENDPOINT, address, is_checked=True)
        with self._new_pools.probing(pool.pool_id):
            verdict = await self._selection.hold(pool, address)
        if isinstance(verdict, InUse) and verdict.how is Evidence.OURS:
            raise in_use_error(pool, address, verdict.user)
        if not isinstance(verdict, Free):
            return RequestedAddress(Purpose.AUXILIARY, address, is_checked=True)
        # Its host may be off now, and finds the address in use if we defend it.
        self._selection.release(pool, address, pool.shared_set)
        return RequestedAddress(Purpose.ENDPOINT, address, is_checked=True)

    async def _release_forgotten(self, pool: Pool, address: IPAddress) -> None:
        """
        Release *address* in pools that an engine has forgotten: it died in the middle of creating the network, and creates it
        again. Such a pool has no network and no endpoint with the address.
        """
        named = [
            each
            for each in self._pools.sharing_with(pool)
            if self._may_be_forgotten(each) and self._allocations.is_only_named(each, address)
        ]
        if not named:
            return
        if pool.conflict_detection == ConflictDetection.OFF:
            forgotten = [each for each in named if not self._has_network(each, address)]
        else:
            forgotten = named if await self._is_unanswered(pool, address) else []
        for each in forgotten:
            _log.info(
                "address {address}: released to pool {pool}, its network was never created",
                address=address,
                pool=each.described(),
            )
            await self._release_named(each, address)
        self._refuse_released(pool)

    def _may_be_forgotten(self, pool: Pool) -> bool:
        """Whether the network of *pool* may never have been created."""
        return pool.network_id is None and not self._new_pools.is_used(pool.pool_id)

    def _has_network(self, pool: Pool, address: IPAddress) -> bool:
        """Whether *pool* is known to be that of another driver's network, so that a container may have *address*."""
        return bool(pool.engine_id) or self._new_pools.is_named_late(pool.pool_id, address)

    async def _is_unanswered(self, pool: Pool, address: IPAddress) -> bool:
        """Whether nobody on the LAN has *address*: that tells a forgotten pool from another driver's."""
        verdict = await self._selection.hold(pool, address, may_be_allocated=True)
        self._selection.release(pool, address, pool.shared_set)
        return isinstance(verdict, Free)

    async def release_all_unanswered(self, pool: Pool) -> None:
        """
        Release the addresses of containers of *pool*, whose network the engine has forgotten. One that somebody on the LAN has stays,
        where the LAN may be asked.

        :raises RequestRefused: the pool was released meanwhile.
        """
        for address in self._endpoint_addresses(pool):
            if pool.conflict_detection == ConflictDetection.OFF or await self._is_unanswered(pool, address):
                await self._allocations.release(ReleaseAddress(pool.pool_id, address), lambda: True)

    async def _release_named(self, pool: Pool, address: IPAddress) -> None:
        await self._allocations.release(
            ReleaseAddress(pool.pool_id, address), partial(self._allocations.is_only_named, pool, address)
        )

    def is_only_named(self, pool: Pool) -> bool:
        """Whether *pool* has addresses that were named, and neither a network nor a container of ours."""
        addresses = self._endpoint_addresses(pool)
        return (
            self._may_be_forgotten(pool)
            and bool(addresses)
            and all(self._allocations.is_only_named(pool, each) for each in addresses)
        )

    def _endpoint_addresses(self, pool: Pool) -> list[IPAddress]:
        kind = type(pool.prefix.network_address)
        return [kind(number) for number in self._pools.set_of(pool).endpoints.get(pool.pool_id, ())]

    async def release_all_named(self, pool: Pool) -> None:
        """
        Release the addresses that were named in *pool*, whose network no engine lists. One that somebody on the LAN has stays, and
        so does one that may be a container's where the LAN must not be asked.

        :raises RequestRefused: the pool was released meanwhile.
        """
        if pool.conflict_detection == ConflictDetection.OFF and not self._new_pools.is_unfinished(
            pool.pool_id
        ):
            return
        for address in self._endpoint_addresses(pool):
            if pool.conflict_detection == ConflictDetection.OFF or await self._is_unanswered(pool, address):
                await self._release_named(pool, address)

    def _refuse_released(self, pool: Pool) -> None:
        if pool.pool_id not in self._pools.by_id:
            raise pool_released_error(pool)
