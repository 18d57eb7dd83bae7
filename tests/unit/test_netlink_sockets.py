"""The netlink sockets of a thread, on the real kernel; reading needs no privilege."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from macvlan_twisted.netlink.sockets import NetlinkSockets

LOOPBACK = 1


class Sockets(NetlinkSockets):
    """Makes the socket accessible."""

    @property
    def netlink(self) -> Any:
        """The socket of the calling thread."""
        return self._netlink


class Unread(SynchronousTestCase):
    """Messages that arrive after their request was done."""

    def test_unread_messages_do_not_accumulate(self) -> None:
        """Else a service that reads links for months would grow."""
        sockets = Sockets()
        self.addCleanup(sockets.close)
        for _ in range(20):
            (link,) = sockets.netlink.link("get", index=LOOPBACK)
            self.assertEqual(link.get("ifname"), "lo")
        unread = sockets.netlink.asyncore.msg_queue.root
        self.assertLessEqual(unread.qsize(), 1)
