"""Leases from a real DHCP server, taken from the docker host for containers that need not exist yet."""

from collections.abc import Iterator
from ipaddress import IPv4Address
from random import Random

import pytest
from attrs import evolve
from twisted.internet.defer import Deferred, ensureDeferred, gatherResults
from twisted.internet.threads import deferToThread

from macvlan_twisted.dhcp.binding import Client
from macvlan_twisted.dhcp.discover import discover
from macvlan_twisted.errors import RequestRefused
from tests.integration.conftest import need
from tests.integration.dhcp_client import Clients, Witness, clients_on
from tests.integration.on_reactor import on_reactor
from tests.integration.packet_sockets import mac_of, tap_in
from tests.lab.dhcp_server import DhcpServer
from tests.lab.lan import Lan
from tests.lab.requirements import missing_for_dhcp

MAC = "7a:42:c0:a8:4d:64"
WEB = Client(MAC, hostname="web", vendor_class="macvlan-twisted")
ONE_ADDRESS = "192.168.77.100,192.168.77.100"


@pytest.fixture
def dhcp_lan(lan: Lan) -> Lan:
    """Give a LAN on which a DHCP server can run."""
    need(missing_for_dhcp())
    return lan


@pytest.fixture
def server(dhcp_lan: Lan) -> Iterator[DhcpServer]:
    """Run a server at the gateway."""
    with DhcpServer(dhcp_lan) as made:
        yield made


@pytest.fixture
def clients(dhcp_lan: Lan) -> Iterator[Clients]:
    """Give leases on the docker host's NIC."""
    with tap_in(dhcp_lan) as tap, clients_on(tap) as made:
        yield made


def log_says(server: DhcpServer, text: str, since: int = 0) -> Deferred[None]:
    return deferToThread(server.wait_for_log, text, since=since)


@on_reactor
async def test_lease_can_precede_its_container(server: DhcpServer, clients: Clients) -> None:
    facts = await clients.new(WEB).acquire()
    (granted,) = server.leases()
    assert (granted.mac, granted.address) == (MAC, str(facts.address))
    assert (facts.prefix_length, str(facts.router), str(facts.server_id)) == (
        24,
        "192.168.77.1",
        "192.168.77.1",
    )
    assert (facts.lease_seconds, facts.t1 > 0, facts.t2 > facts.t1) == (120, True, True)


@on_reactor
async def test_frames_carry_the_macs_of_container_and_server(
    dhcp_lan: Lan, server: DhcpServer, clients: Clients
) -> None:
    # What goes by broadcast, what goes to the server alone, and no checksum that tcpdump complains about.
    with dhcp_lan.capture("gateway", "udp dst port 67", count=3) as packets:
        lease = clients.new(WEB)
        facts = await lease.acquire()
        lease.release()
        lines = await deferToThread(packets.lines)
    gateway = mac_of(dhcp_lan, "gateway")
    assert facts.server_mac == gateway
    assert [
        f"{MAC} > {to}" in line
        for line, to in zip(lines, ("ff:ff:ff:ff:ff:ff",) * 2 + (gateway,), strict=True)
    ]
    assert all(MAC in line and "bad" not in line for line in lines), lines
    assert f"{facts.address}.68 > 192.168.77.1.67" in lines[2]


@on_reactor
async def test_server_learns_hostname_vendor_class_and_client_id(
    server: DhcpServer, clients: Clients
) -> None:
    await clients.new(evolve(WEB, client_id=b"\x01web/lan")).acquire()
    (granted,) = server.leases()
    assert (granted.hostname, granted.client_id) == ("web", "01:77:65:62:2f:6c:61:6e")
    assert "vendor class: macvlan-twisted" in server.log()


@on_reactor
async def test_client_id_keeps_its_address_under_another_mac(server: DhcpServer, clients: Clients) -> None:
    first = clients.new(evolve(WEB, client_id=b"\x00web"))
    facts = await first.acquire()
    first.stop()
    again = await clients.new(Client("7a:42:00:00:00:02", b"\x00web")).acquire()
    assert again.address == facts.address


@on_reactor
async def test_wanted_address_is_leased(server: DhcpServer, clients: Clients) -> None:
    facts = await clients.new(WEB).acquire(IPv4Address("192.168.77.150"))
    assert str(facts.address) == "192.168.77.150"


