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
    template = f'{{{{(index .NetworkSettings.Networks "{network}").IPAddress}}}}'
    return engine.docker("inspect", f"--format={template}", name).strip()


def endpoints(engine: Engine) -> set[str]:
    """Return the ids of all endpoints that the engine knows of running containers."""
    running = engine.docker("ps", "--quiet", "--no-trunc").split()
    if not running:
        return set()
    template = "{{range .NetworkSettings.Networks}}{{.EndpointID}} {{end}}"
    return set(engine.docker("inspect", f"--format={template}", *running).split())


def states(engine: Engine) -> dict[str, str]:
    """Return the states of all containers (running, exited ...) by their names."""
    output = engine.docker("ps", "--all", "--format={{.Names}} {{.State}}").splitlines()
    return dict(line.split() for line in output)


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
