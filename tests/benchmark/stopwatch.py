"""``twistd`` with stopwatches in our service: run as a program in its place, it writes down when each call was where.

The clock is the kernel's monotonic one, which all processes share.
"""

import atexit
import json
import os
import sys
import time
from collections.abc import Callable
from functools import wraps
from typing import Any

MARKS: list[tuple[float, str]] = []
"""When something began, or was over; filled on several threads."""
FILE = "STOPWATCH_FILE"


def mark(text: str) -> None:
    """Note what begins now."""
    MARKS.append((time.perf_counter(), text))


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
    async def watched(*arguments: Any) -> Any:
        mark(before)
        try:
            return await function(*arguments)
        finally:
            mark(after)

    setattr(owner, name, watched)


IN_REACTOR = "from the thread back into the reactor"


def watch_all() -> None:
    """Put stopwatches wherever a call passes from one to another."""
    from twisted.internet.unix import Server

    from macvlan_twisted.driver.endpoints import EndpointRemoval, Endpoints
    from macvlan_twisted.driver.join import Joining
    from macvlan_twisted.netlink.links import Links
    from macvlan_twisted.netlink.rtnetlink import NetlinkKernel
    from macvlan_twisted.protocol.routes import PluginApp
    from macvlan_twisted.protocol.site import PluginChannel, PluginRequest
    from macvlan_twisted.state import group_commit
    from macvlan_twisted.state.database import Database

    watch(PluginChannel, "dataReceived", "the request is read")
    watch(PluginApp, "_call", "JSON becomes a request of ours")
    for owner, method in ((Endpoints, "create"), (Joining, "join"), (EndpointRemoval, "delete")):
        watch_async(owner, method, "it is decided what to do", "the reply becomes JSON")
    watch(group_commit.GroupCommit, "submit", "from the reactor to the thread of the disk")
    watch(Database, "commit", "SQLite commits, and the disk confirms", IN_REACTOR)
    watch(group_commit.GroupCommit, "_written", "what is known is brought up to date")
    for method in ("add_macvlan", "retire"):
        watch_async(
            Links, method, "from the reactor to a thread of the kernel", "what was done is noted and logged"
        )
    watch(NetlinkKernel, "add_macvlan", "the kernel makes the link, and marks it", IN_REACTOR)
    watch(NetlinkKernel, "set_group", "the kernel moves the link to those that are to go", IN_REACTOR)
    watch(PluginRequest, "write", "the answer is written")
    watch(Server, "writeSomeData", "", "the engine's side wakes up")


def write_down() -> None:
    """Write the marks to the file."""
    with open(os.environ[FILE], "w", encoding="utf-8") as file:
        json.dump(MARKS, file)


if __name__ == "__main__":
    from twisted.scripts.twistd import run

    watch_all()
    atexit.register(write_down)
    sys.exit(run())
