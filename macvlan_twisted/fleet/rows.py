"""The claims of this host, on its own disk. They outlive restarts, reboots, and a fleet's store that does not answer."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum

from attrs import frozen
from sortedcontainers import SortedSet

from ..addresses import IPAddress
from ..state.interfaces import HostRecords, RecordKind
from ..state.serialize import from_document, to_document

_STORE_KEY = "store"


class Stage(StrEnum):
    """How far a claim is."""

    CLAIMING = "claiming"
    """The transaction is about to be sent, or its outcome is unknown."""
    OWNED = "owned"
    """The store has the claim. Only such an address may be used."""
    LEAVING = "leaving"
    """The claim is about to be deleted or handed over: the address must not be used any more."""


@frozen
class ClaimRow:
    """One claim of this host, or its share in a gateway or auxiliary address."""

    lan: str
    address: IPAddress
    claim_id: str
    stage: Stage = Stage.CLAIMING
    is_shared: bool = False

    @property
    def key(self) -> tuple[str, IPAddress]:
        return self.lan, self.address

    @property
    def is_owned(self) -> bool:
        """Whether a container may use the address."""
        return self.stage is Stage.OWNED and not self.is_shared


@frozen
class SeenStore:
    """The store, as this host saw it last."""

    cluster: str = ""
    revision: int = 0


class ClaimRows:
    """Memory follows the disk: a row changes when it is saved."""

    def __init__(self, records: HostRecords) -> None:
        self._records = records
        self.by_key: dict[tuple[str, IPAddress], ClaimRow] = {}
        self.seen = SeenStore()
        self._owned: dict[tuple[str, int], SortedSet] = {}
        """By LAN and IP version: the addresses that containers may use, as numbers."""

    def load(self) -> None:
        """
        Read the state at start.

        :raises StateError: a row cannot be decoded.
        """
        for key, document in self._records.documents(RecordKind.FLEET).items():
            if key == _STORE_KEY:
                self.seen = from_document(SeenStore, document)
            else:
                row = from_document(ClaimRow, document)
                self._note(row)

    def get(self, lan: str, address: IPAddress) -> ClaimRow | None:
        return self.by_key.get((lan, address))

    def owns(self, lan: str, address: IPAddress) -> bool:
        """Whether a container may use *address*."""
        row = self.by_key.get((lan, address))
        return row is not None and row.is_owned

    def owned_numbers(self, lan: str, version: int) -> SortedSet:
        """The addresses that containers may use, as numbers."""
        return self._owned.setdefault((lan, version), SortedSet())

    def _note(self, row: ClaimRow) -> None:
        self.by_key[row.key] = row
        numbers = self.owned_numbers(row.lan, row.address.version)
        if row.is_owned:
            numbers.add(int(row.address))
        else:
            numbers.discard(int(row.address))

    def owned(self) -> Iterable[ClaimRow]:
        return [row for row in self.by_key.values() if row.is_owned]

    async def save(self, row: ClaimRow) -> None:
        """:raises StateError: nothing was changed."""
        await self._records.save(RecordKind.FLEET, _row_key(row), to_document(row))
        self._note(row)

    async def erase(self, row: ClaimRow) -> None:
        """:raises StateError: nothing was changed."""
        await self._records.erase(RecordKind.FLEET, _row_key(row))
        self.by_key.pop(row.key, None)
        self.owned_numbers(row.lan, row.address.version).discard(int(row.address))

    async def save_seen(self, seen: SeenStore) -> None:
        """:raises StateError: nothing was changed."""
        if seen != self.seen:
            await self._records.save(RecordKind.FLEET, _STORE_KEY, to_document(seen))
            self.seen = seen


def _row_key(row: ClaimRow) -> str:
    return f"{row.lan}/{row.address}"
