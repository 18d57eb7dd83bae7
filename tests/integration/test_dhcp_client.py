"""The DHCP client against a real server: what containers of an engine do not show.

``test_dhcp.py`` and ``test_dhcp_over_time.py`` have the rest, through the whole service.
"""

import time
from collections.abc import Iterator
from ipaddress import IPv4Address
from random import Random

import pytest
from attrs import evolve
from twisted.internet.defer import Deferred, ensureDeferred, gatherResults
from twisted.internet.threads import deferToThread

from macvlan_twisted.dhcp.acquire import discover
from macvlan_twisted.dhcp.binding import Binding, Client, State
from macvlan_twisted.dhcp.lease import Lease
from macvlan_twisted.dhcp.transaction import Environment
from macvlan_twisted.lan.interfaces import LanSocket
from tests.integration.conftest import need
from tests.integration.on_reactor import on_reactor
from tests.integration.packet_sockets import mac_of, packet_socket_in
from tests.lab.dhcp_server import DhcpServer
from tests.lab.lan import Lan
from tests.lab.requirements import missing_for_dhcp

MAC = "7a:42:c0:a8:4d:64"
WEB = Client(MAC, hostname="web", vendor_class="macvlan-twisted")


class RecordingStore:
    """A :class:`macvlan_twisted.dhcp.holder.LeaseStore` that tests can wait for."""

    def __init__(self) -> None:
        """Nobody on the LAN has an address."""
        self._waiting: dict[str, Deferred[Binding | str]] = {}

    async def save_offer(self, offered: Binding) -> None:
        """Report ``save_offer``."""
        self._note("save_offer", offered)

    async def save_binding(self, binding: Binding) -> None:
        """Report ``save_binding``."""
        self._note("save_binding", binding)

    def unusable(self, address: IPv4Address) -> str | None:
        """Any address is usable."""
        return None

    async def in_use(self, address: IPv4Address) -> str | None:
        """No address is in use."""
        return None

    def lost(self, binding: Binding, reason: str) -> None:
        """Report ``lost``."""
        self._note("lost", reason)

    def reacquired(self, binding: Binding) -> None:
        """Report ``reacquired``."""
        self._note("reacquired", binding)

    async def readdress(self, old: Binding, new: Binding) -> bool:
        """Report ``readdress``; the container stays where it is."""
        self._note("readdress", new)
        return False

    def next(self, what: str) -> "Deferred[Binding | str]":
        """Wait for the next report of one kind.

        :raises TimeoutError: there is none within 30 s.
        """
        from twisted.internet import reactor

        waiting: Deferred[Binding | str] = Deferred()
        self._waiting[what] = waiting
        return waiting.addTimeout(30, reactor)

    def _note(self, what: str, detail: Binding | str) -> None:
        if what in self._waiting:
            self._waiting.pop(what).callback(detail)


class Clients:
    """Leases on one socket, which all end with the test."""

    def __init__(self, socket: LanSocket) -> None:
        """Start with none."""
        self.socket = socket
        self.all: list[Lease] = []

    def new(self, client: Client, store: RecordingStore | None = None, timeout: float = 10) -> Lease:
        """Make one more; `timeout` in seconds is for the whole acquisition."""
        from twisted.internet import reactor

        lease = Lease(
            self.socket, client, store or RecordingStore(), Environment(reactor, Random(), time.time, timeout)
        )
        self.all.append(lease)
        return lease


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
    """Give leases on the docker host's NIC. They end without a message to any server."""
    with packet_socket_in(dhcp_lan) as socket:
        made = Clients(socket)
        yield made
        for lease in made.all:
            lease.stop()


async def acquire_many(clients: Clients, number: int) -> dict[str, str]:
    """Acquire leases in parallel; return the addresses by MAC."""
    leases = [clients.new(Client(f"7a:42:00:00:01:{each:02x}")) for each in range(number)]
    bindings = await gatherResults([ensureDeferred(lease.acquire()) for lease in leases])
    return {binding.mac: str(binding.address) for binding in bindings}


