"""Orders in which engine and plugin end and start, and which containers must run afterwards."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from enum import Enum

from tests.lab.commands import Finished, wait_until
from tests.torture.world_state import OURS, POLICIES, ContainerSpec, WorldState


class Ending(Enum):
    """How dockerd ends."""

    NONE = "goes on"
    STOPPED = "ends by SIGTERM"
    KILLED = "is killed"
    POWER = "loses power, with all else"


RUN_AFTER = {
    Ending.NONE: POLICIES,
    Ending.STOPPED: ("always", "unless-stopped", "on-failure"),
    Ending.KILLED: ("always", "on-failure"),
    Ending.POWER: ("always", "unless-stopped", "on-failure"),
}
"""The restart policies whose containers run again once the engine does. What somebody stopped never does.

An engine that was killed finds its containers alive and stops them, which counts as if somebody had asked for it:
``unless-stopped`` is over then. With live-restore they live on, except through a loss of power.
"""
NUMBER = 20
"""Containers that are being started while the plugin ends."""
TOO_LONG = 240.0
"""Seconds after which an engine that has not started or ended counts as hung."""


def live_on(ending: Ending, live_restore: bool) -> bool:
    """Say whether containers outlive their engine."""
    return ending is Ending.NONE or (live_restore and ending is not Ending.POWER)


@dataclass(frozen=True)
class Order:
    """One order of ends and beginnings."""

    name: str
    what: str
    take: Callable[[WorldState], None]
    ending: Ending = Ending.NONE
    socket_unit: bool = False
    """The plugin's socket is systemd's, and is there before and after the plugin."""
    is_missed: bool = False
    """The engine calls while nobody listens, and logs that."""
    absent: bool = False
    """The plugin is absent when the engine starts. What has to be started then fails, and the engine does not try it
    again: somebody has to."""
    forgets: bool = False
    """The engine drops endpoints silently. Only the reconciler finds them."""
    seconds: float = 30
    """About how long it takes."""

    def should_run(self, live_restore: bool) -> tuple[str, ...]:
        """Name the restart policies whose containers run in the end."""
        return POLICIES if live_on(self.ending, live_restore) else RUN_AFTER[self.ending]


def start_both_by_the_socket(world: WorldState, late: float = 3) -> None:
    """Start the engine while only the socket is there; the plugin comes some time after the first call."""
    unit = world.plugin.socket_unit
    assert unit is not None
    with ThreadPoolExecutor(1) as pool:
        starting = pool.submit(world.engine.start, seconds=TOO_LONG)
        if not unit.wait_for_call(60):
            world.lost.append("the engine did not call while only the socket was there")
        time.sleep(late)
        if late and starting.done():
            world.lost.append("the engine did not wait for the answer to its call")
        world.plugin.start(seconds=60)
        starting.result()


def start_the_plugin_a_little_later(world: WorldState, late: float = 4) -> None:
    """Start the engine, and within the fifteen seconds for which it tries the plugin, without a socket before."""
    with ThreadPoolExecutor(1) as pool:
        starting = pool.submit(world.engine.start, seconds=TOO_LONG)
        time.sleep(late)
        world.plugin.start(seconds=60)
        starting.result()


def start(world: WorldState, *who: str) -> None:
    """Start one after the other."""
    for each in who:
        if each == "engine":
            world.engine.start(seconds=TOO_LONG)
        else:
            world.plugin.start(seconds=60)


def end(world: WorldState, how: str, *who: str) -> None:
    """Stop or kill one after the other."""
    for each in who:
        one = world.engine if each == "engine" else world.plugin
        if how == "stop":
            one.stop(seconds=TOO_LONG)
        else:
            one.kill()


def after(how: str, ended: tuple[str, ...], started: tuple[str, ...]) -> Callable[[WorldState], None]:
    """Make an order: these end so, then those start."""

    def take(world: WorldState) -> None:
        end(world, how, *ended)
        start(world, *started)

    return take


def after_by_the_socket(how: str, *ended: str) -> Callable[[WorldState], None]:
    """Make an order: these end so, then both start, the engine first, with the socket there."""

    def take(world: WorldState) -> None:
        end(world, how, *ended)
        start_both_by_the_socket(world)

    return take


def after_a_little_later(how: str, *ended: str) -> Callable[[WorldState], None]:
    """Make an order: these end so, then both start, the plugin a little later than the engine."""

    def take(world: WorldState) -> None:
        end(world, how, *ended)
        start_the_plugin_a_little_later(world)

    return take


def cut_power(world: WorldState, index: int | None = None) -> None:
    """Cut the power: only the disk's contents survive."""
    world.plugin.kill()
    world.engine.cut_power()
    unit = world.plugin.socket_unit
    if unit is not None:
        unit.close()
    world.host.lan.reboot(world.host.place, index=index)
    if unit is not None:
        unit.open()


