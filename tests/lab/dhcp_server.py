"""A DHCP server on the LAN: a real dnsmasq, which tells everything that it hears and says."""

import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.lab.daemons import Daemon
from tests.lab.lan import Lan

SHORTEST_LEASE = 120
"""Seconds; dnsmasq gives no shorter ones. When they are renewed can be told apart from that: `t1`, `t2`."""


@dataclass(frozen=True)
class GrantedLease:
    """One line of dnsmasq's lease file. Where the client said no hostname or client id, there is a ``*``."""

    expires: int
    mac: str
    address: str
    hostname: str
    client_id: str


class DhcpServer:
    """A dnsmasq that runs between ``with DhcpServer(lan)`` and the end of that block.

    What it knows of its leases survives :meth:`stop`, :meth:`kill` and :meth:`start`. The attributes `range`,
    `lease_seconds`, `t1`, `t2` and `arguments` may be changed in between: the next start obeys them.
    """

    def __init__(
        self,
        lan: Lan,
        place: str = "gateway",
        *,
        range: str = "192.168.77.100,192.168.77.199",
        lease_seconds: int = SHORTEST_LEASE,
        t1: int | None = None,
        t2: int | None = None,
        arguments: tuple[str, ...] = (),
        nic: str = "eth1",
        ping: bool = False,
    ) -> None:
        """Prepare a server that gives out the addresses of `range` (first and last one) in a place of the LAN.

        With `ping` it behaves as most do out of the box: it looks for three seconds whether anybody has an
        address before it offers it, up to six times in half a minute.
        """
        self.range = range
        self.lease_seconds = lease_seconds
        self.t1 = t1
        self.t2 = t2
        self.arguments = arguments
        self._lan = lan
        self._place = place
        self._nic = nic
        self._ping = ping
        self._directory = tempfile.TemporaryDirectory(prefix="mt-dhcp-")
        self._lease_file = Path(self._directory.name, "leases")
        self._daemon = Daemon(f"dnsmasq in {place}", (), log=Path(self._directory.name, "log"))

    def __enter__(self) -> Self:
        """Start it."""
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End it, and forget its leases."""
        self.kill()
        self._directory.cleanup()

    @property
    def running(self) -> bool:
        """Whether it runs."""
        return self._daemon.running

    def start(self) -> None:
        """Start it; on return it hears what clients say."""
        before = self.log().count("DHCP, IP range")
        self._daemon.command = self._command()
        self._daemon.start()
        self._daemon.wait_until(
            lambda: self.log().count("DHCP, IP range") > before, 10, "dnsmasq's word that it serves"
        )

    def stop(self) -> None:
        """Have it end."""
        if self.running:
            self._daemon.terminate(10)

    def kill(self) -> None:
        """End it at once."""
        self._daemon.kill()

    def forget(self) -> None:
        """Have it forget all leases."""
        self.kill()
        self._lease_file.unlink(missing_ok=True)
        self.start()

    def log(self) -> str:
        """Return what it has told, over all its starts."""
        return self._daemon.log()

    def wait_for_log(self, text: str, *, seconds: float = 10, since: int = 0) -> None:
        """Wait until the log, from character `since` on, holds `text`. Not for the reactor's thread."""
        what = f"{text!r} in the log of dnsmasq"
        self._daemon.wait_until(lambda: text in self.log()[since:], seconds, what)

    def count(self, message: str, mac: str = "") -> int:
        """Count the messages of one kind, say ``DHCPACK``, from or to a client."""
        return sum(f"{message}(" in line and mac in line for line in self.log().splitlines())

    def leases(self) -> list[GrantedLease]:
        """Return the leases that it has on disk."""
        if not self._lease_file.exists():
            return []
        # It writes the file anew with each change: what is read meanwhile is a part of it.
        before, text = None, self._lease_file.read_text(encoding="utf-8")
        while text != before:
            time.sleep(0.1)
            before, text = text, self._lease_file.read_text(encoding="utf-8")
        lines = [line.split() for line in text.splitlines()]
        return [GrantedLease(int(until), *words) for until, *words in lines if len(words) == 4]

    def addresses(self) -> dict[str, str]:
        """Return the leased addresses by the MACs of who has them."""
        return {lease.mac: lease.address for lease in self.leases()}

    def _command(self) -> tuple[str, ...]:
        times = [f"option:{name},{time}" for name, time in (("T1", self.t1), ("T2", self.t2)) if time]
        return (
            *self._lan.enter(self._place),
            "dnsmasq",
            "--keep-in-foreground",
            "--conf-file=/dev/null",
            "--user=root",
            "--port=0",
            f"--interface={self._nic}",
            f"--pid-file={self._directory.name}/pid",
            f"--dhcp-leasefile={self._lease_file}",
            f"--dhcp-range={self.range},{self.lease_seconds}",
            *(f"--dhcp-option-force={time}" for time in times),
            *(() if self._ping else ("--no-ping",)),
            "--log-dhcp",
            "--log-facility=-",
            *self.arguments,
        )
