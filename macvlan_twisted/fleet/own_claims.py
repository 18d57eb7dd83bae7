"""
The claims of this host: made before an address is used, given back afterwards, handed over to a host that asks.

A row is on disk before its transaction is sent, and changes again when the outcome is known. So a claim whose outcome is
unknown is settled later by its id, and an address is used only while its row says :attr:`~.rows.Stage.OWNED`.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from attrs import evolve
from twisted.internet.defer import Deferred, DeferredQueue, TimeoutError, ensureDeferred
from twisted.logger import Logger

from ..addresses import IPAddress
from ..errors import StateError
from ..keyed_lock import KeyedLock
from .interfaces import (
    Claim,
    ClaimState,
    Entry,
    FleetClaims,
    FleetUnavailable,
    Host,
    SharedAddress,
    Wanted,
)
from .mirror import Mirror
from .rows import ClaimRow, ClaimRows, Stage

_log = Logger(namespace="macvlan_twisted.fleet")

T = TypeVar("T")

CLAIM_TIMEOUT = 1.0
"""Seconds for which a call waits for the fleet's store and for another host."""


class OwnClaims:
    """
    :param mirror: what the store says. :param new_id: makes a random claim id.
    :param is_connected: whether the store was reached, and no other host uses this host's name.
    :param clock: ``IReactorTime``
    """

    def __init__(
        self,
        host: Host,
        claims: FleetClaims,
        rows: ClaimRows,
        mirror: Mirror,
        new_id: Callable[[], str],
        clock: Any,
    ) -> None:
        self.host = host
        self._claims = claims
        self.rows = rows
        self.mirror = mirror
        self._new_id = new_id
        self._clock = clock
        self._locks = KeyedLock()
        self._awaited: dict[tuple[str, IPAddress], Deferred[None]] = {}
        """Wait for another host to hand the address over."""
        self.disputed: dict[tuple[str, IPAddress], Entry] = {}
        """Addresses of containers that run here, although the store says that another host has them."""
        self.changed: DeferredQueue[tuple[str, IPAddress]] = DeferredQueue()
        """Addresses that a container has got or left, for :meth:`update`."""
        self.unavailable = "the plugin is still connecting to etcd"
        """Why the store cannot be asked; empty while it can."""

    def refuse_unavailable(self) -> None:
        """:raises FleetUnavailable: the store cannot be asked now."""
        if self.unavailable:
            raise FleetUnavailable(self.unavailable)

    def use_changed(self, lan: str, address: IPAddress) -> None:
        """A container has got or left *address*. While the store cannot be asked, nothing is noted: the next connection looks."""
        if not self.unavailable:
            self.changed.put((lan, address))

    # What address management asks.

    async def claim(
        self, lan: str, address: IPAddress, container: str = "", asks_owner: bool = False
    ) -> Entry | None:
        """
        Claim *address* for this host.

        :param asks_owner: ask a host that does not use the address to hand it over, and wait for it.
        :return: ``None`` if the claim is ours now; else what is in its way.
        :raises FleetUnavailable: the store does not answer.
        :raises StateError: the disk refuses.
        """
        async with self._lock(lan, address):
            row = self.rows.get(lan, address)
            if row is not None and row.stage is Stage.OWNED and not row.is_shared:
                return None
            self.refuse_unavailable()
            if row is not None and row.is_shared:
                return self.mirror.entry(lan, address) or SharedAddress(lan, address, frozenset({self.host}))
            if row is None or row.stage is Stage.LEAVING:
                row = ClaimRow(lan, address, self._new_id())
                await self.rows.save(row)
            entry = await self._in_time(self._claims.claim(self._claim_of(row, container)))
            self.mirror.set_entry(lan, address, entry)
            if self._is_of(entry, row) or (asks_owner and await self._obtain(entry, row)):
                await self._own(row)
                return None
            await self.rows.erase(row)
            return entry

    async def _own(self, row: ClaimRow) -> None:
        await self.rows.save(evolve(row, stage=Stage.OWNED))
        self.disputed.pop(row.key, None)

    async def release(self, lan: str, address: IPAddress) -> None:
        """
        Give up the claim of an address that is not used any more. Succeeds when there is none.

        :raises FleetUnavailable: it is given up when the store answers. :raises StateError: it stays.
        """
        async with self._lock(lan, address):
            row = self.rows.get(lan, address)
            if row is not None and not row.is_shared:
                await self._leave(row)

    async def _leave(self, row: ClaimRow) -> None:
        if row.stage is not Stage.LEAVING:
            row = evolve(row, stage=Stage.LEAVING)
            await self.rows.save(row)
        self.refuse_unavailable()
        if row.is_shared:
            await self._in_time(self._claims.unshare(self._share_of(row)))
        else:
            await self._in_time(self._claims.release(self._claim_of(row)))
        await self.rows.erase(row)
        self.disputed.pop(row.key, None)

    async def share(self, lan: str, address: IPAddress) -> Entry | None:
        """
        Reserve a gateway or auxiliary address, which other hosts may reserve, too.

        :return: ``None`` if it is reserved; else the claim that is in its way.
        :raises FleetUnavailable: the store does not answer. :raises StateError: the disk refuses.
        """
        async with self._lock(lan, address):
            row = self.rows.get(lan, address)
            if row is not None and row.is_shared and row.stage is Stage.OWNED:
                return None
            self.refuse_unavailable()
            if row is not None and not row.is_shared:
                await self._leave(row)  # it was claimed for a container before its purpose was known
            row = ClaimRow(lan, address, self._new_id(), is_shared=True)
            await self.rows.save(row)
            entry = await self._in_time(self._claims.share(self._share_of(row)))
            self.mirror.set_entry(lan, address, entry)
            if isinstance(entry, SharedAddress):
                await self.rows.save(evolve(row, stage=Stage.OWNED))
                return None
            await self.rows.erase(row)
            return entry

    async def unshare(self, lan: str, address: IPAddress) -> None:
        """Succeeds when it is not shared. Raises as :meth:`release` does."""
        async with self._lock(lan, address):
            row = self.rows.get(lan, address)
            if row is not None and row.is_shared:
                await self._leave(row)

    async def update(
        self, lan: str, address: IPAddress, state: ClaimState, container: str = "", mac: str = ""
    ) -> bool:
        """
        Tell the fleet what an address of ours is used for.

        :return: whether the store has our claim; else :meth:`settle` it.
        :raises FleetUnavailable: the store does not answer.
        """
        async with self._lock(lan, address):
            row = self.rows.get(lan, address)
            if row is None or row.stage is not Stage.OWNED or row.is_shared:
                return True
            claim = Claim(lan, address, self.host, row.claim_id, state, container, mac)
            if self.mirror.entry(lan, address) == claim:
                return True
            self.refuse_unavailable()
            if not await self._in_time(self._claims.update(claim)):
                return False
            self.mirror.set_entry(lan, address, claim)
            return True

    # Between the hosts.

    async def _obtain(self, entry: Entry, row: ClaimRow) -> bool:
        """
        Ask the owner of *entry* for its address.

        :return: whether it is ours now.
        """
        if (
            not isinstance(entry, Claim)
            or entry.state is ClaimState.USED
            or not self.mirror.is_alive(entry.owner)
        ):
            return False
        wanted = Wanted(row.lan, row.address, self.host, row.claim_id)
        handed_over: Deferred[None] = Deferred()
        self._awaited[row.key] = handed_over
        try:
            await self._in_time(self._claims.want(wanted))
            await handed_over.addTimeout(CLAIM_TIMEOUT, self._clock)
            return True
        except TimeoutError:
            return False
        finally:
            del self._awaited[row.key]
            _background(self._claims.unwant(wanted))

    async def hand_over(self, wanted: Wanted, take: Callable[[str, IPAddress], bool]) -> None:
        """
        Another host wants an address of ours.

        :param take: stops holding it for the next container, and returns whether it is unused then.
        :raises FleetUnavailable: the address is given up when the store answers. :raises StateError: it stays.
        """
        async with self._lock(wanted.lan, wanted.address):
            row = self.rows.get(wanted.lan, wanted.address)
            if row is None or row.stage is not Stage.OWNED or row.is_shared or wanted.host == self.host:
                return
            before = self.mirror.entry(wanted.lan, wanted.address)
            if not take(wanted.lan, wanted.address):
                return
            leaving = evolve(row, stage=Stage.LEAVING)
            await self.rows.save(leaving)
            self.refuse_unavailable()
            claim = before if isinstance(before, Claim) and self._is_of(before, row) else self._claim_of(row)
            successor = evolve(claim, owner=wanted.host, claim_id=wanted.claim_id, state=ClaimState.RESERVE)
            await self._in_time(self._claims.hand_over(claim, successor))
            await self.rows.erase(leaving)
            _log.info(
                "address {address}: handed over to host {host}", address=wanted.address, host=wanted.host.name
            )

    def handed_over(self, lan: str, address: IPAddress) -> bool:
        """
        The store has reported a change of an address.

        :return: whether it is as our row says, or a call waits for it; else :meth:`settle` it.
        """
        row, entry = self.rows.get(lan, address), self.mirror.entry(lan, address)
        if row is None or row.is_shared or row.stage is Stage.LEAVING:
            return True
        waiting = self._awaited.get(row.key)
        if waiting is not None and self._is_of(entry, row) and not waiting.called:
            waiting.callback(None)
        return row.stage is Stage.CLAIMING or self._is_of(entry, row)

    async def settle(self, lan: str, address: IPAddress, is_used: bool) -> None:
        """
        Make row and store agree, whatever was under way.

        :param is_used: whether a container here has the address.
        :raises FleetUnavailable: the store does not answer. :raises StateError: the disk refuses.
        """
        async with self._lock(lan, address):
            row = self.rows.get(lan, address)
            if row is not None:
                await self._settle(row, is_used)

    async def adopt(self, lan: str, address: IPAddress) -> None:
        """
        Claim an address that a container here has already.

        :raises FleetUnavailable: the store does not answer. :raises StateError: the disk refuses.
        """
        async with self._lock(lan, address):
            row = self.rows.get(lan, address) or ClaimRow(lan, address, self._new_id())
            await self.rows.save(row)
            await self._settle(row, is_used=True)

    async def _settle(self, row: ClaimRow, is_used: bool) -> None:
        self.refuse_unavailable()
        if row.stage is Stage.LEAVING:
            await self._leave(row)
            return
        if row.is_shared:
            shared = await self._in_time(self._claims.share(self._share_of(row)))
            self.mirror.set_entry(row.lan, row.address, shared)
            if isinstance(shared, SharedAddress):
                await self._own(row)
            else:
                self._dispute(row, shared)
            return
        entry = await self._in_time(self._claims.claim(self._claim_of(row)))
        self.mirror.set_entry(row.lan, row.address, entry)
        if self._is_of(entry, row):
            await self._own(row)
        elif is_used:
            self._dispute(row, entry)
        else:
            await self.rows.erase(row)
            self.disputed.pop(row.key, None)

    def _dispute(self, row: ClaimRow, entry: Entry) -> None:
        if self.disputed.get(row.key) == entry:
            return
        self.disputed[row.key] = entry
        # Cause: etcd was restored from a backup or replaced, and another host has claimed the address since. Remedy: remove
        # the container on one of the two hosts; then the address belongs to the other one.
        _log.error(
            "address {address}: claimed by {other} in etcd, although this host has it; remove its container on one of the two hosts",
            address=row.address,
            other=described(entry),
        )

    # Helpers.

    def _claim_of(self, row: ClaimRow, container: str = "") -> Claim:
        return Claim(row.lan, row.address, self.host, row.claim_id, container=container)

    def _share_of(self, row: ClaimRow) -> SharedAddress:
        return SharedAddress(row.lan, row.address, frozenset({self.host}))

    def _is_of(self, entry: Entry | None, row: ClaimRow) -> bool:
        return isinstance(entry, Claim) and entry.claim_id == row.claim_id

    def _lock(self, lan: str, address: IPAddress) -> Any:
        return self._locks.acquire(f"{lan} {address}")

    async def _in_time(self, operation: Coroutine[Any, Any, T]) -> T:
        try:
            return await ensureDeferred(operation).addTimeout(CLAIM_TIMEOUT, self._clock)
        except TimeoutError as error:
            raise FleetUnavailable(f"etcd did not answer within {CLAIM_TIMEOUT:g} s") from error


def described(entry: Entry) -> str:
    """*entry*'s owner, as words."""
    if isinstance(entry, SharedAddress):
        return f"hosts {', '.join(sorted(host.name for host in entry.holders))} as a gateway or auxiliary address"
    container = f" for container {entry.container}" if entry.container else ""
    return f"host {entry.owner.name}{container}"


def _background(work: Coroutine[Any, Any, object]) -> None:
    """Run *work* without waiting. If the store or the disk refuses, the next connection settles it."""

    def failed(failure: Any) -> None:
        if failure.check(FleetUnavailable, StateError) is None:
            _log.failure("fleet: a change failed", failure=failure)

    ensureDeferred(work).addErrback(failed)
