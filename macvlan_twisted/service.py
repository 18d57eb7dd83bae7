"""
The life of the plugin: its parts start in order, and stop in reverse.

To run the plugin beside other Twisted services, make a :class:`~macvlan_twisted.config.Config` and call
:func:`make_macvlan_service`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator, Sequence
from functools import partial
from inspect import isawaitable
from itertools import chain
from pathlib import Path
from random import SystemRandom
from typing import Any

from attrs import frozen
from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred, TimeoutError, ensureDeferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from ._version import VERSION_TEXT
from .autodetect import Detected, detect_defaults
from .clock import BootTimeClock
from .commands.stale_sandboxes import warn_of_stale_sandboxes
from .config import SHADOWED_PLUGIN_NAME, Config
from .engine.client import DisabledEngine, EngineClient
from .engine.default_network import ensure_network
from .errors import LinkError, MacvlanError, StartupError
from .fleet.member import fleet_member
from .lan.local_addresses import LocalAddresses
from .lan.packet_socket import PacketSocket
from .listener.file_lock import FileLock
from .listener.listener import make_listener
from .netlink.capabilities import missing_capabilities
from .netlink.events import LinkEvents
from .netlink.kernel import Kernel, LinkFacts
from .netlink.netns import NamespaceSandboxes
from .plugin import Engine, Platform, Plugin, build
from .protocol.routes import CALL_TIMEOUT, PluginApp
from .protocol.site import PluginSite
from .reconcile.link_monitor import LinkMonitor
from .reconcile.reconciler import GRACE_PERIODS, GracePeriods
from .recovery.link_evidence import refuse_unknown_links
from .recovery.open_state import open_state
from .server import Server
from .state.directory import LOCK_NAME, prepare_directory
from .state.group_commit import GroupCommit
from .state.sqlite import SqliteAddressStore, SqliteHostRecords, identity_of
from .systemd_notify import Notifier, SystemdNotifications, watch
from .worker_threads import StuckThread, WorkerThreads

_log = Logger(namespace="macvlan_twisted")

# Remedy of these errors: report this bug.

STOP_TIMEOUT = 60.0
"""
Seconds for what is under way at the end: the longest that should take so long is a lease from a server with many clients. A
service manager waits for 90 (``TimeoutStopSec=`` of systemd).
"""


def _nothing() -> None:
    pass


@frozen
class Part:
    """
    Something that has to be started, or stopped, or both.

    :param start: blocks until it runs; what it raises ends the start of the service.
    :param stop: is called after a failed *start*, too. May return an awaitable, which is cancelled after
        :data:`STOP_TIMEOUT` seconds.
    """

    name: str
    start: Callable[[], None] = _nothing
    stop: Callable[[], Awaitable[None] | None] = _nothing


class MacvlanService(Service):
    """
    The whole plugin as one Twisted service.

    :param parts: in the order in which they start. An iterator may make a part from those that run already.
    :param clock: ``IReactorTime``
    :param report_start: is called with the reason if the service cannot start, and with an empty text if it has started.
    """

    def __init__(
        self,
        parts: Callable[[], Iterable[Part]],
        clock: Any,
        report_start: Callable[[str], object] = lambda error: None,
    ) -> None:
        self.name = "macvlan-twisted"
        self._parts = parts
        self._clock = clock
        self._report_start = report_start
        self._started: list[Part] = []

    def startService(self) -> None:
        """
        Blocks, so that a failure is known at once.

        :raises StartupError: and nothing of ours is left behind, whatever is raised.
        """
        try:
            for part in self._parts():
                self._started.append(part)
                part.start()
        except BaseException as error:
            ensureDeferred(self._stop_parts())  # at once, since no call is under way
            if not isinstance(error, (MacvlanError, OSError)):
                raise
            self._report_start(_one_line(error))
            if isinstance(error, StartupError):
                raise
            raise StartupError(_one_line(error)) from error
        super().startService()
        self._report_start("")

    def stopService(self) -> Deferred[None]:
        """Stop accepting calls, finish and answer what has started, remove the socket."""
        super().stopService()
        return ensureDeferred(self._stop())

    async def _stop(self) -> None:
        await self._stop_parts()
        _log.info("stopped")

    async def _stop_parts(self) -> None:
        """Goes on after an error, and after a while."""
        deadline = self._clock.seconds() + STOP_TIMEOUT
        while self._started:
            part = self._started.pop()
            try:
                stopped = part.stop()
                if isawaitable(stopped):
                    left = max(0.0, deadline - self._clock.seconds())
                    await ensureDeferred(_finished(stopped)).addTimeout(left, self._clock)
            except (TimeoutError, StuckThread):
                # Cause: the kernel or the disk did not answer in time. PART is a component of the plugin, such as
                # state or leases. Remedy: check the disk and the kernel log; the plugin finishes the interrupted work at its
                # next start.
                _log.error(
                    "plugin: stopped without waiting for component {part}, which did not stop in time",
                    part=part.name,
                )
            except Exception:
                _log.failure("plugin: stopping {part} failed", part=part.name)


async def _finished(stopped: Awaitable[None]) -> None:
    await stopped


def make_macvlan_service(
    config: Config,
    *,
    reactor: Any = None,
    kernel: Kernel | None = None,
    clock: Any = None,
    grace_periods: GracePeriods = GRACE_PERIODS,
    notifier: Notifier | None = None,
    report_start: Callable[[str], object] = lambda error: None,
) -> MacvlanService:
    """
    The plugin as a Twisted service, for a ``.tac`` file or a ``MultiService``.

    Nothing is opened, locked or asked before its ``startService``, which raises
    :class:`~macvlan_twisted.errors.StartupError` if it cannot start.

    :param reactor: the reactor to run on; by default the installed one. Its clock and its timers are not used.
    :param kernel: the links to work on; by default those of this process's network namespace.
    :param clock: ``IReactorTime``; by default a :class:`~macvlan_twisted.clock.BootTimeClock`. Another one is for tests.
    :param grace_periods: how old what nobody has must be before it is removed. Shorter ones are for tests: they take what a slow
        engine is about to use.
    :param notifier: tells systemd that the service runs; by default nobody is told, since a program that does other things,
        too, decides itself when it is ready.
    :param report_start: is called once with the outcome of ``startService``: an empty text, or why the service cannot start.
    """
    if reactor is None:
        from twisted.internet import reactor
    first = []
    if clock is None:
        clock = BootTimeClock(reactor)
        first.append(Part("clock", clock.start, clock.stop))
    return MacvlanService(
        lambda: chain(first, _parts(config, reactor, kernel, clock, grace_periods, notifier)),
        clock,
        report_start,
    )


def _parts(
    config: Config,
    reactor: Any,
    kernel: Kernel | None,
    clock: Any,
    grace_periods: GracePeriods,
    notifier: Notifier | None,
) -> Iterator[Part]:
    """All that starts, in order; it stops in reverse."""
    if kernel is None:
        _refuse_without_capabilities()
    directory = Path(config.state_dir)
    lock = FileLock(directory / LOCK_NAME, f"state directory {directory}", "--state-dir")
    yield Part("state directory", lambda: _lock_directory(directory, lock), lock.release)
    listener = make_listener(reactor, config)
    yield Part("listener", listener.acquire, listener.release)

    is_real = kernel is None
    if kernel is None:
        from .netlink.rtnetlink import NetlinkKernel

        kernel = NetlinkKernel()
    detected = detect_defaults(config, kernel)
    _log_detected(detected)
    config = detected.config
    engine = EngineClient(reactor, clock, config.docker_host) if config.docker_host else DisabledEngine()
    threads = WorkerThreads(reactor, config.netlink_threads, "netlink", kernel.close)
    deletion_thread = WorkerThreads(reactor, 1, "netlink deletion", kernel.close)
    with open_state(config, kernel) as database:
        state_thread = WorkerThreads(reactor, 1, "state")
        writer = GroupCommit(database, state_thread)
        plugin = build(
            config,
            kernel,
            SqliteHostRecords(database, writer, identity_of(database)),
            SqliteAddressStore(database, writer),
            Platform(
                threads,
                deletion_thread,
                partial(PacketSocket, reactor, clock, elsewhere=threads),
                NamespaceSandboxes(),
                engine,
                fleet=fleet_member(config, identity_of(database).instance, reactor, SystemRandom()),
            ),
            clock=clock,
            random=SystemRandom(),
            grace_periods=grace_periods,
        )
        plugin.load()
        _reconcile(plugin, kernel.links())
        app = PluginApp(
            plugin.methods(),
            config.debug,
            clock.seconds,
            clock.callLater,
            CALL_TIMEOUT + config.dhcp_timeout,
        )
        server = Server(listener, PluginSite(app.resource(), clock), app, clock)
    kernel.close()  # from now on each thread has a socket of its own
    _log.info(
        "driver initialised: macvlan-twisted {version} as {plugin} (networks: {networks}, endpoints: {endpoints})",
        version=VERSION_TEXT,
        plugin=config.plugin_name,
        networks=len(plugin.registry.networks),
        endpoints=len(plugin.registry.endpoints),
    )

    yield Part("state", partial(_start_threads, writer.start), writer.close)
    yield Part("netlink deletion", partial(_start_threads, deletion_thread.start), deletion_thread.stop)
    yield Part("netlink threads", partial(_start_threads, threads.start), threads.stop)
    yield Part("link removal", stop=plugin.links.deletions_finished)
    yield Part("packet sockets", stop=plugin.sockets.close)
    yield Part("conflict detection", stop=plugin.stop_conflict_detection)
    yield Part("announcements", stop=plugin.announcer.close)
    yield Part("leases", stop=plugin.leases.close)
    # Before the server: at the end it stops first, so that calls are turned away while begun work is finished.
    yield Part("link monitor", plugin.link_monitor.start, plugin.link_monitor.stop)
    yield Part("reconciler", plugin.reconcile_loop.start, plugin.reconcile_loop.stop)
    if is_real:
        events = _LinkEvents(reactor, plugin.link_monitor, plugin.conflicts.local_addresses)
        yield Part("link events", events.start, events.stop)
    yield Part("server", server.start, server.stop)
    where = config.listen or config.socket_path
    _log.info("listening on {where}", where=where)
    yield from _background(plugin, threads if is_real else None, engine, clock)
    if notifier is not None and notifier.address:
        watched = watch(notifier, (threads, deletion_thread, state_thread), app)
        reports = SystemdNotifications(notifier, reactor, clock, watched, where, partial(_contents, plugin))
        yield Part("reports to systemd", reports.start, reports.stop)


def _contents(plugin: Plugin) -> str:
    return f"{len(plugin.registry.networks)} networks, {len(plugin.registry.endpoints)} endpoints"


def _background(plugin: Plugin, threads: WorkerThreads | None, engine: Engine, clock: Any) -> Iterator[Part]:
    config = plugin.config
    tasks: dict[str, Callable[[], Coroutine[Any, Any, None]]] = {
        "leases of an earlier life": partial(resume, plugin)
    }
    if plugin.fleet_session is not None:
        tasks["fleet"] = plugin.fleet_session.run
    if config.docker_host:
        tasks["containers"] = plugin.container_watch.run
    if threads is not None:
        tasks["stale sandboxes"] = partial(warn_of_stale_sandboxes, threads, clock)
    if config.create_network is not None:
        tasks["network"] = partial(ensure_network, config.create_network, config, engine, clock)
    for name, run in tasks.items():
        task = BackgroundTask(run)
        yield Part(name, task.start, task.stop)


async def resume(plugin: Plugin) -> None:
    """
    Go on with what an earlier life held, then learn the names of containers that have leases. Ends when it is cancelled.
    """
    await plugin.resume()
    if plugin.config.docker_host:
        await plugin.container_names.learn()


def _refuse_without_capabilities() -> None:
    missing = missing_capabilities()
    if missing:
        raise StartupError(
            f"cannot start without {' and '.join(missing)}: run as root, or with the systemd unit, which grants "
            "what is needed"
        )


class _LinkEvents:
    """The kernel's events of links, for the link monitor, and of the host's addresses, for conflict detection."""

    def __init__(self, reactor: Any, monitor: LinkMonitor, addresses: LocalAddresses) -> None:
        self._events = LinkEvents(reactor, addresses.changed)
        self._monitor = monitor
        self._addresses = addresses

    def start(self) -> None:
        try:
            self._events.open()
            self._events.listen(self._monitor.handle_event)
            self._addresses.follow(self._events.is_reporting)
        except LinkError as failure:
            # Cause: the kernel refused a netlink socket for link events. Remedy: see the reason in the line
            # and restart the plugin.
            _log.warn(
                "link monitoring: unavailable, changes are noticed with delay ({reason})", reason=str(failure)
            )

    def stop(self) -> None:
        self._events.close()


def _lock_directory(directory: Path, lock: FileLock) -> None:
    prepare_directory(directory)
    lock.acquire()


def _start_threads(start: Callable[[], None]) -> None:
    try:
        start()
    except RuntimeError as error:  # Python's, if the system has no thread left
        raise StartupError(
            f"the limit on processes and threads has been reached ({error}): raise it (ulimit -u, TasksMax= of a "
            "systemd unit), or lower --netlink-threads"
        ) from error


def _log_detected(detected: Detected) -> None:
    config = detected.config
    for reason in detected.reasons:
        _log.info("{reason}", reason=reason)
    for hint in detected.hints:
        # Cause: containers may not be reachable, or networks be internal. Remedy: named in the line.
        _log.warn("{hint}", hint=hint)
    if config.plugin_name == SHADOWED_PLUGIN_NAME and config.listen is None:
        # Cause: the plugin was started with ``--plugin-name macvlan``. Remedy: choose another --plugin-name.
        _log.warn(
            "plugin name macvlan: Docker's built-in driver of that name takes precedence, so networks created with "
            "-d macvlan do not use this plugin; choose another --plugin-name"
        )


def _reconcile(plugin: Plugin, present: Sequence[LinkFacts]) -> None:
    """:param present: all links in the host's namespace."""
    refuse_unknown_links(plugin.registry.instance, present, plugin.registry)
    _finish_now(plugin.reconcile(present))


def _finish_now(work: Coroutine[Any, Any, None]) -> None:
    """Before the threads run, everything happens at once."""
    failures: list[Failure] = []
    done = ensureDeferred(work).addErrback(failures.append)
    if failures:
        failures[0].raiseException()
    if not done.called:
        raise StartupError("bug: startup did not finish synchronously")


class BackgroundTask:
    """
    Runs a coroutine while the service runs.

    :param run: ends when it is cancelled.
    """

    def __init__(self, run: Callable[[], Coroutine[Any, Any, None]]) -> None:
        self._run = run
        self._running: Deferred[None] | None = None

    def start(self) -> None:
        self._running = ensureDeferred(self._run())
        self._running.addErrback(_log_unless_cancelled)

    def stop(self) -> None:
        if self._running is not None:
            self._running.cancel()


def _log_unless_cancelled(failure: Failure) -> None:
    if not failure.check(CancelledError):
        _log.failure("background task: failed", failure=failure)


def _one_line(error: BaseException) -> str:
    if isinstance(error, OSError):
        # Remedy: see the reason in the message.
        return f"cannot start: {error.filename or ''}: {error.strerror}".replace(": : ", ": ")
    return str(error)
