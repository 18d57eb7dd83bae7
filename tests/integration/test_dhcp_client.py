"""Leases from a real DHCP server, taken from the docker host for containers that need not exist yet."""

import time
from collections.abc import Iterator
from ipaddress import IPv4Address
from random import Random

import pytest
from attrs import evolve
from twisted.internet.defer import Deferred, ensureDeferred, gatherResults
from twisted.internet.threads import deferToThread

from macvlan_twisted.errors import Refused
from macvlan_twisted.lan.dhcp import Client, LeaseFacts, State, ask_around
from tests.integration.conftest import need
from tests.integration.dhcp_client import Clients, Witness, clients_on, put_container
from tests.integration.on_reactor import on_reactor
from tests.integration.taps import mac_of, tap_in
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
async def test_a_lease_is_taken_before_its_container_exists(server: DhcpServer, clients: Clients) -> None:
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
async def test_the_server_knows_hostname_vendor_class_and_client_id(
    server: DhcpServer, clients: Clients
) -> None:
    await clients.new(evolve(WEB, client_id=b"\x01web/lan")).acquire()
    (granted,) = server.leases()
    assert (granted.hostname, granted.client_id) == ("web", "01:77:65:62:2f:6c:61:6e")
    assert "vendor class: macvlan-twisted" in server.log()


@on_reactor
async def test_one_client_id_keeps_its_address_under_another_mac(
    server: DhcpServer, clients: Clients
) -> None:
    first = clients.new(evolve(WEB, client_id=b"\x00web"))
    facts = await first.acquire()
    first.stop()
    again = await clients.new(Client("7a:42:00:00:00:02", b"\x00web")).acquire()
    assert again.address == facts.address


@on_reactor
async def test_the_wanted_address_is_got(server: DhcpServer, clients: Clients) -> None:
    facts = await clients.new(WEB).acquire(IPv4Address("192.168.77.150"))
    assert str(facts.address) == "192.168.77.150"


@on_reactor
async def test_a_wanted_address_that_the_server_does_not_give_is_refused(
    server: DhcpServer, clients: Clients
) -> None:
    with pytest.raises(
        Refused, match=r"192\.168\.77\.1 .*does not give 192\.168\.77\.7 .*offers 192\.168\.77\.1"
    ):
        await clients.new(WEB).acquire(IPv4Address("192.168.77.7"))
    assert server.leases() == []


@on_reactor
async def test_a_full_pool_is_refused_in_time(dhcp_lan: Lan, clients: Clients) -> None:
    with DhcpServer(dhcp_lan, range=ONE_ADDRESS) as server:
        await clients.new(WEB).acquire()
        with pytest.raises(Refused, match="its pool is full"):
            await clients.new(Client("7a:42:00:00:00:02"), timeout=2).acquire()
        assert "no address available" in server.log()


@on_reactor
async def test_without_a_server_it_is_refused_in_time(clients: Clients) -> None:
    with pytest.raises(Refused, match="no DHCP server on eth1"):
        await clients.new(WEB, timeout=2).acquire()


@on_reactor
async def test_of_two_servers_one_gives_the_lease_and_the_other_none(
    dhcp_lan: Lan, server: DhcpServer, clients: Clients
) -> None:
    with DhcpServer(dhcp_lan, "neighbour", range="192.168.77.200,192.168.77.209") as second:
        facts = await clients.new(WEB).acquire()
        here, there = (server, second) if str(facts.server_id) == "192.168.77.1" else (second, server)
        assert here.addresses() == {MAC: str(facts.address)}
        await log_says(there, "DHCPOFFER")
        assert there.leases() == []


@on_reactor
async def test_of_two_servers_that_which_has_the_wanted_address_is_chosen(
    dhcp_lan: Lan, server: DhcpServer, clients: Clients
) -> None:
    with DhcpServer(dhcp_lan, "neighbour", range="192.168.77.200,192.168.77.209"):
        for number, wanted in enumerate(("192.168.77.205", "192.168.77.105")):
            facts = await clients.new(Client(f"7a:42:00:00:00:{number:02}")).acquire(IPv4Address(wanted))
            assert str(facts.address) == wanted


@on_reactor
async def test_fifty_containers_that_start_together_get_fifty_addresses(
    server: DhcpServer, clients: Clients
) -> None:
    leases = [clients.new(Client(f"7a:42:00:00:01:{number:02x}")) for number in range(50)]
    everyones = await gatherResults([ensureDeferred(lease.acquire()) for lease in leases])
    assert server.addresses() == {facts.mac: str(facts.address) for facts in everyones}
    assert len({facts.address for facts in everyones}) == 50


@on_reactor
async def test_an_address_in_use_is_declined_and_another_one_taken(
    server: DhcpServer, clients: Clients
) -> None:
    witness = Witness()
    witness.users["192.168.77.150"] = "52:54:00:00:00:99"
    with pytest.raises(Refused, match="is in use by 52:54:00:00:00:99"):
        await clients.new(WEB, witness).acquire(IPv4Address("192.168.77.150"))
    await log_says(server, f"DHCPDECLINE(eth1) 192.168.77.150 {MAC}")
    # To the same client the server offers what it has had before, unless that was declined.
    facts = await clients.new(WEB, witness).acquire()
    assert str(facts.address) != "192.168.77.150"


