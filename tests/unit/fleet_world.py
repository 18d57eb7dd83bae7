"""Hosts of a fleet on one store in memory, what engines know of them, and what must hold at any time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from copy import deepcopy
from typing import Any

from attrs import define, evolve, field
from twisted.internet.defer import Deferred, ensureDeferred
from twisted.python.failure import Failure

from macvlan_twisted.addresses import IPAddress, parse_address, parse_network
from macvlan_twisted.errors import MacvlanError
from macvlan_twisted.fleet.interfaces import Claim, Host, HostRecord, SharedAddress, Snapshot
from macvlan_twisted.fleet.member import FleetMember
from macvlan_twisted.fleet.own_claims import OwnClaims
from macvlan_twisted.fleet.reserve import reserve_size
from macvlan_twisted.fleet.rows import Stage
from macvlan_twisted.fleet.session import SWEEP_INTERVAL
from macvlan_twisted.fleet.sweep import STRAY_GRACE
from macvlan_twisted.ipam.fleet_addresses import REST
from macvlan_twisted.ipam.requests import Purpose, ReleaseAddress, RequestAddress, RequestPool
from macvlan_twisted.state.interfaces import RecordKind
from macvlan_twisted.testing.fleet_claims import FakeClaims, FakeStore

from .held_steps import Steps, disk_refuses
from .helpers import LAN, PluginHarness
from .interleavings_world import Everything

SUBNET, PART = parse_network("192.168.1.0/24"), parse_network("192.168.1.8/30")
NUMBERS = range(int(PART.network_address), int(PART.broadcast_address) + 1)
GATEWAY = parse_address("192.168.1.1")
LEASE = 15.0
"""Seconds for which the record of a host stays that does not reach the store."""
LONGEST_CALL = 2.1
"""Seconds for which a call may wait for the store: for an address that it wants, and then for another one."""


@define(eq=False)
class Call:
    """A call of an engine that is under way."""

    what: str
    waited: float = 0.0


@define(eq=False)
class WorldHost:
    """A machine with its state, and the life of the service on it, if it runs."""

    name: str
    store: FakeStore
    log: Callable[[str], None]
    boot: int = 1
    lives: int = 0
    state: PluginHarness | None = None
    """The last life: kernel and disk survive it."""
    plugin: PluginHarness | None = None
    claims: FakeClaims = field(init=False)
    running: Deferred[Any] = field(init=False)
    silent_since: dict[FakeClaims, float] = field(factory=dict)
    """When each life was cut off from the store, or ended."""
    holds_disk: bool = False
    pools: set[str] = field(factory=set)
    """Those that the engine has."""
    containers: dict[IPAddress, str] = field(factory=dict)
    """Addresses of containers that live, and their names."""
    calls: list[Call] = field(factory=list)
    earlier: list[Any] = field(factory=list)
    """Kept from the garbage collector, which would let dead calls continue."""
    faults: list[str] = field(factory=list)

    # Lives

    def start(self) -> None:
        self.lives += 1
        self.claims = FakeClaims(self.store)
        host = Host(self.name, f"instance-{self.name}")
        record = HostRecord(host, f"session-{id(self)}-{self.lives}", f"boot-{self.name}-{self.boot}")
        member = FleetMember(record, self.claims)
        before = self.state
        if before is None:
            self.plugin = PluginHarness(config=LAN, fleet=member)
        else:
            self.plugin = PluginHarness(before.kernel, LAN, before.records, before.store, fleet=member)
        self.state = self.plugin
        session = self.plugin.parts.fleet_session
        assert session is not None
        self.running = ensureDeferred(session.run())
        self.running.addErrback(lambda _: None)
        self._release_unknown()

    def _release_unknown(self) -> None:
        """The engine's part: what it got no reply for goes."""
        assert self.plugin is not None
        for pool_id in set(self.plugin.store.open) - self.pools:
            self._begin(f"ReleasePool {pool_id[:8]}", self.plugin.pools.release_pool(pool_id), lambda _: None)
        for pool_id, address in list(self.plugin.store.allocated):
            if pool_id in self.pools and address not in self.containers and address != GATEWAY:
                self.release(pool_id, address)

    def kill(self, seen: int) -> None:
        """The process ends: :param seen: how many of the held steps of each disk are done."""
        plugin = self.plugin
        assert plugin is not None
        self.earlier.append((plugin, self.claims, plugin.records.steps, plugin.store.steps))
        for steps in (plugin.records.steps, plugin.store.steps):
            steps.hold = Everything()
        self.claims.die()
        held = [step for steps in (plugin.records.steps, plugin.store.steps) for step in steps.held[:seen]]
        self.running.cancel()
        for step in held:
            step.do()
        plugin.records.steps = Steps(failure=disk_refuses)
        plugin.store.steps = Steps(failure=disk_refuses)
        self.plugin, self.calls, self.holds_disk = None, [], False

    def copy(self, name_of_boot: int) -> WorldHost:
        """A second machine with a copy of the state directory."""
        assert self.state is not None
        twin = WorldHost(self.name, self.store, self.log, name_of_boot)
        twin.state = PluginHarness(config=LAN)
        twin.state.records.rows = deepcopy(self.state.records.rows)
        for part in ("open", "allocated", "last", "names", "came_back", "of_containers"):
            setattr(twin.state.store, part, dict(getattr(self.state.store, part)))
        twin.pools = set(twin.state.store.open)
        twin.containers = {address: "" for _, address in twin.state.store.allocated}
        return twin

    # Steps on the disk

    def hold_disk(self) -> None:
        assert self.plugin is not None
        self.holds_disk = True
        for steps in (self.plugin.records.steps, self.plugin.store.steps):
            steps.hold = Everything()

    def let_go(self, count: int) -> None:
        """The disk goes on with *count* steps."""
        assert self.plugin is not None
        for _ in range(count):
            for steps in (self.plugin.records.steps, self.plugin.store.steps):
                if steps.held:
                    steps.let_go()

    def free_disk(self) -> None:
        assert self.plugin is not None
        self.holds_disk = False
        for steps in (self.plugin.records.steps, self.plugin.store.steps):
            steps.hold = set()
            steps.let_all_go()

    # Calls

    def _begin(self, what: str, call: Any, succeeded: Callable[[Any], None]) -> None:
        begun = Call(what)
        self.calls.append(begun)
        life = self.lives

        def ended(result: Any) -> None:
            if life != self.lives or begun not in self.calls:
                return
            self.calls.remove(begun)
            if not isinstance(result, Failure):
                self.log(f"{self.name}: {what} -> {getattr(result, 'ip', 'done')}")
                succeeded(result)
                return
            self.log(f"{self.name}: {what} -> {result.getErrorMessage()[:150]}")
            if not isinstance(result.value, MacvlanError):
                self.faults.append(f"{self.name}: {what}: {result.getTraceback()}")

        ensureDeferred(call).addBoth(ended)

    def open(self) -> None:
        assert self.plugin is not None
        asked = RequestPool("Local", SUBNET, PART, {"identity": "name"})

        def opened(answer: Any) -> None:
            self.pools.add(answer.pool_id)

        self._begin("RequestPool", self.plugin.pools.request_pool(asked), opened)

    def close_pool(self, pool_id: str) -> None:
        assert self.plugin is not None
        self.pools.discard(pool_id)
        for pool, address in list(self.plugin.store.allocated):
            if pool == pool_id:
                self.containers.pop(address, None)
        self._begin(f"ReleasePool {pool_id[:8]}", self.plugin.pools.release_pool(pool_id), lambda _: None)

    def ask(self, pool_id: str, address: IPAddress | None, name: str) -> None:
        assert self.plugin is not None
        if name in self.containers.values() or any(name and f"({name})" in each.what for each in self.calls):
            return  # an engine has one container of a name
        request = RequestAddress(pool_id, address, Purpose.ENDPOINT, name)

        def granted(answer: Any) -> None:
            if pool_id in self.pools:
                if answer.ip in self.containers:
                    self.faults.append(f"{self.name}: {answer.ip} was handed out twice")
                self.containers[answer.ip] = name

        what = f"RequestAddress {address or 'any'} ({name})"
        self._begin(what, self.plugin.addresses.request_address(request), granted)

    def ask_gateway(self, pool_id: str) -> None:
        assert self.plugin is not None
        request = RequestAddress(pool_id, GATEWAY, Purpose.GATEWAY)
        self._begin("gateway", self.plugin.addresses.request_address(request), lambda _: None)

    def release(self, pool_id: str, address: IPAddress) -> None:
        assert self.plugin is not None
        self.containers.pop(address, None)
        request = ReleaseAddress(pool_id, address)
        self._begin(
            f"ReleaseAddress {address}", self.plugin.addresses.release_address(request), lambda _: None
        )

    # What is there

    @property
    def own_claims(self) -> OwnClaims:
        assert self.state is not None
        assert self.state.parts.fleet.own_claims is not None
        return self.state.parts.fleet.own_claims

    def on_disk(self) -> set[IPAddress]:
        """Addresses that the disk says are allocated to containers."""
        if self.state is None:
            return set()
        return {
            address
            for (_, address), allocation in self.state.store.allocated.items()
            if allocation.purpose == Purpose.ENDPOINT.value
        }

    def rows_on_disk(self) -> dict[str, str]:
        """By address: claim id and stage."""
        if self.state is None:
            return {}
        rows = self.state.records.documents(RecordKind.FLEET)
        return {
            str(row["address"]): f"{row['claim_id']} {row['stage']}"
            for key, row in rows.items()
            if key != "store"
        }


