"""How an endpoint goes: the engine has it deleted, it was not made, or nobody has it any more."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

from twisted.logger import Logger

from ..errors import LinkError, StateError
from ..keyed_lock import KeyedLock
from ..last_seen import LastSeen
from ..link_names import endpoint_link_name
from ..netlink.links import Links
from ..option_values import MacvlanMode
from ..state.interfaces import HostRecords, RecordKind
from . import requests
from .endpoint_addresses import EndpointAddresses
from .host_access import HostAccess
from .models import Endpoint
from .registry import Registry

_log = Logger(namespace="macvlan_twisted.driver")


class EndpointRemoval:
    """
    DeleteEndpoint, and all else that ends an endpoint.

    :param seconds: a clock that never goes back.
    """

    def __init__(
        self,
        registry: Registry,
        records: HostRecords,
        links: Links,
        endpoint_addresses: EndpointAddresses,
        host_access: HostAccess,
        seconds: Callable[[], float],
    ) -> None:
        self._registry = registry
        self._records = records
        self._links = links
        self._endpoint_addresses = endpoint_addresses
        self._host_access = host_access
        self.locks = KeyedLock()
        """Whatever changes an endpoint waits for its turn."""
        self.last_seen = LastSeen(seconds, registry.endpoints.__contains__)
        """When the engine last spoke of an endpoint."""
        self._rows_left: dict[str, str] = {}
        """Endpoints that were not made, of which the disk kept the rows, with their networks."""
        self.when_gone: Callable[[Endpoint], None] = _nothing
        """Told of each endpoint that is forgotten."""

    async def delete(self, request: requests.EndpointCall) -> None:
        """Remove the endpoint and its link; succeeds when there is nothing."""
        with self.last_seen.call(request.endpoint_id):
            async with self.locks.acquire(request.endpoint_id):
                endpoint = self._registry.endpoints.get(request.endpoint_id)
                if endpoint is None:
                    await self._remove_unknown(request.endpoint_id)
                    return
                await self._remove(endpoint)

    def ids_of(self, network_id: str) -> list[str]:
        """Which endpoints have to be deleted before their network goes: also those of which a row is left."""
        registry = [endpoint.endpoint_id for endpoint in self._registry.endpoints_of(network_id)]
        return registry + [id_ for id_, where in self._rows_left.items() if where == network_id]

    async def drop(self, endpoint: Endpoint, silence: float) -> bool:
        """
        Remove an endpoint whose container is gone, as :meth:`delete` does, without having been asked to.

        :param silence: for how many seconds at least the engine must not have spoken of it.
        :return: whether it was removed; else it has changed, or was spoken of.
        """
        async with self.locks.acquire(endpoint.endpoint_id):
            is_as_it_was = self._registry.endpoints.get(endpoint.endpoint_id) is endpoint
            if not is_as_it_was or self.last_seen.idle_for(endpoint.endpoint_id) < silence:
                return False
            await self._remove(endpoint)
        return True

    async def _remove(self, endpoint: Endpoint) -> None:
        removed, failure = False, None
        try:
            removed = await self._links.retire(endpoint.link)
        except LinkError as failed:  # without a row it is removed by a later look
            failure = failed
        network = self._registry.networks.get(endpoint.network_id)
        if network is not None and network.mode == MacvlanMode.PASSTHRU:
            await self._links.deletions_finished()
        try:
            await self.forget(endpoint, link_removed=removed)
        except StateError:
            # Whoever has the next turn must not take what is condemned for the endpoint's link.
            await self._links.deletions_finished()
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
        await self._records.forget(RecordKind.ENDPOINT, endpoint_id)  # that an earlier error left
        self._rows_left.pop(endpoint_id, None)
        name = endpoint_link_name(endpoint_id)
        if not self._links.exists(name):
            return
        link = await self._links.find(name)
        if link is not None and self._links.is_ours(link):
            await self._links.retire(name)
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
        except StateError as failure:  # the first error is the one to tell
            self._registry.remove_endpoint(endpoint.endpoint_id)
            self._rows_left[endpoint.endpoint_id] = endpoint.network_id
            self.when_gone(endpoint)
            with suppress(StateError):
                await self._endpoint_addresses.leave(
                    endpoint, self._registry.networks.get(endpoint.network_id)
                )
                await self._host_access.part(endpoint)
            _log.error(
                "the row of endpoint {id} stays: {reason}", id=endpoint.endpoint_id, reason=str(failure)
            )

    async def forget(self, endpoint: Endpoint, link_removed: bool = False) -> None:
        """Its row, and what it is to the LAN and the host; whoever calls this has seen to its link."""
        await self._records.forget(RecordKind.ENDPOINT, endpoint.endpoint_id)
        self._registry.remove_endpoint(endpoint.endpoint_id)
        self.last_seen.forget(endpoint.endpoint_id)
        self.when_gone(endpoint)
        try:
            network = self._registry.networks.get(endpoint.network_id)
            await self._endpoint_addresses.leave(endpoint, network, link_removed)
        finally:
            await self._host_access.part(endpoint)


def _nothing(endpoint: Endpoint) -> None:
    """Nobody has asked to be told."""
