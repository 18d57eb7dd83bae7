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
from .address_users import AddressUsers
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
    :param takes_over: whether to take the addresses of hosts that are silent for long.
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
        takes_over: bool = False,
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
        self.strays: dict[tuple[str, IPAddress], float] = {}
        """Claims of ours without a row, which an earlier transaction may have made late: since when they were seen."""
        self.takes_over = takes_over
        self.of_silent_hosts: DeferredQueue[Claim] = DeferredQueue()
        """Claims of hosts that are silent, whose addresses containers here have asked for."""
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
            if row is not None and row.is_owned:
                return None
            self.refuse_unavailable()
            deadline = self._deadline()
            if row is not None and row.is_shared:
                return self.mirror.entry(lan, address) or self._share_of(row)
            if row is not None and row.stage is Stage.LEAVING:
                await self._leave(row, deadline)
                row = None
            if row is None:
                row = ClaimRow(lan, address, self._new_id())
                await self.rows.save(row)
            entry = await self._send_claim(row, container, deadline)
            if self._is_of(entry, row):
                await self._own(row)
                return None
            if isinstance(entry, Claim) and asks_owner and self._may_have(entry):
                if await self._obtain(row, deadline):
                    await self._own(row)
                    return None
                return entry
            await self.rows.erase(row)
            return entry

    async def _send_claim(self, row: ClaimRow, container: str = "", deadline: float | None = None) -> Entry:
        """:return: what the store has now."""
        reports = self.mirror.reports(*row.key)
        entry = await self._in_time(self._claims.claim(self._claim_of(row, container)), deadline)
        self.mirror.set_found(row.lan, row.address, entry, reports)
        if not self._is_of(entry, row) and self._is_ours(entry):
            self.strays.setdefault(row.key, self._clock.seconds())
        return entry

    async def _own(self, row: ClaimRow) -> None:
        await self.rows.save(evolve(row, stage=Stage.OWNED))
        self.disputed.pop(row.key, None)

    async def release(self, lan: str, address: IPAddress, users: AddressUsers) -> None:
        """
        Give up the claim of an address, unless it is used. Succeeds when there is none.

        :raises FleetUnavailable: it is given up when the store answers. :raises StateError: it stays.
        """
        async with self._lock(lan, address):
            row = self.rows.get(lan, address)
            if row is None or row.is_shared:
                return
            if row.stage is Stage.LEAVING or users.take(lan, address):
                await self._leave(row)

    async def _leave(self, row: ClaimRow, deadline: float | None = None) -> None:
        if row.stage is not Stage.LEAVING:
            row = evolve(row, stage=Stage.LEAVING)
            await self.rows.save(row)
        self.refuse_unavailable()
        if row.is_shared:
            await self._in_time(self._claims.unshare(self._share_of(row)), deadline)
        else:
            await self._in_time(self._claims.release(self._claim_of(row)), deadline)
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
            deadline = self._deadline()
            if row is not None and not row.is_shared:
                # It was claimed for a container before its purpose was known.
                await self._leave(row, deadline)
            row = ClaimRow(lan, address, self._new_id(), is_shared=True)
            await self.rows.save(row)
            entry = await self._send_share(row, deadline)
            if isinstance(entry, SharedAddress):
                await self._own(row)
                return None
            await self.rows.erase(row)
            return entry

    async def _send_share(self, row: ClaimRow, deadline: float | None = None) -> Entry:
        """:return: what the store has now."""
        reports = self.mirror.reports(*row.key)
        entry = await self._in_time(self._claims.share(self._share_of(row)), deadline)
        self.mirror.set_found(row.lan, row.address, entry, reports)
        return entry

    async def unshare(self, lan: str, address: IPAddress, users: AddressUsers) -> None:
        """Succeeds when it is not shared, and when a pool reserves it. Raises as :meth:`release` does."""
        async with self._lock(lan, address):
            row = self.rows.get(lan, address)
            if row is not None and row.is_shared and not users.is_shared(lan, address):
                await self._leave(row)

    async def update(
        self, lan: str, address: IPAddress, state: ClaimState, container: str = "", mac: str = ""
    ) -> bool:
        """
        Tell the fleet what an address of ours is used for.

        :return: whether the store has our claim; else :meth:`settle` it.
        :raises FleetUnavailable: the store does not answer.
        """
        row = self.rows.get(lan, address)
        if row is None or not row.is_owned:
            return True
        claim = Claim(lan, address, self.host, row.claim_id, state, container, mac)
        if self.mirror.entry(lan, address) == claim:
            return True
        self.refuse_unavailable()
        reports = self.mirror.reports(lan, address)
        # Without the lock: a container that starts does not wait for this. If the claim ends meanwhile, the store changes nothing.
        is_there = await self._in_time(self._claims.update(claim))
        if self.rows.get(lan, address) != row:
            return True
        if is_there:
            self.mirror.set_found(lan, address, claim, reports)
        return is_there

    # Between the hosts.

    def _may_have(self, claim: Claim) -> bool:
        """Whether the owner of *claim* may hand its address over."""
        is_unused = claim.state is not ClaimState.USED
        return is_unused and claim.owner != self.host and self.mirror.is_alive(claim.owner)

    async def _obtain(self, row: ClaimRow, deadline: float) -> bool:
        """
        Ask the owner for its address.

        :return: whether it is ours now. If not, :meth:`_withdraw` decides what becomes of the row.
        """
        wanted = Wanted(row.lan, row.address, self.host, row.claim_id)
        handed_over: Deferred[None] = Deferred()
        self._awaited[row.key] = handed_over
        is_ours = False
        try:
            await self._in_time(self._claims.want(wanted), deadline)
            await handed_over.addTimeout(max(0.0, deadline - self._clock.seconds()), self._clock)
            is_ours = True
        except TimeoutError:
            pass
        finally:
            del self._awaited[row.key]
            _background(self._withdraw(wanted, None if is_ours else row))
        return is_ours

    async def _withdraw(self, wanted: Wanted, row: ClaimRow | None) -> None:
        """
        End the request of :meth:`_obtain`.

        :param row: if the address was not handed over in time: it may be ours at the last moment.
        """
        await self._in_time(self._claims.unwant(wanted))
        if row is not None:
            async with self._lock(row.lan, row.address):
                if self.rows.get(*row.key) == row:
                    if self._is_of(await self._send_claim(row), row):
                        await self._own(row)
                    else:
                        await self.rows.erase(row)

    async def withdraw_old_requests(self) -> None:
        """
        Requests of ours that nobody waits for any more.

        :raises FleetUnavailable: the store does not answer.
        """
        for key, wanted in list(self.mirror.wanted.items()):
            if wanted.host == self.host and key not in self._awaited:
                await self._in_time(self._claims.unwant(wanted))

    async def hand_over(self, wanted: Wanted, users: AddressUsers) -> None:
        """
        Another host wants an address of ours. It is handed over unless it is used, or the request is withdrawn meanwhile.

        :raises FleetUnavailable: the address is given up when the store answers. :raises StateError: it stays.
        """
        key = wanted.lan, wanted.address
        async with self._lock(*key):
            row = self.rows.get(*key)
            if row is None or not row.is_owned or self.mirror.wanted.get(key) != wanted:
                return
            before = self.mirror.entry(*key)
            if not users.take(*key):
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

    async def take_over(self, claim: Claim) -> bool:
        """
        Take the address of *claim*, whose owner is silent for long, and which nobody on the LAN has.

        :return: whether it is ours now; not if the owner has changed it meanwhile.
        :raises FleetUnavailable: the store does not answer. :raises StateError: the disk refuses.
        """
        async with self._lock(*claim.key):
            self.refuse_unavailable()
            if self.rows.get(*claim.key) is not None or self.mirror.entry(*claim.key) != claim:
                return False
            row = ClaimRow(*claim.key, self._new_id())
            await self.rows.save(row)
            successor = evolve(claim, owner=self.host, claim_id=row.claim_id, state=ClaimState.RESERVE)
            if await self._in_time(self._claims.hand_over(claim, successor)):
                await self._own(row)
                return True
            await self.rows.erase(row)
            return False

    # Rows and store.

    def agrees(self, lan: str, address: IPAddress) -> bool:
        """
        The store has reported a change of an address.

        :return: whether it is as our row says, or a call is about to see to it; else :meth:`settle` it.
        """
        row, entry = self.rows.get(lan, address), self.mirror.entry(lan, address)
        self._note_stray((lan, address), entry)
        if row is None or row.stage is not Stage.OWNED:
            waiting = self._awaited.get((lan, address))
            if waiting is not None and row is not None and self._is_of(entry, row) and not waiting.called:
                waiting.callback(None)
            return True
        if row.is_shared:
            return isinstance(entry, SharedAddress) and self.host in entry.holders
        return self._is_of(entry, row)

    def find_strays(self) -> None:
        """Look for claims of ours without a row in all that the store has."""
        for key in set(self.strays) | set(self.mirror.entries):
            self._note_stray(key, self.mirror.entry(*key))

    def _note_stray(self, key: tuple[str, IPAddress], entry: Entry | None) -> None:
        if self._is_ours(entry) and self.rows.get(*key) is None:
            self.strays.setdefault(key, self._clock.seconds())
        else:
            self.strays.pop(key, None)

    async def delete_stray(self, claim: Claim) -> None:
        """
        Delete a claim of ours without a row, if there is no row yet.

        :raises FleetUnavailable: the store does not answer.
        """
        async with self._lock(*claim.key):
            if self.rows.get(*claim.key) is None:
                await self._in_time(self._claims.release(claim))
                self.strays.pop(claim.key, None)

    async def settle(self, lan: str, address: IPAddress, users: AddressUsers) -> None:
        """
        Make row and store agree, whatever was under way.

        :raises FleetUnavailable: the store does not answer. :raises StateError: the disk refuses.
        """
        async with self._lock(lan, address):
            row = self.rows.get(lan, address)
            if row is not None:
                await self._settle(row, users)

    async def adopt(self, lan: str, address: IPAddress, users: AddressUsers) -> None:
        """
        Claim an address that a container here has already.

        :raises FleetUnavailable: the store does not answer. :raises StateError: the disk refuses.
        """
        async with self._lock(lan, address):
            row = self.rows.get(lan, address) or ClaimRow(lan, address, self._new_id())
            await self.rows.save(row)
            await self._settle(row, users)

    async def _settle(self, row: ClaimRow, users: AddressUsers) -> None:
        self.refuse_unavailable()
        if row.stage is Stage.LEAVING:
            await self._leave(row)
            return
        if row.is_shared:
            entry = await self._send_share(row)
            is_ours, is_used = isinstance(entry, SharedAddress), users.is_shared(*row.key)
        else:
            entry = await self._send_claim(row)
            is_used = users.use_of(*row.key).state is ClaimState.USED
            is_ours = self._is_of(entry, row) or (is_used and await self._replace_stray(entry, row))
        if is_ours:
            await self._own(row)
        elif is_used:
            self._dispute(row, entry)
        else:
            users.take(*row.key)
            await self.rows.erase(row)
            self.disputed.pop(row.key, None)

    async def _replace_stray(self, entry: Entry, row: ClaimRow) -> bool:
        """
        If *entry* is a claim of ours that was made late: claim its address, which a container of ours has, by the id of *row*.

        :return: whether the claim is that of *row* now.
        """
        if not isinstance(entry, Claim) or not self._is_ours(entry):
            return False
        is_done = await self._in_time(self._claims.hand_over(entry, self._claim_of(row)))
        self.strays.pop(row.key, None)
        return is_done

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

    def _is_ours(self, entry: Entry | None) -> bool:
        return isinstance(entry, Claim) and entry.owner == self.host

    def _lock(self, lan: str, address: IPAddress) -> Any:
        return self._locks.acquire(f"{lan} {address}")

    def _deadline(self) -> float:
        """For a call that begins now, by our clock."""
        return float(self._clock.seconds() + CLAIM_TIMEOUT)

    async def _in_time(self, operation: Coroutine[Any, Any, T], deadline: float | None = None) -> T:
        """:param deadline: by our clock; by default that of a call that begins now."""
        seconds = CLAIM_TIMEOUT if deadline is None else max(0.0, deadline - self._clock.seconds())
        try:
            return await ensureDeferred(operation).addTimeout(seconds, self._clock)
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
