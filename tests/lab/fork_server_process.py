"""
Imports the service once and forks a process for each start, so that a start takes a fraction of a second.

    python -P -m tests.lab.fork_server_process PROGRAM

PROGRAM is a module whose function ``run(order)`` a forked process calls; see :mod:`tests.lab.forked_twistd`. Requests,
one JSON object a line, come from a socket on standard input: an order, which :class:`tests.lab.fork_server.ForkServer`
describes, or the process id of a process that has ended and whose exit status is wanted.
"""

import ctypes
import json
import os
import signal
import socket
import sys
from importlib import import_module
from types import ModuleType
from typing import Any

_PR_SET_PDEATHSIG = 1
_DESCRIPTORS = 256


def _import_service() -> None:
    """Import all that a start needs, but no reactor: each process has its own."""
    stand_in: Any = ModuleType("twisted.internet.reactor")
    sys.modules["twisted.internet.reactor"] = (
        stand_in  # klein wants one when it is imported, and never asks it
    )
    import klein  # noqa: F401
    import twisted.internet

    import macvlan_twisted.commands.cli
    import macvlan_twisted.netlink.rtnetlink
    import macvlan_twisted.tap  # noqa: F401

    del sys.modules["twisted.internet.reactor"]
    if hasattr(twisted.internet, "reactor"):
        del twisted.internet.reactor
    import twisted.application.app
    import twisted.internet.epollreactor
    import twisted.scripts._twistd_unix
    import twisted.scripts.twistd
    from twisted.application.service import IServiceMaker
    from twisted.plugin import getPlugins

    import twisted.plugins

    list(getPlugins(IServiceMaker))


def _become(order: dict[str, Any]) -> None:
    """Make this process what :class:`subprocess.Popen` and ``nsenter`` would have made it."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    os.setsid()
    os.closerange(3, _DESCRIPTORS)
    nothing = os.open("/dev/null", os.O_RDONLY)
    log = os.open(order["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    for descriptor, source in ((0, nothing), (1, log), (2, log)):
        os.dup2(source, descriptor)
    here = os.getcwd()
    # All are opened first: in another mount namespace the paths may mean something else.
    namespaces = [os.open(path, os.O_RDONLY) for path in order["namespaces"]]
    for namespace in namespaces:
        if libc.setns(namespace, 0) != 0:
            raise OSError(ctypes.get_errno(), "setns")
    os.chdir(here)  # entering a mount namespace leads to its root
    os.closerange(3, _DESCRIPTORS)
    sys.stdout = os.fdopen(1, "w", buffering=1)
    sys.stderr = os.fdopen(2, "w", buffering=1)
    if order["environment"] is not None:
        os.environ.clear()
        os.environ.update(order["environment"])


def _fork(program: ModuleType, order: dict[str, Any]) -> int:
    pid = os.fork()
    if pid != 0:
        return pid
    status = 1
    try:
        _become(order)
        program.run(order)
        status = 0
    except SystemExit as end:
        if isinstance(end.code, str):
            sys.stderr.write(end.code + "\n")
        status = end.code if isinstance(end.code, int) else 0 if end.code is None else 1
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def main() -> None:
    """Serve requests until the channel closes."""
    _import_service()
    program = import_module(sys.argv[1])
    channel = socket.socket(fileno=os.dup(0))
    lines = channel.makefile("r")
    channel.sendall(b"0\n")
    for line in lines:
        request = json.loads(line)
        if isinstance(request, int):
            answer = os.waitstatus_to_exitcode(os.waitpid(request, 0)[1])
        else:
            answer = _fork(program, request)
        channel.sendall(b"%d\n" % answer)


if __name__ == "__main__":
    main()
