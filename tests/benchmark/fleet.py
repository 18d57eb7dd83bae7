"""What a fleet costs: an address from the reserve, claims in etcd, what each host hears of the others, and an outage."""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from tests.benchmark.addresses import QUIET, request_pool
from tests.benchmark.arithmetic import of_pairs, percentile, spread
from tests.benchmark.callers import Talk, call, converse
from tests.benchmark.part import Cell, Measurement, Part, at_least, at_most
from tests.benchmark.processes import first_answer, memory
from tests.lab import fleet as lab
from tests.lab.commands import wait_until
from tests.lab.daemons import Daemon
from tests.lab.etcd import Cluster
from tests.lab.lan import Lan
from tests.lab.plugin import CHECKOUT, Plugin
from tests.lab.requirements import missing_for_etcd

POOL = "10.0.0.0/8"
HOSTS = 100
PAUSES = {"four a second": 0.25, "without a pause": 0.0}
"""Seconds from one container to the next. An engine takes longer than the first for each."""
OUTAGE = 5.0
"""Seconds."""
NO_DISK = ("--unsafe-no-fsync",)
"""etcd is usually on other machines: here its members must not wait for the disk of the hosts, nor the hosts for theirs."""
PATIENCE = 60.0
"""Seconds within which a host has joined."""


def arguments(cluster: Cluster, name: str) -> tuple[str, ...]:
    """Return the options of a host of the fleet."""
    return (*QUIET, "--fleet", lab.location(cluster), "--fleet-host", name)


@contextmanager
def clients(lan: Lan, cluster: Cluster, work: str, hosts: int, number: int) -> Iterator[Daemon]:
    """Many light hosts, in the place of the neighbour."""
    program = (sys.executable, "-m", "tests.benchmark.fleet_clients", work, lab.location(cluster))
    environment = {**os.environ, "PYTHONPATH": str(CHECKOUT)}
    daemon = Daemon(
        work,
        (*lan.enter("neighbour"), *program, str(hosts), str(number)),
        stdout=subprocess.PIPE,
        env=environment,
    )
    daemon.start()
    try:
        yield daemon
    finally:
        daemon.kill()


def told(daemon: Daemon) -> dict[str, Any]:
    """Return the next report of the clients."""
    line = daemon.stdout.readline()
    if not line:
        raise RuntimeError(f"the clients have ended:\n{daemon.log()}")
    answer: dict[str, Any] = json.loads(line)
    return answer


def empty(cluster: Cluster) -> None:
    """Delete all keys of the fleet."""
    cluster.etcdctl("del", "--prefix", lab.PREFIX)


# An address for a container.


def requests(pool_id: str, number: int, pause: float) -> Talk:
    """So many containers start and end."""
    for _ in range(number):
        time.sleep(pause / 2)
        answer = yield call("IpamDriver.RequestAddress", {"PoolID": pool_id, "Address": "", "Options": {}})
        address = str(json.loads(answer)["Address"]).partition("/")[0]
        time.sleep(pause / 2)
        yield call("IpamDriver.ReleaseAddress", {"PoolID": pool_id, "Address": address})


def milliseconds(path: Path, pool_id: str, number: int, pause: float) -> float:
    """Return the median of RequestAddress."""
    timing = converse(path, [requests(pool_id, number, pause)])
    return 1000 * spread(timing.latencies["IpamDriver.RequestAddress"]).median


def addresses(measurement: Measurement, lan: Lan, cluster: Cluster) -> None:
    """Measure RequestAddress with and without a fleet, by turns."""
    rows: list[list[Cell]] = []
    with (
        Plugin(lan, arguments=QUIET, preloaded=False) as alone,
        Plugin(lan, place="host2", arguments=arguments(cluster, "measured"), preloaded=False) as shared,
    ):
        pools = {plugin: request_pool(plugin.socket, POOL) for plugin in (alone, shared)}
        wait_until(lambda: len(lab.entries(cluster)) >= 8, 20, "a reserve")
        for title, pause in PAUSES.items():
            times: dict[Plugin, list[float]] = {alone: [], shared: []}
            number = max(5, int(measurement.seconds / max(pause, 0.02)))
            for _ in range(measurement.number(12, 3)):
                for plugin, pool_id in pools.items():
                    times[plugin].append(milliseconds(plugin.socket, pool_id, number, pause))
            ratio = of_pairs(times[shared], times[alone])
            rows.append([title, *(spread(times[each]).median for each in pools), ratio.median])
            measurement.figure(
                f"RequestAddress of a host in a fleet, relative, containers {title}",
                ratio,
                "times",
                at_most(1.05) if pause else None,
            )
    columns = ("containers", "without a fleet ms", "in a fleet ms", "ratio")
    measurement.table("requests", "RequestAddress with an address that was claimed ahead", columns, rows)


# Many hosts.


