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

from ...errors import LinkFailed
from ...steps import Step
from ..interface import Heard, Wire
from .facts import Client
from .messages import Answer, Ask, Kind, Server, decode, encode, is_answer

SETTLING = 1.0
"""For so many seconds something better is waited for when a second-best answer was heard."""

_SAYING = {
    Kind.DISCOVER: Step(
        "lan.lease.discover", "DHCP servers are asked for an offer, which commits none of them"
    ),
    Kind.REQUEST: Step("lan.lease.request", "a DHCP server is asked for a lease, or for more of its time"),
    Kind.DECLINE: Step(
        "lan.lease.decline", "a DHCP server is told that an address it lent is in use by another host"
    ),
}
_MOST_UNREAD = 64
_ANY_MOMENT = 0.001
"""A timer may be early by a rounding error."""


@frozen
class Means:
    """What every conversation needs."""

    wire: Wire
    clock: Any
    """IReactorTime."""
    randomness: Random
    wall_time: Callable[[], float]

    def now(self) -> float:
        return float(self.clock.seconds())

    def has_come(self, moment: float) -> bool:
        return self.now() + _ANY_MOMENT >= moment


@frozen
class Patience:
    """Until when an answer is waited for; moments by the reactor's clock."""

    deadline: float
    latest: float
    """As long as servers speak to anyone on the LAN, it may become this late: ours may have many to serve."""
    quiet: float = 0.0
    """So many seconds after their last word servers have fallen silent."""

    @classmethod
    def until(cls, deadline: float) -> Patience:
        """And no later, whatever servers do."""
        return cls(deadline, deadline)

    def extended(self, last_word: float) -> Patience:
        """Where there was a last word lately."""
        return evolve(self, deadline=max(self.deadline, min(last_word + self.quiet, self.latest)))


class Worth(enum.Enum):
    """Of an answer."""

    NOTHING = enum.auto()
    SECOND_BEST = enum.auto()
    RIGHT = enum.auto()


class Conversation:
    """Under one transaction id, between ``with`` and the end of that block; outside of it nobody listens."""

    def __init__(self, means: Means, client: Client) -> None:
        self.began = self.said_at = means.now()
        """By the reactor's clock: the conversation, and when something was said last."""
        self.trouble = ""
        """Why the last message did not leave."""
        self._means = means
        self._client = client
        self._xid = means.randomness.getrandbits(32)
        self._last_word = -inf  # of any server to anyone
        self._unread: deque[Answer] = deque()
        self._waiting: Deferred[None] | None = None
        self._stop_listening: Callable[[], None] = lambda: None

    def __enter__(self) -> Self:
        self._stop_listening = self._means.wire.listen(self._hear)
        return self

    def __exit__(self, *_: object) -> None:
        self._stop_listening()

    def say(
        self,
        kind: Kind,
        *,
        client_address: IPv4Address | None = None,
        requested: IPv4Address | None = None,
        server_id: IPv4Address | None = None,
        to: Server | None = None,
    ) -> None:
        """A message that does not leave is as good as one that is lost on its way."""
        self.said_at = self._means.now()
        ask = Ask(
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
        except LinkFailed as failure:
            self.trouble = str(failure)

    async def ask(
        self,
        say: Callable[[], None],
        worth: Callable[[Answer], Worth],
        waits: Iterable[float],
        patience: Patience,
    ) -> Answer | None:
        """
        Call *say*, again after each of *waits* (seconds), until an answer is right, or *patience* is at its end.

        :returns: the right answer, or the first second-best one :data:`SETTLING` seconds after it came, or nothing.
        """
        second_best: Answer | None = None
        for wait in waits:
            say()
            until = min(self._means.now() + wait, patience.deadline)
            while (answer := await self._next(until)) is not None:
                its_worth = worth(answer)
                if its_worth is Worth.RIGHT:
                    return answer
                if its_worth is Worth.SECOND_BEST and second_best is None:
                    second_best = answer
                    until = min(patience.deadline, self._means.now() + SETTLING)
                    patience = Patience.until(until)
            patience = patience.extended(self._last_word)
            if self._means.has_come(patience.deadline):
                break
        return second_best

    async def _next(self, until: float) -> Answer | None:
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

    def _hear(self, heard: Heard) -> None:
        if is_answer(heard.frame):
            self._last_word = self._means.now()
        answer = decode(heard.frame, xid=self._xid, mac=self._client.mac)
        if answer is None or len(self._unread) >= _MOST_UNREAD:
            return
        self._unread.append(answer)
        if self._waiting is not None and not self._waiting.called:
            self._waiting.callback(None)


def growing_waits(randomness: Random, first: float = 1.0) -> Iterator[float]:
    """
    1, 2, 4, 8, 16, 16 ... seconds, or from *first* on, each some percent off, so that those who lost their server together do not all
    ask together (RFC 2131, 4.1, begins with 4 seconds: a container that starts does not wait that long).
    """
    wait = first
    while True:
        yield wait * randomness.uniform(0.9, 1.1)
        wait = max(first, min(wait * 2, 16.0))


def halving_waits(means: Means, deadline: float) -> Iterator[float]:
    """
    Half of the time that is left, at least a minute (RFC 2131, 4.4.5); with leases of some minutes or seconds at least
    an eighth of the time there was.
    """
    least = min(60.0, max(1.0, (deadline - means.now()) / 8))
    while True:
        yield max((deadline - means.now()) / 2, least)
