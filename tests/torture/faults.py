"""
Refused what it asks for: the same scenarios with a kernel, a disk and a LAN that say no at each step, once or for a
while; with a disk that is full, read-only or slow; and with file descriptors and threads used up.

Each time the engine has to be told so in a sentence, what had begun has to be undone, and once the cause is gone
everything has to work again, without a restart.
"""

import errno
import os
import resource
import shutil
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from random import Random

from tests.lab.commands import attempt, run
from tests.torture.crash import LOGS, again, ended
from tests.torture.docker import Docker, Refused, Wish
from tests.torture.invariants import SETTLED, Findings, compare, foreign, settle
from tests.torture.part import Part, TortureRun
from tests.torture.scenarios import DEFAULTS, SCENARIOS, V4, V6, Scenario, two_and_again
from tests.torture.stage import Moment, Outcome, Stage, count, recorded, traces, tried
from tests.torture.world import Cut, Rule, World

KERNEL = (
    errno.EBUSY,
    errno.EEXIST,
    errno.ENODEV,
    errno.ENOBUFS,
    errno.EPERM,
    errno.EINVAL,
    errno.ENOMEM,
    errno.EADDRINUSE,
    errno.EOPNOTSUPP,
    errno.ENETDOWN,
    errno.EINTR,
    errno.EMFILE,
)
"""What netlink can answer."""
FILES = (errno.ENOSPC, errno.EROFS, errno.EIO, errno.EACCES, errno.EMFILE)
LAN = (errno.ENETDOWN, errno.EAGAIN, errno.ENODEV)
ERRORS: dict[str, tuple[int, ...]] = {
    "netlink": KERNEL,
    "state": FILES,
    "lan": LAN,
    "dhcp": LAN,
    "listener": FILES,
    "commands": (),
    "engine": (),
    "protocol": (),
}
"""By the first word of a failpoint's name. Only the engine could refuse an answer, and it would be gone then."""
PATIENCE = 30.0
"""Seconds for which an answer is waited for when nothing is refused any more."""
PLAIN = Scenario("v4", Wish(pools=(V4, V6)), two_and_again)


@dataclass(frozen=True)
class Fault:
    """What is refused, and how."""

    moment: Moment
    number: int
    lasts: bool
    """Whether each such step is refused from the start of the scenario on, until it is over."""

    def __str__(self) -> str:
        """Tell it."""
        how = "always" if self.lasts else f"time {self.moment.occurrence}"
        return f"{self.moment.scenario.name}: {errno.errorcode[self.number]} at {self.moment.step}, {how}"

    @property
    def rule(self) -> Rule:
        """For the life in which it happens."""
        occurrence = 0 if self.lasts else self.moment.occurrence
        return {
            "step": self.moment.step,
            "occurrence": occurrence,
            "done": False,
            "errno": self.number,
            "while_held": True,
        }


@dataclass(frozen=True)
class Shortage:
    """Something that the program has run out of: one of the functions below tries it."""

    name: str
    phase: int = 0

    def __str__(self) -> str:
        """Tell it."""
        return f"{self.name}, phase {self.phase}"


def refuse(stage: Stage, task: Fault | Shortage, random: Random) -> Outcome:
    """Try one of them."""
    world = stage.world
    stage.ready_server(task.moment.scenario if isinstance(task, Fault) else PLAIN)
    before = foreign(world)
    outcome = (
        _refuse(stage, task, random) if isinstance(task, Fault) else SHORTAGES[task.name](stage, task, random)
    )
    after = foreign(world)
    outcome.lost += [
        f"foreign: {each} is not as it was" for each in before if after.get(each) != before[each]
    ]
    outcome.lost += [f"foreign: {each} was not there before" for each in after if each not in before]
    return outcome


