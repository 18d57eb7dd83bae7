"""A lease that is held already is asked to be confirmed: RENEWING, REBINDING, INIT-REBOOT (RFC 2131, 4.3.2)."""

from __future__ import annotations

import enum

from .binding import Binding, Client, binding_from
from .messages import MessageType, ServerMessage
from .transaction import Context, Deadline, Match, Transaction, exponential_backoff, half_of_remaining_time


class State(enum.Enum):
    """RFC 2131, figure 5."""

    INIT = "INIT"
    SELECTING = "SELECTING"
    REQUESTING = "REQUESTING"
    BOUND = "BOUND"
    RENEWING = "RENEWING"
    REBINDING = "REBINDING"
    INIT_REBOOT = "INIT-REBOOT"


class NakReceived(Exception):
    """A server said no; the message says which one and why."""


async def confirm(
    means: Context, client: Client, facts: Binding, state: State, deadline: float
) -> Binding | None:
    """
    Ask in the manner of *state* until *deadline*, by the reactor's clock.

    :returns: the lease with its new times, or ``None`` where nobody answered.
    :raises TakenBack: the server said no; or another server did, and ours did not say yes.
    """

    def say() -> None:
        if state is State.INIT_REBOOT:
            talk.say(MessageType.REQUEST, requested=facts.address)
        else:
            to = facts.server if state is State.RENEWING else None
            talk.say(MessageType.REQUEST, client_address=facts.address, to=to)

    def worth(answer: ServerMessage) -> Match:
        is_ours = answer.server_id == facts.server_id
        if state is State.RENEWING and not is_ours:
            return Match.NOTHING
        if answer.kind is MessageType.ACK and answer.your_address == facts.address:
            return Match.RIGHT
        if answer.kind is MessageType.NAK:
            # One server that knows nothing of another one's leases does not end them.
            return Match.RIGHT if is_ours else Match.SECOND_BEST
        return Match.NOTHING

    first = state is State.INIT_REBOOT
    waits = exponential_backoff(means.randomness) if first else half_of_remaining_time(means, deadline)
    with Transaction(means, client) as talk:
        answer = await talk.ask(say, worth, waits, Deadline.until(deadline))
    if answer is None:
        return None
    if answer.kind is MessageType.NAK:
        raise NakReceived(
            f"the server {answer.server_id} took it back"
            + (f": {answer.message!r}" if answer.message else "")
        )
    return binding_from(client, answer, means.wall_time() - (means.now() - talk.said_at))
