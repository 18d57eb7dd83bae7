"""
The host reaches its containers, and they reach it: addresses of the host on our own link, and a route per container.

Nothing here knows of Docker: who uses a parent is a name, and who is reached is a name with addresses.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable, Mapping
from ipaddress import ip_interface

from twisted.internet.defer import ensureDeferred
from twisted.logger import Logger

from ..addresses import IPAddress, IPInterface
from ..errors import LinkError, MacvlanError, RequestRefused
from ..keyed_lock import KeyedLock
from ..netlink.kernel import HostRoute
from ..netlink.links import Links
from .conflicts import Conflicts
from .host_link import HostLink, HostLinks

_log = Logger(namespace="macvlan_twisted.lan")

ROUTE_PROTOCOL = 142
"""Whose the routes are (``ip route show proto 142``): none of the kernel's, nor of a routing daemon that registered."""


class HostRoutes:
    """The host's addresses on each parent by network, and its routes by endpoint; filled from state at start."""

    def __init__(self, links: Links, host_links: HostLinks, conflicts: Conflicts) -> None:
        self._links = links
        self._host_links = host_links
        self._conflicts = conflicts
        self._locks = KeyedLock()
        self._addresses: dict[str, dict[str, tuple[IPAddress, ...]]] = {}
        """By parent, then by network."""
        self._reached: dict[str, tuple[str, tuple[tuple[IPAddress, IPAddress], ...]]] = {}
        """By endpoint: the parent, and each address of the container with the host's that talks to it."""
        self._missing: dict[HostRoute, str] = {}
        """By route: the parent. Routes that could not be made, while their containers run."""
        self._trying: set[str] = set()
        host_links.when_made = self._again

    def addresses_on(self, parent: str) -> tuple[IPAddress, ...]:
        """The host's addresses for containers on *parent*."""
        wanted = self._addresses.get(parent, {}).values()
        return tuple(dict.fromkeys(address for addresses in wanted for address in addresses))

    def refuse_hosts_own(self, parent: str, address: IPAddress) -> None:
        """
        :raises Refused: *address* is the host's own on *parent*, and is to be a container's.
        """
        if address in self.addresses_on(parent):
            raise RequestRefused(
                f"address {address} is that of the host itself on parent {parent} (-o host_access): choose another one, "
                f"and create the network with --aux-address host={address}, so that it is never handed out"
            )

    # Networks.

    def remember(self, parent: str, network: str, addresses: tuple[IPAddress, ...]) -> None:
        """At start: what :meth:`grant` did in an earlier life."""
        self._addresses.setdefault(parent, {})[network] = addresses

    async def _watch_over(self, link: HostLink) -> None:
        """
        Others that use an address of the host's are told of, as with containers. Linux answers neighbours for it by the
        parent, too, unless the host's own ``arp_ignore`` forbids that.
        """
        nic = await self._links.find(link.parent)
        for address in self.addresses_on(link.parent):
            self._conflicts.given(link.parent, address, link.mac, "" if nic is None else nic.mac)

    async def grant(self, parent: str, network: str, addresses: tuple[IPAddress, ...]) -> None:
        """
        Let the host have *addresses* on *parent*.

        :raises LinkError: the kernel refuses; call :meth:`withdraw` to undo it.
        """
        self.remember(parent, network, addresses)
        await self._watch_over(await self._host_links.give(parent, self._on_link(parent)))

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
                self._conflicts.gone(parent, address)
        await self._host_links.leave_with(parent, self._on_link(parent))

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
        Make the host's routes to a container's addresses, each from the host's address of its family.

        :raises LinkError: the kernel refuses, or the host has another route to one of them; then none is left.
        """
        before = self._reached.get(endpoint)
        pairs = pairs_of(containers, hosts)
        self._reached[endpoint] = (parent, pairs)
        try:
            if pairs:
                link = await self._link_on(parent)
                for destination, source in pairs:
                    async with self._locks.acquire(str(destination)):
                        await self._links.add_host_route(_route(link, destination, source))
        except BaseException:
            if before is None:
                self._reached.pop(endpoint, None)
            else:
                self._reached[endpoint] = before
            await self._unroute(parent, pairs)  # those that fail are told of in the log
            raise
        if before is not None and before != (parent, pairs):
            await self._unroute(*before)
        self._try_missing(parent)

    async def _link_on(self, parent: str) -> HostLink:
        """Our link with the host's addresses, also where it was removed, and made anew for another purpose."""
        wanted = self._on_link(parent)
        known = self._host_links.known.get(parent)
        if known is None or known.addresses != wanted:
            return await self._host_links.give(parent, wanted)
        return await self._host_links.ensure(parent)

    async def forget(self, endpoint: str) -> None:
        """
        Remove the routes to a container. Succeeds when there are none.

        :raises LinkError: the kernel refuses; what can be removed is.
        """
        failures = await self._unroute(*self._reached.pop(endpoint, ("", ())))
        if failures:
            raise failures[0]

    async def _unroute(self, parent: str, pairs: Iterable[tuple[IPAddress, IPAddress]]) -> list[MacvlanError]:
        """Remove routes that no container is reached by any more; another one may need it from its own address."""
        failures = []
        needed = []
        for destination, source in pairs:
            async with self._locks.acquire(str(destination)):
                link = self._host_links.known.get(parent)
                if link is None:
                    continue
                if self._is_reached(parent, destination):
                    needed += [
                        each
                        for each in self._routes_by(link)
                        if each.destination == destination and each.source != source
                    ]
                    continue
                try:
                    await self._links.delete_host_route(_route(link, destination, source))
                except MacvlanError as failure:
                    failures.append(failure)
                    _log.error("{reason}", reason=str(failure))
        for route in needed:
            await self._try_route(parent, route)
        return failures

    def _is_reached(self, parent: str, destination: IPAddress) -> bool:
        """Whether another endpoint has the address: the engine forgets some, and gives their addresses anew."""
        return any(
            other == parent and any(destination == each for each, _ in pairs)
            for other, pairs in self._reached.values()
        )

    async def _again(self, link: HostLink) -> None:
        """The link was made, perhaps again: nothing hangs on it but its addresses."""
        await self._watch_over(link)
        for route in self._routes_by(link):
            await self._try_route(link.parent, route)

    def _routes_by(self, link: HostLink) -> set[HostRoute]:
        return {
            _route(link, destination, source)
            for parent, pairs in self._reached.values()
            if parent == link.parent
            for destination, source in pairs
        }

    async def _try_route(self, parent: str, route: HostRoute) -> None:
        """One container that cannot be reached is no reason to reach none; it is told of once."""
        try:
            async with self._locks.acquire(str(route.destination)):
                if self._is_reached(parent, route.destination):  # or it has gone meanwhile
                    await self._links.add_host_route(route)
        except LinkError as failure:
            if route not in self._missing:
                _log.error(
                    "the container with address {address} is not reached from the host: {reason}",
                    address=route.destination,
                    reason=str(failure),
                )
            self._missing[route] = parent
        else:
            if self._missing.pop(route, None) and self._is_reached(parent, route.destination):
                _log.info("the container with address {address} is reached again", address=route.destination)

    def _try_missing(self, parent: str) -> None:
        """What was in the way of a route may have gone; nobody waits for it."""
        if parent in self._missing.values() and parent not in self._trying:
            self._trying.add(parent)
            tried = ensureDeferred(self._tried_missing(parent))
            tried.addErrback(lambda failure: _log.failure("making routes failed", failure=failure))
            tried.addBoth(lambda _: self._trying.discard(parent))

    async def _tried_missing(self, parent: str) -> None:
        for route in [each for each, where in self._missing.items() if where == parent]:
            await self._try_route(parent, route)

    async def restore(
        self, containers: Mapping[str, tuple[str, tuple[IPAddress, ...], tuple[IPAddress, ...]]]
    ) -> None:
        """
        At start: make kernel and state agree.

        :param containers: by endpoint, what :meth:`reach` was told: the parent, the container's and the host's
            addresses.
        """
        for endpoint, (parent, addresses, hosts) in containers.items():
            pairs = pairs_of(addresses, hosts)
            if pairs:
                self._reached[endpoint] = (parent, pairs)
        for parent in {*self._addresses, *self._host_links.known}:
            try:
                await self._restore(parent)
            except MacvlanError as error:
                if isinstance(error, LinkError) and error.errno == errno.ENODEV:
                    continue  # told of by those who wait for the parent
                _log.warn(
                    "access from the host waits for parent {parent}: {reason}",
                    parent=parent,
                    reason=str(error),
                )

    async def _restore(self, parent: str) -> None:
        addresses = self._on_link(parent)
        if addresses:
            await self._host_links.give(parent, addresses)
        else:
            await self._host_links.leave_with(parent, addresses)
        await self._route_by(self._host_links.known.get(parent))

    async def mend(self, parent: str) -> None:
        """
        Undo what others have done to our link, its addresses and the routes by it; what fails for one container is
        logged.

        :raises LinkError: the parent is not there, or the kernel refuses the link or an address.
        """
        await self._route_by(await self._host_links.mend(parent))

    async def _route_by(self, link: HostLink | None) -> None:
        if link is None:
            return
        await self._watch_over(link)
        present = set(await self._links.host_routes(link.name, ROUTE_PROTOCOL))
        wanted = self._routes_by(link)
        for route in present - wanted:
            await self._drop_route(link.parent, route)
        # Of two that have the same address the one that came last has the route, and an engine has forgotten the other.
        made = {each.destination for each in present & wanted}
        for route in wanted - present:
            if route.destination not in made:
                await self._try_route(link.parent, route)

    async def _drop_route(self, parent: str, route: HostRoute) -> None:
        try:
            async with self._locks.acquire(str(route.destination)):
                if not self._is_reached(parent, route.destination):  # else it is replaced
                    await self._links.delete_host_route(route)
        except LinkError as failure:
            _log.error("{reason}", reason=str(failure))


def pairs_of(
    containers: Iterable[IPAddress], hosts: Iterable[IPAddress]
) -> tuple[tuple[IPAddress, IPAddress], ...]:
    """Each address of a container with that of the host which is of its family, if there is one."""
    by_version = {host.version: host for host in hosts}
    return tuple((each, by_version[each.version]) for each in containers if each.version in by_version)


def _route(link: HostLink, destination: IPAddress, source: IPAddress) -> HostRoute:
    return HostRoute(destination, link.name, source, ROUTE_PROTOCOL)
