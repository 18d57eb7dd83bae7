"""Docker hosts without an engine: our service on the LAN, and the calls of an engine straight onto its socket."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from ipaddress import ip_address
from typing import Any, TypeVar

from attrs import define, field

from macvlan_twisted.protocol.messages import LOCAL_ADDRESS_SPACE
from tests.lab.frames import arp_probe
from tests.lab.lan import Lan
from tests.lab.plugin import DEFAULTS, Plugin

T = TypeVar("T")
Answer = dict[str, Any]

GATEWAY = "192.168.77.1"
ENDPOINT_NAME = "com.docker.network.endpoint.name"
STRANGER = "02:00:00:00:00:99"
"""The MAC of a prober that no station has."""


@define(eq=False)
class RawHost:
    """One service, and the one network of ours that :meth:`open` makes on it."""

    plugin: Plugin
    pool: str = ""
    network: str = "0" * 63 + "1"
    pool_options: Mapping[str, str] = field(factory=dict)
    _endpoints: int = field(default=0, init=False)

    def call(self, method: str, body: Answer) -> Answer:
        """Make one call, which has to succeed."""
        answer = self.plugin.call(method, body)
        assert "Err" not in answer, f"{method}: {answer['Err']}"
        return answer

    def open(self, part: str, **options: str) -> None:
        """Create a network on the LAN's subnet, with addresses from `part`; `options` are the driver's."""
        asked = {"AddressSpace": LOCAL_ADDRESS_SPACE, "Pool": "192.168.77.0/24", "SubPool": part}
        self.pool = self.call("IpamDriver.RequestPool", {**asked, "Options": self.pool_options, "V6": False})[
            "PoolID"
        ]
        gateway = {"RequestAddressType": "com.docker.network.gateway"}
        self.call("IpamDriver.RequestAddress", {"PoolID": self.pool, "Address": GATEWAY, "Options": gateway})
        data = {"AddressSpace": LOCAL_ADDRESS_SPACE, "Pool": asked["Pool"], "Gateway": f"{GATEWAY}/24"}
        generic = {"com.docker.network.generic": {"parent": "eth1", **options}}
        body = {"NetworkID": self.network, "Options": generic, "IPv4Data": [data], "IPv6Data": []}
        self.call("NetworkDriver.CreateNetwork", body)

    def ask(self, address: str = "", name: str = "") -> Answer:
        """Ask for an address, and return the answer, be it a refusal."""
        options = {ENDPOINT_NAME: name} if name else None
        body = {"PoolID": self.pool, "Address": address, "Options": options}
        return self.plugin.call("IpamDriver.RequestAddress", body)

    def take(self, address: str = "", name: str = "") -> str:
        """Take an address, and return it without its prefix length."""
        answer = self.ask(address, name)
        assert "Address" in answer, answer
        return str(answer["Address"]).partition("/")[0]

    def release(self, address: str) -> None:
        """Give an address back."""
        self.call("IpamDriver.ReleaseAddress", {"PoolID": self.pool, "Address": address})

    def start(self, number: int) -> tuple[str, str]:
        """Make an engine's calls for the start of a container; return its address and MAC."""
        address, about = self.take(), self._endpoint(number)
        mac = self.create(number, address)
        sandbox = f"/var/run/docker/netns/{number:012x}"
        joined = self.call("NetworkDriver.Join", {**about, "SandboxKey": sandbox})
        assert joined["Gateway"] == GATEWAY
        return address, mac

    def create(self, number: int, address: str) -> str:
        """Create an endpoint, and return its MAC."""
        answer = self.create_answer(number, address)
        assert "Err" not in answer, answer
        return str(answer["Interface"]["MacAddress"])

    def create_answer(self, number: int, address: str) -> Answer:
        """Call CreateEndpoint, and return the answer, be it a refusal."""
        interface = {"Address": f"{address}/24", "AddressIPv6": "", "MacAddress": ""}
        body = {**self._endpoint(number), "Interface": interface, "Options": {}}
        return self.plugin.call("NetworkDriver.CreateEndpoint", body)

    def stop(self, number: int, address: str) -> None:
        """Make an engine's calls for the end of a container."""
        self.call("NetworkDriver.Leave", self._endpoint(number))
        self.call("NetworkDriver.DeleteEndpoint", self._endpoint(number))
        self.release(address)

    def close(self) -> None:
        """Remove the network."""
        self.call("IpamDriver.ReleasePool", {"PoolID": self.pool})
        self.call("NetworkDriver.DeleteNetwork", {"NetworkID": self.network})

    def _endpoint(self, number: int) -> Answer:
        return {"NetworkID": self.network, "EndpointID": f"{number:064x}"}


@contextmanager
def two_raw_hosts(*arguments: str) -> Iterator[tuple[Lan, RawHost, RawHost]]:
    """Run our service on each of two hosts of one LAN; both are started at the same moment, with empty states."""
    with Lan(hosts=2) as lan:
        plugins = [Plugin(lan, place=place, arguments=(*DEFAULTS, *arguments)) for place in lan.docker_hosts]
        try:
            at_once([plugin.__enter__ for plugin in plugins])
            first, second = map(RawHost, plugins)
            yield lan, first, second
            for plugin in plugins:
                assert "Traceback" not in plugin.log()
        finally:
            for plugin in plugins:
                plugin.__exit__(None, None, None)


def at_once(calls: Sequence[Callable[[], T]]) -> list[T]:
    """Make all of the calls at the same time, and return what they return, in order."""
    with ThreadPoolExecutor(len(calls)) as pool:
        return [each.result() for each in [pool.submit(call) for call in calls]]


def who_has(lan: Lan, address: str, *, seconds: float = 2, place: str = "neighbour") -> str | None:
    """Probe for an address as a station that is about to take it, and return the MAC that answers, if one does."""
    sought = f"arp[6:2] == 2 and arp src host {address}"
    with lan.capture(place, sought, seconds=seconds) as capture:
        lan.send_frame(place, arp_probe(STRANGER, address))
        return next((line.split()[1] for line in capture), None)


def open_and_hold(lan: Lan, host: RawHost, part: str, *held: str) -> None:
    """Create a network, and wait until its next addresses are held.

    That is silent. A probe of ours would be a conflict as long as the service itself asks, which it does three
    times for each address, within half a second.
    """
    probes = f"arp[6:2] == 1 and arp[14:4] == 0 and ({' or '.join(f'arp dst host {each}' for each in held)})"
    with lan.capture("neighbour", probes, count=3 * len(held)) as capture:
        host.open(part)
        asked = "".join(capture)
    assert [each for each in held if f"who-has {each} " not in asked] == [], asked
    time.sleep(0.5)
    assert [each for each in held if who_has(lan, each) is None] == [], "not answered for"


def consecutive(first: str, number: int) -> list[str]:
    """Return `number` addresses from `first` on."""
    return [str(ip_address(first) + offset) for offset in range(number)]
