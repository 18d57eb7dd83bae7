"""
The connection of this host to its fleet: joins, takes a snapshot, makes rows and store agree, then follows the changes.

After each loss it begins anew. Nothing is freed because a host is silent.
"""

from __future__ import annotations

from collections.abc import Coroutine
from random import Random
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, ensureDeferred
from twisted.internet.task import deferLater
from twisted.logger import Logger

from ..addresses import IPAddress
from ..errors import StateError
from .address_users import AddressUsers
from .interfaces import (
    Entry,
    FleetClaims,
    FleetUnavailable,
    Host,
    HostRecord,
    Snapshot,
    Wanted,
)
from .own_claims import OwnClaims
from .rows import SeenStore, Stage
from .sweep import Sweep
from .takeover import Takeover

_log = Logger(namespace="macvlan_twisted.fleet")

SHORTEST_PAUSE, LONGEST_PAUSE = 0.5, 15.0
"""Seconds between two attempts to connect. Each pause is random, so that many hosts do not come back at once."""
SWEEP_INTERVAL = 30.0
"""Seconds between two looks at what is not needed any more."""
_RECORD_LOST = "the record of this host in etcd was deleted or replaced"


class FleetSession:
    """
    :param record: of this start of the service. :param clock: ``IReactorTime``
    :param random: spreads the attempts to connect.
    """

    def __init__(
        self,
        record: HostRecord,
        claims: FleetClaims,
        own_claims: OwnClaims,
        users: AddressUsers,
        random: Random,
        clock: Any,
    ) -> None:
        self._record = record
        self._claims = claims
        self._own_claims = own_claims
        self._mirror = own_claims.mirror
        self._rows = own_claims.rows
        self._users = users
        self._random = random
        self._clock = clock
        self._sweep = Sweep(own_claims, users, clock)
        self._next_sweep: Any = None
        self._watching: Deferred[None] | None = None
        self._takeover = Takeover(own_claims, self._silent_for, users.is_silent, clock)
        self._silent_since: dict[str, float] = {}
        """By host name: since when a host that was alive, or that never was since this one connected, is silent."""
        self._begins_anew = False
        """Whether this session has ended the watch by itself."""
        self._has_joined = False
        self.is_connected = False

    async def run(self) -> None:
        """Runs until it is cancelled."""
        pause = SHORTEST_PAUSE
        self._next_sweep = self._clock.callLater(SWEEP_INTERVAL, self._sweep_and_repeat)
        try:
            while True:
                began = self._clock.seconds()
                try:
                    await self._follow()
                except (FleetUnavailable, StateError) as failure:
                    self._lost(str(failure))
                if self._clock.seconds() - began > 2 * LONGEST_PAUSE:
                    pause = SHORTEST_PAUSE
                await deferLater(self._clock, pause * (0.5 + self._random.random()), lambda: None)
                pause = min(2 * pause, LONGEST_PAUSE)
        finally:
            self._next_sweep.cancel()
            self._own_claims.unavailable = "the plugin is stopping"
            await self._claims.close()

    async def _follow(self) -> None:
        self._refuse_taken_name(await self._claims.snapshot())
        await self._claims.join(self._record)
        self._has_joined = True
        snapshot = await self._claims.snapshot()
        self._refuse_taken_name(snapshot)
        self._mirror.load(snapshot)
        for name in self._mirror.known:
            self._note_silence(name)
        is_anew = snapshot.cluster != self._rows.seen.cluster or snapshot.revision < self._rows.seen.revision
        if is_anew and self._rows.seen.cluster:
            # Cause: etcd was restored from a backup, or another etcd answers. Remedy: none is needed if that was intended; the
            # plugin claims the addresses of this host anew.
            _log.warn("fleet: etcd was replaced or restored, all claims of this host are checked")
        self._own_claims.unavailable = ""
        await self._resynchronise()
        await self._rows.save_seen(SeenStore(snapshot.cluster, snapshot.revision))
        self.is_connected = True
        _log.info(
            "fleet: connected as host {host} ({hosts} hosts, {addresses} addresses claimed by this one)",
            host=self._record.host.name,
            hosts=len(self._mirror.known),
            addresses=len(self._rows.by_key),
        )
        self._users.refill()
        for wanted in list(self._mirror.wanted.values()):
            self._hand_over(wanted)
        reports, takeovers = self._in_background(self._report()), self._in_background(self._take_over())
        try:
            self._watching = ensureDeferred(self._claims.watch(snapshot.cluster, snapshot.revision, self))
            await self._watching
        except CancelledError:
            if self._begins_anew:
                raise FleetUnavailable(_RECORD_LOST) from None
            raise
        finally:
            self._watching, self._begins_anew = None, False
            reports.cancel()
            takeovers.cancel()

    def _lost(self, reason: str) -> None:
        if self.is_connected or not self._own_claims.unavailable.startswith(reason):
            # Cause: etcd does not answer or has no quorum. Remedy: start its members; containers keep running, and new ones
            # get the addresses that this host has claimed ahead.
            _log.warn("fleet: etcd is unavailable ({reason})", reason=reason)
        self.is_connected = False
        self._own_claims.unavailable = reason

    def _refuse_taken_name(self, snapshot: Snapshot) -> None:
        """:raises FleetUnavailable: another host has this host's name, and is alive."""
        for record in snapshot.alive:
            is_copy = record.host.instance == self._record.host.instance
            if (
                is_copy
                and record.host.name != self._record.host.name
                and record.boot_id != self._record.boot_id
            ):
                raise FleetUnavailable(
                    f"host {record.host.name!r} has a copy of this state directory: delete the state directory of the copy, and "
                    "start its plugin again"
                )
            if record.host.name == self._record.host.name and not self._is_own(record):
                # Cause: two hosts have the same --fleet-host, or a state directory was copied to another machine. Remedy: give
                # one of them another --fleet-host, and a new state directory if it is a copy.
                raise FleetUnavailable(
                    f"another host of the fleet is called {record.host.name!r}: start the plugin there or here with "
                    "another --fleet-host"
                )

    def _is_own(self, record: HostRecord) -> bool:
        """Whether *record* is this start's, or an earlier one's on this machine."""
        if record.host != self._record.host:
            return False
        is_earlier = record.boot_id == self._record.boot_id and not self._has_joined
        return record.session == self._record.session or is_earlier

    def _is_record_lost(self) -> bool:
        return self._mirror.alive.get(self._record.host.name) != self._record

    # Rows and store.

    async def _resynchronise(self) -> None:
        for row in list(self._rows.by_key.values()):
            if row.stage is not Stage.OWNED or not self._own_claims.agrees(row.lan, row.address):
                await self._settle(row.lan, row.address)
        for lan, address in self._users.allocated():
            if self._rows.get(lan, address) is None:  # from before this host joined
                await self._own_claims.adopt(lan, address, self._users)
        for lan, address in self._users.reserved():
            if self._rows.get(lan, address) is None:
                await self._own_claims.share(lan, address)
        self._own_claims.find_strays()
        await self._own_claims.withdraw_old_requests()
        for row in self._rows.owned():
            self._own_claims.use_changed(row.lan, row.address)

    async def _settle(self, lan: str, address: IPAddress) -> None:
        await self._own_claims.settle(lan, address, self._users)

    async def _report(self) -> None:
        """Tell the fleet which container uses which address, until cancelled."""
        while True:
            lan, address = await self._own_claims.changed.get()
            use = self._users.use_of(lan, address)
            try:
                if not await self._own_claims.update(lan, address, use.state, use.container, use.mac):
                    await self._settle(lan, address)
            except (FleetUnavailable, StateError):  # as long as the connection is not lost
                self._own_claims.use_changed(lan, address)
                await deferLater(self._clock, SHORTEST_PAUSE, lambda: None)

    async def _take_over(self) -> None:
        """Take the addresses of silent hosts that containers here have asked for, until cancelled."""
        while True:
            self._in_background(self._takeover.take(await self._own_claims.of_silent_hosts.get()))

    def _note_silence(self, name: str) -> None:
        if name in self._mirror.alive:
            self._silent_since.pop(name, None)
        else:
            self._silent_since.setdefault(name, self._clock.seconds())

    def _silent_for(self, host: Host) -> float:
        since = self._silent_since.get(host.name)
        return 0.0 if since is None else self._clock.seconds() - since

    def _hand_over(self, wanted: Wanted) -> None:
        if wanted.host != self._record.host:
            self._in_background(self._own_claims.hand_over(wanted, self._users))

    # FleetObserver

    def entry_changed(self, lan: str, address: IPAddress, entry: Entry | None) -> None:
        self._mirror.report_entry(lan, address, entry)
        if not self._own_claims.agrees(lan, address):
            self._in_background(self._settle(lan, address))

    def host_changed(self, name: str, record: HostRecord | None) -> None:
        self._mirror.set_host(name, record)
        self._note_silence(name)
        if name != self._record.host.name or not self._is_record_lost():
            return
        if record is not None:
            # Cause: two hosts have the same --fleet-host, or a state directory was copied to another machine. Remedy: give one
            # of them another --fleet-host, and a new state directory if it is a copy.
            _log.error(
                "fleet: another host joined the fleet as {name!r}: start the plugin there or here with another --fleet-host",
                name=name,
            )
        self._lost(_RECORD_LOST)
        self._clock.callLater(0, self._begin_anew)  # the watch calls this method, and cannot end within it

    def _begin_anew(self) -> None:
        if self._watching is not None and self._is_record_lost():
            self._begins_anew = True
            self._watching.cancel()

    def known_changed(self, name: str, host: Host | None) -> None:
        self._mirror.set_known(name, host)

    def wanted_changed(self, lan: str, address: IPAddress, wanted: Wanted | None) -> None:
        self._mirror.set_wanted(lan, address, wanted)
        if wanted is not None:
            self._hand_over(wanted)

    def revision_reached(self, revision: int) -> None:
        self._mirror.revision = max(self._mirror.revision, revision)

    def connection_changed(self, reason: str) -> None:
        if reason:
            self._lost(reason)
        elif not self.is_connected and not self._is_record_lost():
            self._in_background(self._go_on())

    async def _go_on(self) -> None:
        """The store answers again, and nothing was missed."""
        self.is_connected, self._own_claims.unavailable = True, ""
        _log.info("fleet: etcd is available again")
        await self._resynchronise()
        self._users.refill()

    def _sweep_and_repeat(self) -> None:
        self._next_sweep = self._clock.callLater(SWEEP_INTERVAL, self._sweep_and_repeat)
        self._in_background(self._sweep.run())

    def _in_background(self, work: Coroutine[Any, Any, object]) -> Deferred[object]:
        """Run *work* without waiting. If the store or the disk refuses, the next connection goes on with it."""

        def failed(failure: Any) -> None:
            if failure.check(FleetUnavailable, StateError, CancelledError) is None:
                _log.failure("fleet: a change failed", failure=failure)

        return ensureDeferred(work).addErrback(failed)
