"""A probe for an address without a monitor."""

from __future__ import annotations

from random import Random
from typing import Any

from twisted.internet.defer import Deferred

from macvlan_twisted.addresses import IPAddress
from macvlan_twisted.lan.address_probe import AddressProbe, ProbeTiming, Verdict
from macvlan_twisted.lan.arp_nd import decode
from macvlan_twisted.lan.interfaces import LanSocket


async def probe(
    socket: LanSocket,
    address: IPAddress,
    timing: ProbeTiming,
    clock: Any,
    random: Random,
) -> Verdict:
    """
    Probe for *address*. The verdict comes at once when a host answers, else after the time of *timing*. It may be
    cancelled.

    :param clock: ``IReactorTime``
    """
    decided: Deferred[Verdict] = Deferred()
    probing = AddressProbe(socket, address, timing, clock, random, decided.callback)
    stop_listening = socket.listen(lambda received: probing.receive(decode(received.frame)))
    probing.start()
    try:
        return await decided
    finally:
        stop_listening()
        probing.stop()
