"""Announcements (RFC 5227, 2.3; RFC 4861, 7.2.6): neighbours learn the new MAC of an address."""

from __future__ import annotations

import errno
from typing import Any

from twisted.internet.defer import Deferred, ensureDeferred
from twisted.logger import Logger

from ..addresses import IPAddress
from ..errors import LinkError
from ..failpoints import Failpoint
from .arp_nd import announcement_frames
from .packet_sockets import PacketSockets

_log = Logger(namespace="macvlan_twisted.lan")

_ANNOUNCE = Failpoint("lan.address.announce", "neighbours are told under which MAC an address is from now on")

DELAYS = (0.0, 0.3, 1.0, 2.5)
"""
Seconds after Join. The engine moves the link into the container up to 0.3 s after the reply to Join (20.10), a frame may
be lost, and a switch may open a port with delay. RFC 5227 announces twice, two seconds apart.
"""


class Announcer:
    """
    Announces the addresses of containers that have just joined, from our own link on the parent, with the container's MAC
    as source. It needs nothing of the container or the engine.
    """

    def __init__(self, wires: PacketSockets, clock: Any) -> None:
        self._wires = wires
        self._clock = clock
        self._calls: dict[tuple[str, IPAddress], list[Any]] = {}

    def begin(self, parent: str, address: IPAddress, mac: str | None) -> None:
        """
        Announce *address* under *mac* a few times, from the reactor's next turn on.

        :param mac: ``None``: in mode passthru the container has the NIC's own.
        """
        self.stop(parent, address)
        self._calls[parent, address] = [
            self._clock.callLater(delay, self._begin_one, parent, address, mac) for delay in DELAYS
        ]

    def _begin_one(self, parent: str, address: IPAddress, mac: str | None) -> None:
        calls = [call for call in self._calls.get((parent, address), ()) if call.active()]
        if calls:
            self._calls[parent, address] = calls
        else:
            self._calls.pop((parent, address), None)
        sent: Deferred[None] = ensureDeferred(self._announce(parent, address, mac))
        sent.addErrback(lambda failure: _log.failure("announcement: failed", failure=failure))

    async def _announce(self, parent: str, address: IPAddress, mac: str | None) -> None:
        try:
            wire = await self._wires.ready(parent)
            for frame in announcement_frames(address, wire.mac if mac is None else mac):
                with _ANNOUNCE:
                    wire.send(frame)
        except LinkError as failure:
            if failure.errno == errno.ENODEV:  # the container's link has gone with the parent
                self.stop(parent, address)
            # Cause: the parent is down or has no carrier. Remedy: none needed; neighbours learn the new MAC when their
            # ARP or neighbour entry expires.
            _log.warn(
                "address {address}: not announced ({reason}); neighbours may use a stale MAC for it for some minutes",
                address=address,
                reason=str(failure),
            )

    def stop(self, parent: str, address: IPAddress) -> None:
        """Stop announcing: the container is gone, and its address may be allocated again."""
        for call in self._calls.pop((parent, address), ()):
            if call.active():
                call.cancel()

    def close(self) -> None:
        for parent, address in list(self._calls):
            self.stop(parent, address)