@on_reactor
async def test_frames_carry_the_macs_of_container_and_server(
    dhcp_lan: Lan, server: DhcpServer, clients: Clients
) -> None:
    """Discovery and request are broadcast, the release is unicast, and tcpdump finds no bad checksum."""
    with dhcp_lan.capture("gateway", "udp dst port 67", count=3) as packets:
        lease = clients.new(WEB)
        binding = await lease.acquire()
        lease.release()
        lines = await deferToThread(packets.lines)
    gateway = mac_of(dhcp_lan, "gateway")
    assert binding.server_mac == gateway
    for line, destination in zip(lines, ("ff:ff:ff:ff:ff:ff",) * 2 + (gateway,), strict=True):
        assert f"{MAC} > {destination}" in line
        assert "bad" not in line
    assert f"{binding.address}.68 > 192.168.77.1.67" in lines[2]


@on_reactor
async def test_client_id_keeps_its_address_under_another_mac(server: DhcpServer, clients: Clients) -> None:
    first = clients.new(evolve(WEB, client_id=b"\x00web"))
    binding = await first.acquire()
    first.stop()
    again = await clients.new(Client("7a:42:00:00:00:02", b"\x00web")).acquire()
    assert again.address == binding.address


@on_reactor
async def test_server_with_the_wanted_address_is_chosen(
    dhcp_lan: Lan, server: DhcpServer, clients: Clients
) -> None:
    with DhcpServer(dhcp_lan, "neighbour", range="192.168.77.200,192.168.77.209"):
        for number, wanted in enumerate(("192.168.77.205", "192.168.77.105")):
            binding = await clients.new(Client(f"7a:42:00:00:00:{number:02}")).acquire(IPv4Address(wanted))
            assert str(binding.address) == wanted


@on_reactor
async def test_fifty_parallel_clients_get_fifty_addresses(server: DhcpServer, clients: Clients) -> None:
    addresses = await acquire_many(clients, 50)
    assert server.addresses() == addresses
    assert len(set(addresses.values())) == 50


@on_reactor
async def test_slow_server_is_awaited_by_parallel_clients(dhcp_lan: Lan, clients: Clients) -> None:
    """The server pings six addresses for three seconds each, and answers nobody meanwhile."""
    with DhcpServer(dhcp_lan, ping=True) as server:
        addresses = await acquire_many(clients, 20)
        assert server.addresses() == addresses


@on_reactor
async def test_discover_learns_prefix_and_router_without_a_lease(
    server: DhcpServer, clients: Clients
) -> None:
    from twisted.internet import reactor

    found = await discover(
        clients.socket, Client(clients.socket.mac), Environment(reactor, Random(), time.time)
    )
    assert (found.prefix_length, str(found.router)) == (24, "192.168.77.1")
    assert server.leases() == []
    assert server.count("DHCPREQUEST") == 0


@on_reactor
async def test_expired_lease_is_reported_and_regained(server: DhcpServer, clients: Clients) -> None:
    first, store = clients.new(WEB), RecordingStore()
    binding = await first.acquire()
    first.stop()
    server.kill()
    lost, reacquired = store.next("lost"), store.next("reacquired")
    lease = clients.new(binding.client, store, timeout=1)
    lease.resume(evolve(binding, obtained_at=time.time() - binding.lease_seconds + 2))
    assert "its time is over" in str(await lost)
    await deferToThread(server.start)
    again = await reacquired
    assert isinstance(again, Binding)
    assert again.address == binding.address
    assert lease.state is State.BOUND


@on_reactor
async def test_forgetful_server_denies_and_grants_a_resumed_lease(
    dhcp_lan: Lan, server: DhcpServer, clients: Clients
) -> None:
    first, store = clients.new(WEB), RecordingStore()
    binding = await first.acquire()
    first.stop()
    server.kill()
    with DhcpServer(dhcp_lan, arguments=("--dhcp-authoritative",)) as forgetful:
        kept = store.next("save_binding")
        clients.new(binding.client, store).resume(binding)
        again = await kept
        assert isinstance(again, Binding)
        assert forgetful.addresses() == {MAC: str(binding.address)}
        assert again.address == binding.address
