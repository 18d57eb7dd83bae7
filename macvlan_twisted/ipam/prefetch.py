"""
Addresses found free ahead of need, so that no container waits for that: held, defended, and given to the next one.

Who chooses them is :mod:`macvlan_twisted.ipam.selection`; who finds out whether they are free is
:class:`~macvlan_twisted.lan.conflicts.Conflicts`.
"""

from __future__ import annotations

from collections.abc import Callable

from attrs import define, field
from twisted.internet.defer import Deferred, ensureDeferred
from twisted.logger import Logger

from ..addresses import IPAddress
from ..errors import RequestRefused
from ..lan.address_probe import Free, Inconclusive, Taken, Verdict
from ..lan.conflicts import Conflicts
from ..option_values import ConflictDetection
from .address_set import AddressSet
from .allocator import Span
from .pool import Pool

_log = Logger(namespace="macvlan_twisted.ipam")

MOST_HELD = 8
_FEW_HELD = 4
"""Enough for an engine, which starts one container after the other."""
MOST_AT_ONCE = 64
"""So many are asked for at once, if so many containers wait."""
MOST_IN_A_ROW = 256
"""So many addresses that others have are skipped for one container: then somebody answers for all, and the user is told."""


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


class AddressPrefetch:
    """What is held, by cursor key and parent: pools that share both share their candidates."""

    def __init__(self, conflicts: Conflicts) -> None:
        self._conflicts = conflicts
        self._ahead: dict[tuple[str, str], PoolPrefetch] = {}

    def prepare(self, pool: Pool, shared: AddressSet, choose: Callable[[], int | None]) -> None:
        """Begin to find out what the next containers will need."""
        self._fill(self._of(pool, shared, choose))

    def _of(self, pool: Pool, shared: AddressSet, choose: Callable[[], int | None]) -> PoolPrefetch:
        ahead = self._ahead.get(_key(pool))
        if ahead is None:
            ahead = self._ahead[_key(pool)] = PoolPrefetch(pool, shared, choose)
            for address in self._conflicts.table.quarantined(pool.lan_parent):
                self._quarantine(ahead, address)
        return ahead

    def _quarantine(self, ahead: PoolPrefetch, address: IPAddress) -> None:
        span = ahead.span
        if address.version == ahead.pool.prefix.version and span.first <= int(address) <= span.last:
            ahead.quarantined.add(int(address))
            ahead.shared.set_aside(int(address))

    async def next(
        self, pool: Pool, shared: AddressSet, choose: Callable[[], int | None]
    ) -> IPAddress | None:
        """
        An address that is known to be free, ``None`` if the pool has none.

        :raises RequestRefused: it cannot be found out, and the pool's option says that then none is handed out.
        """
        ahead = self._of(pool, shared, choose)
        if not ahead.callers:
            ahead.in_a_row = 0
        ahead.callers += 1
        try:
            return await self._next(ahead, pool)
        finally:
            ahead.callers -= 1
            self._drop_unproven(ahead)

    async def _next(self, ahead: PoolPrefetch, pool: Pool) -> IPAddress | None:
        self._fill(ahead)
        retried = False
        while True:
            number = self._next_ready(ahead)
            if number is not None:
                if await self._is_still_free(ahead, pool, number):
                    return ahead.address(number)
                continue
            if ahead.unproven and not ahead.asked and pool.conflict_detection != ConflictDetection.STRICT:
                return self._unproven(ahead, ahead.unproven.pop(0))
            if ahead.asked:
                await ahead.changed()
                if ahead.closed:
                    raise released_meanwhile(pool)
                continue
            if ahead.in_a_row >= MOST_IN_A_ROW:
                raise _others_have_all(pool)
            if ahead.reason and pool.conflict_detection == ConflictDetection.STRICT:
                raise cannot_be_found_out(pool, ahead.reason)
            if not self._fill(ahead):
                if retried:
                    return None
                retried = True
                self._retry(ahead)

    def _next_ready(self, ahead: PoolPrefetch) -> int | None:
        """
        A number that was found free, of this part of the subnet, or else of another one that overlaps it. It stays set
        aside.
        """
        for each in (ahead, *self._ahead.values()):
            is_fit = each.shared is ahead.shared and each.pool.lan_parent == ahead.pool.lan_parent
            if is_fit and (each is ahead or not ahead.asked):
                for number in each.ready:
                    if not ahead.span.first <= number <= ahead.span.last:
                        continue
                    if each is ahead and any(
                        each.turn_of[asked] < each.turn_of[number] for asked in each.asked
                    ):
                        break  # asked for at the same time, and heard of a moment later
                    each.ready.remove(number)
                    self._fill(ahead)
                    return number
        return None

    async def _is_still_free(self, ahead: PoolPrefetch, pool: Pool, number: int) -> bool:
        """
        What was found free a while ago is looked at once more, for a moment.

        :raises RequestRefused: the pool is gone, or it cannot be found out, and then none is to be handed out.
        """
        address = ahead.address(number)
        ahead.looked_at.add(number)
        try:
            verdict = await self._hold(ahead, address)
        finally:
            ahead.looked_at.discard(number)
        if ahead.closed:
            self._conflicts.release(ahead.pool.lan_parent, address, ahead.pool.shared_set)
            raise released_meanwhile(pool)
        if isinstance(verdict, Taken):
            ahead.quarantined.add(number)
            return False
        ahead.shared.give_back(number)
        if ahead.shared.is_taken(number):  # by a user who named it meanwhile
            return False
        if isinstance(verdict, Inconclusive):
            if pool.conflict_detection == ConflictDetection.STRICT:
                self._conflicts.release(ahead.pool.lan_parent, address, ahead.pool.shared_set)
                raise cannot_be_found_out(pool, verdict.reason)
            self._conflicts.count_inconclusive(ahead.pool.lan_parent, address, verdict.reason)
        return True

    def _unproven(self, ahead: PoolPrefetch, number: int) -> IPAddress:
        ahead.shared.give_back(number)
        self._conflicts.count_inconclusive(ahead.pool.lan_parent, ahead.address(number), ahead.reason)
        return ahead.address(number)

    async def _hold(self, ahead: PoolPrefetch, address: IPAddress, of_many: bool = False) -> Verdict:
        pool = ahead.pool
        return await self._conflicts.hold(
            pool.lan_parent, address, pool.shared_set, of_many=of_many, is_managed=True, on_lost=self._lost
        )

    @staticmethod
    def _drop_unproven(ahead: PoolPrefetch) -> None:
        """Nobody is to have them any more who could not wait."""
        if ahead.callers or ahead.closed:
            return
        for number in ahead.unproven:
            ahead.shared.give_back(number)
        ahead.unproven.clear()

    def _fill(self, ahead: PoolPrefetch) -> bool:
        """:return: whether anything more was asked for."""
        if ahead.is_filled_now:
            return False
        for rested in [each for each in ahead.quarantined if self._may_retry(ahead, each)]:
            ahead.quarantined.discard(rested)
            ahead.shared.give_back(rested)
        if not ahead.asked and not ahead.unproven:
            ahead.reason = ""
        ahead.is_filled_now, asked = True, False
        try:
            while not ahead.reason and ahead.in_a_row < MOST_IN_A_ROW and (chosen := self._chosen(ahead)):
                asked = True
                for number in chosen:
                    self._ask(ahead, number, of_many=True)
        finally:
            ahead.is_filled_now = False
        return asked

    @staticmethod
    def _chosen(ahead: PoolPrefetch) -> list[int]:
        """What is to be asked for, so that there is enough; set aside already."""
        enough = max(number_to_hold(ahead.span), min(ahead.callers, MOST_AT_ONCE))
        wanted = enough - len(ahead.ready) - len(ahead.asked) - len(ahead.unproven)
        chosen = []
        for _ in range(wanted):
            number = ahead.choose()
            if number is None:
                break
            ahead.shared.set_aside(number)
            chosen.append(number)
        return chosen

    def _may_retry(self, ahead: PoolPrefetch, number: int) -> bool:
        return self._conflicts.table.may_retry(ahead.pool.lan_parent, ahead.address(number))

    def _retry(self, ahead: PoolPrefetch) -> None:
        """When all else is taken: those that others had may be free by now."""
        for number in sorted(ahead.quarantined)[: 4 * MOST_HELD]:
            ahead.quarantined.discard(number)
            if ahead.shared.is_endpoints(number):  # a user named it meanwhile, and it was free
                ahead.shared.give_back(number)
            else:
                self._ask(ahead, number)

    def _ask(self, ahead: PoolPrefetch, number: int, of_many: bool = False) -> None:
        ahead.asked.add(number)
        ahead.locks += 1
        ahead.turn_of[number] = ahead.locks
        ensureDeferred(self._find_out(ahead, number, of_many)).addErrback(
            lambda failure: _log.failure("finding out about an address failed", failure=failure)
        )

    async def _find_out(self, ahead: PoolPrefetch, number: int, of_many: bool) -> None:
        address = ahead.address(number)
        verdict: Verdict = Inconclusive("it was not found out")
        try:
            verdict = await self._hold(ahead, address, of_many)
        finally:
            ahead.asked.discard(number)
            ahead.turn_of = {each: ahead.turn_of[each] for each in (*ahead.ready, *ahead.asked, number)}
            if ahead.closed:
                if not self._is_wanted(ahead.pool.lan_parent, number):
                    self._conflicts.release(ahead.pool.lan_parent, address, ahead.pool.shared_set)
            elif ahead.shared.is_taken(number):  # by a user who named it meanwhile
                ahead.shared.give_back(number)
                if number in ahead.shared.reserved:
                    self._conflicts.release(ahead.pool.lan_parent, address, ahead.pool.shared_set)
            elif isinstance(verdict, Free):
                ahead.ready.append(number)
                ahead.ready.sort(key=lambda each: ahead.turn_of[each])
                ahead.reason, ahead.in_a_row = "", 0
            elif isinstance(verdict, Inconclusive):
                ahead.reason = verdict.reason
                if ahead.callers:
                    ahead.unproven.append(number)
                else:
                    ahead.shared.give_back(number)
            else:
                ahead.quarantined.add(number)
                ahead.in_a_row += 1
                self._fill(ahead)
            ahead.tell()

    def _is_wanted(self, parent: str, number: int) -> bool:
        """Whether a pool that was opened again asks for it, too, or has it."""
        return any(
            each.pool.lan_parent == parent and (number in each.asked or number in each.ready)
            for each in self._ahead.values()
        )

    def take(self, pool: Pool, address: IPAddress) -> bool:
        """Whether *address*, which a user names, is one that was found free ahead; it is then the caller's."""
        number = int(address)
        for ahead in self._ahead.values():
            is_fit = ahead.pool.shared_set == pool.shared_set and ahead.pool.lan_parent == pool.lan_parent
            if is_fit and number in ahead.ready:
                ahead.ready.remove(number)
                ahead.shared.give_back(number)
                return True
        return False

    def withdraw(self, pool: Pool, address: IPAddress) -> None:
        """*address* is reserved: what was found free, on whichever parent, is neither handed out nor defended."""
        number = int(address)
        for ahead in self._ahead.values():
            if ahead.pool.shared_set == pool.shared_set and number in ahead.ready:
                ahead.ready.remove(number)
                ahead.shared.give_back(number)
                self._conflicts.release(ahead.pool.lan_parent, address, pool.shared_set)

    def _lost(self, parent: str, address: IPAddress) -> None:
        """Someone took an address that was held, in spite of our defence."""
        for ahead in self._ahead.values():
            if ahead.pool.lan_parent == parent and int(address) in ahead.ready:
                ahead.ready.remove(int(address))
                ahead.quarantined.add(int(address))

    def close(self, pool: Pool, others: bool) -> None:
        """:param others: whether other pools hand out from the same part of the subnet."""
        if others:
            return
        ahead = self._ahead.pop(_key(pool), None)
        if ahead is None:
            return
        ahead.closed = True
        for number in (*ahead.ready, *ahead.unproven, *ahead.quarantined, *ahead.asked, *ahead.looked_at):
            ahead.shared.give_back(number)
        for number in ahead.ready:
            self._conflicts.release(pool.lan_parent, ahead.address(number), pool.shared_set)
        ahead.tell()


def _key(pool: Pool) -> tuple[str, str]:
    return pool.cursor_key, pool.lan_parent


def released_meanwhile(pool: Pool) -> RequestRefused:
    return RequestRefused(f"pool {pool.described()} was released meanwhile")


def cannot_be_found_out(pool: Pool, reason: str) -> RequestRefused:
    return RequestRefused(
        f"no address of pool {pool.described()} is handed out, for it cannot be found out whether it is in use on "
        f"{pool.lan_parent or 'any parent'}: {reason}; mend that, or create the network with --ipam-opt conflict_detection=on"
    )


def _others_have_all(pool: Pool) -> RequestRefused:
    return RequestRefused(
        f"no address of pool {pool.described()} is handed out: {MOST_IN_A_ROW} in a row are in use by others on {pool.lan_parent}; "
        "if a router there answers for all of them (proxy ARP), have it stop, or create the network with "
        "--ipam-opt conflict_detection=off; else give another --ip-range"
    )
