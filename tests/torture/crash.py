"""
Killed at any instant: SIGKILL before and after every step that the program takes, in every scenario.

Each scenario is played once to learn its steps. Then it is played again for each of them: the program kills itself
there, is started again, the engine does one of the things that engines do next, the invariants are checked, a new life
is lived, all is taken down, and the invariants are checked once more.
"""

import shutil
import time
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass
from random import Random

from macvlan_twisted.steps import all_steps
from tests.lab.commands import attempt
from tests.lab.lan import Lan
from tests.torture.docker import REACTIONS, Docker, Refused
from tests.torture.invariants import Findings, compare, foreign, read_state, settle
from tests.torture.part import Ordeal, Part
from tests.torture.scenarios import DEFAULTS, SCENARIOS, Scenario, Wish, dhcp_server
from tests.torture.world import Cut, Rule, World


@dataclass(frozen=True)
class Point:
    """Where the program is killed."""

    scenario: Scenario
    step: str
    occurrence: int
    is_done: bool

    def __str__(self) -> str:
        when = "after" if self.is_done else "before"
        return f"{self.scenario.name}: {when} {self.step} ({self.occurrence})"

    @property
    def rule(self) -> Rule:
        """For the life that is killed."""
        return {"step": self.step, "occurrence": self.occurrence, "done": self.is_done, "kill": True}


class Unsupported(Exception):
    """This kernel cannot play a scenario."""


class Stage:
    """The world with everything that is foreign in it, and scenarios on it."""

    def __init__(self, world: World, ordeal: Ordeal) -> None:
        self.world = world
        self.ordeal = ordeal
        self.dhcp = dhcp_server(world.lan)

    def prepare(self, undo: ExitStack) -> None:
        """Put foreign things into the host, and start the LAN's DHCP server."""
        lan = self.world.lan
        for words in (
            "link add mvt0123456789ab link eth2 type macvlan mode bridge",
            "link set mvt0123456789ab alias foreign up",
            "link add stranger type veth peer name stranger2",
            "link set stranger up",
            "address add 10.99.0.1/24 dev stranger",
            "route add 10.98.0.0/24 via 192.168.77.1 dev eth1",
            "route add 10.97.0.1/32 dev stranger proto 99",
        ):
            lan.run_in("host", "ip", *words.split())
        undo.enter_context(self.dhcp)

    def docker(self, scenario: Scenario, random: Random, reaction: str, version: int) -> Docker:
        """An engine for one try."""
        return Docker(self.world, random, reaction, version)

    def record(self, scenario: Scenario) -> list[Point]:
        """Play a scenario undisturbed, and return where it can be killed."""
        with self.world.try_out(*DEFAULTS, *scenario.arguments):
            docker = Docker(self.world, Random(0), version=29)
            docker.up()
            try:
                scenario.play(docker, scenario.wish)
            except Refused as refused:
                if "support" in str(refused):
                    raise Unsupported(str(refused)) from None
                raise
            self.world.stop()
            if docker.wrong:
                raise RuntimeError(f"{scenario.name}: {docker.wrong}\n{self.world.log()}")
            told = self.world.told(scenario.life)
        points = []
        for line in told:
            step, occurrence, when = line.split()
            points.append(Point(scenario, step, int(occurrence), when == "after"))
        return points

    def crash(self, point: Point, random: Random) -> tuple[str, Findings, bool]:
        """Kill the program there; returns what the engine did then, what does not hold, and whether it was killed."""
        scenario, world = point.scenario, self.world
        reaction, version = random.choice(REACTIONS), random.choice((20, 29))
        before = foreign(world)
        with world.try_out(*DEFAULTS, *scenario.arguments):
            docker = Docker(world, random, reaction, version)
            docker.rules_of_life = lambda life: (point.rule,) if life == scenario.life else ()
            found = Findings()
            try:
                docker.up()
                try:
                    scenario.play(docker, scenario.wish)
                except Cut:
                    pass
                if scenario.stops or world.wait(0) is not None:
                    world.wait(10)
                was_killed = f"{point.step} {point.occurrence} {'after' if point.is_done else 'before'}" in (
                    world.told(scenario.life)
                )
                if not world.pid:
                    docker.rules_of_life = lambda life: ()
                    docker.up()
                docker.rules_of_life = lambda life: ()
                found = settle(lambda: compare(world, docker))
                if not found:
                    self._again(docker, scenario)
                    found = settle(lambda: compare(world, docker))
                    found.lost += [f"at the end: {each}" for each in self._ended(docker)]
            except (Refused, Cut, RuntimeError, TimeoutError) as error:
                found.lost.append(f"{type(error).__name__}: {error}")
                was_killed = True
            found.lost += docker.wrong
            log = world.log()
            for line in log.splitlines():
                if "Traceback" in line or "bug" in line or "Unhandled" in line:
                    found.lost.append(f"in the log: {line}")
            if found:
                self._keep(point, reaction, version)
        after = foreign(world)
        found.lost += [f"foreign: {each} is no more what it was" for each in before if after.get(each) != before[each]]
        found.lost += [f"foreign: {each} was not there before" for each in after if each not in before]
        return f"{reaction}, engine {version}", found, was_killed

    def _again(self, docker: Docker, scenario: Scenario) -> None:
        """A new life, on the same network if the engine has it still; then everything goes."""
        if scenario.wish.options.get("macvlan_mode") == "passthru":
            docker.take_down()
            if any(each[0] in ("network", "endpoint") for each in docker.beliefs.excused):
                return  # its parent may be taken
        nets = list(docker.beliefs.networks.values())
        net = nets[0] if nets else docker.create_network(scenario.wish)
        container = docker.start(net, name="new")
        docker.stop(container)
        docker.take_down()

    def _ended(self, docker: Docker) -> list[str]:
        """Stop it in an orderly way, and look at what is left on disk and in the DHCP server's mind."""
        world = self.world
        wrong = []
        status = world.stop()
        if status != 0:
            wrong.append(f"it stopped with status {status}")
        left = sorted(each.name for each in world.state.iterdir())
        if left != ["generation", "state.sqlite"]:
            wrong.append(f"the state directory holds {left}")
        left = sorted(each.name for each in world.socket.parent.iterdir())
        if left:
            wrong.append(f"the socket's directory holds {left}")
        return wrong

    def _keep(self, point: Point, reaction: str, version: int) -> None:
        """Keep the last log of a try that was not survived, for whoever has to find out."""
        shutil.copy(self.world.log_file, f"/tmp/mt-crash-{self.ordeal.tally.tried}.log")


