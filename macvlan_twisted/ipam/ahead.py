"""What is held for the pools that hand out from one part of one subnet, and how much of it."""

from __future__ import annotations

from collections.abc import Callable

from attrs import define, field
from twisted.internet.defer import Deferred

from ..addresses import IPAddress
from .address_set import AddressSet
from .allocator import Span
from .pool import Pool

MOST_HELD = 8
_FEW_HELD = 4
"""Enough for an engine, which starts one container after the other."""


def number_to_hold(span: Span) -> int:
    """4 to 8; fewer of a small pool, for another host may hand out addresses of the same one."""
    return max(1, min(_FEW_HELD, span.size // 4), min(MOST_HELD, span.size // 16))


@define(eq=False)
class PoolPrefetch:
    """What is held for the pools that hand out from one part of one subnet."""

    pool: Pool
    shared: AddressSet
    choose: Callable[[], int | None]
    """The next free number in the pool, not counting what is set aside."""
    ready: list[int] = field(factory=list)
    """In the order in which they were chosen."""
    asked: set[int] = field(factory=set)
    turn_of: dict[int, int] = field(factory=dict)
    """In which order the ready and the asked ones were chosen."""
    locks: int = 0
    quarantined: set[int] = field(factory=set)
    looked_at: set[int] = field(factory=set)
    """Once more, before they are given."""
    unproven: list[int] = field(factory=list)
    """What could not be found out, for the containers that wait now."""
    is_filled_now: bool = False
    """Whether more is being asked for: some verdicts come at once."""
    in_a_row: int = 0
    """How many of those asked for last others had."""
    reason: str = ""
    waiting: list[Deferred[None]] = field(factory=list)
    callers: int = 0
    """How many containers are being given an address."""
    closed: bool = False

    @property
    def span(self) -> Span:
        return self.pool.span

    def address(self, number: int) -> IPAddress:
        return type(self.pool.prefix.network_address)(number)

    async def changed(self) -> None:
        """Wait until something has been found out."""
        waiting: Deferred[None] = Deferred()
        self.waiting.append(waiting)
        await waiting

    def tell(self) -> None:
        waiting, self.waiting = self.waiting, []
        for each in waiting:
            each.callback(None)
