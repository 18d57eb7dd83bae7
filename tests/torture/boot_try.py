"""One order tried on one engine, in a process of its own: ``python -m tests.torture.boot_try ENGINE live|plain ORDER``."""

from __future__ import annotations

import json
import re
import sys
import time
import traceback
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field

from tests.lab.commands import within
from tests.lab.requirements import missing_for_dhcp
from tests.torture.boot_orders import BY_NAME, Order, live_on
from tests.torture.world_state import PAUSE, POLICIES, WorldState, populated_world

COLLECTION_SECONDS = 90.0
"""Seconds that the reconciler may take to remove what an engine has dropped silently: an endpoint goes after one grace
period, its address after another one.
"""
OUTCOME = "outcome: "
OF_US = re.compile(r"macvlan-twisted|remote|NetworkDriver|IpamDriver|macvlan_twisted|\bmv[th]")

NOBODY_LISTENED = (
    "Unable to locate plugin",
    "Unable to connect to plugin",
    "not found",
    "connection refused",
    "no such file or directory",
    "EOF",
    "connection reset by peer",
    "empty body",
)
"""What engines log of a plugin that is down, or is killed while it serves a call."""
NOT_COLLECTED_YET = "is in use by a container"
"""What engines log when a user asks for the address of a container that they have dropped silently."""


@dataclass
class Outcome:
    """The outcome of a try."""

    lost: list[str] = field(default_factory=list)
    leaked: list[str] = field(default_factory=list)
    collected: int = 0
    """Endpoints and addresses that were left to the reconciler."""
    taking: float = 0
    """Seconds that the order took, until engine and plugin answered."""
    until_running: float = 0
    """Seconds more until all that should run did."""


def complaints(log: str) -> list[str]:
    """Return what an engine's log says of us at level warning and above."""
    return [
        line
        for line in log.splitlines()
        if re.search(r"level=(warning|error|fatal|panic)|^panic|^fatal", line) and OF_US.search(line)
    ]


def live_through(world: WorldState, order: Order) -> Outcome:
    """Run an order, check all that must hold afterwards, and remove everything."""
    outcome = Outcome(world.lost, world.leaked)
    before_in_log = len(world.engine.dockerd.log())
    began = time.monotonic()
    order.take(world)
    outcome.taking = time.monotonic() - began
    check_log(world, order, world.engine.dockerd.log()[before_in_log:])
    before_in_log = len(world.engine.dockerd.log())

    began = time.monotonic()
    live_restore = world.engine.live_restore
    should = world.find(*order.should_run(live_restore)) - world.stopped
    if order.absent and not live_on(order.ending, live_restore):
        twins = {name for name in should if name.startswith("twin")}
        world.expect_running_at_least(twins, 90)
        start_forgotten(world, sorted(should - world.running()), order)
        should &= world.find(*POLICIES)
    world.expect_running(should, 90)
    outcome.until_running = time.monotonic() - began
    world.check_all_talk(each for each in world.specs if each.name in world.running())
    check_forgotten(world, order, outcome)

    rest = {each.name for each in world.specs if each.network} - world.running()
    start_forgotten(world, sorted(rest), order)
    world.check_all_talk(each for each in world.specs if each.network and each.name in world.running())

    world.remove_containers()
    check_log(world, order, world.engine.dockerd.log()[before_in_log:])
    check_forgotten(world, order, outcome)
    world.check_nothing_is_left()
    return outcome


def check_log(world: WorldState, order: Order, log: str) -> None:
    """The engine's log has no complaint except that nobody listened while the plugin was down."""
    for line in complaints(log):
        if order.forgets and NOT_COLLECTED_YET in line:
            continue
        if not (order.is_missed and any(word in line for word in NOBODY_LISTENED)):
            world.lost.append(f"the engine complains: {line}"[:600])


def start_forgotten(world: WorldState, names: Sequence[str], order: Order) -> None:
    """Start containers as a user does; a chosen address of ours may be taken until it is collected."""
    world.bring_up(names, COLLECTION_SECONDS if order.forgets else 0)


def check_forgotten(world: WorldState, order: Order, outcome: Outcome) -> None:
    """The plugin knows the endpoints and addresses that the engine knows, and no others."""
    left = world.forgotten()
    if order.forgets and left:
        outcome.collected = max(outcome.collected, len(left))
        within(COLLECTION_SECONDS, world.has_collected, pause=PAUSE)
        left = world.forgotten()
    world.leaked += [f"{each}, of which the engine does not know" for each in sorted(left)]


def main(arguments: Sequence[str]) -> int:
    """Try one order, and print its outcome as JSON in the last line."""
    version, restoring, name = arguments
    order = BY_NAME[name]
    try:
        with populated_world(
            version,
            live_restore=restoring == "live",
            socket_unit=order.socket_unit,
            dhcp=not missing_for_dhcp(),
            few=order.absent,
        ) as world:
            outcome = live_through(world, order)
            if outcome.lost or outcome.leaked:
                print(world.engine.dockerd.log(), world.plugin.log())
    except Exception as error:
        traceback.print_exc()
        outcome = Outcome([f"the try itself failed: {error}"[:600]])
    print(OUTCOME + json.dumps(asdict(outcome)), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:4]))
