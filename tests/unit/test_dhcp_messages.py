"""DHCP messages: encoding, decoding, and hostile input."""

from __future__ import annotations

import struct
from ipaddress import IPv4Address

from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from macvlan_twisted.dhcp.binding import Client
from macvlan_twisted.dhcp.messages import (
    INFINITE,
    ClientMessage,
    MessageType,
    Server,
    ServerMessage,
    decode,
    encode,
)

from .dhcp_lan import ACK, MAC, NAK, OFFER, ClientFrame, answer_frame, option

XID = 0x01020304
XID_BYTES = b"\x01\x02\x03\x04"
DISCOVER = ClientMessage(MessageType.DISCOVER, MAC, XID, b"\x01zB", hostname="web", vendor_class="docker")
SERVER = Server(IPv4Address("192.168.77.1"), "52:54:00:00:00:01")
RENEWAL = ClientMessage(
    MessageType.REQUEST, MAC, XID, b"\x00x", client_address=IPv4Address("192.168.77.100"), to=SERVER
)

MASK = option(1, b"\xff\xff\xff\0")
LEASE_TIME = option(51, struct.pack(">I", 3600))


def ones_complement_sum(data: bytes) -> int:
    """RFC 1071. It is 0xffff over data with a valid checksum."""
    total: int = sum(struct.unpack(f">{len(data) // 2 + len(data) % 2}H", data + b"\0" * (len(data) % 2)))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total


def heard(frame: bytes, xid: int = XID, mac: str = MAC) -> ServerMessage | None:
    return decode(frame, xid=xid, mac=mac)


def ack(options: bytes = LEASE_TIME, your_address: str = "192.168.77.100", **words: str) -> bytes:
    return answer_frame(XID_BYTES, ACK, your_address=your_address, options=options, **words)


class SayingTests(SynchronousTestCase):
    def test_request_has_client_id_hostname_class_and_parameters(self) -> None:
        options = ClientFrame(encode(DISCOVER)).options
        self.assertEqual((options[61], options[12], options[60]), (b"\x01zB", b"web", b"docker"))
        self.assertLessEqual({1, 3, 51, 54, 58, 59}, set(options[55]))

    def test_client_id_may_be_any_bytes(self) -> None:
        for client_id in (b"\x01", b"\x01\x02\x03", b"\x00name", b"\xff" + bytes(range(200))):
            self.assertEqual(
                ClientFrame(encode(evolve(DISCOVER, client_id=client_id))).options[61], client_id
            )

    def test_release_has_client_server_and_address_only(self) -> None:
        ask = evolve(RENEWAL, kind=MessageType.RELEASE, hostname="web", server_id=SERVER.id)
        self.assertEqual(set(ClientFrame(encode(ask)).options), {53, 54, 61})

    @given(st.binary(min_size=1, max_size=255), st.text(max_size=80), st.integers(0, 2**32 - 1))
    def test_checksums_and_lengths_are_valid(self, client_id: bytes, hostname: str, xid: int) -> None:
        frame = encode(evolve(DISCOVER, client_id=client_id, hostname=hostname, xid=xid))
        ip, udp = frame[14:34], frame[34:]
        self.assertEqual(ones_complement_sum(ip), 0xFFFF)
        pseudo = ip[12:20] + struct.pack(">HH", 17, len(udp))
        self.assertEqual(ones_complement_sum(pseudo + udp), 0xFFFF)
        self.assertNotEqual(udp[6:8], b"\0\0")
        self.assertEqual(struct.unpack(">H", ip[2:4]), (len(frame) - 14,))
        self.assertEqual(struct.unpack(">H", udp[4:6]), (len(udp),))
        self.assertGreaterEqual(len(udp) - 8, 300)

    def test_zero_checksum_is_sent_as_ffff(self) -> None:
        checksum = int.from_bytes(encode(evolve(DISCOVER, xid=0x01020000))[40:42], "big")
        self.assertEqual(encode(evolve(DISCOVER, xid=0x01020000 | checksum))[40:42], b"\xff\xff")

    def test_too_long_client_id_is_refused(self) -> None:
        with self.assertRaisesRegex(ValueError, "256 bytes"):
            Client(MAC, b"x" * 256)
        with self.assertRaisesRegex(ValueError, "vendor class"):
            Client(MAC, vendor_class="ä" * 128)


