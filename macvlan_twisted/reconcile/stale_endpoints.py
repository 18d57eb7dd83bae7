"""
Endpoints whose container is gone, and which the engine has never had deleted.

The engine tries each call for 15 seconds and then forgets the endpoint (docs/reference/protocol). An endpoint that might
be in use stays.
"""

from __future__ import annotations

from collections.abc import Mapping

from attrs import frozen
from twisted.logger import Logger

from ..addresses import IPAddress
from ..driver.endpoints import EndpointRemoval
from ..driver.macvlan_links import MacvlanLinks
from ..driver.models import Endpoint
from ..driver.registry import Registry
from ..errors import LinkError
from ..last_seen import ENGINE_PATIENCE, EngineCalls
from ..link_names import alias_of, probe_link_name
from ..netlink.links import Links
from ..option_values import MacvlanMode
from .engine_snapshot import EngineSnapshot

_log = Logger(namespace="macvlan_twisted.driver")


@frozen
class StaleEndpoint:
    endpoint: Endpoint
    why: str
    idle: float
    """Seconds for which the engine must not have mentioned it."""


class StaleEndpoints:
    """
    Finds and removes them. An endpoint is stale if one of these holds:

    - its link is in the host's namespace, and down;
    - the engine lists the network without the endpoint;
    - no engine answers, and no namespace has its link or its MAC.

    A link that is seen in a container, up or down, always proves that the endpoint is alive.

    :param calls: of endpoints.
    """

    def __init__(
        self,
        registry: Registry,
        links: Links,
        macvlan_links: MacvlanLinks,
        removal: EndpointRemoval,
        calls: EngineCalls,
    ) -> None:
        self._registry = registry
        self._links = links
        self._macvlan_links = macvlan_links
        self._removal = removal
        self._calls = calls

    async def find(
        self, snapshot: EngineSnapshot, idle: float, unlisted: float
    ) -> Mapping[str, StaleEndpoint]:
        """
        Those that look stale now, by endpoint.

        :param idle: seconds for which the engine must not have mentioned them.
        :param unlisted: seconds that are enough where the engine lists the network without the endpoint, and the kernel shows
            that no container has the link.
        """
        found = {}
        away = []
        for endpoint in list(self._registry.endpoints.values()):
            enough = unlisted if snapshot.lists(endpoint) is False else idle
            if self._calls.last_seen.idle_for(endpoint.endpoint_id) < enough or snapshot.lists(endpoint):
                continue
            if not self._links.exists(endpoint.link):
                away.append(endpoint)
            elif await self._is_left_in_host(endpoint):
                why = "its link came back from the container"
                found[endpoint.endpoint_id] = StaleEndpoint(endpoint, why, enough)
        if not away:
            return found
        try:
            elsewhere = await self._macvlan_links.marks_elsewhere()
        except LinkError as failure:
            _log.debug(
                "endpoints: not removed, links in other network namespaces cannot be listed ({reason})",
                reason=str(failure),
            )
            return found
        for endpoint in away:
            if elsewhere is not None and self._macvlan_links.is_among(endpoint, elsewhere):
                continue
            is_proven = snapshot.lists(endpoint) is False and elsewhere is not None
            enough = unlisted if is_proven else idle
            if self._calls.last_seen.idle_for(endpoint.endpoint_id) < enough:
                continue
            if snapshot.lists(endpoint) is False:
                why = "the engine does not know it any more"
            elif elsewhere is not None and endpoint.network_id not in self._registry.networks:
                why = "neither its network nor its link is there"  # a row that the disk refused to erase
            elif elsewhere is not None and await self._is_mac_free(endpoint):
                why = "its link is in no network namespace any more"
            else:
                continue
            found[endpoint.endpoint_id] = StaleEndpoint(endpoint, why, enough)
        return found

    async def _is_left_in_host(self, endpoint: Endpoint) -> bool:
        """Whether no container has the link: the engine moves it within a second of Join, and brings it up there."""
        link = await self._links.find(endpoint.link)
        return link is not None and self._links.is_ours(link) and not link.up

    async def _is_mac_free(self, endpoint: Endpoint) -> bool:
        """
        Whether no link on the parent that is up has the endpoint's MAC, in any namespace, even one to which the link was
        moved from a container's.
        """
        network = self._registry.networks.get(endpoint.network_id)
        if network is None or network.mode == MacvlanMode.PASSTHRU or endpoint.mac is None:
            return False
        port = network.macvlan_link(
            probe_link_name(network.network_id),
            self._links.group,
            alias_of(self._registry.instance, "trial", network.network_id),
            endpoint.mac,
        )
        # While the trial link is up, no other link with the MAC can be brought up. A successor waits for the lock.
        async with self._calls.locks.acquire(endpoint.endpoint_id):
            try:
                await self._links.add_macvlan(port, prove_mac_free=True)
            except LinkError:  # in use, or the parent is not there: unknown
                return False
            await self._links.delete(port.name)
        return True

    async def remove_previous(self, network_id: str | None, parent: str, address: IPAddress) -> bool:
        """See :class:`~macvlan_twisted.ipam.address_use.PreviousEndpoints`."""
        for endpoint in list(self._registry.endpoints.values()):
            if endpoint.parent != parent or address not in endpoint.known_addresses:
                continue
            if endpoint.network_id != (network_id or endpoint.network_id):
                return False
            if self._calls.last_seen.mentioned_within(endpoint.endpoint_id, ENGINE_PATIENCE):
                return False  # Join may be about to come
            if not await self._is_without_container(endpoint) or not await self._removal.drop(
                endpoint, 0, "its container starts again"
            ):
                return False
        return True

    async def _is_without_container(self, endpoint: Endpoint) -> bool:
        if self._links.exists(endpoint.link):
            return await self._is_left_in_host(endpoint)
        try:
            elsewhere = await self._macvlan_links.marks_elsewhere()
        except LinkError as failure:
            _log.debug(
                "endpoint {endpoint}: not removed, because its link may be in a container ({reason})",
                endpoint=endpoint.short_id,
                reason=str(failure),
            )
            return False
        return elsewhere is not None and not self._macvlan_links.is_among(endpoint, elsewhere)

    async def drop(self, stale: StaleEndpoint) -> bool:
        """
        Remove an endpoint with its link, its lease and its routes. Its addresses are free once they have been orphaned for
        a while.

        :raises MacvlanError: the next reconciliation tries again.
        """
        endpoint = stale.endpoint
        return await self._removal.drop(endpoint, stale.idle, stale.why)
