"""A fleet against its promises: calls, crashes, partitions, lost and late transactions, backups, in any order."""

from __future__ import annotations

from typing import Any

from attrs import evolve
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule

from macvlan_twisted.addresses import parse_address
from macvlan_twisted.testing.fleet_claims import FakeStore

from .fleet_world import FleetWorld, WorldHost

HOSTS = st.sampled_from("abc")
ADDRESSES = st.sampled_from([f"192.168.1.{number}" for number in range(8, 12)])
NAMES = st.sampled_from(["", "web", "db"])
POOLS = st.sampled_from([0, 0, 0, 1])


class FleetMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.world = FleetWorld()
        self.clusters = 0
        for host in self.world.hosts.values():
            host.open()
        self.world.advance(1.0)

    def _checked(self, function: Any) -> None:
        """Run *function*, and on a failure tell what happened."""
        try:
            function()
            self.world.check()
        except Exception as error:
            raise AssertionError(f"{error}\n{self.world.described()}") from error

    def _on(self, name: str, what: str, act: Any) -> None:
        """*act* on a host that runs."""
        host = self.world.hosts[name]
        if host.plugin is None:
            return
        self.world.say(f"{name}: {what}")
        self._checked(lambda: act(host))

    # Calls

    @rule(name=HOSTS, pool=POOLS, opens=st.booleans())
    def open_or_release_pool(self, name: str, pool: int, opens: bool) -> None:
        if opens:
            self._on(name, "RequestPool", lambda host: host.open() if len(host.pools) < 2 else None)
        else:
            self._on(name, "ReleasePool", lambda host: [host.close_pool(each) for each in _pool(host, pool)])

    @rule(name=HOSTS, pool=POOLS, container=NAMES)
    def ask(self, name: str, pool: int, container: str) -> None:
        self._on(name, f"ask ({container})", lambda h: [h.ask(p, None, container) for p in _pool(h, pool)])

    @rule(name=HOSTS, pool=POOLS, count=st.integers(2, 4))
    def ask_often(self, name: str, pool: int, count: int) -> None:
        """So that addresses run out."""
        for _ in range(count):
            self._on(name, "ask", lambda host: [host.ask(each, None, "") for each in _pool(host, pool)])

    @rule(name=HOSTS, pool=POOLS, container=NAMES, address=ADDRESSES)
    def ask_for(self, name: str, pool: int, container: str, address: str) -> None:
        wanted = parse_address(address)
        self._on(
            name, f"ask for {address}", lambda h: [h.ask(p, wanted, container or "x") for p in _pool(h, pool)]
        )

    @rule(first=HOSTS, second=HOSTS, address=ADDRESSES)
    def ask_for_the_same(self, first: str, second: str, address: str) -> None:
        wanted = parse_address(address)
        for name in (first, second):
            self._on(name, f"ask for {address}", lambda h: [h.ask(p, wanted, "y") for p in _pool(h, 0)])

    @rule(name=HOSTS, pool=POOLS)
    def ask_for_gateway(self, name: str, pool: int) -> None:
        self._on(name, "gateway", lambda host: [host.ask_gateway(each) for each in _pool(host, pool)])

    @rule(name=HOSTS, which=st.integers(0, 3))
    def release(self, name: str, which: int) -> None:
        self._on(name, "release", lambda host: _release(host, which))

    @rule(name=HOSTS)
    def release_all(self, name: str) -> None:
        self._on(name, "release all", _release_all)

    # Time

    @rule(seconds=st.sampled_from([0.25, 0.5, 1.0, 2.0]))
    def wait(self, seconds: float) -> None:
        self.world.say(f"{seconds} s pass")
        self._checked(lambda: self.world.advance(seconds))

    @rule(count=st.integers(1, 8))
    def wait_a_little(self, count: int) -> None:
        """Hosts need some time to hand over, and between its parts something else happens."""
        self._checked(lambda: self.world.advance(0.05 * count, 0.05))

    @rule(seconds=st.sampled_from([20.0, 40.0, 320.0]))
    def wait_long(self, seconds: float) -> None:
        self.world.say(f"{seconds} s pass")
        self._checked(lambda: self.world.advance(seconds, seconds / 20))

    # Hosts

    @rule(name=HOSTS, seen=st.integers(0, 3), reboots=st.booleans())
    def kill_or_start(self, name: str, seen: int, reboots: bool) -> None:
        """:param seen: how many of the held steps of each disk are done when the process ends."""
        host = self.world.hosts[name]
        if host.plugin is not None:
            self._on(name, f"killed, {seen} disk steps done", lambda host: host.kill(seen))
        else:
            host.boot += reboots
            self.world.say(f"{name}: starts, boot {host.boot}")
            self._checked(host.start)

    @rule(name=HOSTS, steps=st.sampled_from([0, 1, 2, 4, -1]))
    def use_disk(self, name: str, steps: int) -> None:
        """:param steps: how many steps it does from now on; -1: all again."""
        if steps < 0:
            self._on(name, "disk is fast", lambda host: host.free_disk())
            return

        def hold(host: WorldHost) -> None:
            host.hold_disk()
            host.let_go(steps)

        self._on(name, f"disk is slow, {steps} steps", hold)

    # Store

    @rule(
        name=HOSTS, fault=st.sampled_from(["cut", "loses_replies", "holds_events", "holds_changes", "", ""])
    )
    def trouble(self, name: str, fault: str) -> None:
        if not fault:
            self._on(name, "is healed", _heal)
        elif fault == "cut":
            self._on(name, "is cut off", lambda host: host.claims.cut())
        else:
            self._on(name, fault, lambda host: setattr(host.claims, fault, True))

    @rule(name=HOSTS, count=st.integers(0, 3))
    def arrive(self, name: str, count: int) -> None:
        if count:
            self._on(name, f"{count} events arrive", lambda host: host.claims.deliver(count))
        else:
            self._on(name, "a transaction arrives", lambda host: host.claims.arrive())

    @rule(name=HOSTS, which=st.integers(-1, 7))
    def arrive_late(self, name: str, which: int) -> None:
        """A transaction of an earlier life (-1), or one that etcd's client has sent twice."""
        host = self.world.hosts[name]
        if which >= 0 and host.claims.sent:
            self.world.say(f"{name}: an old transaction arrives once more")
            self._checked(host.claims.sent[which % len(host.claims.sent)])
        for _, claims, *_ in host.earlier if which < 0 else ():
            if claims.on_the_way:
                self.world.say(f"{name}: a transaction of an earlier life arrives")
                self._checked(claims.arrive)

    @rule(
        name=HOSTS,
        what=st.sampled_from(["backup", "backup", "restore", "restore elsewhere", "empty", "forget", "copy"]),
        count=st.integers(0, 3),
    )
    def administrate(self, name: str, what: str, count: int) -> None:
        host = self.world.hosts[name]
        if what == "backup":
            self.world.say("backup")
            self.world.take_backup()
        elif what == "copy":
            self.world.say(f"{name}: a copy of its state directory is started")
            boot = host.boot + 1000 * (count % 2)
            self._checked(lambda: self.world.run_copy(name, boot, count))
        elif what == "forget" and host.plugin is None:
            self.world.say(f"{name}: is forgotten")
            self._checked(lambda: self.world.forget(name))
        elif what == "empty":
            self._restore(FakeStore().snapshot(), True)
        elif what.startswith("restore") and self.world.backup is not None:
            self._restore(self.world.backup, what != "restore")

    def _restore(self, backup: Any, is_other_cluster: bool) -> None:
        self.clusters += is_other_cluster
        self.world.say("the store is restored")
        cluster = f"cluster {self.clusters}"
        self._checked(lambda: self.world.restore(evolve(backup), cluster))

    # End

    @rule()
    @precondition(lambda self: len(self.world.events) > 40)
    def settle(self) -> None:
        self.world.say("everything is healed")
        self._checked(self.world.settle)

    def teardown(self) -> None:
        try:
            self.world.say("everything is healed at the end")
            self._checked(self.world.settle)
        finally:
            self.world.stop()


def _pool(host: WorldHost, which: int) -> list[str]:
    pools = sorted(host.pools)
    return pools[which % len(pools) :][:1] if pools else []


def _release(host: WorldHost, which: int) -> None:
    assert host.plugin is not None
    containers = sorted(host.containers)
    for address in containers[which % len(containers) :][:1] if containers else ():
        for pool_id, each in list(host.plugin.store.allocated):
            if each == address:
                host.release(pool_id, address)


def _release_all(host: WorldHost) -> None:
    for _ in list(host.containers):
        _release(host, 0)


def _heal(host: WorldHost) -> None:
    claims = host.claims
    claims.is_cut = claims.loses_replies = claims.holds_events = claims.holds_changes = False
    claims.deliver()
    while claims.on_the_way:
        claims.arrive()


FleetModelTests = FleetMachine.TestCase
FleetModelTests.settings = settings(max_examples=40, stateful_step_count=40)
