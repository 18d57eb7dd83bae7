"""
The host's routes to containers, one for each address, by our own link on the parent.

An endpoint is a name here; nothing knows of Docker.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from twisted.internet.defer import ensureDeferred
from twisted.logger import Logger

from ..addresses import IPAddress
from ..errors import LinkError, MacvlanError
from ..keyed_lock import KeyedLock
from ..netlink.kernel import HostRoute
from ..netlink.links import Links
from .host_link import HostLink

_log = Logger(namespace="macvlan_twisted.lan")

ROUTE_PROTOCOL = 142
"""Marks our routes (``ip route show proto 142``). The kernel and registered routing daemons use other numbers."""

AddressPairs = tuple[tuple[IPAddress, IPAddress], ...]
"""Each address of a container, with the host's address from which it is reached."""


class ContainerRoutes:
    """
    The routes that are wanted, by endpoint, and their counterparts in the kernel.

    :param host_links: our links, by parent.
    """

    def __init__(self, links: Links, host_links: Mapping[str, HostLink]) -> None:
        self._links = links
        self._host_links = host_links
        self._locks = KeyedLock()
        self._desired: dict[str, tuple[str, AddressPairs]] = {}
        """By endpoint: the parent, and the addresses."""
        self._missing: dict[HostRoute, str] = {}
        """By route that could not be added although its container runs: the parent."""
        self._retrying: set[str] = set()

    async def add(self, link: HostLink, pairs: AddressPairs) -> None:
        """:raises LinkError: the kernel refuses, or the host has another route to one of the addresses."""
        for destination, source in pairs:
            async with self._locks.acquire(str(destination)):
                await self._links.add_host_route(_route(link, destination, source))

    def set_desired(self, endpoint: str, parent: str, pairs: AddressPairs) -> tuple[str, AddressPairs] | None:
        """:return: the routes that *endpoint* was to have before."""
        before = self._desired.get(endpoint)
        self._desired[endpoint] = (parent, pairs)
        return before

    def clear_desired(self, endpoint: str) -> tuple[str, AddressPairs]:
        """:return: the routes that *endpoint* was to have."""
        return self._desired.pop(endpoint, ("", ()))

    async def remove(self, parent: str, pairs: AddressPairs) -> list[MacvlanError]:
        """
        Remove the routes that no endpoint wants any more. Where another endpoint has the address, from another source,
        its route is added instead.

        :return: the failures, which are logged.
        """
        failures: list[MacvlanError] = []
        needed: list[HostRoute] = []
        for destination, source in pairs:
            async with self._locks.acquire(str(destination)):
                link = self._host_links.get(parent)
                if link is None:
                    continue
                if self._is_desired(parent, destination):
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
                    _log_not_removed(destination, failure)
        for route in needed:
            await self._try(parent, route)
        return failures

    async def add_all(self, link: HostLink) -> None:
        """Add the routes by *link*, which was just made, perhaps again. A failure is logged."""
        for route in self._routes_by(link):
            await self._try(link.parent, route)

    async def repair(self, link: HostLink) -> None:
        """Make the kernel's routes by *link* agree with those that are wanted. A failure for one route is logged."""
        present = set(await self._links.host_routes(link.name, ROUTE_PROTOCOL))
        wanted = self._routes_by(link)
        for route in present - wanted:
            await self._remove_unwanted(link.parent, route)
        # The engine forgets some endpoints and allocates their addresses again. Of two routes to the same address the
        # newer one is in the kernel.
        covered = {each.destination for each in present & wanted}
        for route in wanted - present:
            if route.destination not in covered:
                await self._try(link.parent, route)

    def retry_missing(self, parent: str) -> None:
        """Try in the background to add the routes that failed before: what was in their way may have gone."""
        if parent in self._missing.values() and parent not in self._retrying:
            self._retrying.add(parent)
            retried = ensureDeferred(self._retry_missing(parent))
            retried.addErrback(
                lambda failure: _log.failure("host routes: adding them failed", failure=failure)
            )
            retried.addBoth(lambda _: self._retrying.discard(parent))

    async def _retry_missing(self, parent: str) -> None:
        for route in [each for each, where in self._missing.items() if where == parent]:
            await self._try(parent, route)

    async def _try(self, parent: str, route: HostRoute) -> None:
        """A route that fails does not keep others from being added; it is logged once."""
        try:
            async with self._locks.acquire(str(route.destination)):
                if self._is_desired(parent, route.destination):  # the container may have gone meanwhile
                    await self._links.add_host_route(route)
        except LinkError as failure:
            if route not in self._missing:
                # Cause: usually there is another route to the same address. Remedy: remove that route; the
                # plugin tries again when the next container starts on the parent.
                _log.error(
                    "host route to {address}: cannot be added, the container is not reachable from the host "
                    "({reason})",
                    address=route.destination,
                    reason=str(failure),
                )
            self._missing[route] = parent
        else:
            if self._missing.pop(route, None) and self._is_desired(parent, route.destination):
                _log.info(
                    "host route to {address}: added, the container is reachable from the host again",
                    address=route.destination,
                )

    async def _remove_unwanted(self, parent: str, route: HostRoute) -> None:
        try:
            async with self._locks.acquire(str(route.destination)):
                if not self._is_desired(parent, route.destination):  # else it is replaced
                    await self._links.delete_host_route(route)
        except LinkError as failure:
            _log_not_removed(route.destination, failure)

    def _is_desired(self, parent: str, destination: IPAddress) -> bool:
        """Whether any endpoint has the address: the engine forgets some, and allocates their addresses again."""
        return any(
            other == parent and any(destination == each for each, _ in pairs)
            for other, pairs in self._desired.values()
        )

    def _routes_by(self, link: HostLink) -> set[HostRoute]:
        return {
            _route(link, destination, source)
            for parent, pairs in self._desired.values()
            if parent == link.parent
            for destination, source in pairs
        }


def pairs_of(containers: Iterable[IPAddress], hosts: Iterable[IPAddress]) -> AddressPairs:
    """Each address of a container with the host's address of the same family, where there is one."""
    by_version = {host.version: host for host in hosts}
    return tuple((each, by_version[each.version]) for each in containers if each.version in by_version)


def _route(link: HostLink, destination: IPAddress, source: IPAddress) -> HostRoute:
    return HostRoute(destination, link.name, source, ROUTE_PROTOCOL)


def _log_not_removed(address: IPAddress, failure: MacvlanError) -> None:
    # Cause: the kernel refused. Remedy: none needed; the plugin removes the route at its next start.
    _log.error("host route to {address}: cannot be removed ({reason})", address=address, reason=str(failure))
