"""
SIGKILL before and after every failpoint that the program passes, in every scenario.

Each scenario runs once to record its failpoints. Then it runs again for each of them: the program kills itself there and
is started again, the engine reacts in one of the ways that engines do, the invariants are checked, a container lives
and ends, everything is removed, and the invariants are checked again. In some tries in which the engine has dropped
something silently, the reconciler gets the time to remove it first.
"""

from collections import Counter
from contextlib import suppress
from random import Random

from tests.lab.plugin import ShortGracePeriods
from tests.torture.docker import REACTIONS, Docker
from tests.torture.further_scenarios import FURTHER_SCENARIOS
from tests.torture.invariants import Findings, compare, left_behind, settle, uncollected
from tests.torture.part import Part, TortureRun
from tests.torture.scenarios import SCENARIOS, Scenario
from tests.torture.testbed import Moment, Outcome, Testbed, count, endure, recorded, tried
from tests.torture.world import Cut, World

COLLECTION = ShortGracePeriods(idle=1.5, between_checks=0.4, first=0.2)
"""Short: the engine model does not fall silent and speak again."""
COLLECTION_SECONDS = 120.0
COLLECTED = 0.2
"""The share of the tries with something left behind that wait for the background to remove it."""


def crash(testbed: Testbed, moment: Moment, random: Random) -> Outcome:
    """Kill the program at that moment."""
    scenario, world = moment.scenario, testbed.world
    reaction = random.choice(REACTIONS)

    def body(docker: Docker, outcome: Outcome) -> Findings:
        rule = {"step": moment.step, "occurrence": moment.occurrence, "done": moment.is_done, "kill": True}
        docker.rules_of_life = lambda life: (rule,) if life == scenario.life else ()
        scenario.prepare(docker)
        _until_killed(docker, scenario)
        outcome.was_reached = moment.line in world.failpoints_of(scenario.life)
        found = settle(lambda: compare(world, docker))
        outcome.counts = Counter(left_behind(world, docker))
        if not found and outcome.counts and random.random() < COLLECTED:
            found = collected(docker)
            outcome.was_collected = True
        if not found:
            again(docker, scenario)
            found = settle(lambda: compare(world, docker))
            found.lost += [f"at the end {each}" for each in ended(world)]
        return found

    what = f"{moment} ({reaction}, engine {moment.version})"
    return endure(testbed, what, scenario, body, random, reaction=reaction, version=moment.version)


def collected(docker: Docker) -> Findings:
    """Wait for the reconciler to remove what the engine dropped silently, with its sandboxes."""
    world = docker.world
    world.empty_boxes({each.link for each in docker.view.containers.values()})
    world.stop()
    if not world.start(short_grace_periods=COLLECTION):
        raise RuntimeError("the program does not start when it is to collect what was left behind")
    found = settle(lambda: uncollected(world, docker), COLLECTION_SECONDS)
    if not found:
        found = settle(lambda: compare(world, docker))
    world.stop()
    docker.up()
    return found


def _until_killed(docker: Docker, scenario: Scenario) -> None:
    """Run the scenario until the broken call is handled, or to the end. The program runs afterwards."""
    world = docker.world
    docker.up()
    with suppress(Cut):
        scenario.play(docker, scenario.spec)
    if world.life == scenario.life and world.pid:
        world.stop()
    if world.wait(0) is not None:
        docker.rules_of_life = lambda life: ()
        docker.up()


def again(docker: Docker, scenario: Scenario) -> None:
    """Start and stop a container, on the same network if the engine still has it; then remove everything."""
    if scenario.spec.options.get("macvlan_mode") == "passthru":
        docker.take_down()
        if any(each[0] in {"network", "endpoint"} for each in docker.view.excused):
            return  # its parent is taken until that is cleared away
    nets = list(docker.view.networks.values())
    net = nets[0] if nets else docker.create_network(scenario.spec)
    docker.stop(docker.start(net, name="new"))
    docker.take_down()


def ended(world: World) -> list[str]:
    """Stop the program, and return what is wrong with its status and its directories."""
    wrong = []
    status = world.stop()
    if status != 0:
        wrong.append(f"it stopped with status {status}")
    left = sorted(each.name for each in world.state.iterdir() if not each.name.startswith("damaged-"))
    if left != ["generation", "state.sqlite"]:
        wrong.append(f"the state directory holds {left}")
    left = sorted(each.name for each in world.socket.parent.iterdir())
    if left:
        wrong.append(f"the socket's directory holds {left}")
    return wrong


def run(torture: TortureRun) -> None:
    """Kill it everywhere."""
    moments = recorded(torture, (*SCENARIOS, *FURTHER_SCENARIOS))
    torture.tally.figures["crash points"] = str(len(moments))
    torture.say(f"{len(moments)} crash points")
    torture.random.shuffle(moments)
    missed = 0
    waited_for = 0
    left: Counter[str] = Counter()
    for outcome in tried(torture, crash, moments):
        count(torture, outcome)
        missed += not outcome.was_reached
        waited_for += outcome.was_collected
        left.update(outcome.counts)
        torture.progress(len(moments), outcome.what)
    torture.tally.figures["points that did not come again"] = str(missed)
    if left:
        text = ", ".join(f"{number} {what}" for what, number in sorted(left.items()))
        torture.tally.figures["of forgotten calls, left to the background"] = text
        torture.tally.figures["tries in which the background was waited for"] = str(waited_for)


PART = Part(
    "crash",
    "the plugin is killed before and after every step that leaves a trace",
    run,
    short_seconds=60,
    least=24,
    seconds=60 * 60,
)
