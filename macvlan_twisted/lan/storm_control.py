"""
Storm control, as a switch has it: while a LAN has far more frames than usual, read only those about addresses of ours.

A neighbour that floods the LAN with ARP would otherwise keep the service busy. The kernel drops the other frames, so
frames about the addresses that we probe for, hold or defend are not lost among them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any

from twisted.logger import Logger

from ..addresses import IPAddress
from .arp_nd import Probe, decode
from .packet_filter import MOST_MUTED, AddressFilter, address_key, filter_about, frame_key

_log = Logger(namespace="macvlan_twisted.lan")

MOST_FRAMES = 2000
"""Frames that are read within :data:`PERIOD` before the filter is narrowed."""
PERIOD = 1.0
"""
Seconds for which the filter stays narrow. Then all frames pass again until there are too many, so some of other hosts are
still noticed. The address of a probe is added as the probe is sent; one that is assigned without a probe, after this time.
"""
LOUD = 20
"""
Frames about one address within a period. If even the narrow filter passes too many frames, those about louder addresses are
dropped for the rest of the period: such a conflict has been reported, and such probes have been answered.
"""
_QUIET = 60.0
"""Seconds after a storm until the next one is logged."""


class StormControl:
    """
    For one packet socket.

    :param clock: ``IReactorTime``
    :param attach: gives the socket the filter about these addresses only, or the ordinary one.
    :param addresses: the addresses about which every frame matters.
    """

    def __init__(
        self,
        parent: str,
        clock: Any,
        attach: Callable[[AddressFilter | None], None],
        addresses: Callable[[], Iterable[IPAddress]],
    ) -> None:
        self._parent = parent
        self._clock = clock
        self._attach = attach
        self._addresses = addresses
        self._frames = 0
        self._since = clock.seconds()
        self._filter: AddressFilter | None = None
        self._about: Counter[int] = Counter()
        """Frames by their addresses' keys, since the filter was narrowed."""
        self._widening: Any = None
        self._ended = -_QUIET

    def received(self, frame: bytes) -> None:
        """A frame was read."""
        self._frames += 1
        if self._filter is not None:
            key = frame_key(frame)
            if key is not None:
                self._about[key] += 1
        if self._frames >= MOST_FRAMES:
            self._decide(frame)

    def will_send(self, frame: bytes) -> None:
        """A frame is about to be sent: if it is a probe, the answer must pass."""
        if self._filter is None:
            return
        message = decode(frame)
        if isinstance(message, Probe):
            key = address_key(message.address)
            if not self._filter.passes(key):
                del self._about[key]
                self._narrow()

    def stop(self) -> None:
        """The socket is closed."""
        if self._widening is not None:
            self._widening.cancel()
            self._widening = None

    def _decide(self, frame: bytes) -> None:
        now = self._clock.seconds()
        self._frames = 0
        if self._filter is not None:
            self._narrow()
        elif self._widening is None and now - self._since <= PERIOD:
            self._log_storm(frame, now)
            self._narrow()
            self._widening = self._clock.callLater(PERIOD, self._widen)
        else:
            self._since = now

    def _log_storm(self, frame: bytes, now: float) -> None:
        if now - self._ended < _QUIET:
            return  # it goes on
        # Cause: a host sends far more ARP or neighbour discovery than usual, or a loop in the LAN multiplies frames.
        # Meanwhile the plugin learns of other hosts' addresses mainly by probing. Remedy: find the host by its MAC, or
        # the loop.
        _log.warn(
            "parent {parent}: flooded with ARP or neighbour discovery ({number} frames within a second, the last from MAC "
            "{mac}); only frames about the plugin's own addresses are read",
            parent=self._parent,
            number=MOST_FRAMES,
            mac=frame[6:12].hex(":"),
        )

    def _narrow(self) -> None:
        loud = [key for key, number in self._about.most_common(MOST_MUTED) if number > LOUD]
        narrowed = filter_about(self._addresses(), loud)
        with suppress(OSError):  # the kernel is short of memory: the last filter stays
            self._attach(narrowed)
            self._filter = narrowed

    def _widen(self) -> None:
        self._widening = None
        try:
            self._attach(None)
        except OSError:
            self._widening = self._clock.callLater(PERIOD, self._widen)
            return
        self._filter = None
        self._about.clear()
        self._frames = 0
        self._since = self._ended = self._clock.seconds()
