"""Netlink in another network namespace, on a thread that has entered it."""

import os
import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any, TypeVar

from pyroute2 import IPRoute

T = TypeVar("T")
_CLONE_NEWNET = 0x40000000


class NetnsNetlink:
    """Netlink in a namespace, on a thread of its own."""

    def __init__(self, path: str) -> None:
        """Enter the namespace that *path* leads to."""
        self._thread = ThreadPoolExecutor(1, f"netlink in {path}")
        self._netlink: Any = None
        self.do(lambda: self._enter(path))

    def _enter(self, path: str) -> None:
        import ctypes

        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            if ctypes.CDLL(None, use_errno=True).setns(descriptor, _CLONE_NEWNET) != 0:
                raise OSError(ctypes.get_errno(), f"entering {path}")
        finally:
            os.close(descriptor)
        self._netlink = IPRoute()

    def do(self, work: Callable[[], T]) -> T:
        """Call *work* in the namespace."""
        return self._thread.submit(work).result()

    @property
    def netlink(self) -> Any:
        """Only within :meth:`do`."""
        return self._netlink

    def links(self) -> dict[str, Any]:
        """Return the netlink messages of all links, by name."""
        return self.do(lambda: {each.get_attr("IFLA_IFNAME"): each for each in self._netlink.link("dump")})

    def addresses(self) -> list[tuple[int, str]]:
        """Return pairs of link index and address of all links."""
        return self.do(
            lambda: [
                (
                    each["index"],
                    f"{each.get_attr('IFA_LOCAL') or each.get_attr('IFA_ADDRESS')}/{each['prefixlen']}",
                )
                for each in self._netlink.addr("dump")
            ]
        )

    def routes(self) -> list[tuple[int, int, str, int, str]]:
        """Return protocol, link, destination, its length and gateway of all routes in the main table."""
        return self.do(
            lambda: [
                (
                    each["proto"],
                    each.get_attr("RTA_OIF") or 0,
                    str(each.get_attr("RTA_DST") or "default"),
                    each["dst_len"],
                    str(each.get_attr("RTA_GATEWAY") or ""),
                )
                for family in (socket.AF_INET, socket.AF_INET6)
                for each in self._netlink.route("dump", family=family)
                if (each.get_attr("RTA_TABLE") or each["table"]) == 254
            ]
        )

    def delete(self, name: str) -> None:
        """Delete a link, if it exists."""

        def work() -> None:
            with suppress(OSError):
                index = socket.if_nametoindex(name)
                self._netlink.link("del", index=index)

        self.do(work)

    def close(self) -> None:
        """Leave."""
        self.do(self._netlink.close)
        self._thread.shutdown()
