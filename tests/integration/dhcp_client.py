"""A DHCP client on the docker host of a LAN, and a container that has its address."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from ipaddress import IPv4Address
from random import Random

from twisted.internet.defer import Deferred

from macvlan_twisted.dhcp.binding import Binding, Client
from macvlan_twisted.dhcp.lease import Lease
from macvlan_twisted.lan.interfaces import LanSocket
from tests.lab.lan import Lan


class Witness:
    """A :class:`macvlan_twisted.dhcp.LeaseStore` that writes down what it is told, and lets tests wait for it."""

    def __init__(self) -> None:
        """Begin with nobody on the LAN."""
        self.told: list[tuple[str, Binding | str]] = []
        self.users: dict[str, str] = {}
        self.moves = False
        self._waiting: list[tuple[Callable[[], bool], Deferred[None]]] = []

    async def intend(self, offered: Binding) -> None:
        """Take it for written."""
        self._note("intend", offered)

    async def keep(self, facts: Binding) -> None:
        """Take it for written."""
        self._note("keep", facts)

    async def in_use(self, address: IPv4Address) -> str | None:
        """Say who the test says has it."""
        return self.users.get(str(address))

    def lost(self, facts: Binding, reason: str) -> None:
        """Write it down."""
        self._note("lost", reason)

    def regained(self, facts: Binding) -> None:
        """Write it down."""
        self._note("regained", facts)

    async def moved(self, old: Binding, new: Binding) -> bool:
        """Write it down, and answer what the test wants."""
        self._note("moved", new)
        return self.moves

    def of(self, what: str) -> list[Binding | str]:
        """Return all that was told of one kind."""
        return [detail for kind, detail in self.told if kind == what]

    async def wait_for(self, what: str, number: int = 1, seconds: float = 30) -> Binding | str:
        """Wait until something was told so many times; the last of these."""
        from twisted.internet import reactor

        if len(self.of(what)) < number:
            waiting: Deferred[None] = Deferred()
            self._waiting.append((lambda: len(self.of(what)) >= number, waiting))
            waiting.addTimeout(seconds, reactor)
            await waiting
        return self.of(what)[number - 1]

    def _note(self, what: str, detail: Binding | str) -> None:
        self.told.append((what, detail))
        for entry in [entry for entry in self._waiting if entry[0]()]:
            self._waiting.remove(entry)
            entry[1].callback(None)


class Clients:
    """Leases on one wire, all of which end with the test."""

    def __init__(self, wire: LanSocket) -> None:
        """Start with none."""
        self.wire = wire
        self.all: list[Lease] = []

    def new(self, client: Client, witness: Witness | None = None, timeout: float = 10) -> Lease:
        """Make one more."""
        from twisted.internet import reactor

        lease = Lease(
            self.wire,
            client,
            witness or Witness(),
            clock=reactor,
            randomness=Random(),
            wall_time=time.time,
            timeout=timeout,
        )
        self.all.append(lease)
        return lease

    def stop(self) -> None:
        """End them all, without a word to any server."""
        for lease in self.all:
            lease.stop()


@contextmanager
def clients_on(wire: LanSocket) -> Iterator[Clients]:
    """Let leases live for the time of a block."""
    clients = Clients(wire)
    try:
        yield clients
    finally:
        clients.stop()


def put_container(lan: Lan, facts: Binding) -> None:
    """Have the leased address in the neighbour's place, behind the docker host's NIC, as a container would."""
    lan.run_in("host", "ip", "link", "add", "c1", "link", "eth1", "type", "macvlan", "mode", "bridge")
    lan.run_in("host", "ip", "link", "set", "c1", "address", facts.mac, "netns", lan.namespace("neighbour"))
    lan.run_in("neighbour", "ip", "link", "set", "eth1", "down")
    lan.run_in("neighbour", "ip", "address", "add", str(facts.interface), "dev", "c1")
    lan.run_in("neighbour", "ip", "link", "set", "c1", "up")
