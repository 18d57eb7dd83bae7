"""Probe addresses on their LANs from a command, which has nothing but the parents' names."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from contextlib import ExitStack
from random import Random
from typing import Any

from attrs import frozen
from twisted.internet.defer import Deferred, DeferredList

from ..addresses import IPAddress
from ..errors import LinkError, RequestRefused
from ..ipam.pool import DEFAULT_LAN
from ..lan.address_probe import AddressProbe, ProbeRate, Verdict, bounded
from ..lan.arp_nd import decode
from ..lan.interfaces import LanSocket
from ..lan.packet_sockets import SocketFactory
from ..netlink.kernel import Kernel
from ..option_values import parse_interface_name, parse_lan_name

Key = tuple[str, IPAddress]

TIMING = bounded(2.0)
"""Longer than the service's own probes: what is found free is taken from a host that cannot be asked."""


@frozen
class Parents:
    """The links on the LANs of a fleet, as an administrator names them: ``LINK``, or ``LAN=LINK``."""

    by_lan: Mapping[str, str]
    only: str | None = None
    """The parent of whatever LAN it is, if there is but one."""

    @classmethod
    def parse(cls, texts: Sequence[str]) -> Parents:
        """:raises RequestRefused: with the value and the remedy."""
        by_lan: dict[str, str] = {}
        only = None
        for text in texts:
            lan, equals, link = text.partition("=")
            try:
                if equals:
                    by_lan[parse_lan_name(lan)] = parse_interface_name(link)
                elif only is None:
                    only = parse_interface_name(text)
                else:
                    raise RequestRefused(
                        f"--parent {text}: there is a --parent {only} already: write --parent LAN=LINK for each LAN"
                    )
            except ValueError as error:
                # Remedy: see the reason in the message.
                raise RequestRefused(f"--parent {text}: {error}") from None
        return cls(by_lan, only)

    def of(self, lans: Collection[str], default: str | None) -> dict[str, str]:
        """
        The parent of each LAN.

        :param default: the host interface, which is on the LAN ``default``.
        :raises RequestRefused: a LAN has none.
        """
        parents = dict(self.by_lan)
        for lan in sorted(lans):
            if lan in parents:
                continue
            if self.only is not None and len(lans) == 1:
                parents[lan] = self.only
            elif self.only is None and lan == DEFAULT_LAN and default is not None:
                parents[lan] = default
            else:
                raise RequestRefused(
                    f"it is unknown which link is on LAN {lan}: add --parent {lan}=LINK, or --no-probe if the host and its "
                    "containers are switched off"
                )
        return {lan: parents[lan] for lan in lans}


class LanProber:
    """
    Probes from the parents themselves, with sender 0.0.0.0 or ``::``.

    :param default: the host interface. :param make_socket: makes the packet socket on a parent.
    :param clock: ``IReactorTime``
    """

    def __init__(
        self,
        parents: Parents,
        default: str | None,
        kernel: Kernel,
        make_socket: SocketFactory,
        clock: Any,
        random: Random,
    ) -> None:
        self._parents = parents
        self._default = default
        self._kernel = kernel
        self._make_socket = make_socket
        self._clock = clock
        self._random = random

    async def __call__(self, keys: Collection[Key]) -> dict[Key, Verdict]:
        """:raises RequestRefused: a parent is unknown or cannot be used. :raises LinkError: as the kernel says."""
        parents = self._parents.of({lan for lan, _ in keys}, self._default)
        verdicts: dict[Key, Verdict] = {}
        with ExitStack() as opened:
            sockets: dict[str, LanSocket] = {}
            for parent in parents.values():
                if parent not in sockets:
                    socket = self._make_socket(parent, parent, self._mac_of(parent))
                    socket.open()
                    opened.callback(socket.close)
                    sockets[parent] = socket
            rates = {parent: ProbeRate() for parent in sockets}
            done = [
                self._probe(sockets[parents[lan]], rates[parents[lan]], (lan, address), verdicts)
                for lan, address in keys
            ]
            await DeferredList(done)
        return verdicts

    def _mac_of(self, parent: str) -> str:
        found = self._kernel.find(parent)
        if found is None or not found.mac:
            raise RequestRefused(
                f"there is no Ethernet link {parent} on this host: name the link on the LAN with --parent"
            )
        return found.mac

    def _probe(
        self, socket: LanSocket, rate: ProbeRate, key: Key, verdicts: dict[Key, Verdict]
    ) -> Deferred[None]:
        done: Deferred[None] = Deferred()

        def decided(verdict: Verdict) -> None:
            verdicts[key] = verdict
            stop()
            done.callback(None)

        probe = AddressProbe(socket, key[1], TIMING, self._clock, self._random, decided)
        stop = socket.listen(lambda received: probe.receive(decode(received.frame)), lambda: (key[1],))
        probe.start(rate.delay(self._clock.seconds()))
        return done


def default_parent(host_interface: str | None, kernel: Kernel) -> str | None:
    """The link that the service would use."""
    if host_interface is not None:
        return host_interface
    try:
        routes = kernel.default_routes()
    except LinkError:
        return None
    return routes[0].link if routes else None
