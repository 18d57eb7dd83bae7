"""
Which container keeps its address and MAC: the table of docs/explanation/addresses, each row with a real engine.

Engine 29, which names its containers, is in tests/conversations/test_identities_29.py.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from enum import Enum

import pytest

from tests.integration.containers import AT_ONCE, OUR_IPAM, RANGE, states
from tests.lab.commands import wait_until
from tests.lab.docker_host import DockerHost
from tests.lab.engine import Engine
from tests.lab.lan import Lan
from tests.lab.plugin import DEFAULTS, Plugin

GRACE = ("--return-grace", "30")
"""More than an engine takes from the release to the request on a busy machine."""
IS_OVER = ("--return-grace", "0")
"""What the plugin is started with where the grace is to be over."""
CRASHES = "while [ ! -e /crash ]; do sleep 0.2; done; rm /crash; exit 1"
"""What a container runs that ends when there is a file."""
ALWAYS = "--restart=always"
NAMES = ("one", "two", "six")
LISTED = "on the plugin's networks"


class Mode(Enum):
    """Who manages the addresses, and whether the plugin may ask the engine."""

    API = "our IPAM, with the engine's API"
    ALONE = "our IPAM, without the engine's API"
    DOCKERS = "Docker's IPAM"


class Outcome(Enum):
    """What became of a container's address."""

    KEPT = "the same address and MAC"
    NEW = "an address that no container had"
    SWAPPED = "the address of another container"


KEPT = {Outcome.KEPT}
NEVER_SWAPPED = {Outcome.KEPT, Outcome.NEW}
NOTHING = {Outcome.KEPT, Outcome.NEW, Outcome.SWAPPED}

Identity = tuple[str, str]
Case = Callable[[DockerHost], None]


@pytest.fixture(scope="module", params=Mode, ids=lambda mode: mode.name.lower())
def shared_host(
    request: pytest.FixtureRequest, usable_engine_version: str
) -> Iterator[tuple[Mode, DockerHost]]:
    """Run an engine and our service beside it for all cases of a mode."""
    mode: Mode = request.param
    with Lan() as lan, Engine(lan, usable_engine_version) as engine:
        engine.load_busybox()
        api = "none" if mode is Mode.ALONE else engine.docker_host
        arguments = (*DEFAULTS, "--debug", "--docker-host", api, *GRACE)
        with Plugin(lan, engine.plugins_dir, inside=engine, arguments=arguments) as plugin:
            host = DockerHost(engine, plugin)
            host.create("lan", *(RANGE if mode is Mode.DOCKERS else OUR_IPAM))
            for name in NAMES:
                run(host, name)
            yield mode, host
            engine.clear()
            plugin.stop()
            assert host.remains() == []


def identities(host: DockerHost) -> dict[str, Identity]:
    """Return address and MAC of each running container, as the engine tells them."""
    names = host.engine.docker("ps", "--format={{.Names}}").split()
    found = host.engine.docker_json("inspect", *names) if names else []
    networks = {each["Name"].lstrip("/"): each["NetworkSettings"]["Networks"]["lan"] for each in found}
    return {name: (each["IPAddress"], each["MacAddress"]) for name, each in networks.items()}


def run(host: DockerHost, name: str, *words: str) -> None:
    """Run a container that can crash."""
    words = ("--detach", f"--name={name}", "--network=lan", AT_ONCE, *words)
    host.engine.docker("run", *words, "busybox", "sh", "-c", CRASHES)


def restart_one(host: DockerHost) -> None:
    """``docker restart``, beside a container that never ran."""
    host.engine.docker("create", "--name=created", "--network=lan", "busybox", "true")
    host.engine.docker("restart", "two")
    host.engine.docker("rm", "created")


def restart_one_by_one(host: DockerHost) -> None:
    for name in NAMES:
        host.engine.docker("restart", name)


def restart_several_at_once(host: DockerHost) -> None:
    """Also ``docker compose restart``, and from 28 on ``docker restart one two six``."""
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(lambda name: host.engine.docker("restart", name), NAMES))


def stop_and_start(host: DockerHost) -> None:
    host.engine.docker("stop", "two")
    host.engine.docker("start", "two")


def stop_and_start_later(host: DockerHost) -> None:
    """When the grace is over. A restart of the plugin is in between."""
    host.engine.docker("stop", "two")
    restart_plugin(host, *IS_OVER)
    host.engine.docker("start", "two")
    restart_plugin(host)


def restart_plugin(host: DockerHost, *words: str) -> None:
    """Restart the plugin, and wait until it may know what the engine lists."""
    host.plugin.stop()
    lists = host.plugin.log().count(LISTED)
    host.plugin.start(*words)
    if lists:
        wait_until(lambda: host.plugin.log().count(LISTED) > lists, 20, "the engine's containers")


def forget_released(host: DockerHost) -> None:
    """Have the plugin forget what was released until now."""
    restart_plugin(host, *IS_OVER)
    host.engine.docker("restart", "two")
    restart_plugin(host)


