"""Where the time of a connect and of a start goes: pieces without gaps, which add up to what a user waits for.

The client notes when a request to the engine began and ended, the kernel when dockerd was in which system call, and
stopwatches in our service what it did when: all by one clock.
"""

import json
import time
from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from tests.benchmark import stopwatch
from tests.benchmark.arithmetic import by_turns, of_pairs
from tests.benchmark.engine import (
    BUILTIN,
    MANAGED,
    PLUGIN,
    PLUGIN_OFF,
    Side,
    create_networks,
    defaults,
)
from tests.benchmark.engine_api import Api, api_of
from tests.benchmark.kernel_trace import SystemCall, missing_for_trace, tracing
from tests.benchmark.part import Cell, Measurement, Part
from tests.lab.engine import Engine
from tests.lab.lan import Lan
from tests.lab.plugin import Plugin
from tests.lab.requirements import missing_for_engine

SIDES = (BUILTIN, PLUGIN, MANAGED, PLUGIN_OFF)
STOPWATCH = ("-P", str(Path(__file__).with_name("stopwatch.py")))

NETLINK = "engine: netlink requests"
DISK = "engine: fdatasync, fsync, rename"
REQUEST_IN_TRANSIT = "request in transit"
ENGINE = {
    "connect": "engine: everything else",
    "disconnect": "engine: everything else",
    "start": "engine, containerd, runc: everything else",
}
"""By operation: what is neither a call to the plugin nor one of the system calls above."""
SYSTEM_CALLS = {
    "sendto": NETLINK, "fdatasync": DISK, "fsync": DISK, "rename": DISK, "renameat": DISK, "renameat2": DISK,
}  # fmt: skip
"""dockerd's other system calls take microseconds, or wait for another process."""
MESSAGE = "ret > 150"
"""Bytes: dockerd writes a request to the plugin, or reads its reply; less is for its own threads."""
FILTERS = {**dict.fromkeys(SYSTEM_CALLS, ""), "write": MESSAGE, "read": MESSAGE}

CALLS = {
    "RequestAddress": MANAGED,
    "CreateEndpoint": MANAGED,
    "EndpointOperInfo": MANAGED,
    "Join": MANAGED,
    "DeleteEndpoint": MANAGED,
    "ReleaseAddress": MANAGED,
    "CreateEndpoint with Docker's IPAM": PLUGIN,
}
"""The calls that are shown; with Docker's IPAM the last look is in CreateEndpoint."""

Mark = tuple[float, str, str]
"""When a piece began, which one, and the method of its call if that became known."""


class Interval(NamedTuple):
    """What happened from when to when."""

    began: float
    ended: float
    piece: str


@dataclass(frozen=True)
class PluginCall:
    """One call, as our service saw it."""

    method: str
    pieces: Sequence[Interval]

    @property
    def began(self) -> float:
        """When its request was read."""
        return self.pieces[0].began

    @property
    def ended(self) -> float:
        """When its reply was in the socket."""
        return self.pieces[-1].ended


def plugin_calls(marks: Iterable[Mark]) -> list[PluginCall]:
    """Cut what the stopwatches noted into calls, and each of them into pieces; only for calls one after the other."""
    found: list[PluginCall] = []
    call: list[Mark] = []
    for each in sorted(marks):
        if each[1] == stopwatch.REQUEST_READ:
            call = []
        elif not call:
            continue
        call.append(each)
        if each[1] == stopwatch.REPLY_IN_TRANSIT:
            method = next((method for _, _, method in call if method), "")
            pieces = [Interval(at, later, piece) for (at, piece, _), (later, *_) in pairwise(call)]
            found.append(PluginCall(method, pieces))
            call = []
    return found


def transits(calls: Sequence[PluginCall], kernel: Iterable[SystemCall]) -> list[Interval]:
    """Return how long each request, and each reply, took from one process to the other."""
    writes, reads = [], []
    for each in kernel:
        if each.name == "write":
            writes.append(each.ended)
        elif each.name == "read":
            reads.append(each.ended)
    writes.sort()
    reads.sort()
    found = []
    for call in calls:
        before = bisect_right(writes, call.began)
        if before:
            found.append(Interval(writes[before - 1], call.began, REQUEST_IN_TRANSIT))
        after = bisect_left(reads, call.ended)
        if after < len(reads):
            found.append(Interval(call.ended, reads[after], stopwatch.REPLY_IN_TRANSIT))
    return found


def partition(
    began: float, ended: float, layers: Sequence[Sequence[Interval]], rest: str
) -> dict[str, float]:
    """Return the seconds of each piece between two moments; they add up to all of it.

    :param layers: where intervals overlap, those of an earlier layer count.
    :param rest: the name of what is in none of them.
    """
    clipped = [
        [
            Interval(max(each.began, began), min(each.ended, ended), each.piece)
            for each in layer
            if each.began < ended and each.ended > began
        ]
        for layer in layers
    ]
    moments = sorted(
        {began, ended, *(at for layer in clipped for each in layer for at in (each.began, each.ended))}
    )
    seconds: dict[str, float] = defaultdict(float)
    for at, later in pairwise(moments):
        covering = (
            each.piece for layer in clipped for each in layer if each.began <= at and each.ended >= later
        )
        seconds[next(covering, rest)] += later - at
    return seconds


