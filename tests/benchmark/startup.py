"""How long a start takes, what the service needs of memory, files and processor, at rest and after many lives."""

import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager

from tests.benchmark.arithmetic import spread
from tests.benchmark.callers import Talk, converse
from tests.benchmark.filling import endpoints, fill_endpoints
from tests.benchmark.part import Cell, Measurement, Part, at_most
from tests.benchmark.processes import first_answer, memory, open_files, processor_seconds, wake_ups
from tests.benchmark.protocol import QUIET, create_network, life
from tests.lab.lan import Lan
from tests.lab.plugin import Plugin
from tests.lab.requirements import missing_for_lan

ENDPOINTS = (0, 10_000)
WANTED = {0: 0.8, 10_000: 1.5}
AT_ONCE = 8


@contextmanager
def stopped(lan: Lan, number: int) -> Iterator[Plugin]:
    """A service with so many endpoints in state, which does not run."""
    with Plugin(lan, arguments=QUIET, preloaded=False) as plugin:
        if number:
            create_network(plugin.socket)
        plugin.stop()
        fill_endpoints(plugin.state_dir, endpoints(number))
        yield plugin


def starts(measurement: Measurement, lan: Lan, rows: list[list[Cell]]) -> None:
    """Start again and again, by turns."""
    times: dict[int, list[float]] = defaultdict(list)
    rests: dict[int, list[float]] = defaultdict(list)
    with stopped(lan, ENDPOINTS[0]) as none, stopped(lan, ENDPOINTS[1]) as many:
        for number in range(measurement.number(10, 3)):
            for there, plugin in zip(ENDPOINTS, (none, many), strict=True):
                times[there].append(first_answer(plugin))
                time.sleep(0.5)
                rests[there].append(memory(plugin.service.pid).resident / 1e6)
                plugin.stop(seconds=60)
            told = ", ".join(f"{there} endpoints {times[there][-1]:.2f} s" for there in times)
            measurement.say(f"start {number + 1}: {told}")
        many.start()
        idle(measurement, many)
    for there in ENDPOINTS:
        rows.append([there, spread(times[there]).median, spread(rests[there]).median])
        measurement.figure(
            f"first reply, {there:,} endpoints in state", spread(times[there]), "s", at_most(WANTED[there])
        )
    measurement.figure("idle memory, empty state", spread(rests[0]), "MB", at_most(70))


def idle(measurement: Measurement, plugin: Plugin) -> None:
    """Measure an idle service."""
    seconds = measurement.number(20, 3)
    time.sleep(2)
    pid = plugin.service.pid
    before, woken, began = processor_seconds(pid), wake_ups(pid), time.monotonic()
    time.sleep(seconds)
    taken = time.monotonic() - began
    told = f"idle, {ENDPOINTS[1]:,} endpoints"
    measurement.figure(f"{told}, wake-ups", (wake_ups(pid) - woken) / taken, "per second", at_most(1))
    measurement.figure(
        f"{told}, processor time",
        100 * (processor_seconds(pid) - before) / taken,
        "% of one core",
        at_most(1),
    )


def many_lives(measurement: Measurement, lan: Lan) -> None:
    """Run many lives, and measure what remains."""
    number = measurement.number(100_000, 2_000)
    with Plugin(lan, arguments=QUIET, preloaded=False) as plugin:
        create_network(plugin.socket)
        pid = plugin.service.pid
        rows: list[list[Cell]] = []
        done, step = 0, number // 10
        warm = memory(pid).resident
        while True:
            time.sleep(0.3)  # the last connections are closed by then
            used = memory(pid)
            rows.append([done, used.resident / 1e6, open_files(pid)])
            if done >= number:
                break
            timing = converse(plugin.socket, [_some(step // AT_ONCE) for _ in range(AT_ONCE)])
            done += len(timing.latencies["NetworkDriver.DeleteEndpoint"])
            measurement.say(f"{done} of {number} lives, {memory(pid).resident / 1e6:.0f} MB")
            warm = memory(pid).resident if len(rows) == 1 else warm
    measurement.table(
        "lives", "Memory and open files, by the number of lives", ("lives", "memory MB", "open files"), rows
    )
    grown = float(rows[-1][1]) - warm / 1e6
    told = f"memory growth from {number // 10:,} to {number:,} lives"
    measurement.figure(told, grown, "MB", at_most(5))
    measurement.figure(
        "growth of open files meanwhile", float(rows[-1][2]) - float(rows[1][2]), "files", at_most(0)
    )


def _some(number: int) -> Talk:
    for _ in range(number):
        yield from life()


def run(measurement: Measurement) -> None:
    """Measure all of it."""
    rows: list[list[Cell]] = []
    with Lan() as lan:
        starts(measurement, lan, rows)
        many_lives(measurement, lan)
    columns = ("endpoints in state", "first reply s", "idle memory MB")
    measurement.table("starts", "Time from the start of the process to its first reply", columns, rows)


PART = Part(
    "startup",
    "time to the first reply, memory, open files and idle processor time",
    run,
    lambda _: missing_for_lan(),
)
