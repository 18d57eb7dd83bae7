"""
Endpoints whose container is gone, without the engine's having told us.

It tries each call for 15 seconds and then forgets the endpoint without a word (docs/reference/protocol). Then there is
nothing to hear, only something to see, and whatever might be in use is kept.
"""

from __future__ import annotations

import errno
from collections.abc import Mapping

from attrs import frozen
from twisted.logger import Logger

from ..driver.endpoints import EndpointRemoval
from ..driver.models import Endpoint
from ..driver.registry import Registry
from ..errors import LinkError
from ..last_seen import EngineCalls
from ..link_names import alias_of, probe_link_name
from ..netlink.links import Links
from ..option_values import MacvlanMode
from .engine_snapshot import EngineSnapshot

_log = Logger(namespace="macvlan_twisted.driver")

_NEVER_SHOWN = (errno.EOPNOTSUPP, errno.EINVAL, errno.EPERM, errno.EACCES)
"""With these a kernel before 5.0 answers, or one that grants us no right to see links elsewhere."""


@frozen
class StaleEndpoint:
    endpoint: Endpoint
    why: str


class StaleEndpoints:
    """
    Three prove it: the link, which lies in the host's namespace, down; the engine, which knows the network and not the
    endpoint; and where no engine speaks, the kernel, which has neither that link nor its MAC in any namespace. Against
    a link that is seen in a container, up or down, nothing else counts.

    :param calls: of endpoints.
    """

    def __init__(
        self, registry: Registry, links: Links, removal: EndpointRemoval, calls: EngineCalls
    ) -> None:
        self._registry = registry
        self._links = links
        self._removal = removal
        self._calls = calls

    async def find(self, said: EngineSnapshot, silence: float) -> Mapping[str, StaleEndpoint]:
        """
        By endpoint: those that look gone now.

        :param silence: for how many seconds at least the engine must not have spoken of them.
        """
        found = {}
        away = []
        for endpoint in list(self._registry.endpoints.values()):
            if self._calls.last_seen.idle_for(endpoint.endpoint_id) < silence or said.lists(endpoint):
                continue
            if not self._links.exists(endpoint.link):
                away.append(endpoint)
            elif await self._lies_about(endpoint):
                found[endpoint.endpoint_id] = StaleEndpoint(endpoint, "its link came back from the container")
        if not away:
            return found
        try:
            elsewhere = await self._elsewhere()
        except LinkError as failure:
            _log.debug("endpoints that may be in containers are kept: {reason}", reason=str(failure))
            return found
        for endpoint in away:
            if elsewhere is not None and self._is_among(endpoint, elsewhere):
                continue
            if said.lists(endpoint) is False:
                why = "the engine does not know it any more"
            elif elsewhere is not None and endpoint.network_id not in self._registry.networks:
                why = "neither its network nor its link is there"  # a row that the disk would not forget
            elif elsewhere is not None and await self._is_mac_free(endpoint):
                why = "its link is in no network namespace any more"
            else:
                continue
            found[endpoint.endpoint_id] = StaleEndpoint(endpoint, why)
        return found

    async def _lies_about(self, endpoint: Endpoint) -> bool:
        """Whether no container has the link: the engine moves it within a second, and brings it up there."""
        link = await self._links.find(endpoint.link)
        return link is not None and self._links.is_ours(link) and not link.up

    async def _elsewhere(self) -> frozenset[str] | None:
        """
        The aliases and the MACs of all links in other namespaces; ``None``: this kernel never shows them, or not to us.

        :raises LinkError: only this time it does not, and an engine's word alone is not enough.
        """
        try:
            links = await self._links.elsewhere()
        except LinkError as failure:
            if failure.errno not in _NEVER_SHOWN:
                raise
            _log.debug("{reason}", reason=str(failure))
            return None
        return frozenset(mark for link in links for mark in (link.alias, link.mac) if mark)

    def _is_among(self, endpoint: Endpoint, marks: frozenset[str]) -> bool:
        """A container's root may change its link's alias or MAC; not by mistake both."""
        return (
            alias_of(self._registry.instance, "endpoint", endpoint.endpoint_id) in marks
            or endpoint.mac in marks
        )

    async def _is_mac_free(self, endpoint: Endpoint) -> bool:
        """
        Whether no link on the parent that is up has the endpoint's MAC, in whatever namespace, also such that were
        moved on from a container's.
        """
        network = self._registry.networks.get(endpoint.network_id)
        if network is None or network.mode == MacvlanMode.PASSTHRU or endpoint.mac is None:
            return False
        port = network.port(
            probe_link_name(network.network_id),
            self._links.group,
            alias_of(self._registry.instance, "trial", network.network_id),
            endpoint.mac,
        )
        # While the MAC is asked for, nobody else can bring up a link with it: its successor waits until that is over.
        async with self._calls.locks.acquire(endpoint.endpoint_id):
            try:
                await self._links.add_macvlan(port, prove_mac_free=True)
            except LinkError:  # in use, or the parent is not there: then nothing can be said
                return False
            await self._links.delete(port.name)
        return True

    async def drop(self, departure: StaleEndpoint, silence: float) -> bool:
        """
        Let go of an endpoint, with its link, its lease and its routes; its addresses begin to wait for another one.

        :raises MacvlanError: it is tried again.
        """
        endpoint = departure.endpoint
        if not await self._removal.drop(endpoint, silence):
            return False
        _log.info(
            "endpoint {endpoint} of network {network} is gone ({why}): what it had is free",
            endpoint=endpoint.short_id,
            network=endpoint.network_id[:12],
            why=departure.why,
        )
        return True