class HearingTests(SynchronousTestCase):
    def test_ack_is_decoded_completely(self) -> None:
        times = option(58, struct.pack(">I", 600)) + option(59, struct.pack(">I", 900))
        routers = option(3, bytes((192, 168, 77, 1, 192, 168, 77, 2)))
        self.assertEqual(
            heard(ack(LEASE_TIME + MASK + routers + times)),
            ServerMessage(
                kind=MessageType.ACK,
                xid=XID,
                client_mac=MAC,
                server_mac=SERVER.mac,
                server_id=SERVER.id,
                your_address=IPv4Address("192.168.77.100"),
                lease_seconds=3600,
                t1=600,
                t2=900,
                prefix_length=24,
                router=IPv4Address("192.168.77.1"),
            ),
        )

    def test_answer_for_another_transaction_or_client_is_ignored(self) -> None:
        self.assertIsNone(heard(ack(), xid=XID + 1))
        self.assertIsNone(heard(ack(), mac="7a:42:00:00:00:01"))

    def test_infinite_lease_time_is_unsigned(self) -> None:
        answer = heard(ack(option(51, b"\xff" * 4)))
        assert answer is not None
        self.assertEqual(answer.lease_seconds, INFINITE)

    def test_padding_of_a_short_frame_is_ignored(self) -> None:
        self.assertIsNotNone(heard(ack() + bytes(40)))

    def test_overloaded_file_and_sname_are_read(self) -> None:
        frame = bytearray(ack(option(52, b"\x03")))
        frame[42 + 108 : 42 + 108 + 7] = LEASE_TIME + b"\xff"
        frame[42 + 44 : 42 + 44 + 7] = MASK + b"\xff"
        answer = heard(bytes(frame))
        assert answer is not None
        self.assertEqual((answer.lease_seconds, answer.prefix_length), (3600, 24))

    def test_echoed_client_id_does_not_hide_later_options(self) -> None:
        for client_id in (b"", b"\x01", b"\x01\x02", b"\xff\xfe"):
            answer = heard(ack(option(61, client_id) + LEASE_TIME + MASK))
            assert answer is not None, client_id
            self.assertEqual((answer.lease_seconds, answer.prefix_length), (3600, 24))

    def test_reason_of_a_nak_is_printable(self) -> None:
        reason = option(56, b"no\n\x1b[2Jlease\xff\0")
        answer = heard(answer_frame(XID_BYTES, NAK, options=reason))
        assert answer is not None
        self.assertEqual(answer.message, "no??[2Jlease\N{REPLACEMENT CHARACTER}")

    def test_unsound_answers_are_ignored(self) -> None:
        for why, frame in {
            "no lease time": ack(b""),
            "no time at all": ack(option(51, bytes(4))),
            "a lease time of two bytes": ack(option(51, b"\0\1")),
            "no address": ack(your_address="0.0.0.0"),
            "a multicast address": ack(your_address="224.0.0.9"),
            "everyone's address": ack(your_address="255.255.255.255"),
            "the subnet's own address": ack(LEASE_TIME + MASK, "192.168.77.0"),
            "the subnet's broadcast address": ack(LEASE_TIME + MASK, "192.168.77.255"),
            "a mask with a hole": ack(LEASE_TIME + option(1, b"\xff\0\xff\0")),
            "a mask that is the world": ack(LEASE_TIME + option(1, bytes(4))),
            "a server of many": ack(server_id="224.0.0.1"),
            "the MAC of many": ack(server_mac="01:00:5e:00:00:01"),
            "a router that is none": ack(LEASE_TIME + option(3, bytes(4))),
            "options that end too early": ack(LEASE_TIME + b"\x0c\xff"),
            "a message of a client": answer_frame(XID_BYTES, 1),
            "a message type that does not exist": answer_frame(XID_BYTES, 99),
        }.items():
            self.assertIsNone(heard(frame), why)

    def test_fragment_is_ignored(self) -> None:
        frame = bytearray(ack())
        frame[20] |= 0x20
        self.assertIsNone(heard(bytes(frame)))

    @given(st.binary(max_size=600))
    def test_any_frame_is_harmless(self, frame: bytes) -> None:
        self.assertIsNone(heard(frame))

    @given(st.integers(0, 2**32), st.binary(min_size=1, max_size=8))
    def test_any_damaged_frame_is_harmless(self, at: int, damage: bytes) -> None:
        frame = bytearray(ack(LEASE_TIME + MASK + option(56, b"reason") + option(61, b"\x01x")))
        at %= len(frame)
        frame[at : at + len(damage)] = damage
        answer = heard(bytes(frame))
        self.assertTrue(answer is None or answer.xid == XID)

    @given(st.binary(max_size=400), st.sampled_from([OFFER, ACK, NAK]))
    def test_any_options_are_harmless(self, options: bytes, kind: int) -> None:
        answer = heard(answer_frame(XID_BYTES, kind, your_address="10.0.0.9", options=options))
        self.assertTrue(answer is None or answer.server_id.packed[0] not in (0, 127))

    @given(st.integers(0, 400))
    def test_truncated_frame_is_harmless(self, length: int) -> None:
        frame = ack(LEASE_TIME + MASK)
        answer = heard(frame[:length])
        self.assertEqual(answer is not None, length >= len(frame))
