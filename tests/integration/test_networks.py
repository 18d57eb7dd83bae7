"""The life of networks and containers on the LAN, from creation to removal, on every engine."""

import json

import pytest

from tests.lab.commands import run
from tests.lab.docker_host import Container, DockerHost

IPV4 = ("--subnet=192.168.77.0/24", "--gateway=192.168.77.1", "--ip-range=192.168.77.64/26")
IPV6 = ("--ipv6", "--subnet=fd77::/64", "--gateway=fd77::1", "--ip-range=fd77::7:0/112")
LAN = (*IPV4, "--opt=parent=eth1")
OTHER = ("--subnet=10.88.0.0/24", "--gateway=10.88.0.1", "--opt=parent=eth1")


def test_container_lives_on_the_lan_and_leaves_nothing(docker_host: DockerHost) -> None:
    docker_host.create("lan", *LAN, *IPV6)
    box = docker_host.start("box", "--ip=192.168.77.70", "--ip6=fd77::70")
    assert box.addresses() == {"192.168.77.70/24", "fd77::70/64"}
    assert box.routers() == {"192.168.77.1", "fd77::1"}
    assert set(box.links()) == {"eth0"}
    assert box.mac() == "7a:42:c0:a8:4d:46"
    (output,) = docker_host.engine.docker_json("inspect", "box")
    assert output["NetworkSettings"]["Networks"]["lan"]["MacAddress"] == box.mac()
    for address in ("192.168.77.1", "192.168.77.2", "fd77::1", "fd77::2"):
        assert box.ping(address)
    with docker_host.lan.capture("neighbour", f"icmp and ether dst {box.mac()}") as capture:
        assert docker_host.lan.ping("neighbour", "192.168.77.70")
        assert len(capture.lines()) == 1
    assert docker_host.lan.ping("neighbour", "fd77::70")
    sibling = docker_host.start("sibling")
    assert sibling.ping("192.168.77.70")
    assert sibling.ping("fd77::70")

    box.remove()
    assert not docker_host.lan.ping("neighbour", "192.168.77.70", seconds=1)
    sibling.remove()
    docker_host.plugin.stop()
    rows = docker_host.rows()
    assert len(rows.pop("networks")) == 1
    ((parent, own, _),) = rows.pop("host_links")  # ours on the parent, as long as there is the network
    assert parent == "eth1"
    assert not any(rows.values())
    assert set(docker_host.lan.host_links()) == {"lo", "eth1", json.loads(own)["name"]}


def test_container_is_back_after_restart_kill_and_crash(docker_host: DockerHost) -> None:
    docker_host.create("lan", *LAN)
    docker_host.start("box", "--ip=192.168.77.70", "--restart=on-failure")
    docker_host.engine.docker("restart", "--time=0", "box")
    assert docker_host.lan.ping("neighbour", "192.168.77.70")
    docker_host.engine.docker("kill", "box")
    assert not docker_host.lan.ping("neighbour", "192.168.77.70", seconds=1)
    docker_host.engine.docker("start", "box")
    assert docker_host.lan.ping("neighbour", "192.168.77.70")
    crash = ("inspect", "--format={{.RestartCount}}", "box")
    # By a signal from outside: the engine takes the end for a crash and starts the container again.
    run("nsenter", f"--pid=/proc/{docker_host.engine.dockerd.pid}/ns/pid", "--", *killed(docker_host))
    docker_host.engine.dockerd.wait_until(
        lambda: docker_host.engine.docker(*crash).strip() == "1", 20, "the container's second life"
    )
    assert docker_host.lan.ping("neighbour", "192.168.77.70")


def killed(host: DockerHost) -> tuple[str, ...]:
    """Return the command that kills the process of the container `box`."""
    pid = host.engine.docker("inspect", "--format={{.State.Pid}}", "box").strip()
    return ("sh", "-c", f"kill -KILL {pid}")


def test_short_lived_containers_leave_nothing(docker_host: DockerHost) -> None:
    docker_host.create("lan", *LAN)
    absent = docker_host.engine.attempt_docker("run", "--rm", "--network=lan", "busybox", "/nope")
    assert absent.status == 127
    assert "/nope" in absent.stderr
    docker_host.engine.docker("run", "--rm", "--network=lan", "busybox", "true")
    docker_host.plugin.stop()
    assert docker_host.rows()["endpoints"] == []


def test_default_route_follows_connect_and_disconnect(docker_host: DockerHost) -> None:
    for place in ("gateway", "neighbour"):
        last = {"gateway": 1, "neighbour": 2}[place]
        docker_host.lan.run_in(place, "ip", "address", "replace", f"10.88.0.{last}/24", "dev", "eth1")
    docker_host.create("lan", *LAN)
    docker_host.create("other", *OTHER, "--ip-range=10.88.0.64/26")
    box = docker_host.start("box", "--ip=192.168.77.70")
    docker = docker_host.engine.docker

    docker("network", "connect", "--ip=10.88.0.70", "other", "box")
    assert set(box.links()) == {"eth0", "eth1"}
    assert box.addresses("eth1") == {"10.88.0.70/24"}
    assert box.mac("eth1") == "7a:42:0a:58:00:46"
    assert box.routers() == {"192.168.77.1"}  # of the network whose name comes first
    assert box.ping("192.168.77.2")
    assert box.ping("10.88.0.2")

    docker("network", "disconnect", "lan", "box")
    assert set(box.links()) == {"eth1"}
    assert box.routers() == {"10.88.0.1"}
    assert box.ping("10.88.0.2")
    assert not docker_host.lan.ping("neighbour", "192.168.77.70", seconds=1)

    docker("network", "connect", "--ip=192.168.77.71", "lan", "box")
    assert box.routers() == {"192.168.77.1"}
    # Older engines give the link another number than it had.
    assert {"192.168.77.71/24"} in [box.addresses(nic) for nic in box.links()]
    assert docker_host.lan.ping("neighbour", "192.168.77.71")
    docker("network", "disconnect", "lan", "box")
    docker("network", "disconnect", "other", "box")
    assert box.links() == {}


@pytest.mark.one_engine
def test_second_network_of_one_name_is_refused(docker_host: DockerHost) -> None:
    docker_host.create("lan", *LAN)
    words = ("network", "create", "--driver=macvlan-twisted", *OTHER, "lan")
    assert "already exists" in docker_host.engine.attempt_docker(*words).stderr
    assert docker_host.start("box").ping("192.168.77.1")
    docker_host.plugin.stop()
    assert [row[0] for row in docker_host.rows()["networks"]] == [docker_host.network_id("lan")]


@pytest.mark.one_engine
def test_network_with_containers_is_not_removed(docker_host: DockerHost) -> None:
    docker_host.create("lan", *LAN)
    box = docker_host.start("box")
    assert "has active endpoints" in docker_host.engine.attempt_docker("network", "rm", "lan").stderr
    assert box.ping("192.168.77.1")
    docker_host.engine.docker("restart", "--time=0", "box")
    assert Container(docker_host.engine, "box").ping("192.168.77.1")