def claims(measurement: Measurement, lan: Lan, cluster: Cluster) -> None:
    """Measure how many addresses all hosts together can claim."""
    number = measurement.number(5_000, 500)
    rates, slowest = [], []
    for _ in range(measurement.number(5, 1)):
        empty(cluster)
        with clients(lan, cluster, "claim", HOSTS, number) as daemon:
            found = told(daemon)
        rates.append(number / found["seconds"])
        slowest.append(1000 * percentile(found["waits"], 99))
    measurement.figure(f"addresses that {HOSTS} hosts claim", spread(rates), "per second", at_least(200))
    measurement.figure("one claim meanwhile, 99th percentile", spread(slowest), "ms", at_most(1000))


def received(lan: Lan, place: str) -> int:
    """Return the bytes that a place has received."""
    return int(
        json.loads(lan.run_in(place, "ip", "-json", "-statistics", "link", "show", "eth1"))[0]["stats64"][
            "rx"
        ]["bytes"]
    )


def traffic(measurement: Measurement, lan: Lan, cluster: Cluster) -> None:
    """Measure what a change costs each host that follows."""
    number = measurement.number(500, 50)
    costs, times = [], []
    for _ in range(measurement.number(5, 1)):
        empty(cluster)
        with clients(lan, cluster, "follow", HOSTS, number) as daemon:
            told(daemon)
            before = received(lan, "neighbour")
            found = told(daemon)
            costs.append((received(lan, "neighbour") - before) / number / HOSTS)
        times.append(1e6 * found["processor"] / number / HOSTS)
    measurement.figure(
        "bytes that a host receives for a change of another one", spread(costs), "bytes", at_most(2000)
    )
    measurement.figure("processor time of a host for it", spread(times), "microseconds", at_most(1000))


def outage(measurement: Measurement, lan: Lan, cluster: Cluster) -> None:
    """Measure how soon all hosts are back after an outage."""
    rounds = measurement.number(5, 1)
    empty(cluster)
    times = []
    with clients(lan, cluster, "connect", HOSTS, rounds + 1) as daemon:
        told(daemon)
        for _ in range(rounds):
            for member in cluster.members:
                member.kill()
            told(daemon)
            time.sleep(OUTAGE)
            cluster.start()
            began = time.monotonic()
            told(daemon)
            times.append(time.monotonic() - began)
            measurement.say(f"{HOSTS} hosts were back after {times[-1]:.1f} s")
    measurement.figure(
        f"after an outage of {OUTAGE:g} s, all of {HOSTS} hosts are back", spread(times), "s", at_most(30)
    )


# Many addresses.


def joins(plugin: Plugin) -> int:
    """Count how often a host has joined the fleet."""
    return plugin.log().count("fleet: connected as host")


def sizes(measurement: Measurement, lan: Lan, cluster: Cluster) -> None:
    """Measure a host in fleets with few and many addresses."""
    most = measurement.number(10_000, 2_000)
    rows: list[list[Cell]] = []
    resident: dict[int, float] = {}
    for number in (0, most):
        empty(cluster)
        if number:
            with clients(lan, cluster, "claim", HOSTS, number) as daemon:
                told(daemon)
        answered, joined, used = [], [], []
        with (
            tempfile.TemporaryDirectory(prefix=f"{lan.tag}-") as compiled,
            Plugin(
                lan,
                arguments=arguments(cluster, f"among-{number}"),
                preloaded=False,
                environment={"PYTHONPYCACHEPREFIX": compiled, "PYTHONDONTWRITEBYTECODE": ""},
            ) as plugin,
        ):
            request_pool(plugin.socket, POOL)
            for _ in range(measurement.number(5, 2)):
                plugin.stop()
                before, began = joins(plugin), time.monotonic()
                answered.append(first_answer(plugin))
                while joins(plugin) == before and time.monotonic() - began < PATIENCE:
                    time.sleep(0.01)
                joined.append(time.monotonic() - began)
                time.sleep(2)  # it goes on to import a library in a thread
                used.append(memory(plugin.service.pid).resident / 1e6)
        resident[number] = spread(used).median
        rows.append([number, spread(answered).median, spread(joined).median, resident[number]])
        measurement.figure(
            f"first reply, {number:,} addresses in the fleet", spread(answered), "s", at_most(0.8)
        )
        measurement.figure(f"in the fleet, {number:,} addresses in it", spread(joined), "s", at_most(3))
    grown = (resident[most] - resident[0]) * 1e6 / most
    measurement.figure("memory per address of the fleet", grown, "bytes", at_most(2000))
    columns = ("addresses in the fleet", "first reply s", "in the fleet after s", "memory MB")
    measurement.table("sizes", "Start and memory of a host, by the addresses of all hosts", columns, rows)


def run(measurement: Measurement) -> None:
    """Measure all of it."""
    with ExitStack() as stack:
        lan = stack.enter_context(Lan(hosts=2))
        cluster = stack.enter_context(Cluster(lan, ("gateway",) * 3, arguments=NO_DISK))
        for part in (addresses, claims, traffic, outage, sizes):
            empty(cluster)
            part(measurement, lan, cluster)


PART = Part(
    "fleet",
    "what a fleet of hosts costs: addresses, claims, changes of other hosts, memory, and the return after an outage",
    run,
    lambda _: missing_for_etcd(),
)
