"""What each thing that we do for the LAN adds to a container's start."""

import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from itertools import count
from pathlib import Path
from typing import Any

from tests.benchmark.arithmetic import by_turns, spread
from tests.benchmark.callers import ask
from tests.benchmark.engine import OURS, Side
from tests.benchmark.engine_api import api_of
from tests.benchmark.part import Cell, Measurement, Part
from tests.lab.dhcp_server import DhcpServer
from tests.lab.engine import Engine
from tests.lab.lan import Lan
from tests.lab.plugin import Plugin
from tests.lab.requirements import missing_for_dhcp, missing_for_engine

QUIET = ("--host-interface", "eth1", "--conflict-detection", "off", "--announce", "no")
_OFF = Side("plain", "none", "eth2", "10.2.0.0/16", ipam=OURS)
_DHCP_RANGE = "192.168.77.20,192.168.77.250"
SIDES = (
    _OFF,
    Side(
        "conflicts", "conflict detection", "eth3", "10.3.0.0/16",
        ipam=OURS, ipam_options=(("conflict_detection", "on"), ("parent", "eth3")),
    ),
    Side("reached", "host access", "eth4", "10.4.0.0/16", ipam=OURS, options=(("host_access", "true"),)),
    Side("announce", "announcements", "eth5", "10.5.0.0/16", ipam=OURS, options=(("announce", "true"),)),
    Side(
        "dhcp", "DHCP", "eth1", "192.168.77.0/24",
        ipam=OURS, ipam_options=(("dhcp", "true"), ("parent", "eth1")),
    ),
)  # fmt: skip

_numbers = count(1)
CALLS = ("IpamDriver.RequestAddress", "NetworkDriver.CreateEndpoint", "NetworkDriver.Join")


class RawNetwork:
    """A network, as an engine makes it by calls of its own."""

    def __init__(self, path: Path, side: Side) -> None:
        """Make it."""
        self._path = path
        body: dict[str, Any] = {
            "AddressSpace": "MacvlanTwistedLocal", "Pool": side.subnet, "SubPool": "", "V6": False,
            "Options": dict(side.ipam_options),
        }  # fmt: skip
        self._pool_id = self._ask("IpamDriver.RequestPool", body)["PoolID"]
        self._network_id = f"{next(_numbers):064x}"
        data = {"AddressSpace": "MacvlanTwistedLocal", "Pool": side.subnet}
        options = {"parent": side.parent, **dict(side.options)}
        body = {
            "NetworkID": self._network_id, "Options": {"com.docker.network.generic": options},
            "IPv4Data": [data], "IPv6Data": [],
        }  # fmt: skip
        self._ask("NetworkDriver.CreateNetwork", body)

    def _ask(self, method: str, body: dict[str, Any]) -> dict[str, Any]:
        return ask(self._path, method, body)

    def assign(self, address: str) -> None:
        """Give an address to a container that stays."""
        self._ask(CALLS[0], {"PoolID": self._pool_id, "Address": address, "Options": {}})
        about = {"NetworkID": self._network_id, "EndpointID": f"{next(_numbers):064x}"}
        interface = {"Address": f"{address}/16", "AddressIPv6": "", "MacAddress": ""}
        self._ask(CALLS[1], {**about, "Interface": interface, "Options": {}})

    def live(self, keep: Callable[[str, float], None]) -> None:
        """One container's life; what belongs to its start is told with its seconds."""

        def timed(method: str, body: dict[str, Any]) -> dict[str, Any]:
            began = time.perf_counter()
            answer = self._ask(method, body)
            keep(method, time.perf_counter() - began)
            return answer

        address = timed(CALLS[0], {"PoolID": self._pool_id, "Address": "", "Options": {}})["Address"]
        about = {"NetworkID": self._network_id, "EndpointID": f"{next(_numbers):064x}"}
        interface = {"Address": address, "AddressIPv6": "", "MacAddress": ""}
        timed(CALLS[1], {**about, "Interface": interface, "Options": {}})
        timed(CALLS[2], {**about, "SandboxKey": "/var/run/docker/netns/0", "Options": {}})
        self._ask("NetworkDriver.Leave", about)
        self._ask("NetworkDriver.DeleteEndpoint", about)
        released = {"PoolID": self._pool_id, "Address": address.partition("/")[0]}
        self._ask("IpamDriver.ReleaseAddress", released)