def _refuse(stage: Stage, fault: Fault, random: Random) -> Outcome:
    scenario, world = fault.moment.scenario, stage.world
    outcome = Outcome(f"{fault} (engine {fault.moment.version})")
    with world.try_out(*DEFAULTS, *scenario.arguments):
        docker = Docker(world, random, version=fault.moment.version)
        docker.expects_refusals = True
        docker.rules_of_life = lambda life: (fault.rule,) if life == scenario.life else ()
        found = Findings()
        try:
            _play_on(docker, scenario)
            outcome.was_reached = any(
                line.startswith(f"{fault.moment.step} ") and line.endswith(" refused")
                for line in world.told(scenario.life)
            )
            world.switch.write_text("0")
            found = _usable_again(docker, scenario, restart=True)
        except (Refused, Cut, RuntimeError, TimeoutError) as error:
            found.lost.append(f"{type(error).__name__}: {error}")
        _judge(outcome, docker, found)
    return outcome


def _play_on(docker: Docker, scenario: Scenario) -> None:
    """Play; what is refused is undone by the engine, and it is no reason to end."""
    world = docker.world
    if not world.start(*docker.rules_of_life(1)):
        world.switch.write_text("0")  # it has refused to start, and said why
        if not world.log().strip():
            docker.wrong.append("it does not start, and does not say why")
        docker.up()
    with suppress(Refused, Cut):
        scenario.play(docker, scenario.wish)
    if not world.pid:
        docker.up()


def _usable_again(docker: Docker, scenario: Scenario, *, restart: bool) -> Findings:
    """Without a restart; what could not be removed may stay until there is one."""
    world = docker.world
    found = settle(lambda: compare(world, docker), 2 if docker.refusals else SETTLED)
    if docker.refusals:

        def unbearable() -> Findings:
            return Findings(
                lost=[each for each in compare(world, docker).lost if " has no link " not in each]
            )

        found = settle(unbearable)
    if found:
        return found
    docker.expects_refusals = False
    docker.patience = PATIENCE
    again(docker, scenario)
    if restart:
        world.stop()
        docker.up()
    found = settle(lambda: compare(world, docker))
    found.lost += [f"at the end {each}" for each in ended(world)]
    return found


def _judge(outcome: Outcome, docker: Docker, found: Findings) -> None:
    world = docker.world
    outcome.lost += found.lost + docker.wrong + traces(world.log())
    outcome.leaked += found.leaked
    outcome.counts = {"calls refused": len(docker.refusals)}
    if outcome.lost or outcome.leaked:
        LOGS.mkdir(exist_ok=True)
        name = "".join(each if each.isalnum() else "-" for each in outcome.what)
        shutil.copy(world.log_file, LOGS / f"{name[:80]}.log")


PHASES = 5
"""When something runs out: before the network, before a container, before its end, before the network's, all along."""


@contextmanager
def _disk(world: World, size: str = "640k") -> Iterator[Path]:
    place = world.root / "disk"
    place.mkdir(exist_ok=True)
    run("mount", "-t", "tmpfs", "-o", f"size={size},mode=700", "none", str(place))
    try:
        yield place
    finally:
        world.kill()
        attempt("umount", str(place))


def _fill(disk: Path) -> None:
    with suppress(OSError), (disk / "filler").open("wb", buffering=0) as file:
        for size in (1 << 16, 1 << 12, 1):
            with suppress(OSError):
                while file.write(b"\0" * size):
                    pass


def _lives(docker: Docker, phase: int, begin: object, end: object) -> None:
    """A network and two containers; `begin` and `end` are called around one phase of it."""
    assert callable(begin)
    assert callable(end)
    last = phase == PHASES - 1

    def at(number: int) -> None:
        if phase == number or (last and number == 0):
            begin()

    def over(number: int) -> None:
        if phase == number or (last and number == PHASES - 2):
            end()

    at(0)
    net = None
    with suppress(Refused):
        net = docker.create_network(PLAIN.wish)
    over(0)
    if net is None and not last:
        net = docker.create_network(PLAIN.wish)
    at(1)
    one = None
    if net is not None:
        with suppress(Refused):
            one = docker.start(net, name="one")
    over(1)
    at(2)
    if one is not None:
        docker.stop(one)
    over(2)
    at(3)
    if net is not None:
        docker.remove_network(net)
    over(3)


