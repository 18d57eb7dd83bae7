"""What may exist in large numbers: endpoints, networks, foreign links on the host, and foreign hosts on the LAN."""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from itertools import count
from pathlib import Path
from random import Random

from tests.benchmark import protocol
from tests.benchmark.callers import Talk, call, converse
from tests.benchmark.filling import endpoints, fill_endpoints, ip_batch, make_containers
from tests.lab.flood import Flood
from tests.lab.frames import arp_announcement
from tests.lab.lan import Lan
from tests.lab.plugin import Plugin

_numbers = count(1)
OWN_IPAM = "MacvlanTwistedLocal"


@dataclass(frozen=True)
class Setting:
    """A service, and the lives that are measured in it."""

    arguments: tuple[str, ...]
    prepare: Callable[[Path], Callable[[], Talk]]
    """Creates the network of the lives, by the service's socket, and returns what makes one life."""


def _quiet(path: Path) -> Callable[[], Talk]:
    protocol.create_network(path)
    return protocol.life


PROBED_SUBNET = "10.5.0.0/16"
PAUSE = 0.03
"""Seconds between two lives with conflict detection: about 70 addresses a second are prefetched."""


def _probed(path: Path) -> Callable[[], Talk]:
    pool_id, network_id = create_network(path, PROBED_SUBNET, "on")
    return partial(_probed_life, pool_id, network_id)


def _probed_life(pool_id: str, network_id: str) -> Talk:
    """All calls about an endpoint with an address of the plugin's IPAM, after a pause."""
    time.sleep(PAUSE)
    answer = yield call("IpamDriver.RequestAddress", {"PoolID": pool_id, "Address": "", "Options": {}})
    address = str(json.loads(answer)["Address"])
    about = {"NetworkID": network_id, "EndpointID": f"{next(_numbers):064x}"}
    interface = {"Address": address, "AddressIPv6": "", "MacAddress": ""}
    yield call("NetworkDriver.CreateEndpoint", {**about, "Interface": interface, "Options": {}})
    yield call("NetworkDriver.EndpointOperInfo", about)
    yield call("NetworkDriver.Join", {**about, "SandboxKey": "/var/run/docker/netns/0", "Options": {}})
    yield call("NetworkDriver.Leave", about)
    yield call("NetworkDriver.DeleteEndpoint", about)
    released = {"PoolID": pool_id, "Address": address.partition("/")[0]}
    yield call("IpamDriver.ReleaseAddress", released)


QUIET = Setting(protocol.QUIET, _quiet)
PROBED = Setting(("--host-interface", "eth1", "--docker-host", "none"), _probed)


def _network(subnet: str, detection: str, keep: Callable[[str, str], None]) -> Talk:
    """What an engine asks for a network with the plugin's IPAM; `keep` gets the ids of pool and network."""
    options = {"parent": "eth1", "conflict_detection": detection}
    body = {"AddressSpace": OWN_IPAM, "Pool": subnet, "SubPool": "", "V6": False, "Options": options}
    pool_id = str(json.loads((yield call("IpamDriver.RequestPool", body)))["PoolID"])
    gateway = {"RequestAddressType": "com.docker.network.gateway"}
    body = {"PoolID": pool_id, "Address": subnet.replace(".0/", ".1/").partition("/")[0], "Options": gateway}
    address = str(json.loads((yield call("IpamDriver.RequestAddress", body)))["Address"])
    network_id = f"{next(_numbers):064x}"
    body = {
        "NetworkID": network_id,
        "Options": {"com.docker.network.generic": {"parent": "eth1"}},
        "IPv4Data": [{"AddressSpace": OWN_IPAM, "Pool": subnet, "Gateway": address}], "IPv6Data": [],
    }  # fmt: skip
    yield call("NetworkDriver.CreateNetwork", body)
    keep(pool_id, network_id)


def create_network(path: Path, subnet: str, detection: str) -> tuple[str, str]:
    """Create a network with the plugin's IPAM, and return the ids of its pool and of itself."""
    found: list[tuple[str, str]] = []
    converse(path, [_network(subnet, detection, lambda *ids: found.append(ids))])
    return found[0]


def nothing(lan: Lan, plugin: Plugin, number: int, undo: ExitStack) -> None:
    """Add nothing: what the others are compared with."""


def endpoints_of_containers(lan: Lan, plugin: Plugin, number: int, undo: ExitStack) -> None:
    """Add endpoints of an earlier life, whose links are in containers."""
    plugin.stop()
    there = list(endpoints(number))
    make_containers(lan, fill_endpoints(plugin.state_dir, there), there, undo)
    plugin.start(seconds=60)


def networks_on_the_parent(lan: Lan, plugin: Plugin, number: int, undo: ExitStack) -> None:
    """Add networks, each with a pool and a subnet of its own."""
    subnets = (f"100.{64 + (each >> 8)}.{each & 255}.0/24" for each in range(number))

    def talk() -> Talk:
        for subnet in subnets:
            yield from _network(subnet, "off", lambda *_: None)

    converse(plugin.socket, [talk() for _ in range(8)])


def links_on_the_host(lan: Lan, plugin: Plugin, number: int, undo: ExitStack) -> None:
    """Add links of another program."""
    names = (f"other{each}" for each in range(number))
    ip_batch(
        *lan.enter("host"),
        commands=(f"link add link eth1 name {name} type macvlan mode bridge" for name in names),
    )


def hosts_on_the_lan(lan: Lan, plugin: Plugin, number: int, undo: ExitStack) -> None:
    """Add hosts that have every sixth address of the subnet, and that speak every 100 seconds."""
    random = Random(7)
    hosts = (6 * each + 5 for each in range(number))
    frames = [
        arp_announcement(bytes([2, *random.randbytes(5)]).hex(":"), f"10.5.{host >> 8}.{host & 255}")
        for host in hosts
    ]
    rate = 1500  # fewer than storm control counts as a flood
    with Flood(lan, "neighbour", frames, rate=rate):
        time.sleep(number / rate + 0.5)
    undo.enter_context(Flood(lan, "neighbour", frames, rate=number / 100, seconds=3600))


@dataclass(frozen=True)
class Crowd:
    """So many of something exist before a life is measured."""

    what: str
    number: int
    add: Callable[[Lan, Plugin, int, ExitStack], None] = nothing
    setting: Setting = QUIET


NOTHING = Crowd("nothing", 0)
NO_HOSTS = Crowd("hosts on the LAN", 0, setting=PROBED)


def _crowds() -> Iterator[Crowd]:
    yield NOTHING
    for number in (1_000, 10_000):
        yield Crowd("endpoints", number, endpoints_of_containers)
    for number in (100, 1_000, 10_000):
        yield Crowd("networks", number, networks_on_the_parent)
    for number in (100, 1_000, 10_000):
        yield Crowd("links on the host", number, links_on_the_host)
    yield NO_HOSTS
    for number in (100, 1_000, 10_000):
        yield Crowd("hosts on the LAN", number, hosts_on_the_lan, PROBED)


CROWDS = tuple(_crowds())
