"""Leases from a real DHCP server that are held: renewed, rebound, taken back, run out, resumed, given back."""

import time
from collections.abc import Iterator

import pytest
from attrs import evolve
from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread

from macvlan_twisted.dhcp.binding import Binding, Client
from macvlan_twisted.dhcp.renew import State
from tests.integration.conftest import need
from tests.integration.dhcp_client import Clients, Witness, clients_on, put_container
from tests.integration.on_reactor import on_reactor
from tests.integration.packet_sockets import mac_of, tap_in
from tests.lab.dhcp_server import DhcpServer
from tests.lab.lan import Lan
from tests.lab.requirements import missing_for_dhcp

MAC = "7a:42:c0:a8:4d:64"
WEB = Client(MAC, hostname="web", vendor_class="macvlan-twisted")


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
def hasty(dhcp_lan: Lan) -> Iterator[DhcpServer]:
    """Run a server whose leases are to be renewed after two seconds, and rebound after four."""
    with DhcpServer(dhcp_lan, t1=2, t2=4) as made:
        yield made


@pytest.fixture
def clients(dhcp_lan: Lan) -> Iterator[Clients]:
    """Give leases on the docker host's NIC."""
    with tap_in(dhcp_lan) as tap, clients_on(tap) as made:
        yield made


def log_says(server: DhcpServer, text: str, since: int = 0) -> Deferred[None]:
    return deferToThread(server.wait_for_log, text, since=since)


@on_reactor
async def test_lease_is_renewed_by_unicast(dhcp_lan: Lan, hasty: DhcpServer, clients: Clients) -> None:
    witness = Witness()
    lease = clients.new(WEB, witness)
    facts = await lease.acquire()
    put_container(dhcp_lan, facts)
    with dhcp_lan.capture("gateway", "udp dst port 67", count=2) as packets:
        lease.hostname = "db"
        renewed = await witness.wait_for("keep", 3)
        lines = await deferToThread(packets.lines)
    gateway = mac_of(dhcp_lan, "gateway")
    assert all(f"{MAC} > {gateway}" in line and f"{facts.address}.68" in line for line in lines), lines
    assert isinstance(renewed, Binding)
    assert renewed.obtained_at > facts.obtained_at
    assert [granted.hostname for granted in hasty.leases()] == ["db"]
    assert witness.of("lost") == []


@on_reactor
async def test_rebinding_finds_a_server_with_a_new_mac(
    dhcp_lan: Lan, hasty: DhcpServer, clients: Clients
) -> None:
    witness = Witness()
    facts = await clients.new(WEB, witness).acquire()
    put_container(dhcp_lan, facts)
    dhcp_lan.run_in("gateway", "ip", "link", "set", "eth1", "address", "02:00:00:00:00:77")
    rebound = await witness.wait_for("keep", 2)
    assert isinstance(rebound, Binding)
    assert rebound.server_mac == "02:00:00:00:00:77"
    assert witness.of("lost") == []


@on_reactor
async def test_server_away_at_renewal_renews_when_it_is_back(
    dhcp_lan: Lan, hasty: DhcpServer, clients: Clients
) -> None:
    witness = Witness()
    lease = clients.new(WEB, witness)
    put_container(dhcp_lan, await lease.acquire())
    hasty.kill()
    with dhcp_lan.capture("gateway", f"udp dst port 67 and ether src {MAC}", count=1, seconds=10) as packets:
        assert await deferToThread(packets.lines), "nobody asked"
    assert lease.state in {State.RENEWING, State.REBINDING}
    await deferToThread(hasty.start)
    await witness.wait_for("keep", 2)
    assert witness.of("lost") == []


@on_reactor
async def test_container_may_stay_after_a_dhcpnak(dhcp_lan: Lan, hasty: DhcpServer, clients: Clients) -> None:
    witness = Witness()
    lease = clients.new(WEB, witness)
    facts = await lease.acquire()
    put_container(dhcp_lan, facts)
    await deferToThread(hasty.stop)
    hasty.range, hasty.arguments = "192.168.77.200,192.168.77.209", ("--dhcp-authoritative",)
    await deferToThread(hasty.start)
    assert "took it back" in str(await witness.wait_for("lost"))
    new = await witness.wait_for("moved")
    assert isinstance(new, Binding)
    assert str(new.address).startswith("192.168.77.20")
    await log_says(hasty, f"DHCPRELEASE(eth1) {new.address}")
    assert lease.facts is not None
    assert lease.facts.address == facts.address


@on_reactor
async def test_container_may_move_after_a_dhcpnak(dhcp_lan: Lan, hasty: DhcpServer, clients: Clients) -> None:
    witness = Witness()
    witness.moves = True
    lease = clients.new(WEB, witness)
    put_container(dhcp_lan, await lease.acquire())
    await deferToThread(hasty.stop)
    hasty.range, hasty.arguments = "192.168.77.200,192.168.77.209", ("--dhcp-authoritative",)
    await deferToThread(hasty.start)
    new = await witness.wait_for("moved")
    assert isinstance(new, Binding)
    dhcp_lan.add_address("neighbour", str(new.interface), "c1")
    renewed = await witness.wait_for("keep", 3)
    assert isinstance(renewed, Binding)
    assert renewed.address == new.address
    assert hasty.addresses()[MAC] == str(new.address)


@on_reactor
async def test_expired_lease_is_reported_and_regained(server: DhcpServer, clients: Clients) -> None:
    witness = Witness()
    first = clients.new(WEB)
    facts = await first.acquire()
    first.stop()
    server.kill()
    nearly_over = evolve(facts, obtained_at=time.time() - facts.lease_seconds + 2)
    lease = clients.new(facts.client, witness, timeout=1)
    lease.resume(nearly_over)
    assert "its time is over" in str(await witness.wait_for("lost"))
    await deferToThread(server.start)
    regained = await witness.wait_for("regained")
    assert isinstance(regained, Binding)
    assert regained.address == facts.address
    assert lease.state is State.BOUND


@on_reactor
async def test_resumed_lease_is_confirmed_without_discovery(server: DhcpServer, clients: Clients) -> None:
    first, witness = clients.new(WEB), Witness()
    facts = await first.acquire()
    first.stop()
    so_far = len(server.log())
    clients.new(facts.client, witness).resume(facts)
    confirmed = await witness.wait_for("keep")
    assert isinstance(confirmed, Binding)
    assert confirmed.address == facts.address
    assert "DHCPDISCOVER" not in server.log()[so_far:]
    assert "DHCPRELEASE" not in server.log()


@on_reactor
async def test_forgetful_server_denies_and_grants_a_resumed_lease(
    dhcp_lan: Lan, server: DhcpServer, clients: Clients
) -> None:
    first, witness = clients.new(WEB), Witness()
    facts = await first.acquire()
    first.stop()
    server.kill()
    with DhcpServer(dhcp_lan, arguments=("--dhcp-authoritative",)) as forgetful:
        clients.new(facts.client, witness).resume(facts)
        kept = await witness.wait_for("keep")
        assert isinstance(kept, Binding)
        assert forgetful.addresses() == {MAC: str(facts.address)}
        assert kept.address == facts.address


@on_reactor
async def test_released_lease_is_gone_from_the_servers_disk(server: DhcpServer, clients: Clients) -> None:
    lease = clients.new(WEB)
    facts = await lease.acquire()
    lease.release()
    await log_says(server, f"DHCPRELEASE(eth1) {facts.address} {MAC}")
    await clients.new(Client("7a:42:00:00:00:02")).acquire()
    assert MAC not in server.addresses()
