"""Containers with addresses from the LAN's own DHCP server, with our address management and without any; and the errors."""

import re

import pytest

from tests.integration.containers import address
from tests.integration.dhcp_hosts import (
    MAC,
    NULL,
    ON_ETH1,
    OURS,
    SUBNET,
    UNDER_MAC,
    assert_leased,
    bare_address,
    wait_for_release,
)
from tests.lab.daemons import children_of
from tests.lab.dhcp_server import DhcpServer
from tests.lab.docker_host import DockerHost, plugin_error

pytestmark = pytest.mark.plugin_arguments("--dhcp-timeout", "4")
NICS = 2
LEASED = r"192\.168\.77\.1\d\d"
"""What the fixture server hands out, as a regular expression."""
NO_OFFER = re.compile(
    r"no DHCP server on eth1 offered \S+ an address within \d+ s: check that eth1 is on the right LAN, then look at the server's log: "
    "its pool may be full, or it may not know the MAC"
)
WAYS = pytest.mark.parametrize("way", [OURS, NULL], ids=["ours", "null"])


@WAYS
def test_container_leases_its_address_and_releases_it(
    docker_host: DockerHost, server: DhcpServer, way: tuple[str, ...]
) -> None:
    docker_host.create("lan", *way)
    web = docker_host.start("web")
    leased = assert_leased(server, web)
    assert web.routers() == {"192.168.77.1"}
    assert address(docker_host.engine, "web") == leased
    web.remove()
    wait_for_release(server, leased)
    assert server.leases() == []


def test_named_address_is_leased_or_refused(docker_host: DockerHost, server: DhcpServer) -> None:
    docker_host.create("lan", *OURS, *SUBNET)
    web = docker_host.start("web", "--ip=192.168.77.150")
    assert assert_leased(server, web) == "192.168.77.150"
    assert re.fullmatch(
        rf"DHCP server 192\.168\.77\.1 on eth1 offers {LEASED} instead of 192\.168\.77\.7 to (\S+): leave --ip out, use another "
        r"address, or reserve 192\.168\.77\.7 for \1 on the server",
        plugin_error(docker_host.start_refusal("--ip=192.168.77.7")),
    )
    assert plugin_error(docker_host.start_refusal("--ip=192.168.77.150")) == (
        "endpoint address 192.168.77.150 of 192.168.77.0/24 is in use by a container: use another one"
    )
    assert server.addresses() == {web.mac(): "192.168.77.150"}
    assert_leased(server, docker_host.start("db"))


def test_late_mac_is_refused_with_the_remedy(docker_host: DockerHost, server: DhcpServer) -> None:
    docker_host.create("lan", *OURS)
    assert re.fullmatch(
        rf"MAC address {MAC} cannot be used, because address {LEASED} is already leased under \S+: leave --mac-address out, or create the "
        "network with --ipam-driver null and -o dhcp=true, which leases under --mac-address",
        plugin_error(docker_host.start_refusal(UNDER_MAC)),
    )
    assert server.leases() == []


@pytest.mark.one_engine
def test_lease_outside_the_subnet_is_refused(docker_host: DockerHost, server: DhcpServer) -> None:
    docker_host.create("lan", *OURS, "--subnet=10.88.0.0/24", "--gateway=10.88.0.1")
    assert re.fullmatch(
        rf"DHCP server 192\.168\.77\.1 on eth1 leases {LEASED}, which is not in --subnet 10\.88\.0\.0/24: create the network with "
        "the subnet of that LAN, or without --subnet",
        plugin_error(docker_host.start_refusal()),
    )
    assert server.leases() == []


def test_server_reservation_by_mac_is_honoured(docker_host: DockerHost, server: DhcpServer) -> None:
    server.stop()
    server.arguments = (f"--dhcp-host={MAC},192.168.77.42",)
    server.start()
    docker_host.create("lan", *NULL)
    reserved = docker_host.start("reserved", UNDER_MAC)
    assert assert_leased(server, reserved) == "192.168.77.42"
    assert reserved.mac() == MAC
    docker_host.engine.docker("restart", "--time=0", "reserved")
    assert server.addresses()[MAC] == "192.168.77.42"


