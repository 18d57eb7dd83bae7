"""Endpoint lives through the protocol, by callers that behave as an engine does, while the plugin is killed again and again."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from random import Random

from tests.lab.commands import attempt, run, wait_until, within
from tests.lab.docker_host import DockerHost
from tests.lab.engine import Engine
from tests.lab.lan import Lan
from tests.lab.plugin import Plugin
from tests.lab.requirements import missing_for_lan
from tests.torture.caller import Caller, Ledger, Net
from tests.torture.part import Part, TortureRun

LIVES, SHORT_LIVES, LEAST = 10_000, 500, 80
CALLERS = 8
MOST_GROWTH = 24 << 20
"""Bytes that memory may grow by within thousands of lives; the measured growth is reported as a figure."""
SUBNETS = ("192.168.77.0/24", "10.44.0.0/16", "10.45.0.0/16")
ARGUMENTS = (
    *("--host-interface", "eth1", "--gateway", "192.168.77.1", "--macvlan-subnet", SUBNETS[0]),
    *("--conflict-detection", "off"),
)


def nets() -> list[Net]:
    """Two that share our addresses, one with access from the host, one of an address management that is not ours."""
    return [
        Net(1, "eth1", SUBNETS[1], {}, is_ours=True),
        Net(2, "eth1", SUBNETS[1], {}, is_ours=True),
        Net(3, "eth1", SUBNETS[2], {"host_access": "true"}, is_ours=True),
        Net(4, "eth2", "10.46.0.0/16", {}, is_ours=False),
    ]


class ProcessUsage:
    """Descriptors, threads and memory of the plugin's process."""

    def __init__(self, plugin: Plugin) -> None:
        """Measure now."""
        proc = f"/proc/{plugin.service.pid}"
        self.descriptors = len(os.listdir(f"{proc}/fd"))
        self.threads = len(os.listdir(f"{proc}/task"))
        with open(f"{proc}/statm", encoding="ascii") as statm:
            self.memory = int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def live(
    plugin: Plugin,
    ledger: Ledger,
    networks: list[Net],
    torture: TortureRun,
    number: int,
    box: str,
    is_over: Callable[[], bool],
) -> list[Future[None]]:
    """Start callers that live *number* lives in total; return at once."""
    lan = plugin.lan
    pool = ThreadPoolExecutor(CALLERS)
    share = number // CALLERS

    def some(seed: int) -> None:
        caller = Caller(plugin, ledger, lan.namespace("host"), box, Random(seed))
        try:
            for _ in range(share):
                if is_over():
                    return
                caller.live(caller.random.choice(networks))
        finally:
            caller.close()

    begun = [pool.submit(some, torture.random.randrange(1 << 32)) for _ in range(CALLERS)]
    pool.shutdown(wait=False)
    return begun


def our_links(lan: Lan) -> set[str]:
    """The containers' links that are in the host's namespace."""
    return {name for name in lan.host_links() if name.startswith("mvt")}


def end_of(futures: list[Future[None]]) -> None:
    """Wait for the callers, and raise what they raised."""
    for each in futures:
        each.result()


def with_kills(plugin: Plugin, ledger: Ledger, networks: list[Net], torture: TortureRun, box: str) -> None:
    """The lives, while this thread kills the plugin about every second."""
    number = SHORT_LIVES if torture.short else LIVES
    until = torture.began + torture.seconds * 0.75  # so that there is some time for what follows

    def is_over() -> bool:
        return torture.is_over or (time.monotonic() > until and torture.tally.tried >= LEAST)

    futures = live(plugin, ledger, networks, torture, number, box, is_over)
    kills = 0
    while not all(each.done() for each in futures):
        time.sleep(torture.random.uniform(0.2, 1.8))
        plugin.kill()
        plugin.start()
        kills += 1
        torture.progress(
            number, f"{kills} kills, {len(ledger.forgotten_endpoints)} endpoints forgotten by the engine"
        )
    end_of(futures)
    torture.tally.figures["kills"] = f"{kills}"
    if torture.tally.tried < number // CALLERS * CALLERS:
        torture.tally.figures["not tried for want of time"] = f"{number - torture.tally.tried} lives"


