"""What the fleet's store says, in memory: fed by a snapshot, then by its changes."""

from __future__ import annotations

from sortedcontainers import SortedList

from ..addresses import IPAddress
from .interfaces import Claim, Entry, Host, HostRecord, Snapshot, Wanted


class Mirror:
    """:param own: this host."""

    def __init__(self, own: Host) -> None:
        self._own = own
        self.cluster = ""
        self.revision = 0
        self.entries: dict[tuple[str, IPAddress], Entry] = {}
        self.alive: dict[str, HostRecord] = {}
        self.known: dict[str, Host] = {}
        self.wanted: dict[tuple[str, IPAddress], Wanted] = {}
        self._reports: dict[tuple[str, IPAddress], int] = {}
        """How often the store has reported each address."""
        self._last_users: dict[tuple[str, str], set[IPAddress]] = {}
        """By LAN and container: the addresses that it uses, or had last."""
        self._elsewhere: dict[tuple[str, int], SortedList] = {}
        """By LAN and IP version: the addresses that this host may not choose, as numbers."""

    def load(self, snapshot: Snapshot) -> None:
        """Replace everything, and report nothing."""
        self.cluster, self.revision = snapshot.cluster, snapshot.revision
        self.entries = {entry.key: entry for entry in snapshot.entries}
        self.alive = {record.host.name: record for record in snapshot.alive}
        self.known = {host.name: host for host in snapshot.known}
        self.wanted = {(each.lan, each.address): each for each in snapshot.wanted}
        numbers: dict[tuple[str, int], list[int]] = {}
        for entry in snapshot.entries:
            if self.is_elsewhere(entry):
                numbers.setdefault((entry.lan, entry.address.version), []).append(int(entry.address))
        self._elsewhere = {key: SortedList(each) for key, each in numbers.items()}
        self._reports = {}
        self._last_users = {}
        for entry in snapshot.entries:
            if isinstance(entry, Claim) and entry.container:
                self._last_users.setdefault((entry.lan, entry.container), set()).add(entry.address)

    def is_elsewhere(self, entry: Entry | None) -> bool:
        """Whether *entry* bars this host from choosing its address for a container."""
        return entry is not None and not (isinstance(entry, Claim) and entry.owner == self._own)

    def elsewhere(self, lan: str, version: int) -> SortedList:
        """The addresses of *lan* that this host may not choose, as numbers."""
        return self._elsewhere.setdefault((lan, version), SortedList())

    def last_claims(self, lan: str, container: str) -> list[Claim]:
        """The claims of what *container* uses, or had last, on whatever host."""
        found = (self.entries.get((lan, address)) for address in self._last_users.get((lan, container), ()))
        return [entry for entry in found if isinstance(entry, Claim)]

    def entry(self, lan: str, address: IPAddress) -> Entry | None:
        return self.entries.get((lan, address))

    def is_alive(self, host: Host) -> bool:
        record = self.alive.get(host.name)
        return record is not None and record.host.instance == host.instance

    def reports(self, lan: str, address: IPAddress) -> int:
        """How often the store has reported *address*."""
        return self._reports.get((lan, address), 0)

    def report_entry(self, lan: str, address: IPAddress, entry: Entry | None) -> None:
        """The store reports a change."""
        self._reports[lan, address] = self.reports(lan, address) + 1
        self.set_entry(lan, address, entry)

    def set_found(self, lan: str, address: IPAddress, entry: Entry, reports: int) -> None:
        """
        A transaction of ours has found or made *entry*. If the store has reported a change meanwhile, that may be newer.

        :param reports: those of the address when the transaction was sent.
        """
        if self.reports(lan, address) == reports:
            self.set_entry(lan, address, entry)

    def set_entry(self, lan: str, address: IPAddress, entry: Entry | None) -> None:
        barred, before = self.elsewhere(lan, address.version), self.entries.get((lan, address))
        if self.is_elsewhere(before):
            barred.remove(int(address))
        if isinstance(before, Claim) and before.container:
            self._last_users[lan, before.container].discard(address)
        if isinstance(entry, Claim) and entry.container:
            self._last_users.setdefault((lan, entry.container), set()).add(address)
        if entry is None:
            self.entries.pop((lan, address), None)
        else:
            self.entries[lan, address] = entry
        if self.is_elsewhere(entry):
            barred.add(int(address))

    def set_host(self, name: str, record: HostRecord | None) -> None:
        if record is None:
            self.alive.pop(name, None)
        else:
            self.alive[name] = record

    def set_known(self, name: str, host: Host | None) -> None:
        if host is None:
            self.known.pop(name, None)
        else:
            self.known[name] = host

    def set_wanted(self, lan: str, address: IPAddress, wanted: Wanted | None) -> None:
        if wanted is None:
            self.wanted.pop((lan, address), None)
        else:
            self.wanted[lan, address] = wanted
