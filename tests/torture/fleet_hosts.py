"""The hosts of a fleet without engines, and callers that request and release addresses at full speed."""

import http.client
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import count
from random import Random
from typing import Any

from attrs import define, field

from tests.integration.raw_hosts import RawHost
from tests.lab.plugin import Plugin
from tests.torture.holdings import Holdings

NETWORKS = {"on": "192.168.77.64/26", "off": "192.168.77.128/26"}
"""The range of each network, by whether addresses are probed. They are small: hosts want the same addresses."""
MOST = 12
"""Addresses that the callers of a host have at most in one network: three hosts leave a few of a range free."""
REFUSALS = (
    "is exhausted",
    "no spare address",
    "cannot be asked",
    "belongs to host",
    "belongs to hosts",
    "is in use by",
    "is in use on",
    "is reserved as",
    "was released before",
    "change the same address",
    "has changed its owner",
    "no free address found",
)
"""Parts of the errors that a request may get while others request, and while etcd is away."""
NO_ANSWER = (OSError, http.client.HTTPException, ValueError)
"""The service was killed during a call, or does not run."""


@define(eq=False)
class Waits:
    """How long calls took."""

    longest: float = 0.0
    slow: list[str] = field(factory=list)
    calls: Counter[str] = field(factory=Counter)
    _lock: threading.Lock = field(factory=threading.Lock)

    def note(self, method: str, seconds: float, limit: float, outcome: str) -> None:
        """A call was answered."""
        with self._lock:
            self.calls[method] += 1
            self.longest = max(self.longest, seconds)
            if seconds > limit:
                self.slow.append(f"{method} took {seconds:.2f} s: {outcome}")


@define(eq=False)
class FleetHost:
    """One host: its service and its two networks, one of which probes addresses."""

    name: str
    plugin: Plugin
    holdings: Holdings
    waits: Waits
    limit: float
    """Seconds that a call may take."""
    networks: dict[str, RawHost] = field(factory=dict)
    complaints: list[str] = field(factory=list)
    refused: Counter[str] = field(factory=Counter)
    _numbers: Iterator[int] = field(factory=lambda: count(1))

    def open(self) -> None:
        """Create the networks."""
        for number, (detection, part) in enumerate(NETWORKS.items(), 1):
            raw = RawHost(
                self.plugin, network=f"{number:064x}", pool_options={"conflict_detection": detection}
            )
            raw.open(part)
            self.networks[detection] = raw

    def call(self, method: str, body: dict[str, Any]) -> dict[str, Any] | None:
        """Make a call, and return the answer; ``None`` if there was none."""
        began = time.monotonic()
        try:
            answer = self.plugin.call(method, body)
        except NO_ANSWER:
            return None
        self.waits.note(method.partition(".")[2], time.monotonic() - began, self.limit, str(answer))
        return answer

    def insist(self, method: str, body: dict[str, Any]) -> None:
        """Make a call until it is answered, as an engine does; it has to succeed."""
        deadline = time.monotonic() + 60
        while (answer := self.call(method, body)) is None:
            if time.monotonic() > deadline:
                self.complaints.append(f"{method} was not answered for 60 s on {self.name}")
                return
            time.sleep(0.05)
        if "Err" in answer:
            self.complaints.append(f"{method} on {self.name}: {answer['Err']}")

    def request(self, raw: RawHost, address: str = "") -> str:
        """Request an address; return it, or nothing if the request was refused or got no answer."""
        body = {"PoolID": raw.pool, "Address": address, "Options": {}}
        answer = self.call("IpamDriver.RequestAddress", body)
        if answer is None:
            return ""
        if "Address" in answer:
            given = str(answer["Address"]).partition("/")[0]
            self.holdings.begin(given, self.name)
            return given
        reason = next((each for each in REFUSALS if each in answer["Err"]), "")
        self.refused[reason] += 1
        if not reason:
            self.complaints.append(f"RequestAddress on {self.name}: {answer['Err']}")
        return ""

    def release(self, raw: RawHost, address: str) -> None:
        """Give an address back, unless another caller does."""
        if self.holdings.end(address, self.name):
            self.insist("IpamDriver.ReleaseAddress", {"PoolID": raw.pool, "Address": address})

    def live(self, raw: RawHost, address: str) -> None:
        """Have a container run with an address for a moment, unless another caller does. It is announced on the LAN."""
        if not self.holdings.occupy(address, self.name):
            return
        number = next(self._numbers)
        about = {"NetworkID": raw.network, "EndpointID": f"{number:064x}"}
        interface = {"Address": f"{address}/24", "AddressIPv6": "", "MacAddress": ""}
        created = self.call("NetworkDriver.CreateEndpoint", {**about, "Interface": interface, "Options": {}})
        if created is not None and "Err" in created:
            self.complaints.append(f"CreateEndpoint with {address} on {self.name}: {created['Err']}")
        elif created is not None:
            self.call("NetworkDriver.Join", {**about, "SandboxKey": f"/var/run/docker/netns/{number:012x}"})
        self.insist("NetworkDriver.Leave", about)
        self.insist("NetworkDriver.DeleteEndpoint", about)
        self.holdings.vacate(address)


def caller(host: FleetHost, random: Random, is_over: Callable[[], bool]) -> None:
    """Request and release addresses of a host until it is over."""
    while not is_over():
        detection = random.choice(list(NETWORKS))
        raw, draw = host.networks[detection], random.random()
        mine = [each for each in host.holdings.of(host.name) if network_of(each) == detection]
        if mine and (draw < 0.4 or len(mine) >= MOST):
            host.release(raw, random.choice(mine))
        elif draw < 0.85:
            host.request(raw)
        elif draw < 0.95:
            prefix, _, first = NETWORKS[detection].partition("/")[0].rpartition(".")
            host.request(raw, f"{prefix}.{int(first) + random.randrange(64)}")
        elif mine:
            host.live(raw, random.choice(mine))
        if not host.plugin.running:
            time.sleep(0.05)


def network_of(address: str) -> str:
    """Say in which network an address is."""
    return "on" if int(address.rpartition(".")[2]) < 128 else "off"
