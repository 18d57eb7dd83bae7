"""The host and its containers reach each other; the rest of the LAN sees no difference."""

from collections.abc import Callable

import pytest

from tests.integration.host_access import (
    ACCESS,
    BOTH,
    HOST,
    HOST_6,
    IPV4,
    IPV6,
    OURS,
    OWN,
    OWN_6,
    assert_reach_each_other,
    host_addresses,
    macs_that_answer,
    our_link,
    reached,
)
from tests.lab.docker_host import Container, DockerHost
from tests.lab.frames import solicitation


def test_host_and_container_reach_each_other(docker_host: DockerHost) -> None:
    docker_host.create("lan", *BOTH)
    box = docker_host.start("box")
    assert box.addresses() == {"192.168.77.65/24", "fd77::7:1/64"}
    assert_reach_each_other(docker_host, box)
    assert reached(docker_host.lan) == ["192.168.77.65", "fd77::7:1"]
    assert box.ping("192.168.77.1"), "the router is reached no more"
    assert box.routers() == {"192.168.77.1", "fd77::1"}
    box.remove()
    assert reached(docker_host.lan) == []
    assert host_addresses(docker_host.lan) == [HOST, HOST_6]


def test_without_host_access_they_do_not_reach_each_other(docker_host: DockerHost) -> None:
    """Else the tests here prove nothing."""
    docker_host.create("lan", *OURS, "--opt=parent=eth1")
    box = docker_host.start("box")
    assert not docker_host.lan.ping("host", "192.168.77.64", seconds=1)
    assert not box.ping(OWN, seconds=1)
    assert host_addresses(docker_host.lan) == []


def test_the_lan_sees_one_mac_for_the_host(docker_host: DockerHost) -> None:
    lan = docker_host.lan
    docker_host.create("lan", *BOTH)
    box = docker_host.start("box")
    assert_reach_each_other(docker_host, box)
    mac = lan.mac_of("host")
    lan.forget_neighbours("neighbour")
    assert macs_that_answer(lan, OWN) == {mac}
    with lan.capture("neighbour", f"icmp6 and src {OWN_6}", count=5, seconds=1) as capture:
        lan.send_frame("neighbour", solicitation("02:00:00:00:00:99", OWN_6))
        assert {line.split()[1] for line in capture} == {mac}
    for own in (OWN, OWN_6):
        assert lan.ping("neighbour", own)
        assert lan.arp_entry("neighbour", own) == mac
    for station in ("192.168.77.2", "fd77::2"):
        assert lan.ping("host", station)
    assert box.ping("192.168.77.2"), "the container does not reach the neighbour"
    assert lan.ping("neighbour", "192.168.77.65")
    assert ": conflict on" not in docker_host.plugin.log(), "the host was taken for somebody else"


def test_neighbour_may_ping_the_hosts_address_for_containers(docker_host: DockerHost) -> None:
    """That is no conflict."""
    lan = docker_host.lan
    docker_host.create("lan", *BOTH)
    for address in (HOST, HOST_6):
        assert lan.ping("neighbour", address)
    assert macs_that_answer(lan, HOST) <= {lan.mac_of("host"), our_link(lan)["address"]}
    docker_host.start("box")
    assert ": conflict on" not in docker_host.plugin.log()
    assert "took it while" not in docker_host.plugin.log()


@pytest.mark.one_engine
def test_two_networks_share_a_host_link_until_the_last_is_gone(docker_host: DockerHost) -> None:
    ten = ("--ipam-driver=macvlan-twisted", "--subnet=10.77.0.0/24", *ACCESS)
    docker_host.create("lan", *BOTH)
    docker_host.create("ten", *ten)
    assert len(host_addresses(docker_host.lan)) == 3
    (of_ten,) = {*host_addresses(docker_host.lan)} - {HOST, HOST_6}
    box, other = docker_host.start("box"), docker_host.start("other", network="ten")
    assert_reach_each_other(docker_host, box)
    assert_reach_each_other(docker_host, other, of_host=(of_ten,))
    box.remove()
    docker_host.engine.docker("network", "rm", "lan")
    assert host_addresses(docker_host.lan) == [of_ten]
    assert_reach_each_other(docker_host, other, of_host=(of_ten,))
    other.remove()
    docker_host.engine.docker("network", "rm", "ten")
    assert [name for name in docker_host.links() if name.startswith("mvh")] == []


def test_container_on_two_networks_is_reached_by_both_addresses(docker_host: DockerHost) -> None:
    """Join returns a route to the host's own address for each link, but the sandbox can have it only once."""
    docker_host.create("lan", *BOTH)
    docker_host.create("ten", "--ipam-driver=macvlan-twisted", "--subnet=10.77.0.0/24", *ACCESS)
    docker_host.start("box")
    docker_host.engine.docker("network", "connect", "ten", "box")
    box = Container(docker_host.engine, "box")
    assert len(box.links()) == 2
    assert_reach_each_other(docker_host, box)
    docker_host.engine.docker("restart", "--time=0", "box")
    assert_reach_each_other(docker_host, Container(docker_host.engine, "box"))
    assert len(reached(docker_host.lan)) == 3
    for network in ("lan", "ten"):
        docker_host.engine.docker("network", "disconnect", network, "box")
        docker_host.engine.docker("network", "connect", network, "box")
        box = Container(docker_host.engine, "box")
        assert box.ping(OWN) or network == "lan", "no way back"
    assert len(reached(docker_host.lan)) == 3


