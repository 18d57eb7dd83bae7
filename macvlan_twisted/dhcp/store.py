"""Who a lease is held for: its row on disk, and who on the LAN has its address."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from ipaddress import IPv4Address

from attrs import frozen

from ..errors import RequestRefused
from ..lan.conflicts import Conflicts, Inconclusive, Taken
from ..option_values import ConflictDetection
from .binding import Binding
from .lease_records import LeaseRecord

Moved = Callable[[str, Binding, Binding], Awaitable[bool]]


async def keep_address(parent: str, old: Binding, new: Binding) -> bool:
    """The container keeps its address, whatever the server says."""
    return False


@frozen
class PersistentLeaseStore:
    """
    :class:`~macvlan_twisted.dhcp.LeaseStore` for one lease.

    :param detection: ``on``, ``off`` or ``strict``, as in the network's options.
    """

    save: Callable[[LeaseRecord], Awaitable[None]]
    conflicts: Conflicts
    when_moved: Moved
    parent: str
    release: bool
    detection: ConflictDetection

    def _record(self, facts: Binding, granted: bool) -> LeaseRecord:
        return LeaseRecord(self.parent, facts, facts.address, granted, self.release, self.detection)

    async def intend(self, offered: Binding) -> None:
        await self.save(self._record(offered, granted=False))

    async def keep(self, facts: Binding) -> None:
        await self.save(self._record(facts, granted=True))

    async def in_use(self, address: IPv4Address) -> str | None:
        if self.detection == ConflictDetection.OFF:
            return None
        verdict = await self.conflicts.hold(self.parent, address, "DHCP")
        if isinstance(verdict, Taken):
            return verdict.mac
        if isinstance(verdict, Inconclusive):
            if self.detection == ConflictDetection.STRICT:
                raise RequestRefused(
                    f"it cannot be found out whether the leased address {address} is in use on {self.parent}: "
                    f"{verdict.reason}"
                )
            self.conflicts.count_unproven(self.parent, address, verdict.reason)
        return None

    def lost(self, facts: Binding, reason: str) -> None:
        """The state machine has logged it, and goes on asking."""

    def regained(self, facts: Binding) -> None:
        """The state machine has logged it."""

    async def moved(self, old: Binding, new: Binding) -> bool:
        """What the container does not use (any more) is not defended on its behalf."""
        has_moved = False
        try:
            has_moved = await self.when_moved(self.parent, old, new)
        finally:
            self.conflicts.let_go(self.parent, old.address if has_moved else new.address)
        return has_moved
