"""Without free file descriptors there is an error of one sentence, and nothing else."""

from __future__ import annotations

import errno
import gc
import os
import resource
import sys
from collections.abc import Callable
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from macvlan_twisted.errors import LinkError
from macvlan_twisted.netlink.rtnetlink import NetlinkKernel


class DescriptorTests(SynchronousTestCase):
    def test_a_failed_netlink_socket_leaves_nothing_on_stderr(self) -> None:
        unraisable: list[Any] = []
        self.patch(sys, "unraisablehook", unraisable.append)
        before = resource.getrlimit(resource.RLIMIT_NOFILE)
        kernel = NetlinkKernel()
        for spare in range(6):
            opened: list[int] = []
            resource.setrlimit(resource.RLIMIT_NOFILE, (_highest() + 1 + spare, before[1]))
            try:
                while True:
                    opened.append(os.open(os.devnull, os.O_RDONLY))
            except OSError:
                for each in opened[:spare]:
                    os.close(each)
                with self.assertRaises(LinkError) as caught:
                    kernel.links()
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, before)
                for each in opened[spare:]:
                    os.close(each)
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
        before = resource.getrlimit(resource.RLIMIT_NOFILE)
        lookups: tuple[Callable[[], object], ...] = (
            lambda: kernel.exists("lo"),
            lambda: kernel.find("lo"),
            lambda: kernel.host_routes("lo", 142),
            lambda: kernel.set_group("mvt000000000000", 70000),
            lambda: kernel.delete("mvt000000000000"),
        )
        opened: list[int] = []
        errors: list[LinkError] = []
        resource.setrlimit(resource.RLIMIT_NOFILE, (_highest() + 1, before[1]))
        try:
            while True:
                opened.append(os.open(os.devnull, os.O_RDONLY))
        except OSError:
            for lookup in lookups:
                try:
                    lookup()
                except LinkError as failure:
                    errors.append(failure)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, before)
            for each in opened:
                os.close(each)
        self.assertEqual([each.errno for each in errors], [errno.EMFILE] * len(lookups))


def _highest() -> int:
    return max(int(each) for each in os.listdir("/proc/self/fd"))