def _full_disk(stage: Stage, task: Shortage, random: Random) -> Outcome:
    world, outcome = stage.world, Outcome(str(task))
    with _disk(world) as disk, world.try_out(*DEFAULTS, *PLAIN.arguments, on=disk):
        docker = Docker(world, random)
        docker.up()
        docker.expects_refusals = True
        found = Findings()
        try:
            _lives(docker, task.phase, lambda: _fill(disk), lambda: (disk / "filler").unlink(missing_ok=True))
            if not docker.refusals:
                outcome.lost.append("nothing was refused with a full disk")
            found = _usable_again(docker, PLAIN, restart=True)
        except (Refused, Cut, RuntimeError, TimeoutError) as error:
            found.lost.append(f"{type(error).__name__}: {error}")
        _judge(outcome, docker, found)
    return outcome


def _read_only_disk(stage: Stage, task: Shortage, random: Random) -> Outcome:
    """A file system with files that are open to be written cannot be made read-only: so at the start."""
    world, outcome = stage.world, Outcome(str(task))
    with _disk(world, "4m") as disk, world.try_out(*DEFAULTS, *PLAIN.arguments, on=disk):
        docker = Docker(world, random)
        found = Findings()
        try:
            if task.phase:
                docker.up()
                net = docker.create_network(PLAIN.wish)
                docker.start(net, name="one")
                world.kill() if task.phase == 1 else world.stop()
            run("mount", "-o", "remount,ro", str(disk))
            if world.start():
                outcome.lost.append("it starts on a read-only disk")
            elif "Read-only" not in world.log() and "readonly" not in world.log():
                outcome.lost.append("it does not say that the disk is read-only")
            world.kill()
            run("mount", "-o", "remount,rw", str(disk))
            docker.up()
            found = _usable_again(docker, PLAIN, restart=False)
        except (Refused, Cut, RuntimeError, TimeoutError) as error:
            found.lost.append(f"{type(error).__name__}: {error}")
        _judge(outcome, docker, found)
    return outcome


def _slow_disk(stage: Stage, task: Shortage, random: Random) -> Outcome:
    world, outcome = stage.world, Outcome(str(task))
    with world.try_out(*DEFAULTS, *PLAIN.arguments):
        docker = Docker(world, random)
        seconds = (0.02, 0.1, 0.3)[task.phase % 3]
        rule = {"step": "state.changes.commit", "done": False, "seconds": seconds, "while_held": True}
        docker.rules_of_life = lambda life: (rule,)
        found = Findings()
        try:
            docker.up()
            PLAIN.play(docker, PLAIN.wish)
            world.switch.write_text("0")
            found = _usable_again(docker, PLAIN, restart=False)
        except (Refused, Cut, RuntimeError, TimeoutError) as error:
            found.lost.append(f"{type(error).__name__}: {error}")
        _judge(outcome, docker, found)
    return outcome


def _descriptors(stage: Stage, task: Shortage, random: Random) -> Outcome:
    """Connections take them all, in a program that may have as many as it has, and a few."""
    world, outcome = stage.world, Outcome(str(task))
    with world.try_out(*DEFAULTS, *PLAIN.arguments), ExitStack() as connections:
        docker = Docker(world, random)
        docker.up()
        docker.expects_refusals = True
        docker.patience = 3  # as long as descriptors are short: who was not accepted is not answered
        before = resource.prlimit(world.pid, resource.RLIMIT_NOFILE)
        spare = random.randrange(1, 12)

        def begin() -> None:
            highest = max(int(each) for each in os.listdir(f"/proc/{world.pid}/fd"))
            resource.prlimit(world.pid, resource.RLIMIT_NOFILE, (highest + 1 + spare, before[1]))
            for _ in range(spare + random.randrange(3)):
                dialled = connections.enter_context(socket.socket(socket.AF_UNIX))
                with suppress(OSError):
                    dialled.settimeout(1)
                    dialled.connect(str(world.socket))

        def end() -> None:
            connections.close()
            resource.prlimit(world.pid, resource.RLIMIT_NOFILE, before)
            world.comes_up()  # Twisted turns away who waits at the door while it notices

        found = Findings()
        try:
            _lives(docker, task.phase, begin, end)
            found = _usable_again(docker, PLAIN, restart=True)
        except (Refused, Cut, RuntimeError, TimeoutError) as error:
            found.lost.append(f"{type(error).__name__}: {error}")
        _judge(outcome, docker, found)
    return outcome


