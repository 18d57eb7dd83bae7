"""The engine's DNS asks the LAN for what it does not know itself, with and without a gateway (docs/reference/engines)."""

import pytest

from tests.integration.containers import AT_ONCE
from tests.lab.docker_host import DockerHost

OURS = ("--ipam-driver=macvlan-twisted", "--ipam-opt=parent=eth1", "--opt=parent=eth1")
SUBNET = ("--subnet=192.168.77.0/24", "--ip-range=192.168.77.128/25")
SERVER = "192.168.77.2"


@pytest.mark.parametrize("gateway", [("--gateway=192.168.77.1",), ()], ids=["gateway", "none"])
def test_names_are_asked_for_on_the_lan(docker_host: DockerHost, gateway: tuple[str, ...]) -> None:
    """Engine 29 does not ask without a gateway."""
    docker_host.create("lan", *OURS, *SUBNET, *gateway)
    assert ("resolves only the names of other containers" in docker_host.plugin.log()) == (
        not gateway and docker_host.engine.version == "28.5"  # older ones make a gateway up
    )
    docker_host.start("box", AT_ONCE, f"--dns={SERVER}")
    asked = f"udp dst port 53 and dst host {SERVER}"
    with docker_host.lan.capture("neighbour", asked, count=1, seconds=60) as capture:
        docker_host.engine.attempt_docker("exec", "box", "timeout", "5", "nslookup", "whale.example.")
        assert "whale.example" in " ".join(capture.lines())
