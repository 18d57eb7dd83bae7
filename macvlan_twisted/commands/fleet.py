"""
``macvlan-twisted fleet``: look at a fleet of hosts, and decide what no host may decide by itself.

The commands talk to etcd as the service does. Those that change the state of this host need the service to be stopped.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from functools import partial
from random import Random, SystemRandom
from secrets import token_hex
from typing import Any, cast

from attrs import frozen
from twisted.internet import task
from twisted.internet.defer import ensureDeferred
from twisted.logger import ILogObserver, LogEvent, LogLevel, formatEvent, globalLogBeginner
from twisted.python.failure import Failure

from ..config import Config
from ..errors import RequestRefused
from ..fleet.interfaces import FleetClaims
from ..fleet.member import FleetMember, fleet_member
from ..lan.packet_socket import PacketSocket
from ..lan.packet_sockets import SocketFactory
from ..netlink.kernel import Kernel
from . import fleet_reports as reports
from .fleet_forget import Forgetting, forget
from .fleet_membership import Membership
from .fleet_probe import LanProber, Parents, default_parent
from .stopped_state import stopped_state
from .terminal import printable


@frozen
class Environment:
    """
    What a command needs besides its options. Tests put fakes in their place.

    :param member: this host as a member of the fleet; its argument is the random name of the state directory.
    :param make_socket: makes the packet socket on a parent.
    :param is_agreed: asks whether to go on. :param echo: prints a line. :param clock: ``IReactorTime``
    """

    member: Callable[[str], FleetMember | None]
    kernel: Kernel
    make_socket: SocketFactory
    is_agreed: Callable[[], bool]
    echo: Callable[[str], None]
    clock: Any
    random: Random


def run(parsed: argparse.Namespace, config: Config, kernel: Kernel, is_agreed: Callable[[], bool]) -> int:
    """
    Run a command on the reactor.

    :return: the exit status.
    :raises MacvlanError: it was refused, or failed.
    """
    random = SystemRandom()

    def begin(reactor: Any) -> Coroutine[Any, Any, int]:
        environment = Environment(
            lambda instance: fleet_member(config, instance, reactor, random),
            kernel,
            partial(PacketSocket, reactor, reactor),
            lambda: _interruptible(is_agreed),
            print,
            reactor,
            random,
        )
        return execute(parsed, config, environment)

    globalLogBeginner.beginLoggingTo([cast(ILogObserver, _print_warning)], redirectStandardIO=False)
    return _on_reactor(begin)


def _interruptible(ask: Callable[[], bool]) -> bool:
    """Ask while Ctrl-C interrupts as usual: the reactor would note it, and stop after the answer."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        return ask()
    finally:
        signal.signal(signal.SIGINT, before)


def _print_warning(event: LogEvent) -> None:
    if event["log_level"] >= LogLevel.warn:
        print(f"macvlan-twisted: {formatEvent(event)}", file=sys.stderr)


def _on_reactor(begin: Callable[[Any], Coroutine[Any, Any, int]]) -> int:
    """
    Run the reactor until what *begin* returns is finished.

    :raises KeyboardInterrupt: the reactor was interrupted.
    """
    outcomes: list[int | Failure] = []
    with suppress(SystemExit):  # which ends react()
        task.react(lambda reactor: ensureDeferred(begin(reactor)).addBoth(outcomes.append))
    if not outcomes:
        raise KeyboardInterrupt
    outcome = outcomes[0]
    if isinstance(outcome, Failure):
        outcome.raiseException()
    assert isinstance(outcome, int)
    return outcome


async def execute(parsed: argparse.Namespace, config: Config, environment: Environment) -> int:
    """Run the command that *parsed* names. Returns and raises as :func:`run` does."""
    echo = printable(environment.echo)
    name = parsed.command.removeprefix("fleet ")
    if name in ("leave", "import"):
        with stopped_state(config, environment.kernel) as state:
            member = _member(environment, state.instance)
            membership = Membership(state, member, lambda: token_hex(4), environment.clock, echo)
            try:
                if name == "leave":
                    return await membership.leave(force=parsed.force, dry_run=parsed.dry_run)
                return await membership.join(dry_run=parsed.dry_run)
            finally:
                await member.claims.close()
    member = _member(environment, "")
    try:
        if name == "forget":
            return await forget(_forgetting(parsed, config, environment), member.claims, echo)
        for line in await _report(name, parsed, config, member.claims, member.record.host.name):
            echo(line)
        return 0
    finally:
        await member.claims.close()


def _member(environment: Environment, instance: str) -> FleetMember:
    member = environment.member(instance)
    if member is None:
        raise RequestRefused("it is unknown which fleet is meant: add --fleet, as the plugin has it")
    return member


async def _report(
    name: str, parsed: argparse.Namespace, config: Config, claims: FleetClaims, own_name: str
) -> Sequence[str]:
    snapshot = await claims.snapshot()
    document: Any
    match name:
        case "status":
            document = reports.status_document(snapshot, own_name)
            lines = reports.status_lines(document, str(config.fleet), own_name)
        case "hosts":
            document = reports.host_documents(snapshot)
            lines = reports.host_lines(document)
        case "addresses":
            document = reports.address_documents(snapshot, parsed.lan, parsed.host)
            lines = reports.address_lines(document)
        case _:
            return _json(reports.export_document(snapshot))
    return _json(document) if parsed.json else list(lines)


def _json(document: Any) -> list[str]:
    return json.dumps(document, indent=2).splitlines()


def _forgetting(parsed: argparse.Namespace, config: Config, environment: Environment) -> Forgetting:
    prober = None
    if not parsed.no_probe:
        prober = LanProber(
            Parents.parse(parsed.parent),
            default_parent(config.host_interface, environment.kernel),
            environment.kernel,
            environment.make_socket,
            environment.clock,
            environment.random,
        )
    is_agreed = (lambda: True) if parsed.yes else environment.is_agreed
    return Forgetting(parsed.host, prober, is_agreed, parsed.former, parsed.dry_run)
