"""How the cost of a life grows with what exists already: endpoints, networks, links, and hosts on the LAN."""

import time
from collections import defaultdict
from collections.abc import Callable
from contextlib import ExitStack

from tests.benchmark.arithmetic import of_pairs, percentile, spread
from tests.benchmark.callers import Talk, Timing, converse, until
from tests.benchmark.crowds import CROWDS, NO_HOSTS, NOTHING, PROBED, Crowd
from tests.benchmark.part import Cell, Measurement, Part, at_most
from tests.lab.lan import Lan
from tests.lab.plugin import Plugin
from tests.lab.requirements import missing_for_lan

SHORT = 100
"""A crowd that is larger is left out of a short run."""
WANTED = {("links on the host", 1_000): at_most(1.1)}


def lives_a_second(timing: Timing) -> float:
    """Return how many lives fit into a second, by the time that their calls took."""
    lives = len(timing.latencies["NetworkDriver.DeleteEndpoint"])
    return lives / sum(map(sum, timing.latencies.values()))


def compared_with(crowd: Crowd) -> Crowd:
    """Return what lives beside a crowd are compared with: the same lives without it."""
    return NO_HOSTS if crowd.setting is PROBED else NOTHING


def run(measurement: Measurement) -> None:
    """Measure all of them by turns, each with a service and a LAN of its own."""
    crowds = [each for each in CROWDS if not measurement.short or each.number <= SHORT]
    rates: dict[Crowd, list[float]] = defaultdict(list)
    timings: dict[Crowd, Timing] = defaultdict(Timing)
    with ExitStack() as undo:
        running: dict[Crowd, tuple[Plugin, Callable[[], Talk]]] = {}
        for crowd in crowds:
            began = time.monotonic()
            lan = undo.enter_context(Lan())
            plugin = undo.enter_context(Plugin(lan, arguments=crowd.setting.arguments, preloaded=False))
            life = crowd.setting.prepare(plugin.socket)
            crowd.add(lan, plugin, crowd.number, undo)
            converse(plugin.socket, [until(min(0.5, measurement.seconds), life)])
            running[crowd] = plugin, life
            measurement.say(
                f"{crowd.number:,} {crowd.what} are there, after {time.monotonic() - began:.1f} s"
            )
        for number in range(measurement.number(8, 1)):
            for crowd, (plugin, life) in running.items():
                timing = converse(plugin.socket, [until(measurement.seconds / 2, life)])
                rates[crowd].append(lives_a_second(timing))
                timings[crowd].add(timing)
                measurement.client.append(timing.client)
            told = ", ".join(f"{each.number:,} {each.what} {rates[each][-1]:.0f}" for each in crowds)
            measurement.say(f"round {number + 1}, lives per second: {told}")
    rows: list[list[Cell]] = []
    for crowd in crowds:
        cost = of_pairs(rates[compared_with(crowd)], rates[crowd])
        medians = [
            percentile(timings[crowd].latencies[f"NetworkDriver.{method}"], 50) * 1000
            for method in ("CreateEndpoint", "DeleteEndpoint")
        ]
        rows.append([crowd.what, crowd.number, spread(rates[crowd]).median, cost.median, *medians])
        if crowd.number:
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
    "how the cost of a life grows with endpoints, networks, links, and hosts on the LAN",
    run,
    lambda _: missing_for_lan(),
)
