"""
The command line ``twistd macvlan``, and the only place where the parts are wired together.

To run the plugin beside other Twisted services, make a :class:`~macvlan_twisted.config.Config` and call
:func:`make_macvlan_service`.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from functools import partial
from random import SystemRandom
from secrets import token_hex
from typing import Any, cast

from twisted.internet.defer import Deferred, DeferredList, ensureDeferred
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python import usage
from twisted.python.failure import Failure

from . import logs
from ._version import VERSION_TEXT
from .autodetect import detect_defaults
from .commands.stale_sandboxes import tell_of_left
from .config import SHADOWED_PLUGIN_NAME, Config
from .dhcp.leases import Leases
from .driver.endpoint_addresses import EndpointAddresses
from .driver.endpoint_plan import EndpointPlanner
from .driver.endpoints import Endpoints
from .driver.host_access import HostAccess
from .driver.link_ownership import ownership
from .driver.macvlan_links import MacvlanLinks
from .driver.networks import Networks
from .driver.parents import Parents
from .driver.readdress import Readdressing
from .driver.registry import Registry
from .driver.removal import EndpointRemoval
from .engine.client import DisabledEngine, EngineClient
from .engine.default_network import ensure_network
from .errors import StartupError
from .from_threads import FromThreads
from .given_settings import settings_from
from .ipam.calls import AddressManagement
from .ipam.dhcp_pools import DhcpPools
from .ipam.mac_policy import MacPolicy
from .lan.address_probe import RFC_5227, ProbeTiming, bounded
from .lan.announcer import Announcer
from .lan.conflicts import Conflicts
from .lan.host_link import HostLinks
from .lan.host_routes import HostRoutes
from .lan.packet_socket import PacketSocket
from .lan.packet_sockets import PacketSockets
from .netlink.events import LinkEvents
from .netlink.kernel import Kernel
from .netlink.links import Links
from .netlink.netns import NamespaceSandboxes
from .netlink.threads import KernelThreads
from .option_values import ConflictWait
from .parts import WiredParts, log_unless_cancelled
from .protocol.calls import Calls
from .protocol.routes import all_methods
from .protocol.site import PluginSite
from .reconcile.container_names import ContainerNames
from .reconcile.link_monitor import LinkMonitor
from .reconcile.orphans import Orphans
from .reconcile.reconciler import GRACE_PERIODS, GracePeriods, Reconciler
from .reconcile.stale_endpoints import StaleEndpoints
from .reconcile.stale_networks import StaleNetworks
from .reconcile.startup import leases_in_use, reconcile
from .recovery.link_evidence import refuse_older
from .recovery.open_state import open_state
from .service import MacvlanService
from .service_options import OPTIONS, Option
from .state.database import Database
from .state.group_commit import GroupCommit
from .state.sqlite import SqliteAddressStore, SqliteHostRecords
from .whole_program import exit_with_zero_on_signals, spare_garbage_collection

_log = Logger(namespace="macvlan_twisted")


class Options(usage.Options):
    """The options of ``twistd macvlan``, made from :data:`macvlan_twisted.service_options.OPTIONS`."""

    longdesc = "Docker network and IPAM plugin: puts containers straight onto the LAN with macvlan."

    def __init__(self) -> None:
        self.given: dict[str, list[str]] = {}
        super().__init__()
        self.config = Config()

    def opt_version(self) -> None:
        """Show the version and exit."""
        print(f"macvlan-twisted {VERSION_TEXT}")
        sys.exit(0)

    def parseOptions(self, options: Any = None) -> None:
        """Take ``-mode=bridge``, as Go's flags are written, for ``--mode=bridge``."""
        arguments = sys.argv[1:] if options is None else list(options)
        names = {option.name for option in OPTIONS}
        super().parseOptions(
            [
                "-" + each if each.startswith("-") and each[1:].split("=", 1)[0] in names else each
                for each in arguments
            ]
        )

    def postOptions(self) -> None:
        if not sys.platform.startswith("linux"):
            raise usage.UsageError(
                f"macvlan is a feature of Linux, and this is {sys.platform}: run it on Linux"
            )
        try:
            self.config = settings_from(self.given, os.environ)
        except ValueError as error:
            raise usage.UsageError(str(error)) from None
        if self.parent is not None:
            logs.choose(self.parent, json=self.config.log_format == "json", debug=self.config.debug)


def _method_for(option: Option) -> Callable[..., None]:
    """``usage.Options`` finds an option by a method ``opt_...`` of the class, and shows its docstring."""

    def take(self: Options, text: str) -> None:
        self.given.setdefault(option.name, []).append(text)

    def take_flag(self: Options) -> None:
        self.given.setdefault(option.name, []).append("1")

    method = take_flag if option.is_flag else take
    method.__doc__ = f"{option.help} [default: {option.default_text}]" if option.default_text else option.help
    return method


for _option in OPTIONS:
    _method = _method_for(_option)
    setattr(Options, "opt_" + _option.name.replace("-", "_"), _method)
    if _option.short is not None:
        setattr(Options, "opt_" + _option.short, _method)