def stop_and_run_another(host: DockerHost) -> None:
    """The other one does not get what belongs to a container that exists."""
    host.engine.docker("stop", "two")
    run(host, "other")
    host.engine.docker("start", "two")
    host.engine.docker("rm", "--force", "other")


def remove_and_run(host: DockerHost) -> None:
    host.engine.docker("rm", "--force", "two")
    run(host, "two")


def has_restarted(host: DockerHost, name: str) -> bool:
    """Say whether the engine has restarted a container by itself."""
    template = "--format={{.RestartCount}} {{.State.Status}}"
    count, status = host.engine.docker("inspect", template, name).split()
    return count != "0" and status == "running"


def crash(host: DockerHost) -> None:
    """With a restart policy."""
    host.engine.docker("update", ALWAYS, "two")
    host.engine.docker("exec", "two", "touch", "/crash")
    wait_until(lambda: has_restarted(host, "two"), 30, "the restart")
    host.engine.docker("update", "--restart=no", "two")


def recreate(host: DockerHost) -> None:
    """``docker compose up``: the new container is created, then the old one stopped and removed, and the new one started."""
    docker = host.engine.docker
    docker("create", "--name=new-two", "--network=lan", AT_ONCE, "busybox", "sh", "-c", CRASHES)
    docker("stop", "two")
    docker("rm", "two")
    docker("rename", "new-two", "two")
    docker("start", "two")


def reboot(host: DockerHost) -> None:
    """The engine stops in order; after the boot the plugin is there first, and the grace is over."""
    host.engine.stop()
    host.plugin.stop()
    host.plugin.start(*IS_OVER)
    host.engine.start()
    wait_for_all(host)


def kill_engine(host: DockerHost) -> None:
    host.engine.kill()
    host.engine.start()
    wait_for_all(host)


def wait_for_all(host: DockerHost) -> None:
    """Wait for the containers, which all have a restart policy."""
    wait_until(lambda: set(states(host.engine).values()) == {"running"}, 60, "all containers")


Promises = dict[Mode, set[Outcome]]


def promises(api: set[Outcome], alone: set[Outcome], dockers: set[Outcome]) -> Promises:
    """A row of the table."""
    return {Mode.API: api, Mode.ALONE: alone, Mode.DOCKERS: dockers}


WHILE_IT_RUNS: dict[Case, Promises] = {
    restart_one: promises(KEPT, KEPT, KEPT),
    restart_one_by_one: promises(KEPT, KEPT, KEPT),
    stop_and_start: promises(KEPT, KEPT, KEPT),
    remove_and_run: promises(KEPT, KEPT, KEPT),
    crash: promises(KEPT, KEPT, KEPT),
    recreate: promises(KEPT, KEPT, KEPT),
    stop_and_run_another: promises(KEPT, NEVER_SWAPPED, NOTHING),
    stop_and_start_later: promises(KEPT, NEVER_SWAPPED, NOTHING),
    restart_several_at_once: promises(NEVER_SWAPPED, NEVER_SWAPPED, NOTHING),
}
"""
In an order in which no case leaves an address that was released just now to the next one. Docker's IPAM hands out the lowest free
address, and here no lower one is free.
"""

WHEN_IT_STARTS: dict[tuple[Case, int], Promises] = {
    (kill_engine, 3): promises(NEVER_SWAPPED, NEVER_SWAPPED, NOTHING),
    (reboot, 3): promises(NEVER_SWAPPED, NEVER_SWAPPED, NOTHING),
    (kill_engine, 1): promises(KEPT, KEPT, NOTHING),
    (reboot, 1): promises(KEPT, NEVER_SWAPPED, NOTHING),
}
"""The same, by the number of containers that the engine starts by itself."""


def outcomes(host: DockerHost, case: Case) -> set[Outcome]:
    """Do something, and see what became of the addresses of the containers that were there before and are after."""
    before = identities(host)
    case(host)
    after = identities(host)
    found = set()
    for name in before.keys() & after.keys():
        if after[name] == before[name]:
            found.add(Outcome.KEPT)
        else:
            others = {address for other, (address, _) in before.items() if other != name}
            found.add(Outcome.SWAPPED if after[name][0] in others else Outcome.NEW)
    return found


def test_containers_keep_what_is_promised(shared_host: tuple[Mode, DockerHost]) -> None:
    mode, host = shared_host
    found = {case: outcomes(host, case) for case in WHILE_IT_RUNS}
    assert {
        case.__name__: found[case] for case in found if not found[case] <= WHILE_IT_RUNS[case][mode]
    } == {}


def test_containers_that_start_with_the_engine_keep_what_is_promised(
    shared_host: tuple[Mode, DockerHost],
) -> None:
    mode, host = shared_host
    host.engine.docker("update", ALWAYS, *NAMES)
    broken = {}
    for (case, number), promised in WHEN_IT_STARTS.items():
        if number == 1:
            host.engine.docker("rm", "--force", "one", "six", check=False)
            forget_released(host)
        found = outcomes(host, case)
        if not found <= promised[mode]:
            broken[case.__name__, number] = found
    assert broken == {}
