"""Address conflict detection on the LANs of all parents: probes addresses, holds them, and defends assigned ones."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Protocol

from attrs import frozen
from twisted.logger import Logger

from ..addresses import IPAddress
from ..errors import LinkError, StateError
from ..netlink.links import Links
from .address_monitor import AddressMonitor
from .address_monitors import AddressMonitors
from .address_probe import Evidence, Free, Inconclusive, InUse, Verdict
from .conflict_table import RETRY_SECONDS, Conflict, ConflictTable
from .local_addresses import LocalAddresses
from .packet_sockets import PacketSockets

_log = Logger(namespace="macvlan_twisted.lan")

RETRY_PROBED_SECONDS = 5.0
"""Seconds until an address is probed again that another host probed for: by then the host has taken it, or not."""


class AllocatedAddresses(Protocol):
    """The addresses of our own address management: :class:`~macvlan_twisted.ipam.pool_registry.PoolRegistry`."""

    def is_allocated(self, parent: str, address: IPAddress) -> bool:
        """Whether *address* is allocated to a container on *parent*."""


def _ignore(parent: str, address: IPAddress) -> None:
    pass


@frozen
class Holder:
    """Who wants an address held that no container has yet."""

    name: str
    """An address that another holder has is not free."""
    is_guess: bool = False
    """The address will probably be needed; another holder may have it."""
    on_lost: Callable[[str, IPAddress], None] = _ignore
    """Is called with parent and address when another host takes the address while it is held."""


@frozen
class _Assigned:
    mac: str
    is_hosts: bool
    is_managed: bool


class Conflicts:
    """
    An address that :meth:`hold` finds free stays so until :meth:`release` or :meth:`unassign`.

    :param user_of: names the container with an address on a parent, for log lines.
    """

    def __init__(
        self,
        sockets: PacketSockets,
        links: Links,
        monitors: AddressMonitors,
        table: ConflictTable,
        allocated: AllocatedAddresses,
        user_of: Callable[[str, IPAddress], str],
    ) -> None:
        self._sockets = sockets
        self._links = links
        self.local_addresses = LocalAddresses(links)
        self.monitors = monitors
        self.table = table
        self._allocated = allocated
        self._user_of = user_of
        self._assigned: dict[tuple[str, IPAddress], _Assigned] = {}
        self._holders: dict[tuple[str, IPAddress], Holder] = {}
        """The holders of addresses that are not assigned yet."""
        self._forgotten: dict[tuple[str, IPAddress], str] = {}
        self.inconclusive = 0
        """The number of addresses that were allocated without a conclusive probe."""

    def load(self) -> None:
        """Read the conflicts from the state. Called once, at start."""
        self.table.load()
        self._sockets.listen_for_unused(self._forget_parent)

    async def watch(self, parent: str) -> AddressMonitor:
        """
        Monitor *parent* from now on.

        :raises LinkError: *parent* is not there, or the kernel refuses.
        """
        socket = await self._sockets.ready(parent)
        monitor = self.monitors.of(parent)
        if monitor is None:
            monitor = self.monitors.begin(socket, _Observer(self, parent))
            for (where, address), assigned in self._assigned.items():
                if where == parent:
                    self._assign(monitor, parent, address, assigned)
        return monitor

    async def hold(
        self,
        parent: str,
        address: IPAddress,
        holder: Holder,
        *,
        of_many: bool = False,
        is_managed: bool = False,
        may_be_allocated: bool = False,
        checks_later: bool = False,
    ) -> Verdict:
        """
        Find out whether *address* is free, and if so, hold it: defend it from now on.

        It asks the host itself, the LAN and the siblings on the parent. If the probe cannot run, the verdict is
        :class:`~macvlan_twisted.lan.address_probe.Inconclusive`, never free.

        :param of_many: any other address would do: leave this one to a neighbour that claimed it minutes ago, and may sleep.
        :param is_managed: our address management asks, and has not allocated the address. If it is assigned to a container
            of its networks, the engine has forgotten the container, which must answer the probe if it lives.
        :param may_be_allocated: an allocation of ours does not count: whoever has it must answer the probe if it lives.
        :param checks_later: the caller looks at :meth:`noticed` when its own work is done, before it relies on the verdict.
            So an address that is held already is probed once more while that work is done.
        """
        forgotten = self._assigned.get((parent, address)) if is_managed else None
        if (
            forgotten is not None
            and forgotten.is_managed
            and not self._allocated.is_allocated(parent, address)
        ):
            self.unassign(parent, address)
        else:
            forgotten = None
        verdict = await self._verdict(parent, address, of_many, may_be_allocated, checks_later)
        # Two calls may have probed at once: the first one to return here gets the address.
        held = self._holders.get((parent, address))
        is_anothers = held is not None and held.name != holder.name and not held.is_guess
        if isinstance(verdict, Free) and (is_anothers or (parent, address) in self._assigned):
            verdict = InUse(self._sockets.of(parent).mac, Evidence.OURS)
        if forgotten is not None and not isinstance(verdict, Free):
            self.assign(parent, address, forgotten.mac, is_managed=True)
        elif forgotten is not None:
            self._forgotten[parent, address] = forgotten.mac
        if isinstance(verdict, InUse):
            if verdict.how is Evidence.OURS:
                self.table.rest(parent, address)
            elif verdict.how is Evidence.PROBED:
                self.table.have(parent, address, verdict.mac, verdict.how.value, RETRY_PROBED_SECONDS)
            else:
                self.table.have(parent, address, verdict.mac, verdict.how.value)
        elif isinstance(verdict, Free):
            if held is None or not holder.is_guess:
                self._holders[parent, address] = holder
            self.table.forget(parent, address)
        return verdict

    async def _verdict(
        self, parent: str, address: IPAddress, of_many: bool, may_be_allocated: bool, checks_later: bool
    ) -> Verdict:
        if not parent:
            return Inconclusive(
                "no parent is known: name a NIC with --ipam-opt parent=, or start the plugin with --host-interface"
            )
        monitor = self.monitors.of(parent)
        known = monitor.known(address) if of_many and monitor is not None else None
        if known is not None:
            return InUse(known.mac, Evidence.CLAIMED)
        try:
            link = await self.local_addresses.link_of(address)
            if link is not None:
                found = await self._links.find(link)
                return InUse("" if found is None else found.mac, Evidence.HOST)
            if not may_be_allocated and self._allocated.is_allocated(parent, address):
                return InUse(self._sockets.of(parent).mac, Evidence.OURS)
            monitor = await self.watch(parent)
            neighbour = monitor.known(address) if of_many else None
            if neighbour is not None:
                return InUse(neighbour.mac, Evidence.CLAIMED)
            return await monitor.hold(
                address, self._sockets.of(parent).mac, checks_later=checks_later, of_many=of_many
            )
        except (LinkError, StateError) as failure:  # our own link on the parent needs a row
            return Inconclusive(str(failure))

    def noticed(self, parent: str, address: IPAddress) -> str | None:
        """
        Another host that was noticed with *address* since :meth:`hold` found it free: its MAC and how, as words. A host that
        answers late is noticed after the verdict.
        """
        monitor = self.monitors.of(parent)
        if monitor is not None:
            monitor.read()
        known = self.table.user_of(parent, address)
        if known is not None:
            return f"MAC {known.mac}, which {known.how}"
        neighbour = None if monitor is None else monitor.claimed(address)
        return None if neighbour is None else f"MAC {neighbour.mac}, which {Evidence.CLAIMED.value}"

    def release(self, parent: str, address: IPAddress, holder: str | None = None) -> None:
        """:param holder: release it only if the holder of this name has it."""
        held = self._holders.get((parent, address))
        if (parent, address) in self._assigned or (
            holder is not None and (held is None or held.name != holder)
        ):
            return
        self._holders.pop((parent, address), None)
        monitor = self.monitors.of(parent)
        if monitor is not None:
            monitor.release(address)

    def given_up(self, parent: str, address: IPAddress) -> None:
        """Another host, which had *address*, has given it up: from now on only new evidence counts."""
        self.table.forget(parent, address)
        monitor = self.monitors.of(parent)
        if monitor is not None:
            monitor.read()
            monitor.given_up(address)

    def assign(
        self,
        parent: str,
        address: IPAddress,
        mac: str,
        is_hosts: bool = False,
        is_managed: bool = False,
    ) -> None:
        """
        *address* is assigned to a container with *mac* (empty: the parent's own). From now on, other hosts that use it are
        reported.

        :param is_hosts: whether it is the host's own: the host answers for it from the parent's MAC, too.
        :param is_managed: whether our address management has allocated it.
        """
        self._assigned[parent, address] = assigned = _Assigned(mac, is_hosts, is_managed)
        self._holders.pop((parent, address), None)
        self._forgotten.pop((parent, address), None)
        monitor = self.monitors.of(parent)
        if monitor is not None:
            self._assign(monitor, parent, address, assigned)

    def _assign(self, monitor: AddressMonitor, parent: str, address: IPAddress, assigned: _Assigned) -> None:
        with suppress(LinkError):  # the parent is away: there are no claims
            monitor.assign(address, assigned.mac or self._sockets.of(parent).mac, assigned.is_hosts)

    def assigned_mac(self, parent: str, address: IPAddress) -> str | None:
        """The MAC of the container that *address* is assigned to, ``None`` if it is not."""
        assigned = self._assigned.get((parent, address))
        return None if assigned is None else assigned.mac

    def forgotten_mac(self, parent: str, address: IPAddress) -> str | None:
        """The MAC of a container that had *address* and was forgotten by the engine, until the address is assigned again."""
        return self._forgotten.get((parent, address))

    def unassign(self, parent: str, address: IPAddress, link_removed: bool = False) -> None:
        """
        The container is gone.

        :param link_removed: whether we have removed its link, so that it has lost the address for certain.
        """
        self._assigned.pop((parent, address), None)
        self._holders.pop((parent, address), None)
        monitor = self.monitors.of(parent)
        if monitor is not None:
            monitor.release(address, link_removed)
        if self.table.contested_by(parent, address) is not None:
            self.table.forget(parent, address)

    def count_inconclusive(self, parent: str, address: IPAddress, reason: str) -> None:
        """*address* is allocated though the LAN could not be asked: from now on only new evidence counts."""
        self.table.forget(parent, address)
        self.inconclusive += 1
        # Cause: the probe could not run, usually because the parent is down, has no carrier or is unknown. Remedy:
        # see the reason in the line; to refuse such addresses instead, remove the network and create it again with
        # --ipam-opt conflict_detection=strict.
        _log.warn(
            "address {address}: allocated without knowing whether it is in use on {parent} ({reason}; "
            "{number} such addresses since the plugin started)",
            address=address,
            parent=parent or "any parent",
            reason=reason,
            number=self.inconclusive,
        )

    def close(self) -> None:
        self.monitors.close()

    def _forget_parent(self, parent: str) -> None:
        """The parent has no user any more: forget the other hosts on its LAN."""
        self.monitors.end(parent)
        self._holders = {key: holder for key, holder in self._holders.items() if key[0] != parent}
        self.table.forget_within(parent)

    def lost(self, parent: str, address: IPAddress, mac: str) -> None:
        self.table.have(parent, address, mac, "took it while it was held for a container")
        held = self._holders.get((parent, address))
        if held is not None:
            held.on_lost(parent, address)

    def parent_mac(self, parent: str) -> str:
        return self._sockets.of(parent).parent_mac

    def contested(self, parent: str, address: IPAddress, ours: str, theirs: str) -> None:
        assigned = self._assigned.get((parent, address))
        is_hosts = assigned is not None and assigned.is_hosts
        # Cause: another host on the LAN uses the same address. HOLDER is the container, or the host for its own
        # address. Remedy: find the other host by its MAC and give one of the two another address; keep the addresses
        # of other hosts and the router's DHCP range out of --ip-range.
        _log.error(
            "address {address}: conflict on {parent}, in use by {holder} (MAC {mac}) and by another host (MAC "
            "{other_mac}); change the address of {holder} or of that host",
            address=address,
            holder="the host" if is_hosts else self._user_of(parent, address),
            mac=ours,
            other_mac=theirs,
            parent=parent,
        )
        self.table.use(parent, address, theirs, ours)


@frozen
class _Observer:
    """Passes the reports of one parent's monitor on, with the parent's name."""

    conflicts: Conflicts
    parent: str

    def contested(self, address: IPAddress, our_mac: str, foreign_mac: str) -> None:
        self.conflicts.contested(self.parent, address, our_mac, foreign_mac)

    def lost(self, address: IPAddress, mac: str) -> None:
        self.conflicts.lost(self.parent, address, mac)

    def host_mac(self) -> str:
        return self.conflicts.parent_mac(self.parent)


__all__ = ["RETRY_SECONDS", "Conflict", "Conflicts", "Free", "Holder", "InUse", "Inconclusive", "Verdict"]
