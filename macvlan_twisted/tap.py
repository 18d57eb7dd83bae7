"""
The command line ``twistd macvlan``, and the only place where the parts are wired together.

To run the plugin beside other Twisted services, make a :class:`~macvlan_twisted.settings.Settings` and call
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

from . import log_lines
from ._version import VERSION_TEXT
from .commands.sandboxes import tell_of_left
from .driver.container_names import ContainerNames
from .driver.departed import Departed
from .driver.dropped import Drops
from .driver.endpoints import Endpoints
from .driver.host_ways import HostWays
from .driver.known import Known
from .driver.leftovers import Leftovers
from .driver.lookout import Lookout
from .driver.moves import Moves
from .driver.networks import Networks
from .driver.ownership import ownership
from .driver.parents import Parents
from .driver.plans import Plans
from .driver.ports import Ports
from .driver.presence import Presence
from .driver.reconciliation import leases_in_use, reconcile
from .driver.removal import Removal
from .driver.rounds import AGES, Ages, Rounds
from .engine.api import NoEngine, SocketEngine
from .engine.default_network import ensure_network
from .errors import CannotStart
from .from_threads import FromThreads
from .given_settings import settings_from
from .host_defaults import choose_defaults
from .ipam.calls import AddressManagement
from .ipam.chosen_macs import ChosenMacs
from .ipam.leasing import Leasing
from .lan.announcements import Announcements
from .lan.conflicts import Conflicts
from .lan.host_access import HostAccess
from .lan.host_links import HostLinks
from .lan.leases import Leases
from .lan.probing import RFC_5227, ProbeTiming, bounded
from .lan.tap import Tap
from .lan.wires import Wires
from .links.events import LinkEvents
from .links.interface import Kernel
from .links.pool import Links
from .links.sandbox import NamespaceSandboxes
from .links.threads import KernelThreads
from .opened_state import opened_state
from .option_values import ConflictWait
from .parts import WiredParts, log_unless_cancelled
from .protocol.calls import Calls
from .protocol.methods import all_methods
from .protocol.site import PluginSite
from .recovery.traces import refuse_older
from .service import MacvlanService
from .service_options import OPTIONS, Option
from .settings import SHADOWED_PLUGIN_NAME, Settings
from .state.ledger import Ledger
from .state.sqlite import SqliteAddressBook, SqliteHostRecords
from .state.writer import Writer
from .whole_program import exit_with_zero_on_signals, spare_garbage_collection

_log = Logger(namespace="macvlan_twisted")


class Options(usage.Options):
    """The options of ``twistd macvlan``, made from :data:`macvlan_twisted.service_options.OPTIONS`."""

    longdesc = "Docker network and IPAM plugin: puts containers straight onto the LAN with macvlan."

    def __init__(self) -> None:
        self.given: dict[str, list[str]] = {}
        super().__init__()
        self.settings = Settings()

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
            self.settings = settings_from(self.given, os.environ)
        except ValueError as error:
            raise usage.UsageError(str(error)) from None
        if self.parent is not None:
            log_lines.choose(self.parent, json=self.settings.log_format == "json", debug=self.settings.debug)


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

    service = make_macvlan_service(options.settings, reactor=reactor)
    cast(Any, reactor).callWhenRunning(exit_with_zero_on_signals, reactor)
    cast(Any, reactor).callWhenRunning(spare_garbage_collection)
    return service


def make_macvlan_service(
    settings: Settings, *, reactor: Any = None, kernel: Kernel | None = None, ages: Ages = AGES
) -> MacvlanService:
    """
    The plugin as a Twisted service, for a ``.tac`` file or a ``MultiService``.

    Nothing is opened, locked or asked before its ``startService``, which raises
    :class:`~macvlan_twisted.errors.CannotStart` if it cannot start.

    :param reactor: the reactor to run on; by default the installed one.
    :param kernel: the links to work on; by default those of this process's network namespace.
    :param ages: how old what nobody has must be before it is removed. Shorter ones are for tests: they take what a slow
        engine is about to use.
    """
    if reactor is None:
        from twisted.internet import reactor
    return MacvlanService(reactor, settings, lambda: _open_parts(settings, reactor, kernel, ages))


def _open_parts(settings: Settings, reactor: Any, kernel: Kernel | None, ages: Ages) -> WiredParts:
    """Open the state, make it agree with the kernel, and wire the parts. Blocks."""
    hear_of_links = None
    if kernel is None:
        from .links.kernel import NetlinkKernel

        kernel = NetlinkKernel()
        hear_of_links = partial(LinkEvents, reactor)
    chosen = choose_defaults(settings, kernel)
    settings = chosen.settings
    _say_what_was_chosen(settings, chosen.reasons, chosen.hints)
    with opened_state(settings, kernel) as ledger:
        return _wire(settings, reactor, kernel, ages, hear_of_links, ledger)


def _wire(
    settings: Settings,
    reactor: Any,
    kernel: Kernel,
    ages: Ages,
    hear_of_links: Callable[[], LinkEvents] | None,
    ledger: Ledger,
) -> WiredParts:
    in_reactor = FromThreads(reactor.callFromThread)
    writer = Writer(ledger, in_reactor)
    records = SqliteHostRecords(ledger, writer)
    book = SqliteAddressBook(ledger, writer)

    threads = KernelThreads(in_reactor, settings.netlink_threads)
    known = Known(records)
    refuse_older(records.instance, kernel.links(), known)
    links = Links(kernel, threads, records.link_group, ownership(records, known))
    host_links = HostLinks(links, records, known.host_links)
    wires = Wires(links, host_links, partial(Tap, reactor, elsewhere=threads))
    conflicts = Conflicts(
        wires, links, records, _probe_timing(settings.conflict_wait), reactor, SystemRandom(), time.time
    )
    host_access = HostAccess(links, host_links, conflicts)
    leases = Leases(wires, conflicts, records, reactor, SystemRandom(), time.time, settings.dhcp_timeout)
    macs = ChosenMacs(records.instance, SystemRandom())
    management = AddressManagement(
        settings, book, conflicts, Leasing(leases, macs), macs, lambda: token_hex(4), time.monotonic
    )
    parents = Parents(links, records, known, wires, time.monotonic)
    announcements = Announcements(wires, reactor)
    presence = Presence(known, links, conflicts, announcements, leases)
    host_ways = HostWays(settings, known, links, host_access, management.networks, conflicts)
    plans = Plans(settings, leases, host_access, management.addresses.mac_for, SystemRandom())
    removal = Removal(known, records, links, presence, host_ways, time.monotonic)
    endpoints = Endpoints(
        known,
        records,
        links,
        parents,
        plans,
        presence,
        host_ways,
        Ports(known, links, parents, records.instance),
        removal,
    )
    engine = SocketEngine(reactor, settings.docker_host) if settings.docker_host else NoEngine()
    moves = Moves(
        known, records, presence, host_ways, leases, removal.turns, NamespaceSandboxes(), threads, engine
    )
    leases.when_moved = moves.moved
    networks = Networks(
        settings,
        known,
        records,
        links,
        parents,
        removal,
        wires,
        presence,
        moves,
        host_ways,
        time.monotonic,
    )
    _finish_now(ensureDeferred(reconcile(known, parents, networks, records, links, wires, host_access)))
    leftovers = Leftovers(known, links, management.addresses, management.owners, leases, time.monotonic)
    leftovers.begin()
    endpoints.when_made = leftovers.note_came
    removal.when_gone = leftovers.note_left
    kernel.close()  # from now on the threads ask, each with a socket of its own

    calls = Calls(all_methods(networks, endpoints, removal, management), settings.debug)
    _log.info(
        "driver initialised: macvlan-twisted {version} as {name}, {networks} networks and {endpoints} endpoints in state",
        version=VERSION_TEXT,
        name=settings.plugin_name,
        networks=len(known.networks),
        endpoints=len(known.endpoints),
    )
    network = settings.network
    wait = partial(deferLater, reactor)
    rounds = Rounds(
        known,
        Departed(known, links, removal, records.instance),
        Drops(known, networks, management.pools, management.owners),
        leftovers,
        engine,
        settings.plugin_name,
        settings.reconcile_every,
        ages,
        wait,
        time.monotonic,
    )

    async def in_background(stopping: Callable[[], bool]) -> None:
        names = ContainerNames(known, presence, leases, engine, wait, stopping)
        management.pools.prepare()
        await moves.begin(settings.dhcp_readdress)
        await leases.resume(leases_in_use(leases.known(), known, management.addresses.is_endpoints))
        work = [rounds.make(stopping)]
        if settings.docker_host:
            work.append(names.learn())
        if hear_of_links is not None:
            work.append(tell_of_left(threads, wait, stopping))
        if network is not None:
            work.append(ensure_network(network, settings, engine, wait, stopping))
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
        Lookout(known, links, parents, wires, host_links, host_access, conflicts, reactor),
        rounds,
        hear_of_links,
        in_background,
    )


def _probe_timing(wait: ConflictWait) -> ProbeTiming:
    return RFC_5227 if wait.seconds is None else bounded(wait.seconds)


def _say_what_was_chosen(settings: Settings, reasons: Any, hints: Any) -> None:
    for reason in reasons:
        _log.info("{reason}", reason=reason)
    for hint in hints:
        _log.warn("{hint}", hint=hint)
    if settings.plugin_name == SHADOWED_PLUGIN_NAME and settings.listen is None:
        _log.warn(
            "Docker Engine has a builtin driver called macvlan, which shadows a plugin of that name: networks "
            "created with -d macvlan will not come here; choose another --plugin-name"
        )


def _finish_now(deferred: Deferred[None]) -> None:
    """Before the threads are started everything runs at once."""
    outcome: list[object] = []
    deferred.addBoth(outcome.append)
    if not outcome:
        raise CannotStart("bug: the start waits for something")
    if isinstance(outcome[0], Failure):
        outcome[0].raiseException()
