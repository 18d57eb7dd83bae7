"""
Changes links in containers' sandboxes; the engine configures them only once, when a container joins.

A sandbox is a network namespace. Only a thread can enter it, and needs CAP_SYS_ADMIN. So each visit has a thread of its
own, which ends there; the other threads stay in the host's namespace.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import re
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import PurePosixPath
from threading import Thread
from typing import TypeVar

from ..errors import LinkError
from ..failpoints import Failpoint
from .kernel import Readdress
from .netns_link import NetnsLinkEditor
from .rtnetlink import NetlinkKernel

# Remedy of these errors: see the reason in the message.

T = TypeVar("T")

_CLONE_NEWNET = 0x40000000  # linux/sched.h
_NS_GET_NSTYPE = 0xB703  # linux/nsfs.h
_OWN = "/proc/self/ns/net"
_NAME = re.compile(r"[0-9A-Za-z_-]+")

NEEDED = "CAP_SYS_ADMIN"
_ENTER = Failpoint(
    "netlink.sandbox.enter", "a thread enters a container's sandbox; nothing is changed by that alone"
)


def sandbox_path(text: str) -> str:
    """
    The ``SandboxKey`` of Join if it looks like one: a name in a directory ``netns``, such as
    ``/var/run/docker/netns/1f2e3d4c5b6a``. Else empty, and the path is never opened.
    """
    path = PurePosixPath(text)
    looks_right = (
        str(path) == text
        and path.is_absolute()
        and ".." not in path.parts
        and path.parent.name == "netns"
        and _NAME.fullmatch(path.name) is not None
    )
    return text if looks_right else ""


def sandbox_of_process(pid: int) -> str:
    return f"/proc/{pid}/ns/net"


class NamespaceSandboxes:
    """:class:`~macvlan_twisted.netlink.kernel.Sandboxes` in network namespaces."""

    def lacking(self) -> str:
        with _opened(_OWN) as own:
            try:
                _visit(own, lambda: None)
            except LinkError as failure:
                return str(failure)
        return ""

    def is_there(self, path: str) -> bool:
        try:
            with _opened(path):
                return True
        except LinkError:
            return False

    def move(self, path: str, move: Readdress) -> tuple[str, ...]:
        def work() -> tuple[str, ...]:
            from .pyroute import open_iproute

            with open_iproute() as netlink:
                return NetnsLinkEditor(netlink).move(move)

        with _opened(path) as sandbox, _opened(_OWN) as own:
            if os.path.sameopenfile(sandbox, own):
                # Remedy: restart the container.
                raise LinkError(f"sandbox {path} is the host's own network namespace; refusing to change it")
            return _visit(sandbox, work)


def links_in(path: str) -> dict[str, str]:
    """
    The aliases of all links in the sandbox at *path*, by their names there.

    :raises LinkError: there is no sandbox, or it cannot be entered.
    """

    def look() -> dict[str, str]:
        kernel = NetlinkKernel()
        try:
            return {link.name: link.alias for link in kernel.links()}
        finally:
            kernel.close()

    with _opened(path) as sandbox:
        return _visit(sandbox, look)


@contextmanager
def _opened(path: str) -> Iterator[int]:
    """
    :raises LinkError: there is no network namespace.
    """
    # The links in /proc/*/ns have no other name; any other symbolic link would lead away from the engine's path.
    follow = 0 if path.startswith("/proc/") else os.O_NOFOLLOW
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | follow)
    except OSError as error:
        raise LinkError(
            f"cannot open sandbox {path}: {os.strerror(error.errno or 0)}", error.errno or 0
        ) from None
    try:
        try:
            kind = fcntl.ioctl(descriptor, _NS_GET_NSTYPE)
        except OSError:
            kind = 0
        if kind != _CLONE_NEWNET:
            # Remedy: restart the container.
            raise LinkError(f"sandbox {path} is not a network namespace of this host", errno.EINVAL)
        yield descriptor
    finally:
        os.close(descriptor)


def _visit(namespace: int, work: Callable[[], T]) -> T:
    """Run *work* in a namespace, in a thread that ends there."""

    def enter() -> T:
        libc = ctypes.CDLL(None, use_errno=True)
        try:
            with _ENTER:
                if libc.setns(namespace, _CLONE_NEWNET) != 0:
                    raise OSError(ctypes.get_errno(), "setns")
        except OSError as error:
            number = error.errno or 0
            if number == errno.EPERM:
                raise LinkError(
                    f"cannot enter the container's sandbox without {NEEDED}: grant it to the "
                    "plugin (see the manual on DHCP)",
                    number,
                ) from None
            raise LinkError(f"cannot enter the container's sandbox: {os.strerror(number)}", number) from None
        return work()

    outcome: Future[T] = Future()

    def run() -> None:
        try:
            outcome.set_result(enter())
        except BaseException as error:
            outcome.set_exception(error)

    # A thread of an executor that is stuck would keep the process from ending.
    thread = Thread(target=run, name="macvlan-twisted sandbox", daemon=True)
    thread.start()
    thread.join()
    return outcome.result()