def makeService(options: Options) -> MacvlanService:
    """What the ``twistd`` plugin calls."""
    from twisted.internet import reactor

    service = make_macvlan_service(options.config, reactor=reactor)
    cast(Any, reactor).callWhenRunning(exit_with_zero_on_signals, reactor)
    cast(Any, reactor).callWhenRunning(spare_garbage_collection)
    return service


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
    in_reactor = FromThreads(reactor.callFromThread)
    writer = GroupCommit(database, in_reactor)
    records = SqliteHostRecords(database, writer)
    store = SqliteAddressStore(database, writer)

    threads = KernelThreads(in_reactor, config.netlink_threads)
    registry = Registry(records)
    refuse_older(records.instance, kernel.links(), registry)
    links = Links(kernel, threads, records.link_group, ownership(records, registry))
    host_links = HostLinks(links, records, registry.host_links)
    wires = PacketSockets(links, host_links, partial(PacketSocket, reactor, elsewhere=threads))
    conflicts = Conflicts(
        wires, links, records, _probe_timing(config.conflict_wait), reactor, SystemRandom(), time.time
    )
    host_routes = HostRoutes(links, host_links, conflicts)
    leases = Leases(wires, conflicts, records, reactor, SystemRandom(), time.time, config.dhcp_timeout)
    macs = MacPolicy(records.instance, SystemRandom())
    management = AddressManagement(
        config, store, conflicts, DhcpPools(leases, macs), macs, lambda: token_hex(4), time.monotonic
    )
    parents = Parents(links, records, registry, wires, time.monotonic)
    announcements = Announcer(wires, reactor)
    endpoint_addresses = EndpointAddresses(registry, links, conflicts, announcements, leases)
    host_access = HostAccess(config, registry, links, host_routes, management.networks, conflicts)
    plans = EndpointPlanner(config, leases, host_routes, management.addresses.mac_for, SystemRandom())
    removal = EndpointRemoval(registry, records, links, endpoint_addresses, host_access, time.monotonic)
    endpoints = Endpoints(
        registry,
        records,
        links,
        parents,
        plans,
        endpoint_addresses,
        host_access,
        MacvlanLinks(registry, links, parents, records.instance),
        removal,
    )
    engine = EngineClient(reactor, config.docker_host) if config.docker_host else DisabledEngine()
    moves = Readdressing(
        registry,
        records,
        endpoint_addresses,
        host_access,
        leases,
        removal.locks,
        NamespaceSandboxes(),
        threads,
        engine,
    )
    leases.when_moved = moves.moved
    networks = Networks(
        config,
        registry,
        records,
        links,
        parents,
        removal,
        wires,
        endpoint_addresses,
        moves,
        host_access,
        time.monotonic,
    )
    _finish_now(ensureDeferred(reconcile(registry, parents, networks, records, links, wires, host_routes)))
    orphans = Orphans(registry, links, management.addresses, management.owners, leases, time.monotonic)
    orphans.begin()
    endpoints.when_made = orphans.note_came
    removal.when_gone = orphans.note_left
    kernel.close()  # from now on the threads ask, each with a socket of its own

    calls = Calls(all_methods(networks, endpoints, removal, management), config.debug)
    _log.info(
        "driver initialised: macvlan-twisted {version} as {name}, {networks} networks and {endpoints} endpoints in state",
        version=VERSION_TEXT,
        name=config.plugin_name,
        networks=len(registry.networks),
        endpoints=len(registry.endpoints),
    )
    network = config.network
    wait = partial(deferLater, reactor)
    reconciler = Reconciler(
        registry,
        StaleEndpoints(registry, links, removal, records.instance),
        StaleNetworks(registry, networks, management.pools, management.owners),
        orphans,
        engine,
        config.plugin_name,
        config.reconcile_every,
        ages,
        wait,
        time.monotonic,
    )

    async def in_background(stopping: Callable[[], bool]) -> None:
        names = ContainerNames(registry, endpoint_addresses, leases, engine, wait, stopping)
        management.pools.prepare()
        await moves.begin(config.dhcp_readdress)
        await leases.resume(leases_in_use(leases.known(), registry, management.addresses.is_endpoints))
        work = [reconciler.make(stopping)]
        if config.docker_host:
            work.append(names.learn())
        if hear_of_links is not None:
            work.append(tell_of_left(threads, wait, stopping))
        if network is not None:
            work.append(ensure_network(network, config, engine, wait, stopping))
        await DeferredList([ensureDeferred(each).addErrback(log_unless_cancelled) for each in work])

    return WiredParts(
        PluginSite(calls.resource(), calls.by_path(), reactor),
        calls,
        links,
        threads,
        writer,
        wires,
        conflicts,
        announcements,
        leases,
        LinkMonitor(registry, links, parents, wires, host_links, host_routes, conflicts, reactor),
        reconciler,
        hear_of_links,
        in_background,
    )


def _probe_timing(wait: ConflictWait) -> ProbeTiming:
    return RFC_5227 if wait.seconds is None else bounded(wait.seconds)


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
