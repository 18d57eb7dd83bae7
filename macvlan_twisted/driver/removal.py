"""How an endpoint goes: the engine has it deleted, it was not made, or nobody has it any more."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

from twisted.logger import Logger

from ..errors import LinkFailed, StateFailed
from ..heard import Heard
from ..links.pool import Links
from ..names import endpoint_link_name
from ..state.interface import HostRecords, Kind
from ..turns import Turns
from . import requests
from .host_ways import HostWays
from .known import Known
from .network import Endpoint
from .presence import Presence

_log = Logger(namespace="macvlan_twisted.driver")


class Removal:
    """
    DeleteEndpoint, and all else that ends an endpoint.

    :param seconds: a clock that never goes back.
    """

    def __init__(
        self,
        known: Known,
        records: HostRecords,
        links: Links,
        presence: Presence,
        host_ways: HostWays,
        seconds: Callable[[], float],
    ) -> None:
        self._known = known
        self._records = records
        self._links = links
        self._presence = presence
        self._host_ways = host_ways
        self.turns = Turns()
        """Whatever changes an endpoint waits for its turn."""
        self.heard = Heard(seconds, known.endpoints.__contains__)
        """When the engine last spoke of an endpoint."""
        self._rows_left: dict[str, str] = {}
        """Endpoints that were not made, of which the disk kept the rows, with their networks."""
        self.when_gone: Callable[[Endpoint], None] = _nothing
        """Told of each endpoint that is forgotten."""

    async def delete(self, request: requests.EndpointCall) -> None:
        """Remove the endpoint and its link; succeeds when there is nothing."""
        with self.heard.call(request.endpoint_id):
            async with self.turns.of(request.endpoint_id):
                endpoint = self._known.endpoints.get(request.endpoint_id)
                if endpoint is None:
                    await self._remove_unknown(request.endpoint_id)
                    return
                await self._remove(endpoint)

    def ids_of(self, network_id: str) -> list[str]:
        """Which endpoints have to be deleted before their network goes: also those of which a row is left."""
        known = [endpoint.endpoint_id for endpoint in self._known.endpoints_of(network_id)]
        return known + [id_ for id_, where in self._rows_left.items() if where == network_id]

    async def drop(self, endpoint: Endpoint, silence: float) -> bool:
        """
        Remove an endpoint whose container is gone, as :meth:`delete` does, without having been asked to.

        :param silence: for how many seconds at least the engine must not have spoken of it.
        :return: whether it was removed; else it has changed, or was spoken of.
        """
        async with self.turns.of(endpoint.endpoint_id):
            is_as_it_was = self._known.endpoints.get(endpoint.endpoint_id) is endpoint
            if not is_as_it_was or self.heard.silence(endpoint.endpoint_id) < silence:
                return False
            await self._remove(endpoint)
        return True

    async def _remove(self, endpoint: Endpoint) -> None:
        removed, failure = False, None
        try:
            removed = await self._links.condemn(endpoint.link)
        except LinkFailed as failed:  # without a row it is removed by a later look
            failure = failed
        network = self._known.networks.get(endpoint.network_id)
        if network is not None and network.mode == "passthru":
            await self._links.reaped()
        try:
            await self.forget(endpoint, link_removed=removed)
        except StateFailed:
            # Whoever has the next turn must not take what is condemned for the endpoint's link.
            await self._links.reaped()
            raise
        if failure is not None:
            raise failure
        _log.info(
            "unused link removed: {link} (endpoint {endpoint}{how})",
            link=endpoint.link,
            endpoint=endpoint.short_id,
            how="" if removed else "; it had gone with its sandbox",
        )

    async def _remove_unknown(self, endpoint_id: str) -> None:
        """An endpoint that we have no row of (any more) may still have a link: its name tells."""
        await self._records.forget(Kind.ENDPOINT, endpoint_id)  # that an earlier error left
        self._rows_left.pop(endpoint_id, None)
        name = endpoint_link_name(endpoint_id)
        if not self._links.exists(name):
            return
        link = await self._links.find(name)
        if link is not None and self._links.is_ours(link):
            await self._links.condemn(name)
            _log.info(
                "unused link removed: {link} (endpoint {endpoint}, without a row)",
                link=name,
                endpoint=endpoint_id[:12],
            )

    def made_anew(self, endpoint_id: str) -> None:
        """The row of an endpoint that was not made before is its own now."""
        self._rows_left.pop(endpoint_id, None)

    async def undo(self, endpoint: Endpoint) -> None:
        """Forget an endpoint that was not made; the engine will not ask for it."""
        try:
            await self.forget(endpoint)
        except StateFailed as failure:  # the first error is the one to tell
            self._known.remove_endpoint(endpoint.endpoint_id)
            self._rows_left[endpoint.endpoint_id] = endpoint.network_id
            self.when_gone(endpoint)
            with suppress(StateFailed):
                await self._presence.leave(endpoint, self._known.networks.get(endpoint.network_id))
                await self._host_ways.part(endpoint)
            _log.error(
                "the row of endpoint {id} stays: {reason}", id=endpoint.endpoint_id, reason=str(failure)
            )

    async def forget(self, endpoint: Endpoint, link_removed: bool = False) -> None:
        """Its row, and what it is to the LAN and the host; whoever calls this has seen to its link."""
        await self._records.forget(Kind.ENDPOINT, endpoint.endpoint_id)
        self._known.remove_endpoint(endpoint.endpoint_id)
        self.heard.forget(endpoint.endpoint_id)
        self.when_gone(endpoint)
        try:
            network = self._known.networks.get(endpoint.network_id)
            await self._presence.leave(endpoint, network, link_removed)
        finally:
            await self._host_ways.part(endpoint)


def _nothing(endpoint: Endpoint) -> None:
    """Nobody has asked to be told."""
