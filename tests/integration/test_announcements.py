"""Neighbours that know an address under another MAC talk to its new container at once.

Engine 28.5 advertises a container's IPv6 address itself, whatever we are told. So who is silent is seen with those
that do not.
"""

import pytest

from tests.integration.containers import AT_ONCE, SUBNET
from tests.lab.commands import wait_until
from tests.lab.docker_host import Container, DockerHost

STALE = "02:00:00:00:00:99"
"""The MAC of the previous holder of the address, which no station has."""
ADDRESS, ADDRESS_V6 = "192.168.77.200", "fd77::200"
STATIC = (AT_ONCE, f"--ip={ADDRESS}", f"--ip6={ADDRESS_V6}")
BOTH = (*SUBNET, "--ipv6", "--subnet=fd77::/64", "--gateway=fd77::1")
OUR_BOTH = ("--ipam-driver=macvlan-twisted", *BOTH)
ARP = f"(arp src host {ADDRESS} and arp dst host {ADDRESS})"
ADVERTISEMENT = f"(icmp6 and ip6[40] == 136 and ip6[44] & 0x20 != 0 and src {ADDRESS_V6} and dst ff02::1)"
ANNOUNCED = f"{ARP} or {ADVERTISEMENT}"


def make_stale(host: DockerHost, place: str = "neighbour", *, mac: str = STALE) -> None:
    """Have a station believe that both addresses are at a MAC, without asking for a while."""
    for address in (ADDRESS, ADDRESS_V6):
        host.lan.set_neighbour(place, address, mac)


def assert_learns(host: DockerHost, mac: str) -> None:
    """The neighbour learns the new MACs without sending anything, and its first ping arrives."""
    for address in (ADDRESS, ADDRESS_V6):

        def is_known(sought: str = address) -> bool:
            return host.lan.arp_entry("neighbour", sought) == mac

        wait_until(is_known, 5, f"{address} at {mac}")
        assert host.lan.ping("neighbour", address)


@pytest.mark.parametrize("ipam", [OUR_BOTH, BOTH], ids=["our", "dockers"])
def test_neighbour_learns_the_new_holder_of_an_address(
    docker_host: DockerHost, ipam: tuple[str, ...]
) -> None:
    docker_host.create("lan", *ipam)
    make_stale(docker_host)
    box = docker_host.start("box", *STATIC)
    assert_learns(docker_host, box.mac())


def test_neighbour_learns_the_new_mac_of_a_container(docker_host: DockerHost) -> None:
    """One address, two MACs: as when a container is made again with another --mac-address."""
    docker_host.create("lan", *OUR_BOTH)
    make_stale(docker_host)  # an announcement mends what is known, and makes nothing known
    for number in (1, 2, 3):
        mac = f"02:00:00:00:01:0{number}"
        box = docker_host.start("box", *STATIC, f"--mac-address={mac}")
        assert_learns(docker_host, mac)
        make_stale(docker_host, mac=mac)
        box.remove()


def test_sibling_learns_the_new_holder_of_an_address(docker_host: DockerHost) -> None:
    docker_host.create("lan", *OUR_BOTH)
    sibling = docker_host.start("sibling", AT_ONCE)
    for address in (ADDRESS, ADDRESS_V6):
        sibling.run("ip", "neighbour", "replace", address, "lladdr", STALE, "dev", "eth0", "nud", "reachable")
    box = docker_host.start("box", *STATIC)
    for address in (ADDRESS, ADDRESS_V6):
        wait_until(lambda each=address: mac_in(sibling, each) == box.mac(), 5, f"{address} at {box.mac()}")  # type: ignore[misc]
        assert sibling.ping(address)


def mac_in(container: Container, address: str) -> str:
    """Return the MAC at which a container believes an address to be."""
    words = container.run("ip", "neighbour", "show", "to", address).split()
    return words[words.index("lladdr") + 1] if "lladdr" in words else ""


@pytest.mark.parametrize("mode", ["bridge", "private", "vepa", "passthru"])
def test_every_mode_announces(docker_host: DockerHost, mode: str) -> None:
    docker_host.create("lan", *OUR_BOTH, f"--opt=mode={mode}")
    make_stale(docker_host)
    box = docker_host.start("box", *STATIC)
    assert_learns(docker_host, box.mac())


def test_announcement_is_sent_from_the_containers_mac(docker_host: DockerHost) -> None:
    """Switches and access points believe the Ethernet source: it has to be the container's."""
    docker_host.create("lan", *OUR_BOTH)
    with (
        docker_host.lan.capture("neighbour", ARP, count=8, seconds=60) as arp,
        docker_host.lan.capture("neighbour", ADVERTISEMENT, count=4, seconds=60) as advertisements,
    ):
        box = docker_host.start("box", *STATIC)
        asked, advertised = arp.lines(), advertisements.lines()
    assert [line.split()[1] for line in asked] == [box.mac()] * 8
    assert [("Request" in line, "Reply" in line) for line in asked] == [(True, False), (False, True)] * 4
    assert all(f"is-at {box.mac()}" in line for line in asked if "Reply" in line)
    assert [line.split()[1] for line in advertised] == [box.mac()] * 4


@pytest.mark.engines("20.10", "26.1")
def test_network_option_silences_announcements(docker_host: DockerHost) -> None:
    docker_host.create("lan", *OUR_BOTH, "--opt=announce=false")
    assert_silent(docker_host)


@pytest.mark.engines("20.10", "26.1")
@pytest.mark.plugin_arguments("--announce", "false")
def test_service_option_silences_announcements(docker_host: DockerHost) -> None:
    docker_host.create("lan", *OUR_BOTH)
    assert_silent(docker_host)


def assert_silent(host: DockerHost) -> None:
    """Nothing is announced of a container, and so a neighbour goes on in its error."""
    make_stale(host)
    with host.lan.capture("neighbour", ANNOUNCED, seconds=4) as capture:
        host.start("box", *STATIC)
        assert capture.lines() == []
    assert host.lan.arp_entry("neighbour", ADDRESS) == STALE


def test_removed_container_is_not_announced(docker_host: DockerHost) -> None:
    """It would take the address away from its next holder."""
    docker_host.create("lan", *OUR_BOTH)
    docker_host.start("box", *STATIC).remove()
    with docker_host.lan.capture("neighbour", ANNOUNCED, seconds=4) as capture:
        assert capture.lines() == []
