"""One transaction with DHCP servers: what is said again until something that counts is heard."""

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
"""For so many seconds something better is waited for when a second-best answer was heard."""

_SAYING = {
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
_ANY_MOMENT = 0.001
"""A timer may be early by a rounding error."""


@frozen
class Context:
    """What every conversation needs."""

    wire: LanSocket
    clock: Any
    """IReactorTime."""
    randomness: Random
    wall_time: Callable[[], float]

    def now(self) -> float:
        return float(self.clock.seconds())

    def has_come(self, moment: float) -> bool:
        return self.now() + _ANY_MOMENT >= moment


@frozen
class Deadline:
    """Until when an answer is waited for; moments by the reactor's clock."""

    deadline: float
    latest: float
    """As long as servers speak to anyone on the LAN, it may become this late: ours may have many to serve."""
    quiet: float = 0.0
    """So many seconds after their last word servers have fallen silent."""

    @classmethod
    def until(cls, deadline: float) -> Deadline:
        """And no later, whatever servers do."""
        return cls(deadline, deadline)

    def extended(self, last_word: float) -> Deadline:
        """Where there was a last word lately."""
        return evolve(self, deadline=max(self.deadline, min(last_word + self.quiet, self.latest)))


class Match(enum.Enum):
    """Of an answer."""

    NOTHING = enum.auto()
    SECOND_BEST = enum.auto()
    RIGHT = enum.auto()


class Transaction:
    """Under one transaction id, between ``with`` and the end of that block; outside of it nobody listens."""

    def __init__(self, means: Context, client: Client) -> None:
        self.began = self.said_at = means.now()
        """By the reactor's clock: the conversation, and when something was said last."""
        self.trouble = ""
        """Why the last message did not leave."""
        self._means = means
        self._client = client
        self._xid = means.randomness.getrandbits(32)
        self._last_word = -inf  # of any server to anyone
        self._unread: deque[ServerMessage] = deque()
        self._waiting: Deferred[None] | None = None
        self._stop_listening: Callable[[], None] = lambda: None

    def __enter__(self) -> Self:
        self._stop_listening = self._means.wire.listen(self._hear)
        return self

    def __exit__(self, *_: object) -> None:
        self._stop_listening()

    def say(
        self,
        kind: MessageType,
        *,
        client_address: IPv4Address | None = None,
        requested: IPv4Address | None = None,
        server_id: IPv4Address | None = None,
        to: Server | None = None,
    ) -> None:
        """A message that does not leave is as good as one that is lost on its way."""
        self.said_at = self._means.now()
        ask = ClientMessage(
            kind=kind,
            mac=self._client.mac,
            xid=self._xid,
            client_id=self._client.identifier,
            seconds=int(self.said_at - self.began),
            client_address=client_address,
            requested=requested,
            server_id=server_id,
            hostname=self._client.hostname,
            vendor_class=self._client.vendor_class,
            to=to,
        )
        try:
            with _SAYING[kind]:
                self._means.wire.send(encode(ask))
            self.trouble = ""
        except LinkError as failure:
            self.trouble = str(failure)

    async def ask(
        self,
        say: Callable[[], None],
        worth: Callable[[ServerMessage], Match],
        waits: Iterable[float],
        patience: Deadline,
    ) -> ServerMessage | None:
        """
        Call *say*, again after each of *waits* (seconds), until an answer is right, or *patience* is at its end.

        :returns: the right answer, or the first second-best one :data:`SETTLING` seconds after it came, or nothing.
        """
        second_best: ServerMessage | None = None
        for wait in waits:
            say()
            until = min(self._means.now() + wait, patience.deadline)
            while (answer := await self._next(until)) is not None:
                its_worth = worth(answer)
                if its_worth is Match.RIGHT:
                    return answer
                if its_worth is Match.SECOND_BEST and second_best is None:
                    second_best = answer
                    until = min(patience.deadline, self._means.now() + SETTLING)
                    patience = Deadline.until(until)
            patience = patience.extended(self._last_word)
            if self._means.has_come(patience.deadline):
                break
        return second_best

    async def _next(self, until: float) -> ServerMessage | None:
        left = until - self._means.now()
        if not self._unread and left > 0:
            waiting = self._waiting = Deferred()
            timer = self._means.clock.callLater(left, waiting.callback, None)
            try:
                await waiting
            finally:
                self._waiting = None
                if timer.active():
                    timer.cancel()
        return self._unread.popleft() if self._unread else None

    def _hear(self, heard: ReceivedFrame) -> None:
        if is_answer(heard.frame):
            self._last_word = self._means.now()
        answer = decode(heard.frame, xid=self._xid, mac=self._client.mac)
        if answer is None or len(self._unread) >= _MOST_UNREAD:
            return
        self._unread.append(answer)
        if self._waiting is not None and not self._waiting.called:
            self._waiting.callback(None)


def exponential_backoff(randomness: Random, first: float = 1.0) -> Iterator[float]:
    """
    1, 2, 4, 8, 16, 16 ... seconds, or from *first* on, each some percent off, so that those who lost their server together do not all
    ask together (RFC 2131, 4.1, begins with 4 seconds: a container that starts does not wait that long).
    """
    wait = first
    while True:
        yield wait * randomness.uniform(0.9, 1.1)
        wait = max(first, min(wait * 2, 16.0))


def half_of_remaining_time(means: Context, deadline: float) -> Iterator[float]:
    """
    Half of the time that is left, at least a minute (RFC 2131, 4.4.5); with leases of some minutes or seconds at least
    an eighth of the time there was.
    """
    least = min(60.0, max(1.0, (deadline - means.now()) / 8))
    while True:
        yield max((deadline - means.now()) / 2, least)
