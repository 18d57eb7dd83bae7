"""Which container keeps its address, with each engine (docs/explanation/addresses has the table)."""

import time

import pytest

from tests.integration.containers import AT_ONCE, OUR_IPAM, address
from tests.lab.docker_host import Container, DockerHost


def identity(host: DockerHost, name: str) -> tuple[str, str]:
    """Return a running container's address and MAC."""
    return address(host.engine, name), Container(host.engine, name).mac()


def test_restarted_container_keeps_address_and_mac(docker_host: DockerHost) -> None:
    docker_host.create("lan", *OUR_IPAM)
    for name in ("one", "two"):
        docker_host.start(name, AT_ONCE)
    before = {name: identity(docker_host, name) for name in ("one", "two")}
    for _ in range(2):
        docker_host.engine.docker("restart", "one", "two")
        assert {name: identity(docker_host, name) for name in before} == before


@pytest.mark.plugin_arguments("--return-grace", "60")
@pytest.mark.parametrize("ending", ["stop", "kill"])
def test_address_returns_after_the_plugin_restarted(docker_host: DockerHost, ending: str) -> None:
    """The plugin restarts between the container's stop and its start."""
    docker_host.create("lan", *OUR_IPAM)
    docker_host.start("other", AT_ONCE)
    docker_host.start("box", AT_ONCE)
    before = identity(docker_host, "box")
    docker_host.engine.docker("stop", "box")
    docker_host.plugin.stop() if ending == "stop" else docker_host.plugin.kill()
    docker_host.plugin.start()
    docker_host.engine.docker("start", "box")
    assert identity(docker_host, "box") == before


def test_asked_address_is_not_the_next_containers(docker_host: DockerHost) -> None:
    docker_host.create("lan", *OUR_IPAM)
    docker_host.start("box", AT_ONCE, "--ip=192.168.77.200")
    docker_host.engine.docker("stop", "box")
    docker_host.start("other", AT_ONCE)
    assert address(docker_host.engine, "other") == "192.168.77.128"
    docker_host.engine.docker("start", "box")
    assert address(docker_host.engine, "box") == "192.168.77.200"


def test_only_absent_container_has_its_address_later(docker_host: DockerHost) -> None:
    """With the engine's API. A restart of the plugin is in between."""
    docker_host.create("lan", *OUR_IPAM)
    docker_host.start("other", AT_ONCE)
    docker_host.start("box", AT_ONCE)
    before = identity(docker_host, "box")
    docker_host.engine.docker("stop", "box")
    docker_host.engine.docker("create", "--network=lan", "--ip=192.168.77.201", "busybox", "true")
    docker_host.plugin.stop()
    time.sleep(6)
    docker_host.plugin.start()
    time.sleep(1)
    docker_host.engine.docker("start", "box")
    assert identity(docker_host, "box") == before


def test_new_container_leaves_an_absent_one_its_address(docker_host: DockerHost) -> None:
    docker_host.create("lan", *OUR_IPAM)
    docker_host.start("box", AT_ONCE)
    before = identity(docker_host, "box")
    docker_host.engine.docker("stop", "box")
    docker_host.start("new", AT_ONCE)
    docker_host.engine.docker("start", "box")
    assert identity(docker_host, "box") == before