def reboot(*started: str, index: int | None = None) -> Callable[[WorldState], None]:
    """Make an order: power goes and comes, then those start."""

    def take(world: WorldState) -> None:
        cut_power(world, index)
        start(world, *started)

    return take


def reboot_by_the_socket(world: WorldState) -> None:
    """Power goes and comes; the socket is there before both."""
    cut_power(world)
    start_both_by_the_socket(world)


def in_the_middle_of_starts(how: str) -> Callable[[WorldState], None]:
    """Make an order: the plugin ends while many containers are being started, and comes back."""

    def take(world: WorldState) -> None:
        created = "macvlan port created"
        before = world.plugin.log().count(created)
        specs = [ContainerSpec(f"more-{number}", "no", OURS) for number in range(NUMBER)]

        def run(spec: ContainerSpec) -> Finished:
            words = (*spec.words(), "busybox", "sleep", "3600")
            return world.engine.attempt_docker("run", *words, timeout=TOO_LONG)

        with ThreadPoolExecutor(NUMBER) as pool:
            running = [pool.submit(run, each) for each in specs]
            wait_until(lambda: world.plugin.log().count(created) >= before + 4, 60, "starts under way")
            end(world, how, "plugin")
            start(world, "plugin")
            finished = [each.result() for each in running]
        for spec, each in zip(specs, finished, strict=True):
            if each.status == 0:
                world.specs.append(spec)
                continue
            world.engine.docker("rm", "--force", spec.name, check=False)
            # An engine repeats a call that was under way without its body.
            if how == "stop" or not any(
                word in each.stderr for word in ("empty body", "EOF", "reset by peer")
            ):
                world.lost.append(f"not started: {each.stderr.strip()}")

    return take


STOPPED_WITHOUT_US = ("ours-no", "ours-always", "ours-chosen", "dockers-chosen", "dhcp-always")


def while_containers_stop(absence: float | None) -> Callable[[WorldState], None]:
    """Make an order: containers stop while the plugin is away for some seconds, or (None) until they have stopped."""

    def take(world: WorldState) -> None:
        names = [each.name for each in world.specs if each.name in STOPPED_WITHOUT_US]
        world.plugin.stop()

        def stop(name: str) -> Finished:
            return world.engine.attempt_docker("stop", name, timeout=TOO_LONG)

        with ThreadPoolExecutor(len(names)) as pool:
            stopping = [pool.submit(stop, name) for name in names]
            if absence is not None:
                time.sleep(absence)
                world.plugin.start(seconds=60)
            for each in stopping:
                if each.result().status != 0:
                    world.lost.append(f"not stopped: {each.result().stderr.strip()}")
        if absence is None:
            world.plugin.start(seconds=60)
        world.stopped |= set(names)

    return take


def shut_down_at_once(world: WorldState) -> None:
    """Send SIGTERM to both at the same time, and wait for their end."""
    dockerd, service = world.engine.dockerd, world.plugin.service
    dockerd.send(signal.SIGTERM)
    service.send(signal.SIGTERM)
    for each in (service, dockerd):
        if (status := each.wait(120)) != 0:
            world.lost.append(f"{each.name} ended with status {status}")


def shutdown(*started: str) -> Callable[[WorldState], None]:
    """Make an order: both are asked to end at once, then those start."""

    def take(world: WorldState) -> None:
        shut_down_at_once(world)
        start(world, *started)

    return take


def shutdown_by_the_socket(world: WorldState) -> None:
    """Both are asked to end at once, and the socket stays, on which nobody answers any more."""
    shut_down_at_once(world)
    start_both_by_the_socket(world)


