"""
pyroute2, with which we change links, addresses and routes, and encode templates.

It takes 0.2 s and 10 MB to import. A start of the service only reads, which is done without it, so this module is imported
where it is first needed: in a thread, by :meth:`~macvlan_twisted.netlink.kernel.Kernel.prepare`, or by the first change.
"""

from __future__ import annotations

import os
from typing import Any

from pyroute2 import IPBatch, IPRoute
from pyroute2.netlink.rtnl.ifinfmsg import macvx_data

_DESCRIPTORS = 6
"""File descriptors: pyroute2 opens 4 with an event loop (measured); the rest is for other threads."""


def _extend_macvlan_attributes() -> None:
    """Teach pyroute2 attributes of linux/if_link.h that it would silently drop (0.9)."""
    if not any(row[0] == "IFLA_MACVLAN_BC_QUEUE_LEN" for row in macvx_data.nla_map):
        macvx_data.nla_map = (
            *macvx_data.nla_map,
            ("IFLA_MACVLAN_BC_QUEUE_LEN", "uint32"),
            ("IFLA_MACVLAN_BC_QUEUE_LEN_USED", "uint32"),
            ("IFLA_MACVLAN_BC_CUTOFF", "int32"),
        )


_extend_macvlan_attributes()


def afford_event_loop() -> None:
    """
    Check that pyroute2 can open its event loop, which it does with each socket, and to encode. If descriptors run out half-way,
    the unfinished loop writes to stderr when it is collected.

    :raises OSError: too few descriptors are left.
    """
    descriptors: list[int] = []
    try:
        for _ in range(_DESCRIPTORS):
            descriptors.append(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
    finally:
        for each in descriptors:
            os.close(each)


def open_iproute() -> Any:
    """:raises OSError: too few descriptors are left."""
    afford_event_loop()
    return IPRoute()


def encoded(command: str, **request: Any) -> bytes:
    """A message as pyroute2 encodes it."""
    afford_event_loop()
    batch = IPBatch()
    try:
        batch.link(command, **request)
        return bytes(batch.batch)
    finally:
        batch.close()
