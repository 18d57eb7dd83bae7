"""A DHCP server that insists on another address for a running container: with ``dhcp_readdress`` the container gets it."""

import pytest

from macvlan_twisted.engine.client import EngineClient
from tests.integration.containers import address
from tests.integration.dhcp_hosts import NULL, OURS, SUBNET, bare_address, wait_for_plugin, wait_for_release
from tests.integration.on_reactor import on_reactor
from tests.lab.dhcp_server import DhcpServer
from tests.lab.docker_host import DockerHost

pytestmark = pytest.mark.dhcp_server(range="192.168.77.100,192.168.77.119", t1=3, t2=60)
READDRESS = "--opt=dhcp_readdress=true"
MOVED = "address changed from"
WAYS = pytest.mark.parametrize(
    "way", [OURS, (*OURS, *SUBNET), NULL], ids=["ours", "ours-with-subnet", "null"]
)


def insist(server: DhcpServer, range: str, *words: str) -> None:
    """Have the server give other addresses from now on, and deny those that it gave before."""
    server.stop()
    server.range = range
    server.arguments = ("--dhcp-authoritative", *words)
    server.start()


def shown_by_plugin(host: DockerHost, name: str) -> str:
    """Return a container's address by EndpointOperInfo."""
    (network,) = host.engine.docker_json("inspect", name)[0]["NetworkSettings"]["Networks"].values()
    ids = {"NetworkID": network["NetworkID"], "EndpointID": network["EndpointID"]}
    return str(host.plugin.call("NetworkDriver.EndpointOperInfo", ids)["Value"]["address"])


@WAYS
def test_container_is_given_the_servers_new_address(
    docker_host: DockerHost, server: DhcpServer, way: tuple[str, ...]
) -> None:
    """It gets the server's router, too, unless the user named another one."""
    docker_host.create("lan", *way, READDRESS)
    web = docker_host.start("web")
    old = bare_address(web)
    insist(server, "192.168.77.150,192.168.77.159", "--dhcp-option=option:router,192.168.77.2")
    wait_for_plugin(docker_host, MOVED)
    new = bare_address(web)
    assert web.addresses() == {f"{new}/24"}
    assert server.addresses() == {web.mac(): new}
    assert 150 <= int(new.rpartition(".")[2]) <= 159
    assert web.routers() == {"192.168.77.1" if way == (*OURS, *SUBNET) else "192.168.77.2"}
    assert web.ping("192.168.77.1")
    assert docker_host.lan.ping("neighbour", new)
    assert not docker_host.lan.ping("neighbour", old, seconds=1)
    assert shown_by_plugin(docker_host, "web") == f"{new}/24"
    assert address(docker_host.engine, "web") == old
    web.remove()
    wait_for_release(server, new)


def test_container_follows_its_lan_to_another_subnet(docker_host: DockerHost, server: DhcpServer) -> None:
    """The LAN is renumbered: the server and the router have addresses of the new subnet only."""
    lan = docker_host.lan
    docker_host.create("lan", *NULL, READDRESS)
    web = docker_host.start("web")
    lan.add_address("gateway", "192.168.78.1/24")
    lan.add_address("neighbour", "192.168.78.2/24")
    try:
        insist(server, "192.168.78.100,192.168.78.109")
        wait_for_plugin(docker_host, MOVED)
        new = bare_address(web)
        assert new.startswith("192.168.78.10")
        assert web.routers() == {"192.168.78.1"}
        assert web.ping("192.168.77.1")
        assert lan.ping("neighbour", new)
        web.remove()
        wait_for_release(server, new)
    finally:
        lan.remove_address("gateway", "192.168.78.1/24")
        lan.remove_address("neighbour", "192.168.78.2/24")


def test_host_route_follows_the_container(docker_host: DockerHost, server: DhcpServer) -> None:
    """The host's route follows the container, also to a subnet in which the host's address is not."""
    lan = docker_host.lan
    docker_host.create("lan", *NULL, READDRESS, "--opt=host_access=true", "--opt=host_address=192.168.77.95")
    web = docker_host.start("web")
    assert web.ping("192.168.77.10")
    lan.add_address("gateway", "192.168.78.1/24")
    try:
        insist(server, "192.168.78.100,192.168.78.109")
        wait_for_plugin(docker_host, MOVED)
        new = bare_address(web)
        routes = lan.routes("host", "proto", "142", families=("-4",))
        assert [each["dst"] for each in routes] == [new]
        assert lan.ping("host", new)
        assert web.ping("192.168.77.95")
        assert web.ping("192.168.77.10")
        web.remove()
        assert lan.routes("host", "proto", "142") == []
    finally:
        lan.remove_address("gateway", "192.168.78.1/24")


@pytest.mark.plugin_arguments("--debug")
@WAYS
def test_new_address_survives_a_kill(
    docker_host: DockerHost, server: DhcpServer, way: tuple[str, ...]
) -> None:
    """Its lease is renewed, moved once more, and released with the container."""
    docker_host.create("lan", *way, READDRESS)
    web = docker_host.start("web")
    insist(server, "192.168.77.150,192.168.77.159")
    wait_for_plugin(docker_host, MOVED)
    second = bare_address(web)
    docker_host.plugin.kill()
    before = len(docker_host.plugin.log())
    docker_host.plugin.start()
    wait_for_plugin(docker_host, f"{web.mac()}: renewed {second}/24", since=before)
    assert bare_address(web) == second
    insist(server, "192.168.77.170,192.168.77.179")
    wait_for_plugin(docker_host, f"{MOVED} {second}", since=before)
    third = bare_address(web)
    assert web.addresses() == {f"{third}/24"}
    assert docker_host.lan.ping("neighbour", third)
    web.remove()
    wait_for_release(server, third)


@WAYS
def test_without_the_option_a_container_keeps_its_address(
    docker_host: DockerHost, server: DhcpServer, way: tuple[str, ...]
) -> None:
    """The new lease is released, and the log names the remedy."""
    docker_host.create("lan", *way)
    web = docker_host.start("web")
    old = bare_address(web)
    insist(server, "192.168.77.150,192.168.77.159")
    wait_for_plugin(docker_host, f"still uses {old}")
    output = next(line for line in docker_host.plugin.log().splitlines() if f"still uses {old}" in line)
    assert web.mac() in output
    assert "restart the container" in output
    wait_for_release(server, "192.168.77.15")
    assert server.leases() == []
    assert bare_address(web) == old
    assert docker_host.lan.ping("neighbour", old)


@pytest.mark.one_engine
def test_readdress_without_dhcp_is_refused(docker_host: DockerHost) -> None:
    """Nothing is leased where the engine manages the addresses."""
    error = docker_host.refusal("--subnet=192.168.77.0/24", "--opt=parent=eth1", READDRESS)
    assert "-o dhcp_readdress=true needs addresses leased by DHCP" in error


@on_reactor
async def test_engine_names_a_containers_process(docker_host: DockerHost, server: DhcpServer) -> None:
    """It is asked where the sandbox is not seen in the file system."""
    from twisted.internet import reactor

    docker_host.create("lan", *NULL)
    docker_host.start("other")
    docker_host.start("web")
    (web,) = docker_host.engine.docker_json("inspect", "web")
    (network,) = web["NetworkSettings"]["Networks"].values()
    engine = EngineClient(reactor, reactor, docker_host.engine.docker_host)
    assert await engine.process_of(network["NetworkID"], network["EndpointID"]) == web["State"]["Pid"]
    assert await engine.process_of(network["NetworkID"], "0" * 64) is None
