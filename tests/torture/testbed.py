"""Hosts with foreign links and routes, on which several workers run scenarios in parallel."""

import multiprocessing
import os
import shutil
import tempfile
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from pkgutil import walk_packages
from queue import Empty
from random import Random
from typing import Any, TypeVar

import macvlan_twisted
from macvlan_twisted.failpoints import all_failpoints
from tests.lab.dhcp_server import DhcpServer
from tests.lab.lan import Lan
from tests.torture.docker import ROLL_BACK, Docker, Refused
from tests.torture.invariants import Findings, foreign
from tests.torture.part import TortureRun
from tests.torture.scenarios import DEFAULTS, Scenario
from tests.torture.world import Cut, World

T = TypeVar("T")
SHORT_SCENARIOS = 10
WORKERS, SHORT_WORKERS = 5, 2
"""More than processors: a try mostly waits for the kernel. In the short form other tests run as well.

Where there is one processor, in the guest of tests/uml, it is busy already with one, and starts of others take long.
"""
LONGEST_TRY, LOOK_EVERY = 1800, 10  # seconds
LOGS = Path(tempfile.gettempdir(), "macvlan-twisted-torture")
"""For the logs of tries that were not survived."""
FOREIGN = (
    "link add mvt0123456789ab link eth2 type macvlan mode bridge",
    "link set mvt0123456789ab alias foreign up",
    "link add stranger type veth peer name stranger2",
    "link set stranger up",
    "address add 10.99.0.1/24 dev stranger",
    "route add 10.98.0.0/24 via 192.168.77.1 dev eth1",
    "route add 10.97.0.1/32 dev stranger proto 99",
)


class Unsupported(Exception):
    """This kernel lacks what a scenario needs."""


@dataclass(frozen=True)
class Moment:
    """Before or after one step of a scenario."""

    scenario: Scenario
    version: int
    """Of the engine."""
    step: str
    occurrence: int
    is_done: bool

    @property
    def line(self) -> str:
        """The line that a process writes at this moment."""
        return f"{self.step} {self.occurrence} {'after' if self.is_done else 'before'}"

    def __str__(self) -> str:
        """For people."""
        when = "after" if self.is_done else "before"
        return f"{self.scenario.name}: {when} {self.step} ({self.occurrence})"


@dataclass
class Outcome:
    """Of one try."""

    what: str
    lost: list[str] = field(default_factory=list)
    leaked: list[str] = field(default_factory=list)
    was_reached: bool = True
    counts: dict[str, int] = field(default_factory=dict)
    refusals: int = 0
    """Calls that were refused."""
    was_collected: bool = False
    """Whether the background was given time to remove what was left."""


class Testbed:
    """A host with foreign links and routes, and a DHCP server."""

    def __init__(self, world: World, dhcp: DhcpServer) -> None:
        """Attach the DHCP server to the world."""
        self.world = world
        self.dhcp = world.dhcp = dhcp

    def record(self, scenario: Scenario, version: int) -> list[Moment]:
        """Run a scenario undisturbed, and return its moments."""
        self.ready_server(scenario)
        with self.world.try_out(*DEFAULTS, *scenario.arguments):
            docker = Docker(self.world, Random(0), version=version)
            scenario.prepare(docker)
            docker.up()
            try:
                scenario.play(docker, scenario.spec)
            except Refused as refused:
                if "support" in str(refused) or "modprobe" in str(refused):
                    raise Unsupported(str(refused).splitlines()[0]) from None
                raise
            self.world.stop()
            if docker.wrong:
                raise RuntimeError(f"{scenario.name}: {docker.wrong}\n{self.world.log()}")
            lines = [line.split() for line in self.world.failpoints_of(scenario.life)]
        return [
            Moment(scenario, version, step, int(occurrence), when == "after")
            for step, occurrence, when in lines
        ]

    def ready_server(self, scenario: Scenario) -> None:
        """Clear the DHCP server's leases before its pool is full."""
        if scenario.fresh_server or len(self.dhcp.leases()) > 40:
            self.dhcp.forget()


@contextmanager
def testbed() -> Iterator[Testbed]:
    """Build a testbed; it is removed at the end of the block."""
    with ExitStack() as undo:
        lan = undo.enter_context(Lan(nics=2))
        world = undo.enter_context(World(lan))
        for words in FOREIGN:
            lan.run_in("host", "ip", *words.split())
        yield Testbed(world, undo.enter_context(DhcpServer(lan)))


