"""
Takes the addresses of hosts that are silent for long (``--fleet-takeover silent``).

After a partition both hosts may have the address, so the default is never to do so.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from twisted.internet.task import deferLater
from twisted.logger import Logger

from .interfaces import Claim, Host
from .own_claims import OwnClaims

_log = Logger(namespace="macvlan_twisted.fleet")

SILENT_FOR = 600.0
"""Seconds for which the owner's liveness lease must have expired."""
ROUNDS, BETWEEN_ROUNDS = 3, 15.0
"""Probes of the address, and the seconds between them: 30 in all."""


class Takeover:
    """
    :param silent_for: for how many seconds a host has been silent; 0 if it is alive.
    :param is_unused: asks the LAN; ``False`` too if that is impossible, such as while the parent is down.
    :param clock: ``IReactorTime``
    """

    def __init__(
        self,
        own_claims: OwnClaims,
        silent_for: Callable[[Host], float],
        is_unused: Callable[[Claim], Awaitable[bool]],
        clock: Any,
    ) -> None:
        self._own_claims = own_claims
        self._silent_for = silent_for
        self._is_unused = is_unused
        self._clock = clock
        self._running: set[str] = set()
        """The ids of the claims that are being taken over."""

    def may_take(self, claim: Claim) -> bool:
        """Whether the owner is silent for so long that its address may be taken."""
        return self._silent_for(claim.owner) >= SILENT_FOR

    async def take(self, claim: Claim) -> bool:
        """
        Take the address of *claim*, unless somebody on the LAN has it. Takes half a minute.

        :return: whether it is ours now.
        :raises FleetUnavailable: etcd does not answer. :raises StateError: the disk refuses.
        """
        if claim.claim_id in self._running:
            return False
        self._running.add(claim.claim_id)
        try:
            for number in range(ROUNDS):
                if number:
                    await deferLater(self._clock, BETWEEN_ROUNDS, lambda: None)
                if not self.may_take(claim) or not await self._is_unused(claim):
                    return False
            taken = await self._own_claims.take_over(claim)
        finally:
            self._running.discard(claim.claim_id)
        if taken:
            # Cause: the host was silent for ten minutes, and nobody on the LAN answered for the address. Remedy: none is
            # needed; if that host comes back with its container, remove one of the two.
            _log.warn(
                "address {address}: taken over from host {host}, which is silent",
                address=claim.address,
                host=claim.owner.name,
            )
        return taken
