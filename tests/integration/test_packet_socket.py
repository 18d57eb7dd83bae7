"""What the real packet socket hears and sends on a LAN, and what probes find there."""

import struct
import time
from collections.abc import Callable
from ipaddress import IPv4Address, IPv6Address
from random import Random
from typing import Any, cast

import pytest
from twisted.internet.defer import Deferred, ensureDeferred

from macvlan_twisted.addresses import IPAddress
from macvlan_twisted.errors import LinkError
from macvlan_twisted.lan.address_probe import QUICK, Evidence, Free, Inconclusive, InUse, Verdict
from macvlan_twisted.lan.arp_nd import AddressClaim, Probe, announcement_frames, answer_frame, probe_frame
from macvlan_twisted.lan.interfaces import LanSocket, ReceivedFrame
from macvlan_twisted.lan.packet_socket import PacketSocket
from tests.integration.on_reactor import on_reactor
from tests.integration.packet_sockets import (
    FREE,
    LAST,
    LAST_FRAME,
    NEIGHBOURS,
    SIBLINGS,
    STRANGER,
    add_siblings,
    frames_until,
    mac_of,
    packet_socket_in,
    sender_in,
    within,
)
from tests.lab.address_probes import probe
from tests.lab.lan import Lan


def ask(wire: LanSocket, address: IPAddress) -> Deferred[Verdict]:
    from twisted.internet import reactor

    return ensureDeferred(probe(wire, address, QUICK, reactor, Random()))


async def ask_until_answered(wire: LanSocket, address: IPAddress) -> Verdict:
    """Ask again while nobody answers: the LAN's bridge forwards for a NIC some moments after it is up."""
    for _ in range(20):
        verdict = await ask(wire, address)
        if verdict != Free():
            break
    return verdict


@pytest.fixture
def bridge_lan(lan: Lan) -> Lan:
    """Give a LAN with siblings on the host's NIC."""
    add_siblings(lan)
    return lan


@on_reactor
async def test_neighbours_frames_arrive(lan: Lan) -> None:
    neighbour = mac_of(lan, "neighbour")
    with packet_socket_in(lan) as sock:
        for address, gateway in zip(NEIGHBOURS, ("192.168.77.1", "fd77::1"), strict=True):
            claim = AddressClaim(address, neighbour)
            seen = await frames_until(sock, claim, lan.ping, "neighbour", gateway)
            assert (claim, False) in seen


@on_reactor
async def test_hosts_frames_are_seen_as_outgoing(lan: Lan) -> None:
    claim = AddressClaim(IPv4Address("192.168.77.10"), mac_of(lan, "host"))
    with packet_socket_in(lan) as sock:
        seen = await frames_until(sock, claim, lan.ping, "host", "192.168.77.1")
    assert (claim, True) in seen


def udp(port: int, options: bytes = b"", fragment: int = 0, protocol: int = 17) -> bytes:
    """An IPv4 packet to everyone, right in all, for a switch may look at it."""
    datagram = struct.pack("!HHHH", 67, port, 12, 0) + b"mine"
    length, first = 20 + len(options) + len(datagram), 0x45 + len(options) // 4
    head = struct.pack("!BBHHHBBH", first, 0, length, 1, fragment, 9, protocol, 0)
    head += IPv4Address("192.168.77.2").packed + b"\xff" * 4 + options
    total = sum(struct.unpack(f"!{len(head) // 2}H", head))
    checksum = 0xFFFF - (total % 0xFFFF)
    head = head[:10] + struct.pack("!H", checksum) + head[12:]
    return b"\xff" * 6 + bytes.fromhex("020000000007") + b"\x08\0" + head + datagram


def tagged(frame: bytes, tag: int, kind: int = 0x8100) -> bytes:
    return frame[:12] + struct.pack("!HH", kind, tag) + frame[12:]


