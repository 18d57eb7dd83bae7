"""The life of one lease by RFC 2131: acquired, renewed, lost and acquired again, released."""

from __future__ import annotations

from contextlib import suppress
from ipaddress import IPv4Address
from typing import Any

from attrs import evolve
from twisted.internet.defer import CancelledError, Deferred, ensureDeferred
from twisted.internet.task import deferLater
from twisted.logger import Logger

from ..errors import MacvlanError, RequestRefused
from ..lan.interfaces import LanSocket
from .acquire import AcquireFailed, acquire
from .binding import Binding, Client, Granted, State
from .release import release
from .renew import NakReceived, renew
from .store import LeaseStore
from .transaction import Context, Deadline, Environment

_log = Logger(namespace="macvlan_twisted.dhcp")

_MOST_ATTEMPTS = 4
"""The first one, and three more after a server withdrew its offer or offered an address in use."""
_BUSY = 3
"""
Times the timeout to wait for a server that answers other clients meanwhile. Where many containers start together, a dnsmasq
that probes each address for three seconds before it offers it answers the last one after 25 seconds (measured).
"""
_SLOW = 60.0
"""Seconds between requests for an address that no server gives."""
_SOONEST = 1.0
"""Least seconds until a renewal, however short the lease."""
_A_DAY = 86400.0


