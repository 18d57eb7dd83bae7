"""The life of one lease, by RFC 2131: taken, renewed, lost and found again, given back."""

from __future__ import annotations

import enum
from collections.abc import Callable
from ipaddress import IPv4Address
from random import Random
from typing import Any

from ..interface import Wire
from .facts import Client, LeaseFacts
from .holder import Holder


class State(enum.Enum):
    """RFC 2131, figure 5."""

    INIT = "INIT"
    SELECTING = "SELECTING"
    REQUESTING = "REQUESTING"
    BOUND = "BOUND"
    RENEWING = "RENEWING"
    REBINDING = "REBINDING"
    INIT_REBOOT = "INIT-REBOOT"


class Lease:
    """
    One lease of one container. It speaks in the reactor's thread, listens only while it waits for an answer, and holds
    nothing after :meth:`stop` or :meth:`release`.

    :param clock: IReactorTime, for what happens next.
    :param wall_time: seconds since the epoch, for what is kept.
    :param timeout: for how many seconds a server's answer is waited for when an address is acquired.
    """

    def __init__(
        self,
        wire: Wire,
        client: Client,
        holder: Holder,
        *,
        clock: Any,
        randomness: Random,
        wall_time: Callable[[], float],
        timeout: float = 10.0,
    ) -> None:
        self.state = State.INIT
        self.facts: LeaseFacts | None = None
        """What is held; also while the server denies it."""
        self.hostname = client.hostname
        """Named from the next message on."""

    async def acquire(self, wanted: IPv4Address | None = None) -> LeaseFacts:
        """
        Take a lease, which is on disk on return and is renewed from then on.

        :param wanted: the address that it has to be of.
        :raises Refused: no server offers one within the time, or none of *wanted*; or what is offered is in use.
        """
        raise NotImplementedError

    def resume(self, facts: LeaseFacts) -> None:
        """Go on, after a restart, with what was kept: ask for its confirmation and renew it from then on."""
        raise NotImplementedError

    def release(self) -> None:
        """Give the lease back, if there is one, and end."""
        raise NotImplementedError

    def stop(self) -> None:
        """End without a word to the server: the container goes on, and so will a later :meth:`resume`."""
        raise NotImplementedError
