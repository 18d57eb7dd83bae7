"""A host's links, and those of its containers, without a kernel.

The fake kernel outlives the service under test, as a real one does: the service reaches it through a socket, and the
engine model moves links behind the service's back.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from ipaddress import ip_interface
from multiprocessing.managers import BaseManager
from typing import Any

from macvlan_twisted.netlink.kernel import LinkFacts
from macvlan_twisted.testing.kernel import FakeKernel, nic


class HostKernel(FakeKernel):
    """:param nics: by name the addresses that the host has on each of them, in CIDR."""

    def __init__(self, nics: Mapping[str, Sequence[str]]) -> None:
        super().__init__(
            [nic(name, index) for index, name in enumerate(nics, start=2)],
            addresses={name: [ip_interface(each) for each in own] for name, own in nics.items()},
        )
        self._in_containers: dict[str, LinkFacts] = {}
        self._from_the_beginning = frozenset(link.name for link in self.links())

    def take(self, link: str) -> bool:
        """Move a link into a container, and up; False if the host has no such link."""
        with self._lock:
            if self.find(link) is None:
                return False
            self._in_containers[link] = self.move_away(link, up=True)
            return True

    def give_back(self, link: str) -> None:
        """Move a link back to the host, if its container still has it."""
        with self._lock:
            if link in self._in_containers:
                self.move_back(self._in_containers.pop(link))

    def destroy(self, link: str) -> None:
        """Let a link die with its container's namespace."""
        with self._lock:
            self.give_back(link)
            self.delete(link)

    def made_links(self) -> frozenset[str]:
        """Every link, wherever it is now, that somebody has made since the beginning."""
        with self._lock:
            names = {link.name for link in self.links()} | set(self._in_containers)
        return frozenset(names - self._from_the_beginning)


class KernelManager(BaseManager):
    """Lends one :class:`HostKernel` to other processes."""


def lend(kernel: HostKernel, address: str, secret: bytes) -> None:
    """Serve *kernel* on a UNIX socket, in threads that end with the process."""
    KernelManager.register("kernel", callable=lambda: kernel)
    server = KernelManager(address=address, authkey=secret).get_server()
    threading.Thread(target=server.serve_forever, daemon=True).start()


def borrow(address: str, secret: bytes) -> Any:
    """The kernel that another process lends."""
    KernelManager.register("kernel")
    manager = KernelManager(address=address, authkey=secret)
    manager.connect()
    return manager.kernel()  # type: ignore[attr-defined]
