"""The plugin is stopped or killed, and starts again, while containers run, start and stop."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.integration.containers import AT_ONCE, OUR_IPAM, RANGE, address, assert_all_talk, endpoints
from tests.lab.commands import Finished, wait_until
from tests.lab.docker_host import Container, DockerHost

ENDINGS = ["stop", "kill"]


def end(host: DockerHost, ending: str) -> None:
    """End the plugin by SIGTERM or SIGKILL."""
    if ending == "stop":
        host.plugin.stop()
    else:
        host.plugin.kill()


def known_endpoints(host: DockerHost) -> set[str]:
    """Return the ids of the endpoints in the plugin's state; the plugin must be stopped."""
    return {str(row[0]) for row in host.rows()["endpoints"]}


@pytest.mark.parametrize("ending", ENDINGS)
def test_containers_live_on_when_the_plugin_restarts(docker_host: DockerHost, ending: str) -> None:
    engine = docker_host.engine
    docker_host.create("lan", *OUR_IPAM)
    for name in ("box-a", "box-b", "box-c"):
        docker_host.start(name, AT_ONCE)
    before = {name: address(engine, name) for name in ("box-a", "box-b", "box-c")}
    end(docker_host, ending)
    assert_all_talk(docker_host, ["box-a", "box-b", "box-c"])
    docker_host.plugin.start()
    assert_all_talk(docker_host, ["box-a", "box-b", "box-c"])

    engine.docker("stop", "box-a")
    engine.docker("restart", "box-b")
    engine.docker("network", "disconnect", "lan", "box-c")
    docker_host.start("box-d", AT_ONCE)
    assert address(engine, "box-d") not in before.values(), (
        "an address that was just free is handed out at once"
    )
    engine.docker("network", "connect", "lan", "box-c")
    engine.docker("start", "box-a")
    assert_all_talk(docker_host, ["box-a", "box-b", "box-c", "box-d"])

    docker_host.plugin.stop()
    assert known_endpoints(docker_host) == endpoints(engine), "state and engine disagree"
    docker_host.plugin.start()


@pytest.mark.one_engine
def test_killed_plugin_hands_out_no_address_or_mac_twice(docker_host: DockerHost) -> None:
    """Killed again and again: whatever was answered is known afterwards."""
    docker_host.create("lan", *OUR_IPAM)
    for number in range(3):
        docker_host.start(f"c{number}", AT_ONCE)
        docker_host.plugin.kill()
        docker_host.plugin.start()
    docker_host.engine.docker("rm", "--force", "c1")
    docker_host.plugin.kill()
    docker_host.plugin.start()
    docker_host.start("c3", AT_ONCE)
    assert_all_talk(docker_host, ["c0", "c2", "c3"])


def start_many(host: DockerHost, number: int, disturb: threading.Event) -> list[Finished]:
    """Start containers all at once, and say when they are under way."""
    with ThreadPoolExecutor(number) as pool:
        words = ("run", "--detach", "--network=lan", AT_ONCE)
        futures = [
            pool.submit(host.engine.attempt_docker, *words, f"--name=c{each}", "busybox", "sleep", "600")
            for each in range(number)
        ]
        wait_until(lambda: host.plugin.log().count(": link mv") >= 2, 30, "containers under way")
        disturb.set()
        return [future.result() for future in futures]


