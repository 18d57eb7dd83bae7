"""The filter of packet sockets, run by the kernel: a UNIX socket runs the same programs on its datagrams."""

from __future__ import annotations

import socket
from collections.abc import Collection, Iterable
from ipaddress import IPv4Address, IPv6Address
from random import Random

from twisted.trial.unittest import SynchronousTestCase

from macvlan_twisted.addresses import IPAddress
from macvlan_twisted.lan.arp_nd import decode
from macvlan_twisted.lan.packet_filter import (
    MOST_MUTED,
    MOST_PREFIXES,
    AddressFilter,
    address_key,
    attach,
    filter_about,
    frame_key,
)
from tests.lab.frames import (
    NOBODY,
    REQUEST,
    advertisement,
    arp,
    arp_announcement,
    arp_probe,
    arp_reply,
    solicitation,
)

OTHER = "02:00:00:00:00:02"
V4, V6 = "192.168.1.7", "fd00::12:3456"
DHCP = (
    b"\xff" * 6 + b"\2\0\0\0\0\7" + b"\x08\0" + b"\x45" + bytes(8) + b"\x11" + bytes(10) + b"\0\x43\0\x44" * 2
)


def frames_about(address: str) -> list[bytes]:
    """Frames that claim an address or probe for it, one for each shape of them."""
    if ":" in address:
        return [
            advertisement(OTHER, address),
            solicitation(OTHER, address),
            solicitation(OTHER, "fd00::1", address),
        ]
    return [
        arp_probe(OTHER, address),
        arp_announcement(OTHER, address),
        arp_reply(OTHER, address, ("02:00:00:00:00:03", "192.168.1.1")),
        arp(REQUEST, (OTHER, address), (NOBODY, "192.168.1.1")),
    ]


def frames_that_mention(address: str) -> list[bytes]:
    """Frames of other hosts that ask for an address: they neither claim it nor probe for it."""
    if ":" in address:
        return [solicitation(OTHER, address, "fd00::1")]
    return [arp(REQUEST, (OTHER, "192.168.1.1"), (NOBODY, address))]


def addresses(*texts: str) -> list[IPAddress]:
    return [IPv6Address(text) if ":" in text else IPv4Address(text) for text in texts]


