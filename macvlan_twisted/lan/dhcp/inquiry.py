"""A question to the LAN's DHCP servers that takes no lease."""

from __future__ import annotations

from random import Random
from typing import Any

from ..interface import Wire
from .facts import Client, LanFacts


async def ask_around(
    wire: Wire, client: Client, *, clock: Any, randomness: Random, timeout: float = 10.0
) -> LanFacts:
    """
    What the first server that answers says of its LAN.

    :raises Refused: none answered within *timeout* seconds.
    """
    raise NotImplementedError
