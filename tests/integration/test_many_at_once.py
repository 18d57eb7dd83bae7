"""Many containers and networks come and go at the same time, through a real engine."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.integration.containers import AT_ONCE, OUR_IPAM, RANGE, STATIONS, SUBNET
from tests.lab.docker_host import DockerHost
from tests.lab.engine import Engine

NUMBER = 20


def in_parallel(number: int, work: Callable[[str], Any], items: Sequence[str]) -> list[Any]:
    """Call `work` for each item, `number` at a time."""
    with ThreadPoolExecutor(number) as pool:
        return list(pool.map(work, items))


def connections_of(engine: Engine, names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Return what the engine says of each container's connection to its network."""
    inspected = engine.docker_json("inspect", *names)
    return {each["Name"].strip("/"): each["NetworkSettings"]["Networks"]["lan"] for each in inspected}


def test_twenty_containers_start_at_once(docker_host: DockerHost) -> None:
    assert_that_twenty_live_and_die(docker_host, *OUR_IPAM)


@pytest.mark.one_engine
def test_twenty_containers_start_at_once_on_dockers_ipam(docker_host: DockerHost) -> None:
    assert_that_twenty_live_and_die(docker_host, *RANGE)


def assert_that_twenty_live_and_die(docker_host: DockerHost, *ipam: str) -> None:
    """Start and remove them all at once: each reaches the stations and its neighbour, and nothing is left."""
    engine = docker_host.engine
    docker_host.create("lan", *ipam)
    names = [f"c{number}" for number in range(NUMBER)]
    in_parallel(NUMBER, lambda name: docker_host.start(name, AT_ONCE), names)
    connections = connections_of(engine, names)
    addresses = [connections[name]["IPAddress"] for name in names]
    assert len(set(addresses)) == NUMBER, sorted(addresses)
    assert len({each["MacAddress"] for each in connections.values()}) == NUMBER
    assert not {*addresses} & {*STATIONS, "192.168.77.10"}

    def heard(name: str) -> str:
        others = (*STATIONS, addresses[(names.index(name) + 1) % NUMBER])
        script = "; ".join(f"ping -c 1 -w 5 {each} > /dev/null || echo {each}" for each in others)
        return engine.docker("exec", name, "sh", "-c", script).strip()

    assert {
        name: missing for name, missing in zip(names, in_parallel(4, heard, names), strict=True) if missing
    } == {}

    in_parallel(NUMBER, lambda name: engine.docker("rm", "--force", name), names)
    docker_host.plugin.stop()
    left = docker_host.rows()
    assert left["endpoints"] == []
    assert len(left["addresses"]) <= 1, "addresses other than the gateway's"
    assert [name for name in docker_host.lan.host_links() if name.startswith("mvt")] == []
    docker_host.plugin.start()


def test_networks_can_be_created_and_removed_at_once(docker_host: DockerHost) -> None:
    """Six on one parent, with subnets of their own, half of them on our IPAM; several times over."""
    names = [f"net{number}" for number in range(6)]

    def make(name: str) -> None:
        number = int(name[3:])
        subnet = f"10.{number + 8}.0"
        words = ("--opt=parent=eth1", f"--subnet={subnet}.0/24", f"--gateway={subnet}.1")
        docker_host.create(name, *words, *(OUR_IPAM[:1] if number % 2 else ()))

    for _ in range(2):
        in_parallel(6, make, names)
        assert set(names) <= docker_host.networks()
        in_parallel(6, lambda name: docker_host.engine.docker("network", "rm", name), names)
        docker_host.plugin.stop()
        assert docker_host.remains() == []
        docker_host.plugin.start()


@pytest.mark.one_engine
def test_networks_on_one_subnet_hand_out_distinct_addresses(docker_host: DockerHost) -> None:
    """Three networks of our IPAM share the LAN's subnet: containers start on all of them at once."""
    engine = docker_host.engine
    networks = ["lan0", "lan1", "lan2"]
    in_parallel(3, lambda name: docker_host.create(name, *OUR_IPAM), networks)
    names = [f"c{number}" for number in range(9)]

    def start(name: str) -> None:
        docker_host.start(name, AT_ONCE, network=networks[int(name[1:]) % 3])

    in_parallel(9, start, names)
    inspected = engine.docker_json("inspect", *names)
    addresses = [
        network["IPAddress"] for each in inspected for network in each["NetworkSettings"]["Networks"].values()
    ]
    assert len(set(addresses)) == 9, sorted(addresses)
    assert [each for each in addresses if not docker_host.lan.ping("gateway", each)] == []
    in_parallel(3, lambda name: engine.docker("rm", "--force", name), names[:3])
    docker_host.start("late", AT_ONCE, network="lan0")


@pytest.mark.one_engine
def test_starts_beyond_the_last_address_leave_nothing(docker_host: DockerHost) -> None:
    """Eight want one of the range's four addresses; those that failed cost nothing."""
    words = (*OUR_IPAM[:1], *SUBNET, "--ip-range=192.168.77.128/30")
    docker_host.create("lan", *words)
    engine = docker_host.engine
    names = [f"c{number}" for number in range(8)]
    run = ("run", "--detach", "--network=lan", AT_ONCE)
    results = in_parallel(
        8, lambda name: engine.attempt_docker(*run, f"--name={name}", "busybox", "sleep", "600"), names
    )
    failed = [each for each in results if each.status != 0]
    assert len(failed) == 4
    assert all(
        "pool 192.168.77.0/24 (range 192.168.77.128/30) is exhausted" in each.stderr for each in failed
    )
    in_parallel(8, lambda name: engine.docker("rm", "--force", name), names)
    in_parallel(4, lambda name: docker_host.start(name, AT_ONCE), [f"again{number}" for number in range(4)])
