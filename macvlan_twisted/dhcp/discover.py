"""A question to the LAN's DHCP servers that takes no lease."""

from __future__ import annotations

from random import Random
from typing import Any

from twisted.logger import Logger

from ..errors import RequestRefused
from ..lan.interfaces import LanSocket
from .acquire import nobody_offered, select
from .binding import Client, LanParameters
from .transaction import Context, Deadline, Transaction

_log = Logger(namespace="macvlan_twisted.lan")


async def discover(
    wire: LanSocket,
    client: Client,
    *,
    clock: Any,
    randomness: Random,
    timeout: float = 10.0,
) -> LanParameters:
    """
    What the first server that answers says of its LAN.

    :raises Refused: none answered within *timeout* seconds.
    """
    means = Context(wire, clock, randomness, clock.seconds)
    with Transaction(means, client) as talk:
        offer = await select(means, talk, None, Deadline.until(means.now() + timeout))
    if offer is None:
        raise RequestRefused(nobody_offered(means, talk, client.mac))
    assert offer.your_address is not None
    found = LanParameters(
        offer.server_id, offer.server_mac, offer.your_address, offer.prefix_length, offer.router
    )
    _log.info(
        "DHCP on {parent}: the server {server} ({mac}) offers {offered}, prefix length {prefix_length}, router {router}",
        parent=wire.parent,
        server=found.server_id,
        mac=found.server_mac,
        offered=found.offered,
        prefix_length=found.prefix_length,
        router=found.router,
    )
    return found
