"""
Keeping addresses of ours ours, on the LAN of one parent.

An address is first *held*: nobody answered a probe for it, and from that moment we answer probes of others. Then it
is *kept* for a container, which answers for itself once it is up; from then on we look out for others who use it.

Held and kept are told apart by what is heard under the address's own MAC. Nobody has a held address yet, so whoever
claims it is another one, even under the MAC that we mean to give: two hosts of ours derive one MAC from one address.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from random import Random
from typing import Any, Protocol

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater

from ..addresses import IPAddress, IPNetwork
from ..errors import LinkError
from .address_probe import (
    PROBE,
    QUICK,
    AddressProbe,
    Evidence,
    Free,
    Inconclusive,
    ProbeTiming,
    Taken,
    Verdict,
    own_mac,
)
from .arp_nd import AddressClaim, Probe, decode, probe_frame
from .interfaces import LanSocket, ReceivedFrame
from .neighbour_cache import Neighbour, NeighbourCache
from .probe_responder import ProbeResponder, TokenBucket, for_one_address

FRESH = 5.0
"""
Seconds for which a claim is believed without asking. Asking costs next to nothing as long as the neighbour is there,
since it answers within a millisecond; so this is for neighbours that speak, and sleep.
"""
LAST_LOOK = 0.001
"""
Seconds for which an answer is waited for before an address is given that was found free earlier: Linux tells nobody of
an IPv4 address that it is given, and a cable may have been out. A neighbour on a wire answers in a third of that.
"""
LISTENED = 60.0
"""
Seconds for which an address that a container of ours has left for certain is free without asking, if nobody has spoken
of it meanwhile: whoever wants it asks first, and we would have heard. So a container that is restarted does not wait.
"""
_MOST_FOREIGN = 16
"""Of so many who claim one address we tell; one who makes up MACs does not fill the log."""


class ConflictObserver(Protocol):
    """What a :class:`AddressMonitor` tells."""

    def contested(self, address: IPAddress, our_mac: str, foreign_mac: str) -> None:
        """Another one claims the address of a container of ours. Told once for each such MAC."""

    def lost(self, address: IPAddress, mac: str) -> None:
        """Another one claims an address that was held: it is not held any more."""

    def host_mac(self) -> str:
        """The MAC of the parent itself, under which the host rightly claims its own addresses."""


@define(eq=False)
class _Ours:
    mac: str
    kept: bool
    is_hosts: bool = False
    told: set[str] = field(factory=set)
    answers: TokenBucket = field(factory=for_one_address)


@define(eq=False)
class _Search:
    """A probe under way, and who waits for it, with the MAC that each would have."""

    probing: AddressProbe
    waiting: list[tuple[str, Deferred[Verdict]]] = field(factory=list)


class AddressMonitor:
    """
    Listens from :meth:`start` until :meth:`close`.

    :param clock: ``IReactorTime``
    """

    def __init__(
        self,
        wire: LanSocket,
        clock: Any,
        random: Random,
        observer: ConflictObserver,
        timing: ProbeTiming = QUICK,
    ) -> None:
        self._wire = wire
        self._clock = clock
        self._random = random
        self._observer = observer
        self._timing = timing
        self._prefixes: Counter[IPNetwork] = Counter()
        self._neighbours = NeighbourCache()
        self._departed = NeighbourCache(most=1024, oldest=FRESH)
        self._lost_to = NeighbourCache(most=1024, oldest=FRESH)
        self._left = NeighbourCache(most=1024, oldest=LISTENED)
        self._ours: dict[IPAddress, _Ours] = {}
        self._searches: dict[IPAddress, _Search] = {}
        self._defence = ProbeResponder(wire, clock)
        self._closed = False
        self._stop_listening: Callable[[], None] = lambda: None

    def start(self) -> None:
        """Listen from now on."""
        self._stop_listening = self._wire.listen(self._hear)

    # Addresses of ours.

    async def hold(self, address: IPAddress, mac: str) -> Verdict:
        """
        Make sure that nobody has *address*, and defend it from then on under *mac*, if the answer is :class:`Free`.

        Who asks for an address that somebody asks for already shares its probe. If the waiting is cancelled and
        nobody else waits, nothing is held.
        """
        verdict = self._without_asking(address, mac)
        if isinstance(verdict, Free):
            return await self._last_look(address)
        if verdict is not None:
            return verdict
        search = self._searches.get(address)
        if search is None:
            search = self._searches[address] = _Search(self._probing(address))
            search.probing.start()
        waiting: Deferred[Verdict] = Deferred()
        search.waiting.append((mac, waiting))
        try:
            return await waiting
        finally:
            self._leave(address, search, waiting)

    async def _last_look(self, address: IPAddress) -> Verdict:
        """Whether *address*, which was found free earlier, still is."""
        try:
            with PROBE:
                self._wire.send(probe_frame(address, self._wire.mac))
        except LinkError as failure:
            return Inconclusive(str(failure))
        await deferLater(self._clock, LAST_LOOK)
        await deferLater(self._clock, 0)  # what has arrived meanwhile is read before that
        if self._closed:
            return self._no_more()
        if address in self._ours:
            return Free()
        heard = self.known(address) or self._lost_to.known(address, self._clock.seconds())
        return (
            Inconclusive(f"{address} was let go meanwhile")
            if heard is None
            else Taken(heard.mac, Evidence.ANSWERED)
        )

    def keep_for(self, address: IPAddress, mac: str, is_hosts: bool = False) -> None:
        """
        A container has *address* under *mac* from now on. We go on answering for it, since the container may not be
        up yet, and tell the observer of others who claim the address.

        :param is_hosts: whether it is the host's own: Linux answers for an address by all of its links on a LAN, so the
            parent's MAC claims it rightly, too.
        """
        if self._closed:
            return
        ours = self._ours.get(address)
        if ours is None or (ours.mac, ours.is_hosts) != (mac, is_hosts) or not ours.kept:
            self._ours[address] = _Ours(mac, kept=True, is_hosts=is_hosts)
        heard = self.known(address)
        if heard is not None and heard.mac == mac:
            self._neighbours.forget(address)
        self._end_search(address, lambda wanted: Free() if wanted == mac else Taken(mac, Evidence.OURS))

    def let_go(self, address: IPAddress, link_removed: bool = False) -> None:
        """
        *address* is nothing to us any more, held, kept, or being asked for; or never was.

        :param link_removed: the container that it was kept for has it no more, for its link was taken away.
        """
        ours = self._ours.pop(address, None)
        if ours is not None and ours.kept:
            self._departed.note(address, ours.mac, self._clock.seconds())
            if link_removed and not ours.told:
                self._left.note(address, ours.mac, self._clock.seconds())
        self._end_search(address, lambda _: Inconclusive(f"{address} was let go meanwhile"))

    def is_held(self, address: IPAddress) -> bool:
        ours = self._ours.get(address)
        return ours is not None and not ours.kept

    # What others say.

    def interested_in(self, prefix: IPNetwork) -> Callable[[], None]:
        """Remember which neighbours have addresses in *prefix*, until what is returned is called."""
        self._prefixes[prefix] += 1
        over = False

        def stop() -> None:
            nonlocal over
            if not over:
                over = True
                self._prefixes[prefix] -= 1
                self._prefixes = +self._prefixes

        return stop

    def known(self, address: IPAddress) -> Neighbour | None:
        """Who was heard with *address* within the last five minutes, if it is not ours."""
        return self._neighbours.known(address, self._clock.seconds())

    def close(self) -> None:
        """Defend nothing any more. Who waits for a verdict is told that there is none."""
        self._closed = True
        self._stop_listening()
        for address in list(self._searches):
            self._end_search(address, lambda _: self._no_more())
        self._ours.clear()
        self._left.clear()
        self._lost_to.clear()
        self._neighbours.clear()

    def _no_more(self) -> Inconclusive:
        return Inconclusive(f"nobody listens on {self._wire.parent} any more")

    def _without_asking(self, address: IPAddress, mac: str) -> Verdict | None:
        if self._closed:
            return self._no_more()
        ours = self._ours.get(address)
        if ours is not None:
            if ours.kept and ours.mac != mac:
                return Taken(ours.mac, Evidence.OURS)
            ours.mac = mac
            return Free()
        heard = self.known(address)
        if heard is not None and self._clock.seconds() - heard.heard_at <= FRESH:
            return Taken(heard.mac, Evidence.HEARD)
        if self._left.known(address, self._clock.seconds()) is not None and own_mac(self._wire):
            self._left.forget(address)
            self._ours[address] = _Ours(mac, kept=False)
            return Free()
        return None

    def _probing(self, address: IPAddress) -> AddressProbe:
        def done(verdict: Verdict) -> None:
            self._decided(address, verdict)

        return AddressProbe(self._wire, address, self._timing, self._clock, self._random, done)

    def _decided(self, address: IPAddress, verdict: Verdict) -> None:
        if isinstance(verdict, Free):
            mac, _ = self._searches[address].waiting[-1]
            self._ours[address] = _Ours(mac, kept=False)
            self._neighbours.forget(address)
        self._end_search(address, lambda _: verdict)

    def _end_search(self, address: IPAddress, verdict: Callable[[str], Verdict]) -> None:
        search = self._searches.pop(address, None)
        if search is None:
            return
        search.probing.stop()
        waiting, search.waiting = search.waiting, []
        for mac, waiter in waiting:
            waiter.callback(verdict(mac))

    def _leave(self, address: IPAddress, search: _Search, waiter: Deferred[Verdict]) -> None:
        search.waiting = [each for each in search.waiting if each[1] is not waiter]
        if not search.waiting and self._searches.get(address) is search:
            self._end_search(address, lambda _: self._no_more())

    def _hear(self, heard: ReceivedFrame) -> None:
        said = decode(heard.frame)
        if isinstance(said, AddressClaim):
            self._hear_claim(said, heard)
        elif said is not None:
            self._hear_probe(said, heard)

    def _hear_probe(self, said: Probe, heard: ReceivedFrame) -> None:
        search = self._searches.get(said.address)
        if search is not None:
            search.probing.hear(said)
        ours = self._ours.get(said.address)
        if said.mac == own_mac(self._wire):
            return
        self._left.forget(said.address)  # it is somebody else's now, or about to be
        if ours is None:
            return
        if said.mac == ours.mac and (ours.kept or heard.outgoing):
            return  # the container asks for itself
        self._defence.answer(said, ours.mac, ours.answers)

    def _hear_claim(self, said: AddressClaim, heard: ReceivedFrame) -> None:
        address = said.address
        ours = self._ours.get(address)
        if ours is not None and said.mac == ours.mac and (ours.kept or self._is_from_here(heard)):
            return
        if ours is not None and ours.is_hosts and said.mac == self._observer.host_mac():
            return
        now = self._clock.seconds()
        departed = self._departed.known(address, now)
        # The last words of a container may be read only after it was let go.
        is_late = departed is not None and departed.mac == said.mac
        if not is_late and any(address in prefix for prefix in self._prefixes):
            self._neighbours.note(address, said.mac, now)
        if not is_late:
            self._left.forget(address)
        search = self._searches.get(address)
        if search is not None:
            search.probing.hear(said)
        if ours is None:
            return
        if not ours.kept:
            del self._ours[address]
            self._lost_to.note(address, said.mac, now)
            self._observer.lost(address, said.mac)
        elif said.mac not in ours.told and len(ours.told) < _MOST_FOREIGN:
            ours.told.add(said.mac)
            self._observer.contested(address, ours.mac, said.mac)

    def _is_from_here(self, heard: ReceivedFrame) -> bool:
        return heard.outgoing or self._defence.is_echo(heard.frame)
