"""Patched messages have the bytes of pyroute2's."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from pyroute2 import IPBatch
from twisted.trial.unittest import SynchronousTestCase

from macvlan_twisted.netlink import message_templates, rtnetlink
from macvlan_twisted.netlink.kernel import MacvlanLink
from macvlan_twisted.netlink.message_templates import MessageTemplates
from macvlan_twisted.netlink.raw_socket import RawSocket

NAMES = st.text("0123456789abcdefghijklmnopqrstuvwxyz.-", min_size=1, max_size=15)
MACS = st.binary(min_size=6, max_size=6).map(lambda raw: raw.hex(":"))
ALIASES = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=60)
INDEXES = st.integers(1, 2**31 - 1)
GROUPS = st.integers(1, 2**31 - 1)
PORTS = st.builds(
    MacvlanLink,
    name=NAMES,
    parent=st.just("lo"),
    mode=st.sampled_from(["bridge", "private", "vepa", "passthru", "source"]),
    group=GROUPS,
    alias=ALIASES,
    mtu=st.none() | st.integers(68, 9000),
    mac=st.none() | MACS,
    broadcast_queue_length=st.none() | st.integers(0, 2**32 - 1),
    broadcast_limit=st.none() | st.integers(-1, 1000),
    nopromisc=st.booleans(),
    source_macs=st.lists(MACS, max_size=3, unique=True).map(tuple),
)


class FakeSocket:
    """Records what is sent, and answers as the kernel does."""

    def __init__(self) -> None:
        self.sent: list[bytes] = []
        self.code = 0
        self.before: list[bytes] = []
        """Replies to an interrupted request."""

    def send(self, data: bytearray) -> None:
        self.sent.append(bytes(data))

    def recv(self, size: int) -> bytes:
        if self.before:
            return self.before.pop(0)
        return self.answer(struct.unpack_from("=I", self.sent[-1], 8)[0], self.code)

    @staticmethod
    def answer(sequence: int, code: int) -> bytes:
        return struct.pack("=IHHIIi", 20, 2, 0, sequence, 0, -code)


def templates_on(fake: FakeSocket) -> MessageTemplates:
    netlink = RawSocket()
    netlink._socket = fake  # type: ignore[assignment]
    return MessageTemplates(netlink)


def without_number(message: bytes) -> bytes:
    """Without sequence number and sender, which differ."""
    return message[:8] + bytes(8) + message[16:]


class SentTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.fake = FakeSocket()
        rtnetlink.NetlinkKernel().prepare()  # it teaches pyroute2 more attributes
        self.batch = IPBatch()
        self.addCleanup(self.batch.close)

    def by_pyroute2(self, command: str, **request: Any) -> bytes:
        self.batch.reset()
        self.batch.link(command, **request)
        return bytes(self.batch.batch)

    def assert_sent(self, expected: bytes) -> None:
        self.assertEqual(without_number(self.fake.sent[-1]), without_number(expected))

    @given(st.lists(st.tuples(PORTS, st.booleans()), min_size=1, max_size=4))
    def test_add_link_has_the_bytes_of_pyroute2(self, ports: list[tuple[MacvlanLink, bool]]) -> None:
        hot = templates_on(self.fake)
        for port, up in ports + ports:  # the second time from what was kept
            request = rtnetlink.port_request(port, 7, up)
            more = {} if port.mac is None else {"address": port.mac}
            expected = self.by_pyroute2("add", ifname=port.name, **request, **more)
            hot.add_link(port.name, port.mac, **request)
            self.assertEqual(len(self.fake.sent[-1]), len(expected))
            self.assertEqual(sorted(attributes(self.fake.sent[-1])), sorted(attributes(expected)))
            self.assertEqual(without_number(self.fake.sent[-1])[:32], without_number(expected)[:32])

    @given(st.lists(st.tuples(INDEXES, ALIASES), min_size=1, max_size=4))
    def test_mark_has_the_bytes_of_pyroute2(self, marks: list[tuple[int, str]]) -> None:
        hot = templates_on(self.fake)
        for index, alias in marks + marks:
            hot.mark(index, alias)
            self.assert_sent(self.by_pyroute2("set", index=index, ifalias=alias, state="down"))

    @given(st.lists(st.tuples(INDEXES, GROUPS), min_size=1, max_size=4))
    def test_retire_has_the_bytes_of_pyroute2(self, links: list[tuple[int, int]]) -> None:
        hot = templates_on(self.fake)
        for index, group in links + links:
            hot.retire(index, group)
            self.assert_sent(self.by_pyroute2("set", index=index, group=group, state="down"))

    @given(st.lists(GROUPS, min_size=1, max_size=4))
    def test_remove_group_has_the_bytes_of_pyroute2(self, groups: list[int]) -> None:
        hot = templates_on(self.fake)
        for group in groups + groups:
            hot.remove_group(group)
            self.assert_sent(self.by_pyroute2("del", group=group))

    def test_number_of_templates_is_bounded(self) -> None:
        hot = templates_on(self.fake)
        for number in range(message_templates.MOST_TEMPLATES + 2):
            hot.add_link("mvt0", None, kind="macvlan", link=number + 1, macvlan_mode="bridge", group=7)
            self.assertLessEqual(len(hot._templates), message_templates.MOST_TEMPLATES)


def attributes(message: bytes) -> Iterator[tuple[int, bytes]]:
    """The attributes of a message, sorted: pyroute2 encodes them in the order of its arguments."""
    start = 32
    while start < len(message):
        length, kind = struct.unpack_from("=HH", message, start)
        yield kind, message[start + 4 : start + length]
        start += (length + 3) & ~3


class AnsweredTests(SynchronousTestCase):
    def test_refusal_is_raised(self) -> None:
        fake = FakeSocket()
        fake.code = 16
        hot = templates_on(fake)
        error = self.assertRaises(OSError, hot.retire, 5, 7)
        self.assertEqual(error.errno, 16)

    def test_reply_to_an_earlier_request_is_skipped(self) -> None:
        fake = FakeSocket()
        hot = templates_on(fake)
        hot.retire(5, 7)
        fake.before = [fake.answer(1, 19), fake.answer(77, 16)]
        hot.retire(5, 7)