def endure(
    testbed: Testbed,
    what: str,
    scenario: Scenario,
    body: Callable[[Docker, Outcome], Findings],
    random: Random,
    *,
    reaction: str = ROLL_BACK,
    version: int = 29,
    state_in: Path | None = None,
) -> Outcome:
    """
    Run *body* on a host without state or links of ours.

    Its findings, wrong replies, tracebacks in the log, and changes to foreign links and routes become the outcome.

    :param what: names the try. :param reaction: of the engine to a broken call. :param version: of the engine.
    :param state_in: where the state directory is to be.
    """
    world, outcome = testbed.world, Outcome(what)
    testbed.ready_server(scenario)
    before = foreign(world)
    with world.try_out(*DEFAULTS, *scenario.arguments, on=state_in):
        docker = Docker(world, random, reaction, version)
        try:
            found = body(docker, outcome)
        except (Refused, Cut, RuntimeError, TimeoutError) as error:
            found = Findings(lost=[f"{type(error).__name__}: {error}"])
        outcome.lost += found.lost + docker.wrong + traces(world.log())
        outcome.leaked += found.leaked
        outcome.refusals = len(docker.refusals)
        if outcome.lost or outcome.leaked:
            LOGS.mkdir(exist_ok=True)
            name = "".join(each if each.isalnum() else "-" for each in what)
            shutil.copy(world.log_file, LOGS / f"{name[:80]}.log")
    after = foreign(world)
    outcome.lost += [
        f"foreign: {each} is not as it was" for each in before if after.get(each) != before[each]
    ]
    outcome.lost += [f"foreign: {each} was not there before" for each in after if each not in before]
    return outcome


def traces(log: str) -> list[str]:
    """Return the lines of a log that show an unhandled error."""
    signs = ("Traceback", "bug:", "Unhandled", " bug ")
    lines = log.splitlines()
    return [
        f"in the log: {line}"
        for before, line in zip(["", *lines], lines, strict=False)
        # Twisted tells so that it has no descriptor left to refuse connections with, and goes on without.
        if any(sign in line for sign in signs) and "Could not reserve EMFILE recovery" not in before
    ]


def recorded(torture: TortureRun, scenarios: Sequence[Scenario]) -> list[Moment]:
    """Record the scenarios (in the short form a sample), and note the figures."""
    for module in walk_packages(macvlan_twisted.__path__, "macvlan_twisted."):
        import_module(module.name)
    moments: list[Moment] = []
    figures = torture.tally.figures
    wanted = [each for each in scenarios if torture.wants(each.name)]
    if torture.short and len(wanted) > SHORT_SCENARIOS:
        wanted = torture.random.sample(wanted, SHORT_SCENARIOS)
        figures["scenarios"] = ", ".join(each.name for each in wanted)
    with testbed() as it:
        for scenario in wanted:
            try:
                moments += it.record(scenario, torture.random.choice((20, 29)))
            except Unsupported as reason:
                figures[f"not played: {scenario.name}"] = str(reason).partition(": ")[2]
    steps = set(all_failpoints())
    reached = {each.step for each in moments}
    figures["steps"] = f"{len(reached & steps)} of {len(steps)} reached"
    if len(wanted) == len(scenarios) and (missing := sorted(steps - reached)):
        figures["steps that no scenario reaches here"] = ", ".join(missing)
    return moments


def _work(attempt: Callable[[Testbed, Any, Random], Outcome], seed: str, tasks: Any, outcomes: Any) -> None:
    try:
        with testbed() as it:
            while (task := tasks.get()) is not None:
                try:
                    outcomes.put(attempt(it, task, Random(f"{seed} {task}")))
                except Exception:
                    outcomes.put(
                        Outcome(str(task), lost=[f"the try itself failed: {traceback.format_exc()}"])
                    )
    except BaseException:
        outcomes.put(traceback.format_exc())


def tried(
    torture: TortureRun, attempt: Callable[[Testbed, T, Random], Outcome], tasks: Sequence[T]
) -> Iterator[Outcome]:
    """Run *tasks* on several workers until all are done or time is up."""
    context = multiprocessing.get_context("spawn")
    queue, outcomes = context.Queue(), context.Queue()
    arguments = (attempt, str(torture.seed), queue, outcomes)
    number = 1 if os.cpu_count() == 1 else SHORT_WORKERS if torture.short else WORKERS
    workers = [context.Process(target=_work, args=arguments) for _ in range(min(number, len(tasks)))]
    for worker in workers:
        worker.start()
    left = list(reversed(tasks))
    under_way = 0
    try:
        while True:
            while left and under_way < len(workers) and not torture.is_over:
                queue.put(left.pop())
                under_way += 1
            if not under_way:
                break
            outcome = _next_outcome(outcomes, workers)
            if isinstance(outcome, str):
                raise RuntimeError(f"a worker failed:\n{outcome}")
            under_way -= 1
            yield outcome
    finally:
        for _ in workers:
            queue.put(None)
        for worker in workers:
            worker.join(30)
            if worker.is_alive():
                worker.terminate()
    if left:
        torture.tally.figures["not tried"] = str(len(left))


def _next_outcome(outcomes: Any, workers: Sequence[Any]) -> Any:
    """Wait for the outcome of a try. However slow the machine is, only a dead worker has none."""
    for _ in range(LONGEST_TRY // LOOK_EVERY):
        with suppress(Empty):
            return outcomes.get(timeout=LOOK_EVERY)
        if not all(worker.is_alive() for worker in workers):
            raise RuntimeError("a worker died during a try")
    raise RuntimeError(f"a try took more than {LONGEST_TRY} s")


def count(torture: TortureRun, outcome: Outcome) -> None:
    """Count a try by its worst outcome."""
    text = f"{outcome.what}: {'; '.join(outcome.lost + outcome.leaked)[:700]}"
    if outcome.lost:
        torture.tally.lose(text)
    elif outcome.leaked:
        torture.tally.leak(text)
    else:
        torture.tally.survive()
