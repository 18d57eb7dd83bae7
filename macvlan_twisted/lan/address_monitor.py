"""
Defends our addresses on the LAN of one parent.

An address is first *held*: no host answered our probe, and from that moment we answer the probes of others. Then it is
*assigned* to a container, which answers for itself once it is up; from then on we report other hosts that use it.

The two states differ in claims from the address's own MAC. A held address has no user yet, so any host that claims it is
foreign, even with the MAC that we are about to assign: two hosts with this plugin derive the same MAC from an address.
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
    InUse,
    ProbeRate,
    ProbeTiming,
    Verdict,
    own_mac,
)
from .arp_nd import AddressClaim, Probe, decode, probe_frame
from .interfaces import LanSocket, ReceivedFrame
from .neighbour_cache import Neighbour, NeighbourCache
from .probe_responder import ProbeResponder, TokenBucket, for_one_address

FRESH = 5.0
"""
Seconds for which we believe a claim without a probe. A probe costs little while the neighbour is awake, since it answers
within a millisecond; so this is for neighbours that speak, then sleep.
"""
LAST_LOOK = 0.001
"""
Seconds to wait for an answer when a held address is probed once more before it is used: Linux does not announce a new IPv4
address, and a cable may have been unplugged. A wired neighbour answers in a third of that.
"""
LISTENED = 60.0
"""
Seconds for which an address is free without a probe after its container's link was removed, if no host has mentioned it
since: a host that wants it probes first, and we would have received that. So a restarted container does not wait.
"""
_MOST_REPORTED = 16
"""Most MACs that are reported for one address, so that a host that invents MACs does not fill the log."""


class ConflictObserver(Protocol):
    """Receives the reports of an :class:`AddressMonitor`."""

    def contested(self, address: IPAddress, our_mac: str, foreign_mac: str) -> None:
        """Another host claims an assigned address. Called once for each MAC."""

    def lost(self, address: IPAddress, mac: str) -> None:
        """Another host claims a held address, which is not held any more."""

    def host_mac(self) -> str:
        """The MAC of the parent itself, from which the host rightly claims its own addresses."""


@define(eq=False)
class _Own:
    mac: str
    assigned: bool
    is_hosts: bool = False
    reported: set[str] = field(factory=set)
    limit: TokenBucket = field(factory=for_one_address)


@define(eq=False)
class _Search:
    """A running probe, and its callers, each with the MAC for the address."""

    probing: AddressProbe
    waiting: list[tuple[str, Deferred[Verdict]]] = field(factory=list)


class AddressMonitor:
    """
    Listens from :meth:`start` until :meth:`close`.

    :param clock: ``IReactorTime``
    """

    def __init__(
        self,
        socket: LanSocket,
        clock: Any,
        random: Random,
        observer: ConflictObserver,
        timing: ProbeTiming = QUICK,
    ) -> None:
        self._socket = socket
        self._clock = clock
        self._random = random
        self._observer = observer
        self._timing = timing
        self._prefixes: Counter[IPNetwork] = Counter()
        self._neighbours = NeighbourCache()
        self._recently_released = NeighbourCache(most=1024, oldest=FRESH)
        self._lost_to = NeighbourCache(most=1024, oldest=FRESH)
        self._vacated = NeighbourCache(most=1024, oldest=LISTENED)
        self._ours: dict[IPAddress, _Own] = {}
        self._searches: dict[IPAddress, _Search] = {}
        self._probe_rate = ProbeRate()
        self._responder = ProbeResponder(socket, clock)
        self._closed = False
        self._stop_listening: Callable[[], None] = lambda: None

    def start(self) -> None:
        """Listen from now on."""
        self._stop_listening = self._socket.listen(self._receive, self.watched)

    # Our addresses.

    async def hold(
        self, address: IPAddress, mac: str, *, checks_later: bool = False, of_many: bool = False
    ) -> Verdict:
        """
        Probe for *address*. If the verdict is :class:`Free`, the address is held: we defend it with *mac* from then on.

        Concurrent calls for one address share a probe. When all of them are cancelled, nothing is held.

        :param checks_later: the caller looks at :meth:`claimed` before it relies on the verdict: if the address is held
            already, it is probed once more, but the answer is not waited for.
        :param of_many: any other address would do: the probe may wait for its turn.
        """
        verdict = self._without_probe(address, mac)
        if isinstance(verdict, Free):
            return self._probe_again(address) if checks_later else await self._last_look(address)
        if verdict is not None:
            return verdict
        search = self._searches.get(address)
        if search is None:
            search = self._searches[address] = _Search(self._probing(address))
            delay = self._probe_rate.delay(self._clock.seconds())
            search.probing.start(delay if of_many else 0.0)
        waiting: Deferred[Verdict] = Deferred()
        search.waiting.append((mac, waiting))
        try:
            return await waiting
        finally:
            self._give_up(address, search, waiting)

    def _probe_again(self, address: IPAddress) -> Verdict:
        """Probe once more for *address*, which is held."""
        try:
            with PROBE:
                self._socket.send(probe_frame(address, self._socket.mac))
        except LinkError as failure:
            return Inconclusive(str(failure))
        return Free()

    async def _last_look(self, address: IPAddress) -> Verdict:
        """Probe once more for *address*, which is held, and wait for an answer."""
        verdict = self._probe_again(address)
        if not isinstance(verdict, Free):
            return verdict
        await deferLater(self._clock, LAST_LOOK)
        self._socket.read()
        if self._closed:
            return self._stopped()
        if address in self._ours:
            return Free()
        neighbour = self.known(address) or self._lost_to.known(address, self._clock.seconds())
        return _released(address) if neighbour is None else InUse(neighbour.mac, Evidence.ANSWERED)

    def assign(self, address: IPAddress, mac: str, is_hosts: bool = False) -> None:
        """
        A container has *address* with *mac* from now on. We go on answering probes, since the container may not be up yet,
        and report other hosts that claim the address.

        :param is_hosts: whether it is the host's own. Linux answers for an address from all of its links on a LAN, so a
            claim from the parent's MAC is right, too.
        """
        if self._closed:
            return
        ours = self._ours.get(address)
        if ours is None or (ours.mac, ours.is_hosts) != (mac, is_hosts) or not ours.assigned:
            self._ours[address] = _Own(mac, assigned=True, is_hosts=is_hosts)
        neighbour = self.known(address)
        if neighbour is not None and neighbour.mac == mac:
            self._neighbours.forget(address)
        self._end_search(address, lambda wanted: Free() if wanted == mac else InUse(mac, Evidence.OURS))

    def release(self, address: IPAddress, link_removed: bool = False) -> None:
        """
        Stop holding, probing for, or defending *address*. Succeeds if we do none of that.

        :param link_removed: whether its container has lost it for certain, since its link was removed.
        """
        ours = self._ours.pop(address, None)
        if ours is not None and ours.assigned:
            self._recently_released.note(address, ours.mac, self._clock.seconds())
            if link_removed and not ours.reported:
                self._vacated.note(address, ours.mac, self._clock.seconds())
        self._end_search(address, lambda _: _released(address))

    def is_held(self, address: IPAddress) -> bool:
        ours = self._ours.get(address)
        return ours is not None and not ours.assigned

    def watched(self) -> set[IPAddress]:
        """The addresses about which every frame matters: ours, those that we probe for, and those that need no probe."""
        return {*self._ours, *self._searches, *self._vacated.addresses(self._clock.seconds())}

    # Addresses of other hosts.

    def read(self) -> None:
        """Handle the frames that have arrived, without waiting for the reactor's turn."""
        if not self._closed:
            self._socket.read()

    def claimed(self, address: IPAddress) -> Neighbour | None:
        """The neighbour that claimed *address* a moment ago, if it is not ours."""
        neighbour = None if address in self._ours else self.known(address)
        is_fresh = neighbour is not None and self._clock.seconds() - neighbour.seen_at <= FRESH
        return neighbour if is_fresh else None

    def given_up(self, address: IPAddress) -> None:
        """Another host has given *address* up: earlier claims do not count. If it is in use nevertheless, a probe shows it."""
        self._neighbours.forget(address)

    def interested_in(self, prefix: IPNetwork) -> Callable[[], None]:
        """
        Remember which neighbours have addresses in *prefix*.

        :return: call it to stop.
        """
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
        """The neighbour that claimed *address* within the last five minutes, if it is not ours."""
        return self._neighbours.known(address, self._clock.seconds())

    def close(self) -> None:
        """Stop everything. Pending verdicts are :class:`Inconclusive`."""
        self._closed = True
        self._stop_listening()
        for address in list(self._searches):
            self._end_search(address, lambda _: self._stopped())
        self._ours.clear()
        self._vacated.clear()
        self._lost_to.clear()
        self._neighbours.clear()

    def _stopped(self) -> Inconclusive:
        # Remedy: try again.
        return Inconclusive(f"parent {self._socket.parent} was released during the probe")

    def _without_probe(self, address: IPAddress, mac: str) -> Verdict | None:
        if self._closed:
            return self._stopped()
        ours = self._ours.get(address)
        if ours is not None:
            if ours.assigned and ours.mac != mac:
                return InUse(ours.mac, Evidence.OURS)
            ours.mac = mac
            return Free()
        neighbour = self.claimed(address)
        if neighbour is not None:
            return InUse(neighbour.mac, Evidence.CLAIMED)
        if self._vacated.known(address, self._clock.seconds()) is not None and own_mac(self._socket):
            self._vacated.forget(address)
            self._ours[address] = _Own(mac, assigned=False)
            return Free()
        return None

    def _probing(self, address: IPAddress) -> AddressProbe:
        def done(verdict: Verdict) -> None:
            self._decided(address, verdict)

        return AddressProbe(self._socket, address, self._timing, self._clock, self._random, done)

    def _decided(self, address: IPAddress, verdict: Verdict) -> None:
        if isinstance(verdict, Free):
            mac, _ = self._searches[address].waiting[-1]
            self._ours[address] = _Own(mac, assigned=False)
            self._neighbours.forget(address)
        elif isinstance(verdict, InUse):
            self._probe_rate.answered()
        self._end_search(address, lambda _: verdict)

    def _end_search(self, address: IPAddress, verdict: Callable[[str], Verdict]) -> None:
        search = self._searches.pop(address, None)
        if search is None:
            return
        search.probing.stop()
        waiting, search.waiting = search.waiting, []
        for mac, waiter in waiting:
            waiter.callback(verdict(mac))

    def _give_up(self, address: IPAddress, search: _Search, waiter: Deferred[Verdict]) -> None:
        search.waiting = [each for each in search.waiting if each[1] is not waiter]
        if not search.waiting and self._searches.get(address) is search:
            self._end_search(address, lambda _: self._stopped())

    def _receive(self, received: ReceivedFrame) -> None:
        message = decode(received.frame)
        if isinstance(message, AddressClaim):
            self._handle_claim(message, received)
        elif message is not None:
            self._handle_probe(message, received)

    def _handle_probe(self, message: Probe, received: ReceivedFrame) -> None:
        search = self._searches.get(message.address)
        if search is not None:
            search.probing.receive(message)
        ours = self._ours.get(message.address)
        if message.mac == own_mac(self._socket):
            return
        self._vacated.forget(message.address)  # another host has it, or is about to take it
        if ours is None:
            return
        if message.mac == ours.mac and (ours.assigned or received.outgoing):
            return  # the container probes for its own address
        self._responder.answer(message, ours.mac, ours.limit)

    def _handle_claim(self, message: AddressClaim, received: ReceivedFrame) -> None:
        address = message.address
        ours = self._ours.get(address)
        if ours is not None and message.mac == ours.mac and (ours.assigned or self._is_from_here(received)):
            return
        if ours is not None and ours.is_hosts and message.mac == self._observer.host_mac():
            return
        now = self._clock.seconds()
        released = self._recently_released.known(address, now)
        # A container's last frames may be read only after its address was released.
        is_late = released is not None and released.mac == message.mac
        if not is_late and any(address in prefix for prefix in self._prefixes):
            self._neighbours.note(address, message.mac, now)
        if not is_late:
            self._vacated.forget(address)
        search = self._searches.get(address)
        if search is not None:
            search.probing.receive(message)
        if ours is None:
            return
        if not ours.assigned:
            del self._ours[address]
            self._lost_to.note(address, message.mac, now)
            self._observer.lost(address, message.mac)
        elif message.mac not in ours.reported and len(ours.reported) < _MOST_REPORTED:
            ours.reported.add(message.mac)
            self._observer.contested(address, ours.mac, message.mac)

    def _is_from_here(self, received: ReceivedFrame) -> bool:
        return received.outgoing or self._responder.is_echo(received.frame)


def _released(address: IPAddress) -> Inconclusive:
    # Remedy: try again.
    return Inconclusive(f"{address} was released during the probe")
