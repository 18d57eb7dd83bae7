"""A throw-away LAN: switch, gateway, neighbour and docker hosts, each in a network namespace of its own."""

import secrets
from contextlib import ExitStack
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Literal, Self

from tests.lab import leftovers
from tests.lab.commands import Narrate, attempt, run
from tests.lab.places import Places


@dataclass(frozen=True)
class Addresses:
    """Who has which addresses on the LAN, each with its prefix length."""

    gateway: tuple[str, ...] = ("192.168.77.1/24", "fd77::1/64")
    neighbour: tuple[str, ...] = ("192.168.77.2/24", "fd77::2/64")
    host: tuple[str, ...] = ("192.168.77.10/24", "fd77::10/64")
    host2: tuple[str, ...] = ("192.168.77.11/24", "fd77::11/64")
    host3: tuple[str, ...] = ("192.168.77.12/24", "fd77::12/64")

    @property
    def routes(self) -> tuple[str, ...]:
        """The gateway's addresses without prefix lengths: where default routes lead."""
        return tuple(address.partition("/")[0] for address in self.gateway)

    def of(self, place: str) -> tuple[str, ...]:
        """Return the addresses of a place; the switch has none."""
        found: tuple[str, ...] = getattr(self, place, ())
        return found


class Lan(Places):
    """A LAN that exists between ``with Lan() as lan`` and the end of that block.

    The places are called ``switch``, ``gateway``, ``neighbour`` and ``host``; with ``hosts=3`` there are more docker
    hosts, ``host2`` and ``host3``. Each reaches the switch by ``eth1``; the docker hosts can have more interfaces
    (``eth2`` ...), plugged into the same switch, without addresses. The namespaces' names carry a random tag, so
    any number of LANs, also the remains of a crashed run, live side by side.
    """

    places: tuple[str, ...] = ("switch", "gateway", "neighbour", "host")

    def __init__(
        self,
        addresses: Addresses | None = None,
        *,
        nics: int = 1,
        hosts: int = 1,
        narrate: Narrate | None = None,
    ) -> None:
        """Prepare a LAN whose `hosts` have `nics` interfaces each; nothing exists before the `with` block."""
        if hosts not in {1, 2, 3}:
            raise ValueError(f"a LAN has one docker host, two or three, not {hosts}")
        self.addresses = addresses or Addresses()
        self.nics = nics
        self.docker_hosts = ("host", "host2", "host3")[:hosts]
        self.places = (*Lan.places, *self.docker_hosts[1:])
        self.narrate = narrate
        self.tag = f"mtl-{secrets.token_hex(3)}"
        self._undo = ExitStack()

    def __enter__(self) -> Self:
        """Build the LAN; if that fails half-way, what was built is taken down again."""
        leftovers.sweep()
        with ExitStack() as undo:
            undo.enter_context(leftovers.claimed(self.tag))
            self._build(undo)
            self._undo = undo.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Take the LAN down; with its last namespace every link that is left in it goes too."""
        self._undo.close()

    def host_links(self, place: str = "host") -> dict[str, dict[str, Any]]:
        """Return what the kernel knows of every link in a docker host's namespace, by the links' names."""
        return self.links(place)

    def link(self, place: str, state: Literal["up", "down"], nic: str = "eth1") -> None:
        """Take a NIC down or up again, as the administrator does.

        With a NIC that goes down the kernel drops its routes and its IPv6 addresses; when it comes up, the
        place gets back what it has on the LAN, as from the network configuration of a real machine.
        """
        self._ip(place, "link", "set", nic, state)
        if state == "up" and nic == "eth1":
            self._configure(place)

    def reboot(self, place: str, *, index: int | None = None) -> None:
        """Begin a docker host's network anew: nothing is left of it but what the LAN gives it.

        Its processes must have ended. `index` is the number that eth1 gets from the kernel this time.
        """
        for nic in [name for name in self.links(place) if name != "lo"]:
            attempt("ip", "-netns", self.namespace(place), "link", "delete", nic)  # some go along with others
        run("ip", "netns", "delete", self.namespace(place), narrate=self.narrate)
        self._make_namespace(place)
        self._plug(place, "eth1", index)
        self._configure(place)
        for number in range(2, self.nics + 1):
            self._plug(place, f"eth{number}")

    def cable(self, place: str, state: Literal["in", "out"], nic: str = "eth1") -> None:
        """Pull the cable between a NIC and the switch, or plug it in: the NIC stays up and loses its carrier."""
        self._ip("switch", "link", "set", _port(place, nic), "up" if state == "in" else "down")

    def way(self, place: str, other: str, state: Literal["open", "closed"]) -> None:
        """Close the way from a place to another one: packets are dropped in silence, in this direction alone.

        The place itself gets an error when it begins a connection; its open ones get none.
        """
        for address in self.addresses.of(other):
            route = ("blackhole", address.partition("/")[0])
            if state == "closed":
                self._ip(place, "route", "replace", *route)
            else:
                attempt("ip", "-netns", self.namespace(place), "route", "delete", *route)  # it may be open

    def unplug(self, place: str, nic: str = "eth1") -> None:
        """Take a NIC out of the machine, as a USB one: its link goes, and what hangs on it."""
        self._ip(place, "link", "delete", nic)

    def plug(self, place: str, nic: str = "eth1") -> None:
        """Put a NIC into the machine and on the LAN, another one or one that was unplugged."""
        self._plug(place, nic)
        if nic == "eth1":
            self._configure(place)

    def _build(self, undo: ExitStack) -> None:
        for place in self.places:
            self._add_namespace(place, undo)
        self._ip("switch", "link", "add", "br0", "type", "bridge", "mcast_snooping", "0")
        self._ip("switch", "link", "set", "br0", "up")
        for place in self.places:
            if place != "switch":
                self._plug(place, "eth1")
                self._configure(place)
        for host in self.docker_hosts:
            for number in range(2, self.nics + 1):
                self._plug(host, f"eth{number}")

    def _add_namespace(self, place: str, undo: ExitStack) -> None:
        name = self.namespace(place)
        undo.callback(attempt, "ip", "netns", "delete", name)
        self._make_namespace(place)

    def _make_namespace(self, place: str) -> None:
        run("ip", "netns", "add", self.namespace(place), narrate=self.narrate)
        # Without duplicate address detection an IPv6 address is usable at once instead of after two seconds.
        quick = "for i in all default lo; do echo 0 > /proc/sys/net/ipv6/conf/$i/accept_dad; done"
        run(*self.enter(place), "sh", "-c", quick)
        self._ip(place, "link", "set", "lo", "up")

    def _plug(self, place: str, nic: str, index: int | None = None) -> None:
        port = _port(place, nic)
        number = () if index is None else ("index", str(index))
        far = ("peer", "name", port, "netns", self.namespace("switch"))
        self._ip(place, "link", "add", nic, *number, "type", "veth", *far)
        self._ip("switch", "link", "set", port, "master", "br0", "up")
        self._ip(place, "link", "set", nic, "up")

    def _configure(self, place: str) -> None:
        for address in self.addresses.of(place):
            self._ip(place, "address", "replace", address, "dev", "eth1")
        if place != "gateway":
            for gateway in self.addresses.routes:
                self._ip(place, "route", "replace", "default", "via", gateway, "dev", "eth1")


def _port(place: str, nic: str) -> str:
    """Name the switch's end of a cable; 15 characters are the most that a link's name can have."""
    return f"{place[:8]}-{nic}"
