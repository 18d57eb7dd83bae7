"""A lease that is held already is asked to be confirmed: RENEWING, REBINDING, INIT-REBOOT (RFC 2131, 4.3.2)."""

from __future__ import annotations

import enum

from .conversation import Conversation, Means, Patience, Worth, growing_waits, halving_waits
from .facts import Client, LeaseFacts, lease_facts
from .messages import Answer, Kind


class State(enum.Enum):
    """RFC 2131, figure 5."""

    INIT = "INIT"
    SELECTING = "SELECTING"
    REQUESTING = "REQUESTING"
    BOUND = "BOUND"
    RENEWING = "RENEWING"
    REBINDING = "REBINDING"
    INIT_REBOOT = "INIT-REBOOT"


class TakenBack(Exception):
    """A server said no; the message says which one and why."""


async def confirm(
    means: Means, client: Client, facts: LeaseFacts, state: State, deadline: float
) -> LeaseFacts | None:
    """
    Ask in the manner of *state* until *deadline*, by the reactor's clock.

    :returns: the lease with its new times, or ``None`` where nobody answered.
    :raises TakenBack: the server said no; or another server did, and ours did not say yes.
    """

    def say() -> None:
        if state is State.INIT_REBOOT:
            talk.say(Kind.REQUEST, requested=facts.address)
        else:
            to = facts.server if state is State.RENEWING else None
            talk.say(Kind.REQUEST, client_address=facts.address, to=to)

    def worth(answer: Answer) -> Worth:
        is_ours = answer.server_id == facts.server_id
        if state is State.RENEWING and not is_ours:
            return Worth.NOTHING
        if answer.kind is Kind.ACK and answer.your_address == facts.address:
            return Worth.RIGHT
        if answer.kind is Kind.NAK:
            # One server that knows nothing of another one's leases does not end them.
            return Worth.RIGHT if is_ours else Worth.SECOND_BEST
        return Worth.NOTHING

    first = state is State.INIT_REBOOT
    waits = growing_waits(means.randomness) if first else halving_waits(means, deadline)
    with Conversation(means, client) as talk:
        answer = await talk.ask(say, worth, waits, Patience.until(deadline))
    if answer is None:
        return None
    if answer.kind is Kind.NAK:
        raise TakenBack(
            f"the server {answer.server_id} took it back"
            + (f": {answer.message!r}" if answer.message else "")
        )
    return lease_facts(client, answer, means.wall_time() - (means.now() - talk.said_at))
