"""What a user of Docker waits for, with our driver and with the engine's built-in one, pair by pair."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from tests.benchmark.arithmetic import by_turns, of_pairs, spread
from tests.benchmark.engine_api import Api, all_at_once, api_of
from tests.benchmark.part import Cell, Measurement, Part, at_most
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


OFF = (("conflict_detection", "off"), ("announce", "off"))
BUILTIN = Side("builtin", "built-in macvlan", "eth2", "10.2.0.0/16", driver="macvlan")
PLUGIN = Side("plugin", "plugin, Docker's IPAM", "eth3", "10.3.0.0/16")
MANAGED = Side(
    "managed", "plugin, its own IPAM", "eth4", "10.4.0.0/16", ipam=OURS, ipam_options=(("parent", "eth4"),)
)
PLUGIN_OFF = Side("plugin-off", "plugin, Docker's IPAM, LAN features off", "eth5", "10.5.0.0/16", options=OFF)
MANAGED_OFF = Side(
    "managed-off", "plugin, its own IPAM, LAN features off", "eth6", "10.6.0.0/16",
    ipam=OURS, options=OFF, ipam_options=(("conflict_detection", "off"),),
)  # fmt: skip
SIDES = (BUILTIN, PLUGIN, MANAGED, PLUGIN_OFF, MANAGED_OFF)
"""The LAN features are conflict detection and announcements, which are on by default."""
WANTED: dict[str, tuple[float, float]] = {
    "connect": (1.2, 1.05),
    "disconnect": (0.7, 0.7),
    "start": (1.02, 1.0),
    "removal": (0.8, 0.8),
    "many starts": (1.0, 1.0),
    "many removals": (1.0, 1.0),
}
"""Times the built-in driver's duration, at most: with the LAN features on, and off."""
AT_ONCE = 50


def defaults(engine: Engine) -> tuple[str, ...]:
    """Return the arguments of a service with all defaults on, beside an engine."""
    return ("--host-interface", "eth1", "--docker-host", engine.docker_host)


Times = dict[tuple[str, str], list[float]]
"""Seconds, by what was done and which side."""


def create_networks(api: Api, sides: Sequence[Side]) -> None:
    """Create the network of each side, and a running container that is not connected to it."""
    api.create_network(BASE, "bridge", "10.1.0.0/16", {})
    for side in sides:
        side.create(api)
        api.create_container(f"lasting-{side.name}", BASE)
        api.start(f"lasting-{side.name}")


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
    count = measurement.number(AT_ONCE, 3)
    for side in by_turns(sides, number):
        names = [f"many-{side.name}-{each}" for each in range(count)]
        with api_of(engine.socket) as api:
            for name in names:
                api.create_container(name, side.name)
        times[f"{count} starts", side.name].append(all_at_once(engine.socket, names, Api.start))
        times[f"{count} removals", side.name].append(all_at_once(engine.socket, names, Api.remove))
        measurement.say(f"{count} at once, {side.what}: {times[f'{count} starts', side.name][-1]:.1f} s")


def run(measurement: Measurement) -> None:
    """Compare."""
    times: Times = defaultdict(list)
    with Lan(nics=6) as lan, Engine(lan, measurement.engine) as engine:
        engine.load_busybox()
        with (
            Plugin(lan, engine.plugins_dir, inside=engine, arguments=defaults(engine), preloaded=False),
            api_of(engine.socket) as api,
        ):
            create_networks(api, SIDES)
            warm: Times = defaultdict(list)
            connect_and_disconnect(api, SIDES, 0, warm)
            start_and_remove(api, SIDES, 0, warm)
            for number in range(measurement.number(40, 2)):
                connect_and_disconnect(api, SIDES, number, times)
                if number % 10 == 9:
                    measurement.say(f"{number + 1} times connected and disconnected")
            for number in range(measurement.number(25, 1)):
                start_and_remove(api, SIDES, number, times)
                if number % 5 == 4:
                    measurement.say(f"{number + 1} times started and removed")
            for number in range(measurement.number(4, 1)):
                many(measurement, engine, SIDES, number, times)
            engine.clear()
    report(measurement, times)


def report(measurement: Measurement, times: Times) -> None:
    """Make figures and a table of what was measured."""
    rows: list[list[Cell]] = []
    acts = list(dict.fromkeys(act for act, _ in times))
    for act in acts:
        for side in SIDES:
            seconds = times[act, side.name]
            found = spread([each * 1000 for each in seconds])
            rows.append([act, side.what, found.median, found.low, found.high, len(seconds)])
    measurement.table(
        "acts",
        f"Docker Engine {measurement.engine}, milliseconds",
        ("operation", "network", "median", "lower quartile", "upper quartile", "runs"),
        rows,
    )
    for act in acts:
        most = WANTED[act if act in WANTED else f"many {act.partition(' ')[2]}"]
        for side in SIDES[1:]:
            ratio = of_pairs(times[act, side.name], times[act, BUILTIN.name])
            wanted = at_most(most[side in (PLUGIN_OFF, MANAGED_OFF)])
            measurement.figure(f"{act}: {side.what}, compared with built-in macvlan", ratio, "times", wanted)


PART = Part(
    "engine",
    "connect, disconnect, start, removal and 50 at once, compared with the engine's built-in macvlan driver",
    run,
    lambda measurement: missing_for_engine(measurement.engine),
)
