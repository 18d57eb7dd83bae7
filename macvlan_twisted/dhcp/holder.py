"""Who a lease is held for: what the state machine asks of whoever runs it, and tells them."""

from __future__ import annotations

from ipaddress import IPv4Address
from typing import Protocol

from .binding import Binding


class LeaseStore(Protocol):
    """
    The other side of a :class:`~macvlan_twisted.dhcp.lease.Lease`: its disk, its eyes on the LAN, and those who
    have to know.
    """

    async def intend(self, offered: Binding) -> None:
        """
        Have on disk that *offered* is about to be requested: after a crash the server may take it for leased. What it
        raises ends the attempt.
        """

    async def keep(self, facts: Binding) -> None:
        """
        Have *facts* on disk: a new lease, or new times of the one that is held. What it raises ends an acquisition
        (the lease is given back); a renewal is only logged as not kept.
        """

    async def in_use(self, address: IPv4Address) -> str | None:
        """
        The MAC of a stranger that uses *address*, which was just granted, or ``None``. What it raises ends the attempt.
        """

    def lost(self, facts: Binding, reason: str) -> None:
        """
        The server took the lease back, or nobody prolonged it. The container keeps its address, which is asked for
        again and again.
        """

    def regained(self, facts: Binding) -> None:
        """The address that was lost is leased again."""

    async def moved(self, old: Binding, new: Binding) -> bool:
        """
        The server insists on another address; *new* is leased already. Answer whether the container uses it from now
        on; else it is given back, and *old* asked for at a slow pace.
        """
