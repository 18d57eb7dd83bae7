"""Listening on a wire: tcpdump, bounded by a number of packets and by time."""

import os
import select
import subprocess
import time
from collections.abc import Iterator

from tests.lab.commands import Narrate
from tests.lab.daemons import Daemon


class Capture:
    """A running tcpdump. Iterating over it waits for packets and yields one line for each."""

    def __init__(self, command: tuple[str, ...], *, seconds: float, narrate: Narrate | None = None) -> None:
        """Remember what to run; `seconds` limit the reading, not the time between start and reading."""
        self._seconds = seconds
        self._daemon = Daemon("tcpdump", command, narrate=narrate, stdout=subprocess.PIPE)
        self._unread = b""

    def start(self) -> None:
        """Start listening; on return the tap is open, and no later packet is missed."""
        self._daemon.start()
        self._daemon.wait_for_log("listening on", seconds=10)

    def __iter__(self) -> Iterator[str]:
        """Yield line after line, until tcpdump has seen its count of packets or the time is over."""
        deadline = time.monotonic() + self._seconds
        while True:
            line, newline, rest = self._unread.partition(b"\n")
            if newline:
                self._unread = rest
                yield line.decode(errors="replace")
            elif not self._read_more(deadline):
                return

    def lines(self) -> list[str]:
        """Return all that comes, at the latest when the time is over."""
        return list(self)

    def stop(self) -> None:
        """Stop listening."""
        self._daemon.kill()

    def _read_more(self, deadline: float) -> bool:
        stdout = self._daemon.stdout
        left = deadline - time.monotonic()
        if left <= 0 or not select.select([stdout], [], [], left)[0]:
            return False
        more = os.read(stdout.fileno(), 65536)
        self._unread += more
        return bool(more)
