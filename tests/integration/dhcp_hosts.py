"""A docker host whose containers get their addresses from a real DHCP server on the LAN."""

from tests.lab.commands import wait_until
from tests.lab.dhcp_server import DhcpServer
from tests.lab.docker_host import Container, DockerHost

ON_ETH1 = "--opt=parent=eth1"
OURS = ("--ipam-driver=macvlan-twisted", "--ipam-opt=dhcp=true", "--ipam-opt=parent=eth1", ON_ETH1)
"""With our address management: the lease comes before the container."""
SUBNET = ("--subnet=192.168.77.0/24", "--gateway=192.168.77.1")
NULL = ("--ipam-driver=null", "--opt=dhcp=true", ON_ETH1)
"""Without any: the lease comes with the link."""
MAC = "02:00:00:00:00:17"
UNDER_MAC = f"--mac-address={MAC}"
AT_ONCE = "--stop-signal=SIGKILL"


def bare_address(container: Container) -> str:
    """Return the one IPv4 address that a container has, without its prefix length."""
    (address,) = (each for each in container.addresses() if ":" not in each)
    return address.partition("/")[0]


def assert_leased(server: DhcpServer, container: Container) -> str:
    """The container has the address that the server leased to its MAC, and reaches the LAN; return it."""
    address = bare_address(container)
    assert server.addresses().get(container.mac()) == address
    assert container.addresses() == {f"{address}/24"}
    assert container.ping("192.168.77.1")
    assert container.ping("192.168.77.2")
    return address


def wait_for_release(server: DhcpServer, address: str, *, seconds: float = 10, since: int = 0) -> None:
    """Wait until the server has logged the release of an address."""
    server.wait_for_log(f"DHCPRELEASE(eth1) {address}", seconds=seconds, since=since)


def wait_for_plugin(host: DockerHost, text: str, *, seconds: float = 30, since: int = 0) -> None:
    """Wait until the service has logged something."""
    wait_until(lambda: text in host.plugin.log()[since:], seconds, f"{text!r} in the service's log")
