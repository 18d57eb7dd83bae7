"""Real packet sockets, opened from this process on a NIC of a throw-away LAN, and neighbours that send given frames."""

import json
import socket
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from ipaddress import IPv4Address, ip_address
from typing import Any, TypeVar

from pyroute2.netns import setns
from twisted.internet.defer import Deferred

from macvlan_twisted.lan.arp_nd import AddressClaim, NeighbourMessage, announcement_frames, decode
from macvlan_twisted.lan.interfaces import LanSocket, ReceivedFrame
from macvlan_twisted.lan.packet_socket import PacketSocket
from tests.lab.lan import Lan

T = TypeVar("T")

NEIGHBOURS = (ip_address("192.168.77.2"), ip_address("fd77::2"))
FREE = (ip_address("192.168.77.99"), ip_address("fd77::99"))
SIBLINGS = (ip_address("192.168.77.50"), ip_address("fd77::50"))
CONTAINER, STRANGER = "7a:42:c0:a8:4d:63", "02:00:00:00:00:07"
LAST = AddressClaim(IPv4Address("192.168.77.250"), STRANGER)
"""Sent last: the LAN keeps the order of frames."""
LAST_FRAME = announcement_frames(LAST.address, LAST.mac)[0]


def within(lan: Lan, place: str, work: Callable[[], T]) -> T:
    """Call `work` in a place of the LAN; sockets that it opens stay there."""

    def enter() -> T:
        setns(lan.namespace_path(place))
        return work()

    with ThreadPoolExecutor(1) as thread:  # which has left our own namespace for good
        return thread.submit(enter).result()


def mac_of(lan: Lan, place: str, link: str = "eth1") -> str:
    """Ask for a link's MAC."""
    return str(json.loads(lan.run_in(place, "ip", "-json", "link", "show", link))[0]["address"])


@contextmanager
def packet_socket_in(
    lan: Lan, place: str = "host", parent: str = "eth1", speaker: str = ""
) -> Iterator[PacketSocket]:
    """Open a packet socket on a parent, which also sends unless there is another `speaker`."""
    from twisted.internet import reactor

    mac = mac_of(lan, place, speaker or parent)
    sock = PacketSocket(reactor, reactor, parent, speaker or parent, mac)
    within(lan, place, sock.open)
    try:
        yield sock
    finally:
        sock.close()


@contextmanager
def sender_in(lan: Lan, place: str = "neighbour", link: str = "eth1") -> Iterator[Callable[[bytes], Any]]:
    """Give a function that sends raw frames from a link."""

    def opened() -> socket.socket:
        made = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        made.bind((link, 0))
        return made

    with within(lan, place, opened) as sender:
        yield sender.send


async def frames_until(
    wire: LanSocket, wanted: NeighbourMessage, act: Callable[..., Any], *arguments: Any
) -> list[tuple[NeighbourMessage, bool]]:
    """Listen, then `act`; return all messages up to `wanted`, each with whether it left the host.

    :raises TimeoutError: `wanted` did not come within 60 s.
    """
    from twisted.internet import reactor

    frames: list[tuple[NeighbourMessage, bool]] = []
    done: Deferred[None] = Deferred()

    def note(received: ReceivedFrame) -> None:
        seen = decode(received.frame)
        if seen is not None:
            frames.append((seen, received.outgoing))
            if seen == wanted and not done.called:
                done.callback(None)

    stop = wire.listen(note)
    try:
        act(*arguments)
        done.addTimeout(60, reactor)
        await done
    finally:
        stop()
    return frames


def add_siblings(lan: Lan) -> None:
    """Give the host two macvlan links on its NIC: ``speaker``, and ``c1``, moved to the gateway as to a container.

    The gateway's own NIC is down from then on.
    """
    for name in ("speaker", "c1"):
        lan.run_in("host", "ip", "link", "add", name, "link", "eth1", "type", "macvlan", "mode", "bridge")
    lan.run_in("host", "ip", "link", "set", "speaker", "up")
    lan.run_in("gateway", "ip", "link", "set", "eth1", "down")
    lan.run_in("host", "ip", "link", "set", "c1", "netns", lan.namespace("gateway"))
    for address in (f"{SIBLINGS[0]}/24", f"{SIBLINGS[1]}/64"):
        lan.run_in("gateway", "ip", "address", "add", address, "dev", "c1")
    lan.run_in("gateway", "ip", "link", "set", "c1", "up")
