"""The modes of macvlan, proven by packets: who reaches whom, and by which path."""

import json
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.lab.docker_host import Container, DockerHost

NICS = 2
PORT = "host-eth1"
"""The switch's port that the docker host's eth1 is plugged into."""
FIRST, SECOND = "192.168.77.51", "192.168.77.52"


def siblings(host: DockerHost, *options: str) -> tuple[Container, Container]:
    """Run two containers on a network with these options."""
    subnet = ("--subnet=192.168.77.0/24", "--gateway=192.168.77.1", "--opt=parent=eth1")
    host.create("lan", *subnet, *(f"--opt={option}" for option in options))
    return host.start("first", f"--ip={FIRST}"), host.start("second", f"--ip={SECOND}")


@contextmanager
def hairpin(host: DockerHost) -> Iterator[None]:
    """Let the switch send frames back by the port that they came from."""
    turn = ("bridge", "link", "set", "dev", PORT, "hairpin")
    host.lan.run_in("switch", *turn, "on")
    try:
        yield
    finally:
        host.lan.run_in("switch", *turn, "off")


def test_bridge_siblings_talk_off_the_wire_and_to_the_lan(docker_host: DockerHost) -> None:
    first, second = siblings(docker_host, "mode=bridge")
    assert first.ping(SECOND)  # from here on they know each other's MAC
    with docker_host.lan.capture("switch", "icmp", nic=PORT, seconds=0.5) as capture:
        assert first.ping(SECOND)
        assert second.ping(FIRST)
        assert capture.lines() == []
    assert first.ping("192.168.77.2")
    assert docker_host.lan.ping("neighbour", SECOND)


@pytest.mark.one_engine
def test_private_siblings_reach_the_lan_and_not_each_other(docker_host: DockerHost) -> None:
    first, second = siblings(docker_host, "mode=private")
    assert first.ping("192.168.77.2")
    assert second.ping("192.168.77.1")
    assert docker_host.lan.ping("neighbour", SECOND)
    assert not first.ping(SECOND, seconds=1)
    with hairpin(docker_host):  # not even by a switch that sends frames back
        assert not first.ping(SECOND, seconds=1)


@pytest.mark.one_engine
def test_vepa_siblings_talk_through_a_reflective_switch_only(docker_host: DockerHost) -> None:
    first, second = siblings(docker_host, "mode=vepa")
    assert first.ping("192.168.77.2")
    with docker_host.lan.capture("switch", f"arp and ether src {first.mac()}", nic=PORT) as capture:
        assert not first.ping(SECOND, seconds=1)
        (question,) = capture.lines()
    assert f"who-has {SECOND}" in question
    packets = f"icmp and ether src {first.mac()} and ether dst {second.mac()}"
    with hairpin(docker_host), docker_host.lan.capture("switch", packets, nic=PORT, count=2) as capture:
        assert first.ping(SECOND)
        out, back = capture.lines()
    assert "echo request" in out
    assert "echo request" in back


@pytest.mark.one_engine
def test_passthru_uses_the_nic_and_restores_it(docker_host: DockerHost) -> None:
    before = docker_host.lan.host_links()["eth2"]
    subnet = ("--subnet=192.168.77.0/24", "--gateway=192.168.77.1", "--opt=parent=eth2")
    docker_host.create("lan", *subnet, "--opt=mode=passthru")
    box = docker_host.start("box", f"--ip={FIRST}")
    assert box.mac() == before["address"]
    (output,) = docker_host.engine.docker_json("inspect", "box")
    assert output["NetworkSettings"]["Networks"]["lan"]["MacAddress"] in ("", before["address"])
    with docker_host.lan.capture("neighbour", f"icmp and ether src {before['address']}") as capture:
        assert box.ping("192.168.77.2")
        assert len(capture.lines()) == 1
    box.remove()
    docker_host.engine.docker("network", "rm", "lan")
    after = docker_host.lan.host_links()["eth2"]
    assert {name: after[name] for name in ("address", "flags", "promiscuity", "mtu")} == {
        name: before[name] for name in ("address", "flags", "promiscuity", "mtu")
    }


@pytest.mark.one_engine
def test_source_mode_admits_the_listed_macs_only(docker_host: DockerHost) -> None:
    (link,) = json.loads(docker_host.lan.run_in("neighbour", "ip", "-json", "link", "show", "eth1"))
    first, _ = siblings(docker_host, "mode=source", f"source_macs={link['address']}")
    assert first.ping("192.168.77.2")
    assert docker_host.lan.ping("neighbour", SECOND)
    assert not first.ping("192.168.77.1", seconds=1)
    assert not docker_host.lan.ping("gateway", FIRST, seconds=1)
