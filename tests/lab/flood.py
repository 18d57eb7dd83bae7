"""A neighbour that floods the LAN with frames, at a bounded rate and for a bounded time."""

import json
import subprocess
import sys
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from tests.lab.commands import SLACK
from tests.lab.daemons import Daemon
from tests.lab.places import Places

_SENDER = """
import json, signal, socket, sys, time
nic, rate, seconds = sys.argv[1], float(sys.argv[2]), float(sys.argv[3])
frames = [bytes.fromhex(frame) for frame in json.load(sys.stdin)]
wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
wire.bind((nic, 0))
ended = []
signal.signal(signal.SIGTERM, lambda *_: ended.append(True))
began = time.monotonic()
sent = 0
print("flooding", file=sys.stderr, flush=True)
while not ended and (passed := time.monotonic() - began) < seconds:
    # After a pause it does not catch up for more than a tenth of a second.
    due = min(int(passed * rate) - sent, max(1, int(rate / 10)))
    for number in range(sent, sent + due):
        try:
            wire.send(frames[number % len(frames)])
        except OSError:
            pass  # the queue is full, or the link is down: a wire would lose the frame, too
    sent += due
    time.sleep(0.001)
print(sent, sent / (time.monotonic() - began))
"""


class Flood:
    """Frames that are sent in turn from a place, from the start of the ``with`` block to its end.

    It ends by itself after `seconds`. `rate` is in frames a second; :attr:`number` and :attr:`sent` tell afterwards how
    many were sent, and how many a second: a busy machine sends fewer.
    """

    def __init__(
        self,
        lan: Places,
        place: str,
        frames: Sequence[bytes],
        *,
        rate: float = 20_000,
        seconds: float = 60 * SLACK,
        nic: str = "eth1",
    ) -> None:
        """Prepare the frames; :mod:`tests.lab.frames` makes some."""
        self._frames = frames
        program = (sys.executable, "-I", "-c", _SENDER, nic, str(rate), str(seconds))
        told = f"[{place}] flood with {rate:g} frames a second"
        self._daemon = Daemon(
            "the flood",
            (*lan.enter(place), *program),
            narrate=lan.narrate,
            told=told,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self.number, self.sent = 0, 0.0

    def __enter__(self) -> Self:
        """Begin; on return the first frames are sent."""
        self._daemon.start()
        self._daemon.stdin.write(json.dumps([frame.hex() for frame in self._frames]).encode())
        self._daemon.stdin.close()
        self._daemon.wait_for_log("flooding", seconds=10)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End it."""
        try:
            if kind is None:
                self._daemon.terminate(10)
                number, sent = self._daemon.stdout.read().split()
                self.number, self.sent = int(number), float(sent)
        finally:
            self._daemon.kill()
