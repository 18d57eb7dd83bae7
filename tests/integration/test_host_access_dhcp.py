"""Access from the host where the LAN's own DHCP server hands out addresses."""

import pytest

from tests.integration.dhcp_hosts import NULL, OURS, SUBNET, assert_leased
from tests.integration.host_access import OWN, assert_reach_each_other, host_addresses, reached
from tests.lab.dhcp_server import DhcpServer
from tests.lab.docker_host import DockerHost, plugin_error

pytestmark = pytest.mark.plugin_arguments("--dhcp-timeout", "4")
HOST = "192.168.77.60"
"""Not among those that the server hands out."""
ON, AT_HOST = "--opt=host_access=true", f"--opt=host_address={HOST}"
WAYS = pytest.mark.parametrize(
    "way", [OURS, (*OURS, *SUBNET), NULL], ids=["ours", "ours with subnet", "null"]
)


@WAYS
def test_dhcp_network_needs_a_named_host_address(
    docker_host: DockerHost, server: DhcpServer, way: tuple[str, ...]
) -> None:
    """The refusal names the option."""
    why = (
        ", but this network has no IPAM: specify one outside the DHCP server's range"
        if way is NULL
        else " in 192.168.77.0/24, where a DHCP server assigns the containers' addresses: specify one outside the DHCP server's range"
    )
    assert plugin_error(docker_host.refusal(*way, ON)) == (
        f"host access needs an address for the host{why} with -o host_address=ADDRESS, or use -o host_access=false"
    )
    assert server.leases() == []


@WAYS
def test_containers_with_leases_are_reached(
    docker_host: DockerHost, server: DhcpServer, way: tuple[str, ...]
) -> None:
    docker_host.create("lan", *way, ON, AT_HOST)
    assert host_addresses(docker_host.lan) == [HOST]
    web = docker_host.start("web")
    leased = assert_leased(server, web)
    assert_reach_each_other(docker_host, web, of_host=(HOST, OWN))
    assert reached(docker_host.lan) == [leased]
    docker_host.plugin.kill()
    docker_host.plugin.start()
    assert_reach_each_other(docker_host, web, of_host=(HOST, OWN))
    web.remove()
    assert reached(docker_host.lan) == []


@pytest.mark.one_engine
@pytest.mark.parametrize("way", [OURS, NULL], ids=["ours", "null"])
def test_hosts_address_offered_by_the_server_is_declined(
    docker_host: DockerHost, server: DhcpServer, way: tuple[str, ...]
) -> None:
    """The user ignored the advice to choose another one."""
    docker_host.create("lan", *way, ON, "--opt=host_address=192.168.77.100")
    server.stop()
    server.range = "192.168.77.100,192.168.77.100"
    server.start()
    assert "192.168.77.100" in docker_host.start_refusal()
    assert "DHCPDECLINE(eth1) 192.168.77.100" in server.log()
    assert docker_host.lan.ping("neighbour", OWN)
