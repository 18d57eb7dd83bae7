"""A fleet's store in memory: hosts that share a :class:`FakeStore` are one fleet."""

from __future__ import annotations

from collections.abc import Callable

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


@define(eq=False)
class FakeStore:
    """What all hosts see."""

    cluster: str = "first"
    revision: int = 1
    entries: dict[Key, Entry] = field(factory=dict)
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
class FakeClaims:
    """
    The :class:`~macvlan_twisted.fleet.interfaces.FleetClaims` of one host.

    Its faults: :attr:`is_cut` refuses everything, :attr:`loses_replies` makes the changes and then fails, and
    :attr:`holds_events` delays what the watch reports until :meth:`deliver`.
    """

    store: FakeStore
    is_cut: bool = False
    loses_replies: bool = False
    holds_events: bool = False
    joined: str = ""
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

    def expire(self) -> None:
        """The lease of this host's record ends."""
        for key, wanted in list(self.store.wanted.items()):
            if wanted.host.name == self.joined:
                self.store.set_wanted(key, None)
        if self.joined in self.store.alive:
            self.store.set_record(self.joined, None)

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

    # FleetClaims.

    async def claim(self, claim: Claim) -> Entry:
        self._check()
        entry = self.store.entries.get(claim.key)
        if entry is None:
            self.store.set_entry(claim.key, claim)
            entry = claim
        self._reply()
        return entry

    def _own(self, claim: Claim) -> bool:
        entry = self.store.entries.get(claim.key)
        return isinstance(entry, Claim) and entry.claim_id == claim.claim_id

    async def update(self, claim: Claim) -> bool:
        return await self.hand_over(claim, claim)

    async def hand_over(self, claim: Claim, successor: Claim) -> bool:
        self._check()
        is_there = self._own(claim)
        if is_there:
            self.store.set_entry(claim.key, successor)
        self._reply()
        return is_there

    async def release(self, claim: Claim) -> None:
        self._check()
        if self._own(claim):
            self.store.set_entry(claim.key, None)
        self._reply()

    async def share(self, shared: SharedAddress) -> Entry:
        self._check()
        entry = self.store.entries.get(shared.key)
        if entry is None:
            entry = shared
            self.store.set_entry(shared.key, entry)
        elif isinstance(entry, SharedAddress) and not shared.holders <= entry.holders:
            entry = evolve(entry, holders=entry.holders | shared.holders)
            self.store.set_entry(shared.key, entry)
        self._reply()
        return entry

    async def unshare(self, shared: SharedAddress) -> None:
        self._check()
        entry = self.store.entries.get(shared.key)
        if isinstance(entry, SharedAddress) and entry.holders & shared.holders:
            left = entry.holders - shared.holders
            self.store.set_entry(shared.key, evolve(entry, holders=left) if left else None)
        self._reply()

    async def want(self, wanted: Wanted) -> None:
        self._check()
        self.store.set_wanted((wanted.lan, wanted.address), wanted)
        self._reply()

    async def unwant(self, wanted: Wanted) -> None:
        self._check()
        if self.store.wanted.get((wanted.lan, wanted.address)) == wanted:
            self.store.set_wanted((wanted.lan, wanted.address), None)
        self._reply()

    async def join(self, record: HostRecord) -> None:
        self._check()
        self.joined = record.host.name
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
