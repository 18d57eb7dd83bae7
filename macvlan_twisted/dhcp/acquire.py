"""From DISCOVER to a lease that may be used: one attempt, and how it can fail."""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import IPv4Address

from twisted.internet.defer import CancelledError

from .binding import Binding, Client, binding_from
from .holder import LeaseStore
from .messages import MessageType, ServerMessage
from .release import release
from .renew import State
from .transaction import Context, Deadline, Match, Transaction, exponential_backoff

_LONGEST_REQUEST = 6.0
"""For so many seconds a silent server's confirmation is waited for; then others are asked, too."""
_SHORTEST_REQUEST = 2.0
"""An offer that came late is nevertheless taken up."""


class AcquireFailed(Exception):
    """
    An attempt gave no lease; the message says why.

    :ivar hopeless: another one at once would give none either.
    :ivar answered: the server has just spoken to us.
    """

    def __init__(self, message: str, *, hopeless: bool = False, answered: bool = False) -> None:
        super().__init__(message)
        self.hopeless = hopeless
        self.answered = answered


async def acquire(
    means: Context,
    client: Client,
    holder: LeaseStore,
    enter: Callable[[State, Binding | None], None],
    *,
    wanted: IPv4Address | None,
    patience: Deadline,
    held: IPv4Address | None = None,
    elsewhere: bool = False,
    first_wait: float = 1.0,
) -> Binding:
    """
    One attempt. What it returns is leased, and not on disk as a lease yet.

    :param wanted: the address to ask for.
    :param held: that of the lease which was lost, and which the container goes on using: it is on disk already, and on
        the LAN the container itself answers for it.
    :param elsewhere: whether another address than *wanted* will do, where nobody offers that.
    :param first_wait: seconds before the question is asked for a second time, if there is *patience* for it.
    :raises Fruitless: it gave none; the server has nothing that it believes to be ours.
    """
    with Transaction(means, client) as talk:
        enter(State.SELECTING, None)
        offer = await select(means, talk, wanted, patience, first_wait)
        if offer is None:
            raise AcquireFailed(nobody_offered(means, talk, client.mac), hopeless=True)
        offered = binding_from(client, offer, means.wall_time())
        if wanted not in (None, offered.address) and not elsewhere:
            raise AcquireFailed(
                f"the DHCP server {offered.server_id} on {means.wire.parent} does not give {wanted} to {client.mac}, it "
                f"offers {offered.address}: {wanted} is leased to another one there, or not in its pool; ask for no "
                f"address or for another one, or reserve {wanted} for {client.mac} on the server",
                hopeless=True,
            )
        is_new = offered.address != held
        if is_new:
            await holder.intend(offered)
        enter(State.REQUESTING, offered)
        granted = await _request(means, talk, client, offered, patience)
    if is_new:
        await _check(means, client, holder, granted, final=wanted == granted.address)
    return granted


async def select(
    means: Context,
    talk: Transaction,
    wanted: IPv4Address | None,
    patience: Deadline,
    first_wait: float = 1.0,
) -> ServerMessage | None:
    def worth(answer: ServerMessage) -> Match:
        if answer.kind is not MessageType.OFFER:
            return Match.NOTHING
        return Match.RIGHT if wanted in (None, answer.your_address) else Match.SECOND_BEST

    def say() -> None:
        talk.say(MessageType.DISCOVER, requested=wanted)

    return await talk.ask(say, worth, exponential_backoff(means.randomness, first_wait), patience)


async def _request(
    means: Context, talk: Transaction, client: Client, offered: Binding, patience: Deadline
) -> Binding:
    def worth(answer: ServerMessage) -> Match:
        if answer.server_id != offered.server_id:
            return Match.NOTHING  # another server's; we have chosen
        is_granted = answer.kind is MessageType.ACK and answer.your_address == offered.address
        return Match.RIGHT if is_granted or answer.kind is MessageType.NAK else Match.NOTHING

    def say() -> None:
        talk.say(MessageType.REQUEST, requested=offered.address, server_id=offered.server_id)

    now = means.now()
    until = max(min(patience.deadline, now + _LONGEST_REQUEST), now + _SHORTEST_REQUEST)
    waiting = Deadline(until, max(until, patience.latest), min(patience.quiet, _LONGEST_REQUEST))
    answer = await talk.ask(say, worth, exponential_backoff(means.randomness), waiting)
    server = f"the DHCP server {offered.server_id} on {means.wire.parent}"
    if answer is None:
        release(means.wire, offered, means.randomness)  # its confirmation may have been lost
        raise AcquireFailed(f"{server} offered {offered.address} to {client.mac} and did not confirm it")
    if answer.kind is MessageType.NAK:
        raise AcquireFailed(
            f"{server} offered {offered.address} to {client.mac} and then refused it"
            + (f": {answer.message!r}" if answer.message else ""),
            answered=True,
        )
    return binding_from(client, answer, means.wall_time() - (means.now() - talk.said_at))


async def _check(
    means: Context, client: Client, holder: LeaseStore, granted: Binding, *, final: bool
) -> None:
    """See that nobody has the address, else decline it (RFC 2131, 4.4.1)."""
    try:
        owner = await holder.in_use(granted.address)
    except CancelledError:
        raise
    except Exception:
        release(means.wire, granted, means.randomness)
        raise
    if owner is None or owner == client.mac:
        return
    with Transaction(means, client) as talk:
        talk.say(MessageType.DECLINE, requested=granted.address, server_id=granted.server_id)
    raise AcquireFailed(
        f"{granted.address}, which the DHCP server {granted.server_id} on {means.wire.parent} gave to {client.mac}, "
        f"is in use by {owner}, and was declined: find that machine, or take the address out of the server's pool",
        hopeless=final,
        answered=True,
    )


def nobody_offered(means: Context, talk: Transaction, mac: str) -> str:
    parent = means.wire.parent
    if talk.trouble:
        return f"no DHCP server on {parent} could be asked for an address for {mac}: {talk.trouble}"
    return (
        f"no DHCP server on {parent} offered {mac} an address within {means.now() - talk.began:.0f} s: none answers "
        f"there, or its pool is full, or it does not know {mac}: look whether {parent} is plugged into the LAN that "
        "you mean, and at the server's log"
    )
