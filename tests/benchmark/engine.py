"""What a user of Docker waits for, with our driver and with the engine's builtin one, pair by pair."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from tests.benchmark.arithmetic import of_pairs, spread
from tests.benchmark.engine_api import Api, all_at_once, api_of
from tests.benchmark.part import Cell, Measurement, Part, Wanted, at_most
from tests.lab.engine import Engine
from tests.lab.lan import Lan
from tests.lab.plugin import Plugin
from tests.lab.requirements import missing_for_engine

OURS = "macvlan-twisted"
BASE = "base"


@dataclass(frozen=True)
class Side:
    """One of those that are compared: a network of its own, on a NIC of its own."""

    name: str
    what: str
    parent: str
    subnet: str
    driver: str = OURS
    ipam: str = "default"
    options: tuple[tuple[str, str], ...] = ()
    ipam_options: tuple[tuple[str, str], ...] = ()

    def create(self, api: Api) -> None:
        """Create the network."""
        options = {"parent": self.parent, **dict(self.options)}
        api.create_network(self.name, self.driver, self.subnet, options, self.ipam, dict(self.ipam_options))


BUILTIN = Side("builtin", "builtin macvlan", "eth2", "10.2.0.0/16", driver="macvlan")
PLUGIN = Side("ours", "ours", "eth3", "10.3.0.0/16")
MANAGED = Side("managed", "ours, our addresses", "eth4", "10.4.0.0/16", ipam=OURS)
SIDES = (BUILTIN, PLUGIN, MANAGED)
ACTS: dict[str, Wanted] = {
    "connect": at_most(1.05),
    "disconnect": at_most(0.75),
    "start": at_most(1.02),
    "removal": at_most(0.9),
}
AT_ONCE = 50

QUIET = ("--host-interface", "eth1", "--conflict-detection", "off", "--announce", "no")

Times = dict[tuple[str, str], list[float]]
"""Seconds, by what was done and which side."""


def by_turns(sides: Sequence[Side], number: int) -> Sequence[Side]:
    """Return the sides in another order each time: what comes first has no advantage of it."""
    return [*sides[number % len(sides) :], *sides[: number % len(sides)]]


def connect_and_disconnect(api: Api, sides: Sequence[Side], number: int, times: Times) -> None:
    """Connect a running container of each side, and disconnect it."""
    for side in by_turns(sides, number):
        times["connect", side.name].append(api.connect(f"lasting-{side.name}", side.name))
        times["disconnect", side.name].append(api.disconnect(f"lasting-{side.name}", side.name))


def start_and_remove(api: Api, sides: Sequence[Side], number: int, times: Times) -> None:
    """Start a container of each side, and remove it."""
    for side in by_turns(sides, number):
        name = f"brief-{side.name}"
        api.create_container(name, side.name)
        times["start", side.name].append(api.start(name))
        times["removal", side.name].append(api.remove(name))


def many(measurement: Measurement, engine: Engine, sides: Sequence[Side], number: int, times: Times) -> None:
    """Start many containers at once, and remove them."""
    count = measurement.number(AT_ONCE, 5)
    for side in by_turns(sides, number):
        names = [f"many-{side.name}-{each}" for each in range(count)]
        with api_of(engine.socket) as api:
            for name in names:
                api.create_container(name, side.name)
        times["many started", side.name].append(all_at_once(engine.socket, names, Api.start))
        times["many removed", side.name].append(all_at_once(engine.socket, names, Api.remove))
        measurement.say(f"{count} at once, {side.what}: {times['many started', side.name][-1]:.1f} s")


def run(measurement: Measurement) -> None:
    """Compare."""
    times: Times = defaultdict(list)
    with Lan(nics=4) as lan, Engine(lan, measurement.engine) as engine:
        engine.load_busybox()
        with (
            Plugin(lan, engine.plugins_dir, inside=engine, arguments=QUIET, preloaded=False),
            api_of(engine.socket) as api,
        ):
            api.create_network(BASE, "bridge", "10.1.0.0/16", {})
            for side in SIDES:
                side.create(api)
                name = f"lasting-{side.name}"
                api.create_container(name, BASE)
                api.start(name)
            warm: Times = defaultdict(list)
            connect_and_disconnect(api, SIDES, 0, warm)
            start_and_remove(api, SIDES, 0, warm)
            for number in range(measurement.number(60, 5)):
                connect_and_disconnect(api, SIDES, number, times)
                if number % 10 == 9:
                    measurement.say(f"{number + 1} times connected and disconnected")
            for number in range(measurement.number(40, 3)):
                start_and_remove(api, SIDES, number, times)
                if number % 10 == 9:
                    measurement.say(f"{number + 1} times started and removed")
            for number in range(measurement.number(6, 1)):
                many(measurement, engine, SIDES, number, times)
            engine.clear()
    tell(measurement, times)


def tell(measurement: Measurement, times: Times) -> None:
    """Make figures and a table of what was measured."""
    rows: list[list[Cell]] = []
    for act, side in times:
        found = spread([each * 1000 for each in times[act, side]])
        what = next(each.what for each in SIDES if each.name == side)
        rows.append([act, what, found.median, found.low, found.high, len(times[act, side])])
    measurement.table(
        "acts",
        f"Docker Engine {measurement.engine}, milliseconds",
        ("what", "driver", "median", "middle half from", "to", "times"),
        rows,
    )
    for act, wanted in {**ACTS, "many started": at_most(1.0), "many removed": at_most(1.0)}.items():
        for mine, wished in ((PLUGIN, wanted), (MANAGED, None)):
            ratio = of_pairs(times[act, mine.name], times[act, BUILTIN.name])
            measurement.figure(f"{act}, {mine.what}, beside the builtin driver", ratio, "times", wished)


PART = Part(
    "engine",
    "connect, disconnect, start, removal and 50 at once, beside the engine's builtin macvlan driver",
    run,
    lambda measurement: missing_for_engine(measurement.engine),
)
