"""How the cost of a life grows with what there is already: endpoints, networks, and links on the host."""

from collections import defaultdict
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import count

from tests.benchmark.arithmetic import of_pairs, percentile, spread
from tests.benchmark.callers import Talk, Timing, call, converse
from tests.benchmark.filling import endpoints, fill_endpoints, ip_batch, make_containers
from tests.benchmark.part import Cell, Measurement, Part, at_most
from tests.benchmark.protocol import QUIET, create_network, lives, lives_a_second
from tests.lab.lan import Lan
from tests.lab.plugin import Plugin
from tests.lab.requirements import missing_for_lan

_numbers = count(1)


def nothing(lan: Lan, plugin: Plugin, number: int, undo: ExitStack) -> None:
    """Add nothing: what the others are compared with."""


def endpoints_of_containers(lan: Lan, plugin: Plugin, number: int, undo: ExitStack) -> None:
    """Add endpoints of an earlier life, whose links are in containers."""
    plugin.stop()
    there = list(endpoints(number))
    make_containers(lan, fill_endpoints(plugin.state_dir, there), there, undo)
    plugin.start()


def networks_on_the_parent(lan: Lan, plugin: Plugin, number: int, undo: ExitStack) -> None:
    """Add networks, each with a subnet of its own."""

    def talk() -> Talk:
        for each in range(number):
            subnet = f"100.{64 + (each >> 8)}.{each & 255}"
            data = {"AddressSpace": "LocalDefault", "Pool": f"{subnet}.0/24", "Gateway": f"{subnet}.1/24"}
            body = {
                "NetworkID": f"{next(_numbers):064x}",
                "Options": {"com.docker.network.generic": {"parent": "eth1"}},
                "IPv4Data": [data], "IPv6Data": [],
            }  # fmt: skip
            yield call("NetworkDriver.CreateNetwork", body)

    converse(plugin.socket, [talk()])


def links_on_the_host(lan: Lan, plugin: Plugin, number: int, undo: ExitStack) -> None:
    """Add links of somebody else's."""
    names = (f"other{each}" for each in range(number))
    ip_batch(
        *lan.enter("host"),
        commands=(f"link add link eth1 name {name} type macvlan mode bridge" for name in names),
    )


@dataclass(frozen=True)
class Crowd:
    """So many of something are there before a life is measured."""

    what: str
    number: int
    add: Callable[[Lan, Plugin, int, ExitStack], None]


WANTED = {("links on the host", 1_000): at_most(1.1)}
NOBODY = Crowd("nothing", 0, nothing)
CROWDS = tuple(
    Crowd(what, number, add)
    for what, numbers, add in (
        ("endpoints", (1_000, 10_000), endpoints_of_containers),
        ("networks", (100, 1_000), networks_on_the_parent),
        ("links on the host", (100, 1_000, 10_000), links_on_the_host),
    )
    for number in numbers
)


def run(measurement: Measurement) -> None:
    """Measure all of them by turns, each beside a service on an empty host."""
    crowds = (NOBODY, *(each for each in CROWDS if not measurement.short or each.number <= 100))
    rates: dict[Crowd, list[float]] = defaultdict(list)
    timings: dict[Crowd, Timing] = defaultdict(Timing)
    with ExitStack() as undo:
        running = {}
        for crowd in crowds:
            lan = undo.enter_context(Lan())
            plugin = running[crowd] = undo.enter_context(Plugin(lan, arguments=QUIET, preloaded=False))
            create_network(plugin.socket)
            crowd.add(lan, plugin, crowd.number, undo)
            lives(plugin.socket, 1, min(0.5, measurement.seconds))
            measurement.say(f"{crowd.number:,} {crowd.what} are there")
        for number in range(measurement.number(8, 2)):
            for crowd, plugin in running.items():
                timing = lives(plugin.socket, 1, measurement.seconds / 2)
                rates[crowd].append(lives_a_second(timing))
                timings[crowd].add(timing)
                measurement.client.append(timing.client)
            told = ", ".join(f"{each.number:,} {each.what} {rates[each][-1]:.0f}" for each in crowds)
            measurement.say(f"round {number + 1}, lives per second: {told}")
    rows: list[list[Cell]] = []
    for crowd in crowds:
        cost = of_pairs(rates[NOBODY], rates[crowd])
        medians = [
            percentile(timings[crowd].latencies[f"NetworkDriver.{method}"], 50) * 1000
            for method in ("CreateEndpoint", "DeleteEndpoint")
        ]
        rows.append([crowd.what, crowd.number, spread(rates[crowd]).median, cost.median, *medians])
        if crowd is not NOBODY:
            wanted = WANTED.get((crowd.what, crowd.number))
            measurement.figure(
                f"relative cost of a life with {crowd.number:,} {crowd.what}", cost, "times", wanted
            )
    measurement.table(
        "growth",
        "Lives from one caller, by what exists already",
        (
            "existing",
            "number",
            "lives per second",
            "relative cost",
            "CreateEndpoint p50 ms",
            "DeleteEndpoint p50 ms",
        ),
        rows,
    )


PART = Part(
    "growth",
    "how the cost of a life grows with endpoints, networks and links",
    run,
    lambda _: missing_for_lan(),
)
