"""
Imports the program once and forks a process for each start, so that a start takes a fraction of a second.

It runs in the network namespace of the program, and reads requests, one JSON object a line, from a socket on its standard
input. A process runs what ``twistd macvlan`` runs, with an observer of failpoints that records each, and kills the
process, raises an error or waits, as the request says.
"""

import ctypes
import json
import os
import select
import signal
import socket
import sqlite3
import sys
import time
from collections import Counter
from pathlib import Path
from types import ModuleType
from typing import Any

from macvlan_twisted.errors import LinkError
from macvlan_twisted.failpoints import Failpoint, observe

_PR_SET_PDEATHSIG, _PR_SET_KEEPCAPS = 1, 8
_BY_SQLITE = ("state.database", "state.log", "state.schema", "state.changes")
_BY_FILE = ("listener.", "state.", "netlink.setting", "netlink.parent.quieten", "netlink.sandbox.")
"""Failpoints at which the file system or the C library fails, not netlink or SQLite."""


def _import_program() -> None:
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


class Plan:
    """
    What happens to a process at its failpoints.

    :param rules: each with ``step``, ``occurrence`` (from 1 on; 0: each), ``done``, and one effect: ``kill``, ``errno``
        or ``seconds``; ``while_held`` has it happen only as long as the switch file holds a 1.
    :param trace: a file that gets a line for each failpoint.
    :param switch: a file of one byte.
    """

    def __init__(self, rules: list[dict[str, Any]], trace: int, switch: str) -> None:
        self._rules: dict[tuple[str, bool], list[dict[str, Any]]] = {}
        for rule in rules:
            self._rules.setdefault((rule["step"], rule["done"]), []).append(rule)
        self._count: Counter[tuple[str, bool]] = Counter()
        self._trace = trace
        self._switch = os.open(switch, os.O_RDONLY | os.O_CLOEXEC) if switch else None

    def __call__(self, step: Failpoint, is_done: bool) -> None:
        key = (step.name, is_done)
        self._count[key] += 1
        if self._trace >= 0:
            os.write(
                self._trace, f"{step.name} {self._count[key]} {'after' if is_done else 'before'}\n".encode()
            )
        for rule in self._rules.get(key, ()):
            if rule.get("occurrence", 0) not in (0, self._count[key]):
                continue
            if rule.get("while_held") and self._switch is not None and os.pread(self._switch, 1, 0) != b"1":
                continue
            self._do(step, is_done, rule)

    def _do(self, step: Failpoint, is_done: bool, rule: dict[str, Any]) -> None:
        if "seconds" in rule:
            time.sleep(rule["seconds"])
        elif "errno" in rule:
            if self._trace >= 0:
                os.write(self._trace, f"{step.name} {self._count[step.name, is_done]} refused\n".encode())
            raise refusal(step.name, rule["errno"])
        else:
            _kill()


def _kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def refusal(name: str, number: int) -> Exception:
    """Return the exception that the code gets when kernel, disk or LAN fail at a failpoint."""
    text = os.strerror(number)
    if name.startswith(("lan.", "dhcp.")):
        return LinkError(f"sending: {text}", number)
    if name.startswith(_BY_SQLITE):
        return sqlite3.OperationalError(f"disk I/O error ({text})")
    if name.startswith(_BY_FILE):
        return OSError(number, text)
    from pyroute2.netlink.exceptions import NetlinkError

    error: Exception = NetlinkError(number, text)
    return error


def _become(user: int) -> None:
    """Become another user with CAP_NET_ADMIN, CAP_NET_RAW, and CAP_DAC_READ_SEARCH, since only root may be able to read the code."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_KEEPCAPS, 1, 0, 0, 0)
    os.setgroups([])
    os.setresgid(user, user, user)
    os.setresuid(user, user, user)
    rights = 1 << 12 | 1 << 13 | 1 << 2
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)  # linux/capability.h: version 3, this process
    data = (ctypes.c_uint32 * 6)(rights, rights, rights, 0, 0, 0)
    if libc.capset(header, data) != 0:
        raise OSError(ctypes.get_errno(), "capset")


def _live(order: dict[str, Any]) -> None:
    """Run the program, or one of its commands, in this process. Never returns."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    log = os.open(order["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    nothing = os.open("/dev/null", os.O_RDONLY)
    for descriptor, source in ((0, nothing), (1, log), (2, log)):
        os.dup2(source, descriptor)
    trace = os.open(order["trace"], os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    os.closerange(3, trace)
    os.closerange(trace + 1, 256)
    sys.stdout = os.fdopen(1, "w", buffering=1)
    sys.stderr = os.fdopen(2, "w", buffering=1)
    for name, (soft, hard) in order.get("limits", {}).items():
        import resource

        resource.setrlimit(getattr(resource, name), (soft, hard))
    if order.get("user"):
        _become(order["user"])
    if order.get("ages"):
        from functools import partial

        from macvlan_twisted import tap
        from macvlan_twisted.reconcile.reconciler import GracePeriods

        quick = partial(tap.make_macvlan_service, ages=GracePeriods(*order["ages"]))
        tap.make_macvlan_service = quick
    observe(Plan(order["rules"], trace, order.get("switch", "")))
    if order.get("command"):
        from macvlan_twisted.commands import cli, stale_sandboxes

        stale_sandboxes.CONFIRMATION_DELAY = 0.05  # for no container is just starting
        sys.exit(cli.main(order["arguments"]))
    sys.argv = ["twistd", "--nodaemon", "--pidfile=", "macvlan", *order["arguments"]]
    from twisted.scripts.twistd import run

    run()


def _begin(order: dict[str, Any]) -> dict[str, Any]:
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            _live(order)
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
    return {"pid": pid}


def _wait(pid: int, seconds: float) -> dict[str, Any]:
    """Wait for the end of a process by its pidfd, which becomes readable then."""
    descriptor = os.pidfd_open(pid)
    try:
        if not select.select([descriptor], [], [], seconds)[0]:
            return {"status": None}
    finally:
        os.close(descriptor)
    return {"status": os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])}


def main() -> None:
    """Serve requests until the channel closes."""
    _import_program()
    channel = socket.socket(fileno=os.dup(0))
    lines = channel.makefile("r")
    channel.sendall(b"{}\n")
    for line in lines:
        order = json.loads(line)
        answer = _begin(order) if "arguments" in order else _wait(order["pid"], order["seconds"])
        channel.sendall(json.dumps(answer).encode() + b"\n")


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
    main()
