"""Leases of running containers over time: renewed, rebound, denied, without a server, with a hostname."""

import pytest

from tests.integration.dhcp_hosts import (
    AT_ONCE,
    MAC,
    NULL,
    OURS,
    UNDER_MAC,
    assert_leased,
    bare_address,
    wait_for_plugin,
    wait_for_release,
)
from tests.lab.dhcp_server import DhcpServer
from tests.lab.docker_host import DockerHost

RENEWING = pytest.mark.dhcp_server(t1=2, t2=4)
"""The server's leases are to be renewed after two seconds, and rebound after four."""
FOR_ANYBODY = ("--dhcp-authoritative",)
"""A server that confirms also what another one has leased."""


@pytest.mark.one_engine
@pytest.mark.parametrize("way", [OURS, NULL], ids=["ours", "null"])
@RENEWING
def test_renewal_is_unicast_from_the_containers_mac(
    docker_host: DockerHost, server: DhcpServer, way: tuple[str, ...]
) -> None:
    docker_host.create("lan", *way)
    web = docker_host.start("web")
    leased, mac = assert_leased(server, web), web.mac()
    gateway = docker_host.lan.mac_of("gateway")
    before = server.count("DHCPACK", mac)
    with docker_host.lan.capture("gateway", "udp dst port 67", count=2, seconds=60) as packets:
        lines = packets.lines()
    assert len(lines) == 2
    assert all(f"{mac} > {gateway}" in line for line in lines), lines
    assert all(f"{leased}.68 > 192.168.77.1.67" in line for line in lines), lines
    server.wait_for_log(f"DHCPACK(eth1) {leased} {mac}", since=len(server.log()))
    assert server.count("DHCPACK", mac) > before + 1
    assert server.count("DHCPDISCOVER", mac) == 1
    assert web.ping("192.168.77.2")


@pytest.mark.one_engine
@RENEWING
def test_another_server_takes_over_the_lease_by_rebinding(
    docker_host: DockerHost, server: DhcpServer
) -> None:
    docker_host.create("lan", *NULL)
    web = docker_host.start("web", UNDER_MAC)
    leased = assert_leased(server, web)
    server.kill()
    with DhcpServer(docker_host.lan, "neighbour", t1=2, t2=4, arguments=FOR_ANYBODY) as second:
        second.wait_for_log(f"DHCPACK(eth1) {leased} {MAC}", seconds=20)
        assert second.addresses() == {MAC: leased}
        web.remove()
        wait_for_release(second, leased)  # it is the second one that is told


@pytest.mark.one_engine
@pytest.mark.plugin_arguments("--debug")
@RENEWING
def test_server_away_at_renewal_renews_when_it_is_back(docker_host: DockerHost, server: DhcpServer) -> None:
    server.stop()
    server.t2 = 20  # it is asked after 2, 11 and 15 seconds
    server.start()
    docker_host.create("lan", *NULL)
    web = docker_host.start("web", UNDER_MAC)
    leased = assert_leased(server, web)
    server.kill()
    with docker_host.lan.capture("gateway", f"udp dst port 67 and ether src {MAC}", seconds=20) as packets:
        assert packets.lines(), "nobody asked"
    so_far = len(server.log())
    server.start()
    server.wait_for_log(f"DHCPACK(eth1) {leased} {MAC}", seconds=30, since=so_far)
    wait_for_plugin(docker_host, f"{MAC}: renewed {leased}")
    assert "DHCPDISCOVER" not in server.log()[so_far:]
    assert web.ping("192.168.77.2")


@pytest.mark.one_engine
@RENEWING
def test_container_keeps_its_address_after_a_dhcpnak(docker_host: DockerHost, server: DhcpServer) -> None:
    docker_host.create("lan", *NULL)
    web = docker_host.start("web", UNDER_MAC)
    leased = assert_leased(server, web)
    server.stop()
    server.range, server.arguments = "192.168.77.200,192.168.77.209", FOR_ANYBODY
    server.start()
    server.wait_for_log("DHCPNAK(eth1)", seconds=20)
    wait_for_plugin(docker_host, f"{MAC}: lease of {leased} lost")
    wait_for_plugin(docker_host, f"refuses {leased} and insists on 192.168.77.20")
    server.wait_for_log("DHCPRELEASE(eth1) 192.168.77.20", seconds=20)  # the container does not use that one
    assert bare_address(web) == leased
    assert web.ping("192.168.77.2")


@RENEWING
def test_renewal_tells_the_server_the_containers_name(docker_host: DockerHost, server: DhcpServer) -> None:
    docker_host.create("ours", *OURS)
    docker_host.create("free", *NULL)
    docker_host.start("web", network="ours")
    docker_host.start("my_db.1", UNDER_MAC, network="free")
    server.wait_for_log(" web", seconds=20)
    server.wait_for_log(f"{MAC} my-db-1", seconds=20)
    assert {lease.hostname for lease in server.leases()} == {"web", "my-db-1"}


