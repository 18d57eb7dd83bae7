"""Have a server confirm a lease: RENEWING, REBINDING, INIT-REBOOT (RFC 2131, 4.3.2)."""

from __future__ import annotations

from .binding import Binding, Client, Granted, State, binding_from
from .messages import MessageType, ServerMessage
from .transaction import Context, Deadline, Match, Transaction, exponential_backoff, half_of_remaining_time


class NakReceived(Exception):
    """A server refused with DHCPNAK; the message says which one and why."""


async def renew(
    context: Context, client: Client, binding: Binding, state: State, deadline: float
) -> Granted | None:
    """
    Send the DHCPREQUEST of *state* until *deadline*, by the clock.

    :return: the lease with its new times, or ``None`` if no server answered.
    :raises NakReceived: our server refused; or another one did, and ours did not answer.
    """

    def transmit() -> None:
        if state is State.INIT_REBOOT:
            transaction.transmit(MessageType.REQUEST, requested=binding.address)
        else:
            to = binding.server if state is State.RENEWING else None
            transaction.transmit(MessageType.REQUEST, client_address=binding.address, to=to)

    def match(answer: ServerMessage) -> Match:
        is_ours = answer.server_id == binding.server_id
        if state is State.RENEWING and not is_ours:
            return Match.NONE
        if answer.kind is MessageType.ACK and answer.your_address == binding.address:
            return Match.FULL
        if answer.kind is MessageType.NAK:
            # A server that does not know another server's lease does not end it.
            return Match.FULL if is_ours else Match.FALLBACK
        return Match.NONE

    if state is State.INIT_REBOOT:
        waits = exponential_backoff(context.random)
    else:
        waits = half_of_remaining_time(context, deadline)
    with Transaction(context, client) as transaction:
        answer = await transaction.exchange(transmit, match, waits, Deadline.until(deadline))
    if answer is None:
        return None
    if answer.kind is MessageType.NAK:
        raise NakReceived(
            f"the server {answer.server_id} took it back"
            + (f": {answer.message!r}" if answer.message else "")
        )
    asked_at = transaction.sent_at
    return Granted(binding_from(client, answer, context.wall_time_of(asked_at)), asked_at)
