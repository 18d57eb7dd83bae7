"""Addresses and default routes under the engine's own address management."""

import re

import pytest

from tests.lab.docker_host import DockerHost, plugin_error

ON_ETH1 = "--opt=parent=eth1"
IPV4 = ("--subnet=192.168.77.0/24", "--gateway=192.168.77.1", "--ip-range=192.168.77.64/26")
IPV6 = ("--ipv6", "--subnet=fd77::/64", "--gateway=fd77::1")
ASKS = ("28.5",)
"""Engines that ask by GwAllocCheck whether to make up a gateway; the others always do."""


@pytest.mark.one_engine
def test_ipv4_network_gives_no_ipv6(docker_host: DockerHost) -> None:
    docker_host.create("lan", *IPV4, ON_ETH1)
    box = docker_host.start("box")
    assert all("." in address for address in box.addresses())
    assert box.routers() == {"192.168.77.1"}


@pytest.mark.engines(*ASKS)
def test_ipv6_network_gives_no_ipv4(docker_host: DockerHost) -> None:
    docker_host.create("lan", "--ipv4=false", *IPV6, ON_ETH1)
    box = docker_host.start("box", "--ip6=fd77::70")
    assert box.addresses() == {"fd77::70/64"}
    assert box.routers() == {"fd77::1"}
    assert box.ping("fd77::1")
    assert docker_host.lan.ping("neighbour", "fd77::70")
    mac = box.mac()
    assert mac.startswith("7a:42:")
    box.remove()
    assert docker_host.start("again", "--ip6=fd77::70").mac() == mac
    assert docker_host.start("other", "--ip6=fd77::71").mac() != mac


@pytest.mark.engines("20.10", "28.5")
def test_second_subnet_has_its_own_gateway(docker_host: DockerHost) -> None:
    second_ipv4 = ("--subnet=10.88.0.0/24", "--gateway=10.88.0.1")
    second_ipv6 = ("--subnet=fd88::/64", "--gateway=fd88::1")
    docker_host.create("lan", *IPV4, *second_ipv4, *IPV6, *second_ipv6, ON_ETH1)
    box = docker_host.start("box", "--ip=10.88.0.70", "--ip6=fd88::70")
    assert box.addresses() == {"10.88.0.70/24", "fd88::70/64"}
    assert box.routers() == {"10.88.0.1", "fd88::1"}
    mixed = docker_host.start("mixed", "--ip=192.168.77.70", "--ip6=fd88::71")
    assert mixed.routers() == {"192.168.77.1", "fd88::1"}
    assert mixed.ping("192.168.77.1")


@pytest.mark.engines("26.1", "28.5")
@pytest.mark.parametrize("ipam", ["default", "macvlan-twisted"])
def test_both_addresses_of_a_31_are_hosts(docker_host: DockerHost, ipam: str) -> None:
    """The engine's own management in 20.10 accepts neither of them."""
    docker_host.lan.run_in("neighbour", "ip", "address", "replace", "10.88.0.0/31", "dev", "eth1")
    own = ("--subnet=10.88.0.0/31", "--gateway=10.88.0.0", ON_ETH1)
    docker_host.create("lan", f"--ipam-driver={ipam}", *own)
    box = docker_host.start("box")
    assert box.addresses() == {"10.88.0.1/31"}
    assert box.routers() == {"10.88.0.0"}
    assert box.ping("10.88.0.0")


@pytest.mark.engines(*ASKS)
def test_address_of_a_32_is_a_containers(docker_host: DockerHost) -> None:
    """Other engines make it the gateway's, and none is left."""
    docker_host.create("lan", "--subnet=10.88.0.7/32", ON_ETH1)
    docker_host.create("own", "--ipam-driver=macvlan-twisted", "--subnet=10.88.0.8/32", ON_ETH1)
    box, own = docker_host.start("box"), docker_host.start("own", network="own")
    assert box.addresses() == {"10.88.0.7/32"}
    assert own.addresses() == {"10.88.0.8/32"}
    for one, other in ((box, "10.88.0.8"), (own, "10.88.0.7")):
        one.run("ip", "route", "add", other, "dev", "eth0")
    assert box.ping("10.88.0.8")


@pytest.mark.one_engine
@pytest.mark.parametrize("ipam", ["default", "macvlan-twisted"])
def test_auxiliary_address_is_never_handed_out(docker_host: DockerHost, ipam: str) -> None:
    reserved = ("--aux-address=printer=192.168.77.65", "--aux-address=nas=192.168.77.67")
    subnet = ("--subnet=192.168.77.0/24", "--gateway=192.168.77.1", "--ip-range=192.168.77.64/30")
    docker_host.create("lan", f"--ipam-driver={ipam}", *subnet, *reserved, ON_ETH1)
    names = ("first", "second")
    got = {address for name in names for address in docker_host.start(name).addresses()}
    assert got == {"192.168.77.64/24", "192.168.77.66/24"}
    docker_host.start_refusal()
    assert "192.168.77.67" not in got


