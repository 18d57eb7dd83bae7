"""
Our own link on a parent. By it the host reaches containers, and our frames reach the siblings on the parent.

A macvlan link and its parent do not reach each other. So both purposes need a bridge-mode link of ours beside those of the
containers; one link on each parent serves both.
"""

from __future__ import annotations

import errno
from collections.abc import Mapping
from typing import Protocol

from attrs import evolve, frozen
from twisted.logger import Logger

from ..addresses import IPInterface
from ..errors import LinkError, StateError
from ..keyed_lock import KeyedLock
from ..link_names import alias_of, host_link_name
from ..macs import mac_from_name
from ..netlink.kernel import MacvlanLink
from ..netlink.links import Links
from ..option_values import MacvlanMode
from ..state.interfaces import HostRecords, RecordKind
from ..state.serialize import to_document

_log = Logger(namespace="macvlan_twisted.lan")

_SYSCTLS = {
    # Answer for addresses of this link only: else the LAN would see two MACs for the host's own address.
    "ipv4/arp_ignore": "1",
    "ipv4/arp_announce": "2",
    # Drop packets whose source has no route by this link: it is not a container with access.
    "ipv4/rp_filter": "1",
    # By default, a new link acquires advertised addresses and a second default route (measured).
    "ipv6/accept_ra": "0",
    "ipv6/autoconf": "0",
    "ipv6/addr_gen_mode": "1",
}


@frozen
class HostLink:
    """Our link on one parent. It is saved, so a new field needs a default."""

    parent: str
    name: str
    mac: str
    addresses: tuple[IPInterface, ...] = ()
    """The host's addresses for its containers, each with a full-length prefix; none without host access."""


class LinkRoutes(Protocol):
    """What has to be on a link besides its addresses: :class:`~macvlan_twisted.lan.container_routes.ContainerRoutes`."""

    async def add_all(self, link: HostLink) -> None:
        """Add the routes by *link*, which was just made, perhaps again: it has none."""


