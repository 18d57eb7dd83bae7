"""
The same scenarios with a kernel, a disk and a LAN that fail at each failpoint, once or for a while; with a disk that is
full, read-only or slow; and without file descriptors and threads.

Each time the engine must get a readable error, the change must be rolled back, and once the cause is gone everything
must work again without a restart.
"""

import errno
import os
import resource
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from random import Random

from tests.lab.commands import attempt, run
from tests.torture.crash import again, ended
from tests.torture.docker import Docker, NetworkSpec, Refused
from tests.torture.invariants import SETTLED, Findings, compare, settle
from tests.torture.part import Part, TortureRun
from tests.torture.scenarios import SCENARIOS, V4, V6, Scenario, two_and_again
from tests.torture.testbed import Moment, Outcome, Testbed, count, endure, recorded, tried
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
"""Seconds to wait for an answer once nothing is refused any more."""
PLAIN = Scenario("v4", NetworkSpec(pools=(V4, V6)), two_and_again)


@dataclass(frozen=True)
class Fault:
    """A failure at a failpoint."""

    moment: Moment
    number: int
    lasts: bool
    """Whether each pass of the failpoint fails, from the start of the scenario to its end."""

    def __str__(self) -> str:
        """Tell it."""
        how = "always" if self.lasts else f"time {self.moment.occurrence}"
        return f"{self.moment.scenario.name}: {errno.errorcode[self.number]} at {self.moment.step}, {how}"

    @property
    def rule(self) -> Rule:
        """The rule for the process in which it happens."""
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
    """A resource that the program runs out of, by the name of its function below."""

    name: str
    phase: int = 0

    def __str__(self) -> str:
        """Tell it."""
        return f"{self.name}, phase {self.phase}"


def refuse(testbed: Testbed, task: Fault | Shortage, random: Random) -> Outcome:
    """Try one of them."""
    if isinstance(task, Fault):
        scenario, version = task.moment.scenario, task.moment.version
        body = partial(_refuse, fault=task)
        return endure(testbed, f"{task} (engine {version})", scenario, body, random, version=version)
    shorten, disk_size = SHORTAGES[task.name], DISKS.get(task.name)
    with _disk(testbed.world, disk_size) if disk_size else nullcontext() as disk:
        body = partial(shorten, phase=task.phase)
        return endure(testbed, str(task), PLAIN, body, random, state_in=disk)


def _refuse(docker: Docker, outcome: Outcome, *, fault: Fault) -> Findings:
    scenario, world = fault.moment.scenario, docker.world
    docker.expects_refusals = True
    docker.rules_of_life = lambda life: (fault.rule,) if life == scenario.life else ()
    _play_on(docker, scenario)
    refused = (f"{fault.moment.step} ", " refused")
    outcome.was_reached = any(
        line.startswith(refused[0]) and line.endswith(refused[1])
        for line in world.failpoints_of(scenario.life)
    )
    world.switch.write_text("0")
    return _usable_again(docker, scenario, restart=True)


def _play_on(docker: Docker, scenario: Scenario) -> None:
    """Run the scenario; the engine undoes what is refused."""
    world = docker.world
    if not world.start(*docker.rules_of_life(1)):
        world.switch.write_text("0")  # it has refused to start, and said why
        if not world.log().strip():
            docker.wrong.append("it does not start, and does not say why")
        docker.up()
    with suppress(Refused, Cut):
        scenario.play(docker, scenario.spec)
    if not world.pid:
        docker.up()


def _usable_again(docker: Docker, scenario: Scenario, *, restart: bool) -> Findings:
    """Check that everything works without a restart. What could not be removed may stay until then."""
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


PHASES = 5
"""When the resource runs out: before the network, a container, its end, the network's end, or throughout."""


@contextmanager
def _disk(world: World, size: str) -> Iterator[Path]:
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
        net = docker.create_network(PLAIN.spec)
    over(0)
    if net is None and not last:
        net = docker.create_network(PLAIN.spec)
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


def _full_disk(docker: Docker, outcome: Outcome, *, phase: int) -> Findings:
    docker.up()
    docker.expects_refusals = True
    disk = docker.world.state.parent
    _lives(docker, phase, lambda: _fill(disk), lambda: (disk / "filler").unlink(missing_ok=True))
    if not docker.refusals:
        outcome.lost.append("nothing was refused with a full disk")
    return _usable_again(docker, PLAIN, restart=True)


def _read_only_disk(docker: Docker, outcome: Outcome, *, phase: int) -> Findings:
    """At the start: the kernel makes no file system read-only that has files open for writing."""
    world = docker.world
    if phase:
        docker.up()
        docker.start(docker.create_network(PLAIN.spec), name="one")
        world.kill() if phase == 1 else world.stop()
    disk = str(world.state.parent)
    run("mount", "-o", "remount,ro", disk)
    if world.start():
        outcome.lost.append("it starts on a read-only disk")
    elif "Read-only" not in world.log() and "readonly" not in world.log():
        outcome.lost.append("it does not say that the disk is read-only")
    world.kill()
    run("mount", "-o", "remount,rw", disk)
    docker.up()
    return _usable_again(docker, PLAIN, restart=False)


