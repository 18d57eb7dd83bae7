"""From DISCOVER to a lease that may be used: one attempt. And DISCOVER alone, to learn about the LAN."""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import IPv4Address

from twisted.internet.defer import CancelledError
from twisted.logger import Logger

from ..errors import RequestRefused
from ..lan.interfaces import LanSocket
from .binding import Binding, Client, Granted, LanParameters, State, binding_from
from .messages import MessageType, ServerMessage
from .release import release
from .store import LeaseStore
from .transaction import Context, Deadline, Environment, Match, Transaction, exponential_backoff

_log = Logger(namespace="macvlan_twisted.dhcp")

_LONGEST_REQUEST = 6.0
"""Seconds to wait for a silent server's DHCPACK before other servers are asked."""
_SHORTEST_REQUEST = 2.0
"""An offer that came late is still requested."""


class AcquireFailed(Exception):
    """
    An attempt gave no lease; the message says why.

    :ivar hopeless: whether another attempt right now would fail, too.
    :ivar answered: whether the server has just answered us.
    """

    def __init__(self, message: str, *, hopeless: bool = False, answered: bool = False) -> None:
        super().__init__(message)
        self.hopeless = hopeless
        self.answered = answered


async def acquire(
    context: Context,
    client: Client,
    store: LeaseStore,
    enter: Callable[[State, Binding | None], None],
    *,
    wanted: IPv4Address | None,
    deadline: Deadline,
    held: IPv4Address | None = None,
    elsewhere: bool = False,
    first_wait: float = 1.0,
) -> Granted:
    """
    Make one attempt.

    :param enter: is called with each state, and with the binding that is requested in it.
    :param wanted: the address to ask for.
    :param held: the address of a lost lease that the container goes on using: it is saved already, and the container
        itself defends it on the LAN.
    :param elsewhere: whether another address than *wanted* will do if no server offers that.
    :param first_wait: seconds before DHCPDISCOVER is sent again, if *deadline* allows.
    :return: the lease, which is not saved yet.
    :raises AcquireFailed: there is none, and no server believes that we have one.
    """
    with Transaction(context, client) as transaction:
        enter(State.SELECTING, None)
        offer = await _select(context, transaction, wanted, deadline, first_wait)
        if offer is None:
            raise AcquireFailed(_nobody_offered(context, transaction, client.mac), hopeless=True)
        offered = binding_from(client, offer, context.wall_time_of(context.now()))
        if wanted not in (None, offered.address) and not elsewhere:
            raise AcquireFailed(
                f"DHCP server {offered.server_id} on {context.parent} offers {offered.address} "
                f"instead of {wanted} to {client.mac}: leave --ip out, use another address, or reserve "
                f"{wanted} for {client.mac} on the server",
                hopeless=True,
            )
        is_new = offered.address != held
        if is_new:
            await store.save_offer(offered)
        enter(State.REQUESTING, offered)
        granted = await _request(context, transaction, client, offered, deadline)
    if is_new:
        await _check(context, client, store, granted.binding, final=wanted == granted.binding.address)
    return granted


async def discover(socket: LanSocket, client: Client, environment: Environment) -> LanParameters:
    """
    Learn about the LAN from the first DHCPOFFER, without taking a lease.

    :raises RequestRefused: no server answered in time.
    """
    context = Context(socket, environment)
    with Transaction(context, client) as transaction:
        deadline = Deadline.until(context.now() + environment.timeout)
        offer = await _select(context, transaction, None, deadline)
    if offer is None:
        raise RequestRefused(_nobody_offered(context, transaction, client.mac))
    assert offer.your_address is not None
    found = LanParameters(
        offer.server_id, offer.server_mac, offer.your_address, offer.prefix_length, offer.router
    )
    _log.info(
        "DHCP {parent}: server {server} ({mac}) offers {offered}/{prefix_length}, router {router}",
        parent=socket.parent,
        server=found.server_id,
        mac=found.server_mac,
        offered=found.offered,
        prefix_length=found.prefix_length,
        router=found.router,
    )
    return found


