"""Host access that cannot work is refused with the reason and the remedy."""

import pytest

from tests.integration.host_access import ACCESS, HOST, IPV4, IPV6, OURS, OWN, host_addresses
from tests.integration.test_conflicts import neighbour_has
from tests.lab.docker_host import DockerHost, plugin_error

NICS = 2


@pytest.mark.one_engine
@pytest.mark.parametrize("mode", ["private", "vepa", "passthru", "source"])
def test_host_access_is_refused_in_other_modes(docker_host: DockerHost, mode: str) -> None:
    words = [f"--opt=macvlan_mode={mode}", "--opt=parent=eth2", "--opt=host_access=true"]
    if mode == "source":
        words.append("--opt=source_macs=02:00:00:00:00:07")
    assert plugin_error(docker_host.refusal(*OURS, *words)) == (
        f"-o host_access=true needs mode bridge, but the mode is {mode}: use -o macvlan_mode=bridge, or leave host_access out"
    )


def test_docker_ipam_without_host_address_is_refused(docker_host: DockerHost) -> None:
    """The refusal names the options that help."""
    error = docker_host.refusal(*IPV4, *ACCESS)
    for word in ("--aux-address host=ADDRESS", "-o host_address=ADDRESS", "-o host_access=false"):
        assert word in error
    error = docker_host.refusal(*IPV4, *IPV6, "--aux-address=host=192.168.77.90", *ACCESS)
    assert "--aux-address host6=ADDRESS" in error


def test_neighbours_address_is_refused_with_its_mac(docker_host: DockerHost) -> None:
    with neighbour_has(docker_host, "192.168.77.80", "fd77::80") as mac:
        for address, words in (("192.168.77.80", IPV4), ("fd77::80", (*IPV4, *IPV6))):
            hosts = "192.168.77.81,fd77::80" if ":" in address else address
            error = docker_host.refusal(*words, *ACCESS, f"--opt=host_address={hosts}")
            assert f"host address {address} is in use on eth1" in error
            assert mac in error
        error = docker_host.refusal(*OURS, *ACCESS, "--opt=host_address=192.168.77.80")
        assert mac in error


@pytest.mark.one_engine
def test_address_in_use_on_this_host_is_refused(docker_host: DockerHost) -> None:
    """By a container, or by the host itself."""
    docker_host.create("lan", *OURS, "--opt=parent=eth1")
    docker_host.start("box", "--ip=192.168.77.70")
    error = docker_host.refusal(*OURS, *ACCESS, "--opt=host_address=192.168.77.70")
    assert "192.168.77.70" in error
    assert "in use by a container" in error
    error = docker_host.refusal(*OURS, *ACCESS, f"--opt=host_address={OWN}")
    assert f"host address {OWN} is already assigned to the host on eth1" in error
    error = docker_host.refusal(*OURS, "--opt=parent=eth1", "--opt=host_address=192.168.77.71")
    assert "add -o host_access=true" in error


@pytest.mark.one_engine
def test_container_cannot_take_the_hosts_address(docker_host: DockerHost) -> None:
    docker_host.create("lan", *OURS, *ACCESS)
    assert plugin_error(docker_host.start_refusal(f"--ip={HOST}")) == (
        f"address {HOST} of 192.168.77.0/24 is reserved as a network's gateway or auxiliary address: use another one"
    )
    docker_host.create("docker", "--subnet=10.77.0.0/24", *ACCESS, "--opt=host_address=10.77.0.9")
    assert plugin_error(docker_host.start_refusal("--ip=10.77.0.9", network="docker")) == (
        "address 10.77.0.9 is the host's own address on parent eth1 (-o host_access): use another --ip; to reserve 10.77.0.9 "
        "permanently, create the network again with --aux-address host=10.77.0.9"
    )


@pytest.mark.one_engine
@pytest.mark.plugin_arguments("--host-access", "true")
def test_service_default_covers_undecided_bridge_networks_only(docker_host: DockerHost) -> None:
    docker_host.create("lan", *OURS, "--opt=parent=eth1")
    assert host_addresses(docker_host.lan) == [HOST]
    box = docker_host.start("box")
    assert docker_host.lan.ping("host", "192.168.77.65")
    assert box.ping(OWN)
    docker_host.create("private", "--subnet=10.77.0.0/24", "--opt=parent=eth2", "--opt=macvlan_mode=private")
    docker_host.create("without", "--subnet=10.78.0.0/24", "--opt=parent=eth2", "--opt=host_access=false")
    assert "-o host_access=false" in docker_host.refusal("--subnet=10.79.0.0/24", "--opt=parent=eth2")
    assert host_addresses(docker_host.lan) == [HOST]
