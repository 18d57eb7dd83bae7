"""
The host reaches its containers, and they reach it: the host's addresses on our own link, and a route per container.

Networks and endpoints are names here; nothing knows of Docker.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable, Mapping
from ipaddress import ip_interface

from twisted.logger import Logger

from ..addresses import IPAddress, IPInterface
from ..errors import LinkError, MacvlanError, RequestRefused
from .conflicts import Conflicts
from .container_routes import ROUTE_PROTOCOL, ContainerRoutes, pairs_of
from .host_link import HostLink, HostLinks

_log = Logger(namespace="macvlan_twisted.lan")


class HostRoutes:
    """The host's addresses on each parent by network, and its routes by endpoint; filled from the state at start."""

    def __init__(self, host_links: HostLinks, routes: ContainerRoutes, conflicts: Conflicts) -> None:
        self._host_links = host_links
        self._routes = routes
        self._conflicts = conflicts
        self._addresses: dict[str, dict[str, tuple[IPAddress, ...]]] = {}
        """By parent, then by network."""

    def addresses_on(self, parent: str) -> tuple[IPAddress, ...]:
        """The host's addresses for containers on *parent*."""
        wanted = self._addresses.get(parent, {}).values()
        return tuple(dict.fromkeys(address for addresses in wanted for address in addresses))

    def refuse_hosts_own(self, parent: str, address: IPAddress) -> None:
        """
        :raises RequestRefused: *address* is the host's own on *parent*, and is to be a container's.
        """
        if address in self.addresses_on(parent):
            raise RequestRefused(
                f"address {address} is the host's own address on parent {parent} (-o host_access): use another --ip; to "
                f"reserve {address} permanently, create the network again with --aux-address host={address}"
            )

    # Networks.

    def remember(self, parent: str, network: str, addresses: tuple[IPAddress, ...]) -> None:
        """At start: what :meth:`grant` did in an earlier life."""
        self._addresses.setdefault(parent, {})[network] = addresses

    def _watch_for_conflicts(self, parent: str) -> None:
        for address in self.addresses_on(parent):
            self._conflicts.assign(parent, address, self._host_links.mac_on(parent), is_hosts=True)

    async def grant(self, parent: str, network: str, addresses: tuple[IPAddress, ...]) -> None:
        """
        Let the host have *addresses* on *parent*.

        :raises LinkError: the kernel refuses; call :meth:`withdraw` to undo it.
        """
        self.remember(parent, network, addresses)
        await self._host_links.set_addresses(parent, self._on_link(parent))
        self._watch_for_conflicts(parent)

    async def withdraw(self, parent: str, network: str) -> None:
        """Take the addresses that no other network needs. Succeeds when there was no such network."""
        networks = self._addresses.get(parent, {})
        withdrawn = networks.pop(network, None)
        if withdrawn is None:
            return
        if not networks:
            del self._addresses[parent]
        for address in withdrawn:
            if address not in self.addresses_on(parent):
                self._conflicts.unassign(parent, address)
        await self._host_links.remove_other_addresses(parent, self._on_link(parent))

    def _on_link(self, parent: str) -> tuple[IPInterface, ...]:
        """With a full-length prefix, so that the kernel makes no route to the subnet by our link."""
        return tuple(ip_interface(f"{each}/{each.max_prefixlen}") for each in self.addresses_on(parent))

    # Containers.

    async def reach(
        self,
        parent: str,
        endpoint: str,
        containers: Iterable[IPAddress],
        hosts: tuple[IPAddress, ...],
    ) -> None:
        """
        Add the host's routes to a container's addresses, each from the host's address of its family.

        :raises LinkError: the kernel refuses, or the host has another route to one of them; then none is left.
        """
        pairs = pairs_of(containers, hosts)
        before = self._routes.set_desired(endpoint, parent, pairs)
        try:
            if pairs:
                await self._routes.add(await self._link_on(parent), pairs)
        except BaseException:
            if before is None:
                self._routes.clear_desired(endpoint)
            else:
                self._routes.set_desired(endpoint, *before)
            await self._routes.remove(parent, pairs)
            raise
        if before is not None and before != (parent, pairs):
            await self._routes.remove(*before)
        self._routes.retry_missing(parent)

    async def _link_on(self, parent: str) -> HostLink:
        """Our link with the host's addresses, also where it was removed, and made again for another purpose."""
        wanted = self._on_link(parent)
        known = self._host_links.known.get(parent)
        if known is None or known.addresses != wanted:
            return await self._host_links.set_addresses(parent, wanted)
        return await self._host_links.ensure(parent)

    async def forget(self, endpoint: str) -> None:
        """
        Remove the routes to a container. Succeeds when there are none.

        :raises LinkError: the kernel refuses; what can be removed is.
        """
        failures = await self._routes.remove(*self._routes.clear_desired(endpoint))
        if failures:
            raise failures[0]

    async def restore(
        self, containers: Mapping[str, tuple[str, tuple[IPAddress, ...], tuple[IPAddress, ...]]]
    ) -> None:
        """
        At start: make kernel and state agree.

        :param containers: by endpoint, the arguments of :meth:`reach`: the parent, the container's and the host's
            addresses.
        """
        for endpoint, (parent, addresses, hosts) in containers.items():
            pairs = pairs_of(addresses, hosts)
            if pairs:
                self._routes.set_desired(endpoint, parent, pairs)
        for parent in {*self._addresses, *self._host_links.known}:
            self._watch_for_conflicts(parent)
            try:
                await self._restore(parent)
            except MacvlanError as error:
                if isinstance(error, LinkError) and error.errno == errno.ENODEV:
                    continue  # ParentStatus logs it
                # Cause: the parent was not usable when the plugin started. Remedy: restore it or bring it up; the
                # host's addresses and routes are then added.
                _log.warn(
                    "parent {parent}: no host access until the parent is usable ({reason})",
                    parent=parent,
                    reason=str(error),
                )

    async def _restore(self, parent: str) -> None:
        addresses = self._on_link(parent)
        if addresses:
            await self._host_links.set_addresses(parent, addresses)
        else:
            await self._host_links.remove_other_addresses(parent, addresses)
        await self._repair_routes(self._host_links.known.get(parent))

    async def mend(self, parent: str) -> None:
        """
        Undo what others have done to our link, its addresses and the routes by it; what fails for one container is
        logged.

        :raises LinkError: the parent is not there, or the kernel refuses the link or an address.
        """
        await self._repair_routes(await self._host_links.mend(parent))

    async def _repair_routes(self, link: HostLink | None) -> None:
        if link is not None:
            self._watch_for_conflicts(link.parent)
            await self._routes.repair(link)


__all__ = ["ROUTE_PROTOCOL", "HostRoutes", "pairs_of"]