@pytest.mark.one_engine
def test_restarted_container_leases_again(docker_host: DockerHost, server: DhcpServer) -> None:
    docker_host.create("lan", *OURS)
    first = bare_address(docker_host.start("web"))
    docker_host.engine.docker("restart", "--time=0", "web")
    wait_for_release(server, first)
    (lease,) = server.leases()
    assert address(docker_host.engine, "web") == lease.address


@pytest.mark.one_engine
@WAYS
def test_start_without_a_server_is_refused(docker_host: DockerHost, way: tuple[str, ...]) -> None:
    if way is OURS:
        assert "no DHCP server on eth1 offered" in docker_host.refusal(*way)
        way = (*OURS, *SUBNET)  # which needs no server before a container starts
    docker_host.create("lan", *way)
    assert NO_OFFER.fullmatch(plugin_error(docker_host.start_refusal()))
    with DhcpServer(docker_host.lan) as server:
        assert_leased(server, docker_host.start("web"))


@pytest.mark.one_engine
def test_full_server_pool_is_refused_and_recovers(docker_host: DockerHost) -> None:
    with DhcpServer(docker_host.lan, range="192.168.77.100,192.168.77.100") as server:
        docker_host.create("lan", *OURS, *SUBNET)
        first = docker_host.start("first")
        assert NO_OFFER.fullmatch(plugin_error(docker_host.start_refusal()))
        first.remove()
        wait_for_release(server, "192.168.77.100")
        assert assert_leased(server, docker_host.start("second")) == "192.168.77.100"


@pytest.mark.one_engine
@WAYS
def test_offered_address_in_use_is_declined(
    docker_host: DockerHost, server: DhcpServer, way: tuple[str, ...]
) -> None:
    docker_host.create("lan", *way)
    first = docker_host.start("first", *(() if way is OURS else (UNDER_MAC,)))
    before = bare_address(first)
    first.remove()
    wait_for_release(server, before)
    docker_host.lan.add_address("neighbour", f"{before}/24")
    try:
        # To a MAC that it knows the server offers the same address again; to another one it may.
        again = docker_host.start("again", *(() if way is OURS else (UNDER_MAC,)))
        assert assert_leased(server, again) != before
        if way is NULL:
            neighbour = docker_host.lan.mac_of("neighbour")
            server.wait_for_log(f"DHCPDECLINE(eth1) {before} {MAC}")
            assert f"address {before}, offered to " in docker_host.plugin.log()
            assert f"is in use by {neighbour} and was declined" in docker_host.plugin.log()
    finally:
        docker_host.lan.remove_address("neighbour", f"{before}/24")


@pytest.mark.one_engine
@pytest.mark.dhcp_server(range="192.168.77.127,192.168.77.127")
def test_unusable_address_of_a_server_is_declined(docker_host: DockerHost, server: DhcpServer) -> None:
    reserved = ("--subnet=192.168.77.0/24", "--gateway=192.168.77.1", "--aux-address=printer=192.168.77.127")
    broadcast = ("--subnet=192.168.77.0/25", "--gateway=192.168.77.1")
    for words, why in (
        (reserved, "is reserved in pool 192.168.77.0/24 as a gateway's, the host's or an auxiliary address"),
        (broadcast, "is the network or broadcast address of 192.168.77.0/25"),
    ):
        docker_host.create("lan", *OURS, *words)
        error = plugin_error(docker_host.start_refusal())
        assert error.startswith("address 192.168.77.127, offered to ")
        assert error.endswith(
            f" by DHCP server 192.168.77.1 on eth1, {why} and was declined: take the address out of the server's pool"
        )
        assert server.leases() == []
        docker_host.engine.docker("network", "rm", "lan")
        # What was declined is not offered again for ten minutes.
        server.stop()
        server.start()


