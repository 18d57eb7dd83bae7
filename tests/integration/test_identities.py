"""An identity that lasts: what engines that do not tell containers' names can do, and DHCP under a name."""

from collections.abc import Iterator

import pytest

from tests.conversations.scripted_engine import Container, Engine29, Network
from tests.integration.containers import AT_ONCE, OUR_IPAM, RANGE
from tests.lab.dhcp_server import DhcpServer
from tests.lab.docker_host import DockerHost
from tests.lab.lan import Lan
from tests.lab.plugin import Plugin
from tests.lab.requirements import missing_for_dhcp

from .conftest import need

BY_NAME, BY_CHANCE = "--ipam-opt=identity=name", "--ipam-opt=identity=random"
TOLD = "this engine does not send container names"


def macs(host: DockerHost, number: int = 3) -> list[str]:
    """Run a container of one name again and again, and return its MACs."""
    found = []
    for _ in range(number):
        box = host.start("box", AT_ONCE)
        found.append(box.mac())
        box.remove()
    return found


def test_identity_by_name_without_names_is_logged_once(docker_host: DockerHost) -> None:
    """The log says once what is done instead, and the MAC is made of the address; --ip is the way that remains."""
    docker_host.create("lan", *OUR_IPAM, BY_NAME)
    assert TOLD not in docker_host.plugin.log()
    assert macs(docker_host, 2) == ["7a:42:c0:a8:4d:80"] * 2
    log = docker_host.plugin.log()
    assert log.count(TOLD) == 1
    assert "docker run --ip or --mac-address" in log
    for _ in range(2):
        box = docker_host.start("box", AT_ONCE, "--ip=192.168.77.200", "--mac-address=02:00:00:00:00:17")
        assert (box.addresses(), box.mac()) == ({"192.168.77.200/24"}, "02:00:00:00:00:17")
        box.remove()


def test_random_identity_differs_at_each_start(docker_host: DockerHost) -> None:
    docker_host.create("lan", *OUR_IPAM, BY_CHANCE)
    found = macs(docker_host)
    assert len(set(found)) == 3
    assert all(each.startswith("7a:42:") for each in found)
    box = docker_host.start("box", AT_ONCE)
    assert box.ping("192.168.77.1")
    docker_host.engine.docker("restart", "box")
    network = docker_host.engine.docker_json("inspect", "box")[0]["NetworkSettings"]["Networks"]["lan"]
    assert network["MacAddress"] not in {*found, ""}


def test_driver_option_identity_works_with_docker_ipam(docker_host: DockerHost) -> None:
    docker_host.create("lan", *RANGE, "--opt=identity=random")
    assert len(set(macs(docker_host))) == 3
    docker_host.engine.docker("network", "rm", "lan")
    docker_host.create("lan", *RANGE, "--opt=identity=address")
    address = "192.168.77.128"  # the first of the range, for nobody has one
    assert macs(docker_host, 1) == [f"7a:42:{bytes(map(int, address.split('.'))).hex(':')}"]
    docker_host.engine.docker("network", "rm", "lan")
    error = docker_host.refusal(*RANGE, "--opt=identity=name")
    assert "--ipam-opt identity=name" in error
    error = docker_host.refusal(*RANGE, "--opt=identity=container")
    assert "container" in error
    assert "identity" in error


@pytest.mark.plugin_arguments("--identity", "random")
@pytest.mark.one_engine
def test_service_identity_is_a_default_of_networks(docker_host: DockerHost) -> None:
    docker_host.create("lan", *OUR_IPAM)
    assert len(set(macs(docker_host))) == 3
    docker_host.engine.docker("network", "rm", "lan")
    docker_host.create("lan", *OUR_IPAM, "--ipam-opt=identity=address")
    assert docker_host.start("box", AT_ONCE, "--ip=192.168.77.200").mac() == "7a:42:c0:a8:4d:c8"


@pytest.mark.plugin_arguments("--identity", "name")
@pytest.mark.one_engine
def test_default_identity_by_name_allows_docker_ipam(docker_host: DockerHost) -> None:
    """It is a default, for networks where it can be."""
    docker_host.create("lan", *RANGE)
    assert macs(docker_host, 1) == ["7a:42:c0:a8:4d:80"]


class HostAsSandbox:
    """Containers of the engine that is played here: their links stay where they are."""

    def take(self, link: str) -> bool:
        """Pretend to move the link."""
        return True

    def give_back(self, link: str) -> None:
        """Do nothing."""

    def destroy(self, link: str) -> None:
        """Do nothing."""


@pytest.fixture
def server(lan: Lan) -> Iterator[DhcpServer]:
    """Run a DHCP server on the LAN."""
    need(missing_for_dhcp())
    with DhcpServer(lan) as server:
        yield server


@pytest.fixture
def plugin29(lan: Lan) -> Iterator[Plugin]:
    """Run our service on the LAN, for the engine that is played here."""
    with Plugin(lan) as plugin:
        yield plugin
        plugin.stop()
        assert "Traceback" not in plugin.log()


@pytest.fixture
def engine29(plugin29: Plugin) -> Iterator[Engine29]:
    """Play an Engine 29, which tells containers' names, beside our service on a real LAN."""
    engine = Engine29(str(plugin29.socket), HostAsSandbox())
    yield engine
    engine.close()


def dhcp_network(engine: Engine29) -> Network:
    """Create a network whose addresses are the server's."""
    return engine.network_create(
        "lan", options={"parent": "eth1"}, remote_ipam=True, ipam_options={"dhcp": "true", "identity": "name"}
    )


def identity(container: Container) -> tuple[str, str]:
    """The address and the MAC of a container."""
    (endpoint,) = container.endpoints
    ((_, address),) = endpoint.addresses
    return address.partition("/")[0], endpoint.mac


def test_recreated_container_is_the_same_dhcp_client(
    server: DhcpServer, engine29: Engine29, plugin29: Plugin
) -> None:
    """One name, one MAC, one client id; and so the server gives the address that it knows it by."""
    network = dhcp_network(engine29)
    web, db = engine29.run("web", network), engine29.run("db", network)
    before, other = identity(web), identity(db)
    assert before[0] != other[0]
    assert before[1] != other[1]
    ids = {lease.mac: (lease.address, lease.hostname, lease.client_id) for lease in server.leases()}
    assert ids[before[1]][:2] == (before[0], "web")
    assert ids[other[1]][:2] == (other[0], "db")
    assert ids[before[1]][2] not in {"*", ids[other[1]][2]}
    engine29.stop(web)
    server.wait_for_log(f"DHCPRELEASE(eth1) {before[0]}")
    plugin29.stop()
    plugin29.start()
    again = engine29.run("web", network)
    assert identity(again) == before
    assert {lease.mac: lease.client_id for lease in server.leases()}[before[1]] == ids[before[1]][2]
    for each in (again, db):
        engine29.stop(each)
    engine29.network_rm(network)


def test_one_name_on_two_hosts_is_two_dhcp_clients() -> None:
    need(missing_for_dhcp())
    with (
        Lan(hosts=2) as lan,
        DhcpServer(lan) as server,
        Plugin(lan) as first,
        Plugin(lan, place="host2") as second,
    ):
        engines = [Engine29(str(each.socket), HostAsSandbox()) for each in (first, second)]
        found = [identity(each.run("web", dhcp_network(each))) for each in engines]
        assert len({mac for _, mac in found}) == 2
        assert len({address for address, _ in found}) == 2
        assert len({lease.client_id for lease in server.leases()}) == 2
        for each in engines:
            each.close()
