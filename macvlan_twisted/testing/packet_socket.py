"""A LAN in memory for tests of what speaks on one: everyone hears what anyone else sends."""

from __future__ import annotations

from collections.abc import Callable

from ..errors import LinkError
from ..lan.interfaces import FrameHandler, ReceivedFrame


class FakeLanSocket:
    """
    :class:`~macvlan_twisted.lan.interfaces.LanSocket` in memory.

    Wires that are plugged into one another with :meth:`plug` are taps of different hosts on one LAN. A test that
    plays a host without a tap of its own appends to :attr:`answerers`: functions that are called with each frame that
    is sent, and return frames to answer with.
    """

    def __init__(self, parent: str = "eth0", mac: str = "7a:48:00:00:00:01") -> None:
        self.parent = parent
        self.mac = mac
        self.sent: list[bytes] = []
        self.answerers: list[Callable[[bytes], list[bytes]]] = []
        self.down = False
        """Whether sending fails, as on a parent that is down."""
        self.broken = False
        """Whether the parent went away."""
        self._hearers: list[FrameHandler] = []
        self._others: list[FakeLanSocket] = []

    def plug(self, other: FakeLanSocket) -> None:
        """Put another host's tap onto the same LAN."""
        self._others.append(other)
        other._others.append(self)

    def send(self, frame: bytes) -> None:
        if self.down:
            raise LinkError(f"sending on {self.parent}: Network is down", 100)
        self.sent.append(frame)
        self._hear(ReceivedFrame(frame, True))
        for other in tuple(self._others):
            other.bring(frame)
        for answerer in tuple(self.answerers):
            for answer in answerer(frame):
                self.bring(answer)

    def bring(self, frame: bytes) -> None:
        """Let a frame come in from the LAN."""
        self._hear(ReceivedFrame(frame, False))

    def listen(self, hear: FrameHandler) -> Callable[[], None]:
        self._hearers.append(hear)

        def stop() -> None:
            if hear in self._hearers:
                self._hearers.remove(hear)

        return stop

    def open(self) -> None:
        """Nothing is needed."""

    def close(self) -> None:
        """Hear no more."""
        self._hearers.clear()
        for other in self._others:
            other._others.remove(self)
        self._others.clear()

    @property
    def hearers(self) -> int:
        """How many listen: what is left of them at the end was forgotten."""
        return len(self._hearers)

    def _hear(self, heard: ReceivedFrame) -> None:
        for hear in tuple(self._hearers):
            hear(heard)
