"""What the log says of a lease: one line for each thing that happened to it."""

from __future__ import annotations

from typing import Any

from twisted.logger import Logger

from ..errors import MacvlanError
from .binding import Binding

_log = Logger(namespace="macvlan_twisted.lan")


class LeaseLog:
    """Of one container's lease."""

    def __init__(self, parent: str, mac: str) -> None:
        self._words: dict[str, Any] = {"parent": parent, "mac": mac}

    def leased(self, facts: Binding) -> None:
        _log.info("DHCP on {parent}: {mac} has leased {lease}", **self._words, lease=_told(facts))

    def fruitless(self, reason: str) -> None:
        _log.warn("DHCP on {parent}: {mac} got no lease: {reason}", **self._words, reason=reason)

    def confirmed(self, facts: Binding) -> None:
        _log.info("DHCP on {parent}: {mac} goes on with {lease}", **self._words, lease=_told(facts))

    def unanswered(self, facts: Binding, state: str) -> None:
        _log.warn(
            "DHCP on {parent}: {mac} asked in vain to go on with {lease} ({state})",
            **self._words,
            lease=_told(facts),
            state=state,
        )

    def lost(self, facts: Binding, reason: str) -> None:
        _log.error(
            "DHCP on {parent}: {mac} has no right to {address} any more, for {reason}; the container keeps it, and it "
            "is asked for again and again: see to it that the server gives {address} to {mac}",
            **self._words,
            address=facts.address,
            reason=reason,
        )

    def regained(self, facts: Binding) -> None:
        _log.warn("DHCP on {parent}: {mac} has got back {lease}", **self._words, lease=_told(facts))

    def moved(self, old: Binding, new: Binding) -> None:
        _log.error(
            "DHCP on {parent}: the server {server} does not give {old} back to {mac}, it insists on {new}",
            **self._words,
            server=new.server_id,
            old=old.address,
            new=new.address,
        )

    def failed(self, what: str, error: Exception) -> None:
        """To be called while *error* is handled; what it came from is told where it is none of ours."""
        if isinstance(error, MacvlanError):
            _log.error(
                "DHCP on {parent}: of the lease of {mac}: {what}: {reason}",
                **self._words,
                what=what,
                reason=str(error),
            )
        else:
            _log.failure("DHCP on {parent}: of the lease of {mac}: {what}", **self._words, what=what)


def _told(facts: Binding) -> str:
    time = "ever" if facts.is_for_ever else f"{facts.lease_seconds} s"
    return f"{facts.interface}, for {time}, from {facts.server_id} ({facts.server_mac})"
