"""The life of one lease, by RFC 2131: taken, renewed, lost and found again, given back."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from ipaddress import IPv4Address
from random import Random
from typing import Any

from attrs import evolve
from twisted.internet.defer import CancelledError, Deferred, ensureDeferred
from twisted.internet.task import deferLater

from ..errors import RequestRefused
from ..lan.interfaces import LanSocket
from .acquire import AcquireFailed, acquire
from .binding import Binding, Client
from .holder import LeaseStore
from .lease_log import LeaseLog
from .release import release
from .renew import NakReceived, State, confirm
from .transaction import Context, Deadline

_MOST_ATTEMPTS = 4
"""The first one, and three more after a server took an offer back or offered what is in use."""
_BUSY = 3
"""So many times the timeout is waited for a server that speaks to others meanwhile. Where many containers start together
a dnsmasq that looks for three seconds whether anybody has an address, before it offers it, answers the last after 25."""
_SLOW = 60.0
"""Seconds between questions for what nobody gives."""
_SOONEST = 1.0
"""Seconds before a renewal, however short the lease."""
_A_DAY = 86400.0


class Lease:
    """
    One lease of one container. It speaks in the reactor's thread, listens only while it waits for an answer, and holds
    nothing after :meth:`stop` or :meth:`release`, which end it.

    :param clock: IReactorTime, for what happens next.
    :param wall_time: seconds since the epoch, for what is kept.
    :param timeout: for how many seconds a server's answer is waited for when an address is acquired; three times as
        long while servers answer others.
    """

    def __init__(
        self,
        wire: LanSocket,
        client: Client,
        holder: LeaseStore,
        *,
        clock: Any,
        randomness: Random,
        wall_time: Callable[[], float],
        timeout: float = 10.0,
    ) -> None:
        self.state = State.INIT
        self.facts: Binding | None = None
        """What is held; also while the server denies it."""
        self.denied = False
        """Whether the server took it back, or nobody prolonged it: it is being asked for again."""
        self.hostname = client.hostname
        """Named from the next message on."""
        self._client = client
        self._holder = holder
        self._means = Context(wire, clock, randomness, wall_time)
        self._timeout = timeout
        self._log = LeaseLog(wire.parent, client.mac)
        self._task: Deferred[Any] | None = None
        self._ended = False
        self._on_its_way: Binding | None = None
        self._began = self._renewal = 0.0
        """When the lease did, and when it is to be renewed, by the reactor's clock."""

    async def acquire(self, wanted: IPv4Address | None = None) -> Binding:
        """
        Take a lease, which is on disk on return and is renewed from then on.

        :param wanted: the address that it has to be of.
        :raises Refused: no server offers one within the time, or none of *wanted*; or what is offered is in use.
        """
        self._task = ensureDeferred(self._acquire(wanted))
        try:
            facts: Binding = await self._task
        except CancelledError:
            raise RequestRefused(
                f"the DHCP lease for {self._client.mac} on {self._means.wire.parent} was given up half-way, for the "
                "service ends: try again when it is back"
            ) from None
        self._go_on()
        return facts

    def resume(self, facts: Binding) -> None:
        """Go on, after a restart, with what was kept: have it confirmed, and renew it from then on."""
        self._hold_to(facts)
        self.state = State.INIT_REBOOT
        self._go_on()

    def release(self) -> None:
        """Give the lease back, if there is one, and end. What is only on its way is given back, too."""
        facts = None if self.denied else self.facts or self._on_its_way
        self.stop()
        if facts is not None:
            release(self._means.wire, facts, self._means.randomness)

    def stop(self) -> None:
        """End without a word to the server: the container goes on, and so will a later :meth:`resume`."""
        self._ended = True
        self.state = State.INIT
        if self._task is not None:
            self._task.cancel()

    # From INIT to BOUND.

    async def _acquire(self, wanted: IPv4Address | None) -> Binding:
        now = self._means.now()
        patience = Deadline(now + self._timeout, now + _BUSY * self._timeout, self._timeout)
        reasons: list[str] = []
        for _ in range(_MOST_ATTEMPTS):
            try:
                facts = await self._take(wanted, patience)
            except AcquireFailed as fruitless:
                self._log.fruitless(str(fruitless))
                reasons.insert(0, str(fruitless))
                if fruitless.answered:
                    patience = patience.extended(self._means.now())
                if fruitless.hopeless or self._means.has_come(patience.deadline):
                    break
                continue
            await self._keep_new(facts)
            self._log.leased(facts)
            return facts
        raise RequestRefused("; before that: ".join(dict.fromkeys(reasons)))

    async def _take(self, wanted: IPv4Address | None, patience: Deadline, **others: Any) -> Binding:
        """As :func:`acquire`, of which *others* are the parameters for a lease that was lost."""
        words = {"wanted": wanted, "patience": patience, **others}
        try:
            return await acquire(self._means, self._speaker(), self._holder, self._enter, **words)
        except CancelledError:
            raise
        except Exception:
            self._enter(State.INIT)
            raise

    async def _keep_new(self, facts: Binding) -> None:
        try:
            await self._holder.keep(facts)
        except CancelledError:
            raise
        except Exception:
            self._enter(State.INIT)
            release(self._means.wire, facts, self._means.randomness)
            raise
        self._hold_to(facts)

    def _enter(self, state: State, on_its_way: Binding | None = None) -> None:
        self.state = state
        self._on_its_way = on_its_way

    def _speaker(self) -> Client:
        return evolve(self._client, hostname=self.hostname)

    def _hold_to(self, facts: Binding) -> None:
        self._enter(State.BOUND)
        self.facts = facts
        self.denied = False
        now = self._means.now()
        self._began = now - max(0.0, self._means.wall_time() - facts.obtained_at)
        # Leases that were taken together are not all renewed together (RFC 2131, 4.4.5).
        renewal = self._began + facts.t1 * self._means.randomness.uniform(0.95, 1.0)
        self._renewal = max(renewal, now + _SOONEST)

    # From BOUND on.

    def _go_on(self) -> None:
        self._task = ensureDeferred(self._hold_until_cancelled())

    async def _hold_until_cancelled(self) -> None:
        with suppress(CancelledError):
            await self._hold()

    async def _hold(self) -> None:
        while not self._ended:
            try:
                await self._next_step()
            except CancelledError:
                raise
            except Exception as error:
                self._log.failed("something went wrong, it goes on in a minute", error)
                await self._sleep(_SLOW)

    async def _next_step(self) -> None:
        facts, means = self.facts, self._means
        assert facts is not None
        end = float("inf") if facts.is_for_ever else self._began + facts.lease_seconds
        if self.denied:
            await self._regain(facts)
        elif means.has_come(end):
            self._lose(facts, "its time is over, and no server prolonged it")
        elif self.state is State.INIT_REBOOT:
            await self._confirm(facts, State.INIT_REBOOT, min(means.now() + self._timeout, end))
        elif facts.is_for_ever:
            self.state = State.BOUND
            await self._sleep(_A_DAY)
        elif not means.has_come(self._renewal):
            self.state = State.BOUND
            await self._sleep(self._renewal - means.now())
        elif not means.has_come(self._began + facts.t2):
            await self._confirm(facts, State.RENEWING, self._began + facts.t2)
        else:
            await self._confirm(facts, State.REBINDING, end)

    async def _confirm(self, facts: Binding, state: State, deadline: float) -> None:
        self.state = state
        try:
            renewed = await confirm(self._means, self._speaker(), facts, state, deadline)
        except NakReceived as taken_back:
            self._lose(facts, str(taken_back))
            return
        if renewed is None:
            self._log.unanswered(facts, state.value)
            self.state = State.BOUND
            return
        await self._keep_known(renewed)
        self._log.confirmed(renewed)

    async def _keep_known(self, facts: Binding) -> None:
        """The server has granted it, whether the disk takes it or not."""
        self._hold_to(facts)
        try:
            await self._holder.keep(facts)
        except CancelledError:
            raise
        except Exception as error:
            self._log.failed("its new times could not be kept; after a restart the old ones count", error)

    # When it was lost.

    def _lose(self, facts: Binding, reason: str) -> None:
        self._enter(State.INIT)
        self.denied = True
        self._log.lost(facts, reason)
        self._holder.lost(facts, reason)

    async def _regain(self, lost: Binding) -> None:
        """Ask for the same address for ever: without it the container would certainly be off the LAN."""
        pause, told, elsewhere = _SOONEST, "", True
        while not self._ended:
            patience = Deadline.until(self._means.now() + self._timeout)
            try:
                found = await self._take(
                    lost.address, patience, held=lost.address, elsewhere=elsewhere, first_wait=pause
                )
            except AcquireFailed as fruitless:
                if str(fruitless) != told:
                    told = str(fruitless)
                    self._log.fruitless(told)
            else:
                if found.address == lost.address:
                    await self._keep_known(found)
                    self._log.regained(found)
                    self._holder.regained(found)
                    return
                if await self._moved(lost, found):
                    return
                elsewhere, pause = False, _SLOW
            await self._sleep(pause * self._means.randomness.uniform(0.9, 1.0))
            pause = min(pause * 2, _SLOW)

    async def _moved(self, lost: Binding, found: Binding) -> bool:
        self._log.moved(lost, found)
        try:
            accepted = await self._holder.moved(lost, found)
        except CancelledError:
            raise
        except Exception as error:
            self._log.failed(f"its container could not move from {lost.address} to {found.address}", error)
            accepted = False
        if accepted:
            await self._keep_known(found)
            self._log.leased(found)
        else:
            self._enter(State.INIT)
            release(self._means.wire, found, self._means.randomness)
        return accepted

    async def _sleep(self, seconds: float) -> None:
        if not self._ended:
            await deferLater(self._means.clock, seconds)
