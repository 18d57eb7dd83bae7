"""RequestAddress and ReleaseAddress: how many a second, and what it costs that others are taken."""

import json
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import ip_address, ip_network
from pathlib import Path

from macvlan_twisted.state.interfaces import Allocation
from tests.benchmark.arithmetic import of_pairs, spread
from tests.benchmark.callers import Talk, Timing, ask, call, converse, until
from tests.benchmark.filling import fill_addresses
from tests.benchmark.part import Cell, Measurement, Part, at_least, at_most
from tests.benchmark.processes import first_answer, memory
from tests.lab.lan import Lan
from tests.lab.plugin import Plugin
from tests.lab.requirements import missing_for_lan

QUIET = ("--host-interface", "eth1", "--conflict-detection", "off", "--docker-host", "none")
POOLS = {"/8": "10.0.0.0/8", "/64": "fd99::/64"}
TAKEN = (0, 10_000, 1_000_000)
CALLERS = (1, 16)


def claims(pool_id: str, pool: str, number: int) -> Iterator[Allocation]:
    """The allocations of a pool's first addresses."""
    first = ip_network(pool).network_address + 2
    return (Allocation(pool_id, first + each, "endpoint") for each in range(number))


def request_pool(path: Path, pool: str) -> str:
    """Open a pool, and return its id."""
    body = {
        "AddressSpace": "MacvlanTwistedLocal", "Pool": pool, "SubPool": "", "Options": {},
        "V6": ip_network(pool).version == 6,
    }  # fmt: skip
    return str(ask(path, "IpamDriver.RequestPool", body)["PoolID"])


def one_address(pool_id: str) -> Talk:
    """An address that is requested and released."""
    answer = yield call("IpamDriver.RequestAddress", {"PoolID": pool_id, "Address": "", "Options": {}})
    address = str(json.loads(answer)["Address"]).partition("/")[0]
    yield call("IpamDriver.ReleaseAddress", {"PoolID": pool_id, "Address": str(ip_address(address))})


def calls(path: Path, pool_id: str, callers: int, seconds: float) -> Timing:
    """Request and release for so long."""
    return converse(path, [until(seconds, lambda: one_address(pool_id)) for _ in range(callers)])


@contextmanager
def filled(lan: Lan, pool: str, number: int) -> Iterator[tuple[Plugin, str]]:
    """A service in whose pool so many addresses are taken; and the pool's id."""
    with Plugin(lan, arguments=QUIET, preloaded=False) as plugin:
        pool_id = request_pool(plugin.socket, pool)
        plugin.stop(seconds=60)
        fill_addresses(plugin.state_dir, claims(pool_id, pool, number))
        yield plugin, pool_id


def told_of(callers: int) -> str:
    """Return a number of callers as words."""
    return f"{callers} caller{'s' if callers > 1 else ''}"


def grow(measurement: Measurement, lan: Lan, family: str, rows: list[list[Cell]]) -> None:
    """Measure one pool with few and with many addresses taken, by turns."""
    pool = POOLS[family]
    most = measurement.number(TAKEN[-1], 20_000)
    rates: dict[tuple[int, int], list[float]] = defaultdict(list)
    with (
        filled(lan, pool, TAKEN[0]) as none,
        filled(lan, pool, TAKEN[1]) as some,
        filled(lan, pool, most) as many,
    ):
        running = {TAKEN[0]: none, TAKEN[1]: some, most: many}
        started, rested = {}, {}
        for taken, (plugin, _) in running.items():
            began = time.monotonic()
            started[taken] = first_answer(plugin, seconds=120)
            rested[taken] = memory(plugin.service.pid).resident
            measurement.say(f"{family}: {taken} allocated, ready in {time.monotonic() - began:.1f} s")
        for number in range(measurement.number(6, 1)):
            for callers in CALLERS:
                for taken, (plugin, pool_id) in running.items():
                    timing = calls(plugin.socket, pool_id, callers, measurement.seconds / 2)
                    rates[taken, callers].append(timing.rate)
                    measurement.client.append(timing.client)
            told = ", ".join(f"{taken} allocated {rates[taken, 1][-1]:.0f}" for taken in running)
            measurement.say(f"{family}, round {number + 1}: {told} calls/s from one caller")
        for taken in running:
            each_bytes = (rested[taken] - rested[0]) / taken if taken else 0.0
            one, sixteen = (spread(rates[taken, callers]).median for callers in CALLERS)
            rows.append([family, taken, one, sixteen, started[taken], rested[taken] / 1e6, each_bytes])
        if family == "/8":
            for callers, wanted in zip(CALLERS, (1500, 4000), strict=True):
                rate = spread(rates[0, callers])
                measurement.figure(f"calls, {told_of(callers)}", rate, "per second", at_least(wanted))
        for callers in CALLERS:
            cost = of_pairs(rates[0, callers], rates[most, callers])
            measurement.figure(
                f"relative cost with {most:,} allocated in a {family}, {told_of(callers)}",
                cost,
                "times",
                at_most(1.3),
            )
        each_bytes = (rested[most] - rested[0]) / most
        measurement.figure(f"memory per address in a {family}", each_bytes, "bytes", at_most(150))
        measurement.figure(f"start with {most:,} allocated in a {family}", started[most], "s")


def run(measurement: Measurement) -> None:
    """Measure both families."""
    rows: list[list[Cell]] = []
    with Lan() as lan:
        for family in POOLS:
            grow(measurement, lan, family, rows)
    columns = (
        "pool",
        "allocated",
        "1 caller, calls/s",
        "16 callers, calls/s",
        "start s",
        "memory MB",
        "bytes per address",
    )
    measurement.table(
        "growth", "RequestAddress and ReleaseAddress, by the number of allocated addresses", columns, rows
    )


PART = Part(
    "addresses",
    "addresses requested and released per second, with few and with a million allocated",
    run,
    lambda _: missing_for_lan(),
)
