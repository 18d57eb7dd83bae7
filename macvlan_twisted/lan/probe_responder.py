"""Defends addresses: answers the probes of other hosts, at a limited rate."""

from __future__ import annotations

from collections import deque
from typing import Any

from attrs import define, field
from twisted.logger import Logger

from ..errors import LinkError
from ..failpoints import Failpoint
from .arp_nd import Probe, answer_frame
from .interfaces import LanSocket

_log = Logger(namespace="macvlan_twisted.lan")

_ANSWER = Failpoint(
    "lan.address.defend", "somebody who probes for an address of ours is told that it is in use"
)

_ECHO = 2.0
"""Seconds within which our frame may return, from a sibling on the parent or a switch in hairpin mode."""
_MOST_AT_ONCE = 400


@define
class TokenBucket:
    """Limits a rate: *burst* times at once, and *rate* times a second."""

    rate: float
    burst: float
    _left: float = field(init=False)
    _counted_at: float = field(init=False, default=0.0)

    def __attrs_post_init__(self) -> None:
        self._left = self.burst

    def take(self, now: float) -> bool:
        # The clock may go back.
        self._left = min(self.burst, self._left + max(0.0, now - self._counted_at) * self.rate)
        self._counted_at = now
        if self._left < 1:
            return False
        self._left -= 1
        return True


def for_one_address() -> TokenBucket:
    """So that a host that probes for one address for ever does not use up the limit for all."""
    return TokenBucket(rate=10, burst=20)


class ProbeResponder:
    """
    :param clock: ``IReactorTime``
    """

    def __init__(self, wire: LanSocket, clock: Any) -> None:
        self._wire = wire
        self._clock = clock
        self._limit = TokenBucket(rate=100, burst=_MOST_AT_ONCE)
        self._sent: deque[tuple[float, bytes]] = deque(maxlen=_MOST_AT_ONCE)
        self._is_failing = False

    def answer(self, probe: Probe, mac: str, limit: TokenBucket) -> None:
        """Answer that *mac* has the address. Of several answers that cannot be sent, the first is logged."""
        now = self._clock.seconds()
        if not (limit.take(now) and self._limit.take(now)):
            return
        frame = answer_frame(probe.address, mac, probe.mac)
        self._sent.append((now, frame))
        try:
            with _ANSWER:
                self._wire.send(frame)
            self._is_failing = False
        except LinkError as failure:
            if not self._is_failing:
                # Cause: the parent is down or has no carrier; another host may take the address. Remedy:
                # bring the parent up, or check its cable and the switch's port.
                _log.warn(
                    "address {address}: cannot answer the probe from MAC {mac} ({reason})",
                    address=str(probe.address),
                    mac=probe.mac,
                    reason=str(failure),
                )
            self._is_failing = True

    def is_echo(self, frame: bytes) -> bool:
        """Whether *frame* is an answer that we sent a moment ago."""
        now = self._clock.seconds()
        return any(sent == frame for time, sent in self._sent if abs(now - time) <= _ECHO)