class PacketFilterTests(SynchronousTestCase):
    def passed(
        self, frames: Iterable[bytes], about: Iterable[IPAddress] | None, muted: Collection[int] = ()
    ) -> list[bytes]:
        """Return the frames that the kernel passes."""
        sender, receiver = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        with sender, receiver:
            receiver.setblocking(False)
            self.only: AddressFilter | None = None if about is None else filter_about(about, muted)
            attach(receiver, self.only)
            found = []
            for frame in frames:
                sender.send(frame)
                try:
                    found.append(receiver.recv(2048))
                except BlockingIOError:
                    continue
            return found

    def test_ordinary_filter_passes_every_shape(self) -> None:
        frames = [frame for each in (V4, V6) for frame in frames_about(each) + frames_that_mention(each)]
        frames.append(DHCP)
        self.assertEqual(self.passed(frames, None), frames)
        ping = frames_about(V6)[0]
        self.assertEqual(self.passed([ping[:54] + b"\x80" + ping[55:], ping[:50]], None), [])

    def test_narrow_filter_passes_claims_and_probes_of_its_addresses(self) -> None:
        wanted = [frame for each in (V4, V6) for frame in frames_about(each)]
        others = [frame for each in ("192.168.1.8", "fd00::12:3457") for frame in frames_about(each)]
        asking = [frame for each in (V4, V6) for frame in frames_that_mention(each)]
        mixed = [frame for each in zip(wanted, others, strict=True) for frame in each] + asking
        self.assertEqual(self.passed([*mixed, DHCP], addresses(V4, V6)), [*wanted, DHCP])
        self.assertEqual(self.passed([*mixed, DHCP], ()), [DHCP])

    def test_truncated_frames_are_dropped(self) -> None:
        for frame in (*frames_about(V4), *frames_about(V6)):
            broken = [frame[:length] for length in (10, 13, 20, 30) if length < len(frame)]
            self.assertEqual(self.passed(broken, addresses(V4, V6)), [])
            for each in broken:
                frame_key(each)

    def test_source_with_zeros_is_no_probe(self) -> None:
        """The last words of an IPv6 address may be 0; only a source that is 0 as a whole makes a probe."""
        for own in ("fd00::", "0:0:0:1::", "::2:0:0", "0:0:1::"):
            claim, probe = solicitation(OTHER, V6, own), solicitation(OTHER, own)
            self.assertEqual(self.passed([claim, probe], addresses(own)), [claim, probe])
            self.assertEqual(self.passed([claim], addresses(V6)), [])

    def test_muted_addresses_are_dropped(self) -> None:
        keys = [address_key(each) for each in addresses(V4, V6)]
        both = addresses(V4, V6, "192.168.1.8", "fd00::8")
        wanted = [*frames_about("192.168.1.8"), *frames_about("fd00::8")]
        frames = [*frames_about(V4), *frames_about(V6), *wanted]
        self.assertEqual(self.passed(frames, both, keys), wanted)

    def test_many_addresses_share_prefixes(self) -> None:
        """None is dropped, and hosts far from them still are."""
        many: list[IPAddress] = [
            *(IPv4Address("10.1.0.0") + number for number in range(1, 3001)),
            *(IPv6Address("fd00::7:0") + number for number in range(3000)),
        ]
        own = [frames_about(str(each))[0] for each in many[::7]]
        far = [*frames_about("10.9.0.1"), *frames_about("fd00::9:1")]
        muted = [address_key(each) for each in many[3:3000:40]][:MOST_MUTED]
        self.assertEqual(self.passed([*own, *far], many), own)
        assert self.only is not None
        self.assertTrue(all(len(each.prefixes) <= MOST_PREFIXES for each in self.only.families()))
        silent = [frame for frame in own if frame_key(frame) in muted]
        self.assertEqual(self.passed(own, many, muted), [frame for frame in own if frame not in silent])
        self.assertTrue(silent)

    def test_scattered_addresses_are_passed(self) -> None:
        random = Random(7)
        many = [IPv6Address(random.getrandbits(128)) for _ in range(2000)]
        own = [frames_about(str(each))[0] for each in many]
        self.assertEqual(self.passed(own, many), own)

    def test_key_is_that_of_the_decoded_address(self) -> None:
        random = Random(7)
        for _ in range(200):
            for address in (IPv4Address(random.getrandbits(32)), IPv6Address(random.getrandbits(128))):
                for frame in frames_about(str(address)):
                    message = decode(frame)
                    if message is not None:
                        self.assertEqual(message.address, address)
                        self.assertEqual(frame_key(frame), address_key(address))
        self.assertIsNone(frame_key(DHCP))
        self.assertIsNone(frame_key(b""))
        self.assertNotEqual(address_key(IPv4Address(7)), address_key(IPv6Address(7)))

    def test_python_and_the_kernel_agree(self) -> None:
        random = Random(7)
        own = [IPv4Address(f"10.1.{number}.0") + random.randrange(256) for number in range(200)]
        six = [IPv6Address("fd00::") + random.getrandbits(12) for _ in range(300)]
        for _ in range(100):
            address = random.choice(
                (
                    IPv4Address("10.1.0.0") + random.randrange(1 << 16),
                    IPv6Address("fd00::") + random.getrandbits(13),
                )
            )
            (frame, *_) = frames_about(str(address))
            muted = [address_key(random.choice(own)), address_key(random.choice(six))]
            passed = self.passed([frame], [*own, *six], muted)
            assert self.only is not None
            self.assertEqual(bool(passed), self.only.passes(address_key(address)), address)