def run(ordeal: Ordeal) -> None:
    """Kill it everywhere."""
    with ExitStack() as undo:
        lan = undo.enter_context(Lan(nics=2))
        world = undo.enter_context(World(lan))
        stage = Stage(world, ordeal)
        stage.prepare(undo)
        points: list[Point] = []
        lacking: dict[str, str] = {}
        began = time.monotonic()
        for scenario in SCENARIOS:
            try:
                points += stage.record(scenario)
            except Unsupported as reason:
                lacking[scenario.name] = str(reason)
        ordeal.say(f"{len(points)} crash points in {len(SCENARIOS) - len(lacking)} scenarios, recorded in {time.monotonic() - began:.0f} s")
        reached = {each.step for each in points}
        ordeal.tally.figures["crash points"] = str(len(points))
        ordeal.tally.figures["steps of the program"] = f"{len(reached)} of {len(all_steps())} reached"
        if missing := sorted(set(all_steps()) - reached):
            ordeal.tally.figures["steps that no scenario reaches"] = ", ".join(missing)
        for name, reason in lacking.items():
            ordeal.tally.figures[f"not played: {name}"] = reason.splitlines()[0]
        order = list(points)
        ordeal.random.shuffle(order)
        missed = 0
        for number, point in enumerate(order):
            if ordeal.is_over:
                ordeal.tally.figures["not tried"] = str(len(order) - number)
                break
            ordeal.progress(len(order), str(point))
            how, found, was_killed = stage.crash(point, Random(f"{ordeal.seed} {point}"))
            if not was_killed:
                missed += 1
            if found.lost:
                ordeal.tally.lose(f"{point} ({how}): {'; '.join(found.lost + found.leaked)[:600]}")
            elif found.leaked:
                ordeal.tally.leak(f"{point} ({how}): {'; '.join(found.leaked)[:600]}")
            else:
                ordeal.tally.survive()
        if missed:
            ordeal.tally.figures["points that did not come again"] = str(missed)


PART = Part(
    "crash",
    "killed before and after every step that leaves a trace",
    run,
    short_seconds=70,
    seconds=25 * 60,
)