def test_null_ipam_gives_a_link_without_addresses(docker_host: DockerHost) -> None:
    docker_host.create("lan", "--ipam-driver=null", ON_ETH1)
    box = docker_host.start("box")
    assert set(box.links()) == {"eth0"}
    assert box.addresses() == set()
    assert box.routers() == set()
    assert box.mac().startswith("7a:42:")
    assert box.mac() != docker_host.start("other").mac()
    box.run("ip", "address", "add", "192.168.77.70/24", "dev", "eth0")
    assert box.ping("192.168.77.1")


def test_no_gateway_is_invented_where_the_engine_asks(docker_host: DockerHost) -> None:
    """Engines that do not ask take the first address, as they do with their own macvlan driver."""
    docker_host.create("lan", "--subnet=10.88.0.0/24", "--ipv6", "--subnet=fd88::/64", ON_ETH1)
    box = docker_host.start("box", "--ip=10.88.0.70", "--ip6=fd88::70")
    assert set(box.links()) == {"eth0"}  # and no second one into a bridge of the engine's
    asks = docker_host.engine.version in ASKS
    assert box.routers() == (set() if asks else {"10.88.0.1", "fd88::1"})


@pytest.mark.one_engine
def test_routers_address_is_refused_with_the_remedy(docker_host: DockerHost) -> None:
    docker_host.create("lan", "--subnet=192.168.77.0/24", "--gateway=192.168.77.254", ON_ETH1)
    assert plugin_error(docker_host.start_refusal("--ip=192.168.77.1")) == (
        "address 192.168.77.1 is the address of the LAN's router: use another --ip; to keep Docker's IPAM from assigning it, "
        "create the network with --gateway 192.168.77.1 "
        "(or --aux-address router=192.168.77.1, if its gateway is to be another one)"
    )
    assert docker_host.lan.ping("neighbour", "192.168.77.1")


@pytest.mark.engines(*ASKS)
def test_routers_address_picked_by_the_engine_is_refused(docker_host: DockerHost) -> None:
    docker_host.create("lan", "--subnet=192.168.77.0/24", ON_ETH1)
    assert "create it again with --gateway 192.168.77.1" in docker_host.plugin.log()
    error = docker_host.start_refusal()
    assert "address 192.168.77.1 is the address of the LAN's router" in error
    assert docker_host.start("box", "--ip=192.168.77.70").routers() == set()


def test_internal_network_on_a_parent_has_no_router(docker_host: DockerHost) -> None:
    words = ("--internal", "--subnet=192.168.77.0/24")
    docker_host.create("lan", *words, "--ip-range=192.168.77.0/30", ON_ETH1)
    if docker_host.engine.version in ASKS:
        error = docker_host.start_refusal()
        assert "address 192.168.77.1 is the address of the LAN's router" in error
        docker_host.engine.docker("network", "rm", "lan")
        docker_host.create("lan", *words, "--gateway=192.168.77.1", "--ip-range=192.168.77.4/30", ON_ETH1)
    # Ours knows the router without being told.
    own = ("--internal", "--subnet=192.168.77.0/24", "--ip-range=192.168.77.0/29")
    docker_host.create("own", "--ipam-driver=macvlan-twisted", *own, ON_ETH1)
    on_own, box = docker_host.start("on-own", network="own"), docker_host.start("box", "--ip=192.168.77.70")
    assert on_own.addresses() == {"192.168.77.3/24"}  # .1 is the router, .2 the neighbour
    for each in (on_own, box):
        assert set(each.links()) == {"eth0"}  # and no second one into a bridge of the engine's
        assert each.routers() == set()
    assert box.ping("192.168.77.10", seconds=1) is False  # macvlan's own rule: not the docker host itself
    assert box.ping("192.168.77.2")


@pytest.mark.one_engine
def test_internal_network_needs_dummy_links(docker_host: DockerHost) -> None:
    supported = docker_host.lan.attempt_in("host", "ip", "link", "add", "probe0", "type", "dummy")
    if supported.status == 0:
        docker_host.lan.run_in("host", "ip", "link", "delete", "probe0")
        docker_host.create("lan", "--internal", "--subnet=10.88.0.0/24")
        box, sibling = docker_host.start("box"), docker_host.start("sibling")
        (address,) = sibling.addresses()
        assert box.ping(address.partition("/")[0])
        assert not box.ping("192.168.77.2", seconds=1)
    else:
        assert re.fullmatch(
            r"dummy link \w+ for an internal network cannot be created, because the kernel's module for dummy links is not loaded: "
            "run modprobe dummy on the host, or name a NIC with -o parent=",
            plugin_error(docker_host.refusal("--internal", "--subnet=10.88.0.0/24")),
        )
