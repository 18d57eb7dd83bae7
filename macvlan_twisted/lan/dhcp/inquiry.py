"""A question to the LAN's DHCP servers that takes no lease."""

from __future__ import annotations

from random import Random
from typing import Any

from twisted.logger import Logger

from ...errors import Refused
from ..interface import Wire
from .conversation import Conversation, Means, Patience
from .facts import Client, LanFacts
from .taking import nobody_offered, select

_log = Logger(namespace="macvlan_twisted.lan")


async def ask_around(
    wire: Wire,
    client: Client,
    *,
    clock: Any,
    randomness: Random,
    timeout: float = 10.0,
) -> LanFacts:
    """
    What the first server that answers says of its LAN.

    :raises Refused: none answered within *timeout* seconds.
    """
    means = Means(wire, clock, randomness, clock.seconds)
    with Conversation(means, client) as talk:
        offer = await select(means, talk, None, Patience.until(means.now() + timeout))
    if offer is None:
        raise Refused(nobody_offered(means, talk, client.mac))
    assert offer.your_address is not None
    found = LanFacts(offer.server_id, offer.server_mac, offer.your_address, offer.prefix_length, offer.router)
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
