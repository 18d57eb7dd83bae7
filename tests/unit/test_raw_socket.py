"""What the kernel answers is read as it means it, also where nothing but a fake can say it."""

from __future__ import annotations

import errno
import struct

from twisted.trial.unittest import SynchronousTestCase

from macvlan_twisted.errors import LinkError
from macvlan_twisted.netlink.codec import IFLA_GROUP, NLM_F_DUMP_INTR, RTM_GETLINK, link_request
from macvlan_twisted.netlink.raw_socket import ATTEMPTS, RawSocket
from macvlan_twisted.netlink.rtnetlink import NetlinkKernel

NLM_F_MULTI = 2


class ScriptedSocket:
    """Answers with packets."""

    def __init__(self, *packets: bytes) -> None:
        self.packets = list(packets)

    def send(self, data: bytearray) -> None:
        pass

    def recv(self, size: int) -> bytes:
        return self.packets.pop(0)

    def close(self) -> None:
        pass


def message(kind: int, body: bytes, flags: int = NLM_F_MULTI, number: int = 1) -> bytes:
    return struct.pack("=IHHII", 16 + len(body), kind, flags, number, 0) + body


def link(index: int, name: str, group: int | None, alias: str = "", number: int = 1) -> bytes:
    body = struct.pack("=BxHiII", 0, 0, index, 0, 0)
    values = [(3, name.encode() + b"\0"), (4, struct.pack("=I", 1500))]
    values += [] if group is None else [(IFLA_GROUP, struct.pack("=I", group))]
    values += [(20, alias.encode() + b"\0")] if alias else []
    for kind, value in values:
        body += struct.pack("=HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)
    return message(16, body, number=number)


def done(flags: int = 0, number: int = 1) -> bytes:
    return message(3, struct.pack("=i", 0), NLM_F_MULTI | flags, number)


DONE = done()
INTERRUPTED = [
    link(number, f"eth{number}", 7, number=number) + done(NLM_F_DUMP_INTR, number)
    for number in range(1, ATTEMPTS + 1)
]
"""Lists of one link each, as many as are requested."""


def opened(*packets: bytes) -> RawSocket:
    netlink = RawSocket()
    netlink._socket = ScriptedSocket(*packets)  # type: ignore[assignment]
    return netlink


class MembersTests(SynchronousTestCase):
    def members(self, group: int, *packets: bytes) -> list[tuple[str, int, str]]:
        kernel = NetlinkKernel()
        kernel._of_thread.raw = opened(*packets)
        return [(link.name, link.group, link.alias) for link in kernel.members_of_group(group)]

    def test_links_of_other_groups_are_no_members(self) -> None:
        packets = [link(1, "lo", 0) + link(5, "mvt1", 7, "ours"), link(6, "x", None) + link(7, "y", 7) + DONE]
        self.assertEqual(self.members(7, *packets), [("mvt1", 7, "ours"), ("y", 7, "")])

    def test_number_of_the_group_elsewhere_in_a_message_is_no_membership(self) -> None:
        self.assertEqual(
            self.members(1500, link(1, "lo", 0), link(2, "eth0", 1500), DONE), [("eth0", 1500, "")]
        )


class InterruptedListTests(SynchronousTestCase):
    """Links come and go all the time. A kernel before 6.9 may leave out others then."""

    def kernel(self, release: str) -> NetlinkKernel:
        kernel = NetlinkKernel(release)
        kernel._of_thread.raw = opened(*INTERRUPTED)
        return kernel

    def test_old_kernels_list_proves_nothing(self) -> None:
        for release in ("4.19.0-27-amd64", "5.14.0-611.el9.x86_64", "6.8.0-90-generic"):
            for ask in (
                lambda kernel: kernel.members_of_group(7),
                lambda kernel: kernel.links(complete=True),
            ):
                error = self.assertRaises(LinkError, ask, self.kernel(release))
                self.assertEqual(error.errno, errno.EINTR)

    def test_old_kernels_list_is_good_enough_for_a_start(self) -> None:
        self.assertEqual([link.name for link in self.kernel("6.1.0").links()], [f"eth{ATTEMPTS}"])

    def test_new_kernels_first_list_is_complete(self) -> None:
        for release in ("6.9.0", "6.12.48+deb13-amd64", "7.0-rc1"):
            for listed in (
                self.kernel(release).members_of_group(7),
                self.kernel(release).links(),
                self.kernel(release).links(complete=True),
            ):
                self.assertEqual([link.name for link in listed], ["eth1"])


class DumpTests(SynchronousTestCase):
    def test_refusal_is_raised(self) -> None:
        for packet in (
            message(2, struct.pack("=i", -errno.EPERM)),
            message(3, struct.pack("=i", -errno.EPERM)),
        ):
            netlink = opened(link(1, "lo", 0), packet)
            error = self.assertRaises(OSError, netlink.dump, RTM_GETLINK, link_request())
            self.assertEqual(error.errno, errno.EPERM)

    def test_interrupted_list_is_requested_again(self) -> None:
        whole = link(9, "eth9", 0, number=2) + done(number=2)
        replies = opened(INTERRUPTED[0], whole).dump(RTM_GETLINK, link_request(), refuse_interrupted=True)
        self.assertEqual(replies, [link(9, "eth9", 0)[16:]])

    def test_list_that_is_always_interrupted_is_refused_on_request(self) -> None:
        with self.assertRaises(InterruptedError):
            opened(*INTERRUPTED).dump(RTM_GETLINK, link_request(), refuse_interrupted=True)

    def test_last_list_is_returned_otherwise(self) -> None:
        replies = opened(*INTERRUPTED).dump(RTM_GETLINK, link_request())
        self.assertEqual(replies, [link(ATTEMPTS, f"eth{ATTEMPTS}", 7)[16:]])

    def test_replies_to_an_earlier_request_are_skipped(self) -> None:
        stale = message(16, bytes(16), number=77)
        replies = opened(stale, link(1, "lo", 0) + DONE).dump(RTM_GETLINK, link_request())
        self.assertEqual(replies, [link(1, "lo", 0)[16:]])
