"""Orders in which engine and plugin end and start, and which containers must run afterwards."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from enum import Enum
from functools import partial

from tests.lab.commands import Finished, wait_until
from tests.torture.world_state import OURS, POLICIES, ContainerSpec, WorldState

Step = Callable[[WorldState], None]


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
    take: Step
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


def then(*steps: Step) -> Step:
    """Make an order of its steps."""

    def take(world: WorldState) -> None:
        for step in steps:
            step(world)

    return take


def ended(how: str, *who: str) -> Step:
    """Make a step: these end so, one after the other."""
    return lambda world: end(world, how, *who)


def started(*who: str) -> Step:
    """Make a step: these start, one after the other."""
    return lambda world: start(world, *who)


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


def in_the_middle_of_starts(how: str) -> Step:
    """Make an order: the plugin ends while many containers are being started, and comes back."""

    def take(world: WorldState) -> None:
        created = " created on parent "
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


def while_containers_stop(absence: float | None) -> Step:
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


BOTH = ("engine", "plugin")
FIRST = ("plugin", "engine")


def ended_by(how: str) -> tuple[Order, ...]:
    """Return the orders in which engine, plugin or both end by SIGTERM (``stop``) or SIGKILL (``kill``)."""
    killed = how == "kill"
    ending = Ending.KILLED if killed else Ending.STOPPED
    one, both = ("is killed and starts", "both are killed") if killed else ("restarts", "both stop")
    middle = f"the plugin {'is killed' if killed else 'restarts'} in the middle of {NUMBER} starts"
    starts, end_both = in_the_middle_of_starts(how), ended(how, *BOTH)
    return (
        Order(f"plugin-{how}", f"the plugin {one}", then(ended(how, "plugin"), started("plugin"))),
        Order(f"starts-{how}", middle, starts, is_missed=True, forgets=killed),
        Order(
            f"starts-{how}-socket",
            f"{middle}, the socket stays",
            starts,
            socket_unit=True,
            is_missed=killed,
            forgets=killed,
        ),
        Order(f"engine-{how}", f"the engine {one}", then(ended(how, "engine"), started("engine")), ending),
        Order(f"both-{how}", f"{both}, the plugin starts first", then(end_both, started(*FIRST)), ending),
        Order(
            f"both-{how}-engine-first",
            f"{both}, the engine starts without the plugin",
            then(end_both, started(*BOTH)),
            ending,
            is_missed=True,
            absent=True,
            forgets=killed,
            seconds=110 if killed else 80,
        ),
        Order(
            f"both-{how}-engine-sooner",
            f"{both}, the engine starts 4 s before the plugin",
            then(end_both, start_the_plugin_a_little_later),
            ending,
            is_missed=True,
            seconds=40,
        ),
        Order(
            f"both-{how}-socket",
            f"{both}, the engine starts with the socket alone",
            then(end_both, start_both_by_the_socket),
            ending,
            socket_unit=True,
        ),
    )


ORDERS = (
    *ended_by("stop"),
    *ended_by("kill"),
    Order("reboot", "power is cut, the plugin starts first", then(cut_power, started(*FIRST)), Ending.POWER),
    Order(
        "reboot-other-index",
        "power is cut, the NIC gets another number, the plugin starts first",
        then(partial(cut_power, index=77), started(*FIRST)),
        Ending.POWER,
    ),
    Order(
        "reboot-engine-first",
        "power is cut, the engine starts without the plugin",
        then(cut_power, started(*BOTH)),
        Ending.POWER,
        is_missed=True,
        absent=True,
        forgets=True,
        seconds=110,
    ),
    Order(
        "reboot-socket",
        "power is cut, the engine starts with the socket alone",
        then(cut_power, start_both_by_the_socket),
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
        then(shut_down_at_once, started(*FIRST)),
        Ending.STOPPED,
        is_missed=True,
        seconds=60,
    ),
    Order(
        "shutdown-socket",
        "both get SIGTERM at once, the engine starts with the socket alone",
        then(shut_down_at_once, start_both_by_the_socket),
        Ending.STOPPED,
        socket_unit=True,
        is_missed=True,
        seconds=60,
    ),
)
BY_NAME = {order.name: order for order in ORDERS}
