"""How long a start takes, what the service needs of memory, files and processor, at rest and after many lives."""

import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from tests.benchmark.arithmetic import spread
from tests.benchmark.callers import Talk, converse
from tests.benchmark.filling import endpoints, fill_endpoints, make_containers, make_links
from tests.benchmark.part import Cell, Measurement, Part, at_most
from tests.benchmark.processes import first_answer, memory, open_files, processor_seconds, wake_ups
from tests.benchmark.protocol import QUIET, create_network, life
from tests.lab.lan import Lan
from tests.lab.plugin import Plugin
from tests.lab.requirements import missing_for_lan

AT_ONCE = 8


@dataclass(frozen=True)
class Stock:
    """What a service finds when it starts."""

    endpoints: int
    where: str
    """Where the links of the endpoints are: on the host, or in containers."""
    seconds: float
    """Within which it should answer."""
    megabytes: float
    """How much memory it should need then."""

    def __str__(self) -> str:
        """Describe it."""
        return f"{self.endpoints:,} endpoints, links {self.where}" if self.endpoints else "no state"


STOCKS = (
    Stock(0, "on the host", 0.55, 55),
    Stock(1_000, "on the host", 0.8, 70),
    Stock(1_000, "in containers", 0.8, 70),
    Stock(5_000, "on the host", 2.0, 120),
    Stock(5_000, "in containers", 2.0, 120),
)


@contextmanager
def stopped(lan: Lan, stock: Stock) -> Iterator[Plugin]:
    """A service that does not run, with its state and its links; its code is compiled, as that of an installed one."""
    with ExitStack() as undo:
        compiled = undo.enter_context(tempfile.TemporaryDirectory(prefix=f"{lan.tag}-"))
        environment = {"PYTHONPYCACHEPREFIX": compiled, "PYTHONDONTWRITEBYTECODE": ""}
        plugin = undo.enter_context(Plugin(lan, arguments=QUIET, preloaded=False, environment=environment))
        if stock.endpoints:
            create_network(plugin.socket)
        plugin.stop()
        there = list(endpoints(stock.endpoints))
        identity = fill_endpoints(plugin.state_dir, there)
        if stock.where == "in containers":
            make_containers(lan, identity, there, undo)
        else:
            make_links(lan, identity, there)
        yield plugin


def starts(measurement: Measurement, rows: list[list[Cell]]) -> None:
    """Start again and again, by turns."""
    stocks = [each for each in STOCKS if not measurement.short or each.endpoints <= 1_000]
    times: dict[Stock, list[float]] = defaultdict(list)
    processor: dict[Stock, list[float]] = defaultdict(list)
    rests: dict[Stock, list[float]] = defaultdict(list)
    with ExitStack() as undo:
        services = {stock: undo.enter_context(stopped(undo.enter_context(Lan()), stock)) for stock in stocks}
        for number in range(measurement.number(10, 1)):
            for stock, plugin in services.items():
                times[stock].append(first_answer(plugin))
                processor[stock].append(processor_seconds(plugin.service.pid))
                measurement.rest(2)  # it goes on to import a library in a thread
                rests[stock].append(memory(plugin.service.pid).resident / 1e6)
                plugin.stop(seconds=60)
            told = "; ".join(f"{stock}: {times[stock][-1]:.2f} s" for stock in stocks)
            measurement.say(f"start {number + 1}: {told}")
        services[stocks[-1]].start()
        idle(measurement, services[stocks[-1]], stocks[-1])
    for stock in stocks:
        found = [spread(each[stock]) for each in (times, processor, rests)]
        rows.append([stock.endpoints, stock.where, *(each.median for each in found)])
        measurement.figure(f"first reply, {stock}", found[0], "s", at_most(stock.seconds))
        measurement.figure(f"processor time of the start, {stock}", found[1], "s")
        measurement.figure(f"idle memory, {stock}", found[2], "MB", at_most(stock.megabytes))


def idle(measurement: Measurement, plugin: Plugin, stock: Stock) -> None:
    """Measure an idle service."""
    seconds = measurement.number(20, 1)
    measurement.rest(2)
    pid = plugin.service.pid
    before, woken, began = processor_seconds(pid), wake_ups(pid), time.monotonic()
    time.sleep(seconds)
    taken = time.monotonic() - began
    told = f"idle, {stock.endpoints:,} endpoints"
    measurement.figure(f"{told}, wake-ups", (wake_ups(pid) - woken) / taken, "per second", at_most(1))
    measurement.figure(
        f"{told}, processor time",
        100 * (processor_seconds(pid) - before) / taken,
        "% of one core",
        at_most(1),
    )


def many_lives(measurement: Measurement, lan: Lan) -> None:
    """Run many lives, and measure what remains."""
    number = measurement.number(100_000, 800)
    with Plugin(lan, arguments=QUIET, preloaded=False) as plugin:
        create_network(plugin.socket)
        pid = plugin.service.pid
        rows: list[list[Cell]] = []
        done, step = 0, number // 10
        warm = memory(pid).resident
        while True:
            measurement.rest(0.3)  # the last connections are closed by then
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
    starts(measurement, rows)
    with Lan() as lan:
        many_lives(measurement, lan)
    columns = ("endpoints in state", "their links", "first reply s", "processor time s", "idle memory MB")
    measurement.table("starts", "Time from the start of the process to its first reply", columns, rows)


PART = Part(
    "startup",
    "time to the first reply, memory, open files and idle processor time",
    run,
    lambda _: missing_for_lan(),
)
