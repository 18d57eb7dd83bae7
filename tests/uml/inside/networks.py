"""Networks of our plugin, made as a user makes them, and containers on them."""

from tests.lab.commands import Finished
from tests.lab.engine import Engine

DRIVER = "macvlan-twisted"


def attempt_create(engine: Engine, name: str, number: int, *options: str) -> Finished:
    """Try to make a network on 10.<number>.0.0/24 with these ``-o`` options (or others that start with --)."""
    words = [word for each in options for word in ([each] if each.startswith("--") else ["-o", each])]
    subnet = (f"--subnet=10.{number}.0.0/24", f"--gateway=10.{number}.0.1")
    return engine.attempt_docker("network", "create", "-d", DRIVER, *subnet, *words, name)


def create(engine: Engine, name: str, number: int, *options: str) -> None:
    """Make a network, as :func:`attempt_create`; it must succeed."""
    made = attempt_create(engine, name, number, *options)
    assert made.status == 0, str(made)


def remove(engine: Engine, name: str) -> None:
    """Remove a network."""
    engine.docker("network", "rm", name)


def start(engine: Engine, name: str, network: str, address: str) -> str:
    """Start a container that sleeps; return its MAC address."""
    engine.docker(
        "run", "-d", "--name", name, "--network", network, "--ip", address, "busybox", "sleep", "600"
    )
    mac: str = engine.docker_json("inspect", name)[0]["NetworkSettings"]["Networks"][network]["MacAddress"]
    return mac or engine.docker("exec", name, "cat", "/sys/class/net/eth0/address").strip()


def reaches(engine: Engine, container: str, address: str) -> bool:
    """Whether an address answers the container within three seconds."""
    return engine.attempt_docker("exec", container, "ping", "-c1", "-w3", address).status == 0