@pytest.mark.one_engine
def test_one_of_two_servers_leases(docker_host: DockerHost, server: DhcpServer) -> None:
    with DhcpServer(docker_host.lan, "neighbour", range="192.168.77.200,192.168.77.209") as second:
        docker_host.create("lan", *NULL)
        for number in range(3):
            docker_host.start(f"c{number}")
        leased = {**server.addresses(), **second.addresses()}
        assert len(server.leases()) + len(second.leases()) == 3
        assert len(set(leased.values())) == 3


@pytest.mark.one_engine
def test_vendor_class_reaches_the_server(docker_host: DockerHost, server: DhcpServer) -> None:
    docker_host.create("ours", *OURS, "--ipam-opt=dhcp_vendor_class=whales")
    docker_host.create("free", *NULL, "--opt=dhcp_vendor_class=dolphins")
    for network, vendor_class in (("ours", "whales"), ("free", "dolphins")):
        docker_host.start(f"in-{network}", network=network)
        assert f"vendor class: {vendor_class}" in server.log()


@pytest.mark.one_engine
@pytest.mark.plugin_arguments("--debug")
@WAYS
def test_lease_stays_with_dhcp_release_off(
    docker_host: DockerHost, server: DhcpServer, way: tuple[str, ...]
) -> None:
    kind = "--ipam-opt" if way is OURS else "--opt"
    docker_host.create("lan", *way, f"{kind}=dhcp_release=false")
    web = docker_host.start("web")
    mac, leased = web.mac(), bare_address(web)
    web.remove()
    docker_host.engine.docker("network", "rm", "lan")
    assert "not released (dhcp_release=false)" in docker_host.plugin.log()
    assert server.addresses() == {mac: leased}
    assert server.count("DHCPRELEASE") == 0


@pytest.mark.one_engine
def test_containers_share_one_packet_socket(docker_host: DockerHost, server: DhcpServer) -> None:
    def sockets() -> int:
        table = docker_host.lan.run_in(docker_host.place, "cat", "/proc/net/packet")
        return len(table.splitlines()) - 1

    docker_host.create("ours", *OURS)
    docker_host.create("free", *NULL)
    docker_host.start("first", network="ours")
    with_one = sockets()
    for number in range(6):
        docker_host.start(f"c{number}", network=("ours", "free")[number % 2])
    assert len(server.leases()) == 7
    assert sockets() == with_one
    assert with_one <= 2  # one to hear and one to speak
    assert children_of(docker_host.plugin.service.pid) == []


@pytest.mark.one_engine
@pytest.mark.parametrize("mode", ["private", "vepa"])
@WAYS
def test_leases_work_in_private_and_vepa_mode(
    docker_host: DockerHost, server: DhcpServer, way: tuple[str, ...], mode: str
) -> None:
    docker_host.create("lan", *way, f"--opt=mode={mode}")
    first, second = docker_host.start("first"), docker_host.start("second")
    assert assert_leased(server, first) != assert_leased(server, second)


@pytest.mark.one_engine
def test_passthru_leases_for_the_nics_mac(docker_host: DockerHost, server: DhcpServer) -> None:
    nic = docker_host.lan.mac_of(docker_host.place, "eth2")
    docker_host.create("lan", *[word.replace("eth1", "eth2") for word in NULL], "--opt=mode=passthru")
    box = docker_host.start("box")
    leased = assert_leased(server, box)
    assert box.mac() == nic
    box.remove()
    wait_for_release(server, leased)


@pytest.mark.one_engine
def test_passthru_with_our_ipam_is_refused_with_the_remedy(
    docker_host: DockerHost, server: DhcpServer
) -> None:
    words = [word.replace("eth1", "eth2") for word in OURS]
    docker_host.create("lan", *words, "--opt=mode=passthru")
    assert re.fullmatch(
        r"--ipam-opt dhcp=true cannot be used in mode passthru: the container gets the MAC of parent eth2, but "
        rf"{LEASED} was leased under \S+: "
        "use --ipam-driver null and -o dhcp=true",
        plugin_error(docker_host.start_refusal()),
    )
    assert server.leases() == []
    assert ON_ETH1 not in words
