"""The driver and address management wired on fakes."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Collection, Coroutine, Iterable
from itertools import count
from pathlib import Path
from random import Random
from tempfile import mkdtemp
from typing import Any, TypeVar, cast

from attrs import define
from twisted.internet.defer import Deferred, ensureDeferred
from twisted.internet.task import Clock
from twisted.logger import ILogObserver, LogEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from macvlan_twisted.addresses import parse_address, parse_interface, parse_network
from macvlan_twisted.config import Config
from macvlan_twisted.driver import requests
from macvlan_twisted.driver.models import Subnet
from macvlan_twisted.errors import MacvlanError
from macvlan_twisted.fleet.member import FleetMember
from macvlan_twisted.netlink.kernel import LinkFacts
from macvlan_twisted.option_values import ConflictDetection
from macvlan_twisted.plugin import Platform, build
from macvlan_twisted.testing.kernel import FakeKernel, nic
from macvlan_twisted.testing.packet_socket import FakeLanSocket
from macvlan_twisted.testing.sandboxes import FakeSandboxes

from .engines import Engine, unavailable_engine
from .held_steps import ScriptedRecords, ScriptedStore, Steps, disk_refuses

T = TypeVar("T")

NETWORK = "5b3c9d" * 10 + "0001"
OTHER_NETWORK = "5b3c9d" * 10 + "0002"
ENDPOINT = "e0ffee" * 10 + "0001"
OTHER_ENDPOINT = "e0ffee" * 10 + "0002"


LAN = Config(
    host_interface="eth0",
    subnets=(parse_network("192.168.1.0/24"),),
    gateways=(parse_address("192.168.1.1"),),
    conflict_detection=ConflictDetection.OFF,
)


def plain_kernel(*more: Any) -> FakeKernel:
    """A host with two NICs, ``eth0`` (2) and ``eth1`` (3)."""
    return FakeKernel([nic("eth0", 2), nic("eth1", 3), *more])


_NONCES = count(1)


class PluginHarness:
    """One life of the service on fakes, and on the kernel and the state that survive it."""

    def __init__(
        self,
        kernel: FakeKernel | None = None,
        config: Config = LAN,
        records: ScriptedRecords | None = None,
        store: ScriptedStore | None = None,
        sandboxes: FakeSandboxes | None = None,
        engine: Engine | None = None,
        fleet: FleetMember | None = None,
    ) -> None:
        self.fleet = fleet
        self.kernel = plain_kernel() if kernel is None else kernel
        self.config = config
        self.records = ScriptedRecords() if records is None else records
        self.store = ScriptedStore() if store is None else store
        self.steps = Steps()
        self.sandboxes = FakeSandboxes() if sandboxes is None else sandboxes
        self.engine = unavailable_engine() if engine is None else engine
        self.lan_sockets: dict[str, FakeLanSocket] = {}
        self.answerers: list[Callable[[bytes], list[bytes]]] = []
        """Who is on the LANs of all parents: functions as :class:`FakeLanSocket` has them."""
        self.clock = Clock()
        self.suspended = 0.0
        """Seconds for which the machine was suspended."""
        self.parts = parts = build(
            config,
            self.kernel,
            self.records,
            self.store,
            Platform(
                self.steps,
                self.steps,
                self._open_tap,
                self.sandboxes,
                self.engine,
                fleet=fleet,
                processor_time=lambda: 0.0,
            ),
            clock=self.clock,
            random=Random(3),
            awake_seconds=lambda: self.clock.seconds() - self.suspended,
            wall_time=lambda: 1.0e9,
            nonce=self._next_nonce,
        )
        parts.load()
        self.registry = parts.registry
        self.links, self.host_links, self.wires = parts.links, parts.host_links, parts.sockets
        self.conflicts, self.announcements = parts.conflicts, parts.announcer
        self.host_access, self.leases, self.parents = parts.host_routes, parts.leases, parts.parents
        self.pools, self.addresses = parts.pools, parts.addresses
        self.prefetch = parts.prefetch
        self.pool_binding, self.address_use = parts.pool_binding, parts.address_use
        self.open_pools = parts.open_pools
        self.endpoint_addresses, self.moves = parts.endpoint_addresses, parts.readdressing
        self.networks, self.endpoints = parts.networks, parts.endpoints
        self.joining, self.removal = parts.joining, parts.removal
        self.orphans = parts.orphans

    def suspend(self, seconds: float) -> None:
        """Suspend the machine. What came due is called when it resumes."""
        self.suspended += seconds
        self.clock.advance(seconds)

    def _open_tap(self, parent: str, speaker: str, mac: str) -> FakeLanSocket:
        tap = self.lan_sockets[parent] = FakeLanSocket(parent, mac)
        tap.answerers = self.answerers
        return tap

    @staticmethod
    def _next_nonce() -> str:
        return f"{next(_NONCES):08x}"

    def next_life(self, config: Config | None = None) -> PluginHarness:
        """Start again on what survives the end of this life, however it ended."""
        self.records.steps = Steps(failure=disk_refuses)
        self.store.steps = Steps(failure=disk_refuses)
        plugin = PluginHarness(
            self.kernel, config or self.config, self.records, self.store, self.sandboxes, self.engine
        )
        plugin.answerers = self.answerers
        plugin.wait(plugin.parts.reconcile(self.kernel.links()))
        return plugin

    @staticmethod
    def start(call: Coroutine[Any, Any, T]) -> Deferred[T]:
        """Begin a call that may wait for held steps."""
        return ensureDeferred(call)

    @staticmethod
    def wait(call: Coroutine[Any, Any, T]) -> T:
        """The result of a call that ends at once; raises its exception."""
        outcome: list[Any] = []
        failed: list[Any] = []
        ensureDeferred(call).addCallbacks(outcome.append, failed.append)
        if failed:
            failed[0].raiseException()
        if not outcome:
            raise AssertionError("the call waits for something")
        result: T = outcome[0]
        return result

    def create_network(self, network_id: str = NETWORK, **options: Any) -> None:
        self.wait(self.networks.create(network_request(network_id, **options)))

    def create_endpoint(
        self,
        endpoint_id: str = ENDPOINT,
        network_id: str = NETWORK,
        address: str | None = "192.168.1.7/24",
        mac: str | None = None,
        address_v6: str | None = None,
    ) -> str | None:
        return self.wait(
            self.endpoints.create(endpoint_request(endpoint_id, network_id, address, mac, address_v6))
        ).mac

    def delete_endpoint(self, endpoint_id: str = ENDPOINT, network_id: str = NETWORK) -> None:
        self.wait(self.removal.delete(requests.EndpointCall(network_id, endpoint_id)))

    def begin_create_network(self, network_id: str = NETWORK, **options: Any) -> Deferred[None]:
        """Create it without waiting for held steps."""
        return self.start(self.networks.create(network_request(network_id, **options)))

    def begin_create_endpoint(
        self, endpoint_id: str = ENDPOINT, network_id: str = NETWORK, *about: str | None, **more: str | None
    ) -> Deferred[requests.CreatedEndpoint]:
        return self.start(self.endpoints.create(endpoint_request(endpoint_id, network_id, *about, **more)))

    def delete_network(self, network_id: str = NETWORK) -> None:
        self.wait(self.networks.delete(network_id))

    def begin_delete_network(self, network_id: str = NETWORK) -> Deferred[None]:
        return self.start(self.networks.delete(network_id))

    def begin_delete_endpoint(self, endpoint_id: str = ENDPOINT, network_id: str = NETWORK) -> Deferred[None]:
        return self.start(self.removal.delete(requests.EndpointCall(network_id, endpoint_id)))

    def link(self, name: str) -> LinkFacts:
        """The link of that name, which must exist."""
        link = self.kernel.find(name)
        assert link is not None, f"{name} is missing"
        return link

    def link_names(self) -> set[str]:
        return {link.name for link in self.kernel.links()}

    def foreign_to(self, names: Iterable[str]) -> set[str]:
        return self.link_names() - set(names)


PLAIN_LINKS = frozenset({"lo", "eth0", "eth1"})


def subnet(pool: str, gateway: str | None = None, **auxiliary: str) -> Subnet:
    return Subnet(
        parse_network(pool),
        None if gateway is None else parse_address(gateway),
        {name: parse_address(text) for name, text in auxiliary.items()},
    )


def network_request(
    network_id: str = NETWORK,
    *,
    internal: bool = False,
    subnets: tuple[Subnet, ...] | None = None,
    **options: str,
) -> requests.CreateNetwork:
    return requests.CreateNetwork(
        network_id,
        options,
        internal,
        (subnet("192.168.1.0/24", "192.168.1.1"),) if subnets is None else subnets,
    )


def endpoint_request(
    endpoint_id: str = ENDPOINT,
    network_id: str = NETWORK,
    address: str | None = "192.168.1.7/24",
    mac: str | None = None,
    address_v6: str | None = None,
) -> requests.CreateEndpoint:
    return requests.CreateEndpoint(
        network_id,
        endpoint_id,
        None if address is None else parse_interface(address),
        None if address_v6 is None else parse_interface(address_v6),
        mac,
    )


def fresh_directory(test: SynchronousTestCase) -> Path:
    """A directory that is deleted with *test*; those of trial stay if pytest runs it."""
    path = Path(mkdtemp())
    test.addCleanup(shutil.rmtree, path)
    return path


def events_of(test: SynchronousTestCase) -> list[LogEvent]:
    """The events logged from now on to the end of the test."""
    events: list[LogEvent] = []
    observer = cast(ILogObserver, events.append)
    globalLogPublisher.addObserver(observer)
    test.addCleanup(globalLogPublisher.removeObserver, observer)
    return events


class PluginTestCase(SynchronousTestCase):
    """A fresh host with two NICs and the parts on it."""

    config: Config = LAN

    def setUp(self) -> None:
        self.plugin = PluginHarness(config=self.config)

    def assert_nothing_left(
        self, plugin: PluginHarness | None = None, links: Iterable[str] = PLAIN_LINKS
    ) -> None:
        """No link, no row and no memory of networks and endpoints."""
        plugin = plugin or self.plugin
        self.assertEqual(plugin.link_names(), set(links))
        self.assertEqual(plugin.records.all_rows(), {})
        self.assertEqual(dict(plugin.registry.networks), {})
        self.assertEqual(dict(plugin.registry.endpoints), {})
        self.assertEqual(dict(plugin.parents.made), {})

    def assert_refused(self, kind: type[Exception], *words: str) -> Refusal:
        return Refusal(self, kind, words)

    def refuse_each_step(
        self,
        which: Callable[[PluginHarness], Steps],
        act: Callable[[], object],
        check: Callable[[], None],
        prepare: Callable[[], object] = lambda: None,
        retried: Callable[[], None] = lambda: None,
        undoing: Collection[str] = (),
        least: int = 1,
    ) -> None:
        """
        Refuse the first step of *act* on a fresh host, then the second, and so on until none is left.

        :param which: the steps: those on the kernel, or those on the disk.
        :param check: runs after each failure.
        :param retried: runs after a success in spite of the refused step.
        :param undoing: steps that the next start repeats; one is made before *check*.
        :param least: fail if *act* takes fewer steps.
        """
        number = 0
        while True:
            number += 1
            self.plugin = PluginHarness()
            prepare()
            steps = which(self.plugin)
            before = len(steps.taken)
            steps.refuse_number = before + number
            try:
                act()
            except MacvlanError as error:
                self.assertIn("a test refuses it", str(error))
            else:
                if steps.refuse_number > len(steps.taken):
                    break
                retried()
                continue
            if steps.taken[before + number - 1] in undoing:
                self.plugin = self.plugin.next_life()
            check()
        self.assertGreater(number, least, "too few steps were refused")


def on_kernel(plugin: PluginHarness) -> Steps:
    return plugin.steps


def on_disk(plugin: PluginHarness) -> Steps:
    return plugin.records.steps


@define
class Refusal:
    """A context manager: the block must raise *kind* with all *words* in its message."""

    test: SynchronousTestCase
    kind: type[Exception]
    words: tuple[str, ...]

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> bool:
        if error is None:
            self.test.fail(f"nothing was refused, {self.kind.__name__} was to be raised")
        if not isinstance(error, self.kind):
            return False
        for word in self.words:
            self.test.assertIn(word, str(error))
        return True
