"""A network with access from the host leaves room for the container's other networks."""

from tests.integration.host_access import ACCESS, BOTH, HOST, HOST_6, OWN, OWN_6, assert_reach_each_other
from tests.lab.docker_host import Container, DockerHost


def test_container_can_also_join_the_network_of_the_host(docker_host: DockerHost) -> None:
    """Engines give a link no address in a subnet into which a route of the sandbox leads already.

    When a container starts again, Engine 28 joins its networks in any order.
    """
    docker_host.create("lan", *BOTH)
    docker_host.create("ten", "--ipam-driver=macvlan-twisted", "--subnet=10.77.0.0/24", *ACCESS)
    docker_host.start("box", network="ten")
    docker_host.engine.docker("network", "connect", "lan", "box")
    box = Container(docker_host.engine, "box")
    assert_reach_each_other(docker_host, box, of_host=(HOST, HOST_6, OWN, OWN_6))
