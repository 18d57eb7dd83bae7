"""Whole lives of endpoints through the protocol, beside the kernel's own floor."""

import sys
from collections import defaultdict
from itertools import count
from pathlib import Path

from tests.benchmark.arithmetic import of_pairs, percentile, spread
from tests.benchmark.bare import METHOD, bare
from tests.benchmark.callers import Talk, Timing, ask, call, converse, until
from tests.benchmark.part import Cell, Measurement, Part, Wanted, at_least, at_most
from tests.lab.commands import run as run_program
from tests.lab.lan import Lan
from tests.lab.plugin import Plugin
from tests.lab.requirements import missing_for_lan

NETWORK = "5b" * 32
QUIET = (
    "--host-interface", "eth1", "--gateway", "10.0.0.1", "--macvlan-subnet", "10.0.0.0/8",
    "--conflict-detection", "off", "--announce", "no", "--docker-host", "none",
)  # fmt: skip
"""Without what we do for the LAN."""
CALLERS = (1, 8, 32)
ANCESTOR = {1: 0.95, 8: 4.1, 32: 8.6}
"""What the Go program that we came from reached, without keeping any state: times the kernel's floor of its machine."""
WANTED = {1: at_least(5), 32: at_least(12)}
OUTLIER = 10.0
"""Milliseconds."""

_numbers = count(256)


def life(with_mac: bool = False) -> Talk:
    """Everything that an engine asks about an endpoint, but for its address."""
    number = next(_numbers)
    about = {"NetworkID": NETWORK, "EndpointID": f"{number:064x}"}
    address = f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}/8"
    mac = (
        f"02:00:{number >> 24 & 255:02x}:{number >> 16 & 255:02x}:{number >> 8 & 255:02x}:{number & 255:02x}"
    )
    interface = {"Address": address, "AddressIPv6": "", "MacAddress": mac if with_mac else ""}
    yield call("NetworkDriver.CreateEndpoint", {**about, "Interface": interface, "Options": {}})
    yield call("NetworkDriver.EndpointOperInfo", about)
    yield call("NetworkDriver.Join", {**about, "SandboxKey": "/var/run/docker/netns/0", "Options": {}})
    yield call("NetworkDriver.Leave", about)
    yield call("NetworkDriver.DeleteEndpoint", about)


def ask_for_nothing() -> Talk:
    """Ask a program that only computes."""
    yield call(METHOD, {})


def create_network(path: Path) -> None:
    """Create the network that the lives are on, with addresses of the engine's own management."""
    data = {"AddressSpace": "LocalDefault", "Pool": "10.0.0.0/8", "Gateway": "10.0.0.1/8"}
    body = {
        "NetworkID": NETWORK, "Options": {"com.docker.network.generic": {"parent": "eth1"}},
        "IPv4Data": [data], "IPv6Data": [],
    }  # fmt: skip
    ask(path, "NetworkDriver.CreateNetwork", body)


def floor(lan: Lan, seconds: float) -> float:
    """Return how many pairs a second the kernel makes and removes over one socket."""
    program = str(Path(__file__).with_name("floor.py"))
    told = run_program(
        *lan.enter("host"), sys.executable, "-I", program, "eth1", str(seconds), timeout=seconds + 30
    )
    pairs, spent, _ = told.split()
    return int(pairs) / float(spent)


def lives(path: Path, callers: int, seconds: float, with_mac: bool = False) -> Timing:
    """Live for so long, with so many callers at once."""
    return converse(path, [until(seconds, lambda: life(with_mac)) for _ in range(callers)])


def lives_a_second(timing: Timing) -> float:
    """Return how many lives came to their end."""
    return len(timing.latencies["NetworkDriver.DeleteEndpoint"]) / timing.seconds


def milliseconds(method: str, latencies: list[float]) -> list[Cell]:
    """Return a row of a table."""
    thousandth = [each * 1000 for each in latencies]
    found = [percentile(thousandth, percent) for percent in (50, 99, 100)]
    return [method.partition(".")[2], *found, len(latencies)]


