"""A lease is given back, by whoever knows of it."""

from __future__ import annotations

from random import Random

from twisted.logger import Logger

from ..errors import LinkError
from ..failpoints import Failpoint
from ..lan.interfaces import LanSocket
from .binding import Binding
from .messages import ClientMessage, MessageType, encode

_log = Logger(namespace="macvlan_twisted.lan")

_RELEASE = Failpoint("dhcp.lease.release", "a DHCP server is told that a lease is over")


def release(wire: LanSocket, facts: Binding, randomness: Random) -> None:
    """
    Tell the server that *facts* is not needed any more, also where no :class:`Lease` of this life holds it. Nobody
    answers that; where the frame does not leave, that is logged.
    """
    ask = ClientMessage(
        kind=MessageType.RELEASE,
        mac=facts.mac,
        xid=randomness.getrandbits(32),
        client_id=bytes.fromhex(facts.client_id),
        client_address=facts.address,
        server_id=facts.server_id,
        to=facts.server,
    )
    try:
        with _RELEASE:
            wire.send(encode(ask))
    except LinkError as failure:
        _log.warn(
            "DHCP on {parent}: {mac} could not give {address} back to {server}, it stays leased until its time is "
            "over: {reason}",
            parent=wire.parent,
            mac=facts.mac,
            address=facts.address,
            server=facts.server_id,
            reason=str(failure),
        )
    else:
        _log.info(
            "DHCP on {parent}: {mac} has given {address} back to {server}",
            parent=wire.parent,
            mac=facts.mac,
            address=facts.address,
            server=facts.server_id,
        )