async def _select(
    context: Context,
    transaction: Transaction,
    wanted: IPv4Address | None,
    deadline: Deadline,
    first_wait: float = 1.0,
) -> ServerMessage | None:
    def match(answer: ServerMessage) -> Match:
        if answer.kind is not MessageType.OFFER:
            return Match.NONE
        return Match.FULL if wanted in (None, answer.your_address) else Match.FALLBACK

    def transmit() -> None:
        transaction.transmit(MessageType.DISCOVER, requested=wanted)

    waits = exponential_backoff(context.random, first_wait)
    return await transaction.exchange(transmit, match, waits, deadline)


async def _request(
    context: Context, transaction: Transaction, client: Client, offered: Binding, deadline: Deadline
) -> Granted:
    def match(answer: ServerMessage) -> Match:
        if answer.server_id != offered.server_id:
            return Match.NONE  # of a server that we did not choose
        is_granted = answer.kind is MessageType.ACK and answer.your_address == offered.address
        return Match.FULL if is_granted or answer.kind is MessageType.NAK else Match.NONE

    def transmit() -> None:
        transaction.transmit(MessageType.REQUEST, requested=offered.address, server_id=offered.server_id)

    now = context.now()
    until = max(min(deadline.deadline, now + _LONGEST_REQUEST), now + _SHORTEST_REQUEST)
    waiting = Deadline(until, max(until, deadline.latest), min(deadline.quiet, _LONGEST_REQUEST))
    answer = await transaction.exchange(transmit, match, exponential_backoff(context.random), waiting)
    server = f"DHCP server {offered.server_id} on {context.parent}"
    if answer is None:
        release(context.socket, offered, context.random)  # its DHCPACK may have been lost
        raise AcquireFailed(
            f"{server} offered {offered.address} to {client.mac}, but did not confirm it: check the server"
        )
    if answer.kind is MessageType.NAK:
        # Remedy: check the server; it may have given the address to another client meanwhile.
        raise AcquireFailed(
            f"{server} offered {offered.address} to {client.mac}, but then refused it"
            + (f": {answer.message!r}" if answer.message else ""),
            answered=True,
        )
    asked_at = transaction.sent_at
    return Granted(binding_from(client, answer, context.wall_time_of(asked_at)), asked_at)


async def _check(
    context: Context, client: Client, store: LeaseStore, granted: Binding, *, final: bool
) -> None:
    """Make sure that the address is a container's to have and no other host has it, else send DHCPDECLINE (RFC 2131, 4.4.1)."""
    problem = store.unusable(granted.address)
    try:
        owner = None if problem is not None else await store.in_use(granted.address)
    except CancelledError:
        raise
    except Exception:
        release(context.socket, granted, context.random)
        raise
    if problem is None and owner in (None, client.mac):
        return
    with Transaction(context, client) as transaction:
        transaction.transmit(MessageType.DECLINE, requested=granted.address, server_id=granted.server_id)
    offered = f"address {granted.address}, offered to {client.mac} by DHCP server {granted.server_id} on {context.parent}, "
    if problem is not None:
        raise AcquireFailed(
            f"{offered}{problem} and was declined: take the address out of the server's pool",
            hopeless=final,
            answered=True,
        )
    raise AcquireFailed(
        f"{offered}is in use by {owner} and was declined: find that host, or take the address out of the server's pool",
        hopeless=final,
        answered=True,
    )


def _nobody_offered(context: Context, transaction: Transaction, mac: str) -> str:
    parent = context.parent
    if transaction.trouble:
        # Remedy: bring the parent up, or check its cable.
        return f"cannot send a DHCP request for {mac} on {parent} ({transaction.trouble})"
    seconds = context.now() - transaction.began
    return (
        f"no DHCP server on {parent} offered {mac} an address within {seconds:.0f} s: check that {parent} is on the right "
        "LAN, then look at the server's log: its pool may be full, or it may not know the MAC"
    )
