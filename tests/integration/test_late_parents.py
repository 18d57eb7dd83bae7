"""Parents that are late, vanish and return, as users of an engine see them."""

import re

import pytest

from tests.integration.containers import AT_ONCE, address
from tests.lab.commands import wait_until
from tests.lab.docker_host import Container, DockerHost, plugin_error

NICS = 2
NIC = "eth2"
HOST = "192.168.77.200"
ON_NIC = (
    f"--opt=parent={NIC}",
    "--subnet=192.168.77.0/24",
    "--gateway=192.168.77.1",
    "--ip-range=192.168.77.128/25",
    "--ipam-driver=macvlan-twisted",
    f"--ipam-opt=parent={NIC}",
    "--aux-address=host=192.168.77.200",
    "--opt=host_access=true",
)
DETECTION = ("--ipam-opt=conflict_detection=strict", "--opt=conflict_detection=strict")


def has_access(host: DockerHost) -> bool:
    """Whether the host has its address on our link."""
    links = [link for name, link in host.links().items() if name.startswith("mvh")]
    return any(each["local"] == HOST for link in links for each in link["addr_info"])


def reaches(host: DockerHost, name: str) -> bool:
    """Whether the host reaches a container."""
    return host.lan.attempt_in(host.place, "ping", "-c1", "-w2", address(host.engine, name)).status == 0


def refused_start(host: DockerHost, name: str) -> str:
    """Try to start a container that is there, and return the user's error."""
    finished = host.engine.attempt_docker("start", name)
    assert finished.status != 0
    return finished.stderr


@pytest.mark.parametrize("detection", [(), DETECTION], ids=["on", "strict"])
def test_plugin_starts_without_its_parent(docker_host: DockerHost, detection: tuple[str, ...]) -> None:
    """Containers start as soon as the parent is there."""
    lan, place = docker_host.lan, docker_host.place
    why = rf"parent {NIC} has been absent for \d+ s: start the container again when it is back"
    if detection:
        why = (
            rf"no address of pool 192\.168\.77\.0/24 \(.*\) can be probed on {NIC} \({why}\): bring the parent up, or create the "
            "network with --ipam-opt conflict_detection=on instead of strict"
        )
    docker_host.create("lan", *ON_NIC, *detection)
    docker_host.start("box", AT_ONCE)
    docker_host.engine.docker("stop", "box")
    docker_host.plugin.stop()
    lan.unplug(place, NIC)
    docker_host.plugin.start()
    try:
        assert (
            f"parent {NIC}: absent; containers on it can start when it is back (networks: 1)"
            in docker_host.plugin.log()
        )
        for _ in range(2):
            assert re.fullmatch(why, plugin_error(refused_start(docker_host, "box")))
        refused = docker_host.engine.attempt_docker(
            "network",
            "create",
            "--driver=macvlan-twisted",
            f"--opt=parent={NIC}",
            "--subnet=10.9.9.0/24",
            "other",
        ).stderr
        assert re.fullmatch(
            rf"parent {NIC} has been absent for \d+ s: create the network again when it is back",
            plugin_error(refused),
        )
    finally:
        lan.plug(place, NIC)
    wait_until(lambda: has_access(docker_host), 20, "access from the host")
    docker_host.engine.docker("start", "box")
    box = Container(docker_host.engine, "box")
    assert box.ping("192.168.77.2")
    assert reaches(docker_host, "box")
    log = docker_host.plugin.log()
    assert log.count(f"parent {NIC}: absent; ") == 1
    assert log.count(f"parent {NIC}: present again after ") == 1


def test_returning_parent_restores_access(docker_host: DockerHost) -> None:
    """The kernel removes the containers' links with it; the host's come back by themselves, theirs when they start."""
    lan, place = docker_host.lan, docker_host.place
    docker_host.create("lan", *ON_NIC)
    for name in ("box-a", "box-b"):
        docker_host.start(name, AT_ONCE)
    lan.unplug(place, NIC)
    try:
        wait_until(lambda: ": absent" in docker_host.plugin.log(), 20, "a word in the log")
        docker_host.engine.docker("inspect", "box-a")
        docker_host.engine.docker("network", "inspect", "--verbose", "lan")
        docker_host.engine.docker("stop", "box-b")
        assert f"parent {NIC} has been absent for " in refused_start(docker_host, "box-b")
    finally:
        lan.plug(place, NIC)
    wait_until(lambda: has_access(docker_host), 20, "access from the host")
    docker_host.engine.docker("start", "box-b")
    docker_host.engine.docker("restart", "box-a")
    for name in ("box-a", "box-b"):
        assert Container(docker_host.engine, name).ping("192.168.77.2")
        assert reaches(docker_host, name)
    assert "tries again within a minute" not in docker_host.plugin.log()
