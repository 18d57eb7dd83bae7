"""
Pools whose network is not created yet.

An engine requests a pool, its gateway and its auxiliary addresses, and creates the network last. Before 29 it does not say
what an address is for, and the network of another driver is never created here. So an address that is named in a new pool may
be an auxiliary one, or a container's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Set
from contextlib import contextmanager
from typing import Any

from attrs import define, field
from twisted.internet.defer import Deferred

from ..addresses import IPAddress
from .pool import Pool

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
    has_turn: bool = False
    probes: int = 0
    probing_since: float = 0.0
    waiting: list[Deferred[None]] = field(factory=list)


class NewPools:
    """:param clock: ``IReactorTime``."""

    def __init__(self, clock: Any) -> None:
        self._clock = clock
        self._pools: dict[str, _NewPool] = {}

    def opened(self, pool: Pool) -> None:
        self._pools[pool.pool_id] = _NewPool(pool.shared_set, self._clock.seconds())

    def settled(self, pool_id: str) -> None:
        """The pool's network is created, or was created without us, or the pool is released. Succeeds when it is not new."""
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

    def note_named(self, pool_id: str, address: IPAddress) -> None:
        if pool_id in self._pools:
            self._pools[pool_id].named.add(address)

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