def _slow_disk(docker: Docker, outcome: Outcome, *, phase: int) -> Findings:
    seconds = (0.02, 0.1, 0.3)[phase % 3]
    rule = {"step": "state.changes.commit", "done": False, "seconds": seconds, "while_held": True}
    docker.rules_of_life = lambda life: (rule,)
    docker.up()
    PLAIN.play(docker, PLAIN.spec)
    docker.world.switch.write_text("0")
    return _usable_again(docker, PLAIN, restart=False)


def _descriptors(docker: Docker, outcome: Outcome, *, phase: int) -> Findings:
    """Connections take all descriptors of a program that may open a few more than it has."""
    world, random = docker.world, docker.random
    docker.up()
    docker.expects_refusals = True
    docker.patience = 3  # a connection that is not accepted gets no answer
    before = resource.prlimit(world.pid, resource.RLIMIT_NOFILE)
    spare = random.randrange(1, 12)
    with ExitStack() as connections:

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
            world.comes_up()  # Twisted closes the connections that wait, once it notices

        _lives(docker, phase, begin, end)
        return _usable_again(docker, PLAIN, restart=True)


def _threads(docker: Docker, outcome: Outcome, *, phase: int) -> Findings:
    """At the start, when they are created. Root has no limit, so another user runs the program, with its rights."""
    world = docker.world
    user = 54321 + os.getpid() % 1000
    for directory in (world.root, world.directory):
        directory.chmod(0o711)
    for directory in (world.state, world.socket.parent, world.directory / "run"):
        directory.mkdir()
        os.chown(directory, user, user)
    if world.start(limits={"RLIMIT_NPROC": (1 + phase, 1 + phase)}, user=user):
        outcome.lost.append(f"it starts with {1 + phase} threads")
    elif "thread" not in world.log():
        outcome.lost.append("it does not say that it has no threads")
    world.kill()
    if not world.start(user=user):
        outcome.lost.append("it does not start afterwards")
    return _usable_again(docker, PLAIN, restart=False)


SHORTAGES = {
    "disk full": _full_disk,
    "disk read-only": _read_only_disk,
    "disk slow": _slow_disk,
    "no file descriptors": _descriptors,
    "no threads": _threads,
}
PHASES_OF = {"disk read-only": 3, "disk slow": 3, "no threads": 4}
DISKS = {"disk full": "640k", "disk read-only": "4m"}
"""The shortages that need a file system of their own for the state, and its size."""


def _tasks(torture: TortureRun) -> list[Fault | Shortage]:
    """
    What has run out; then each step with each error, once and for good, in a scenario drawn by lot; then each step
    each time that it is taken, with an error drawn by lot.
    """
    once: dict[tuple[str, int, bool], list[Fault]] = {}
    others: list[Fault] = []
    for moment in recorded(torture, SCENARIOS):
        numbers = ERRORS[moment.step.partition(".")[0]]
        if moment.step.endswith((".remove", ".retire")):
            numbers = tuple(each for each in numbers if each != errno.ENODEV)  # then it would be gone
        if moment.is_done or not numbers:
            continue
        others.append(Fault(moment, torture.random.choice(numbers), lasts=False))
        for number in numbers:
            for lasts in (False, True):
                once.setdefault((moment.step, number, lasts), []).append(Fault(moment, number, lasts))
    faults: list[Fault | Shortage] = [torture.random.choice(each) for each in once.values()]
    torture.random.shuffle(faults)
    torture.random.shuffle(others)
    torture.tally.figures["steps and errors"] = str(len(faults))
    faults += others
    shortages: list[Fault | Shortage] = [
        Shortage(name, phase) for name in SHORTAGES for phase in range(PHASES_OF.get(name, PHASES))
    ]
    if torture.short:
        shortages = [
            each
            for each in shortages
            if (isinstance(each, Shortage) and each.phase in (1, 4)) or torture.random.random() < 0.3
        ]
    return shortages + faults


def run_part(torture: TortureRun) -> None:
    """Try all failures."""
    tasks = _tasks(torture)
    torture.tally.figures["refusals"] = str(len(tasks))
    torture.say(f"{len(tasks)} refusals")
    missed = refused = 0
    for outcome in tried(torture, refuse, tasks):
        count(torture, outcome)
        missed += not outcome.was_reached
        refused += outcome.refusals
        torture.progress(len(tasks), outcome.what)
    torture.tally.figures["calls that were refused"] = str(refused)
    torture.tally.figures["refusals that did not come"] = str(missed)


PART = Part(
    "faults",
    "kernel, disk and LAN refuse each step; disk space, descriptors and threads run out",
    run_part,
    short_seconds=45,
    seconds=30 * 60,
    least=16,
)
