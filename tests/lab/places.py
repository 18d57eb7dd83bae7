"""The places of a LAN: how commands run in them, and how their links, routes and neighbours are seen and changed."""

import json
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

from tests.lab.capture import Capture
from tests.lab.commands import Finished, Narrate, attempt, run

FAMILIES = ("-4", "-6")
SENDER = """
import json, socket, sys
wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
wire.bind((sys.argv[1], 0))
for frame in json.load(sys.stdin):
    wire.send(bytes.fromhex(frame))
"""


class Places:
    """Network namespaces with names that begin with one tag, each a place on the LAN with a NIC ``eth1``.

    Each method takes the place first; a `nic` that is not named is ``eth1``.
    """

    places: tuple[str, ...]
    tag: str
    narrate: Narrate | None

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

    def ping(self, place: str, address: str, *, seconds: int = 20) -> bool:
        """Say whether `address` answers a ping from a place; a negative answer takes all of `seconds`."""
        pinged = self.attempt_in(place, *ping_command(address, seconds), timeout=seconds + 10)
        return pinged.status == 0

    @contextmanager
    def capture(
        self, place: str, packets: str, *, count: int = 1, seconds: float = 60, nic: str = "eth1"
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

    def send_frame(self, place: str, *frames: bytes, nic: str = "eth1") -> None:
        """Send Ethernet frames, headers included, as they are; :mod:`tests.lab.frames` makes some."""
        program = (sys.executable, "-I", "-c", SENDER, nic)
        frames_told = json.dumps([frame.hex() for frame in frames]).encode()
        run(
            *self.enter(place),
            *program,
            stdin=frames_told,
            narrate=self.narrate,
            told=f"[{place}] send a frame",
        )

    def links(self, place: str) -> dict[str, dict[str, Any]]:
        """Return what the kernel knows of every link in a place, with its addresses, by the links' names."""
        links = json.loads(run(*self.enter(place), "ip", "-json", "-details", "address"))
        return {link["ifname"]: link for link in links if link}

    def mac_of(self, place: str, nic: str = "eth1") -> str:
        """Return the MAC address of a NIC."""
        return str(self.links(place)[nic]["address"])

    def add_address(self, place: str, address: str, nic: str = "eth1") -> None:
        """Give a NIC one more address, with its prefix length; an IPv6 address is usable at once."""
        self._ip(place, "address", "add", address, "dev", nic)

    def remove_address(self, place: str, address: str, nic: str = "eth1") -> None:
        """Take an address, written as it was given, from a NIC."""
        self._ip(place, "address", "delete", address, "dev", nic)

    def routes(self, place: str, *words: str, families: tuple[str, ...] = FAMILIES) -> list[dict[str, Any]]:
        """Return the routes of a place that `ip route show` tells of with these words, say ``proto 99``.

        Words that name addresses are for one family only: ``families=("-4",)``.
        """
        show = ("-details", "route", "show", *words)
        told = [run(*self.enter(place), "ip", "-json", family, *show) for family in families]
        return [route for each in told for route in json.loads(each or "[]")]

    def neighbours(self, place: str, *words: str) -> list[dict[str, Any]]:
        """Return the entries of both neighbour caches that `ip neighbour show` tells of with these words."""
        show = ("neighbour", "show", *words)
        told = [run(*self.enter(place), "ip", "-json", family, *show) for family in FAMILIES]
        return [entry for each in told for entry in json.loads(each or "[]")]

    def arp_entry(self, place: str, address: str, nic: str = "eth1") -> str | None:
        """Return the MAC that a place has in its neighbour cache for an address of either family, or None."""
        family = "-6" if ":" in address else "-4"
        show = ("neighbour", "show", "to", address, "dev", nic)
        entries = json.loads(run(*self.enter(place), "ip", "-json", family, *show) or "[]")
        return next((str(entry["lladdr"]) for entry in entries if "lladdr" in entry), None)

    def set_neighbour(
        self,
        place: str,
        address: str,
        mac: str,
        *,
        state: Literal["reachable", "stale", "permanent"] = "reachable",
        nic: str = "eth1",
    ) -> None:
        """Make a place believe that an address is at a MAC, until it hears of another.

        A ``reachable`` entry is used for 15 to 45 seconds without any question, a ``stale`` one for five before
        the kernel asks; both are changed by an announcement, and by whatever else changes them in real life.
        No announcement changes a ``permanent`` one.
        """
        words = ("neighbour", "replace", address, "lladdr", mac, "dev", nic, "nud", state)
        self._ip(place, *words)

    def forget_neighbours(self, place: str, nic: str = "eth1") -> None:
        """Empty a place's neighbour caches of both families."""
        for family in FAMILIES:
            self._ip(place, family, "neighbour", "flush", "dev", nic, "nud", "all")

    def _ip(self, place: str, *words: str) -> None:
        run("ip", "-netns", self.namespace(place), *words, narrate=self.narrate)


def ping_command(address: str, seconds: int) -> tuple[str, ...]:
    """Say how `ping` is told to try for so many seconds and to be content with one answer."""
    return ("ping", "-n", "-q", "-c", "1", "-i", "0.2", "-w", str(seconds), address)