@on_reactor
async def test_a_lease_is_renewed_with_the_server_alone(
    dhcp_lan: Lan, hasty: DhcpServer, clients: Clients
) -> None:
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
    assert isinstance(renewed, LeaseFacts)
    assert renewed.obtained_at > facts.obtained_at
    assert [granted.hostname for granted in hasty.leases()] == ["db"]
    assert witness.of("lost") == []


@on_reactor
async def test_a_server_with_another_mac_is_found_by_rebinding(
    dhcp_lan: Lan, hasty: DhcpServer, clients: Clients
) -> None:
    witness = Witness()
    facts = await clients.new(WEB, witness).acquire()
    put_container(dhcp_lan, facts)
    dhcp_lan.run_in("gateway", "ip", "link", "set", "eth1", "address", "02:00:00:00:00:77")
    rebound = await witness.wait_for("keep", 2)
    assert isinstance(rebound, LeaseFacts)
    assert rebound.server_mac == "02:00:00:00:00:77"
    assert witness.of("lost") == []


@on_reactor
async def test_a_server_that_was_away_at_renewal_renews_when_it_is_back(
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
async def test_a_server_that_moved_to_another_range_takes_the_lease_back_and_the_container_may_stay(
    dhcp_lan: Lan, hasty: DhcpServer, clients: Clients
) -> None:
    witness = Witness()
    lease = clients.new(WEB, witness)
    facts = await lease.acquire()
    put_container(dhcp_lan, facts)
    await deferToThread(hasty.stop)
    hasty.range, hasty.arguments = "192.168.77.200,192.168.77.209", ("--dhcp-authoritative",)
    await deferToThread(hasty.start)
    assert "took it back" in str(await witness.wait_for("lost"))
    new = await witness.wait_for("moved")
    assert isinstance(new, LeaseFacts)
    assert str(new.address).startswith("192.168.77.20")
    await log_says(hasty, f"DHCPRELEASE(eth1) {new.address}")
    assert lease.facts is not None
    assert lease.facts.address == facts.address


@on_reactor
async def test_a_container_may_move_to_where_the_server_wants_it(
    dhcp_lan: Lan, hasty: DhcpServer, clients: Clients
) -> None:
    witness = Witness()
    witness.moves = True
    lease = clients.new(WEB, witness)
    put_container(dhcp_lan, await lease.acquire())
    await deferToThread(hasty.stop)
    hasty.range, hasty.arguments = "192.168.77.200,192.168.77.209", ("--dhcp-authoritative",)
    await deferToThread(hasty.start)
    new = await witness.wait_for("moved")
    assert isinstance(new, LeaseFacts)
    dhcp_lan.add_address("neighbour", str(new.interface), "c1")
    renewed = await witness.wait_for("keep", 3)
    assert isinstance(renewed, LeaseFacts)
    assert renewed.address == new.address
    assert hasty.addresses()[MAC] == str(new.address)


@on_reactor
async def test_a_lease_that_ran_out_is_told_and_got_back_when_the_server_is_back(
    server: DhcpServer, clients: Clients
) -> None:
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
    assert isinstance(regained, LeaseFacts)
    assert regained.address == facts.address
    assert lease.state is State.BOUND


@on_reactor
async def test_a_lease_goes_on_after_a_restart_of_ours(server: DhcpServer, clients: Clients) -> None:
    first, witness = clients.new(WEB), Witness()
    facts = await first.acquire()
    first.stop()
    so_far = len(server.log())
    clients.new(facts.client, witness).resume(facts)
    confirmed = await witness.wait_for("keep")
    assert isinstance(confirmed, LeaseFacts)
    assert confirmed.address == facts.address
    assert "DHCPDISCOVER" not in server.log()[so_far:]
    assert "DHCPRELEASE" not in server.log()


@on_reactor
async def test_a_server_that_forgot_everything_takes_a_resumed_lease_back_and_gives_it_again(
    dhcp_lan: Lan, server: DhcpServer, clients: Clients
) -> None:
    first, witness = clients.new(WEB), Witness()
    facts = await first.acquire()
    first.stop()
    server.kill()
    with DhcpServer(dhcp_lan, arguments=("--dhcp-authoritative",)) as forgetful:
        clients.new(facts.client, witness).resume(facts)
        kept = await witness.wait_for("keep")
        assert isinstance(kept, LeaseFacts)
        assert forgetful.addresses() == {MAC: str(facts.address)}
        assert kept.address == facts.address


@on_reactor
async def test_a_released_lease_is_gone_from_the_servers_disk(server: DhcpServer, clients: Clients) -> None:
    lease = clients.new(WEB)
    facts = await lease.acquire()
    lease.release()
    await log_says(server, f"DHCPRELEASE(eth1) {facts.address} {MAC}")
    await clients.new(Client("7a:42:00:00:00:02")).acquire()
    assert MAC not in server.addresses()


@on_reactor
async def test_a_lan_is_asked_for_its_prefix_and_router_without_a_lease(
    server: DhcpServer, clients: Clients
) -> None:
    from twisted.internet import reactor

    found = await ask_around(clients.wire, Client(clients.wire.mac), clock=reactor, randomness=Random())
    assert (found.prefix_length, str(found.router)) == (24, "192.168.77.1")
    assert server.leases() == []
    assert server.count("DHCPREQUEST") == 0