class Lease:
    """
    One lease of one container. It listens only while it waits for an answer, and holds nothing after :meth:`stop` or
    :meth:`release`, which end it.
    """

    def __init__(
        self, socket: LanSocket, client: Client, store: LeaseStore, environment: Environment
    ) -> None:
        self.state = State.INIT
        self.binding: Binding | None = None
        """The lease that is held; in REACQUIRING, the lost one."""
        self.hostname = client.hostname
        """Sent with the next message."""
        self._client = client
        self._store = store
        self._context = Context(socket, environment)
        self._task: Deferred[Any] | None = None
        self._ended = False
        self._requested: Binding | None = None
        """The binding that is being requested."""
        self._began = self._renewal = 0.0
        """The start of the lease and the time of its renewal, by the clock that nobody sets."""

    async def acquire(self, wanted: IPv4Address | None = None) -> Binding:
        """
        Acquire a lease, which is saved on return and renewed from then on.

        :param wanted: accept no other address.
        :raises RequestRefused: no server offers an address in time, or not the wanted one, or the offered one is in use.
        """
        self._task = ensureDeferred(self._acquire(wanted))
        try:
            binding: Binding = await self._task
        except CancelledError:
            raise RequestRefused(
                f"DHCP request for {self._client.mac} on {self._context.parent} was interrupted because "
                "the plugin is stopping: try again when the plugin is back"
            ) from None
        self._run()
        return binding

    def resume(self, binding: Binding) -> None:
        """After a restart: have a saved lease confirmed, and renew it from then on."""
        self._bind(Granted(binding, self._context.now() - self._age_of(binding)))
        self.state = State.INIT_REBOOT
        self._run()

    def release(self) -> None:
        """Send DHCPRELEASE for the lease, or for the one that is being requested, and end."""
        binding = None if self.state is State.REACQUIRING else self.binding or self._requested
        self.stop()
        if binding is not None:
            release(self._context.socket, binding, self._context.random)

    def stop(self) -> None:
        """End without a message to the server: the container keeps its address, and :meth:`resume` goes on later."""
        self._ended = True
        self.state = State.INIT
        if self._task is not None:
            self._task.cancel()

    # From INIT to BOUND.

    async def _acquire(self, wanted: IPv4Address | None) -> Binding:
        now, timeout = self._context.now(), self._context.environment.timeout
        deadline = Deadline(now + timeout, now + _BUSY * timeout, timeout)
        reasons: list[str] = []
        for _ in range(_MOST_ATTEMPTS):
            try:
                granted = await self._attempt(wanted, deadline)
            except AcquireFailed as failed:
                self._log_failed_attempt(str(failed))
                reasons.insert(0, str(failed))
                if failed.answered:
                    deadline = deadline.extended(self._context.now())
                if failed.hopeless or self._context.is_past(deadline.deadline):
                    break
                continue
            await self._save_new(granted)
            self._log_leased(granted.binding)
            return granted.binding
        raise RequestRefused("; before that: ".join(dict.fromkeys(reasons)))

    async def _attempt(self, wanted: IPv4Address | None, deadline: Deadline) -> Granted:
        try:
            return await acquire(
                self._context,
                self._current_client(),
                self._store,
                self._enter,
                wanted=wanted,
                deadline=deadline,
            )
        except CancelledError:
            raise
        except Exception:
            self._enter(State.INIT)
            raise

    async def _save_new(self, granted: Granted) -> None:
        try:
            await self._store.save_binding(granted.binding)
        except CancelledError:
            raise
        except Exception:
            self._enter(State.INIT)
            release(self._context.socket, granted.binding, self._context.random)
            raise
        self._bind(granted)

    def _enter(self, state: State, requested: Binding | None = None) -> None:
        self.state = state
        self._requested = requested

    def _current_client(self) -> Client:
        return evolve(self._client, hostname=self.hostname)

    def _age_of(self, binding: Binding) -> float:
        """
        The age of a saved lease by the time of day, in seconds. Where that is impossible, since the clock was wrong or is
        now, the age of a lease that is due to be renewed: a server is asked at once, and there is time to find one.
        """
        age = self._context.environment.wall_time() - binding.obtained_at
        return age if 0 <= age < binding.lease_seconds else binding.t1

    def _bind(self, granted: Granted) -> None:
        binding = granted.binding
        self._enter(State.BOUND)
        self.binding, self._began = binding, granted.began
        # Leases that were acquired together are not all renewed together (RFC 2131, 4.4.5).
        renewal = self._began + binding.t1 * self._context.random.uniform(0.95, 1.0)
        self._renewal = max(renewal, self._context.now() + _SOONEST)

    # From BOUND on.

    def _run(self) -> None:
        self._task = ensureDeferred(self._run_until_cancelled())

    async def _run_until_cancelled(self) -> None:
        with suppress(CancelledError):
            while not self._ended:
                try:
                    await self._next_step()
                except CancelledError:
                    raise
                except Exception as error:
                    self._log_error("renew or regain the lease", error)
                    await self._sleep(_SLOW)

    async def _next_step(self) -> None:
        binding, context = self.binding, self._context
        assert binding is not None
        end = float("inf") if binding.is_for_ever else self._began + binding.lease_seconds
        if self.state is State.REACQUIRING:
            await self._reacquire(binding)
        elif context.is_past(end):
            self._lose(binding, "its time is over, and no server prolonged it")
        elif self.state is State.INIT_REBOOT:
            await self._renew(State.INIT_REBOOT, min(context.now() + context.environment.timeout, end))
        elif binding.is_for_ever:
            self.state = State.BOUND
            await self._sleep(_A_DAY)
        elif not context.is_past(self._renewal):
            self.state = State.BOUND
            await self._sleep(self._renewal - context.now())
        elif not context.is_past(self._began + binding.t2):
            await self._renew(State.RENEWING, self._began + binding.t2)
        else:
            await self._renew(State.REBINDING, end)

    async def _renew(self, state: State, deadline: float) -> None:
        assert self.binding is not None
        self.state = state
        try:
            renewed = await renew(self._context, self._current_client(), self.binding, state, deadline)
        except NakReceived as nak:
            self._lose(self.binding, str(nak))
            return
        if renewed is None:
            self._log_unanswered(self.binding, state)
            self.state = State.BOUND
            return
        await self._save_renewed(renewed)
        self._log_renewed(renewed.binding)

    async def _save_renewed(self, renewed: Granted) -> None:
        """The lease is granted, whether it can be saved or not."""
        self._bind(renewed)
        try:
            await self._store.save_binding(renewed.binding)
        except CancelledError:
            raise
        except Exception as error:
            self._log_error("save the renewed lease", error)

    # In REACQUIRING.

    def _lose(self, binding: Binding, reason: str) -> None:
        self._enter(State.REACQUIRING)
        self._log_lost(binding, reason)
        self._store.lost(binding, reason)

    async def _reacquire(self, lost: Binding) -> None:
        """Request the same address for ever: if the container gave it up, it would be off the LAN for certain."""
        context = self._context
        pause, logged, elsewhere = _SOONEST, "", True
        while not self._ended:
            try:
                found = await acquire(
                    context,
                    self._current_client(),
                    self._store,
                    _stay,
                    wanted=lost.address,
                    deadline=Deadline.until(context.now() + context.environment.timeout),
                    held=lost.address,
                    elsewhere=elsewhere,
                    first_wait=pause,
                )
            except AcquireFailed as failed:
                if str(failed) != logged:
                    logged = str(failed)
                    self._log_failed_attempt(logged)
            else:
                if found.binding.address == lost.address:
                    await self._save_renewed(found)
                    self._log_regained(found.binding)
                    self._store.reacquired(found.binding)
                    return
                if await self._moved(lost, found):
                    return
                elsewhere, pause = False, _SLOW
            await self._sleep(pause * context.random.uniform(0.9, 1.0))
            pause = min(pause * 2, _SLOW)

    async def _moved(self, lost: Binding, found: Granted) -> bool:
        self._log_moved(lost, found.binding)
        try:
            accepted = await self._store.readdress(lost, found.binding)
        except CancelledError:
            raise
        except Exception as error:
            self._log_error(
                f"change the container's address from {lost.address} to {found.binding.address}", error
            )
            accepted = False
        if accepted:
            await self._save_renewed(found)
            self._log_leased(found.binding)
        else:
            release(self._context.socket, found.binding, self._context.random)
        return accepted

    async def _sleep(self, seconds: float) -> None:
        if not self._ended:
            await deferLater(self._context.environment.clock, seconds)

    # One line in the log for each event.

    @property
    def _subject(self) -> dict[str, Any]:
        return {"parent": self._context.parent, "mac": self._client.mac}

    def _log_leased(self, binding: Binding) -> None:
        _log.debug("DHCP {parent} {mac}: leased {lease}", **self._subject, lease=_described(binding))

    def _log_failed_attempt(self, reason: str) -> None:
        # Cause: no server answered, or the server refused; the plugin may try again by itself. Remedy: check that a
        # DHCP server answers on the parent's LAN and has a free address for this MAC.
        _log.warn("DHCP {parent} {mac}: no lease ({reason})", **self._subject, reason=reason)

    def _log_renewed(self, binding: Binding) -> None:
        _log.debug("DHCP {parent} {mac}: renewed {lease}", **self._subject, lease=_described(binding))

    def _log_unanswered(self, binding: Binding, state: State) -> None:
        # Cause: the server is down or unreachable; the plugin tries again, and the lease stays valid until it
        # expires. Remedy: start the server, or reconnect it to the LAN.
        _log.warn(
            "DHCP {parent} {mac}: not renewed, no server answered ({state}, {lease})",
            **self._subject,
            lease=_described(binding),
            state=state.value,
        )

    def _log_lost(self, binding: Binding, reason: str) -> None:
        # Cause: the lease expired or the server refused to renew it; the plugin keeps requesting the address.
        # Remedy: reserve the address for the MAC on the server, or restart the container.
        _log.error(
            "DHCP {parent} {mac}: lease of {address} lost, but the container still uses it ({reason}); reserve {address} "
            "for {mac} on the server",
            **self._subject,
            address=binding.address,
            reason=reason,
        )

    def _log_regained(self, binding: Binding) -> None:
        # Cause: the server assigns the lost address again. Remedy: none needed.
        _log.warn("DHCP {parent} {mac}: lease regained, {lease}", **self._subject, lease=_described(binding))

    def _log_moved(self, old: Binding, new: Binding) -> None:
        # Cause: the server's reservations or pool have changed. Remedy: reserve the old address for the MAC on the
        # server, or restart the container; -o dhcp_readdress=true changes the address of running containers.
        _log.error(
            "DHCP {parent} {mac}: server {server} refuses {old} and insists on {new}",
            **self._subject,
            server=new.server_id,
            old=old.address,
            new=new.address,
        )

    def _log_error(self, action: str, error: Exception) -> None:
        """Call it while *error* is handled: a traceback is logged unless the error is one of ours."""
        if isinstance(error, MacvlanError):
            # Cause: the kernel refused, or writing the state failed. ACTION is to renew or regain the lease, to save
            # the renewed lease, or to change the container's address; the plugin tries again. Remedy: see the reason
            # in the line.
            _log.error(
                "DHCP {parent} {mac}: cannot {action} ({reason})",
                **self._subject,
                action=action,
                reason=str(error),
            )
        else:
            _log.failure("DHCP {parent} {mac}: cannot {action}", **self._subject, action=action)


def _stay(state: State, requested: Binding | None) -> None:
    """The state is REACQUIRING during all attempts."""


def _described(binding: Binding) -> str:
    time = "unlimited" if binding.is_for_ever else f"{binding.lease_seconds} s"
    return f"{binding.interface}, {time}, server {binding.server_id}"
