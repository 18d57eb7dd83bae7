"""The real kernel, worked on from this process but in the docker host of a throw-away LAN."""

import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from pyroute2.netns import setns

from macvlan_twisted.links.interface import DefaultRoute, LinkFacts, Port
from macvlan_twisted.links.kernel import NetlinkKernel
from tests.lab.lan import Lan


class NamespacedKernel:
    """A :class:`NetlinkKernel` of which every function is run in the docker host's network namespace.

    A thread that calls enters that namespace for good, except the main thread: what that one asks is done by
    a thread of our own.
    """

    def __init__(self, lan: Lan) -> None:
        """Prepare; nothing is opened before the first call."""
        self._path = lan.namespace_path("host")
        self._real = NetlinkKernel()
        self._entered = threading.local()
        self._for_main = ThreadPoolExecutor(1, "kernel for the main thread")
        self.before: Callable[[str, tuple[Any, ...]], None] = lambda name, arguments: None
        """Called with each function's name and arguments, in the thread and before the function."""

    def close(self) -> None:
        """End the thread that works for the main one."""
        self._for_main.submit(self._real.close).result()
        self._for_main.shutdown()

    def find(self, name: str) -> LinkFacts | None:
        """See :class:`macvlan_twisted.links.interface.Kernel`, here and below."""
        return self._do(self._real.find, name)

    def links(self) -> list[LinkFacts]:
        """List links."""
        return self._do(self._real.links)

    def add_port(self, port: Port, prove_mac_free: bool = False) -> None:
        """Make a macvlan link."""
        self._do(self._real.add_port, port, prove_mac_free)

    def read_port(self, name: str) -> Port | None:
        """Read it back."""
        return self._do(self._real.read_port, name)

    def add_vlan(self, name: str, lower: str, vlan_id: int, group: int, alias: str) -> None:
        """Make a VLAN."""
        self._do(self._real.add_vlan, name, lower, vlan_id, group, alias)

    def add_dummy(self, name: str, group: int, alias: str) -> None:
        """Make a dummy link."""
        self._do(self._real.add_dummy, name, group, alias)

    def set_up(self, name: str) -> None:
        """Bring a link up."""
        self._do(self._real.set_up, name)

    def set_group(self, name: str, group: int) -> bool:
        """Condemn a link."""
        return self._do(self._real.set_group, name, group)

    def delete(self, name: str) -> bool:
        """Remove a link."""
        return self._do(self._real.delete, name)

    def members_of_group(self, group: int) -> list[LinkFacts]:
        """List a group."""
        return self._do(self._real.members_of_group, group)

    def delete_group(self, group: int) -> None:
        """Remove a group."""
        self._do(self._real.delete_group, group)

    def default_routes(self) -> list[DefaultRoute]:
        """List default routes."""
        return self._do(self._real.default_routes)

    def addresses_of(self, name: str) -> list[Any]:
        """List the host's addresses."""
        return self._do(self._real.addresses_of, name)

    def _do(self, function: Callable[..., Any], *arguments: Any) -> Any:
        if threading.current_thread() is threading.main_thread():
            return self._for_main.submit(self._within, function, *arguments).result()
        return self._within(function, *arguments)

    def _within(self, function: Callable[..., Any], *arguments: Any) -> Any:
        if not hasattr(self._entered, "done"):
            setns(self._path)
            self._entered.done = True
        self.before(function.__name__, arguments)
        return function(*arguments)


def open_files() -> int:
    """Count this process's open file descriptors."""
    return len(os.listdir("/proc/self/fd"))
