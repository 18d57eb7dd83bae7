"""Networks of our plugin, and containers on them: mostly through the engine's API, since the docker client takes a second here."""

from tests.lab.commands import Finished
from tests.lab.docker_host import Container
from tests.lab.engine import Engine

DRIVER = "macvlan-twisted"


def attempt_create(engine: Engine, name: str, number: int, *options: str) -> Finished:
    """Try to make a network on 10.<number>.0.0/24 with these ``-o`` options, as a user does."""
    words = [word for each in options for word in ("-o", each)]
    subnet = (f"--subnet=10.{number}.0.0/24", f"--gateway=10.{number}.0.1")
    return engine.attempt_docker("network", "create", "-d", DRIVER, *subnet, *words, name)


def create(
    engine: Engine, name: str, number: int, *options: str, internal: bool = False, host_address: str = ""
) -> None:
    """Make a network on 10.<number>.0.0/24 with these ``-o`` options.

    `internal` is ``--internal``, and `host_address` is ``--aux-address=host=...``.
    """
    config = {
        "Subnet": f"10.{number}.0.0/24",
        "Gateway": f"10.{number}.0.1",
        "AuxiliaryAddresses": {"host": host_address} if host_address else {},
    }
    order = {
        "Name": name,
        "Driver": DRIVER,
        "Internal": internal,
        "IPAM": {"Config": [config]},
        "Options": dict(each.split("=", 1) for each in options),
    }
    engine.ask("POST", "/networks/create", order)


def remove(engine: Engine, name: str) -> None:
    """Remove a network."""
    engine.ask("DELETE", f"/networks/{name}")


def start(engine: Engine, name: str, network: str, address: str) -> str:
    """Start a container that sleeps; return its MAC address."""
    order = {
        "Image": "busybox",
        "Cmd": ["sleep", "600"],
        "HostConfig": {"NetworkMode": network},
        "NetworkingConfig": {"EndpointsConfig": {network: {"IPAMConfig": {"IPv4Address": address}}}},
    }
    engine.ask("POST", f"/containers/create?name={name}", order)
    engine.ask("POST", f"/containers/{name}/start")
    return Container(engine, name).mac()


def end(engine: Engine, *names: str) -> None:
    """Remove containers, running or not."""
    for name in names:
        engine.ask("DELETE", f"/containers/{name}?force=1")


def reaches(engine: Engine, container: str, address: str) -> bool:
    """Whether an address answers the container within three seconds."""
    return Container(engine, container).ping(address, seconds=3)
