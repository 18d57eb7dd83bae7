"""
Addresses that other hosts have on the LANs of our parents. They are saved, so that they can be listed, and are known after a
restart.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from attrs import frozen
from twisted.internet.defer import Deferred
from twisted.logger import Logger

from ..addresses import IPAddress, IPNetwork
from ..state.interfaces import HostRecords, RecordKind
from ..state.serialize import from_document, to_document

_log = Logger(namespace="macvlan_twisted.lan")

RETRY_SECONDS = 60.0
"""Seconds until an address that another host had may be probed again."""


@frozen
class Conflict:
    """An address that another host has. It is saved, so a new field needs a default."""

    parent: str
    address: IPAddress
    mac: str
    """Of the other host."""
    how: str
    """The evidence, as words that follow the MAC."""
    since: float
    """Seconds since 1970."""
    endpoint_mac: str = ""
    """Of our container that has the address, too; empty if none has, and the address is skipped."""

    @property
    def key(self) -> str:
        return f"{self.parent} {self.address}"


class ConflictTable:
    """
    :param clock: ``IReactorTime``
    :param now: the time of day, in seconds since the epoch, for what is saved.
    """

    def __init__(self, records: HostRecords, clock: Any, now: Callable[[], float]) -> None:
        self._records = records
        self._clock = clock
        self._now = now
        self._retry_at: dict[tuple[str, IPAddress], float] = {}
        """By *clock*, as the next one."""
        self._saved_at: dict[tuple[str, IPAddress], float] = {}
        self._known: dict[tuple[str, IPAddress], Conflict] = {}

    def load(self) -> None:
        """Read the conflicts from the state."""
        for document in self._records.documents(RecordKind.CONFLICT).values():
            conflict = from_document(Conflict, document)
            self._known[conflict.parent, conflict.address] = conflict
            age = self._now() - conflict.since
            if 0 <= age < RETRY_SECONDS:  # else it is over, or the time of day was set
                self.rest(conflict.parent, conflict.address, RETRY_SECONDS - age)

    def have(
        self, parent: str, address: IPAddress, mac: str, how: str, retry_after: float = RETRY_SECONDS
    ) -> None:
        """Another host has *address*, and no container of ours: skip it for *retry_after* seconds."""
        self.rest(parent, address, retry_after)
        self._remember(Conflict(parent, address, mac, how, self._now()))

    def use(self, parent: str, address: IPAddress, mac: str, endpoint_mac: str) -> None:
        """Another host uses the address of a container of ours."""
        self.rest(parent, address)
        self._remember(
            Conflict(parent, address, mac, "uses a container's address", self._now(), endpoint_mac)
        )

    def rest(self, parent: str, address: IPAddress, seconds: float = RETRY_SECONDS) -> None:
        """Do not probe *address* for so many seconds."""
        self._retry_at[parent, address] = self._clock.seconds() + seconds

    def quarantined(self, parent: str) -> list[IPAddress]:
        """Addresses of other hosts, which must not be allocated before they are probed again."""
        return [
            address
            for (where, address), conflict in self._known.items()
            if where == parent and not conflict.endpoint_mac and not self.may_retry(parent, address)
        ]

    def seconds(self) -> float:
        """Now, by the clock of :meth:`retry_at`."""
        return float(self._clock.seconds())

    def retry_at(self, parent: str, address: IPAddress) -> float:
        """When *address* may be probed again, by :meth:`seconds`."""
        retry_at = self._retry_at.get((parent, address))
        if retry_at is not None:
            return retry_at
        known = self._known.get((parent, address))
        age = None if known is None else self._now() - known.since
        is_recent = age is not None and 0 <= age < RETRY_SECONDS
        return self.seconds() + (RETRY_SECONDS - age if age is not None and is_recent else 0.0)

    def may_retry(self, parent: str, address: IPAddress) -> bool:
        retry_at = self._retry_at.get((parent, address))
        return retry_at is None or bool(self._clock.seconds() >= retry_at)

    def user_of(self, parent: str, address: IPAddress) -> Conflict | None:
        """Another host that was found to have *address*, if no container of ours has it and nothing was found since."""
        known = self._known.get((parent, address))
        return None if known is None or known.endpoint_mac else known

    def contested_by(self, parent: str, address: IPAddress) -> str | None:
        """The MAC of another host that uses the address of a container of ours, if there is one."""
        known = self._known.get((parent, address))
        return known.mac if known is not None and known.endpoint_mac else None

    def forget(self, parent: str, address: IPAddress) -> None:
        """No other host has it (any more)."""
        self._retry_at.pop((parent, address), None)
        self._saved_at.pop((parent, address), None)
        conflict = self._known.pop((parent, address), None)
        if conflict is not None:
            self._saved(conflict.address, self._records.erase(RecordKind.CONFLICT, conflict.key))

    def forget_within(self, parent: str, prefix: IPNetwork | None = None) -> None:
        """No pool has these addresses any more: forget their conflicts."""
        for where, address in {*self._known, *self._retry_at}:
            if where == parent and (prefix is None or address in prefix):
                self.forget(where, address)

    def _remember(self, conflict: Conflict) -> None:
        key, now = (conflict.parent, conflict.address), self._clock.seconds()
        known = self._known.get(key)
        if known is not None and known.endpoint_mac == conflict.endpoint_mac:
            # A skipped address is reported once, however many MACs a host invents for it.
            saved_at = self._saved_at.get(key)
            is_soon = not conflict.endpoint_mac and saved_at is not None and now - saved_at < RETRY_SECONDS
            if is_soon or known.mac == conflict.mac:
                return
        self._known[key] = conflict
        self._saved_at[key] = now
        if not conflict.endpoint_mac and known is None:
            _log.info(
                "address {address}: not allocated, in use on {parent} by MAC {mac}, which {evidence}",
                address=conflict.address,
                parent=conflict.parent,
                mac=conflict.mac,
                evidence=conflict.how,
            )
        self._saved(
            conflict.address, self._records.save(RecordKind.CONFLICT, conflict.key, to_document(conflict))
        )

    @staticmethod
    def _saved(address: IPAddress, done: Deferred[None]) -> None:
        """Nobody waits for it: no reply depends on a conflict."""
        # Cause: writing the state failed; the plugin remembers the conflict until it stops. Remedy: free
        # space on the disk of the state directory.
        done.addErrback(
            lambda failure: _log.error(
                "address {address}: cannot save that another host uses it ({reason})",
                address=address,
                reason=failure.getErrorMessage(),
            )
        )
