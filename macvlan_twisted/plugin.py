"""Where the parts of the plugin are put together, for the service and for the tests alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from random import Random
from secrets import token_hex
from typing import Any, Protocol

from attrs import define, frozen
from twisted.logger import Logger

from .config import Config
from .dhcp.leases import Leases
from .dhcp.transaction import Environment
from .driver.address_prediction import AddressPrediction
from .driver.endpoint_addresses import EndpointAddresses, LanAddresses
from .driver.endpoint_plan import EndpointPlanner
from .driver.endpoints import EndpointRemoval, Endpoints
from .driver.host_access import HostAccess
from .driver.host_addresses import HostAddresses
from .driver.join import Joining
from .driver.macvlan_links import MacvlanLinks
from .driver.network_plan import NetworkPlanner
from .driver.networks import Networks, NetworkSetup
from .driver.parent_status import ParentStatus
from .driver.parents import Parents
from .driver.readdress import ContainerSandboxes, Readdressing
from .driver.registry import Registry
from .engine.interfaces import Containers, Processes
from .engine.interfaces import Engine as NetworkCreation
from .fleet.member import FleetMember
from .fleet.mirror import Mirror
from .fleet.own_claims import OwnClaims
from .fleet.rows import ClaimRows
from .fleet.session import FleetSession
from .ipam.address_requests import AddressRequests, ContainerAddresses
from .ipam.address_use import AddressUse, PreviousRuns
from .ipam.allocations import Allocations
from .ipam.endpoint_claims import EndpointClaims
from .ipam.fleet_addresses import FleetAddresses
from .ipam.fleet_share import StoredShares
from .ipam.fleet_users import FleetUsers
from .ipam.identity import MacPolicy, StickyAddresses
from .ipam.last_addresses import LastAddresses
from .ipam.new_pools import AddressPurposes, NewPools
from .ipam.pool_binding import PoolBinding, PoolMatch
from .ipam.pool_plan import PoolPlanner
from .ipam.pool_registry import PoolRegistry
from .ipam.pool_requests import PoolRequests
from .ipam.prefetch_queue import PrefetchQueue
from .ipam.previous_owners import PreviousOwners, ReturnedAddresses
from .ipam.selection import AddressSelection
from .keyed_lock import KeyedLock
from .lan.address_monitors import AddressMonitors
from .lan.address_probe import RFC_5227, ProbeTiming, bounded
from .lan.announcer import Announcer
from .lan.conflict_table import ConflictTable
from .lan.conflicts import Conflicts
from .lan.container_routes import ContainerRoutes
from .lan.host_link import HostLinks
from .lan.host_routes import HostRoutes
from .lan.packet_sockets import PacketSockets, SocketFactory
from .last_seen import EngineCalls, LastSeen
from .netlink.kernel import Kernel, LinkFacts, Sandboxes
from .netlink.links import Links
from .option_values import ProbeTimeout
from .protocol.routes import Method, all_methods
from .reconcile.container_names import ContainerNames
from .reconcile.container_watch import ContainerWatch
from .reconcile.engine_snapshot import EngineSnapshots
from .reconcile.link_monitor import HostLinkRepair, LinkMonitor
from .reconcile.loop import ReconcileLoop
from .reconcile.orphans import Orphans
from .reconcile.reconciler import GRACE_PERIODS, GracePeriods, Reconciler
from .reconcile.stale_endpoints import StaleEndpoints
from .reconcile.stale_networks import StaleNetworks
from .reconcile.startup import leases_in_use, reconcile
from .reconcile.unknown_objects import UnknownObjects
from .state.interfaces import AddressStore, HostRecords
from .worker_threads import RunInThread

_log = Logger(namespace="macvlan_twisted")


class Engine(NetworkCreation, Containers, Processes, Protocol):
    """All that the plugin asks of Docker Engine."""


@define(eq=False)
class Plugin:
    """All parts of the plugin, as :func:`build` puts them together."""

    config: Config
    registry: Registry
    links: Links
    host_links: HostLinks
    sockets: PacketSockets
    conflicts: Conflicts
    host_routes: HostRoutes
    announcer: Announcer
    on_lan: LanAddresses
    leases: Leases
    readdressing: Readdressing
    parents: Parents
    pools: PoolRequests
    prefetch: PrefetchQueue
    addresses: AddressRequests
    pool_binding: PoolBinding
    address_use: AddressUse
    open_pools: PoolRegistry
    stored_shares: StoredShares
    sticky_addresses: StickyAddresses
    returned: ReturnedAddresses
    last_addresses: LastAddresses
    networks: Networks
    host_addresses: HostAddresses
    endpoint_addresses: EndpointAddresses
    endpoints: Endpoints
    joining: Joining
    removal: EndpointRemoval
    container_names: ContainerNames
    container_watch: ContainerWatch
    orphans: Orphans
    reconciler: Reconciler
    reconcile_loop: ReconcileLoop
    link_monitor: LinkMonitor
    fleet: FleetAddresses
    fleet_session: FleetSession | None

    def load(self) -> None:
        """
        Read the state. Blocks.

        :raises StateError: a row cannot be understood.
        :raises StartupError: ``--fleet-share`` was changed, and containers have addresses outside the new part.
        """
        self.registry.load()
        self.open_pools.load()
        self.stored_shares.check()
        self.sticky_addresses.load()
        self.returned.load()
        if self.config.docker_host:
            self.last_addresses.load()
        self.conflicts.load()
        self.leases.load()
        self.parents.load()
        self.host_addresses.load()
        self.on_lan.load()
        self.endpoint_addresses.load()
        self.pools.load()
        self.fleet.load()

    async def reconcile(self, present: Sequence[LinkFacts]) -> None:
        """
        After :meth:`load`: make kernel and state agree.

        :param present: all links in the host's namespace.
        """
        await self.stored_shares.apply()
        self.pools.free_lost()
        await reconcile(
            present, self.registry, self.parents, self.networks, self.links, self.sockets, self.host_routes
        )
        self.orphans.begin()

    async def resume(self) -> None:
        """In the background after the start: go on with what an earlier life held."""
        self.prefetch.prepare_all()
        if self.registry.networks:  # whose containers may be about to start; else CreateNetwork does it
            await self.links.prepare()
        await self.readdressing.finish(self.leases, self.config.dhcp_readdress)
        await self.leases.resume(
            leases_in_use(self.leases.known(), self.registry, self.open_pools.is_allocated)
        )

    def stop_conflict_detection(self) -> None:
        self.prefetch.stop()
        self.on_lan.stop()
        self.conflicts.close()

    def methods(self) -> dict[str, Method]:
        """By the path that the engine posts to, without its slash."""
        return all_methods(
            self.networks,
            self.endpoints,
            self.joining,
            self.removal,
            self.pool_binding,
            self.pools,
            self.addresses,
        )


@frozen
class Platform:
    """
    What the plugin needs of the machine besides kernel and disk. Tests put fakes in their place.

    :param run: runs a function in a thread that may block.
    :param run_deletion: the same in a thread of its own, for the removal of retired links.
    :param make_socket: makes the packet socket on a parent.
    :param processor_time: how long the calling thread has kept a processor busy, in seconds.
    """

    run: RunInThread
    run_deletion: RunInThread
    make_socket: SocketFactory
    sandboxes: Sandboxes
    engine: Engine
    processor_time: Callable[[], float] = time.thread_time
    fleet: FleetMember | None = None


def build(
    config: Config,
    kernel: Kernel,
    records: HostRecords,
    addresses: AddressStore,
    platform: Platform,
    *,
    clock: Any,
    random: Random,
    awake_seconds: Callable[[], float] = time.monotonic,
    wall_time: Callable[[], float] = time.time,
    nonce: Callable[[], str] = lambda: token_hex(4),
    grace_periods: GracePeriods = GRACE_PERIODS,
) -> Plugin:
    """
    Put the parts together.

    :param records: what this host did. :param addresses: who owns which address.
    :param clock: ``IReactorTime`` of a clock that is never set, and goes on while the machine is suspended.
    :param awake_seconds: a clock that stands still then: for how long the engine has not mentioned something.
    :param wall_time: the time of day, in seconds since 1970; only for what is stored.
    :param nonce: makes the part of a PoolID that tells it from all others.
    """
    engine = platform.engine
    registry = Registry(records)
    links = Links(
        kernel,
        platform.run,
        platform.run_deletion,
        records.link_group,
        registry.owns,
        clock,
        platform.processor_time,
    )
    parent_status = ParentStatus(clock.seconds)
    routes = ContainerRoutes(links, registry.host_links)
    host_links = HostLinks(links, records, registry.host_links, routes)
    sockets = PacketSockets(links, host_links, platform.make_socket, parent_status)
    open_pools, sticky_addresses = PoolRegistry(addresses), StickyAddresses(addresses)
    conflicts = Conflicts(
        sockets,
        links,
        AddressMonitors(sockets, _probe_timing(config.probe_timeout), clock, random),
        ConflictTable(records, clock, wall_time),
        open_pools,
        registry.user_of,
    )
    host_routes = HostRoutes(host_links, routes, conflicts)
    announcer = Announcer(sockets, clock)
    on_lan = LanAddresses(
        registry,
        conflicts,
        announcer,
        AddressPrediction(conflicts, registry, _longest_probe(config.probe_timeout), clock),
    )
    host_access = HostAccess(registry, links, host_routes)
    sandboxes = ContainerSandboxes(platform.sandboxes, platform.run, engine)
    endpoint_locks = KeyedLock()
    readdressing = Readdressing(registry, on_lan, host_access, endpoint_locks, sandboxes)
    leases = Leases(
        sockets,
        conflicts,
        open_pools,
        records,
        readdressing,
        Environment(clock, random, wall_time, config.dhcp_timeout),
        links.prepare,
    )

    macs = MacPolicy(records.instance, random, open_pools, sticky_addresses)
    pool_planner = PoolPlanner(config, leases, nonce)
    new_pools, claims = NewPools(clock), EndpointClaims(open_pools, awake_seconds, registry.names)
    returned = ReturnedAddresses(config.return_grace, addresses, clock, wall_time)
    last_addresses = LastAddresses(open_pools, claims, addresses, clock)
    pool_calls = EngineCalls(KeyedLock(), LastSeen(awake_seconds, open_pools.by_id.__contains__))
    owners = PreviousOwners(sticky_addresses, last_addresses, returned)
    fleet = FleetAddresses(_own_claims(platform.fleet, records, nonce, clock), open_pools, clock)
    selection = AddressSelection(
        config,
        open_pools,
        conflicts,
        owners,
        fleet,
        _longest_probe(config.probe_timeout),
        clock,
    )
    prefetch = PrefetchQueue(open_pools, selection, clock)
    allocations = Allocations(open_pools, pool_calls.locks, leases, selection, owners, claims, fleet)
    pool_binding = PoolBinding(
        open_pools, PoolMatch(open_pools, new_pools), pool_calls.locks, allocations, selection, claims
    )
    address_use = AddressUse(open_pools, claims, allocations, selection, owners, pool_binding)
    pool_requests = PoolRequests(
        pool_planner, open_pools, new_pools, allocations, selection, prefetch, pool_calls
    )

    parents = Parents(links, registry, sockets, parent_status, KeyedLock())
    macvlan_links = MacvlanLinks(registry, links, parents)
    container_names = ContainerNames(registry, leases, engine, clock)
    endpoint_addresses = EndpointAddresses(registry, links, on_lan, leases, address_use, container_names)
    endpoint_calls = EngineCalls(endpoint_locks, LastSeen(awake_seconds, registry.endpoints.__contains__))
    removal = EndpointRemoval(registry, macvlan_links, endpoint_addresses, host_access, endpoint_calls)
    stale_endpoints = StaleEndpoints(registry, links, macvlan_links, removal, endpoint_calls)
    purposes = AddressPurposes(open_pools, new_pools, allocations, selection, pool_planner)
    address_requests = AddressRequests(
        open_pools,
        purposes,
        allocations,
        selection,
        ContainerAddresses(
            allocations,
            selection,
            PreviousRuns(open_pools, sticky_addresses, allocations, claims, stale_endpoints),
            macs,
            leases,
            registry.names,
        ),
        pool_calls.last_seen,
    )
    endpoints = Endpoints(
        registry,
        EndpointPlanner(config, leases, host_routes, macs.mac_for, random),
        macvlan_links,
        endpoint_addresses,
        removal,
        endpoint_calls,
    )
    joining = Joining(registry, macvlan_links, endpoint_addresses, host_access, endpoint_calls)
    host_addresses = HostAddresses(config, registry, links, host_routes, pool_binding, conflicts)
    networks = Networks(
        registry,
        NetworkPlanner(config, links, parent_status, sandboxes),
        pool_binding,
        NetworkSetup(registry, parents, macvlan_links, host_addresses, removal),
        EngineCalls(KeyedLock(), LastSeen(awake_seconds, registry.networks.__contains__)),
    )

    orphans = Orphans(registry, links, open_pools, address_use, leases, awake_seconds)
    reconciler = Reconciler(
        EngineSnapshots(engine, registry),
        stale_endpoints,
        StaleNetworks(registry, networks, pool_requests, pool_binding, purposes),
        orphans,
        UnknownObjects(registry, config.plugin_name),
        grace_periods,
        clock,
    )
    reconcile_loop = ReconcileLoop(reconciler, config.reconcile_interval, grace_periods, clock)
    link_monitor = LinkMonitor(
        registry,
        parents,
        sockets,
        conflicts,
        HostLinkRepair(links, host_links, host_routes),
        prefetch,
        clock,
    )
    fleet_users = FleetUsers(
        open_pools, fleet, selection, prefetch, sticky_addresses, claims, registry.names, conflicts, links
    )
    return Plugin(
        config,
        registry,
        links,
        host_links,
        sockets,
        conflicts,
        host_routes,
        announcer,
        on_lan,
        leases,
        readdressing,
        parents,
        pool_requests,
        prefetch,
        address_requests,
        pool_binding,
        address_use,
        open_pools,
        StoredShares(open_pools, config.fleet_share),
        sticky_addresses,
        returned,
        last_addresses,
        networks,
        host_addresses,
        endpoint_addresses,
        endpoints,
        joining,
        removal,
        container_names,
        ContainerWatch(registry, engine, last_addresses, fleet_users, clock, config.docker_host),
        orphans,
        reconciler,
        reconcile_loop,
        link_monitor,
        fleet,
        _fleet_session(platform.fleet, fleet, fleet_users, random, clock),
    )


def _own_claims(
    member: FleetMember | None, records: HostRecords, nonce: Callable[[], str], clock: Any
) -> OwnClaims | None:
    if member is None:
        return None
    host = member.record.host
    return OwnClaims(host, member.claims, ClaimRows(records), Mirror(host), nonce, clock, member.takes_over)


def _fleet_session(
    member: FleetMember | None, fleet: FleetAddresses, users: FleetUsers, random: Random, clock: Any
) -> FleetSession | None:
    if member is None or fleet.own_claims is None:
        return None
    return FleetSession(member.record, member.claims, fleet.own_claims, users, random, clock)


def _probe_timing(timeout: ProbeTimeout) -> ProbeTiming:
    return RFC_5227 if timeout.seconds is None else bounded(timeout.seconds)


def _longest_probe(timeout: ProbeTimeout) -> float:
    """In seconds."""
    timing = _probe_timing(timeout)
    return max(timing.first + (timing.probes - 1) * timing.longest + timing.quiet, timing.whole)
