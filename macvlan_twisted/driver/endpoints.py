"""What each call about an endpoint does: from CreateEndpoint to Leave; DeleteEndpoint is in :mod:`.removal`."""

from __future__ import annotations

import errno
from collections.abc import Callable
from contextlib import suppress

from attrs import evolve
from twisted.logger import Logger

from ..errors import LinkError, NotFound, RequestRefused
from ..netlink.links import Links
from ..netlink.netns import sandbox_path
from ..option_values import MacvlanMode
from ..state.interfaces import HostRecords, RecordKind
from ..state.serialize import to_document
from . import requests
from .endpoint_addresses import EndpointAddresses
from .endpoint_plan import EndpointPlanner
from .host_access import HostAccess
from .kernel_errors import explained, mac_in_use
from .macvlan_links import MacvlanLinks
from .models import Endpoint, Network
from .parents import Parents
from .registry import Registry
from .removal import EndpointRemoval

_log = Logger(namespace="macvlan_twisted.driver")


class Endpoints:
    """The calls of the engine about endpoints, but for DeleteEndpoint."""

    def __init__(
        self,
        registry: Registry,
        records: HostRecords,
        links: Links,
        parents: Parents,
        plans: EndpointPlanner,
        endpoint_addresses: EndpointAddresses,
        host_access: HostAccess,
        ports: MacvlanLinks,
        removal: EndpointRemoval,
    ) -> None:
        self._registry = registry
        self._records = records
        self._links = links
        self._parents = parents
        self._plans = plans
        self._endpoint_addresses = endpoint_addresses
        self._host_access = host_access
        self._ports = ports
        self._removal = removal
        self._locks = removal.locks
        self._last_seen = removal.last_seen
        self._being_made: set[str] = set()
        self.when_made: Callable[[Endpoint], None] = _nothing
        """Told of each endpoint that was made, before the engine is."""

    async def create(self, request: requests.CreateEndpoint) -> requests.CreatedEndpoint:
        """
        Make the endpoint's link; its row is on disk before the kernel is touched.

        :return: the MAC and the address that we chose, each ``None`` if the request named one or there is none.
        """
        with self._last_seen.call(request.endpoint_id):
            return await self._create(request)

    async def _create(self, request: requests.CreateEndpoint) -> requests.CreatedEndpoint:
        async with self._locks.acquire(request.endpoint_id):
            network = self._registry.network(request.network_id)
            existing = self._registry.endpoints.get(request.endpoint_id)
            endpoint = self._plans.endpoint(request, network, existing)
            if existing == endpoint:
                if not self._links.exists(endpoint.link):
                    await self._make_again(endpoint, network)
                return _chosen(endpoint, request)
            if existing is not None:
                raise RequestRefused(
                    f"endpoint {endpoint.endpoint_id} exists with other addresses: remove it first"
                )
            if self._parents.parent_status.is_in_doubt(network.parent):
                await self._parents.restore(network)
            forgotten = await self._forgotten_holder(endpoint)
            if self._registry.networks.get(network.network_id) != network:
                raise RequestRefused(
                    f"network {network.network_id} was removed meanwhile: start the container again"
                )
            self._registry.add_endpoint(endpoint)
            self._removal.made_anew(endpoint.endpoint_id)
            self._being_made.add(endpoint.endpoint_id)
            try:
                endpoint = await self._endpoint_addresses.secure(endpoint, network, forgotten)
                self._registry.replace_endpoint(endpoint)
                await self._records.save(RecordKind.ENDPOINT, endpoint.endpoint_id, to_document(endpoint))
                await self._ports.make(endpoint, network, forgotten)
                if forgotten is not None:
                    await self._replace(forgotten, endpoint)
            except BaseException:
                await self._removal.undo(endpoint)
                raise
            finally:
                self._being_made.discard(endpoint.endpoint_id)
            self._endpoint_addresses.settle(endpoint, network)
            self.when_made(endpoint)
        _log.info(
            "macvlan port created: {link} on parent {parent} in mode {mode}, MAC {mac}, address {address} "
            "(endpoint {endpoint}, network {network})",
            link=endpoint.link,
            parent=endpoint.parent,
            mode=network.mode,
            mac=endpoint.mac or "of the parent",
            address=endpoint.address or endpoint.address_v6 or "none",
            endpoint=endpoint.short_id,
            network=network.short_id,
        )
        return _chosen(endpoint, request)

    async def _replace(self, forgotten: Endpoint, endpoint: Endpoint) -> None:
        """The kernel has proven that *forgotten* is dead, for the link of *endpoint* is made."""
        try:
            await self._removal.forget(forgotten)
        except BaseException:
            with suppress(LinkError):  # a later look removes it
                await self._links.retire(endpoint.link)
                await self._links.deletions_finished()
            raise

    async def _make_again(self, endpoint: Endpoint, network: Network) -> None:
        """The same call as before, and no link: it is in a container, or a kill came between its row and its link."""
        if endpoint.mac is not None:
            for other in self._registry.holders_of_mac(endpoint.parent, endpoint.mac):
                # Down still, or about to be made: the kernel would not say.
                is_coming = other.endpoint_id in self._being_made
                if other != endpoint and (is_coming or self._links.exists(other.link)):
                    raise mac_in_use(other)
        # Until it has its link, it looks dead to others with its MAC.
        self._being_made.add(endpoint.endpoint_id)
        try:
            await self._ports.add(endpoint, network, network.mode != MacvlanMode.PASSTHRU)
        except LinkError as failure:
            if failure.errno == (errno.EINVAL if network.mode == MacvlanMode.PASSTHRU else errno.EADDRINUSE):
                return  # it lives in a container
            raise explained(failure, network, endpoint.mac, []) from None
        finally:
            self._being_made.discard(endpoint.endpoint_id)
        self._endpoint_addresses.settle(endpoint, network)

    async def _forgotten_holder(self, endpoint: Endpoint) -> Endpoint | None:
        """
        Another endpoint of ours that has the same MAC on the parent, and may have been forgotten by the engine.

        Engines drop endpoints without a word (docs/reference/protocol). Where address management has handed
        out the same address of the same network again, the old endpoint is dead and is removed. Else, if its
        link is not in the host's namespace, the kernel knows whether it is alive in a container.

        :return: an endpoint to be forgotten if the kernel proves the MAC to be free.
        :raises Refused: the MAC is in use.
        """
        for forgotten in self._endpoint_addresses.of_other_mac(endpoint):
            if forgotten.endpoint_id not in self._being_made and _has_address_of(endpoint, forgotten):
                await self._drop_forgotten(forgotten, endpoint)
        while endpoint.mac is not None:
            holders = self._registry.holders_of_mac(endpoint.parent, endpoint.mac)
            settled = [each for each in holders if each.endpoint_id not in self._being_made]
            dead = next((each for each in settled if _has_address_of(endpoint, each)), None)
            if dead is not None:
                await self._drop_forgotten(dead, endpoint)
                continue
            for holder in holders:
                if holder not in settled or self._links.exists(holder.link):
                    raise mac_in_use(holder)
            return holders[-1] if holders else None
        return None

    async def _drop_forgotten(self, forgotten: Endpoint, for_whom: Endpoint) -> None:
        _log.info(
            "endpoint {old} is dropped: the engine has forgotten it, and gave its address to {new}",
            old=forgotten.short_id,
            new=for_whom.short_id,
        )
        await self._removal.delete(requests.EndpointCall(forgotten.network_id, forgotten.endpoint_id))

    async def operational_info(self, request: requests.EndpointCall) -> dict[str, str]:
        endpoint = self._registry.endpoint(request.endpoint_id)
        self._last_seen.note(endpoint.endpoint_id)
        network = self._registry.network(endpoint.network_id)
        told = {
            "parent": endpoint.parent,
            "mode": network.mode,
            "link": endpoint.link,
            "mac": endpoint.mac,
            "address": endpoint.address,
            "address_v6": endpoint.address_v6,
            "vlan_id": network.vlan_id,
            "conflict": self._endpoint_addresses.contested_by(endpoint),
        }
        return {name: str(value) for name, value in told.items() if value is not None}

    async def join(self, request: requests.Join) -> requests.Joined:
        with self._last_seen.call(request.endpoint_id):
            return await self._join(request)

    async def _join(self, request: requests.Join) -> requests.Joined:
        async with self._locks.acquire(request.endpoint_id):
            endpoint = self._registry.endpoint(request.endpoint_id)
            network = self._registry.network(endpoint.network_id)
            if not self._links.exists(endpoint.link):
                if not self._links.exists(endpoint.parent):
                    raise NotFound(self._parents.parent_status.why_absent(endpoint.parent))
                raise NotFound(
                    f"link {endpoint.link} of endpoint {endpoint.endpoint_id} is gone from the host: start the "
                    "container again"
                )
            is_leased = self._endpoint_addresses.lease_of(endpoint) is not None
            joined = endpoint
            if network.host_access or (network.dhcp_readdress and is_leased):
                joined = evolve(endpoint, sandbox=sandbox_path(request.sandbox))
            routes = await self._host_access.meet(joined, network)
            joined = evolve(joined, static_routes=tuple(route.destination for route in routes))
            if joined != endpoint:
                await self._records.save(RecordKind.ENDPOINT, joined.endpoint_id, to_document(joined))
                self._registry.replace_endpoint(joined)
        self._endpoint_addresses.announce(endpoint, network)
        gateway = network.gateway_for(endpoint.address) or self._endpoint_addresses.leased_router(
            endpoint, network
        )
        return requests.Joined(endpoint.link, gateway, network.gateway_for(endpoint.address_v6), routes)

    async def leave(self, request: requests.EndpointCall) -> None:
        """Nothing: the engine moves the link back and then asks for its removal, or for another Leave."""
        self._last_seen.note(request.endpoint_id)


def _nothing(endpoint: Endpoint) -> None:
    """Nobody has asked to be told."""


def _chosen(endpoint: Endpoint, request: requests.CreateEndpoint) -> requests.CreatedEndpoint:
    return requests.CreatedEndpoint(
        endpoint.mac if endpoint.mac_generated else None,
        endpoint.reported_address or endpoint.address if request.address is None else None,
    )


def _has_address_of(endpoint: Endpoint, holder: Endpoint) -> bool:
    """Whether an address of one network went from *holder* to *endpoint*."""
    return endpoint.network_id == holder.network_id and (
        (endpoint.address is not None and endpoint.address in (holder.address, holder.reported_address))
        or (endpoint.address_v6 is not None and endpoint.address_v6 == holder.address_v6)
    )