def raw(measurement: Measurement, path: Path, sides: Sequence[Side], rows: list[list[Cell]]) -> None:
    """Measure by calls of our own."""
    networks = {side.name: RawNetwork(path, side) for side in sides}
    times: dict[tuple[str, str], list[float]] = defaultdict(list)
    measurement.rest(2)  # what is found out ahead of need is there by then, as it is on a host that runs
    for number in range(measurement.number(100, 5)):
        for side in by_turns(sides, number):
            spent: list[float] = []

            def keep(method: str, seconds: float, name: str = side.name, spent: list[float] = spent) -> None:
                times[name, method].append(seconds * 1000)
                spent.append(seconds * 1000)

            networks[side.name].live(keep)
            times[side.name, "all"].append(sum(spent))
        time.sleep(0.1)  # an engine starts hardly ten containers a second
        if number % 25 == 24:
            measurement.say(f"{number + 1} lives of each")
    for side in sides:
        parts = [spread(times[side.name, method]).median for method in (*CALLS, "all")]
        rows.append([side.what, *parts])
        if side is not _OFF:
            added = [
                mine - none
                for mine, none in zip(times[side.name, "all"], times[_OFF.name, "all"], strict=True)
            ]
            measurement.figure(f"calls of a start, added by {side.what}", spread(added), "ms")


def real(measurement: Measurement, engine: Engine, sides: Sequence[Side], rows: list[list[Cell]]) -> None:
    """Measure with a real engine."""
    times: dict[str, list[float]] = defaultdict(list)
    with api_of(engine.socket) as api:
        for side in sides:
            side.create(api)
        measurement.rest(2)
        for number in range(-1, measurement.number(30, 1)):
            for side in by_turns(sides, number + 1):
                name = f"brief-{side.name}"
                api.create_container(name, side.name)
                seconds = api.start(name) * 1000
                if number >= 0:
                    times[side.name].append(seconds)
                api.remove(name)
            if number % 10 == 9:
                measurement.say(f"{number + 1} starts of each")
    for side in sides:
        found = spread(times[side.name])
        rows.append([side.what, found.median, found.low, found.high])
        if side is not _OFF:
            added = [mine - none for mine, none in zip(times[side.name], times[_OFF.name], strict=True)]
            measurement.figure(f"start by the engine, added by {side.what}", spread(added), "ms")


def run(measurement: Measurement) -> None:
    """Measure by turns."""
    calls: list[list[Cell]] = []
    starts: list[list[Cell]] = []
    with Lan(nics=5) as lan, DhcpServer(lan, range=_DHCP_RANGE):
        with Plugin(lan, arguments=(*QUIET, "--docker-host", "none"), preloaded=False) as plugin:
            raw(measurement, plugin.socket, SIDES, calls)
        with Engine(lan, measurement.engine) as engine:
            engine.load_busybox()
            beside = ("--docker-host", engine.docker_host)
            with Plugin(lan, engine.plugins_dir, inside=engine, arguments=(*QUIET, *beside), preloaded=False):
                real(measurement, engine, SIDES, starts)
                engine.clear()
    columns = ("feature", *(method.partition(".")[2] + " ms" for method in CALLS), "total ms")
    measurement.table("calls", "The calls of a container start, medians", columns, calls)
    columns = ("feature", "median ms", "lower quartile", "upper quartile")
    measurement.table("starts", f"A container start by Docker Engine {measurement.engine}", columns, starts)


PART = Part(
    "features",
    "what conflict detection, host access, announcements and DHCP add to a container's start",
    run,
    lambda measurement: missing_for_dhcp() or missing_for_engine(measurement.engine),
)