@on_reactor
async def test_wanted_address_not_offered_is_refused(server: DhcpServer, clients: Clients) -> None:
    with pytest.raises(
        RequestRefused, match=r"192\.168\.77\.1 .*does not give 192\.168\.77\.7 .*offers 192\.168\.77\.1"
    ):
        await clients.new(WEB).acquire(IPv4Address("192.168.77.7"))
    assert server.leases() == []


@on_reactor
async def test_full_pool_is_refused_in_time(dhcp_lan: Lan, clients: Clients) -> None:
    with DhcpServer(dhcp_lan, range=ONE_ADDRESS) as server:
        await clients.new(WEB).acquire()
        with pytest.raises(RequestRefused, match="its pool is full"):
            await clients.new(Client("7a:42:00:00:00:02"), timeout=2).acquire()
        assert "no address available" in server.log()


@on_reactor
async def test_absent_server_is_refused_in_time(clients: Clients) -> None:
    with pytest.raises(RequestRefused, match="no DHCP server on eth1"):
        await clients.new(WEB, timeout=2).acquire()


@on_reactor
async def test_second_server_leases_nothing(dhcp_lan: Lan, server: DhcpServer, clients: Clients) -> None:
    with DhcpServer(dhcp_lan, "neighbour", range="192.168.77.200,192.168.77.209") as second:
        facts = await clients.new(WEB).acquire()
        here, there = (server, second) if str(facts.server_id) == "192.168.77.1" else (second, server)
        assert here.addresses() == {MAC: str(facts.address)}
        await log_says(there, "DHCPOFFER")
        assert there.leases() == []


@on_reactor
async def test_server_with_the_wanted_address_is_chosen(
    dhcp_lan: Lan, server: DhcpServer, clients: Clients
) -> None:
    with DhcpServer(dhcp_lan, "neighbour", range="192.168.77.200,192.168.77.209"):
        for number, wanted in enumerate(("192.168.77.205", "192.168.77.105")):
            facts = await clients.new(Client(f"7a:42:00:00:00:{number:02}")).acquire(IPv4Address(wanted))
            assert str(facts.address) == wanted


@on_reactor
async def test_fifty_parallel_clients_get_fifty_addresses(server: DhcpServer, clients: Clients) -> None:
    leases = [clients.new(Client(f"7a:42:00:00:01:{number:02x}")) for number in range(50)]
    everyones = await gatherResults([ensureDeferred(lease.acquire()) for lease in leases])
    assert server.addresses() == {facts.mac: str(facts.address) for facts in everyones}
    assert len({facts.address for facts in everyones}) == 50


@on_reactor
async def test_slow_server_is_awaited_by_parallel_clients(dhcp_lan: Lan, clients: Clients) -> None:
    # It looks six times for three seconds, and answers nobody meanwhile.
    with DhcpServer(dhcp_lan, ping=True) as server:
        leases = [clients.new(Client(f"7a:42:00:00:01:{number:02x}")) for number in range(20)]
        everyones = await gatherResults([ensureDeferred(lease.acquire()) for lease in leases])
        assert server.addresses() == {facts.mac: str(facts.address) for facts in everyones}


@on_reactor
async def test_address_in_use_is_declined(server: DhcpServer, clients: Clients) -> None:
    witness = Witness()
    witness.users["192.168.77.150"] = "52:54:00:00:00:99"
    with pytest.raises(RequestRefused, match="is in use by 52:54:00:00:00:99"):
        await clients.new(WEB, witness).acquire(IPv4Address("192.168.77.150"))
    await log_says(server, f"DHCPDECLINE(eth1) 192.168.77.150 {MAC}")
    # To the same client the server offers what it has had before, unless that was declined.
    facts = await clients.new(WEB, witness).acquire()
    assert str(facts.address) != "192.168.77.150"


@on_reactor
async def test_discover_learns_prefix_and_router_without_a_lease(
    server: DhcpServer, clients: Clients
) -> None:
    from twisted.internet import reactor

    found = await discover(clients.wire, Client(clients.wire.mac), clock=reactor, randomness=Random())
    assert (found.prefix_length, str(found.router)) == (24, "192.168.77.1")
    assert server.leases() == []
    assert server.count("DHCPREQUEST") == 0
