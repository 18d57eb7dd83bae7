"""The netlink sockets of our threads, against the kernel: looking needs no rights."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from macvlan_twisted.netlink.sockets import NetlinkSockets

LOOPBACK = 1


class Sockets(NetlinkSockets):
    """Whose socket can be had."""

    @property
    def netlink(self) -> Any:
        """That of this thread, as each use of it gets it."""
        return self._netlink


class Unread(SynchronousTestCase):
    """What comes of a request, and nobody waits for."""

    def test_unread_messages_do_not_accumulate(self) -> None:
        """A service that looks at links for months keeps nothing of it."""
        sockets = Sockets()
        self.addCleanup(sockets.close)
        for _ in range(20):
            (link,) = sockets.netlink.link("get", index=LOOPBACK)
            self.assertEqual(link.get("ifname"), "lo")
        unread = sockets.netlink.asyncore.msg_queue.root
        self.assertLessEqual(unread.qsize(), 1)
