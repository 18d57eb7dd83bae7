"""While a neighbour floods the LAN, conflicts are still found, and our addresses still defended."""

from collections.abc import Callable
from functools import partial
from ipaddress import IPv4Address, IPv6Address
from random import Random

import pytest
from twisted.internet.threads import deferToThread

from macvlan_twisted.addresses import IPAddress
from macvlan_twisted.lan.address_monitor import AddressMonitor
from macvlan_twisted.lan.address_probe import Evidence, Free, InUse
from macvlan_twisted.lan.interfaces import ReceivedFrame
from tests.integration.on_reactor import on_reactor
from tests.integration.packet_sockets import (
    CONTAINER,
    FREE,
    NEIGHBOURS,
    STRANGER,
    mac_of,
    packet_socket_in,
)
from tests.integration.raw_hosts import RawHost, who_has
from tests.integration.test_holding import Silent
from tests.lab.commands import wait_until, within
from tests.lab.flood import Flood
from tests.lab.frames import (
    NOBODY,
    REQUEST,
    advertisement,
    arp,
    arp_announcement,
    solicitation,
)
from tests.lab.lan import Lan
from tests.lab.plugin import Plugin

FLOODER = "02:00:00:00:00:ee"
PROBED = "192.168.77.80"


def flood_frames() -> list[bytes]:
    """From hosts in both subnets of the LAN, about none of the addresses that tests use."""
    random = Random(7)
    frames = []
    for _ in range(1000):
        sender = f"192.168.77.{random.randrange(130, 190)}"
        frames.append(arp(REQUEST, (FLOODER, sender), (NOBODY, "192.168.77.191")))
        frames.append(arp(REQUEST, (FLOODER, f"172.16.0.{random.randrange(1, 255)}"), (NOBODY, "172.16.0.1")))
        asker = str(IPv6Address("fd77::8:0:0") + random.getrandbits(24))
        frames.append(solicitation(FLOODER, "fd77::8", asker))
    return frames


def claim(address: IPAddress) -> bytes:
    if isinstance(address, IPv4Address):
        return arp_announcement(STRANGER, str(address))
    return advertisement(STRANGER, str(address))


def is_noticed(lan: Lan, frame: bytes, noticed: Callable[[], bool]) -> bool:
    """Send a frame, as its sender repeats it: on a busy machine the kernel drops more of a flood than half."""
    lan.send_frame("neighbour", frame)
    return within(0.1, noticed)


def answer_to_probe(lan: Lan, address: IPAddress) -> str | None:
    """Probe as the neighbour, and return the MAC that answers."""
    if isinstance(address, IPv4Address):
        return who_has(lan, str(address), seconds=20)
    sought = f"ip6[40] == 136 and src host {address}"
    with lan.capture("neighbour", sought, seconds=20) as capture:
        lan.send_frame("neighbour", solicitation(STRANGER, str(address)))
        return next((line.split()[1] for line in capture), None)


@on_reactor
async def test_monitor_finds_conflicts_during_a_flood(lan: Lan) -> None:
    from twisted.internet import reactor

    neighbour = mac_of(lan, "neighbour")
    seen: list[bytes] = []

    def note(received: ReceivedFrame) -> None:
        seen.append(received.frame)

    with packet_socket_in(lan) as sock:
        observer = Silent()
        monitor = AddressMonitor(sock, reactor, Random(), observer)
        monitor.start()
        sock.listen(note)
        with Flood(lan, "gateway", flood_frames()) as flood:
            await deferToThread(wait_until, lambda: len(seen) >= 2000, 20, "a flood")
            for address in NEIGHBOURS:
                assert await monitor.hold(address, CONTAINER) == InUse(neighbour, Evidence.ANSWERED)
            for address in FREE:
                assert await monitor.hold(address, CONTAINER) == Free()
                assert await deferToThread(answer_to_probe, lan, address) == CONTAINER
                monitor.assign(address, CONTAINER)
                reported = partial(observer.reports.__contains__, (address, STRANGER))
                noticed = partial(is_noticed, lan, claim(address), reported)
                await deferToThread(wait_until, noticed, 20, "a report")
        monitor.close()
    assert len(seen) < flood.number / 2, "the kernel dropped most of them"


@pytest.mark.parametrize("loud", [False, True], ids=["foreign", "ours"])
def test_service_finds_conflicts_during_a_flood(lan: Lan, loud: bool) -> None:
    """A flood about one address of ours does not hide what happens to the others."""
    with Plugin(lan) as plugin:
        host = RawHost(plugin)
        host.open("192.168.77.64/26")
        address, mac = host.start(1)
        other, _ = host.start(2)
        frames = [arp_announcement(FLOODER, other)] if loud else flood_frames()
        with Flood(lan, "gateway", frames):
            plugin.service.wait_for_log("parent eth1: flooded", seconds=20)
            lan.add_address("neighbour", f"{PROBED}/24")
            refused = host.ask(PROBED)["Err"]
            assert f"address {PROBED} is in use on eth1 by MAC {lan.mac_of('neighbour')}" in refused
            assert who_has(lan, address, seconds=20) == mac
            third, _ = host.start(3)
            assert third not in {address, other}
            line = f"address {address}: conflict on eth1"
            noticed = partial(
                is_noticed, lan, arp_announcement(STRANGER, address), lambda: line in plugin.log()
            )
            plugin.service.wait_until(noticed, 20, line)
        assert plugin.log().count("parent eth1: flooded") == 1
        if loud:
            assert f"address {other}: conflict on eth1" in plugin.log()
