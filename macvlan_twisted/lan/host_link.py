"""
Our own link on a parent: by it the host reaches containers, and what we say on the LAN reaches siblings.

A macvlan link and its parent do not hear each other, and what is sent by the parent does not reach the macvlan links
on it. So both need a bridge-mode link of ours beside those of the containers; one a parent serves both.
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

_KEPT_OFF = {
    # Only who asks for an address of this very link is answered: else the LAN would see two MACs for the host's own.
    "ipv4/arp_ignore": "1",
    "ipv4/arp_announce": "2",
    # Who comes by our link has a route back by it, or is none of those who were given access.
    "ipv4/rp_filter": "1",
    # A new link of the host gathers advertised addresses and a second default route unless told not to (measured).
    "ipv6/accept_ra": "0",
    "ipv6/autoconf": "0",
    "ipv6/addr_gen_mode": "1",
}


@frozen
class HostLink:
    """Our link on one parent; kept in state, so a new member needs a default."""

    parent: str
    name: str
    mac: str
    addresses: tuple[IPInterface, ...] = ()
    """The host's addresses for its containers, each with a full-length prefix; none if nobody asked for access."""


class LinkRoutes(Protocol):
    """What has to be on a link besides its addresses: :class:`~macvlan_twisted.lan.container_routes.ContainerRoutes`."""

    async def add_all(self, link: HostLink) -> None:
        """Add the routes by *link*, which was just made, perhaps again: it has none."""


class HostLinks:
    """
    Makes and removes them; a row says so before the kernel is touched.

    :param known: by parent; filled from state.
    """

    def __init__(
        self, links: Links, records: HostRecords, known: dict[str, HostLink], routes: LinkRoutes
    ) -> None:
        self._links = links
        self._records = records
        self._known = known
        self._routes = routes
        self._locks = KeyedLock()
        self._finished: set[str] = set()
        """Names of links that were made in this life, or looked after: an earlier one may have been killed half-way."""

    @property
    def known(self) -> Mapping[str, HostLink]:
        """By parent; also those whose parent is away."""
        return self._known

    def exists(self, parent: str) -> bool:
        known = self._known.get(parent)
        return known is not None and self._links.exists(known.name)

    async def ensure(self, parent: str, anew: bool = False) -> HostLink:
        """
        Make the link on *parent* if it is not there, with the addresses that it is to have.

        :param anew: the parent may be another link than before.
        :raises LinkError: with EINVAL where another link has the parent for itself (passthru).
        """
        async with self._locks.acquire(parent):
            link = self._known.get(parent) or await self._begun(parent)
            if anew:
                self._finished.discard(link.name)
            return await self._ensured(link)

    def name_on(self, parent: str) -> str:
        """How our link on *parent* is called, or would be."""
        return host_link_name(self._records.instance, parent)

    def mac_on(self, parent: str) -> str:
        """The MAC of our link on *parent*, whether it is there or not."""
        known = self._known.get(parent)
        return mac_from_name(self._records.instance, parent) if known is None else known.mac

    async def is_astray(self, parent: str) -> bool:
        """Whether our link hangs on another one, whose name *parent* was before."""
        link = self._known.get(parent)
        present = None if link is None else await self._links.find(link.name)
        nic = None if present is None else await self._links.find(parent)
        return (
            present is not None
            and nic is not None
            and present.lower_index != nic.index
            and self._links.is_ours(present)
        )

    async def _begun(self, parent: str) -> HostLink:
        link = HostLink(parent, self.name_on(parent), self.mac_on(parent))
        try:
            await self.save(link)
        except StateError:  # the next one has to try again, for a link without a row would be made
            del self._known[parent]
            raise
        return link

    async def _ensured(self, link: HostLink) -> HostLink:
        is_looked_at = link.name not in self._finished and self._links.exists(link.name)
        if is_looked_at and await self.is_astray(link.parent):
            _log.warn(
                "our link {link} is made again on parent {parent}, for another link has that name now",
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
        elif link.name not in self._finished:
            await self._finish(link)
        return link

    async def give(self, parent: str, addresses: tuple[IPInterface, ...]) -> HostLink:
        """
        Let the link on *parent*, which is made if it is not there, have *addresses* and no others.

        :raises LinkError: the kernel refuses; call :meth:`leave_with` to undo it.
        """
        async with self._locks.acquire(parent):
            link = await self._noted(self._known.get(parent) or await self._begun(parent), addresses)
            is_finished = link.name in self._finished and self._links.exists(link.name)
            await self._ensured(link)
            if is_finished:
                await self._address(link)
            return link

    async def mend(self, parent: str) -> HostLink | None:
        """
        What others have done to the link on *parent* is undone; nothing is made where we have none.

        :raises LinkError: the parent is not there, or the kernel refuses.
        """
        async with self._locks.acquire(parent):
            link = self._known.get(parent)
            if link is not None:
                self._finished.discard(link.name)
                await self._ensured(link)
            return link

    async def leave_with(self, parent: str, addresses: tuple[IPInterface, ...]) -> None:
        """Take all but *addresses* from the link; succeeds when there is none."""
        async with self._locks.acquire(parent):
            link = self._known.get(parent)
            if link is None:
                return
            link = await self._noted(link, addresses)
            if self._links.exists(link.name):
                await self._address(link)

    async def _noted(self, link: HostLink, addresses: tuple[IPInterface, ...]) -> HostLink:
        wanted = evolve(link, addresses=addresses)
        if wanted != link:
            await self.save(wanted)
        return wanted

    async def _address(self, link: HostLink) -> None:
        """What the kernel has is asked for: an earlier life may have been killed half-way."""
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
        """Keep what is to be; in memory once it is on disk."""
        self._known.setdefault(link.parent, link)  # from now on the link is known as ours, whatever happens
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
        _log.info("host link created: {link} on parent {parent}", link=link.name, parent=link.parent)

    async def _finish(self, link: HostLink) -> None:
        await self._links.configure(link.name, _KEPT_OFF)
        await self._links.set_up(link.name)
        await self._address(link)
        self._finished.add(link.name)

    async def remove(self, parent: str) -> None:
        """Remove the link on *parent* and what hangs on it; succeeds when there is none."""
        async with self._locks.acquire(parent):
            link = self._known.get(parent)
            if link is None:
                return
            # Not condemned: its name is needed when the parent is used again, perhaps at once. Its row stays while it does:
            # a link of ours without one proves that state is older than the link.
            present = await self._links.find(link.name)
            if present is not None and self._links.is_ours(present):
                await self._links.delete(link.name)
            await self._forget(link)
        _log.info("unused link removed: {link} of parent {parent}", link=link.name, parent=parent)

    async def _forget(self, link: HostLink) -> None:
        """A row too many is dropped at the next start, and the first error is the one to tell."""
        self._known.pop(link.parent, None)
        try:
            await self._records.forget(RecordKind.HOST_LINK, link.parent)
        except StateError as failure:
            _log.error("the row of link {link} stays: {reason}", link=link.name, reason=str(failure))


def is_for_itself(failure: LinkError) -> bool:
    """Whether a parent took no link of ours because another one has it for itself."""
    return failure.errno in (errno.EINVAL, errno.EBUSY)
