"""How long containers wait for probes: the first one of a network, and those of a burst."""

import json
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from itertools import count
from pathlib import Path

from tests.benchmark.arithmetic import by_turns, spread
from tests.benchmark.callers import Talk, ask, call, converse, until
from tests.benchmark.part import Cell, Measurement, Part, at_most
from tests.benchmark.processes import first_answer
from tests.lab.lan import Lan
from tests.lab.plugin import Plugin
from tests.lab.requirements import missing_for_lan

ARGUMENTS = ("--host-interface", "eth1", "--docker-host", "none")
BURST = 20
CALLERS = (1, 8, 32)
LATER = 0.6
"""Seconds after which addresses are to be there without a wait."""
PAUSE = 2.0
"""Seconds after a burst until what it used up is prefetched again."""
FORMS = {"at once": BURST, "one after the other": 1}
"""How many callers make the requests of a burst. An engine makes those of one network one after the other."""
_subnets = count(1)


@contextmanager
def pool(path: Path, detection: str) -> Iterator[str]:
    """Open a pool on a subnet of its own, and release it in the end."""
    body = {
        "AddressSpace": "MacvlanTwistedLocal", "Pool": f"10.{next(_subnets)}.0.0/16", "SubPool": "", "V6": False,
        "Options": {"parent": "eth1", "conflict_detection": detection},
    }  # fmt: skip
    pool_id = str(ask(path, "IpamDriver.RequestPool", body)["PoolID"])
    yield pool_id
    ask(path, "IpamDriver.ReleasePool", {"PoolID": pool_id})


def requests(pool_id: str, number: int) -> Talk:
    """So many containers' addresses, one after the other."""
    for _ in range(number):
        answer = yield call("IpamDriver.RequestAddress", {"PoolID": pool_id, "Address": "", "Options": {}})
        assert "Address" in json.loads(answer)


def burst(path: Path, pool_id: str, callers: int) -> float:
    """Milliseconds until all addresses of a burst are there."""
    return 1000 * converse(path, [requests(pool_id, BURST // callers) for _ in range(callers)]).seconds


def first(path: Path, pool_id: str) -> float:
    """Milliseconds of one request."""
    return 1000 * converse(path, [requests(pool_id, 1)]).seconds


def beginnings(measurement: Measurement, plugin: Plugin) -> None:
    """Measure how long a pool's first request waits, beside one of a pool without conflict detection."""
    times: dict[str, list[float]] = defaultdict(list)

    for number in range(measurement.number(10, 1)):

        def waits(when: str, probed: str, plain: str, number: int = number) -> None:
            ask(plugin.socket, "Plugin.Activate", {})  # the first call after a pause takes longer
            pools = {"probed": probed, "plain": plain}
            took = {which: first(plugin.socket, pools[which]) for which in by_turns(tuple(pools), number)}
            times[when].append(took["probed"] - took["plain"])

        time.sleep(0.5)  # the last pool's link is deleted by then
        with pool(plugin.socket, "off") as plain:
            with pool(plugin.socket, "on") as probed:
                waits("right after RequestPool", probed, plain)
            with pool(plugin.socket, "on") as probed:
                time.sleep(LATER)
                waits(f"{LATER} s after RequestPool", probed, plain)
                plugin.stop()
                first_answer(plugin)
                time.sleep(LATER)
                waits(f"{LATER} s after the start of the service", probed, plain)
        measurement.say(f"round {number + 1}: {', '.join(f'{each[-1]:.1f} ms' for each in times.values())}")
    for when, each in times.items():
        wanted = at_most(5) if str(LATER) in when else None
        measurement.figure(f"the first address, {when}, waits", spread(each), "ms", wanted)


def bursts(measurement: Measurement, plugin: Plugin, rows: list[list[Cell]]) -> None:
    """Measure two bursts in one pool, each beside one in a pool without conflict detection."""
    for form, callers in FORMS.items():
        times: dict[str, list[float]] = defaultdict(list)
        for number in range(measurement.number(10, 1)):
            with pool(plugin.socket, "on") as probed, pool(plugin.socket, "off") as plain:
                measurement.rest(1)
                pools = {"probed": probed, "plain": plain}
                for which in ("first", "second"):
                    took = {}
                    for each in by_turns(tuple(pools), number):
                        ask(plugin.socket, "Plugin.Activate", {})  # the first call after a pause takes longer
                        took[each] = burst(plugin.socket, pools[each], callers)
                    times[which].append(took["probed"] - took["plain"])
                    times["off"].append(took["plain"])
                    measurement.rest(PAUSE)
            measurement.say(
                f"{form}, round {number + 1}: {times['first'][-1]:.0f} and {times['second'][-1]:.0f} ms added"
            )
        rows.append([form, *(spread(times[each]).median for each in ("off", "first", "second"))])
        measurement.figure(
            f"a second burst of {BURST}, {form}: conflict detection adds",
            spread(times["second"]),
            "ms",
            at_most(50),
        )


def broadcasts(lan: Lan) -> int:
    """How many frames the host has sent on its NIC; nothing else speaks there."""
    (link,) = json.loads(lan.run_in("host", "ip", "-json", "-stats", "link", "show", "eth1"))
    return int(link["stats64"]["tx"]["packets"])


def rates(measurement: Measurement, lan: Lan, plugin: Plugin) -> None:
    """Measure how many different addresses a second are allocated when none is released, and what the LAN sees of it."""
    rows: list[list[Cell]] = []
    for callers in CALLERS:
        addresses, frames = [], []
        for number in range(measurement.number(5, 1)):
            with pool(plugin.socket, "on") as probed:
                measurement.rest(1)
                before, began = broadcasts(lan), time.monotonic()
                talks = [until(measurement.seconds, partial(requests, probed, 1)) for _ in range(callers)]
                timing = converse(plugin.socket, talks)
                frames.append((broadcasts(lan) - before) / (time.monotonic() - began))
                addresses.append(timing.rate)
            measurement.say(f"{callers} callers, round {number + 1}: {addresses[-1]:.0f} addresses a second")
        rows.append([callers, spread(addresses).median, spread(frames).median])
    columns = ("callers", "different addresses a second", "broadcasts a second on the LAN")
    measurement.table(
        "rates", "Addresses allocated with conflict detection, none of them released", columns, rows
    )


def run(measurement: Measurement) -> None:
    """Measure all of it."""
    rows: list[list[Cell]] = []
    with Lan() as lan, Plugin(lan, arguments=ARGUMENTS, preloaded=False) as plugin:
        beginnings(measurement, plugin)
        bursts(measurement, plugin, rows)
        rates(measurement, lan, plugin)
    columns = ("requests", "without detection ms", "first burst adds ms", "second burst adds ms")
    measurement.table("bursts", f"{BURST} addresses requested, twice", columns, rows)


PART = Part(
    "prefetch",
    "how long the first container of a network, and those of a burst, wait for probes",
    run,
    lambda _: missing_for_lan(),
)
