"""No file descriptors are left: an error in a sentence, and nothing else."""

from __future__ import annotations

import errno
import gc
import os
import resource
import sys
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from macvlan_twisted.errors import LinkFailed
from macvlan_twisted.links.kernel import NetlinkKernel


class DescriptorTests(SynchronousTestCase):
    def test_a_netlink_socket_that_cannot_be_opened_leaves_a_trace_on_stderr(self) -> None:
        unraisable: list[Any] = []
        self.patch(sys, "unraisablehook", unraisable.append)
        before = resource.getrlimit(resource.RLIMIT_NOFILE)
        kernel = NetlinkKernel()
        for spare in range(6):
            taken: list[int] = []
            resource.setrlimit(resource.RLIMIT_NOFILE, (_highest() + 1 + spare, before[1]))
            try:
                while True:
                    taken.append(os.open(os.devnull, os.O_RDONLY))
            except OSError:
                for each in taken[:spare]:
                    os.close(each)
                with self.assertRaises(LinkFailed) as caught:
                    kernel.links()
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, before)
                for each in taken[spare:]:
                    os.close(each)
            self.assertEqual(caught.exception.errno, errno.EMFILE)
            self.assertIn("Too many open files", str(caught.exception))
        gc.collect()
        self.assertEqual([each.exc_value for each in unraisable], [])


def _highest() -> int:
    return max(int(each) for each in os.listdir("/proc/self/fd"))