@define(eq=False)
class FleetWorld:
    """Three hosts, one store, one LAN, and eight addresses."""

    store: FakeStore = field(factory=FakeStore)
    now: float = 0.0
    hosts: dict[str, WorldHost] = field(init=False)
    backup: Snapshot | None = None
    excused: set[IPAddress] = field(factory=set)
    """Addresses that two hosts may have: their claims were lost with the store, or by an administrator."""
    dead: list[WorldHost] = field(factory=list)
    """Copies that run no more."""
    events: list[str] = field(factory=list)

    def __attrs_post_init__(self) -> None:
        self.hosts = {name: WorldHost(name, self.store, self.say) for name in "abc"}
        for host in self.hosts.values():
            host.start()

    def say(self, text: str) -> None:
        self.events.append(f"{self.now:8.2f} {text}")

    def lives(self) -> Iterator[WorldHost]:
        return (host for host in self.hosts.values() if host.plugin is not None)

    # Time

    def advance(self, seconds: float, step: float = 0.25) -> None:
        left = seconds
        while left > 0:
            now = min(step, left)
            left -= now
            self.now += now
            for host in self.hosts.values():
                self._expire(host)
                if host.plugin is None:
                    continue
                for call in host.calls:
                    call.waited += 0.0 if host.holds_disk else now
                host.plugin.clock.advance(now)
            self.check()

    def _expire(self, host: WorldHost) -> None:
        for claims in (host.claims, *(each[1] for each in host.earlier)):
            if not claims.is_cut:
                host.silent_since.pop(claims, None)
            elif self.now - host.silent_since.setdefault(claims, self.now) >= LEASE:
                claims.expire()

    # Troubles

    def take_backup(self) -> None:
        self.backup = self.store.snapshot()

    def restore(self, backup: Snapshot, cluster: str) -> None:
        """What was handed out since the backup may be handed out again."""
        before = {entry.address: entry for entry in backup.entries}
        now = {entry.address: entry for entry in self.store.entries.values()}
        for address in {*before, *now}:
            if _id(before.get(address)) != _id(now.get(address)):
                self.excused.add(address)
        for host in self.hosts.values():
            for text, row in host.rows_on_disk().items():
                if _id(before.get(parse_address(text))) != row.split()[0]:
                    self.excused.add(parse_address(text))
        self.store.restore(evolve(backup, alive=(), wanted=()), cluster)

    def forget(self, name: str) -> None:
        """What an administrator does about a host that is gone: its claims are deleted."""
        host = self.hosts[name]
        self.excused |= {parse_address(text) for text in host.rows_on_disk()} | host.on_disk()
        for key, entry in list(self.store.entries.items()):
            if isinstance(entry, Claim) and entry.owner.name == name:
                self.excused.add(entry.address)
                self.store.set_entry(key, None)
        self.store.set_known(name, None)
        if name in self.store.alive:
            self.store.set_record(name, None)

    def run_copy(self, name: str, boot: int, count: int) -> None:
        """Start a copy of a host's state directory, use it for a short time, and end it for good."""
        host = self.hosts[name]
        if host.state is None:
            return
        self.excused |= {parse_address(text) for text in host.rows_on_disk()}
        twin = host.copy(boot)
        twin.containers = {}
        before = set(host.on_disk())
        twin.start()
        for _ in range(count):
            for pool_id in sorted(twin.pools):
                twin.ask(pool_id, None, "")
        for _ in range(8):
            self.advance(0.25)
            assert twin.plugin is not None
            twin.plugin.clock.advance(0.25)
            for other in self.hosts.values():
                both = (twin.on_disk() - before) & other.on_disk() - self.excused
                assert not both, f"copy of {name} and {other.name} have {sorted(map(str, both))}"
        self.say(f"copy of {name}: has {sorted(map(str, twin.containers))}")
        twin.kill(0)
        twin.claims.on_the_way.clear()
        twin.claims.expire()
        self.dead.append(twin)

    # Checks

    def check(self) -> None:
        """What must hold at any time."""
        hosts = list(self.hosts.values())
        for host in hosts:
            assert not host.faults, host.faults[0]
            lost = set(host.containers) - host.on_disk()
            assert not lost, f"{host.name}: containers run with {_texts(lost)}, which are not on its disk"
            rows = host.rows_on_disk()
            unclaimed = {each for each in host.on_disk() if str(each) not in rows} - self.excused
            assert not unclaimed, f"{host.name}: allocated without a row: {_texts(unclaimed)}"
            for call in host.calls:
                assert call.waited <= LONGEST_CALL, f"{host.name}: {call.what} has waited {call.waited} s"
        for number, host in enumerate(hosts):
            for other in hosts[:number]:
                both = (host.on_disk() & other.on_disk()) - self.excused
                assert not both, f"{host.name} and {other.name} both have {_texts(both)}"

    def settle(self) -> None:
        """Everything is healed, and time passes. Then rows, store and containers agree."""
        for host in self.hosts.values():
            for steps in (host.free_disk,) if host.plugin is not None else (host.start,):
                steps()
            claims = host.claims
            claims.is_cut = claims.loses_replies = claims.holds_events = claims.holds_changes = False
            claims.sent.clear()
            while claims.on_the_way:
                claims.arrive()
            claims.deliver()
            for each in host.earlier:
                each[1].on_the_way.clear()
        self.advance(60.0, 1.0)
        for host in self.lives():  # the engine's part, as after each start
            host._release_unknown()
        self.advance(REST + STRAY_GRACE + 6 * SWEEP_INTERVAL, 7.0)
        self.check()
        self._check_agreement()
        disputed = {key[1] for host in self.lives() for key in host.own_claims.disputed}
        twice = {
            each
            for host in self.lives()
            for other in self.lives()
            if host is not other
            for each in host.on_disk() & other.on_disk()
        }
        assert twice <= disputed, f"two hosts have {_texts(twice)}, and only {_texts(disputed)} are reported"
        self.excused = disputed

    def _check_agreement(self) -> None:
        """Every key has a row, every row a key, and nobody keeps more than the reserve."""
        entries = {entry.address: entry for entry in self.store.entries.values()}
        owned: dict[IPAddress, str] = {}
        for host in self.lives():
            rows = host.own_claims.rows
            assert not host.own_claims.unavailable, f"{host.name}: {host.own_claims.unavailable}"
            assert not host.calls, f"{host.name}: waits: {[call.what for call in host.calls]}"
            for (_, address), row in rows.by_key.items():
                entry = entries.get(address)
                if row.key in host.own_claims.disputed:
                    assert not (isinstance(entry, Claim) and entry.claim_id == row.claim_id)
                    continue
                assert row.stage is Stage.OWNED, f"{host.name}: {address} stays {row.stage.value}"
                if row.is_shared:
                    assert isinstance(entry, SharedAddress), f"{host.name}: {address} is not shared: {entry}"
                    assert host.name in {each.name for each in entry.holders}, f"{address}: {entry}"
                    owned[address] = host.name
                    continue
                assert _id(entry) == row.claim_id, f"{host.name}: row {row}, but the store says {entry}"
                owned[address] = host.name
            unshared = {row.address for row in rows.by_key.values() if row.is_shared}
            if not any(
                GATEWAY in {key[1] for key in h.state.store.allocated} for h in self.lives() if h.state
            ):
                assert not unshared, f"{host.name}: still shares {_texts(unshared)}"
            spare = {row.address for row in rows.owned()} - host.on_disk()
            free = len(NUMBERS) - len({a for h in self.lives() for a in h.on_disk()})
            limit = reserve_size(8, free, len(NUMBERS), len(self.store.known)) if host.pools else 0
            assert len(spare) <= limit, f"{host.name}: holds {_texts(spare)}, and may hold {limit}"
        strays = {address: entry for address, entry in entries.items() if address not in owned}
        assert not strays, f"nobody knows of these claims: {list(strays.values())}"
        assert not self.store.wanted, f"wanted: {self.store.wanted}"

    def described(self) -> str:
        lines = ["--- what happened", *self.events[-120:], "--- store"]
        lines += [f"{key[1]}: {entry}" for key, entry in sorted(self.store.entries.items(), key=str)]
        for host in self.hosts.values():
            lines.append(f"--- host {host.name}: {'runs' if host.plugin else 'is dead'}")
            lines.append(f"rows {host.rows_on_disk()}")
            own_claims = host.own_claims
            lines.append(f"unavailable: {own_claims.unavailable!r}, strays {own_claims.strays}")
            lines.append(f"disputed {own_claims.disputed}")
            lines.append(f"disk {_texts(host.on_disk())} containers {_texts(set(host.containers))}")
        return "\n".join(lines)

    def stop(self) -> None:
        for host in self.lives():
            host.claims.die()
            host.running.cancel()


def _id(entry: Any) -> str:
    return entry.claim_id if isinstance(entry, Claim) else ""


def _texts(addresses: set[IPAddress]) -> list[str]:
    return sorted(map(str, addresses))