BOTH = ("engine", "plugin")
FIRST = ("plugin", "engine")
ORDERS = (
    Order("plugin-stop", "the plugin restarts", after("stop", ("plugin",), ("plugin",))),
    Order("plugin-kill", "the plugin is killed and starts", after("kill", ("plugin",), ("plugin",))),
    Order(
        "starts-stop",
        f"the plugin restarts in the middle of {NUMBER} starts",
        in_the_middle_of_starts("stop"),
        is_missed=True,
    ),
    Order(
        "starts-stop-socket",
        f"the plugin restarts in the middle of {NUMBER} starts, the socket stays",
        in_the_middle_of_starts("stop"),
        socket_unit=True,
    ),
    Order(
        "starts-kill",
        f"the plugin is killed in the middle of {NUMBER} starts",
        in_the_middle_of_starts("kill"),
        is_missed=True,
        forgets=True,
    ),
    Order(
        "starts-kill-socket",
        f"the plugin is killed in the middle of {NUMBER} starts, the socket stays",
        in_the_middle_of_starts("kill"),
        socket_unit=True,
        is_missed=True,
        forgets=True,
    ),
    Order("engine-stop", "the engine restarts", after("stop", ("engine",), ("engine",)), Ending.STOPPED),
    Order(
        "engine-kill",
        "the engine is killed and starts",
        after("kill", ("engine",), ("engine",)),
        Ending.KILLED,
    ),
    Order("both-stop", "both stop, the plugin starts first", after("stop", BOTH, FIRST), Ending.STOPPED),
    Order(
        "both-stop-engine-first",
        "both stop, the engine starts without the plugin",
        after("stop", BOTH, BOTH),
        Ending.STOPPED,
        is_missed=True,
        absent=True,
        seconds=80,
    ),
    Order(
        "both-stop-engine-sooner",
        "both stop, the engine starts 4 s before the plugin",
        after_a_little_later("stop", *BOTH),
        Ending.STOPPED,
        is_missed=True,
        seconds=40,
    ),
    Order(
        "both-stop-socket",
        "both stop, the engine starts with the socket alone",
        after_by_the_socket("stop", *BOTH),
        Ending.STOPPED,
        socket_unit=True,
    ),
    Order("both-kill", "both are killed, the plugin starts first", after("kill", BOTH, FIRST), Ending.KILLED),
    Order(
        "both-kill-engine-first",
        "both are killed, the engine starts without the plugin",
        after("kill", BOTH, BOTH),
        Ending.KILLED,
        is_missed=True,
        absent=True,
        forgets=True,
        seconds=110,
    ),
    Order(
        "both-kill-engine-sooner",
        "both are killed, the engine starts 4 s before the plugin",
        after_a_little_later("kill", *BOTH),
        Ending.KILLED,
        is_missed=True,
        seconds=40,
    ),
    Order(
        "both-kill-socket",
        "both are killed, the engine starts with the socket alone",
        after_by_the_socket("kill", *BOTH),
        Ending.KILLED,
        socket_unit=True,
    ),
    Order("reboot", "power is cut, the plugin starts first", reboot(*FIRST), Ending.POWER),
    Order(
        "reboot-other-index",
        "power is cut, the NIC gets another number, the plugin starts first",
        reboot(*FIRST, index=77),
        Ending.POWER,
    ),
    Order(
        "reboot-engine-first",
        "power is cut, the engine starts without the plugin",
        reboot(*BOTH),
        Ending.POWER,
        is_missed=True,
        absent=True,
        forgets=True,
        seconds=110,
    ),
    Order(
        "reboot-socket",
        "power is cut, the engine starts with the socket alone",
        reboot_by_the_socket,
        Ending.POWER,
        socket_unit=True,
    ),
    Order(
        "away-while-stopping",
        "containers stop while the plugin is down",
        while_containers_stop(None),
        is_missed=True,
        forgets=True,
        seconds=110,
    ),
    Order(
        "back-in-time",
        "containers stop while the plugin is down for 8 s",
        while_containers_stop(8),
        is_missed=True,
        seconds=40,
    ),
    Order(
        "shutdown",
        "both get SIGTERM at once, the plugin starts first",
        shutdown(*FIRST),
        Ending.STOPPED,
        is_missed=True,
        seconds=60,
    ),
    Order(
        "shutdown-socket",
        "both get SIGTERM at once, the engine starts with the socket alone",
        shutdown_by_the_socket,
        Ending.STOPPED,
        socket_unit=True,
        is_missed=True,
        seconds=60,
    ),
)
BY_NAME = {order.name: order for order in ORDERS}
