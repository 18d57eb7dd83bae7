"""
What a process forked for a torture does: it runs the program, or one of its commands, with faults at failpoints.

An observer of failpoints records each, and kills the process, raises an error or waits, as the order says.
"""

import ctypes
import os
import resource
import signal
import sqlite3
import sys
import time
from collections import Counter
from typing import Any

from macvlan_twisted.errors import LinkError
from macvlan_twisted.failpoints import Failpoint, observe
from tests.lab import forked_twistd

_PR_SET_KEEPCAPS = 8
_BY_SQLITE = ("state.database", "state.log", "state.schema", "state.changes")
_BY_FILE = ("listener.", "state.", "netlink.setting", "netlink.parent.quieten", "netlink.sandbox.")
"""Failpoints at which the file system or the C library fails, not netlink or SQLite."""


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


def run(order: dict[str, Any]) -> None:
    """
    Run the program or, if the order has a ``command``, that. Never returns.

    Besides, an order has ``arguments``, ``rules``, ``switch`` and ``trace`` (see :class:`Plan`), and may have
    ``limits`` (of the resource module), ``user`` (a user id) and ``grace_periods``.
    """
    trace = os.open(order["trace"], os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    for name, (soft, hard) in order.get("limits", {}).items():
        resource.setrlimit(getattr(resource, name), (soft, hard))
    if order.get("user"):
        _become(order["user"])
    observe(Plan(order["rules"], trace, order.get("switch", "")))
    if order.get("command"):
        from macvlan_twisted.commands import cli, stale_sandboxes

        stale_sandboxes.CONFIRMATION_DELAY = 0.05  # for no container is just starting
        sys.exit(cli.main(order["arguments"]))
    forked_twistd.run({**order, "arguments": ["--nodaemon", "--pidfile=", "macvlan", *order["arguments"]]})
