"""Addresses, leases and links that no endpoint has: each is found only after it has been orphaned for a while."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping

from attrs import field, frozen
from twisted.logger import Logger

from ..addresses import IPAddress
from ..dhcp.leases import Leases
from ..dhcp.store import LeaseRecord
from ..driver.registry import Registry
from ..ipam.address_use import AddressUse, OrphanedAddress
from ..ipam.pool_registry import PoolRegistry
from ..netlink.links import Links
from .startup import leases_in_use

_log = Logger(namespace="macvlan_twisted.driver")

_OF_CONTAINERS = ("mvt", "mvx")
"""Prefixes of the names of containers' links and of trial links (:mod:`..link_names`)."""


class Since:
    """
    How long something has been true.

    :param seconds: a clock that is never set.
    """

    def __init__(self, seconds: Callable[[], float]) -> None:
        self._seconds = seconds
        self._since: dict[Hashable, float] = {}

    def longer_than(self, seconds: float, current: Iterable[Hashable]) -> set[Hashable]:
        """Those of *current* that were there at each call for so many seconds."""
        now = self._seconds()
        self._since = {each: self._since.get(each, now) for each in current}
        return {each for each, since in self._since.items() if now - since >= seconds}


@frozen
class OrphansFound:
    """What has no endpoint. Two findings are equal only if they are of the same thing, not of its successor."""

    addresses: frozenset[OrphanedAddress] = frozenset()
    leases: Mapping[str, object] = field(factory=dict)
    """By key: an object that differs when the lease is acquired anew."""
    links: Mapping[str, int] = field(factory=dict)
    """By name: the link's index."""


class Orphans:
    """
    Finds and removes them.

    :param seconds: a clock that is never set.
    """

    def __init__(
        self,
        registry: Registry,
        links: Links,
        pools: PoolRegistry,
        address_use: AddressUse,
        leases: Leases,
        seconds: Callable[[], float],
    ) -> None:
        self._registry = registry
        self._links = links
        self._pools = pools
        self._address_use = address_use
        self._leases = leases
        self._leases_since = Since(seconds)
        self._links_since = Since(seconds)
        self._in_use: set[tuple[str, IPAddress]] = set()

    def is_in_use(self, network_id: str, address: IPAddress) -> bool:
        return any(
            address in endpoint.known_addresses for endpoint in self._registry.endpoints_of(network_id)
        )

    def begin(self) -> None:
        """At start: count from now how long addresses have had no endpoint."""
        self._index_endpoints()
        self._address_use.begin(lambda *one: one in self._in_use)

    def _index_endpoints(self) -> None:
        self._in_use = {
            (endpoint.network_id, address)
            for endpoint in self._registry.endpoints.values()
            for address in endpoint.known_addresses
        }

    async def find(self, seconds: float) -> OrphansFound:
        """What has been orphaned for so many seconds."""
        await self._address_use.store_observed()
        self._index_endpoints()
        addresses = self._address_use.orphaned(seconds, lambda *one: one in self._in_use)
        return OrphansFound(
            frozenset(addresses), self._unused_leases(seconds), await self._unused_links(seconds)
        )

    def _unused_leases(self, seconds: float) -> dict[str, object]:
        unused = {(each.key, self._leases.taking(each.key)) for each in self._orphaned_leases()}
        return dict(self._leases_since.longer_than(seconds, unused))  # type: ignore[arg-type]

    def _orphaned_leases(self) -> list[LeaseRecord]:
        leases = self._leases.known()
        used = leases_in_use(leases, self._registry, self._pools.is_allocated) if leases else set()
        return [each for each in leases if each.key not in used]

    async def _unused_links(self, seconds: float) -> dict[str, int]:
        used = {endpoint.link for endpoint in self._registry.endpoints.values()}
        unused = set()
        for name in await self._links.names():
            if name.startswith(_OF_CONTAINERS) and name not in used:
                link = await self._links.find(name)
                if link is not None and self._links.is_ours(link):
                    unused.add((name, link.index))
        return dict(self._links_since.longer_than(seconds, unused))  # type: ignore[arg-type]

    async def release_address(self, orphaned: OrphanedAddress) -> int:
        """:raises MacvlanError: the next reconciliation tries again."""
        if not await self._address_use.release_orphaned(orphaned, self.is_in_use):
            return 0
        _log.info(
            "address {address}: released, no container uses it",
            address=orphaned.address,
        )
        return 1

    async def release_lease(self, key: str, taking: object) -> int:
        """:raises MacvlanError: the next reconciliation tries again."""
        for record in self._orphaned_leases():
            if record.key == key and self._leases.taking(key) is taking:
                _log.info(
                    "DHCP {parent} {mac}: lease of {address} released, no container uses it",
                    parent=record.parent,
                    address=record.binding.address,
                    mac=record.binding.mac,
                )
                await self._leases.release(record.parent, record.binding.mac)
                return 1
        return 0

    async def remove_link(self, name: str, index: int) -> int:
        """:raises MacvlanError: the next reconciliation tries again."""
        link = await self._links.find(name)
        is_used = any(endpoint.link == name for endpoint in self._registry.endpoints.values())
        if is_used or link is None or link.index != index or not self._links.is_ours(link):
            return 0
        if not await self._links.retire(name):
            return 0
        _log.info("link {link}: removed, no endpoint uses it", link=name)
        return 1