def means(runs: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Return the mean seconds of each piece over the middle half of runs by their sums.

    Means add up, as medians would not; outliers are not in the middle half.
    """
    ordered = sorted(runs, key=lambda run: sum(run.values()))
    middle = ordered[len(runs) // 4 : len(runs) - len(runs) // 4]
    pieces = {piece for run in middle for piece in run}
    return {piece: sum(run.get(piece, 0.0) for run in middle) / len(middle) for piece in pieces}


Runs = dict[tuple[str, str], list[tuple[float, float]]]
"""When each operation began and ended, by its name and its side's."""


def operate(api: Api, side: Side, runs: Runs) -> None:
    """Connect, disconnect and start a container, each after a pause, so that nothing else is under way."""
    lasting, brief = f"lasting-{side.name}", f"brief-{side.name}"
    api.create_container(brief, side.name)
    for name, act in (
        ("connect", lambda: api.connect(lasting, side.name)),
        ("disconnect", lambda: api.disconnect(lasting, side.name)),
        ("start", lambda: api.start(brief)),
    ):
        time.sleep(0.05)
        began = time.perf_counter()
        act()
        runs[name, side.name].append((began, time.perf_counter()))
    api.remove(brief)


def run(measurement: Measurement) -> None:
    """Operate each side by turns."""
    runs: Runs = defaultdict(list)
    with Lan(nics=6) as lan, Engine(lan, measurement.engine) as engine:
        engine.load_busybox()
        file = engine.directory / "marks"
        with (
            Plugin(
                lan, engine.plugins_dir, inside=engine, arguments=defaults(engine),
                environment={stopwatch.FILE: str(file)}, twistd=STOPWATCH,
            ) as plugin,
            api_of(engine.socket) as api,
        ):  # fmt: skip
            create_networks(api, SIDES)
            for side in SIDES:
                operate(api, side, defaultdict(list))
            with tracing(engine.dockerd.pid, FILTERS) as trace:
                for number in range(measurement.number(30, 1)):
                    for side in by_turns(SIDES, number):
                        operate(api, side, runs)
                    if number % 10 == 9:
                        measurement.say(f"{number + 1} times connected, disconnected and started")
            engine.clear()
            plugin.stop()
        marks: list[Mark] = [
            (at, piece, method) for at, piece, method in json.loads(file.read_text(encoding="utf-8"))
        ]
    report(measurement, runs, plugin_calls(marks), trace.calls)


def report(
    measurement: Measurement, runs: Runs, calls: Sequence[PluginCall], kernel: Sequence[SystemCall]
) -> None:
    """Make tables of what was measured."""
    pieces = [each for call in calls for each in call.pieces]
    system_calls = [
        Interval(each.began, each.ended, SYSTEM_CALLS[each.name])
        for each in kernel
        if each.name in SYSTEM_CALLS
    ]
    layers = [
        [each for each in system_calls if each.piece == NETLINK],
        [each for each in system_calls if each.piece == DISK],
    ]
    ways = transits(calls, kernel)
    for operation, rest in ENGINE.items():
        found = {}
        for side in SIDES:
            cut = [
                partition(began, ended, [pieces, *layers, ways], rest)
                for began, ended in runs[operation, side.name]
            ]
            found[side] = means(cut)
        rows: list[list[Cell]] = []
        for piece in (rest, NETLINK, DISK, REQUEST_IN_TRANSIT, *stopwatch.PIECES, stopwatch.REPLY_IN_TRANSIT):
            row = [found[side].get(piece, 0.0) * 1000 for side in SIDES]
            if any(row):
                rows.append([piece, *row])
        rows.append(["total", *(sum(found[side].values()) * 1000 for side in SIDES)])
        title = f"One {operation} with Docker Engine {measurement.engine}, milliseconds"
        measurement.table(operation, title, ("", *(side.what for side in SIDES)), rows)
    by_call(measurement, runs, calls)
    for side in SIDES[1:]:
        ratios = of_pairs(*([end - at for at, end in runs["connect", each.name]] for each in (side, BUILTIN)))
        measurement.figure(f"connect: {side.what}, compared with built-in macvlan", ratios, "times")


def by_call(measurement: Measurement, runs: Runs, calls: Sequence[PluginCall]) -> None:
    """Make a table of the calls of a connect and a disconnect."""
    found, numbers = {}, {}
    for name, side in CALLS.items():
        spans = [*runs["connect", side.name], *runs["disconnect", side.name]]
        these = [
            call
            for call in calls
            if call.method == name.partition(" ")[0] and any(at <= call.began < end for at, end in spans)
        ]
        if these:
            found[name] = means([_seconds(call) for call in these])
            numbers[name] = len(these) / len(runs["connect", side.name])
    rows: list[list[Cell]] = []
    for piece in stopwatch.PIECES:
        row = [round(seconds.get(piece, 0.0) * 1e6) for seconds in found.values()]
        if any(row):
            rows.append([piece, *row])
    rows.append(["total", *(round(sum(each.values()) * 1e6) for each in found.values())])
    rows.append(["number of calls", *(round(numbers[name], 1) for name in found)])
    title = (
        "The calls of one connect and one disconnect, conflict detection and announcements on, microseconds"
    )
    measurement.table("calls", title, ("", *found), rows)


def _seconds(call: PluginCall) -> dict[str, float]:
    seconds: dict[str, float] = defaultdict(float)
    for each in call.pieces:
        seconds[each.piece] += each.ended - each.began
    return seconds


PART = Part(
    "breakdown",
    "where the time of a connect and of a start goes, compared with the engine's built-in macvlan driver",
    run,
    lambda measurement: missing_for_trace() or missing_for_engine(measurement.engine),
)
