"""Helpers for tests about the lives of containers."""

from collections.abc import Sequence

from tests.lab.docker_host import Container, DockerHost
from tests.lab.engine import Engine

SUBNET = ("--opt=parent=eth1", "--subnet=192.168.77.0/24", "--gateway=192.168.77.1")
RANGE = (*SUBNET, "--ip-range=192.168.77.128/25")
"""A network's addresses, without those of the LAN's own stations."""
OUR_IPAM = ("--ipam-driver=macvlan-twisted", *RANGE)
AT_ONCE = "--stop-signal=SIGKILL"
"""Our containers ignore SIGTERM, and the engine would wait ten seconds for each."""
STATIONS = ("192.168.77.1", "192.168.77.2")


def address(engine: Engine, name: str, network: str = "lan") -> str:
    """Return the IPv4 address that the engine believes a container to have."""
    known = engine.ask("GET", f"/containers/{name}/json")
    return str(known["NetworkSettings"]["Networks"][network]["IPAddress"])


def endpoints(engine: Engine) -> set[str]:
    """Return the ids of all endpoints that the engine knows of running containers."""
    running = [
        engine.ask("GET", f"/containers/{each['Id']}/json") for each in engine.ask("GET", "/containers/json")
    ]
    known = [endpoint for each in running for endpoint in each["NetworkSettings"]["Networks"].values()]
    return {str(each["EndpointID"]) for each in known if each["EndpointID"]}


def states(engine: Engine) -> dict[str, str]:
    """Return the states of all containers (running, exited ...) by their names."""
    return {each["Names"][0][1:]: each["State"] for each in engine.ask("GET", "/containers/json?all=1")}


def assert_all_talk(host: DockerHost, names: Sequence[str], *, network: str = "lan") -> None:
    """Each container has the address that the engine reports, and reaches the stations and the next container."""
    addresses = [address(host.engine, name, network) for name in names]
    assert len(set(addresses)) == len(names), f"handed out twice: {sorted(addresses)}"
    containers = [Container(host.engine, name) for name in names]
    nics = [next(iter(each.links())) for each in containers]  # eth1 after a disconnect and connect
    assert len({each.mac(nic) for each, nic in zip(containers, nics, strict=True)}) == len(names)
    for number, (container, nic, own) in enumerate(zip(containers, nics, addresses, strict=True)):
        assert f"{own}/24" in container.addresses(nic)
        assert STATIONS[0] in container.routers()
        others = (*STATIONS, addresses[(number + 1) % len(names)])
        assert [each for each in others if not container.ping(each)] == [], f"{container.name} is cut off"
