"""Where the time of one call goes: intervals without gaps, which add up to what the engine's side waits for."""

import json
import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from tests.benchmark.callers import Call, Talk, converse
from tests.benchmark.part import Cell, Measurement, Part
from tests.benchmark.protocol import QUIET, create_network, life
from tests.benchmark.stopwatch import FILE
from tests.lab.lan import Lan
from tests.lab.plugin import Plugin
from tests.lab.requirements import missing_for_lan

SHOWN = ("CreateEndpoint", "Join", "DeleteEndpoint")
SENT = "the request reaches the reactor"
STOPWATCH = ("-P", str(Path(__file__).with_name("stopwatch.py")))
Mark = tuple[float, str]


@dataclass(frozen=True)
class Watched:
    """One call, as its caller saw it."""

    method: str
    sent: float
    answered: float


def intervals(call: Watched, marks: Sequence[Mark]) -> list[tuple[str, float]]:
    """Cut a call into intervals, each named by what begins it; their sum is all of the call.

    :param marks: of all calls, sorted.
    """
    first = bisect_left(marks, (call.sent, ""))
    last = bisect_left(marks, (call.answered, ""))
    within = [(call.sent, SENT), *marks[first:last], (call.answered, "")]
    return [(what, later - at) for (at, what), (later, _) in pairwise(within)]


def summed_up(calls: Sequence[Watched], marks: Sequence[Mark]) -> list[tuple[str, float]]:
    """Return the mean of each interval over all calls that went the usual way, but for the slowest in a hundred.

    Means add up, as medians would not.
    """
    cut = [intervals(call, marks) for call in sorted(calls, key=lambda call: call.answered - call.sent)]
    cut = cut[: max(1, len(cut) - len(cut) // 100)]
    usual, _ = Counter(tuple(what for what, _ in each) for each in cut).most_common(1)[0]
    fitting = [each for each in cut if tuple(what for what, _ in each) == usual]
    return [
        (what, sum(each[number][1] for each in fitting) / len(fitting)) for number, what in enumerate(usual)
    ]


def talk(path: Path, number: int) -> list[Watched]:
    """Live one life after the other, and note when each call began and was over."""
    watched: list[Watched] = []

    def lives() -> Talk:
        for _ in range(number):
            talking = life()
            request: Call | None = next(talking)
            while request is not None:
                began = time.perf_counter()
                answer = yield request
                watched.append(Watched(request[0].partition(".")[2], began, time.perf_counter()))
                try:
                    request = talking.send(answer)
                except StopIteration:
                    request = None
            time.sleep(0.03)  # what is left to do of the last life is done

    converse(path, [lives()])
    return watched


def run(measurement: Measurement) -> None:
    """Measure from one caller."""
    with Lan() as lan, Plugin(lan, arguments=QUIET, preloaded=False) as bare:
        create_network(bare.socket)
        talk(bare.socket, 20)
        without = talk(bare.socket, measurement.number(300, 30))
    with Lan() as lan:
        told = Path(f"/tmp/{lan.tag}-marks")
        try:
            with Plugin(lan, arguments=QUIET, environment={FILE: str(told)}, twistd=STOPWATCH) as plugin:
                create_network(plugin.socket)
                talk(plugin.socket, 20)
                watched = talk(plugin.socket, measurement.number(1000, 50))
            marks: list[Mark] = sorted(
                (at, what) for at, what in json.loads(told.read_text(encoding="utf-8"))
            )
        finally:
            told.unlink(missing_ok=True)
    for method in SHOWN:
        parts = summed_up([each for each in watched if each.method == method], marks)
        whole = sum(seconds for _, seconds in parts)
        rows: list[list[Cell]] = [
            [what, round(seconds * 1e6), 100 * seconds / whole] for what, seconds in parts
        ]
        rows.append(["together", round(whole * 1e6), 100.0])
        title = f"Where one {method} spends its time, from one caller with one life every 30 ms"
        measurement.table(method, title, ("what", "microseconds", "%"), rows)
        plain = sorted(each.answered - each.sent for each in without if each.method == method)
        measurement.figure(
            f"{method}, without stopwatches, median", plain[len(plain) // 2] * 1e6, "microseconds"
        )


PART = Part("breakdown", "where the time of one call goes", run, lambda _: missing_for_lan())
