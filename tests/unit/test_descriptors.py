"""Without free file descriptors there is an error of one sentence, and nothing else."""

from __future__ import annotations

import contextlib
import errno
import gc
import os
import resource
import sys
from collections.abc import Callable, Iterator
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from macvlan_twisted.errors import LinkError
from macvlan_twisted.netlink.rtnetlink import NetlinkKernel


@contextlib.contextmanager
def descriptors_left(spare: int) -> Iterator[None]:
    """All descriptors of the process but *spare* are in use."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    highest = max(int(each) for each in os.listdir("/proc/self/fd"))
    resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 1 + spare, before[1]))
    opened: list[int] = []
    try:
        with contextlib.suppress(OSError):  # trial takes a name "suppress" of the module for its own
            while True:
                opened.append(os.open(os.devnull, os.O_RDONLY))
        for _ in range(spare):
            os.close(opened.pop())
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
        for each in opened:
            os.close(each)


class DescriptorTests(SynchronousTestCase):
    def test_a_failed_netlink_socket_leaves_nothing_on_stderr(self) -> None:
        unraisable: list[Any] = []
        self.patch(sys, "unraisablehook", unraisable.append)
        kernel = NetlinkKernel()
        for spare in range(6):
            with descriptors_left(spare), self.assertRaises(LinkError) as caught:
                kernel.set_up("lo")
            self.assertEqual(caught.exception.errno, errno.EMFILE)
            self.assertIn("Too many open files", str(caught.exception))
        gc.collect()
        self.assertEqual([each.exc_value for each in unraisable], [])

    def test_a_failed_lookup_is_an_error_and_not_an_absent_link(self) -> None:
        """The C library's if_nametoindex() reports no link if it cannot open its socket."""
        kernel = NetlinkKernel()
        self.assertTrue(kernel.exists("lo"))
        for name in ("mvt000000000000", "lo" + "x" * 14, "x" * 200, "é" * 8, "lo "):
            self.assertFalse(kernel.exists(name), name)
        lookups: tuple[Callable[[], object], ...] = (
            lambda: kernel.exists("lo"),
            lambda: kernel.find("lo"),
            lambda: kernel.host_routes("lo", 142),
            lambda: kernel.set_group("mvt000000000000", 70000),
            lambda: kernel.delete("mvt000000000000"),
        )
        errors: list[LinkError] = []
        with descriptors_left(0):
            for lookup in lookups:
                try:
                    lookup()
                except LinkError as failure:
                    errors.append(failure)
        self.assertEqual([each.errno for each in errors], [errno.EMFILE] * len(lookups))
