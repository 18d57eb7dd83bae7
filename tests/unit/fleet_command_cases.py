"""A fleet in memory, and the commands of an administrator on one of its hosts."""

from __future__ import annotations

import json
from collections.abc import Callable
from random import Random

from twisted.internet.defer import ensureDeferred
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from macvlan_twisted.addresses import parse_address, parse_network
from macvlan_twisted.commands.cli import make_parser
from macvlan_twisted.commands.fleet import Environment, execute
from macvlan_twisted.config import Config
from macvlan_twisted.fleet.interfaces import Claim, ClaimState, Entry, Host, HostRecord, SharedAddress
from macvlan_twisted.fleet.location import parse_etcd_location
from macvlan_twisted.fleet.member import FleetMember
from macvlan_twisted.fleet.rows import ClaimRow, Stage
from macvlan_twisted.ipam.pool_plan import plan_pool
from macvlan_twisted.ipam.requests import RequestPool
from macvlan_twisted.lan.arp_nd import Probe, answer_frame, decode
from macvlan_twisted.state.database import ADDRESSES, FLEET, POOLS, Change, Put, to_json
from macvlan_twisted.state.generation import RuntimeGeneration
from macvlan_twisted.state.serialize import to_document
from macvlan_twisted.state.sqlite import identity_of, open_database
from macvlan_twisted.testing.fleet_claims import FakeClaims, FakeStore
from macvlan_twisted.testing.packet_socket import FakeLanSocket

from .helpers import fresh_directory, plain_kernel

BOOT = "boot-here"
STATION = "02:00:00:00:00:99"


def host(name: str, instance: str = "") -> Host:
    return Host(name, instance or f"instance-{name}")


def claim(
    address: str,
    owner: Host,
    state: ClaimState = ClaimState.USED,
    container: str = "",
    mac: str = "",
    lan: str = "default",
) -> Claim:
    return Claim(lan, parse_address(address), owner, f"claim-{address}", state, container, mac)


def shared(address: str, *holders: Host, lan: str = "default") -> SharedAddress:
    return SharedAddress(lan, parse_address(address), frozenset(holders))


class FleetCommandCase(SynchronousTestCase):
    """Runs commands on the host ``here``."""

    def setUp(self) -> None:
        place = fresh_directory(self)
        self.state_dir, self.runtime_dir = place / "state", place / "run"
        self.config = Config(
            fleet=parse_etcd_location("etcd://a"),
            fleet_host="here",
            host_interface="eth0",
            state_dir=str(self.state_dir),
            runtime_dir=str(self.runtime_dir),
        )
        self.name = "here"
        self.store = FakeStore()
        self.claims = FakeClaims(self.store)
        self.clock = Clock()
        self.kernel = plain_kernel()
        self.said: list[str] = []
        self.asked = 0
        self.agrees = True
        self.lan_sockets: dict[str, FakeLanSocket] = {}
        self.answering: set[tuple[str, str]] = set()
        """Parent and address, as text, of stations on the LANs."""

    # The fleet.

    def fill(self, *entries: Entry, alive: tuple[Host, ...] = (), known: tuple[Host, ...] = ()) -> None:
        for entry in entries:
            self.store.set_entry(entry.key, entry)
        for each in alive:
            self.store.set_record(each.name, HostRecord(each, "session", f"boot-{each.name}"))
        for each in (*alive, *known):
            self.store.set_known(each.name, each)

    def entry(self, address: str, lan: str = "default") -> Entry | None:
        return self.store.entries.get((lan, parse_address(address)))

    # The state of this host.

    def make_state(self, *addresses: str, **options: str) -> str:
        """
        A pool 192.168.1.0/24 with gateway 192.168.1.1 and endpoints.

        :return: the instance.
        """
        request = RequestPool("Local", parse_network("192.168.1.0/24"), None, options)
        pool = plan_pool(request, self.config, "0001")
        return self.commit(
            Put(POOLS, (pool.pool_id, to_json(to_document(pool)))),
            Put(ADDRESSES, (pool.pool_id, "192.168.1.1", "gateway")),
            *(Put(ADDRESSES, (pool.pool_id, each, "endpoint")) for each in addresses),
        )

    def commit(self, *changes: Change) -> str:
        self.state_dir.mkdir(mode=0o700, exist_ok=True)
        database = open_database(self.state_dir, RuntimeGeneration(self.runtime_dir, self.state_dir))
        try:
            database.commit(changes)
            return identity_of(database).instance
        finally:
            database.close()

    def add_rows(self, *entries: Entry) -> None:
        """Rows of claims that this host has."""
        rows = [
            ClaimRow(
                each.lan,
                each.address,
                each.claim_id if isinstance(each, Claim) else "share",
                Stage.OWNED,
                is_shared=isinstance(each, SharedAddress),
            )
            for each in entries
        ]
        self.commit(
            *(Put(FLEET, (f"{each.lan}/{each.address}", to_json(to_document(each)))) for each in rows)
        )

    def rows(self) -> dict[str, str]:
        """The stage of each claim in the state, by address."""
        database = open_database(self.state_dir)
        try:
            documents = [json.loads(text) for key, text in database.rows(FLEET) if key != "store"]
            return {each["address"]: each["stage"] for each in documents}
        finally:
            database.close()

    # Commands.

    def run_command(self, *words: str, meanwhile: Callable[[], None] = lambda: None) -> int:
        """
        :param meanwhile: is called again and again while the command waits.
        :return: the exit status.
        """
        environment = Environment(
            self._member,
            self.kernel,
            self._make_socket,
            self._is_agreed,
            self.said.append,
            self.clock,
            Random(1),
        )
        done = ensureDeferred(execute(make_parser().parse_args(["fleet", *words]), self.config, environment))
        outcomes: list[int | Failure] = []
        done.addBoth(outcomes.append)
        for _ in range(100):
            if outcomes:
                break
            meanwhile()
            self.clock.advance(0.1)
        outcome = outcomes[0]
        if isinstance(outcome, Failure):
            outcome.raiseException()
        assert isinstance(outcome, int)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        return outcome

    def _member(self, instance: str) -> FleetMember:
        return FleetMember(HostRecord(Host(self.name, instance), "session-here", BOOT), self.claims)

    def _is_agreed(self) -> bool:
        self.asked += 1
        return self.agrees

    def _make_socket(self, parent: str, speaker: str, mac: str) -> FakeLanSocket:
        socket = FakeLanSocket(parent, mac)
        socket.answerers.append(lambda frame: self._answers(parent, frame))
        self.lan_sockets[parent] = socket
        return socket

    def _answers(self, parent: str, frame: bytes) -> list[bytes]:
        message = decode(frame)
        if isinstance(message, Probe) and (parent, str(message.address)) in self.answering:
            return [answer_frame(message.address, STATION, message.mac)]
        return []

    def probed(self) -> dict[str, set[str]]:
        """The addresses that were probed on each parent."""
        found: dict[str, set[str]] = {}
        for parent, socket in self.lan_sockets.items():
            messages = [decode(frame) for frame in socket.sent]
            found[parent] = {str(each.address) for each in messages if isinstance(each, Probe)}
        return found

    def assertSaid(self, *parts: str) -> None:
        """One line has all *parts*."""
        self.assertTrue(
            [line for line in self.said if all(part in line for part in parts)], (parts, self.said)
        )
