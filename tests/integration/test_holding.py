"""Addresses that we hold, defended against real hosts and their tools; and what announcements do to real caches."""

import shutil
import time
from functools import partial
from ipaddress import ip_address
from random import Random

import pytest
from twisted.internet.defer import ensureDeferred
from twisted.internet.threads import deferToThread

from macvlan_twisted.addresses import IPAddress
from macvlan_twisted.lan.address_monitor import AddressMonitor
from macvlan_twisted.lan.address_probe import Free
from macvlan_twisted.lan.arp_nd import AddressClaim, announcement_frames, probe_frame
from macvlan_twisted.lan.interfaces import LanSocket
from tests.integration.conftest import need
from tests.integration.on_reactor import on_reactor
from tests.integration.packet_sockets import (
    CONTAINER,
    FREE,
    LAST,
    LAST_FRAME,
    STRANGER,
    add_siblings,
    frames_until,
    mac_of,
    packet_socket_in,
    sender_in,
)
from tests.lab.commands import wait_until
from tests.lab.lan import Lan


class Silent:
    """An observer that records conflicts."""

    def __init__(self) -> None:
        self.reports: list[tuple[IPAddress, str]] = []

    def contested(self, address: IPAddress, our_mac: str, foreign_mac: str) -> None:
        self.reports.append((address, foreign_mac))

    def lost(self, address: IPAddress, mac: str) -> None:
        self.reports.append((address, mac))

    def host_mac(self) -> str:
        return ""


def monitor_on(wire: LanSocket) -> AddressMonitor:
    from twisted.internet import reactor

    monitor = AddressMonitor(wire, reactor, Random(), Silent())
    monitor.start()
    return monitor


@pytest.fixture
def bridge_lan(lan: Lan) -> Lan:
    """Give a LAN with siblings on the host's NIC."""
    add_siblings(lan)
    return lan


@on_reactor
async def test_held_address_is_defended_against_arping(lan: Lan) -> None:
    need("" if shutil.which("busybox") else "no busybox here: apt-get install busybox")
    arping = ("busybox", "arping", "-D", "-c", "2", "-w", "3", "-I", "eth1", str(FREE[0]))
    assert (await deferToThread(lan.attempt_in, "neighbour", *arping)).status == 0
    with packet_socket_in(lan) as sock:
        monitor = monitor_on(sock)
        assert await monitor.hold(FREE[0], CONTAINER) == Free()
        refused = await deferToThread(lan.attempt_in, "neighbour", *arping)
        assert refused.status == 1
        assert CONTAINER in refused.stdout.lower()
        monitor.release(FREE[0])
        assert (await deferToThread(lan.attempt_in, "neighbour", *arping)).status == 0
        monitor.close()


def take(lan: Lan, address: IPAddress) -> str:
    """Give the neighbour an IPv6 address, and return the state after its duplicate address detection."""
    lan.run_in("neighbour", "sh", "-c", "echo 1 > /proc/sys/net/ipv6/conf/eth1/accept_dad")
    lan.run_in("neighbour", "ip", "address", "add", f"{address}/64", "dev", "eth1")
    for _ in range(100):
        shown = lan.run_in("neighbour", "ip", "-6", "address", "show", "dev", "eth1", "to", str(address))
        if "dadfailed" in shown or "tentative" not in shown:
            break
        time.sleep(0.1)
    lan.run_in("neighbour", "ip", "address", "delete", f"{address}/64", "dev", "eth1")
    return shown


@on_reactor
async def test_held_address_is_defended_against_dad(lan: Lan) -> None:
    with packet_socket_in(lan) as sock:
        monitor = monitor_on(sock)
        assert await monitor.hold(FREE[1], CONTAINER) == Free()
        assert "dadfailed" in await deferToThread(take, lan, FREE[1])
        assert monitor.is_held(FREE[1])
        monitor.release(FREE[1])
        shown = await deferToThread(take, lan, FREE[1])
        assert str(FREE[1]) in shown
        assert "dadfailed" not in shown
        monitor.close()


@on_reactor
async def test_held_address_is_defended_against_a_sibling(bridge_lan: Lan) -> None:
    """Our ARP reply comes back to us by the parent, as if another host had sent it."""
    sibling = mac_of(bridge_lan, "gateway", "c1")
    with (
        packet_socket_in(bridge_lan, speaker="speaker") as sock,
        packet_socket_in(bridge_lan, "gateway", "c1") as listener,
        sender_in(bridge_lan, "gateway", "c1") as send,
    ):
        monitor = monitor_on(sock)
        for address in FREE:
            assert await monitor.hold(address, CONTAINER) == Free()
            answer = AddressClaim(address, CONTAINER)
            await frames_until(listener, answer, send, probe_frame(address, sibling))
            await frames_until(sock, LAST, send, LAST_FRAME)
            assert monitor.is_held(address)
        monitor.close()


@on_reactor
async def test_two_hosts_do_not_hold_one_address(lan: Lan) -> None:
    with packet_socket_in(lan) as one, packet_socket_in(lan, "neighbour") as other:
        monitors = [monitor_on(one), monitor_on(other)]
        addresses: list[IPAddress] = [ip_address(f"192.168.77.{number}") for number in range(100, 120)]
        addresses += [ip_address(f"fd77::1:{number}") for number in range(20)]
        asked = [
            (address, [ensureDeferred(monitor.hold(address, CONTAINER)) for monitor in monitors])
            for address in addresses
        ]
        for address, holds in asked:
            verdicts = [await hold for hold in holds]
            assert verdicts.count(Free()) <= 1, (address, verdicts)
        for monitor in monitors:
            monitor.close()


@pytest.mark.parametrize("form", [0, 1], ids=["request", "reply"])
def test_both_announcement_forms_correct_a_neighbours_cache(lan: Lan, form: int) -> None:
    """Also an entry that was made within the last second, which Linux changes for nothing less."""
    for address in FREE:
        with sender_in(lan, "host") as send:
            for mac in (STRANGER, CONTAINER):
                entry = (str(address), "lladdr", "02:00:00:00:00:99", "dev", "eth1", "nud", "reachable")
                lan.run_in("neighbour", "ip", "neigh", "replace", *entry)
                frames = announcement_frames(address, mac)
                send(frames[min(form, len(frames) - 1)])
                wait_until(partial(neighbour_knows, lan, address, mac), 5, f"{mac} in the neighbour's cache")


def neighbour_knows(lan: Lan, address: IPAddress, mac: str) -> bool:
    return mac in lan.run_in("neighbour", "ip", "neigh", "show", str(address))
