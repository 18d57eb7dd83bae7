"""Gives up what this host does not need any more, and settles what a silent store has left open."""

from __future__ import annotations

from typing import Any

from ..addresses import IPAddress
from .address_users import AddressUsers
from .interfaces import Claim
from .own_claims import OwnClaims
from .rows import Stage

STRAY_GRACE = 600.0
"""Seconds until a claim of ours without a row may be deleted: a delayed transaction may have made it."""


class Sweep:
    """:param clock: ``IReactorTime``"""

    def __init__(self, own_claims: OwnClaims, users: AddressUsers, clock: Any) -> None:
        self._own_claims = own_claims
        self._users = users
        self._clock = clock
        self._unneeded: set[tuple[str, IPAddress]] = set()
        """Shared addresses that no pool reserved at the last sweep. A pool that does so just now is seen at the next one."""
        self._is_running = False

    async def run(self) -> None:
        """
        :raises FleetUnavailable: the next sweep goes on. :raises StateError: likewise.
        """
        if self._is_running or self._own_claims.unavailable:
            return
        self._is_running = True
        try:
            await self._settle_open_rows()
            await self._give_up_surplus()
            await self._unshare()
            await self._delete_strays()
            await self._own_claims.withdraw_old_requests()
            self._users.refill()
        finally:
            self._is_running = False

    async def _settle_open_rows(self) -> None:
        """Those whose transaction got no answer, and those that another host disputes."""
        for row in list(self._own_claims.rows.by_key.values()):
            if row.stage is not Stage.OWNED or row.key in self._own_claims.disputed:
                await self._own_claims.settle(row.lan, row.address, self._users)

    async def _give_up_surplus(self) -> None:
        for lan, address in list(self._users.surplus()):
            await self._own_claims.release(lan, address, self._users)

    async def _unshare(self) -> None:
        unneeded = {
            row.key
            for row in self._own_claims.rows.by_key.values()
            if row.is_shared and not self._users.is_shared(row.lan, row.address)
        }
        for lan, address in unneeded & self._unneeded:
            await self._own_claims.unshare(lan, address, self._users)
        self._unneeded = unneeded

    async def _delete_strays(self) -> None:
        now = self._clock.seconds()
        for key, since in list(self._own_claims.strays.items()):
            entry = self._own_claims.mirror.entry(*key)
            if since + STRAY_GRACE > now or not isinstance(entry, Claim):
                continue
            if await self._users.is_abandoned(entry):
                await self._own_claims.delete_stray(entry)