def outliers(
    measurement: Measurement, what: str, latencies: list[float], wanted: Wanted | None = None
) -> None:
    """Describe the slowest calls, and how many are as slow."""
    slow = sum(each * 1000 > OUTLIER for each in latencies)
    measurement.figure(f"slowest of the {what}, 1 caller", max(latencies) * 1000, "ms", wanted)
    measurement.figure(f"{what} above {OUTLIER:g} ms, 1 caller", 1e6 * slow / len(latencies), "per million")


COLUMNS = ("call", "p50 ms", "p99 ms", "max ms", "calls")


def run(measurement: Measurement) -> None:
    """Measure floor and lives by turns."""
    floors: dict[int, list[float]] = defaultdict(list)
    rates: dict[int, list[float]] = defaultdict(list)
    timings: dict[int, Timing] = defaultdict(Timing)
    proven, computing = Timing(), Timing()
    with Lan() as lan, Plugin(lan, arguments=QUIET, preloaded=False) as plugin, bare() as bare_path:
        create_network(plugin.socket)
        lives(plugin.socket, 4, min(1, measurement.seconds))
        for number in range(measurement.number(8, 1)):
            for callers in CALLERS:
                base = floor(lan, measurement.seconds / 2)
                timing = lives(plugin.socket, callers, measurement.seconds)
                floors[callers].append(base)
                rates[callers].append(lives_a_second(timing))
                timings[callers].add(timing)
                measurement.client.append(timing.client)
                measurement.say(
                    f"round {number + 1}: {callers:2} callers {rates[callers][-1]:6.1f} lives/s, "
                    f"floor {base:5.1f} pairs/s: {rates[callers][-1] / base:5.2f} times"
                )
            computing.add(converse(bare_path, [until(measurement.seconds, ask_for_nothing)]))
            proven.add(lives(plugin.socket, 1, measurement.seconds / 4, with_mac=True))
    measurement.figure(
        "kernel alone, one netlink socket",
        spread([each for some in floors.values() for each in some]),
        "pairs/s",
    )
    for callers in CALLERS:
        told = f"{callers} caller{'s' if callers > 1 else ''}"
        measurement.figure(f"lives, {told}", spread(rates[callers]), "per second")
        ratio = of_pairs(rates[callers], floors[callers])
        measurement.figure(
            f"lives, {told}, compared with the kernel alone", ratio, "times", WANTED.get(callers)
        )
        rows = [milliseconds(method, each) for method, each in timings[callers].latencies.items()]
        measurement.table(f"calls-{callers}", f"Latency of each call, {told}", COLUMNS, rows)
    alone = timings[1].latencies
    for method, each in alone.items():
        name = method.partition(".")[2]
        measurement.figure(f"{name}, 1 caller, p99", percentile(each, 99) * 1000, "ms", at_most(3))
    everything = [each for some in alone.values() for each in some]
    outliers(measurement, "calls", everything, at_most(OUTLIER))
    nothing = computing.latencies[METHOD]
    measurement.figure(
        "call of a program that only computes, 1 caller, median", percentile(nothing, 50) * 1000, "ms"
    )
    measurement.figure(
        "call of a program that only computes, 1 caller, p99", percentile(nothing, 99) * 1000, "ms"
    )
    outliers(measurement, "calls of a program that only computes", nothing)
    rows = [milliseconds(method, each) for method, each in proven.latencies.items()]
    measurement.table(
        "calls-mac", "Latency of each call, 1 caller, containers with --mac-address", COLUMNS, rows
    )
    measurement.notes += [
        "A program that only computes has neither disk, links, threads nor memory to collect: it shows how late the machine "
        "itself makes a call now and then.",
        "No call waits for the kernel's grace period but one: CreateEndpoint with a MAC that the user named, which brings "
        "the link up to prove the MAC free, and down again. DeleteEndpoint retires the link, and Leave does nothing.",
        "The Go ancestor, which keeps no state, reached "
        + ", ".join(f"{value:g} times with {callers}" for callers, value in ANCESTOR.items())
        + " callers, on another day.",
    ]


PART = Part(
    "protocol",
    "lives of endpoints and the time of each call, beside what the kernel does with ready-made messages",
    run,
    lambda _: missing_for_lan(),
)