def without_kills(plugin: Plugin, ledger: Ledger, networks: list[Net], torture: TortureRun, box: str) -> None:
    """More lives with one process, whose resources do not grow."""
    number = 200 if torture.short else 3000
    until = max(torture.began + torture.seconds, time.monotonic() + 15)

    def is_over() -> bool:
        return time.monotonic() > until

    end_of(live(plugin, ledger, networks, torture, number // 4, box, is_over))
    before, tried = at_rest(plugin), torture.tally.tried
    end_of(live(plugin, ledger, networks, torture, number, box, is_over))
    after = at_rest(plugin)
    grown = after.memory - before.memory
    torture.tally.figures["memory"] = (
        f"{before.memory >> 10} KiB, {grown >> 10:+} KiB after {torture.tally.tried - tried} more lives"
    )
    torture.tally.figures["descriptors, threads"] = (
        f"{before.descriptors}, {before.threads}; then {after.descriptors}, {after.threads}"
    )
    if after.descriptors > before.descriptors or after.threads > before.threads:
        torture.tally.leak(torture.tally.figures["descriptors, threads"])
    if grown > MOST_GROWTH:
        torture.tally.leak(f"memory: {torture.tally.figures['memory']}")


def at_rest(plugin: Plugin) -> ProcessUsage:
    """Measure the process when it is idle and has closed the callers' connections."""
    wait_until(lambda: not our_links(plugin.lan), 120, "the links' end")
    seen = [ProcessUsage(plugin)]

    def is_steady() -> bool:
        seen.append(ProcessUsage(plugin))
        return seen[-1].descriptors == seen[-2].descriptors and seen[-1].threads == seen[-2].threads

    within(60, is_steady, pause=0.5)
    return seen[-1]


def strangers(host: DockerHost, ledger: Ledger, networks: list[Net]) -> list[str]:
    """Rows of endpoints and addresses that the engine has no part in; the plugin must be stopped."""
    rows = host.rows()
    left = [f"endpoint {key}" for key, *_ in rows["endpoints"] if key not in ledger.forgotten_endpoints]
    known = {(net.pool, net.gateway) for net in networks} | ledger.forgotten_addresses
    unheard = [row for row in rows["addresses"] if "host" not in row and (row[0], row[1]) not in known]
    if len(unheard) > ledger.unheard_addresses:
        left += [f"address {row}" for row in unheard]
    return left


def roll_back(plugin: Plugin, ledger: Ledger, networks: list[Net], torture: TortureRun) -> None:
    """Exactly what the engine forgot is still there, and goes when the engine rolls it back."""
    plugin.stop()
    for each in strangers(DockerHost(Engine(plugin.lan), plugin), ledger, networks):
        torture.tally.leak(f"{each}, of which no call was cut off")
    plugin.start()
    torture.tally.figures["forgotten by the engine"] = (
        f"{len(ledger.forgotten_endpoints)} endpoints, {len(ledger.forgotten_addresses)} addresses, and of at most "
        f"{ledger.unheard_addresses} addresses it never heard"
    )
    caller = Caller(plugin, ledger, "", "", torture.random)
    caller.roll_back()
    caller.close()


def close(plugin: Plugin, networks: list[Net], torture: TortureRun, box: str) -> None:
    """Removing the networks removes the rest."""
    for net in networks:
        net.close(plugin)
    plugin.stop()
    for left in DockerHost(Engine(plugin.lan), plugin).remains():
        torture.tally.leak(left)
    for line in run("ip", "-n", box, "-o", "link").splitlines():
        if ": lo:" not in line:
            torture.tally.leak(f"in the sandbox: {line}")


def run_part(torture: TortureRun) -> None:
    """All of it."""
    ledger, networks = Ledger(torture.tally), nets()
    with Lan(nics=2) as lan, Plugin(lan, arguments=ARGUMENTS, preloaded=False) as plugin:
        box = f"{lan.tag}-box"
        run("ip", "netns", "add", box)
        try:
            for net in networks:
                net.open(plugin)
            with_kills(plugin, ledger, networks, torture, box)
            roll_back(plugin, ledger, networks, torture)
            without_kills(plugin, ledger, networks, torture, box)
            close(plugin, networks, torture, box)
        finally:
            attempt("ip", "netns", "delete", box)
    torture.tally.figures.update(ledger.summary())


PART = Part(
    "lives",
    "endpoints are created and removed through the protocol while the plugin is killed about once a second",
    run_part,
    short_seconds=60,
    seconds=900,
    missing=missing_for_lan,
    least=LEAST,
)
