"""``twistd`` with stopwatches in our service: run as a program in its place, it writes down what each call did when.

The clock is the kernel's monotonic one, which all processes share.
"""

import atexit
import json
import os
import sys
import time
from collections.abc import Callable
from contextvars import ContextVar, copy_context
from functools import wraps
from typing import Any

MARKS: list[tuple[float, str, str]] = []
"""When which piece of a call began, and the call's method once it is known; filled on several threads."""
FILE = "STOPWATCH_FILE"
IN_BACKGROUND: ContextVar[bool] = ContextVar("IN_BACKGROUND", default=False)
"""Whether no call waits for what is done: addresses are probed ahead of need. Nothing is noted then."""

REQUEST_READ = "HTTP parsed, Klein route found"
JSON_PARSED = "JSON parsed"
PLAN = "plan"
LAST_LOOK = "last look at the LAN"
DISK_THREAD = "wait for disk thread"
COMMIT = "SQLite commit"
NETLINK_THREAD = "wait for netlink thread"
HOST_ADDRESSES = "kernel lists host addresses"
LINK_CREATED = "kernel creates link"
LINK_RETIRED = "kernel retires link"
REACTOR = "wait for reactor"
REPLY_ENCODED = "reply encoded"
REPLY_WRITTEN = "reply written"
ANNOUNCEMENT = "announcement sent"
REPLY_IN_TRANSIT = "reply in transit"
"""The reply is in the socket: the call is over for us."""
PIECES = (
    REQUEST_READ, JSON_PARSED, PLAN, LAST_LOOK, NETLINK_THREAD, HOST_ADDRESSES, LINK_CREATED, LINK_RETIRED,
    DISK_THREAD, COMMIT, REACTOR, ANNOUNCEMENT, REPLY_ENCODED, REPLY_WRITTEN,
)  # fmt: skip
"""What a call consists of here, in the order in which it is shown."""


def mark(piece: str, method: str = "") -> None:
    """Note what begins now."""
    if not IN_BACKGROUND.get():
        MARKS.append((time.perf_counter(), piece, method))


def watch(owner: Any, name: str, before: str = "", after: str = "") -> None:
    """Note each call and end of a function; empty names are not noted."""
    function: Callable[..., Any] = getattr(owner, name)

    @wraps(function)
    def watched(*arguments: Any, **named: Any) -> Any:
        if before:
            mark(before)
        try:
            return function(*arguments, **named)
        finally:
            if after:
                mark(after)

    setattr(owner, name, watched)


def watch_async(owner: Any, name: str, before: str, after: str) -> None:
    """The same of an asynchronous function."""
    function: Callable[..., Any] = getattr(owner, name)

    @wraps(function)
    async def watched(*arguments: Any, **named: Any) -> Any:
        mark(before)
        try:
            return await function(*arguments, **named)
        finally:
            mark(after)

    setattr(owner, name, watched)


def watch_calls(owner: Any, name: str) -> None:
    """Note the method of each call."""
    function: Callable[..., Any] = getattr(owner, name)

    @wraps(function)
    def watched(app: Any, call: Any, method: Any) -> Any:
        mark(JSON_PARSED, call.name.partition(".")[2])
        return function(app, call, method)

    setattr(owner, name, watched)


def watch_background() -> None:
    """Tell apart the probes that no call waits for, on whichever thread they continue."""
    from macvlan_twisted.lan.conflicts import Conflicts, Holder
    from macvlan_twisted.worker_threads import WorkerThreads

    hold: Callable[..., Any] = Conflicts.hold
    run: Callable[..., Any] = WorkerThreads.__call__

    @wraps(hold)
    async def held(conflicts: Any, parent: Any, address: Any, holder: Holder, **named: Any) -> Any:
        IN_BACKGROUND.set(named.get("of_many", False) or holder.is_guess)
        return await hold(conflicts, parent, address, holder, **named)

    @wraps(run)
    def run_in_context(threads: Any, function: Any, /, *arguments: Any) -> Any:
        return run(threads, copy_context().run, function, *arguments)

    setattr(Conflicts, "hold", held)  # noqa: B010 - mypy
    setattr(WorkerThreads, "__call__", run_in_context)  # noqa: B010


def watch_all() -> None:
    """Put stopwatches wherever a call passes from one to another."""
    from twisted.internet.unix import Server

    from macvlan_twisted.driver.endpoints import EndpointRemoval, Endpoints
    from macvlan_twisted.driver.join import Joining
    from macvlan_twisted.ipam.address_requests import AddressRequests
    from macvlan_twisted.lan.address_monitor import AddressMonitor
    from macvlan_twisted.lan.announcer import Announcer
    from macvlan_twisted.netlink.links import Links
    from macvlan_twisted.netlink.rtnetlink import NetlinkKernel
    from macvlan_twisted.protocol.routes import PluginApp
    from macvlan_twisted.protocol.site import PluginChannel, PluginRequest
    from macvlan_twisted.state.database import Database
    from macvlan_twisted.state.group_commit import GroupCommit

    watch_background()
    watch(PluginChannel, "dataReceived", REQUEST_READ)
    watch_calls(PluginApp, "_call")
    for owner, method in (
        (AddressRequests, "request_address"),
        (AddressRequests, "release_address"),
        (Endpoints, "create"),
        (Endpoints, "operational_info"),
        (Joining, "join"),
        (Joining, "leave"),
        (EndpointRemoval, "delete"),
    ):
        watch_async(owner, method, PLAN, REPLY_ENCODED)
    watch_async(AddressMonitor, "hold", LAST_LOOK, PLAN)
    watch(GroupCommit, "submit", DISK_THREAD)
    watch(Database, "commit", COMMIT, REACTOR)
    watch(GroupCommit, "_written", PLAN)
    for method in ("add_macvlan", "retire", "host_addresses"):
        watch_async(Links, method, NETLINK_THREAD, PLAN)
    watch(NetlinkKernel, "add_macvlan", LINK_CREATED, REACTOR)
    watch(NetlinkKernel, "set_group", LINK_RETIRED, REACTOR)
    watch(NetlinkKernel, "host_addresses", HOST_ADDRESSES, REACTOR)
    watch_async(Announcer, "_announce", ANNOUNCEMENT, REACTOR)
    watch(PluginRequest, "write", REPLY_WRITTEN, REACTOR)
    watch(Server, "writeSomeData", REPLY_WRITTEN, REPLY_IN_TRANSIT)


def write_down() -> None:
    """Write the marks to the file."""
    with open(os.environ[FILE], "w", encoding="utf-8") as file:
        json.dump(MARKS, file)


if __name__ == "__main__":
    from twisted.scripts.twistd import run

    watch_all()
    atexit.register(write_down)
    sys.exit(run())
