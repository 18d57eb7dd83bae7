"""
Where the parts of the plugin are put together: for ``twistd macvlan``, for ``.tac`` files and programs, and for the tests.

To run the plugin beside other Twisted services, make a :class:`~macvlan_twisted.config.Config` and call
:func:`make_macvlan_service`.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from random import Random, SystemRandom
from secrets import token_hex
from typing import Any, Protocol

from attrs import define, frozen
from twisted.internet.defer import Deferred, DeferredList, ensureDeferred
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure

from ._version import VERSION_TEXT
from .autodetect import detect_defaults
from .clock import MonotonicClock
from .commands.stale_sandboxes import warn_of_stale_sandboxes
from .config import SHADOWED_PLUGIN_NAME, Config
from .dhcp.leases import Leases
from .dhcp.transaction import Environment
from .driver.endpoint_addresses import EndpointAddresses
from .driver.endpoint_plan import EndpointPlanner
from .driver.endpoints import Endpoints
from .driver.host_access import HostAccess
from .driver.link_ownership import ownership
from .driver.macvlan_links import MacvlanLinks
from .driver.networks import Networks
from .driver.parent_status import ParentStatus
from .driver.parents import Parents
from .driver.readdress import Readdressing
from .driver.registry import Registry
from .driver.removal import EndpointRemoval
from .engine.client import DisabledEngine, EngineClient, Inventory, Processes
from .engine.client import Engine as NetworkCreation
from .engine.default_network import ensure_network
from .errors import StartupError
from .ipam.address_requests import AddressRequests
from .ipam.allocations import Allocations
from .ipam.dhcp_pools import DhcpPools
from .ipam.mac_policy import MacPolicy
from .ipam.owners import PoolOwners
from .ipam.pending_addresses import PendingAddresses
from .ipam.pool_binding import PoolBinding
from .ipam.pool_registry import PoolRegistry
from .ipam.pool_requests import PoolRequests
from .ipam.selection import AddressSelection
from .ipam.sticky_addresses import StickyAddresses
from .keyed_lock import KeyedLock
from .lan.address_probe import RFC_5227, ProbeTiming, bounded
from .lan.announcer import Announcer
from .lan.conflict_table import ConflictTable
from .lan.conflicts import Conflicts
from .lan.container_routes import ContainerRoutes
from .lan.host_link import HostLinks
from .lan.host_routes import HostRoutes
from .lan.packet_socket import PacketSocket
from .lan.packet_sockets import PacketSockets, SocketFactory
from .last_seen import LastSeen
from .netlink.events import LinkEvents
from .netlink.kernel import Kernel, Sandboxes
from .netlink.links import Links
from .netlink.netns import NamespaceSandboxes
from .option_values import ProbeTimeout
from .parts import WiredParts, log_unless_cancelled
from .protocol.routes import PluginApp, all_methods
from .protocol.site import PluginSite
from .reconcile.container_names import ContainerNames
from .reconcile.link_monitor import LinkMonitor
from .reconcile.orphans import Orphans
from .reconcile.reconciler import GRACE_PERIODS, GracePeriods, Reconciler
from .reconcile.stale_endpoints import StaleEndpoints
from .reconcile.stale_networks import StaleNetworks
from .reconcile.startup import leases_in_use, reconcile
from .recovery.link_evidence import refuse_unknown_links
from .recovery.open_state import open_state
from .service import MacvlanService
from .state.database import Database
from .state.group_commit import GroupCommit
from .state.interfaces import AddressStore, HostRecords
from .state.sqlite import SqliteAddressStore, SqliteHostRecords, identity_of
from .worker_threads import RunInThread, WorkerThreads

_log = Logger(namespace="macvlan_twisted")


class Engine(NetworkCreation, Inventory, Processes, Protocol):
    """All that the plugin asks of Docker Engine."""


@define(eq=False)
class Plugin:
    """All parts of the plugin, as :func:`build` puts them together."""

    config: Config
    records: HostRecords
    registry: Registry
    links: Links
    host_links: HostLinks
    sockets: PacketSockets
    conflicts: Conflicts
    host_routes: HostRoutes
    leases: Leases
    announcer: Announcer
    parents: Parents
    pools: PoolRequests
    addresses: AddressRequests
    pool_binding: PoolBinding
    owners: PoolOwners
    endpoint_addresses: EndpointAddresses
    endpoints: Endpoints
    removal: EndpointRemoval
    readdressing: Readdressing
    networks: Networks
    orphans: Orphans
    reconciler: Reconciler
    link_monitor: LinkMonitor

    async def reconcile(self) -> None:
        """At start: make kernel and state agree."""
        await reconcile(
            self.registry,
            self.parents,
            self.networks,
            self.records,
            self.links,
            self.sockets,
            self.host_routes,
        )
        self.orphans.begin()


@frozen
class Surroundings:
    """
    What the plugin needs of the machine besides kernel and disk. Tests put fakes in their place.

    :param run: runs a function in a thread that may block.
    :param run_deletion: the same in a thread of its own, for the removal of retired links.
    :param make_socket: makes the packet socket on a parent.
    """

    run: RunInThread
    run_deletion: RunInThread
    make_socket: SocketFactory
    sandboxes: Sandboxes
    engine: Engine


def build(
    config: Config,
    kernel: Kernel,
    records: HostRecords,
    addresses: AddressStore,
    surroundings: Surroundings,
    *,
    clock: Any,
    random: Random,
    wall_time: Callable[[], float] = time.time,
    nonce: Callable[[], str] = lambda: token_hex(4),
    grace_periods: GracePeriods = GRACE_PERIODS,
) -> Plugin:
    """
    Put the parts together.

    :param records: what this host did. :param addresses: who owns which address.
    :param clock: ``IReactorTime`` of a clock that is never set.
    :param wall_time: the time of day, in seconds since 1970.
    :param nonce: makes the part of a PoolID that tells it from all others.
    """
    run, engine = surroundings.run, surroundings.engine
    registry = Registry(records)
    links = Links(kernel, run, surroundings.run_deletion, records.link_group, ownership(records, registry))
    parent_status = ParentStatus(clock.seconds)
    routes = ContainerRoutes(links, registry.host_links)
    host_links = HostLinks(links, records, registry.host_links, routes)
    sockets = PacketSockets(links, host_links, surroundings.make_socket, parent_status)
    open_pools = PoolRegistry(addresses)
    conflicts = Conflicts(
        sockets,
        links,
        ConflictTable(records, clock, wall_time),
        open_pools,
        _probe_timing(config.probe_timeout),
        clock,
        random,
    )
    conflicts.load()
    host_routes = HostRoutes(host_links, routes, conflicts)
    leases = Leases(sockets, conflicts, records, Environment(clock, random, wall_time, config.dhcp_timeout))
    leases.load()

    macs = MacPolicy(records.instance, random)
    dhcp_pools = DhcpPools(leases, macs)
    pool_locks, pending = KeyedLock(), PendingAddresses(clock.seconds)
    sticky_addresses = StickyAddresses(addresses.identities())
    pools_seen = LastSeen(clock.seconds, open_pools.by_id.__contains__)
    selection = AddressSelection(config, open_pools, conflicts)
    allocations = Allocations(
        open_pools, addresses, pool_locks, conflicts, dhcp_pools, selection, sticky_addresses, pending
    )
    owners = PoolOwners(open_pools, addresses, pool_locks, pending)
    pool_binding = PoolBinding(open_pools, addresses, pool_locks, allocations, selection, owners)
    address_requests = AddressRequests(
        config, open_pools, allocations, dhcp_pools, macs, selection, sticky_addresses, pending, pools_seen
    )
    pool_requests = PoolRequests(
        config, open_pools, addresses, pool_locks, allocations, dhcp_pools, selection, nonce, pools_seen
    )

    parents = Parents(links, records, registry, sockets, parent_status)
    announcer = Announcer(sockets, clock)
    endpoint_addresses = EndpointAddresses(registry, links, conflicts, announcer, leases)
    host_access = HostAccess(config, registry, links, host_routes, pool_binding, conflicts)
    planner = EndpointPlanner(config, leases, host_routes, address_requests.mac_for, random)
    removal = EndpointRemoval(registry, records, links, endpoint_addresses, host_access, clock.seconds)
    endpoints = Endpoints(
        registry,
        records,
        links,
        parents,
        planner,
        endpoint_addresses,
        host_access,
        MacvlanLinks(registry, links, parents, records.instance),
        removal,
    )
    readdressing = Readdressing(
        registry,
        records,
        endpoint_addresses,
        host_access,
        leases,
        removal.locks,
        surroundings.sandboxes,
        run,
        engine,
    )
    leases.when_moved = readdressing.moved
    networks = Networks(
        config,
        registry,
        records,
        links,
        parents,
        removal,
        sockets,
        endpoint_addresses,
        readdressing,
        host_access,
        clock.seconds,
    )

    orphans = Orphans(registry, links, address_requests, owners, leases, clock.seconds)
    endpoints.when_made = orphans.note_came
    removal.when_gone = orphans.note_left
    reconciler = Reconciler(
        registry,
        StaleEndpoints(registry, links, removal, records.instance),
        StaleNetworks(registry, networks, pool_requests, owners),
        orphans,
        engine,
        config.plugin_name,
        config.reconcile_interval,
        grace_periods,
        partial(deferLater, clock),
        clock.seconds,
    )
    link_monitor = LinkMonitor(registry, links, parents, sockets, host_links, host_routes, conflicts, clock)
    return Plugin(
        config,
        records,
        registry,
        links,
        host_links,
        sockets,
        conflicts,
        host_routes,
        leases,
        announcer,
        parents,
        pool_requests,
        address_requests,
        pool_binding,
        owners,
        endpoint_addresses,
        endpoints,
        removal,
        readdressing,
        networks,
        orphans,
        reconciler,
        link_monitor,
    )


def make_macvlan_service(
    config: Config, *, reactor: Any = None, kernel: Kernel | None = None, ages: GracePeriods = GRACE_PERIODS
) -> MacvlanService:
    """
    The plugin as a Twisted service, for a ``.tac`` file or a ``MultiService``.

    Nothing is opened, locked or asked before its ``startService``, which raises
    :class:`~macvlan_twisted.errors.StartupError` if it cannot start.

    :param reactor: the reactor to run on; by default the installed one.
    :param kernel: the links to work on; by default those of this process's network namespace.
    :param ages: how old what nobody has must be before it is removed. Shorter ones are for tests: they take what a slow
        engine is about to use.
    """
    if reactor is None:
        from twisted.internet import reactor
    return MacvlanService(reactor, config, lambda: _open_parts(config, reactor, kernel, ages))


def _open_parts(config: Config, reactor: Any, kernel: Kernel | None, ages: GracePeriods) -> WiredParts:
    """Open the state, make it agree with the kernel, and wire the parts. Blocks."""
    hear_of_links = None
    if kernel is None:
        from .netlink.rtnetlink import NetlinkKernel

        kernel = NetlinkKernel()
        hear_of_links = partial(LinkEvents, reactor)
    chosen = detect_defaults(config, kernel)
    config = chosen.config
    _say_what_was_chosen(config, chosen.reasons, chosen.hints)
    with open_state(config, kernel) as database:
        return _wire(config, reactor, kernel, ages, hear_of_links, database)


def _wire(
    config: Config,
    reactor: Any,
    kernel: Kernel,
    ages: GracePeriods,
    hear_of_links: Callable[[], LinkEvents] | None,
    database: Database,
) -> WiredParts:
    writer = GroupCommit(database, WorkerThreads(reactor, 1, "state"))
    records = SqliteHostRecords(database, writer, identity_of(database))
    threads = WorkerThreads(reactor, config.netlink_threads, "netlink", kernel.close)
    deletion_thread = WorkerThreads(reactor, 1, "netlink deletion", kernel.close)
    engine = EngineClient(reactor, config.docker_host) if config.docker_host else DisabledEngine()
    clock = MonotonicClock(reactor)
    plugin = build(
        config,
        kernel,
        records,
        SqliteAddressStore(database, writer),
        Surroundings(
            threads,
            deletion_thread,
            partial(PacketSocket, reactor, elsewhere=threads),
            NamespaceSandboxes(),
            engine,
        ),
        clock=clock,
        random=SystemRandom(),
        grace_periods=ages,
    )
    registry, leases = plugin.registry, plugin.leases
    refuse_unknown_links(records.instance, kernel.links(), registry)
    _finish_now(ensureDeferred(plugin.reconcile()))
    kernel.close()  # from now on the threads ask, each with a socket of its own

    calls = PluginApp(
        all_methods(
            plugin.networks,
            plugin.endpoints,
            plugin.removal,
            plugin.pool_binding,
            plugin.pools,
            plugin.addresses,
        ),
        config.debug,
    )
    _log.info(
        "driver initialised: macvlan-twisted {version} as {name}, {networks} networks and {endpoints} endpoints in state",
        version=VERSION_TEXT,
        name=config.plugin_name,
        networks=len(registry.networks),
        endpoints=len(registry.endpoints),
    )
    network = config.create_network
    wait = partial(deferLater, reactor)

    async def in_background(stopping: Callable[[], bool]) -> None:
        names = ContainerNames(registry, plugin.endpoint_addresses, leases, engine, wait, stopping)
        plugin.pools.prepare()
        await plugin.readdressing.begin(config.dhcp_readdress)
        await leases.resume(leases_in_use(leases.known(), registry, plugin.addresses.is_endpoints))
        work = [plugin.reconciler.make(stopping)]
        if config.docker_host:
            work.append(names.learn())
        if hear_of_links is not None:
            work.append(warn_of_stale_sandboxes(threads, wait, stopping))
        if network is not None:
            work.append(ensure_network(network, config, engine, wait, stopping))
        await DeferredList([ensureDeferred(each).addErrback(log_unless_cancelled) for each in work])

    return WiredParts(
        PluginSite(calls.resource(), reactor),
        calls,
        plugin.links,
        threads,
        deletion_thread,
        writer,
        plugin.sockets,
        plugin.conflicts,
        plugin.announcer,
        leases,
        plugin.link_monitor,
        plugin.reconciler,
        hear_of_links,
        in_background,
    )


def _probe_timing(timeout: ProbeTimeout) -> ProbeTiming:
    return RFC_5227 if timeout.seconds is None else bounded(timeout.seconds)


def _say_what_was_chosen(config: Config, reasons: Any, hints: Any) -> None:
    for reason in reasons:
        _log.info("{reason}", reason=reason)
    for hint in hints:
        _log.warn("{hint}", hint=hint)
    if config.plugin_name == SHADOWED_PLUGIN_NAME and config.listen is None:
        _log.warn(
            "Docker Engine has a builtin driver called macvlan, which shadows a plugin of that name: networks "
            "created with -d macvlan will not come here; choose another --plugin-name"
        )


def _finish_now(deferred: Deferred[None]) -> None:
    """Before the threads are started everything runs at once."""
    outcome: list[object] = []
    deferred.addBoth(outcome.append)
    if not outcome:
        raise StartupError("bug: the start waits for something")
    if isinstance(outcome[0], Failure):
        outcome[0].raiseException()