@pytest.mark.one_engine
@RENEWING
def test_renewal_resumes_when_the_parent_is_up_again(docker_host: DockerHost, server: DhcpServer) -> None:
    server.stop()
    server.t2 = 20
    server.start()
    docker_host.create("lan", *NULL)
    leased = assert_leased(server, docker_host.start("web", UNDER_MAC))
    docker_host.lan.link(docker_host.place, "down")
    # The server knows when it is time to renew, and hears nothing.
    with docker_host.lan.capture("gateway", "udp dst port 67", seconds=4) as packets:
        assert packets.lines() == []
    so_far = len(server.log())
    docker_host.lan.link(docker_host.place, "up")
    server.wait_for_log(f"DHCPACK(eth1) {leased} {MAC}", seconds=30, since=so_far)


@pytest.mark.one_engine
def test_init_reboot_confirms_leases_after_a_kill(docker_host: DockerHost, server: DhcpServer) -> None:
    docker_host.create("ours", *OURS)
    docker_host.create("free", *NULL)
    web, db = docker_host.start("web", network="ours"), docker_host.start("db", UNDER_MAC, network="free")
    leased = {each.mac(): assert_leased(server, each) for each in (web, db)}
    docker_host.plugin.kill()
    so_far = len(server.log())
    with docker_host.lan.capture("gateway", "udp dst port 67", count=2, seconds=60) as packets:
        docker_host.plugin.start()
        lines = packets.lines()
    for mac, address in leased.items():
        # INIT-REBOOT: by broadcast, from no address yet (RFC 2131, 4.3.2)
        assert any(f"{mac} > ff:ff:ff:ff:ff:ff" in line and "0.0.0.0.68" in line for line in lines), lines
        server.wait_for_log(f"DHCPREQUEST(eth1) {address} {mac}", since=so_far)
        server.wait_for_log(f"DHCPACK(eth1) {address} {mac}", since=so_far)
    assert "DHCPDISCOVER" not in server.log()[so_far:]
    assert server.addresses() == leased
    assert web.ping("192.168.77.2")
    db.remove()
    web.remove()
    for address in leased.values():
        wait_for_release(server, address)


@pytest.mark.short_grace_periods
@pytest.mark.parametrize("way", [OURS, NULL], ids=["ours", "null"])
def test_lease_of_a_container_removed_meanwhile_is_released(
    docker_host: DockerHost, server: DhcpServer, way: tuple[str, ...]
) -> None:
    docker_host.create("lan", *way)
    docker_host.start("stays", AT_ONCE)
    gone = docker_host.start("gone", AT_ONCE)
    leased = assert_leased(server, gone)
    docker_host.plugin.kill()
    docker_host.engine.docker(
        "rm", "--force", "gone", timeout=120
    )  # it tries for 15 seconds three or four times
    docker_host.plugin.start()
    wait_for_release(server, leased, seconds=60)
    (kept,) = server.leases()
    assert kept.address != leased
    wait_for_plugin(docker_host, f"address {leased}: released" if way is OURS else " removed from parent ")
    docker_host.plugin.stop()
    rows = docker_host.rows()
    assert len(rows["endpoints"]) == len(rows["leases"]) == 1
    assert [row for row in rows["addresses"] if leased in map(str, row)] == []
    docker_host.plugin.start()
    docker_host.start("next", AT_ONCE).remove()


@pytest.mark.short_grace_periods
@pytest.mark.one_engine
def test_leases_end_with_containers_that_died_with_the_engine(
    docker_host: DockerHost, server: DhcpServer
) -> None:
    docker_host.create("lan", *NULL)
    leased = assert_leased(server, docker_host.start("web", UNDER_MAC, AT_ONCE))
    docker_host.plugin.kill()
    docker_host.engine.kill()
    docker_host.engine.start()  # without the plugin it drops the endpoint without a word
    docker_host.plugin.start()
    wait_for_release(server, leased, seconds=60)
    wait_for_plugin(docker_host, "the engine does not know it any more")


@pytest.mark.one_engine
def test_same_mac_starts_at_once_after_engine_and_plugin_died(
    docker_host: DockerHost, server: DhcpServer
) -> None:
    docker_host.create("lan", *NULL)
    leased = assert_leased(server, docker_host.start("web", UNDER_MAC, AT_ONCE))
    docker_host.plugin.kill()
    docker_host.engine.kill()
    docker_host.engine.start()
    docker_host.plugin.start()
    docker_host.engine.docker("start", "web")
    (lease,) = server.leases()
    assert (lease.mac, lease.address) == (MAC, leased)
    assert "DHCPRELEASE" not in server.log()