def stop(host: DockerHost) -> None:
    """As in an update."""
    host.plugin.stop()


def kill(host: DockerHost) -> None:
    """As when memory is short."""
    host.plugin.kill()


@pytest.mark.one_engine
@pytest.mark.parametrize("end", [stop, kill])
def test_host_access_survives_the_plugins_end_and_start(
    docker_host: DockerHost, end: Callable[[DockerHost], None]
) -> None:
    docker_host.create("lan", *BOTH)
    box = docker_host.start("box")
    before = our_link(docker_host.lan)
    end(docker_host)
    assert_reach_each_other(docker_host, box)
    docker_host.plugin.start()
    assert_reach_each_other(docker_host, box)
    assert our_link(docker_host.lan) == before
    other = docker_host.start("other")
    assert_reach_each_other(docker_host, other)


@pytest.mark.one_engine
def test_start_restores_a_host_link_lost_in_a_reboot(docker_host: DockerHost) -> None:
    docker_host.create("lan", *BOTH)
    box = docker_host.start("box")
    docker_host.plugin.stop()
    docker_host.lan.run_in("host", "ip", "link", "delete", our_link(docker_host.lan)["ifname"])
    assert not docker_host.lan.ping("host", "192.168.77.65", seconds=1)
    docker_host.plugin.start()
    assert_reach_each_other(docker_host, box)
    assert host_addresses(docker_host.lan) == [HOST, HOST_6]


@pytest.mark.one_engine
def test_removed_host_link_is_back_for_the_next_container(docker_host: DockerHost) -> None:
    docker_host.create("lan", *BOTH)
    box = docker_host.start("box")
    docker_host.lan.run_in("host", "ip", "link", "delete", our_link(docker_host.lan)["ifname"])
    other = docker_host.start("other")
    assert_reach_each_other(docker_host, box)
    assert_reach_each_other(docker_host, other)


def take_down(host: DockerHost) -> None:
    """Let the NIC be down, and up again."""
    host.lan.link("host", "down")
    host.lan.link("host", "up")


def pull_cable(host: DockerHost) -> None:
    """Let the NIC have no carrier, and one again."""
    host.lan.cable("host", "out")
    host.lan.cable("host", "in")


@pytest.mark.one_engine
@pytest.mark.parametrize("break_it", [take_down, pull_cable])
@pytest.mark.parametrize("running", [True, False], ids=["plugin runs", "plugin is stopped"])
def test_host_access_survives_a_parent_that_went_down(
    docker_host: DockerHost, break_it: Callable[[DockerHost], None], running: bool
) -> None:
    docker_host.create("lan", *BOTH)
    box = docker_host.start("box")
    assert_reach_each_other(docker_host, box)
    if not running:
        docker_host.plugin.stop()
    break_it(docker_host)
    assert_reach_each_other(docker_host, box)
    if not running:
        docker_host.plugin.start()
    other = docker_host.start("other")
    assert_reach_each_other(docker_host, other)
    assert docker_host.lan.ping("neighbour", OWN)


@pytest.mark.one_engine
@pytest.mark.parametrize("strictness", [1, 2], ids=["strict", "loose"])
def test_host_access_works_with_reverse_path_filtering(docker_host: DockerHost, strictness: int) -> None:
    names = ("all", "default", "eth1")
    for name in names:
        docker_host.lan.run_in("host", "sysctl", "-qw", f"net.ipv4.conf.{name}.rp_filter={strictness}")
    try:
        docker_host.create("lan", *BOTH)
        box = docker_host.start("box")
        assert_reach_each_other(docker_host, box)
        assert macs_that_answer(docker_host.lan, OWN) == {docker_host.lan.mac_of("host")}
        # Not the host's address for its containers: strictly filtered, it is for them alone.
        assert docker_host.lan.ping("neighbour", OWN)
        assert box.ping("192.168.77.2")
        assert ": conflict on" not in docker_host.plugin.log()
    finally:
        for name in names:
            docker_host.lan.run_in("host", "sysctl", "-qw", f"net.ipv4.conf.{name}.rp_filter=0")


def test_internal_network_has_host_access_and_no_router(docker_host: DockerHost) -> None:
    docker_host.create("lan", "--internal", "--ipam-driver=macvlan-twisted", *ACCESS, *IPV4)
    box = docker_host.start("box")
    assert_reach_each_other(docker_host, box, of_host=(HOST, OWN))
    assert box.routers() == set()


def test_network_without_subnet_has_host_access(docker_host: DockerHost) -> None:
    docker_host.create("lan", "--ipam-driver=macvlan-twisted", *ACCESS)
    box = docker_host.start("box")
    (of_host,) = host_addresses(docker_host.lan)
    assert {f"{of_host}/24"} != box.addresses()
    assert_reach_each_other(docker_host, box, of_host=(of_host, OWN))


def test_reserved_auxiliary_address_becomes_the_hosts(docker_host: DockerHost) -> None:
    """With the engine's own IPAM."""
    reserved = ("--aux-address=host=192.168.77.90", "--aux-address=host6=fd77::90")
    docker_host.create("lan", *IPV4, *IPV6, *reserved, *ACCESS)
    assert host_addresses(docker_host.lan) == ["192.168.77.90", "fd77::90"]
    box = docker_host.start("box")
    assert_reach_each_other(docker_host, box, of_host=("192.168.77.90", "fd77::90", OWN, OWN_6))
