"""A lease is given back, by whoever knows of it."""

from __future__ import annotations

from random import Random

from ..interface import Wire
from .facts import LeaseFacts


def release(wire: Wire, facts: LeaseFacts, randomness: Random) -> None:
    """
    Tell the server that *facts* is not needed any more, also where no :class:`Lease` of this life holds it. Nobody
    answers that; where the frame does not leave, that is logged.
    """
    raise NotImplementedError
