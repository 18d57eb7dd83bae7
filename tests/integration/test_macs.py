"""MAC addresses: the requested one, else the one derived from the address; never one twice."""

import pytest

from tests.lab.commands import run
from tests.lab.docker_host import Container, DockerHost, plugin_error

LAN = ("--subnet=192.168.77.0/24", "--gateway=192.168.77.1", "--opt=parent=eth1")
CHOSEN = "02:00:00:00:00:77"


def in_use_by_nic(mac: str) -> str:
    """The error where the kernel refuses a MAC that no container of ours has."""
    return (
        f"MAC address {mac} is in use on parent eth1 by the NIC itself or another container's link: use another "
        "--mac-address"
    )


def test_named_mac_is_used_on_the_wire(docker_host: DockerHost) -> None:
    docker_host.create("lan", *LAN)
    box = docker_host.start("box", "--ip=192.168.77.70", f"--mac-address={CHOSEN}")
    assert box.mac() == CHOSEN
    (output,) = docker_host.engine.docker_json("inspect", "box")
    assert output["NetworkSettings"]["Networks"]["lan"]["MacAddress"] == CHOSEN
    with docker_host.lan.capture("neighbour", f"icmp and ether src {CHOSEN}") as capture:
        assert box.ping("192.168.77.2")
        assert len(capture.lines()) == 1
    docker_host.engine.docker("restart", "--time=0", "box")
    assert Container(docker_host.engine, "box").mac() == CHOSEN


@pytest.mark.one_engine
def test_derived_mac_contains_the_ipv4_address(docker_host: DockerHost) -> None:
    docker_host.create("lan", *LAN, "--ipv6", "--subnet=fd77::/64", "--gateway=fd77::1")
    docker_host.start("box", "--ip=192.168.77.254", "--ip6=fd77::fe")
    for _ in range(2):
        box = Container(docker_host.engine, "box")
        assert box.mac() == "7a:42:c0:a8:4d:fe"
        docker_host.engine.docker("restart", "--time=0", "box")


@pytest.mark.one_engine
def test_mac_of_another_container_is_refused(docker_host: DockerHost) -> None:
    docker_host.create("lan", *LAN)
    docker_host.create("other", "--subnet=10.88.0.0/24", "--gateway=10.88.0.1", "--opt=parent=eth1")
    box = docker_host.start("box", "--ip=192.168.77.70", f"--mac-address={CHOSEN}")
    (inspected,) = docker_host.engine.docker_json("inspect", "box")
    endpoint = inspected["NetworkSettings"]["Networks"]["lan"]["EndpointID"]
    for network, words in (("lan", ["--ip=192.168.77.71"]), ("other", [])):
        error = docker_host.start_refusal(*words, f"--mac-address={CHOSEN}", network=network)
        assert f"MAC address {CHOSEN} is in use on parent eth1 by " in error
        assert endpoint[:12] in error or "container box" in error
    assert box.ping("192.168.77.2")
    box.remove()
    next_one = docker_host.start("next", "--ip=192.168.77.71", f"--mac-address={CHOSEN}")
    assert next_one.ping("192.168.77.2")


@pytest.mark.one_engine
def test_mac_of_a_foreign_link_is_refused(docker_host: DockerHost) -> None:
    docker_host.create("lan", *LAN)
    host = docker_host.lan.namespace("host")
    make = ("link", "add", "foreign", "link", "eth1", "address", CHOSEN, "type", "macvlan", "mode", "bridge")
    namespace = f"{docker_host.lan.tag}-foreign"
    run("ip", "netns", "add", namespace)
    try:
        run("ip", "-netns", host, *make)
        run("ip", "-netns", host, "link", "set", "foreign", "netns", namespace, "up")
        error = docker_host.start_refusal("--ip=192.168.77.70", f"--mac-address={CHOSEN}")
        assert plugin_error(error) == in_use_by_nic(CHOSEN)
    finally:
        run("ip", "netns", "delete", namespace)
    assert not any(name.startswith("mvt") for name in docker_host.lan.host_links())
    box = docker_host.start("box", "--ip=192.168.77.70", f"--mac-address={CHOSEN}")
    assert box.ping("192.168.77.2")


@pytest.mark.one_engine
def test_mac_of_a_builtin_driver_container_is_refused(docker_host: DockerHost) -> None:
    other = ("--driver=macvlan", "--subnet=10.88.0.0/24", "--gateway=10.88.0.1", "--opt=parent=eth1")
    docker_host.engine.docker("network", "create", *other, "builtin")
    docker_host.start("builtin", f"--mac-address={CHOSEN}", network="builtin")
    docker_host.create("lan", *LAN)
    error = docker_host.start_refusal("--ip=192.168.77.71", f"--mac-address={CHOSEN}")
    assert plugin_error(error) == in_use_by_nic(CHOSEN)
    assert docker_host.start("box", "--ip=192.168.77.71").ping("192.168.77.2")


@pytest.mark.one_engine
def test_mac_of_the_nic_is_refused(docker_host: DockerHost) -> None:
    docker_host.create("lan", *LAN)
    mac = docker_host.lan.host_links()["eth1"]["address"]
    error = docker_host.start_refusal("--ip=192.168.77.70", f"--mac-address={mac}")
    assert plugin_error(error) == in_use_by_nic(mac)
    assert docker_host.start("box", "--ip=192.168.77.70").ping("192.168.77.2")
