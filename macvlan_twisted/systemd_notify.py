"""
What systemd learns from the service: that calls are answered, that it stops, and that it is not stuck.

The protocol is that of sd_notify(3): a datagram of assignments to the socket in ``NOTIFY_SOCKET``. ``WATCHDOG_USEC`` is
``WatchdogSec=`` of the unit. Systemd kills and restarts a service that sends no ``WATCHDOG=1`` for so long.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from attrs import frozen
from twisted.logger import Logger

from .protocol.routes import PluginApp
from .worker_threads import WorkerThreads

_log = Logger(namespace="macvlan_twisted")

LONGEST_JOB = 0.75
"""
The part of the watchdog's time that a thread may spend on one job: 90 of 120 seconds, so that a disk that stalls for a
minute ends no service.
"""
LONGEST_CALL = 600.0
"""Seconds for one call of the engine. A DHCP server alone may take 300 of them (``--dhcp-timeout``)."""

RETRY_DELAY = 1.0
"""Seconds until ``READY=1`` is sent again, if systemd's queue is full."""


@frozen
class Notifier:
    """
    Sends to systemd.

    :param address: path of the socket; ``@`` begins an abstract one. Empty: systemd expects nothing.
    :param watchdog: seconds within which systemd expects a sign of life. 0: it expects none.
    """

    address: str = ""
    watchdog: float = 0.0

    @classmethod
    def from_environment(cls, environment: Mapping[str, str], pid: int) -> Notifier:
        """:param pid: of this process: the variables may be meant for another one."""
        watchdog = environment.get("WATCHDOG_USEC", "")
        is_ours = environment.get("WATCHDOG_PID", str(pid)) == str(pid)
        return cls(
            environment.get("NOTIFY_SOCKET", ""),
            int(watchdog) / 1e6 if watchdog.isdecimal() and is_ours else 0.0,
        )

    def notify(self, *assignments: str) -> None:
        """
        Send assignments, such as ``READY=1``. Never blocks.

        :raises BlockingIOError: systemd's queue is full.
        :raises OSError: nobody has the socket.
        """
        address = "\0" + self.address[1:] if self.address.startswith("@") else self.address
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as sender:
            sender.sendto("\n".join(assignments).encode(), address)


@frozen
class Watched:
    """Something that is stuck when a job of it takes too long."""

    name: str
    longest_wait: Callable[[], float]
    """For how many seconds the oldest pending job has been waiting; 0 if there is none."""
    limit: float
    """Seconds."""


def watch(notifier: Notifier, threads: Sequence[WorkerThreads], app: PluginApp) -> list[Watched]:
    """All that can be stuck while the reactor runs."""
    longest_job = LONGEST_JOB * notifier.watchdog
    jobs = [Watched(f"thread {each.name}", each.longest_wait, longest_job) for each in threads]
    return [*jobs, Watched("plugin API", app.longest_wait, LONGEST_CALL)]


class SystemdNotifications:
    """
    Reports the service to systemd while it runs.

    The sign of life comes from the reactor three times within the watchdog's time, so a reactor that is stuck gives none.
    None is given either while a job of *watched* is older than its limit.

    :param reactor: ``IReactorCore``
    :param clock: ``IReactorTime``
    :param where: what the service listens on.
    :param contents: what the service has at the moment, in a few words.
    """

    def __init__(
        self,
        notifier: Notifier,
        reactor: Any,
        clock: Any,
        watched: Sequence[Watched],
        where: str,
        contents: Callable[[], str],
    ) -> None:
        self._notifier = notifier
        self._reactor = reactor
        self._clock = clock
        self._watched = watched
        self._where = where
        self._contents = contents
        self._is_stopped = False
        self._stuck = ""
        self._next: Any = None

    def start(self) -> None:
        """Calls are answered as soon as the reactor runs."""
        self._reactor.callWhenRunning(self._report_ready)

    def stop(self) -> None:
        self._is_stopped = True
        if self._next is not None and self._next.active():
            self._next.cancel()
        self._send("STOPPING=1", "STATUS=stopping")

    def _report_ready(self) -> None:
        if self._is_stopped:
            return
        try:
            self._notifier.notify("READY=1", f"STATUS=listening on {self._where}")
        except BlockingIOError:
            self._next = self._clock.callLater(RETRY_DELAY, self._report_ready)
            return
        except OSError as error:
            # Cause: systemd's socket refuses the message. Remedy: set ``NotifyAccess=main`` in the unit, or remove
            # ``Type=notify``.
            _log.warn(
                "systemd: cannot be notified over {socket} ({reason}); systemd considers the start of a Type=notify unit "
                "failed",
                socket=self._notifier.address,
                reason=error.strerror,
            )
            return
        if self._notifier.watchdog:
            self._report_life()

    def _report_life(self) -> None:
        self._next = self._clock.callLater(self._notifier.watchdog / 3, self._report_life)
        stuck = [each for each in self._watched if each.longest_wait() > each.limit]
        if stuck:
            self._report_stuck(stuck[0])
            return
        if self._stuck:
            _log.info("watchdog: {worker} answers again", worker=self._stuck)
            self._stuck = ""
        self._send("WATCHDOG=1", f"STATUS=listening on {self._where}; {self._contents()}")

    def _report_stuck(self, watched: Watched) -> None:
        seconds = int(watched.longest_wait())
        if watched.name != self._stuck:
            self._stuck = watched.name
            # Cause: the kernel or the disk does not answer. WORKER is the plugin's thread for one of them, or its
            # API; while the API does not answer, the engine waits. Remedy: check the disk and the kernel log.
            _log.error(
                "watchdog: {worker} has not answered for {seconds} s; systemd will restart the service unless it answers "
                "soon",
                worker=watched.name,
                seconds=seconds,
            )
        self._send(f"STATUS=stuck: {watched.name} has not answered for {seconds} s")

    def _send(self, *assignments: str) -> None:
        try:
            self._notifier.notify(*assignments)
        except OSError as error:
            _log.debug("systemd: cannot be notified ({reason})", reason=error.strerror)