@pytest.mark.one_engine
@pytest.mark.parametrize("ending", ENDINGS)
def test_starts_under_way_survive_the_plugins_end(docker_host: DockerHost, ending: str) -> None:
    """SIGTERM: all calls are answered, so every start succeeds.

    SIGKILL: the engine repeats a call that was under way with an empty body, and gives up. An endpoint that
    it so forgot stays with us until its network goes, and nobody else gets what belongs to it.
    """
    engine = docker_host.engine
    docker_host.create("lan", *OUR_IPAM)
    disturb = threading.Event()

    def restart() -> None:
        disturb.wait(30)
        end(docker_host, ending)
        docker_host.plugin.start()

    restarting = threading.Thread(target=restart)
    restarting.start()
    finished = start_many(docker_host, 6, disturb)
    restarting.join()
    succeeded = [f"c{number}" for number, each in enumerate(finished) if each.status == 0]
    failed = [each for each in finished if each.status != 0]
    if ending == "stop":
        assert [each.stderr for each in failed] == []
    assert all("empty body" in each.stderr for each in failed), failed
    assert len(failed) < 4, "more was lost than can have been under way"
    assert_all_talk(docker_host, succeeded)

    docker_host.plugin.stop()
    forgotten = known_endpoints(docker_host) - endpoints(engine)
    assert endpoints(engine) <= known_endpoints(docker_host)
    assert len(forgotten) <= len(failed)
    links = [name for name in docker_host.lan.host_links() if name.startswith("mvt")]
    assert len(links) <= len(forgotten)
    docker_host.plugin.start()
    for number in range(len(finished)):
        engine.docker("rm", "--force", f"c{number}", check=False)
    docker_host.plugin.stop()
    assert known_endpoints(docker_host) == forgotten
    docker_host.plugin.start()  # the network's removal, in the fixture, takes the forgotten ones along


@pytest.mark.one_engine
@pytest.mark.parametrize("ending", ENDINGS)
def test_removals_under_way_survive_the_plugins_end(docker_host: DockerHost, ending: str) -> None:
    """SIGTERM: nothing is left. SIGKILL: an engine repeats a removal with an empty body, and forgets it."""
    engine = docker_host.engine
    docker_host.create("lan", *OUR_IPAM)
    names = [f"c{number}" for number in range(8)]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda name: docker_host.start(name, AT_ONCE), names))
    survivors = names[6:]

    def remove(name: str) -> Finished:
        return engine.attempt_docker("rm", "--force", name)

    with ThreadPoolExecutor(6) as pool:
        removals = [pool.submit(remove, name) for name in names[:6]]
        wait_until(lambda: " removed from parent " in docker_host.plugin.log(), 30, "removals under way")
        end(docker_host, ending)
        docker_host.plugin.start()
        assert [each.result().stderr for each in removals if each.result().status != 0] == []
    assert_all_talk(docker_host, survivors)

    docker_host.plugin.stop()
    left = known_endpoints(docker_host) - endpoints(engine)
    assert endpoints(engine) <= known_endpoints(docker_host)
    assert len(left) <= (0 if ending == "stop" else 6)
    docker_host.plugin.start()
    docker_host.start("new", AT_ONCE)
    assert_all_talk(docker_host, [*survivors, "new"])


@pytest.mark.one_engine
def test_call_succeeds_once_the_plugin_is_back(docker_host: DockerHost) -> None:
    """The engine tries for fifteen seconds to connect."""
    docker_host.create("lan", *OUR_IPAM)
    docker_host.plugin.stop()
    with ThreadPoolExecutor(1) as pool:
        started = pool.submit(docker_host.start, "box-a", AT_ONCE)
        wait_until(
            lambda: "retrying" in docker_host.engine.dockerd.log(),
            20,
            "the engine's notice that nobody is there",
        )
        docker_host.plugin.start()
        assert isinstance(started.result(), Container)
    assert_all_talk(docker_host, ["box-a"])


@pytest.mark.one_engine
def test_address_of_a_container_removed_meanwhile_is_free(docker_host: DockerHost) -> None:
    """The engine waits fifteen seconds for each of its calls, and then forgets the endpoint silently.

    The link, which the engine has moved back, and our row stay. Docker's IPAM knows that the address is
    free; so its next owner must get it, and the MAC that goes with it.
    """
    engine = docker_host.engine
    docker_host.create("lan", *RANGE)
    docker_host.start("gone", AT_ONCE, "--ip=192.168.77.200")
    docker_host.start("stays", AT_ONCE)
    docker_host.plugin.stop()
    engine.docker("rm", "--force", "gone", timeout=120)
    assert len(known_endpoints(docker_host) - endpoints(engine)) == 1, "the engine has told us after all"
    assert len([name for name in docker_host.lan.host_links() if name.startswith("mvt")]) == 1
    assert_all_talk(docker_host, ["stays"])

    docker_host.plugin.start()
    docker_host.start("other", AT_ONCE)
    docker_host.start("heir", AT_ONCE, "--ip=192.168.77.200")
    assert_all_talk(docker_host, ["stays", "other", "heir"])
