"""Helpers for tests of host access."""

from typing import Any

from tests.integration.raw_hosts import STRANGER
from tests.lab.docker_host import Container, DockerHost
from tests.lab.frames import arp_probe
from tests.lab.lan import Lan

ROUTES = ("proto", "142")
OWN, OWN_6 = "192.168.77.10", "fd77::10"
"""The host's own addresses on the LAN."""
HOST, HOST_6 = "192.168.77.64", "fd77::7:0"
"""The first of the range: what the host gets for its containers."""
ACCESS = ("--opt=parent=eth1", "--opt=host_access=true")
IPV4 = ("--subnet=192.168.77.0/24", "--gateway=192.168.77.1", "--ip-range=192.168.77.64/26")
IPV6 = ("--ipv6", "--subnet=fd77::/64", "--gateway=fd77::1", "--ip-range=fd77::7:0/112")
OURS = ("--ipam-driver=macvlan-twisted", *IPV4)
BOTH = (*OURS, *IPV6, *ACCESS)


def our_link(lan: Lan) -> dict[str, Any]:
    """Return what the kernel knows of the one link of ours in the host."""
    (found,) = [link for name, link in lan.host_links().items() if name.startswith("mvh")]
    return dict(found)


def host_addresses(lan: Lan) -> list[str]:
    """Return what the host has for its containers, sorted."""
    return sorted(each["local"] for each in our_link(lan)["addr_info"] if each["scope"] == "global")


def reached(lan: Lan) -> list[str]:
    """Return where the host has routes of ours to, sorted."""
    return sorted(route["dst"] for route in lan.routes("host", *ROUTES))


def assert_reach_each_other(
    host: DockerHost, container: Container, *, of_host: tuple[str, ...] = (HOST, HOST_6, OWN, OWN_6)
) -> None:
    """The host reaches each address of the container, and the container the host's."""
    for address in {address for nic in container.links() for address in container.addresses(nic)}:
        bare = address.partition("/")[0]
        assert host.lan.ping("host", bare), f"the host does not reach {bare}"
    for address in of_host:
        assert container.ping(address), f"the container does not reach {address}"


def macs_that_answer(lan: Lan, address: str) -> set[str]:
    """Return every MAC that answers a neighbour's probe for an address."""
    sought = f"arp[6:2] == 2 and arp src host {address}"
    with lan.capture("neighbour", sought, count=5, seconds=1) as capture:
        lan.send_frame("neighbour", arp_probe(STRANGER, address))
        return {line.split()[1] for line in capture}
