"""Several networks on one parent: all may share it, but passthru wants it alone."""

import re

import pytest

from tests.lab.commands import run
from tests.lab.docker_host import DockerHost, plugin_error

NICS = 2
LAN = ("--subnet=192.168.77.0/24", "--gateway=192.168.77.1", "--ip-range=192.168.77.64/26")
OTHER = ("--subnet=10.88.0.0/24", "--gateway=10.88.0.1")
ON_ETH1 = "--opt=parent=eth1"
PASSTHRU = "--opt=mode=passthru"


@pytest.mark.one_engine
def test_networks_of_all_modes_but_passthru_share_a_parent(docker_host: DockerHost) -> None:
    docker_host.create("lan", *LAN, ON_ETH1)
    docker_host.create("alone", *OTHER, ON_ETH1, "--opt=mode=private")
    docker_host.create("outwards", "--subnet=10.89.0.0/24", ON_ETH1, "--opt=mode=vepa")
    first = docker_host.start("first")
    second = docker_host.start("second", network="alone")
    assert first.kind()["mode"] == "bridge"
    assert second.kind()["mode"] == "private"
    assert first.ping("192.168.77.2")


@pytest.mark.one_engine
def test_our_ipam_shares_a_subnet_with_the_engines(docker_host: DockerHost) -> None:
    subnet = ("--subnet=192.168.77.0/24", "--gateway=192.168.77.1", ON_ETH1)
    docker_host.create("lan", *subnet, "--ip-range=192.168.77.64/26")
    docker_host.refusal(*subnet, "--ip-range=192.168.77.128/26")  # before it comes to us
    docker_host.create("more", *subnet, "--ip-range=192.168.77.128/26", "--ipam-driver=macvlan-twisted")
    first, second = docker_host.start("first"), docker_host.start("second", network="more")
    assert first.ping("192.168.77.1")
    assert second.ping("192.168.77.1")
    (address,) = second.addresses()
    assert first.ping(address.partition("/")[0])


@pytest.mark.one_engine
def test_passthru_excludes_other_networks_by_name(docker_host: DockerHost) -> None:
    docker_host.create("lan", *LAN, ON_ETH1)
    error = plugin_error(docker_host.refusal(*OTHER, ON_ETH1, PASSTHRU))
    assert error == (
        f"cannot use mode passthru, macvlan network {docker_host.network_id('lan')[:12]} is already using parent interface "
        "eth1: remove that network, or choose another parent"
    )
    docker_host.create("free", *OTHER, "--opt=parent=eth2", PASSTHRU)
    for mode in ("bridge", "passthru"):
        error = docker_host.refusal("--subnet=10.89.0.0/24", "--opt=parent=eth2", f"--opt=mode={mode}")
        assert docker_host.network_id("free")[:12] in error
        assert "parent interface eth2" in error

    # With the other network gone nothing stands in the way, in both directions.
    docker_host.engine.docker("network", "rm", "lan", "free")
    docker_host.create("lan", *LAN, ON_ETH1, PASSTHRU)
    docker_host.create("free", *OTHER, "--opt=parent=eth2")


@pytest.mark.one_engine
def test_second_passthru_container_is_refused(docker_host: DockerHost) -> None:
    docker_host.create("lan", *LAN, "--opt=parent=eth2", PASSTHRU)
    box = docker_host.start("box")
    assert re.fullmatch(
        r"parent eth2 supports only one container in mode passthru and is in use by (container box|endpoint \w{12}): stop that container",
        plugin_error(docker_host.start_refusal()),
    )
    assert box.ping("192.168.77.2")
    box.remove()
    assert docker_host.start("next").ping("192.168.77.2")


@pytest.mark.one_engine
def test_parent_can_switch_to_passthru_and_back(docker_host: DockerHost) -> None:
    for mode in ("bridge", "passthru", "bridge"):
        docker_host.create("lan", *LAN, "--opt=parent=eth2", f"--opt=mode={mode}")
        box = docker_host.start("box")
        assert box.kind()["mode"] == mode
        box.remove()
        docker_host.engine.docker("network", "rm", "lan")


@pytest.mark.one_engine
def test_containers_start_when_the_parent_is_back(docker_host: DockerHost) -> None:
    host = docker_host.lan.enter("host")
    veth = ("ip", "link", "add", "eth7", "type", "veth", "peer", "name", "peer7")
    run(*host, *veth)
    try:
        docker_host.create("away", *OTHER, "--opt=parent=eth7")
        run(*host, "ip", "link", "delete", "eth7")
        error = plugin_error(docker_host.start_refusal(network="away"))
        assert re.fullmatch(
            r"parent eth7 (is absent|has been absent for \d+ s): start the container again when it is back",
            error,
        )
        run(*host, *veth)
        run(*host, "ip", "link", "set", "eth7", "up")
        docker_host.start("box", network="away").remove()
    finally:
        run(*host, "ip", "link", "delete", "eth7")
