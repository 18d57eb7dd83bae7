"""ARP and neighbour discovery: encoding, decoding, and hostile input."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv6Address

from hypothesis import example, given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from macvlan_twisted.addresses import IPAddress
from macvlan_twisted.lan.arp_nd import (
    AddressClaim,
    Probe,
    announcement_frames,
    answer_frame,
    decode,
    icmpv6_checksum,
    probe_frame,
)

V4, V6 = IPv4Address("192.168.1.7"), IPv6Address("fd00::12:3456")
OURS, THEIRS, CLUSTER = "7a:42:c0:a8:01:07", "02:00:00:00:00:02", "03:bf:c0:a8:01:07"

# A Linux host asks its neighbour fd77::10, as tcpdump saw it.
OF_LINUX = bytes.fromhex(
    "3333ff000010 f2a8e964ec35 86dd 6000000000203aff fd770000000000000000000000000002"
    "ff0200000000000000000001ff000010 8700b64900000000 fd770000000000000000000000000010 0101f2a8e964ec35"
)

macs = st.binary(min_size=6, max_size=6).map(lambda mac: bytes((mac[0] & 0xFE | 2, *mac[1:])).hex(":"))
addresses = st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6)).filter(
    lambda address: not (address.is_multicast or address.is_unspecified or address.is_loopback)
)


def unhex(text: str) -> bytes:
    return bytes.fromhex(text.replace(":", ""))


def changed(frame: bytes, at: int, to: bytes) -> bytes:
    return frame[:at] + to + frame[at + len(to) :]


def rechecked(frame: bytes) -> bytes:
    """The ICMPv6 frame with a valid checksum."""
    bare = changed(frame, 56, b"\0\0")
    return changed(frame, 56, struct.pack("!H", icmpv6_checksum(bare[22:38], bare[38:54], bare[54:])))


def solicitation(source: IPv6Address, options: bytes = b"") -> bytes:
    """A neighbour solicitation from :data:`THEIRS` for :data:`V6`."""
    frame = changed(probe_frame(V6, THEIRS), 22, source.packed) + options
    return rechecked(changed(frame, 18, struct.pack("!H", 24 + len(options))))


class WireFormatTests(SynchronousTestCase):
    """The bytes of RFC 826, 5227, 4861 and 4862."""

    def test_arp_probe_has_no_sender_address(self) -> None:
        self.assertEqual(
            probe_frame(V4, OURS),
            unhex(
                "ffffffffffff 7a42c0a80107 0806 0001 0800 06 04 0001"
                "7a42c0a80107 00000000 000000000000 c0a80107"
            ),
        )

    def test_arp_answer_is_unicast_to_the_prober(self) -> None:
        self.assertEqual(
            answer_frame(V4, OURS, THEIRS),
            unhex(
                "020000000002 7a42c0a80107 0806 0001 0800 06 04 0002"
                "7a42c0a80107 c0a80107 020000000002 00000000"
            ),
        )

    def test_arp_announcement_is_a_request_then_a_reply(self) -> None:
        head = "ffffffffffff7a42c0a801070806000108000604"
        self.assertEqual(
            announcement_frames(V4, OURS),
            (
                unhex(head + "0001" + "7a42c0a80107c0a80107" + "000000000000c0a80107"),
                unhex(head + "0002" + "7a42c0a80107c0a80107" + "7a42c0a80107c0a80107"),
            ),
        )

    def test_solicitation_goes_to_the_solicited_node_group(self) -> None:
        frame = probe_frame(V6, OURS)
        self.assertEqual(frame[:14], unhex("3333ff123456" + "7a42c0a80107" + "86dd"))
        self.assertEqual(frame[14:22], unhex("6000000000183aff"))
        self.assertEqual(IPv6Address(frame[22:38]), IPv6Address("::"))
        self.assertEqual(IPv6Address(frame[38:54]), IPv6Address("ff02::1:ff12:3456"))
        self.assertEqual(frame[54:56] + frame[58:], unhex("8700" + "00000000") + V6.packed)

    def test_advertisement_has_the_override_flag(self) -> None:
        (frame,) = announcement_frames(V6, OURS)
        self.assertEqual(frame, answer_frame(V6, OURS, THEIRS))
        self.assertEqual(frame[:14], unhex("333300000001" + "7a42c0a80107" + "86dd"))
        self.assertEqual(frame[14:22], unhex("6000000000203aff"))
        self.assertEqual((IPv6Address(frame[22:38]), IPv6Address(frame[38:54])), (V6, IPv6Address("ff02::1")))
        self.assertEqual(
            frame[54:56] + frame[58:], unhex("8800" + "20000000") + V6.packed + unhex("0201" + OURS)
        )

    def test_checksum_agrees_with_linux(self) -> None:
        self.assertEqual(icmpv6_checksum(OF_LINUX[22:38], OF_LINUX[38:54], OF_LINUX[54:]), 0)
        self.assertEqual(rechecked(OF_LINUX), OF_LINUX)


class HearingTests(SynchronousTestCase):
    @given(addresses, macs, macs)
    def test_encoded_frames_are_decoded_again(self, address: IPAddress, mac: str, other: str) -> None:
        self.assertEqual(decode(probe_frame(address, mac)), Probe(address, mac))
        for frame in (answer_frame(address, mac, other), *announcement_frames(address, mac)):
            self.assertEqual(decode(frame), AddressClaim(address, mac))
            self.assertEqual(decode(frame + bytes(20)), AddressClaim(address, mac), "padded to 60 bytes")

    def test_request_claims_its_sender_address(self) -> None:
        request = changed(announcement_frames(V4, THEIRS)[0], 38, IPv4Address("192.168.1.1").packed)
        self.assertEqual(decode(request), AddressClaim(V4, THEIRS))
        source = IPv6Address("fd00::9")
        self.assertEqual(decode(solicitation(source)), AddressClaim(source, THEIRS))

    def test_frames_of_linux_are_decoded(self) -> None:
        self.assertEqual(decode(OF_LINUX), AddressClaim(IPv6Address("fd77::2"), "f2:a8:e9:64:ec:35"))

    def test_mac_in_the_message_outranks_the_ethernet_source(self) -> None:
        for address in (V4, V6):
            frame = changed(announcement_frames(address, THEIRS)[0], 6, unhex(OURS))
            self.assertEqual(decode(frame), AddressClaim(address, THEIRS, OURS))
        self.assertEqual(decode(changed(probe_frame(V4, THEIRS), 6, unhex(OURS))), Probe(V4, THEIRS, OURS))
        source = IPv6Address("fd00::9")
        self.assertEqual(
            decode(solicitation(source, unhex("0101" + OURS))), AddressClaim(source, OURS, THEIRS)
        )

    def test_claim_with_a_multicast_mac_is_valid(self) -> None:
        frame = changed(answer_frame(V4, CLUSTER, OURS), 6, unhex(THEIRS))
        self.assertEqual(decode(frame), AddressClaim(V4, CLUSTER, THEIRS))

    def test_advertisement_without_an_option_is_of_its_source(self) -> None:
        frame = changed(announcement_frames(V6, THEIRS)[0][:-8], 18, struct.pack("!H", 24))
        self.assertEqual(decode(rechecked(frame)), AddressClaim(V6, THEIRS))


def broken_arp() -> Iterator[tuple[str, bytes]]:
    probe, answer = probe_frame(V4, THEIRS), answer_frame(V4, THEIRS, OURS)
    yield "shorter than a message", probe[:-1]
    yield "another protocol than IPv4", changed(probe, 16, b"\x86\xdd")
    yield "a reverse request", changed(answer, 20, b"\0\3")
    yield "a probe for nothing", changed(probe, 38, bytes(4))
    yield "a probe for a group", changed(probe, 38, IPv4Address("224.0.0.1").packed)
    yield "a probe that cannot be answered", changed(probe, 22, b"\xff" * 6)
    yield "a probe by nobody", changed(probe, 22, bytes(6))
    yield "an answer from nowhere", changed(answer, 28, bytes(4))
    yield "a claim of a group", changed(answer, 28, IPv4Address("224.0.0.1").packed)
    yield "a claim of a loopback address", changed(answer, 28, IPv4Address("127.0.0.1").packed)
    yield "under another EtherType", changed(probe, 12, b"\x08\x00")


def broken_discovery() -> Iterator[tuple[str, bytes]]:
    probe, claim = probe_frame(V6, THEIRS), announcement_frames(V6, THEIRS)[0]
    yield "a wrong checksum", changed(claim, 56, b"\0\0")
    yield "cut off", claim[:-1]
    yield "from behind a router", changed(claim, 21, b"\xfe")
    yield "not ICMPv6", changed(claim, 20, b"\x11")
    yield "not IPv6", changed(claim, 14, b"\x40")
    yield "another code", rechecked(changed(claim, 55, b"\x01"))
    yield "another type", rechecked(changed(claim, 54, b"\x86"))
    yield "a claim of a group", rechecked(changed(claim, 62, IPv6Address("ff02::1").packed))
    yield "to all, but solicited", rechecked(changed(claim, 58, b"\x60"))
    yield "an option without a length", rechecked(changed(claim, 79, b"\0"))
    yield "an option longer than the message", rechecked(changed(claim, 79, b"\2"))
    yield "a probe to all", rechecked(changed(probe, 38, IPv6Address("ff02::1").packed))
    yield "a probe for a group", rechecked(changed(probe, 62, IPv6Address("ff02::1").packed))
    yield "a probe that names its sender", solicitation(IPv6Address("::"), unhex("0101" + THEIRS))
    yield "a message without a target", changed(claim, 18, struct.pack("!H", 8))


class BrokenFrameTests(SynchronousTestCase):
    def test_broken_frames_decode_to_none(self) -> None:
        for what, frame in (*broken_arp(), *broken_discovery()):
            self.assertIsNone(decode(frame), what)

    @given(st.binary(max_size=100))
    @example(b"")
    def test_noise_is_harmless(self, noise: bytes) -> None:
        for start in (b"", bytes(12) + b"\x08\x06", bytes(12) + b"\x86\xdd"):
            decode(start + noise)

    @given(addresses, st.integers(0, 100), st.binary(max_size=40), st.integers(0, 120))
    def test_damaged_frames_are_harmless(
        self, address: IPAddress, at: int, bytes_: bytes, length: int
    ) -> None:
        for frame in (probe_frame(address, THEIRS), *announcement_frames(address, THEIRS)):
            damaged = changed(frame, at, bytes_)[:length]
            decode(damaged)
            if len(damaged) >= 78:
                decode(rechecked(damaged))
