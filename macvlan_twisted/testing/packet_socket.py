"""A LAN in memory: every socket receives the frames of all others."""

from __future__ import annotations

from collections.abc import Callable

from ..errors import LinkError
from ..lan.interfaces import AddressesOf, FrameHandler, ReceivedFrame, no_addresses


class FakeLanSocket:
    """
    :class:`~macvlan_twisted.lan.interfaces.LanSocket` in memory.

    Sockets that are connected with :meth:`attach` belong to different hosts on one LAN. A test that plays a host without a
    socket appends to :attr:`answerers`: functions that are called with each sent frame, and return frames to answer with.
    """

    def __init__(self, parent: str = "eth0", mac: str = "7a:48:00:00:00:01") -> None:
        self.parent = parent
        self.mac = mac
        self.sent: list[bytes] = []
        self.answerers: list[Callable[[bytes], list[bytes]]] = []
        self.down = False
        """Whether sending fails, as on a parent that is down."""
        self.broken = False
        """Whether the parent is gone."""
        self._handlers: list[FrameHandler] = []
        self._others: list[FakeLanSocket] = []

    def attach(self, other: FakeLanSocket) -> None:
        """Connect another host's socket to the same LAN."""
        self._others.append(other)
        other._others.append(self)

    def send(self, frame: bytes) -> None:
        if self.down:
            raise LinkError(f"sending on {self.parent}: Network is down", 100)
        self.sent.append(frame)
        self._dispatch(ReceivedFrame(frame, True))
        for other in tuple(self._others):
            other.receive(frame)
        for answerer in tuple(self.answerers):
            for answer in answerer(frame):
                self.receive(answer)

    def receive(self, frame: bytes) -> None:
        """Receive a frame from the LAN."""
        self._dispatch(ReceivedFrame(frame, False))

    def listen(self, handler: FrameHandler, addresses: AddressesOf = no_addresses) -> Callable[[], None]:
        self._handlers.append(handler)

        def stop() -> None:
            if handler in self._handlers:
                self._handlers.remove(handler)

        return stop

    def read(self) -> None:
        """Frames arrive at once."""

    def open(self) -> None:
        """Nothing is needed."""

    def close(self) -> None:
        """Disconnect from the LAN."""
        self._handlers.clear()
        for other in self._others:
            other._others.remove(self)
        self._others.clear()

    @property
    def listeners(self) -> int:
        """The number of listeners, which must be 0 at the end."""
        return len(self._handlers)

    def _dispatch(self, received: ReceivedFrame) -> None:
        for handler in tuple(self._handlers):
            handler(received)
