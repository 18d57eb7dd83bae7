"""The address monitors of all parents, and in which subnets they note other hosts."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

from ..addresses import IPNetwork
from .address_monitor import AddressMonitor, ConflictObserver
from .address_probe import ProbeTiming
from .interfaces import LanSocket
from .packet_sockets import PacketSockets


class AddressMonitors:
    """:param clock: ``IReactorTime``"""

    def __init__(self, sockets: PacketSockets, timing: ProbeTiming, clock: Any, random: Random) -> None:
        self._sockets = sockets
        self._timing = timing
        self._clock = clock
        self._random = random
        self._monitors: dict[str, AddressMonitor] = {}
        self._prefixes: dict[str, tuple[str, IPNetwork]] = {}
        """By user: parent and subnet."""
        self._stop_noting: dict[str, Callable[[], None]] = {}

    def use(self, parent: str, user: str, prefix: IPNetwork) -> None:
        """
        Keep the socket of *parent*, and note hosts with addresses in *prefix* once the parent is monitored, until *user* calls
        :meth:`disuse`.
        """
        if parent and user not in self._prefixes:
            self._sockets.use(parent, user)
            self._prefixes[user] = (parent, prefix)
            if parent in self._monitors:
                self._stop_noting[user] = self._monitors[parent].interested_in(prefix)

    async def disuse(self, user: str) -> None:
        """Succeeds if there is no such user."""
        used = self._prefixes.pop(user, None)
        stop_noting = self._stop_noting.pop(user, None)
        if stop_noting is not None:
            stop_noting()
        if used is not None:
            await self._sockets.disuse(used[0], user)

    def of(self, parent: str) -> AddressMonitor | None:
        """The monitor of *parent*, if it is monitored."""
        return self._monitors.get(parent)

    def begin(self, socket: LanSocket, observer: ConflictObserver) -> AddressMonitor:
        """Monitor the parent of *socket* from now on."""
        monitor = AddressMonitor(socket, self._clock, self._random, observer, self._timing)
        self._monitors[socket.parent] = monitor
        monitor.start()
        for user, (parent, prefix) in self._prefixes.items():
            if parent == socket.parent:
                self._stop_noting[user] = monitor.interested_in(prefix)
        return monitor

    def end(self, parent: str) -> None:
        """Succeeds if *parent* is not monitored."""
        monitor = self._monitors.pop(parent, None)
        if monitor is not None:
            monitor.close()

    def close(self) -> None:
        for parent in list(self._monitors):
            self.end(parent)
