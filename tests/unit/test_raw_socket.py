"""What the kernel answers is read as it means it, also where nothing but a fake can say it."""

from __future__ import annotations

import errno
import struct

from twisted.trial.unittest import SynchronousTestCase

from macvlan_twisted.netlink.codec import IFLA_GROUP, NLM_F_DUMP_INTR, RTM_GETLINK, link_request
from macvlan_twisted.netlink.raw_socket import RawSocket
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


def link(index: int, name: str, group: int | None, alias: str = "") -> bytes:
    body = struct.pack("=BxHiII", 0, 0, index, 0, 0)
    values = [(3, name.encode() + b"\0"), (4, struct.pack("=I", 1500))]
    values += [] if group is None else [(IFLA_GROUP, struct.pack("=I", group))]
    values += [(20, alias.encode() + b"\0")] if alias else []
    for kind, value in values:
        body += struct.pack("=HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)
    return message(16, body)


DONE = message(3, struct.pack("=i", 0))


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


class DumpTests(SynchronousTestCase):
    def test_refusal_is_raised(self) -> None:
        for packet in (
            message(2, struct.pack("=i", -errno.EPERM)),
            message(3, struct.pack("=i", -errno.EPERM)),
        ):
            netlink = opened(link(1, "lo", 0), packet)
            error = self.assertRaises(OSError, netlink.dump, RTM_GETLINK, link_request())
            self.assertEqual(error.errno, errno.EPERM)

    def test_incomplete_list_is_refused_on_request(self) -> None:
        done = message(3, struct.pack("=i", 0), NLM_F_MULTI | NLM_F_DUMP_INTR)
        self.assertEqual(len(opened(link(1, "lo", 0), done).dump(RTM_GETLINK, link_request())), 1)
        netlink = opened(link(1, "lo", 0), done)
        with self.assertRaises(InterruptedError):
            netlink.dump(RTM_GETLINK, link_request(), refuse_interrupted=True)

    def test_replies_to_an_earlier_request_are_skipped(self) -> None:
        stale = message(16, bytes(16), number=77)
        replies = opened(stale, link(1, "lo", 0) + DONE).dump(RTM_GETLINK, link_request())
        self.assertEqual(replies, [link(1, "lo", 0)[16:]])