def _threads(stage: Stage, task: Shortage, random: Random) -> Outcome:
    """At the start, which is when they are made. Root has as many as it wants: so by another user, with our rights."""
    world, outcome = stage.world, Outcome(str(task))
    with world.try_out(*DEFAULTS, *PLAIN.arguments):
        docker = Docker(world, random)
        user = 54321 + os.getpid() % 1000
        for directory in (world.root, world.directory):
            directory.chmod(0o711)
        for directory in (world.state, world.socket.parent, world.directory / "run"):
            directory.mkdir()
            os.chown(directory, user, user)
        found = Findings()
        try:
            if world.start(limits={"RLIMIT_NPROC": (1 + task.phase, 1 + task.phase)}, user=user):
                outcome.lost.append(f"it starts with {1 + task.phase} threads")
            elif "thread" not in world.log():
                outcome.lost.append("it does not say that it has no threads")
            world.kill()
            if not world.start(user=user):
                outcome.lost.append("it does not start afterwards")
            found = _usable_again(docker, PLAIN, restart=False)
        except (Refused, Cut, RuntimeError, TimeoutError) as error:
            found.lost.append(f"{type(error).__name__}: {error}")
        _judge(outcome, docker, found)
    return outcome


SHORTAGES = {
    "disk full": _full_disk,
    "disk read-only": _read_only_disk,
    "disk slow": _slow_disk,
    "no file descriptors": _descriptors,
    "no threads": _threads,
}
PHASES_OF = {"disk read-only": 3, "disk slow": 3, "no threads": 4}


def _tasks(ordeal: TortureRun) -> list[Fault | Shortage]:
    """
    What has run out; then each step with each error, once and for good, in a scenario drawn by lot; then each step
    each time that it is taken, with an error drawn by lot.
    """
    once: dict[tuple[str, int, bool], list[Fault]] = {}
    others: list[Fault] = []
    for moment in recorded(ordeal, SCENARIOS):
        numbers = ERRORS[moment.step.partition(".")[0]]
        if moment.step.endswith((".remove", ".retire")):
            numbers = tuple(each for each in numbers if each != errno.ENODEV)  # then it would be gone
        if moment.is_done or not numbers:
            continue
        others.append(Fault(moment, ordeal.random.choice(numbers), lasts=False))
        for number in numbers:
            for lasts in (False, True):
                once.setdefault((moment.step, number, lasts), []).append(Fault(moment, number, lasts))
    faults: list[Fault | Shortage] = [ordeal.random.choice(each) for each in once.values()]
    ordeal.random.shuffle(faults)
    ordeal.random.shuffle(others)
    ordeal.tally.figures["steps and errors"] = str(len(faults))
    faults += others
    shortages: list[Fault | Shortage] = [
        Shortage(name, phase) for name in SHORTAGES for phase in range(PHASES_OF.get(name, PHASES))
    ]
    if ordeal.short:
        shortages = [
            each
            for each in shortages
            if (isinstance(each, Shortage) and each.phase in (1, 4)) or ordeal.random.random() < 0.3
        ]
    return shortages + faults


def run_part(ordeal: TortureRun) -> None:
    """Refuse it everything."""
    tasks = _tasks(ordeal)
    ordeal.tally.figures["refusals"] = str(len(tasks))
    ordeal.say(f"{len(tasks)} refusals")
    missed = refused = 0
    for outcome in tried(ordeal, refuse, tasks):
        count(ordeal, outcome)
        missed += not outcome.was_reached
        refused += outcome.counts.get("calls refused", 0)
        ordeal.progress(len(tasks), outcome.what)
    ordeal.tally.figures["calls that were refused"] = str(refused)
    ordeal.tally.figures["refusals that did not come"] = str(missed)


PART = Part(
    "faults",
    "refused by kernel, disk and LAN at every step, and short of disk, descriptors and threads",
    run_part,
    short_seconds=60,
    seconds=30 * 60,
    least=16,
)
