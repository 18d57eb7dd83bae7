"""The real kernel, worked on from this process but in the docker host of a throw-away LAN."""

import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, cast

from pyroute2.netns import setns

from macvlan_twisted.netlink.kernel import Kernel
from macvlan_twisted.netlink.rtnetlink import NetlinkKernel
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

    @property
    def kernel(self) -> Kernel:
        """The functions."""
        return cast(Kernel, _Functions(self))

    def close(self) -> None:
        """End the thread that works for the main one."""
        self._for_main.submit(self._real.close).result()
        self._for_main.shutdown()

    def do(self, name: str, arguments: tuple[Any, ...], words: dict[str, Any]) -> Any:
        """Call one function."""
        if threading.current_thread() is threading.main_thread():
            return self._for_main.submit(self._within, name, arguments, words).result()
        return self._within(name, arguments, words)

    def _within(self, name: str, arguments: tuple[Any, ...], words: dict[str, Any]) -> Any:
        if not hasattr(self._entered, "done"):
            setns(self._path)
            self._entered.done = True
        self.before(name, arguments)
        return getattr(self._real, name)(*arguments, **words)


class _Functions:
    def __init__(self, owner: NamespacedKernel) -> None:
        self._owner = owner

    def __getattr__(self, name: str) -> Callable[..., Any]:
        return lambda *arguments, **words: self._owner.do(name, arguments, words)


def open_files() -> int:
    """Count this process's open file descriptors."""
    return len(os.listdir("/proc/self/fd"))