@on_reactor
async def test_filter_passes_arp_nd_and_dhcp_of_the_untagged_lan(lan: Lan) -> None:
    arp = announcement_frames(IPv4Address("192.168.77.70"), STRANGER)[0]
    solicitation = probe_frame(IPv6Address("fd77::70"), STRANGER)
    advertisement = announcement_frames(IPv6Address("fd77::70"), STRANGER)[0]
    to_client, with_options = udp(68), udp(68, options=b"\x94\x04\0\0")
    wanted = [arp, solicitation, advertisement, to_client, with_options]
    echo = solicitation[:54] + b"\x80" + solicitation[55:]
    unwanted = [
        tagged(arp, 5),
        tagged(arp, 0x6005),
        tagged(arp, 5, kind=0x88A8),
        tagged(tagged(arp, 5), 0),
        tagged(to_client, 5),
        tagged(solicitation, 5),
        udp(67),
        udp(67, options=b"\x94\x04\0\0"),
        udp(68, fragment=7),
        udp(68, protocol=6),
        echo,
        arp[:12] + b"\x08\x35" + arp[14:],
    ]
    heard: list[bytes] = []
    with packet_socket_in(lan) as sock, sender_in(lan) as send:

        def note(each: ReceivedFrame) -> None:
            if each.frame[6:12].hex(":") == STRANGER:
                heard.append(each.frame)

        sock.listen(note)

        def speak() -> None:
            for frame in unwanted:
                send(frame)
            for frame in wanted:
                send(frame)
                send(tagged(frame, 0x6000))  # a priority, and no VLAN: Linux takes it for untagged
            send(LAST_FRAME)

        await frames_until(sock, LAST, speak)
    expected = [frame for frame in wanted for _ in range(2)]
    assert [frame.hex() for frame in heard[:-1]] == [frame.hex() for frame in expected]


@on_reactor
async def test_probe_tells_taken_addresses_from_free_ones(lan: Lan) -> None:
    neighbour = mac_of(lan, "neighbour")
    with packet_socket_in(lan) as sock:
        for address in NEIGHBOURS:
            assert await ask(sock, address) == InUse(neighbour, Evidence.ANSWERED)
        for address in FREE:
            assert await ask(sock, address) == Free()


@on_reactor
async def test_siblings_answer_probes_through_our_link_only(bridge_lan: Lan) -> None:
    sibling, neighbour = mac_of(bridge_lan, "gateway", "c1"), mac_of(bridge_lan, "neighbour")
    with packet_socket_in(bridge_lan, speaker="speaker") as sock:
        for address in SIBLINGS:
            assert await ask(sock, address) == InUse(sibling, Evidence.ANSWERED)
        for address in NEIGHBOURS:
            assert await ask(sock, address) == InUse(neighbour, Evidence.ANSWERED)
        for address in FREE:
            assert await ask(sock, address) == Free()
    with packet_socket_in(bridge_lan) as sock:
        for address in SIBLINGS:
            assert await ask(sock, address) == Free()


@on_reactor
async def test_siblings_frames_arrive(bridge_lan: Lan) -> None:
    """To the LAN it goes out; what one says to another one on the parent comes in."""
    sibling, speaker = mac_of(bridge_lan, "gateway", "c1"), mac_of(bridge_lan, "host", "speaker")
    with (
        packet_socket_in(bridge_lan, speaker="speaker") as sock,
        sender_in(bridge_lan, "gateway", "c1") as send,
    ):
        for address in FREE:
            send(probe_frame(address, sibling))
            send(announcement_frames(address, sibling)[0])
            seen = await frames_until(sock, LAST, send, LAST_FRAME)
            assert (Probe(address, sibling), True) in seen
            assert (AddressClaim(address, sibling), True) in seen
        answer = AddressClaim(FREE[0], sibling)
        seen = await frames_until(sock, answer, send, answer_frame(FREE[0], sibling, speaker))
        assert (answer, False) in seen


