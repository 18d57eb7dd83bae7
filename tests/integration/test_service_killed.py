"""Containers end in every possible way; their links, addresses and rows end with them."""

import pytest

from tests.integration.containers import AT_ONCE, OUR_IPAM, RANGE, address, assert_all_talk, states
from tests.lab.commands import within
from tests.lab.docker_host import Container, DockerHost


def test_containers_that_end_leave_nothing(docker_host: DockerHost) -> None:
    """Killed, stopped, restarted, removed while running, crashed, ended by themselves, never begun."""
    engine = docker_host.engine
    docker_host.create("lan", *OUR_IPAM)
    for name in ("killed", "restarted", "removed"):
        docker_host.start(name, AT_ONCE)
    engine.docker("kill", "killed")
    engine.docker("restart", "restarted")
    engine.docker("rm", "--force", "removed")
    crash = ("run", "--detach", "--name=crashing", "--network=lan", "--restart=on-failure:2")
    engine.docker(*crash, "busybox", "sh", "-c", "exit 3")
    engine.docker("run", "--name=ended", "--network=lan", "busybox", "true")
    failed = engine.attempt_docker("run", "--name=nothing", "--network=lan", "busybox", "/no/such/command")
    assert failed.status == 127
    assert engine.docker("run", "--rm", "--network=lan", "busybox", "cat", "/sys/class/net/eth0/operstate")

    def crashed_for_good() -> bool:
        count = engine.docker("inspect", "--format={{.RestartCount}}", "crashing").strip()
        return count == "2" and states(engine)["crashing"] == "exited"

    assert within(60, crashed_for_good)
    assert {name for name, state in states(engine).items() if state == "running"} == {"restarted"}
    docker_host.plugin.stop()
    assert len(docker_host.rows()["endpoints"]) == 1, "endpoints of containers that are gone"
    assert len(docker_host.rows()["addresses"]) == 2, "addresses other than the gateway's and one container's"
    docker_host.plugin.start()
    engine.docker("start", "killed")
    docker_host.start("fresh", AT_ONCE)
    assert_all_talk(docker_host, ["killed", "restarted", "fresh"])
    assert [name for name in docker_host.lan.host_links() if name.startswith("mvt")] == []


def test_crashed_container_is_back_on_the_lan(docker_host: DockerHost) -> None:
    """Restart policy `always`: each crash is a complete removal and set-up, and the container is back."""
    engine = docker_host.engine
    docker_host.create("lan", *RANGE)
    docker_host.start("phoenix", AT_ONCE, "--restart=always", "--ip=192.168.77.180")
    for crash in (1, 2):
        process = engine.docker("inspect", "--format={{.State.Pid}}", "phoenix").strip()
        docker_host.lan.run_in("host", *engine_kill(engine.dockerd.pid, process))

        def back(count: int = crash) -> bool:
            output = engine.docker("inspect", "--format={{.RestartCount}} {{.State.Status}}", "phoenix")
            return output.split() == [str(count), "running"]

        assert within(60, back)
        assert_all_talk(docker_host, ["phoenix"])
    assert address(engine, "phoenix") == "192.168.77.180"


def engine_kill(dockerd: int, process: str) -> tuple[str, ...]:
    """Return the command that kills a process by its pid in the engine's namespace."""
    return ("nsenter", "--pid", "--mount", f"--target={dockerd}", "--", "sh", "-c", f"kill -9 {process}")


@pytest.mark.parametrize("how", ["disconnect", "disconnect --force"])
def test_container_can_disconnect_and_connect(docker_host: DockerHost, how: str) -> None:
    engine = docker_host.engine
    docker_host.create("lan", *OUR_IPAM)
    docker_host.create("other", *OUR_IPAM)
    docker_host.start("box", AT_ONCE)
    first = address(engine, "box")
    engine.docker("network", *how.split(), "lan", "box")
    assert Container(engine, "box").links() == {}
    engine.docker("network", "connect", "other", "box")
    assert address(engine, "box", "other") != first, "networks on one subnet share their addresses"
    assert Container(engine, "box").ping("192.168.77.1")
    engine.docker("network", *how.split(), "other", "box")
    engine.docker("network", "connect", "--ip=192.168.77.250", "lan", "box")
    assert_all_talk(docker_host, ["box"])
    assert address(engine, "box") == "192.168.77.250"
