"""
Whether an address is free: asked on the LAN, before anybody is given it (RFC 5227, 2.1; RFC 4862, 5.4).

It takes two to be safe: who found an address free must answer probes for it from that very moment, as
:class:`~macvlan_twisted.lan.address_monitor.AddressMonitor` does. Otherwise another host that began a little later finds it free, too.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Collection
from random import Random
from typing import Any

from attrs import frozen
from twisted.internet.defer import Deferred

from ..addresses import IPAddress
from ..errors import LinkError
from ..failpoints import Failpoint
from .arp_nd import AddressClaim, NeighbourMessage, decode, probe_frame
from .interfaces import LanSocket

PROBE = Failpoint("lan.address.probe", "the LAN is asked who has an address, which commits nobody")


class Evidence(enum.Enum):
    """How we know who has an address: words to put behind its MAC."""

    ANSWERED = "answers for it"
    PROBED = "is about to take it, too"
    HEARD = "was heard with it a moment ago"
    OURS = "has it from us"
    HOST = "is of the host itself"


@frozen
class Free:
    """Nobody answered, and nobody else asked."""


@frozen
class Taken:
    mac: str
    how: Evidence


@frozen
class Inconclusive:
    """The probe could not run: that says nothing of the address."""

    reason: str


Verdict = Free | Taken | Inconclusive


@frozen
class ProbeTiming:
    """When probes leave; all in seconds."""

    first: float
    """The first one after a random time up to this: hosts that start together shall not ask together."""
    shortest: float
    longest: float
    """From one probe to the next."""
    quiet: float
    """How long to listen after the last, at least."""
    whole: float = 0.0
    """How long it takes altogether, at least."""
    probes: int = 3

    def plan(self, random: Random) -> tuple[list[float], float]:
        """When each probe leaves, and when nobody is expected to answer any more, both from now."""
        times = [random.uniform(0.0, self.first)]
        while len(times) < self.probes:
            times.append(times[-1] + random.uniform(self.shortest, self.longest))
        return times, max(times[-1] + self.quiet, self.whole)


def bounded(seconds: float) -> ProbeTiming:
    """
    Three probes, and the answer after so many seconds at the latest (exactly then, if nobody speaks).

    A fifth of it is left for the answer to the last probe. A host on a wire needs less than a millisecond; one in
    Wi-Fi power save is reached at its access point's next beacons, 0.1 to 0.3 s later.
    """
    return ProbeTiming(0.2 * seconds, 0.1 * seconds, 0.3 * seconds, 0.2 * seconds, seconds)


QUICK = bounded(0.5)
RFC_5227 = ProbeTiming(first=1.0, shortest=1.0, longest=2.0, quiet=2.0)
"""PROBE_WAIT, PROBE_MIN, PROBE_MAX, ANNOUNCE_WAIT: 4 to 7 seconds."""


def own_mac(wire: LanSocket) -> str:
    """The MAC under which we speak on *wire*; empty while it cannot be spoken on."""
    try:
        return wire.mac
    except LinkError:
        return ""


class AddressProbe:
    """
    One probe: :meth:`hear` is called with each message on the LAN from :meth:`start` on.

    :param clock: ``IReactorTime``
    :param done: called once with the verdict, unless :meth:`stop` came before.
    :param ours: MACs whose claims and probes do not count. The wire's own MAC is always ours where it probes; a
        claim under it is the host's own, and counts.
    """

    def __init__(
        self,
        wire: LanSocket,
        address: IPAddress,
        timing: ProbeTiming,
        clock: Any,
        random: Random,
        done: Callable[[Verdict], None],
        ours: Collection[str] = (),
    ) -> None:
        self._wire = wire
        self._address = address
        self._timing = timing
        self._clock = clock
        self._random = random
        self._done = done
        self._ours = ours
        self._asked_as: set[str] = set()
        """Our link on the parent may be made again meanwhile, with another MAC."""
        self._failure = ""
        self._calls: list[Any] = []

    def start(self) -> None:
        self._asked_as.add(own_mac(self._wire))
        times, end = self._timing.plan(self._random)
        self._calls = [self._clock.callLater(time, self._send) for time in times]
        self._calls.append(self._clock.callLater(end, self._end))

    def hear(self, said: NeighbourMessage | None) -> None:
        if said is None or said.address != self._address or said.mac in self._ours:
            return
        if isinstance(said, AddressClaim):
            self._decide(Taken(said.mac, Evidence.ANSWERED))
        elif said.mac not in self._asked_as:
            self._decide(Taken(said.mac, Evidence.PROBED))

    def stop(self) -> None:
        calls, self._calls = self._calls, []
        for call in calls:
            if call.active():
                call.cancel()

    def _send(self) -> None:
        try:
            mac = self._wire.mac
            self._asked_as.add(mac)
            with PROBE:
                self._wire.send(probe_frame(self._address, mac))
            self._failure = ""
        except LinkError as failure:
            self._failure = str(failure)

    def _end(self) -> None:
        # The last probe must have left. Had an earlier one and then the parent gone down, nobody could have answered.
        self._decide(Inconclusive(self._failure) if self._failure else Free())

    def _decide(self, verdict: Verdict) -> None:
        if self._calls:
            self.stop()
            self._done(verdict)


async def probe(
    wire: LanSocket,
    address: IPAddress,
    timing: ProbeTiming,
    clock: Any,
    random: Random,
    ours: Collection[str] = (),
) -> Verdict:
    """
    Ask who has *address*; answers at once when somebody does, else after the time that *timing* says.

    Cancelled, it leaves nothing behind.

    :param clock: ``IReactorTime``
    :param ours: see :class:`AddressProbe`.
    """
    decided: Deferred[Verdict] = Deferred()
    probing = AddressProbe(wire, address, timing, clock, random, decided.callback, ours)
    stop_listening = wire.listen(lambda heard: probing.hear(decode(heard.frame)))
    probing.start()
    try:
        return await decided
    finally:
        stop_listening()
        probing.stop()
