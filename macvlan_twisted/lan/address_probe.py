"""
Probes whether an address is free on the LAN, before it is allocated (RFC 5227, 2.1; RFC 4862, 5.4).

Whoever found an address free must answer probes for it from that very moment, as
:class:`~macvlan_twisted.lan.address_monitor.AddressMonitor` does. Otherwise another host that began a little later finds it
free, too.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from math import inf
from random import Random
from typing import Any

from attrs import frozen

from ..addresses import IPAddress
from ..errors import LinkError
from ..failpoints import Failpoint
from .arp_nd import AddressClaim, NeighbourMessage, probe_frame
from .interfaces import LanSocket

PROBE = Failpoint("lan.address.probe", "the LAN is asked who has an address, which commits nobody")


class Evidence(enum.Enum):
    """How we know that a host has an address, as words that follow its MAC."""

    ANSWERED = "answers for it"
    PROBED = "is about to take it, too"
    CLAIMED = "claimed it a moment ago"
    OURS = "has it from us"
    HOST = "is the host itself"


@frozen
class Free:
    """No host answered, and no other host probed."""


@frozen
class InUse:
    mac: str
    how: Evidence

    @property
    def user(self) -> str:
        """The host and how we know of it, as words."""
        return f"MAC {self.mac}, which {self.how.value}"


@frozen
class Inconclusive:
    """The probe could not run. The address may be free or taken."""

    reason: str


Verdict = Free | InUse | Inconclusive


@frozen
class ProbeTiming:
    """When probes are sent; all times in seconds."""

    first: float
    """Upper limit of the random delay of the first probe, so that hosts that start together do not probe together."""
    shortest: float
    longest: float
    """Limits of the random delay between probes."""
    quiet: float
    """Least time to listen after the last probe."""
    whole: float = 0.0
    """Least duration of the whole probe."""
    probes: int = 3

    def plan(self, random: Random) -> tuple[list[float], float]:
        """The times of all probes, and of the end, from now."""
        times = [random.uniform(0.0, self.first)]
        while len(times) < self.probes:
            times.append(times[-1] + random.uniform(self.shortest, self.longest))
        return times, max(times[-1] + self.quiet, self.whole)


def bounded(seconds: float) -> ProbeTiming:
    """
    Three probes, and a verdict after *seconds* at the latest (exactly then, if no host answers).

    A fifth of the time is for the answer to the last probe. A wired host needs less than a millisecond; one in Wi-Fi power
    save receives the probe with its access point's next beacons, 0.1 to 0.3 s later.
    """
    return ProbeTiming(0.2 * seconds, 0.1 * seconds, 0.3 * seconds, 0.2 * seconds, seconds)


QUICK = bounded(0.5)
_TIMER_SLACK = 0.01
"""Seconds by which a probe may be sent late without more time for its answer."""
RFC_5227 = ProbeTiming(first=1.0, shortest=1.0, longest=2.0, quiet=2.0)
"""PROBE_WAIT, PROBE_MIN, PROBE_MAX, ANNOUNCE_WAIT: 4 to 7 seconds."""


class ProbeRate:
    """
    Keeps the probes of one LAN below a rate: each is three broadcasts, which every host there has to look at.

    :param rate: how many probes may begin a second. :param burst: how many may begin at once after a pause.
    """

    def __init__(self, rate: float = 50, burst: int = 128) -> None:
        self._interval = 1 / rate
        self._credit = (burst - 1) / rate
        self._due = -inf
        """When the next probe would begin if all came at the rate."""

    def delay(self, now: float) -> float:
        """:return: the seconds for which a probe that is wanted at *now* has to wait."""
        due = max(now, self._due)
        self._due = due + self._interval
        return max(0.0, due - self._credit - now)

    def answered(self) -> None:
        """A probe was a single broadcast, since it was answered: it does not count."""
        self._due -= self._interval


def own_mac(socket: LanSocket) -> str:
    """The MAC of our frames on *socket*; empty while it is not open."""
    try:
        return socket.mac
    except LinkError:
        return ""


class AddressProbe:
    """
    One probe: :meth:`receive` is called with each message on the LAN from :meth:`start` on. Probes from the socket's own
    MAC are ours; a claim from it is the host's, and counts.

    :param clock: ``IReactorTime``
    :param done: called once with the verdict, unless :meth:`stop` is called before.
    """

    def __init__(
        self,
        socket: LanSocket,
        address: IPAddress,
        timing: ProbeTiming,
        clock: Any,
        random: Random,
        done: Callable[[Verdict], None],
    ) -> None:
        self._socket = socket
        self._address = address
        self._timing = timing
        self._clock = clock
        self._random = random
        self._done = done
        self._own_macs: set[str] = set()
        """Our link on the parent may be made again meanwhile, with another MAC."""
        self._failure = ""
        self._sent_at = 0.0
        self._calls: list[Any] = []

    def start(self, delay: float = 0.0) -> None:
        """:param delay: seconds until the probe begins; what is received meanwhile counts."""
        self._own_macs.add(own_mac(self._socket))
        times, end = self._timing.plan(self._random)
        self._calls = [self._clock.callLater(delay + time, self._send) for time in times]
        self._calls.append(self._clock.callLater(delay + end, self._end))

    def receive(self, message: NeighbourMessage | None) -> None:
        if message is None or message.address != self._address:
            return
        if isinstance(message, AddressClaim):
            self._decide(InUse(message.mac, Evidence.ANSWERED))
        elif message.mac not in self._own_macs:
            self._decide(InUse(message.mac, Evidence.PROBED))

    def stop(self) -> None:
        calls, self._calls = self._calls, []
        for call in calls:
            if call.active():
                call.cancel()

    def _send(self) -> None:
        self._sent_at = self._clock.seconds()
        try:
            mac = self._socket.mac
            self._own_macs.add(mac)
            with PROBE:
                self._socket.send(probe_frame(self._address, mac))
            self._failure = ""
        except LinkError as failure:
            self._failure = str(failure)

    def _end(self) -> None:
        quiet = self._clock.seconds() - self._sent_at
        if quiet < self._timing.quiet - _TIMER_SLACK:  # the machine was suspended, or is very busy
            self._calls = [self._clock.callLater(self._timing.quiet - quiet, self._end)]
            return
        # The last probe must have been sent. If the parent went down after an earlier one, no host could answer.
        self._decide(Inconclusive(self._failure) if self._failure else Free())

    def _decide(self, verdict: Verdict) -> None:
        if self._calls:
            self.stop()
            self._done(verdict)
