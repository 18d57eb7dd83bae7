"""What each call about an endpoint does: from CreateEndpoint to DeleteEndpoint."""

from __future__ import annotations

import errno
from collections.abc import Callable
from contextlib import suppress

from attrs import evolve
from twisted.logger import Logger

from ..errors import LinkFailed, NotFound, Refused, StateFailed
from ..heard import Heard
from ..links.interface import Port
from ..links.pool import Links
from ..links.sandbox import sandbox_path
from ..names import alias_of, endpoint_link_name
from ..records import to_document
from ..state.interface import HostRecords, Kind
from ..turns import Turns
from . import requests
from .explanations import explained
from .host_ways import HostWays
from .known import Known
from .network import Endpoint, Network
from .parents import Parents
from .plans import Plans
from .presence import Presence

_log = Logger(namespace="macvlan_twisted.driver")


class Endpoints:
    """
    The calls of the engine about endpoints.

    :param seconds: a clock that never goes back.
    """

    def __init__(
        self,
        known: Known,
        records: HostRecords,
        links: Links,
        parents: Parents,
        plans: Plans,
        presence: Presence,
        host_ways: HostWays,
        seconds: Callable[[], float],
    ) -> None:
        self._known = known
        self._records = records
        self._links = links
        self._parents = parents
        self._plans = plans
        self._presence = presence
        self._host_ways = host_ways
        self.turns = Turns()
        """Whatever changes an endpoint waits for its turn."""
        self._being_made: set[str] = set()
        self._rows_left: dict[str, str] = {}
        """Endpoints that were not made, of which the disk kept the rows, with their networks."""
        self.heard = Heard(seconds, known.endpoints.__contains__)
        self.when_made: Callable[[Endpoint], None] = _nothing
        """Told of each endpoint that was made, before the engine is."""
        self.when_gone: Callable[[Endpoint], None] = _nothing
        """Told of each endpoint that is forgotten."""

    async def create(self, request: requests.CreateEndpoint) -> requests.CreatedEndpoint:
        """
        Make the endpoint's link; its row is on disk before the kernel is touched.

        :return: the MAC and the address that we chose, each ``None`` if the request named one or there is none.
        """
        with self.heard.call(request.endpoint_id):
            return await self._create(request)

    async def _create(self, request: requests.CreateEndpoint) -> requests.CreatedEndpoint:
        async with self.turns.of(request.endpoint_id):
            network = self._known.network(request.network_id)
            existing = self._known.endpoints.get(request.endpoint_id)
            endpoint = self._plans.endpoint(request, network, existing)
            if existing == endpoint:
                if not self._links.exists(endpoint.link):
                    await self._make_again(endpoint, network)
                return _chosen(endpoint, request)
            if existing is not None:
                raise Refused(f"endpoint {endpoint.endpoint_id} exists with other addresses: remove it first")
            if self._parents.awaited.is_in_doubt(network.parent):
                await self._parents.restore(network)
            forgotten = await self._forgotten_holder(endpoint)
            if self._known.networks.get(network.network_id) != network:
                raise Refused(
                    f"network {network.network_id} was removed meanwhile: start the container again"
                )
            self._known.add_endpoint(endpoint)
            self._rows_left.pop(endpoint.endpoint_id, None)
            self._being_made.add(endpoint.endpoint_id)
            try:
                endpoint = await self._presence.secure(endpoint, network, forgotten)
                self._known.replace_endpoint(endpoint)
                await self._records.save(Kind.ENDPOINT, endpoint.endpoint_id, to_document(endpoint))
                await self._make_link(endpoint, network, forgotten)
                if forgotten is not None:
                    await self._forget(forgotten)
            except BaseException:
                await self._undo(endpoint)
                raise
            finally:
                self._being_made.discard(endpoint.endpoint_id)
            self._presence.settle(endpoint, network)
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

    async def _make_again(self, endpoint: Endpoint, network: Network) -> None:
        """The same call as before, and no link: it is in a container, or a kill came between its row and its link."""
        if endpoint.mac is not None:
            for other in self._known.holders_of_mac(endpoint.parent, endpoint.mac):
                # Down still, or about to be made: the kernel would not say.
                is_coming = other.endpoint_id in self._being_made
                if other != endpoint and (is_coming or self._links.exists(other.link)):
                    raise _mac_in_use(other)
        # Until it has its link, it looks dead to others with its MAC.
        self._being_made.add(endpoint.endpoint_id)
        try:
            await self._add_port(self._port(endpoint, network), network, network.mode != "passthru")
        except LinkFailed as failure:
            if failure.errno == (errno.EINVAL if network.mode == "passthru" else errno.EADDRINUSE):
                return  # it lives in a container
            raise explained(failure, network, endpoint.mac, []) from None
        finally:
            self._being_made.discard(endpoint.endpoint_id)
        self._presence.settle(endpoint, network)

    async def _undo(self, endpoint: Endpoint) -> None:
        """Forget an endpoint that was not made; the engine will not ask for it."""
        try:
            await self._forget(endpoint)
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

    async def _forget(self, endpoint: Endpoint, link_removed: bool = False) -> None:
        await self._records.forget(Kind.ENDPOINT, endpoint.endpoint_id)
        self._known.remove_endpoint(endpoint.endpoint_id)
        self.heard.forget(endpoint.endpoint_id)
        self.when_gone(endpoint)
        try:
            network = self._known.networks.get(endpoint.network_id)
            await self._presence.leave(endpoint, network, link_removed)
        finally:
            await self._host_ways.part(endpoint)

    async def _forgotten_holder(self, endpoint: Endpoint) -> Endpoint | None:
        """
        Another endpoint of ours that has the same MAC on the parent, and may have been forgotten by the engine.

        Engines drop endpoints without a word (docs/reference/protocol). Where address management has handed
        out the same address of the same network again, the old endpoint is dead and is removed. Else, if its
        link is not in the host's namespace, the kernel knows whether it is alive in a container.

        :return: an endpoint to be forgotten if the kernel proves the MAC to be free.
        :raises Refused: the MAC is in use.
        """
        for forgotten in self._presence.of_other_mac(endpoint):
            if forgotten.endpoint_id not in self._being_made and _has_address_of(endpoint, forgotten):
                await self._drop_forgotten(forgotten, endpoint)
        while endpoint.mac is not None:
            holders = self._known.holders_of_mac(endpoint.parent, endpoint.mac)
            settled = [each for each in holders if each.endpoint_id not in self._being_made]
            dead = next((each for each in settled if _has_address_of(endpoint, each)), None)
            if dead is not None:
                await self._drop_forgotten(dead, endpoint)
                continue
            for holder in holders:
                if holder not in settled or self._links.exists(holder.link):
                    raise _mac_in_use(holder)
            return holders[-1] if holders else None
        return None

    async def _drop_forgotten(self, forgotten: Endpoint, for_whom: Endpoint) -> None:
        _log.info(
            "endpoint {old} is dropped: the engine has forgotten it, and gave its address to {new}",
            old=forgotten.short_id,
            new=for_whom.short_id,
        )
        await self.delete(requests.EndpointCall(forgotten.network_id, forgotten.endpoint_id))

    async def _make_link(self, endpoint: Endpoint, network: Network, forgotten: Endpoint | None) -> None:
        if network.mode == "passthru":
            await self._links.reaped()
        # A MAC that a user chose may be in use by links that we cannot see. One that we derived is so only where
        # the address is, too; proving it would cost every start a grace period of the kernel.
        named_by_user = endpoint.mac is not None and not endpoint.mac_is_ours
        prove = network.mode != "passthru" and (named_by_user or forgotten is not None)
        try:
            await self._add_port(self._port(endpoint, network), network, prove)
        except LinkFailed as failure:
            if failure.errno == errno.EADDRINUSE and forgotten is not None:
                raise _mac_in_use(forgotten) from None  # alive, with its link in a container
            others = [each for each in self._known.endpoints_of(network.network_id) if each != endpoint]
            raise explained(failure, network, endpoint.mac, others) from None

    def _port(self, endpoint: Endpoint, network: Network) -> Port:
        return network.port(
            endpoint.link,
            self._links.group,
            alias_of(self._records.instance, "endpoint", endpoint.endpoint_id),
            # In passthru the engine sets the MAC itself, in the container; here it would be the NIC's at once.
            None if network.mode == "passthru" else endpoint.mac,
        )

    async def _add_port(self, port: Port, network: Network, prove_mac_free: bool) -> None:
        try:
            await self._links.add_port(port, prove_mac_free)
        except LinkFailed as failure:
            if failure.errno != errno.ENODEV:
                raise
            # The VLANs that we made go with their NIC; it may be back since a moment ago.
            await self._parents.restore(network)
            await self._links.add_port(port, prove_mac_free)

    async def operational_info(self, request: requests.EndpointCall) -> dict[str, str]:
        endpoint = self._known.endpoint(request.endpoint_id)
        self.heard.note(endpoint.endpoint_id)
        network = self._known.network(endpoint.network_id)
        told = {
            "parent": endpoint.parent,
            "mode": network.mode,
            "link": endpoint.link,
            "mac": endpoint.mac,
            "address": endpoint.address,
            "address_v6": endpoint.address_v6,
            "vlan_id": network.vlan_id,
            "conflict": self._presence.contested_by(endpoint),
        }
        return {name: str(value) for name, value in told.items() if value is not None}

    async def join(self, request: requests.Join) -> requests.Joined:
        with self.heard.call(request.endpoint_id):
            return await self._join(request)

    async def _join(self, request: requests.Join) -> requests.Joined:
        async with self.turns.of(request.endpoint_id):
            endpoint = self._known.endpoint(request.endpoint_id)
            network = self._known.network(endpoint.network_id)
            if not self._links.exists(endpoint.link):
                if not self._links.exists(endpoint.parent):
                    raise NotFound(self._parents.awaited.why_absent(endpoint.parent))
                raise NotFound(
                    f"link {endpoint.link} of endpoint {endpoint.endpoint_id} is gone from the host: start the "
                    "container again"
                )
            is_leased = self._presence.lease_of(endpoint) is not None
            joined = endpoint
            if network.host_access or (network.dhcp_readdress and is_leased):
                joined = evolve(endpoint, sandbox=sandbox_path(request.sandbox))
            routes = await self._host_ways.meet(joined, network)
            joined = evolve(joined, ways=tuple(route.destination for route in routes))
            if joined != endpoint:
                await self._records.save(Kind.ENDPOINT, joined.endpoint_id, to_document(joined))
                self._known.replace_endpoint(joined)
        self._presence.announce(endpoint, network)
        gateway = network.gateway_for(endpoint.address) or self._presence.leased_router(endpoint, network)
        return requests.Joined(endpoint.link, gateway, network.gateway_for(endpoint.address_v6), routes)

    async def leave(self, request: requests.EndpointCall) -> None:
        """Nothing: the engine moves the link back and then asks for its removal, or for another Leave."""
        self.heard.note(request.endpoint_id)

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
            await self._forget(endpoint, link_removed=removed)
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


def _nothing(endpoint: Endpoint) -> None:
    """Nobody has asked to be told."""


def _chosen(endpoint: Endpoint, request: requests.CreateEndpoint) -> requests.CreatedEndpoint:
    return requests.CreatedEndpoint(
        endpoint.mac if endpoint.mac_is_ours else None,
        endpoint.told_address or endpoint.address if request.address is None else None,
    )


def _mac_in_use(holder: Endpoint) -> Refused:
    return Refused(
        f"MAC address {holder.mac} is in use on parent {holder.parent} by endpoint {holder.endpoint_id} of network "
        f"{holder.network_id}: give another --mac-address or another address"
    )


def _has_address_of(endpoint: Endpoint, holder: Endpoint) -> bool:
    """Whether an address of one network went from *holder* to *endpoint*."""
    return endpoint.network_id == holder.network_id and (
        (endpoint.address is not None and endpoint.address in (holder.address, holder.told_address))
        or (endpoint.address_v6 is not None and endpoint.address_v6 == holder.address_v6)
    )
