"""The process in which the service under test runs, with a reactor of its own.

It is forked from a server that has imported everything except a reactor. Kernel and LAN are fakes; the LAN has no other
hosts.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from typing import Any

from macvlan_twisted import service
from macvlan_twisted.config import Config
from macvlan_twisted.testing.packet_socket import FakeLanSocket

from .host_kernel import borrow

_PR_SET_PDEATHSIG = 1


def serve(config: Config, kernel_address: str, secret: bytes, log_path: str) -> None:
    """Run until SIGTERM; what has started is finished first. Ends with the tests, however these end."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    log = os.open(log_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(log, 1)
    os.dup2(log, 2)
    from twisted.internet import reactor as installed
    from twisted.logger import globalLogBeginner, textFileLogObserver

    reactor: Any = installed
    observer: Any = textFileLogObserver(sys.stdout)
    globalLogBeginner.beginLoggingTo([observer], redirectStandardIO=False)
    vars(service)["PacketSocket"] = _empty_lan
    plugin = service.make_macvlan_service(config, reactor=reactor, kernel=borrow(kernel_address, secret))
    plugin.startService()
    reactor.addSystemEventTrigger("before", "shutdown", plugin.stopService)
    reactor.run()


def _empty_lan(
    reactor: Any, clock: Any, parent: str, speaker: str, mac: str, elsewhere: object
) -> FakeLanSocket:
    """Return a fake socket, even if the machine has a NIC of this name."""
    return FakeLanSocket(parent, mac)