@on_reactor
async def test_all_waiting_frames_are_read_at_once(lan: Lan) -> None:
    """The answer to a probe may be behind those of a flood."""
    heard: list[ReceivedFrame] = []
    with packet_socket_in(lan) as sock, sender_in(lan) as send:
        sock.listen(heard.append)
        for _ in range(20):
            for _ in range(150):
                send(LAST_FRAME)
            time.sleep(0.2)  # the reactor reads nothing meanwhile
            heard.clear()
            sock.read()
            if len(heard) >= 150:
                break
        assert len(heard) >= 150


@on_reactor
async def test_socket_works_again_when_its_parent_is_up(lan: Lan) -> None:
    neighbour = mac_of(lan, "neighbour")
    with packet_socket_in(lan) as sock:
        lan.run_in("host", "ip", "link", "set", "eth1", "down")
        assert await ask(sock, NEIGHBOURS[0]) == Inconclusive("cannot send on eth1: Network is down")
        assert not sock.broken
        lan.run_in("host", "ip", "link", "set", "eth1", "up")
        for address in NEIGHBOURS:
            assert await ask_until_answered(sock, address) == InUse(neighbour, Evidence.ANSWERED)
        assert not sock.broken


@on_reactor
async def test_socket_opened_on_a_down_parent_works_once_it_is_up(lan: Lan) -> None:
    neighbour = mac_of(lan, "neighbour")
    lan.run_in("host", "ip", "link", "set", "eth1", "down")
    with packet_socket_in(lan) as sock:
        assert isinstance(await ask(sock, NEIGHBOURS[0]), Inconclusive)
        lan.run_in("host", "ip", "link", "set", "eth1", "up")
        for address in NEIGHBOURS:
            assert await ask_until_answered(sock, address) == InUse(neighbour, Evidence.ANSWERED)


@on_reactor
async def test_socket_of_a_removed_parent_is_broken(lan: Lan) -> None:
    with packet_socket_in(lan) as sock:
        asked = ask(sock, NEIGHBOURS[0])
        lan.run_in("host", "ip", "link", "delete", "eth1")
        assert sock.broken
        assert isinstance(await asked, Inconclusive)
        with pytest.raises(LinkError, match="cannot send on eth1: No such device"):
            sock.send(probe_frame(FREE[0], STRANGER))
        lan.run_in("host", "ip", "link", "add", "eth1", "type", "veth", "peer", "name", "far")
        assert sock.broken
    from twisted.internet import reactor

    with pytest.raises(LinkError, match="cannot listen on eth1: No such device"):
        within(lan, "switch", PacketSocket(reactor, reactor, "eth1", "eth1", STRANGER).open)


@on_reactor
async def test_socket_is_closed_outside_the_reactor(lan: Lan) -> None:
    from twisted.internet import reactor

    left: list[Callable[[], None]] = []
    sock = PacketSocket(reactor, reactor, "eth1", "eth1", mac_of(lan, "host"), elsewhere=left.append)
    within(lan, "host", sock.open)
    heard: list[ReceivedFrame] = []
    sock.listen(heard.append)
    descriptor = sock.fileno()
    sock.close()
    assert sock.broken
    assert sock not in cast(Any, reactor).getReaders()
    assert sock.fileno() == descriptor, "it was closed here"
    with packet_socket_in(lan) as another:
        await frames_until(
            another,
            AddressClaim(NEIGHBOURS[0], mac_of(lan, "neighbour")),
            lan.ping,
            "neighbour",
            "192.168.77.1",
        )
    assert heard == []
    (close,) = left
    close()
    assert sock.fileno() == -1


@on_reactor
async def test_socket_that_failed_to_open_is_closed_elsewhere(lan: Lan) -> None:
    from twisted.internet import reactor

    left: list[Callable[[], None]] = []
    with pytest.raises(LinkError, match="cannot listen on eth7: No such device"):
        within(
            lan, "host", PacketSocket(reactor, reactor, "eth7", "eth7", STRANGER, elsewhere=left.append).open
        )
    (close,) = left
    close()
