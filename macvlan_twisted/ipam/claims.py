"""To take an address for somebody, and to give it back: in memory and on disk together."""

from __future__ import annotations

from collections.abc import Callable

from twisted.logger import Logger

from ..addresses import IPAddress
from ..errors import StateFailed
from ..lan.conflicts import Conflicts
from ..state.interface import AddressBook, Claim, Identity
from ..turns import Turns
from .awaited import Awaited
from .candidates import released_meanwhile
from .choosing import Choosing
from .identities import Identities
from .leasing import Leasing
from .open_pools import OpenPools
from .pools import Pool
from .requests import Purpose, ReleaseAddress

_log = Logger(namespace="macvlan_twisted.ipam")


class Claims:
    """:param turns: those of all that is done to a pool, by its id, and to an address of it."""

    def __init__(
        self,
        pools: OpenPools,
        book: AddressBook,
        turns: Turns,
        conflicts: Conflicts,
        leasing: Leasing,
        choosing: Choosing,
        identities: Identities,
        awaited: Awaited,
    ) -> None:
        self._pools = pools
        self._book = book
        self._turns = turns
        self._conflicts = conflicts
        self._leasing = leasing
        self._choosing = choosing
        self._identities = identities
        self._awaited = awaited

    async def take(self, pool: Pool, claim: Claim, advances: bool) -> None:
        """:param advances: whether the pool goes on from there with what it hands out by itself."""
        if claim.purpose == Purpose.ENDPOINT.value:
            await self._take_at_once(pool, claim, advances)
            return
        # What is reserved may be asked for again while it is being released, which would then forget what is on disk.
        async with self._turns.of(f"{pool.pool_id} {int(claim.address)}"):
            await self._take_at_once(pool, claim, advances)

    async def _take_at_once(self, pool: Pool, claim: Claim, advances: bool) -> None:
        """In memory at once, so that no parallel call picks it; the caller goes on when it is on disk."""
        if pool.pool_id not in self._pools.by_id:
            self._conflicts.let_go(pool.wire, claim.address, pool.shared_set)
            raise released_meanwhile(pool)
        shared, number = self._pools.set_of(pool), int(claim.address)
        held_before = shared.holds(pool.pool_id, number)
        shared.add(pool.pool_id, number, Purpose(claim.purpose))
        if claim.purpose != Purpose.ENDPOINT.value:
            self._choosing.reserved(pool, claim.address)
        forgotten = self._pools.advance(pool, number) if advances else ()
        ended: tuple[str, ...] = ()
        if claim.name:
            ended = self._identities.note(Identity(pool.pool_id, claim.name, claim.address, claim.mac))
        elif claim.purpose == Purpose.ENDPOINT.value:
            ended = self._identities.forget_address(pool.pool_id, claim.address)
        try:
            await self._book.claim(claim, pool.cursor_key, advances, ended, forgotten)
        except BaseException:
            if not held_before:
                shared.remove(pool.pool_id, number)
                self._conflicts.let_go(pool.wire, claim.address)
            raise
        if claim.purpose == Purpose.ENDPOINT.value:
            self._awaited.begin(pool.pool_id, number)

    async def release(self, request: ReleaseAddress, is_to_be: Callable[[], bool]) -> bool:
        """
        :param is_to_be: asked when its turn has come.
        :return: whether there was anything to release.
        """
        pool = self._pools.find(request.pool_id)
        if pool is None:
            async with self._turns.of(request.pool_id):  # if it is just being released, that may fail yet
                pool = self._pools.by_id.get(request.pool_id)
        if pool is None:
            return False
        shared = self._pools.set_of(pool)
        number = int(request.address)
        if pool.stands_for - len(pool.given_back) > 1 and not shared.is_endpoints(number):
            return False  # each of its networks reserves it, and it goes with the last of them
        # A second release must not free the next owner's.
        async with self._turns.of(f"{pool.pool_id} {number}"):
            if pool.pool_id not in self._pools.by_id or not shared.is_releasable(pool.pool_id, number):
                return False
            if not is_to_be():
                return False
            if pool.dhcp:
                await self._leasing.give_back(pool, request.address)
            await self._book.release(pool.pool_id, request.address)
            shared.remove(pool.pool_id, number)
            self._awaited.end(pool.pool_id, number)
            self._conflicts.let_go(pool.wire, request.address)
        _log.info(
            "address released: {address} of pool {pool}", address=request.address, pool=pool.described()
        )
        return True

    async def release_all(self, pool: Pool) -> None:
        """What was taken in a pool that is no more; the engine leaves addresses behind after some errors."""
        left = sorted(self._pools.set_of(pool).endpoints.get(pool.pool_id, ()))
        self._awaited.end_pool(pool.pool_id)
        self._identities.forget_pool(pool.pool_id)
        self._choosing.close(pool)
        for address in self._pools.reserved_by(pool):  # the host's, whose network was not made
            self._conflicts.let_go(pool.wire, address)
        self._pools.remove(pool)
        for number in left:
            address = type(pool.prefix.network_address)(number)
            self._conflicts.let_go(pool.wire, address)
            if pool.dhcp:
                await self._give_back(pool, address)

    async def _give_back(self, pool: Pool, address: IPAddress) -> None:
        """The pool is gone, and its other leases are to be given back, too."""
        try:
            await self._leasing.give_back(pool, address)
        except StateFailed as failure:
            _log.error("the lease of {address}: {reason}", address=address, reason=str(failure))
