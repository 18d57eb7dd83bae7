"""A fleet's store in memory: hosts that share a :class:`FakeStore` are one fleet."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from attrs import define, evolve, field
from twisted.internet.defer import Deferred

from ..addresses import IPAddress
from ..fleet.interfaces import (
    Claim,
    Entry,
    FleetObserver,
    FleetUnavailable,
    Host,
    HostRecord,
    SharedAddress,
    Snapshot,
    Wanted,
)

Key = tuple[str, IPAddress]
Report = Callable[[FleetObserver], None]
T = TypeVar("T")

_MOST_SENT = 8
"""How many transactions of one host may come once more."""


@define(eq=False)
class FakeStore:
    """What all hosts see."""

    cluster: str = "first"
    revision: int = 1
    entries: dict[Key, Entry] = field(factory=dict)
    modified: dict[Key, int] = field(factory=dict)
    """The revision of the last change of each entry."""
    alive: dict[str, HostRecord] = field(factory=dict)
    known: dict[str, Host] = field(factory=dict)
    wanted: dict[Key, Wanted] = field(factory=dict)
    clients: list[FakeClaims] = field(factory=list)
    log: list[tuple[int, Report]] = field(factory=list)
    """Every change and its revision."""
    compacted: int = 0
    """Changes up to this revision cannot be reported any more."""

    def set_entry(self, key: Key, entry: Entry | None) -> None:
        if entry is None:
            self.entries.pop(key, None)
        else:
            self.entries[key] = entry
        self._report(lambda observer: observer.entry_changed(*key, entry))
        self.modified[key] = self.revision

    def set_record(self, name: str, record: HostRecord | None) -> None:
        if record is None:
            self.alive.pop(name, None)
        else:
            self.alive[name] = record
        self._report(lambda observer: observer.host_changed(name, record))

    def set_known(self, name: str, host: Host | None) -> None:
        if host is None:
            self.known.pop(name, None)
        else:
            self.known[name] = host
        self._report(lambda observer: observer.known_changed(name, host))

    def set_wanted(self, key: Key, wanted: Wanted | None) -> None:
        if wanted is None:
            self.wanted.pop(key, None)
        else:
            self.wanted[key] = wanted
        self._report(lambda observer: observer.wanted_changed(*key, wanted))

    def snapshot(self) -> Snapshot:
        return Snapshot(
            self.cluster,
            self.revision,
            tuple(self.entries.values()),
            tuple(self.alive.values()),
            tuple(self.known.values()),
            tuple(self.wanted.values()),
        )

    def restore(self, snapshot: Snapshot, cluster: str) -> None:
        """Replace everything by a backup: every watch ends."""
        self.cluster, self.revision = cluster, snapshot.revision
        self.entries = {each.key: each for each in snapshot.entries}
        self.modified = {}
        self.known = {each.name: each for each in snapshot.known}
        self.alive, self.wanted, self.log, self.compacted = {}, {}, [], snapshot.revision
        for client in self.clients:
            client.lose("etcd was restored")

    def _report(self, report: Report) -> None:
        self.revision += 1
        self.log.append((self.revision, report))
        for client in self.clients:
            client.note(self.revision, report)


@define(eq=False)
class HeldChange:
    """A transaction on its way to the store."""

    change: Callable[[], Any]
    late: Callable[[], None]
    reply: Deferred[Any] | None
    """``None`` if the process that waited for it is dead."""

    def arrive(self) -> None:
        """The store gets it."""
        if self.reply is None or self.reply.called:
            self.late()
        else:
            self.reply.callback(self.change())


@define(eq=False)
class FakeClaims:
    """
    The :class:`~macvlan_twisted.fleet.interfaces.FleetClaims` of one host.

    Its faults: :attr:`is_cut` refuses everything, :attr:`loses_replies` makes the changes and then fails,
    :attr:`holds_changes` delays them, and :attr:`holds_events` delays what the watch reports until :meth:`deliver`.
    """

    store: FakeStore
    is_cut: bool = False
    loses_replies: bool = False
    holds_events: bool = False
    holds_changes: bool = False
    on_the_way: list[HeldChange] = field(factory=list)
    """Transactions that were sent and have not arrived, perhaps long after their senders gave up."""
    sent: list[Callable[[], None]] = field(factory=list)
    """The last transactions, as the store treats them if they arrive once more."""
    record: HostRecord | None = None
    """What :meth:`join` announces."""
    _observer: FleetObserver | None = None
    _ended: Deferred[None] | None = None
    _held: list[tuple[int, Report]] = field(factory=list)

    def __attrs_post_init__(self) -> None:
        self.store.clients.append(self)

    # Faults.

    def cut(self) -> None:
        """This host does not reach the store any more."""
        self.is_cut = True
        self.lose("no etcd member answers")

    def die(self) -> None:
        """The process ends: nobody waits for replies and reports. Its record stays until :meth:`expire`."""
        self.is_cut, self._observer = True, None
        for held in self.on_the_way:
            held.reply = None

    def expire(self) -> None:
        """The lease of this host's record ends."""
        if self.record is None or self.store.alive.get(self.record.host.name) != self.record:
            return
        for key, wanted in list(self.store.wanted.items()):
            if wanted.host == self.record.host:
                self.store.set_wanted(key, None)
        self.store.set_record(self.record.host.name, None)

    def arrive(self) -> None:
        """The first transaction that is held reaches the store."""
        if self.on_the_way:
            self.on_the_way.pop(0).arrive()

    def lose(self, reason: str) -> None:
        """The watch ends."""
        self._observer, self._held = None, []
        ended, self._ended = self._ended, None
        if ended is not None:
            ended.errback(FleetUnavailable(reason))

    def note(self, revision: int, report: Report) -> None:
        if self._observer is not None:
            self._held.append((revision, report))
            if not self.holds_events:
                self.deliver()

    def deliver(self, count: int | None = None) -> None:
        """Report *count* of the changes that were held back; by default all."""
        while self._held and self._observer is not None and (count is None or count > 0):
            revision, report = self._held.pop(0)
            report(self._observer)
            if self._observer is not None:
                self._observer.revision_reached(revision)
            count = None if count is None else count - 1

    def _check(self) -> None:
        if self.is_cut:
            raise FleetUnavailable("no etcd member answers")

    def _reply(self) -> None:
        if self.loses_replies:
            raise FleetUnavailable("etcd did not answer in time")

    async def _transact(self, key: Key, change: Callable[[], T], is_repeatable: bool = False) -> T:
        """
        :param change: makes the change, as the store is then.
        :param is_repeatable: whether it is made even if the entry has changed since it was sent, when it comes late.
        """
        self._check()
        revision = self.store.modified.get(key)

        def late() -> None:
            if is_repeatable or self.store.modified.get(key) == revision:
                change()

        self.sent = [*self.sent, late][-_MOST_SENT:]
        if self.holds_changes:
            reply: Deferred[Any] = Deferred()
            self.on_the_way.append(HeldChange(change, late, reply))
            result: T = await reply
        else:
            result = change()
        self._reply()
        return result

    # FleetClaims.

    async def claim(self, claim: Claim) -> Entry:
        def change() -> Entry:
            if claim.key not in self.store.entries:
                self.store.set_entry(claim.key, claim)
            return self.store.entries[claim.key]

        return await self._transact(claim.key, change, is_repeatable=True)

    async def update(self, claim: Claim) -> bool:
        return await self.hand_over(claim, claim)

    async def hand_over(self, claim: Claim, successor: Claim) -> bool:
        def change() -> bool:
            is_there = self._has(claim)
            if is_there and self.store.entries[claim.key] != successor:
                self.store.set_entry(claim.key, successor)
            return is_there or self._has(successor)

        return await self._transact(claim.key, change)

    async def release(self, claim: Claim) -> None:
        def change() -> None:
            if self._has(claim):
                self.store.set_entry(claim.key, None)

        await self._transact(claim.key, change)

    def _has(self, claim: Claim) -> bool:
        entry = self.store.entries.get(claim.key)
        return isinstance(entry, Claim) and entry.claim_id == claim.claim_id

    async def share(self, shared: SharedAddress) -> Entry:
        def change() -> Entry:
            entry = self.store.entries.get(shared.key)
            if entry is None:
                self.store.set_entry(shared.key, shared)
            elif isinstance(entry, SharedAddress) and not shared.holders <= entry.holders:
                self.store.set_entry(shared.key, evolve(entry, holders=entry.holders | shared.holders))
            return self.store.entries[shared.key]

        return await self._transact(shared.key, change)

    async def unshare(self, shared: SharedAddress) -> None:
        def change() -> None:
            entry = self.store.entries.get(shared.key)
            if isinstance(entry, SharedAddress) and entry.holders & shared.holders:
                left = entry.holders - shared.holders
                self.store.set_entry(shared.key, evolve(entry, holders=left) if left else None)

        await self._transact(shared.key, change)

    async def want(self, wanted: Wanted) -> None:
        key = wanted.lan, wanted.address

        def change() -> None:
            if self.record in self.store.alive.values():  # the key belongs to the record's lease
                self.store.set_wanted(key, wanted)

        await self._transact(key, change)

    async def unwant(self, wanted: Wanted) -> None:
        key = wanted.lan, wanted.address

        def change() -> None:
            if self.store.wanted.get(key) == wanted:
                self.store.set_wanted(key, None)

        await self._transact(key, change)

    async def join(self, record: HostRecord) -> None:
        self._check()
        self.record = record
        self.store.set_known(record.host.name, record.host)
        self.store.set_record(record.host.name, record)
        self._reply()

    async def leave(self, name: str) -> None:
        self._check()
        self.store.set_known(name, None)
        if name in self.store.alive:
            self.store.set_record(name, None)
        self._reply()

    async def snapshot(self) -> Snapshot:
        self._check()
        self._reply()
        return self.store.snapshot()

    async def watch(self, cluster: str, revision: int, observer: FleetObserver) -> None:
        self._check()
        if cluster != self.store.cluster or revision < self.store.compacted:
            raise FleetUnavailable("changes were missed")
        ended: Deferred[None] = Deferred()
        self._ended, self._observer = ended, observer
        observer.connection_changed("")
        for changed, report in self.store.log:
            if changed > revision:
                self.note(changed, report)
        try:
            await ended
        finally:
            if self._ended is ended:
                self._ended = self._observer = None

    async def close(self) -> None:
        self._observer = None
