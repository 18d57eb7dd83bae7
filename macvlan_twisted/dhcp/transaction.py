"""One transaction with DHCP servers: a message is retransmitted until an answer matches (RFC 2131, 4.1)."""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from ipaddress import IPv4Address
from math import inf
from random import Random
from typing import Any, Self

from attrs import evolve, frozen
from twisted.internet.defer import Deferred

from ..errors import LinkError
from ..failpoints import Failpoint
from ..lan.interfaces import LanSocket, ReceivedFrame
from .binding import Client
from .messages import ClientMessage, MessageType, Server, ServerMessage, decode, encode, is_answer

SETTLING = 1.0
"""Seconds to wait for a better answer after a fallback arrived."""

_SENDING = {
    MessageType.DISCOVER: Failpoint(
        "dhcp.lease.discover", "DHCP servers are asked for an offer, which commits none of them"
    ),
    MessageType.REQUEST: Failpoint(
        "dhcp.lease.request", "a DHCP server is asked for a lease, or for more of its time"
    ),
    MessageType.DECLINE: Failpoint(
        "dhcp.lease.decline", "a DHCP server is told that an address it lent is in use by another host"
    ),
}
_MOST_UNREAD = 64
_TIMER_SLACK = 0.001
"""Seconds by which a timer may fire early, by rounding."""


@frozen
class Environment:
    """Time and randomness of all DHCP clients."""

    clock: Any
    """IReactorTime, for timers."""
    random: Random
    wall_time: Callable[[], float]
    """Seconds since the epoch, for what is saved."""
    timeout: float = 10.0
    """Seconds to wait for a server's answer when an address is acquired; three times as long while servers answer other
    clients."""


@frozen
class Context:
    """What every transaction of a client needs."""

    socket: LanSocket
    environment: Environment

    @property
    def parent(self) -> str:
        return self.socket.parent

    @property
    def random(self) -> Random:
        return self.environment.random

    def now(self) -> float:
        """By the clock that nobody sets."""
        return float(self.environment.clock.seconds())

    def wall_time_of(self, moment: float) -> float:
        """The time of day at *moment* by the clock."""
        return self.environment.wall_time() - (self.now() - moment)

    def is_past(self, moment: float) -> bool:
        return self.now() + _TIMER_SLACK >= moment


@frozen
class Deadline:
    """Until when to wait for an answer; moments are by the clock."""

    deadline: float
    latest: float
    """The deadline moves up to here while servers answer any client: ours may have many to serve."""
    quiet: float = 0.0
    """Seconds after a server's last message until servers count as silent."""

    @classmethod
    def until(cls, deadline: float) -> Deadline:
        """One that does not move."""
        return cls(deadline, deadline)

    def extended(self, last_answer: float) -> Deadline:
        """The deadline after a server has answered any client at *last_answer*."""
        return evolve(self, deadline=max(self.deadline, min(last_answer + self.quiet, self.latest)))


class Match(enum.Enum):
    """What an answer is worth."""

    NONE = enum.auto()
    FALLBACK = enum.auto()
    """Use it unless a better one follows."""
    FULL = enum.auto()


class Transaction:
    """One transaction id. It listens inside a ``with`` block only."""

    def __init__(self, context: Context, client: Client) -> None:
        self.began = self.sent_at = context.now()
        """By the clock that nobody sets: the start of the transaction, and the last message."""
        self.trouble = ""
        """Why the last message could not be sent."""
        self._context = context
        self._client = client
        self._xid = context.random.getrandbits(32)
        self._last_answer = -inf  # of any server to any client
        self._unread: deque[ServerMessage] = deque()
        self._waiting: Deferred[None] | None = None
        self._stop_listening: Callable[[], None] = lambda: None

    def __enter__(self) -> Self:
        self._stop_listening = self._context.socket.listen(self._received)
        return self

    def __exit__(self, *_: object) -> None:
        self._stop_listening()

    def transmit(
        self,
        kind: MessageType,
        *,
        client_address: IPv4Address | None = None,
        requested: IPv4Address | None = None,
        server_id: IPv4Address | None = None,
        to: Server | None = None,
    ) -> None:
        """Send a message. One that cannot be sent counts as lost."""
        self.sent_at = self._context.now()
        message = ClientMessage(
            kind=kind,
            mac=self._client.mac,
            xid=self._xid,
            client_id=self._client.identifier,
            seconds=int(self.sent_at - self.began),
            client_address=client_address,
            requested=requested,
            server_id=server_id,
            hostname=self._client.hostname,
            vendor_class=self._client.vendor_class,
            to=to,
        )
        try:
            with _SENDING[kind]:
                self._context.socket.send(encode(message))
            self.trouble = ""
        except LinkError as failure:
            self.trouble = str(failure)

    async def exchange(
        self,
        transmit: Callable[[], None],
        match: Callable[[ServerMessage], Match],
        waits: Iterable[float],
        deadline: Deadline,
    ) -> ServerMessage | None:
        """
        Call *transmit*, and again after each of *waits* (seconds), until an answer matches fully, or *deadline*.

        :return: that answer; else the first fallback, :data:`SETTLING` seconds after it arrived; else ``None``.
        """
        fallback: ServerMessage | None = None
        for wait in waits:
            transmit()
            until = min(self._context.now() + wait, deadline.deadline)
            while (answer := await self._next(until)) is not None:
                matched = match(answer)
                if matched is Match.FULL:
                    return answer
                if matched is Match.FALLBACK and fallback is None:
                    fallback = answer
                    until = min(deadline.deadline, self._context.now() + SETTLING)
                    deadline = Deadline.until(until)
            deadline = deadline.extended(self._last_answer)
            if self._context.is_past(deadline.deadline):
                break
        return fallback

    async def _next(self, until: float) -> ServerMessage | None:
        left = until - self._context.now()
        if not self._unread and left > 0:
            waiting = self._waiting = Deferred()
            timer = self._context.environment.clock.callLater(left, waiting.callback, None)
            try:
                await waiting
            finally:
                self._waiting = None
                if timer.active():
                    timer.cancel()
        return self._unread.popleft() if self._unread else None

    def _received(self, received: ReceivedFrame) -> None:
        if is_answer(received.frame):
            self._last_answer = self._context.now()
        answer = decode(received.frame, xid=self._xid, mac=self._client.mac)
        if answer is None or len(self._unread) >= _MOST_UNREAD:
            return
        self._unread.append(answer)
        if self._waiting is not None and not self._waiting.called:
            self._waiting.callback(None)


def exponential_backoff(random: Random, first: float = 1.0) -> Iterator[float]:
    """
    1, 2, 4, 8, 16, 16 ... seconds, or from *first* on, each varied by up to 10 %, so that clients that lost their server
    together do not all ask together. RFC 2131, 4.1 begins with 4 seconds; a container that starts does not wait that long.
    """
    wait = first
    while True:
        yield wait * random.uniform(0.9, 1.1)
        wait = max(first, min(wait * 2, 16.0))


def half_of_remaining_time(context: Context, deadline: float) -> Iterator[float]:
    """
    Half of the remaining time, at least a minute (RFC 2131, 4.4.5); with leases of minutes or seconds, at least an eighth
    of the whole time.
    """
    least = min(60.0, max(1.0, (deadline - context.now()) / 8))
    while True:
        yield max((deadline - context.now()) / 2, least)
