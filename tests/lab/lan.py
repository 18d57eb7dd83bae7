"""A throw-away LAN: switch, gateway, neighbour and docker host, each in a network namespace of its own."""

import json
import secrets
import shlex
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from tests.lab import leftovers
from tests.lab.capture import Capture
from tests.lab.commands import Finished, Narrate, attempt, run


@dataclass(frozen=True)
class Addresses:
    """Who has which addresses on the LAN, each with its prefix length."""

    gateway: tuple[str, ...] = ("192.168.77.1/24", "fd77::1/64")
    neighbour: tuple[str, ...] = ("192.168.77.2/24", "fd77::2/64")
    host: tuple[str, ...] = ("192.168.77.10/24", "fd77::10/64")

    @property
    def routes(self) -> tuple[str, ...]:
        """The gateway's addresses without prefix lengths: where default routes lead."""
        return tuple(address.partition("/")[0] for address in self.gateway)


class Lan:
    """A LAN that exists between ``with Lan() as lan`` and the end of that block.

    The places are called ``switch``, ``gateway``, ``neighbour`` and ``host``. Each reaches the switch by
    ``eth1``; the host can have more interfaces (``eth2`` ...), plugged into the same switch, without
    addresses. The namespaces' names carry a random tag, so any number of LANs, also the remains of a crashed
    run, live side by side.
    """

    places = ("switch", "gateway", "neighbour", "host")

    def __init__(
        self, addresses: Addresses | None = None, *, nics: int = 1, narrate: Narrate | None = None
    ) -> None:
        """Prepare a LAN whose host has `nics` interfaces; nothing exists before the `with` block."""
        self.addresses = addresses or Addresses()
        self.nics = nics
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

    def namespace(self, place: str) -> str:
        """Name the network namespace of a place, as `ip netns` knows it."""
        if place not in self.places:
            raise ValueError(f"no such place on the LAN: {place!r}; there are {', '.join(self.places)}")
        return f"{self.tag}-{place}"

    def namespace_path(self, place: str) -> str:
        """Name the file by which `nsenter --net=...` enters a place."""
        return f"/run/netns/{self.namespace(place)}"

    def enter(self, place: str) -> tuple[str, ...]:
        """Say the words to put before a command so that it runs in a place.

        `nsenter` and not `ip netns exec`, since that one mounts a new /sys and thereby hides the cgroups.
        """
        return ("nsenter", f"--net={self.namespace_path(place)}", "--")

    def run_in(self, place: str, *command: str, timeout: float = 30) -> str:
        """Run a command in a place and return its standard output; it must succeed."""
        told = f"[{place}] {shlex.join(command)}"
        return run(*self.enter(place), *command, timeout=timeout, narrate=self.narrate, told=told)

    def attempt_in(self, place: str, *command: str, timeout: float = 30) -> Finished:
        """Run a command in a place, and answer how it ended, be it well or badly."""
        told = f"[{place}] {shlex.join(command)}"
        return attempt(*self.enter(place), *command, timeout=timeout, narrate=self.narrate, told=told)

    def ping(self, place: str, address: str, *, seconds: int = 3) -> bool:
        """Say whether `address` answers a ping from a place; a negative answer takes all of `seconds`."""
        pinged = self.attempt_in(place, *ping_command(address, seconds), timeout=seconds + 10)
        return pinged.status == 0

    @contextmanager
    def capture(
        self, place: str, packets: str, *, count: int = 1, seconds: float = 5, nic: str = "eth1"
    ) -> Iterator[Capture]:
        """Listen in a place, from the start of the block on, for `packets` (a tcpdump filter).

        Reading the :class:`Capture` ends after `count` packets, or `seconds` after the reading began.
        """
        command = (*self.enter(place), "tcpdump", "-n", "-e", "-l", "--immediate-mode", "-i", nic)
        capture = Capture((*command, "-c", str(count), packets), seconds=seconds, narrate=self.narrate)
        try:
            capture.start()
            yield capture
        finally:
            capture.stop()

    def host_links(self) -> dict[str, dict[str, Any]]:
        """Return what the kernel knows of every link in the docker host's namespace, by the links' names."""
        links = run(*self.enter("host"), "ip", "-json", "-details", "link")
        return {link["ifname"]: link for link in json.loads(links)}

    def _build(self, undo: ExitStack) -> None:
        for place in self.places:
            self._add_namespace(place, undo)
        self._ip("switch", "link", "add", "br0", "type", "bridge", "mcast_snooping", "0")
        self._ip("switch", "link", "set", "br0", "up")
        for place, addresses in (
            ("gateway", self.addresses.gateway),
            ("neighbour", self.addresses.neighbour),
            ("host", self.addresses.host),
        ):
            self._plug(place, "eth1")
            for address in addresses:
                self._ip(place, "address", "add", address, "dev", "eth1")
        for number in range(2, self.nics + 1):
            self._plug("host", f"eth{number}")
        for gateway in self.addresses.routes:
            for place in ("neighbour", "host"):
                self._ip(place, "route", "add", "default", "via", gateway, "dev", "eth1")

    def _add_namespace(self, place: str, undo: ExitStack) -> None:
        name = self.namespace(place)
        undo.callback(attempt, "ip", "netns", "delete", name)
        run("ip", "netns", "add", name, narrate=self.narrate)
        # Without duplicate address detection an IPv6 address is usable at once instead of after two seconds.
        quick = "for i in all default lo; do echo 0 > /proc/sys/net/ipv6/conf/$i/accept_dad; done"
        run(*self.enter(place), "sh", "-c", quick)
        self._ip(place, "link", "set", "lo", "up")

    def _plug(self, place: str, nic: str) -> None:
        port = f"{place[:8]}-{nic}"
        far = ("peer", "name", port, "netns", self.namespace("switch"))
        self._ip(place, "link", "add", nic, "type", "veth", *far)
        self._ip("switch", "link", "set", port, "master", "br0", "up")
        self._ip(place, "link", "set", nic, "up")

    def _ip(self, place: str, *words: str) -> None:
        run("ip", "-netns", self.namespace(place), *words, narrate=self.narrate)


def ping_command(address: str, seconds: int) -> tuple[str, ...]:
    """Say how `ping` is told to try for so many seconds and to be content with one answer."""
    return ("ping", "-n", "-q", "-c", "1", "-i", "0.2", "-w", str(seconds), address)