class HostLinks:
    """
    Makes and removes our links; the row is written before the kernel is touched.

    :param known: by parent; filled from the state.
    """

    def __init__(
        self, links: Links, records: HostRecords, known: dict[str, HostLink], routes: LinkRoutes
    ) -> None:
        self._links = links
        self._records = records
        self._known = known
        self._routes = routes
        self._locks = KeyedLock()
        self._checked: set[str] = set()
        """Names of links that were made or checked in this life: an earlier life may have been killed half-way."""

    @property
    def known(self) -> Mapping[str, HostLink]:
        """By parent, also those whose parent is away."""
        return self._known

    def exists(self, parent: str) -> bool:
        known = self._known.get(parent)
        return known is not None and self._links.exists(known.name)

    async def ensure(self, parent: str, anew: bool = False) -> HostLink:
        """
        Make the link on *parent* if it is not there, with its addresses.

        :param anew: check the link, since the parent may be another one than before.
        :raises LinkError: with EINVAL if another link has the parent for itself (passthru).
        """
        async with self._locks.acquire(parent):
            link = self._known.get(parent) or await self._begin(parent)
            if anew:
                self._checked.discard(link.name)
            return await self._ensure(link)

    def name_on(self, parent: str) -> str:
        """The name of our link on *parent*, whether it is there or not."""
        return host_link_name(self._records.instance, parent)

    def mac_on(self, parent: str) -> str:
        """The MAC of our link on *parent*, whether it is there or not."""
        known = self._known.get(parent)
        return mac_from_name(self._records.instance, parent) if known is None else known.mac

    async def is_astray(self, parent: str) -> bool:
        """Whether our link is on another parent, which was called *parent* before."""
        link = self._known.get(parent)
        present = None if link is None else await self._links.find(link.name)
        nic = None if present is None else await self._links.find(parent)
        return (
            present is not None
            and nic is not None
            and present.lower_index != nic.index
            and self._links.is_ours(present)
        )

    async def _begin(self, parent: str) -> HostLink:
        link = HostLink(parent, self.name_on(parent), self.mac_on(parent))
        try:
            await self.save(link)
        except StateError:  # else the next call would make a link without a row
            del self._known[parent]
            raise
        return link

    async def _ensure(self, link: HostLink) -> HostLink:
        is_unchecked = link.name not in self._checked and self._links.exists(link.name)
        if is_unchecked and await self.is_astray(link.parent):
            # Cause: NICs were renamed. Running containers stay on the NIC that had the name before. Remedy:
            # restart those containers, or rename the NICs back.
            _log.warn(
                "host link {link}: created again on parent {parent}, which is another NIC now",
                link=link.name,
                parent=link.parent,
            )
            await self._links.delete(link.name)
        if not self._links.exists(link.name):
            try:
                await self._make(link)
            except BaseException:
                if not link.addresses and not self._links.exists(link.name):
                    await self._forget(link)
                raise
        elif link.name not in self._checked:
            await self._finish(link)
        return link

    async def set_addresses(self, parent: str, addresses: tuple[IPInterface, ...]) -> HostLink:
        """
        Set the addresses of the link on *parent*, which is made if it is not there.

        :raises LinkError: the kernel refuses; call :meth:`remove_other_addresses` to undo it.
        """
        async with self._locks.acquire(parent):
            link = await self._save_addresses(self._known.get(parent) or await self._begin(parent), addresses)
            is_checked = link.name in self._checked and self._links.exists(link.name)
            await self._ensure(link)
            if is_checked:
                await self._set_addresses(link)
            return link

    async def mend(self, parent: str) -> HostLink | None:
        """
        Undo what other programs did to the link on *parent*. Succeeds if we have none.

        :raises LinkError: the parent is not there, or the kernel refuses.
        """
        async with self._locks.acquire(parent):
            link = self._known.get(parent)
            if link is not None:
                self._checked.discard(link.name)
                await self._ensure(link)
            return link

    async def remove_other_addresses(self, parent: str, addresses: tuple[IPInterface, ...]) -> None:
        """Remove all addresses but *addresses* from the link. Succeeds if there is none."""
        async with self._locks.acquire(parent):
            link = self._known.get(parent)
            if link is None:
                return
            link = await self._save_addresses(link, addresses)
            if self._links.exists(link.name):
                await self._set_addresses(link)

    async def _save_addresses(self, link: HostLink, addresses: tuple[IPInterface, ...]) -> HostLink:
        wanted = evolve(link, addresses=addresses)
        if wanted != link:
            await self.save(wanted)
        return wanted

    async def _set_addresses(self, link: HostLink) -> None:
        """Compare with the kernel: an earlier life may have been killed half-way."""
        has_ipv6 = any(each.version == 6 for each in link.addresses)
        await self._links.configure(link.name, {"ipv6/disable_ipv6": "0" if has_ipv6 else "1"})
        present = await self._links.addresses_of(link.name)
        for address in present:
            if address not in link.addresses and not address.is_link_local:
                await self._links.delete_address(link.name, address)
        for address in link.addresses:
            if address not in present:
                await self._links.add_address(link.name, address)

    async def save(self, link: HostLink) -> None:
        """Save the wanted link; it is in memory once it is on disk."""
        self._known.setdefault(link.parent, link)  # the link counts as ours even if saving fails
        await self._records.save(RecordKind.HOST_LINK, link.parent, to_document(link))
        self._known[link.parent] = link

    async def _make(self, link: HostLink) -> None:
        port = MacvlanLink(
            name=link.name,
            parent=link.parent,
            mode=MacvlanMode.BRIDGE,
            group=self._links.group,
            alias=alias_of(self._records.instance, "host", link.parent),
            mac=link.mac,
        )
        await self._links.add_macvlan(port)
        try:
            await self._finish(link)
            await self._routes.add_all(link)
        except BaseException:
            await self._links.delete(link.name)
            raise
        _log.debug("host link {link}: created on parent {parent}", link=link.name, parent=link.parent)

    async def _finish(self, link: HostLink) -> None:
        await self._links.configure(link.name, _SYSCTLS)
        await self._links.set_up(link.name)
        await self._set_addresses(link)
        self._checked.add(link.name)

    async def remove(self, parent: str) -> None:
        """Delete the link on *parent*. Succeeds if there is none."""
        async with self._locks.acquire(parent):
            link = self._known.get(parent)
            if link is None:
                return
            # Not retired: its name may be needed at once, when the parent is used again. The row is removed after the link: a
            # link without a row would prove that state is older than the link.
            present = await self._links.find(link.name)
            if present is not None and self._links.is_ours(present):
                await self._links.delete(link.name)
            await self._forget(link)
        _log.debug(
            "host link {link}: removed from parent {parent}, nothing uses it", link=link.name, parent=parent
        )

    async def _forget(self, link: HostLink) -> None:
        """A row too many is dropped at the next start; the first error is the one to report."""
        self._known.pop(link.parent, None)
        try:
            await self._records.erase(RecordKind.HOST_LINK, link.parent)
        except StateError as failure:
            # Cause: writing the state failed. Remedy: free space on the disk of the state directory; the plugin tries
            # again at its next start.
            _log.error(
                "host link {link}: cannot be deleted from the state ({reason})",
                link=link.name,
                reason=str(failure),
            )


def is_for_itself(failure: LinkError) -> bool:
    """Whether the kernel refused our link because another one has the parent for itself."""
    return failure.errno in (errno.EINVAL, errno.EBUSY)
