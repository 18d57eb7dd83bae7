"""CreateEndpoint, EndpointOperInfo and DeleteEndpoint, and all else that ends an endpoint."""

from __future__ import annotations

from contextlib import suppress

from twisted.logger import Logger

from ..errors import LinkError, RequestRefused, StateError
from ..last_seen import EngineCalls
from . import requests
from .endpoint_addresses import EndpointAddresses
from .endpoint_plan import EndpointPlanner
from .host_access import HostAccess
from .kernel_errors import mac_in_use
from .macvlan_links import MacvlanLinks
from .models import Endpoint, Network
from .registry import Registry

_log = Logger(namespace="macvlan_twisted.driver")


class Endpoints:
    """
    CreateEndpoint and EndpointOperInfo.

    :param calls: of endpoints.
    """

    def __init__(
        self,
        registry: Registry,
        planner: EndpointPlanner,
        macvlan_links: MacvlanLinks,
        addresses: EndpointAddresses,
        removal: EndpointRemoval,
        calls: EngineCalls,
    ) -> None:
        self._registry = registry
        self._planner = planner
        self._macvlan_links = macvlan_links
        self._addresses = addresses
        self._removal = removal
        self._calls = calls
        self._in_creation: set[str] = set()

    async def create(self, request: requests.CreateEndpoint) -> requests.CreatedEndpoint:
        """
        Make the endpoint's link; its row is on disk before the kernel is touched.

        :return: the MAC and the address that we chose, each ``None`` if the request named one or there is none.
        :raises RequestRefused: with the reason. :raises LinkError: the kernel refuses.
        """
        async with self._calls.call(request.endpoint_id):
            network = self._registry.network(request.network_id)
            existing = self._registry.endpoints.get(request.endpoint_id)
            endpoint = self._planner.endpoint(request, network, existing)
            if existing == endpoint:
                if not self._macvlan_links.exists(endpoint):
                    await self._make_again(endpoint, network)
                return _chosen(endpoint, request)
            if existing is not None:
                raise RequestRefused(
                    f"endpoint {endpoint.short_id} already exists with different addresses: remove the container and "
                    "create it again"
                )
            with self._addresses.requested(endpoint, network):
                await self._macvlan_links.restore_parent(network)
                forgotten = await self._forgotten_holder(endpoint)
                if self._registry.networks.get(network.network_id) != network:
                    raise RequestRefused(
                        f"network {network.short_id} was removed while this request was running: create it again, and "
                        "start the container again"
                    )
                endpoint = await self._make(endpoint, network, forgotten)
        _log.info(
            "{subject}: link {link} created on parent {parent}, address {addresses}, MAC {mac} (network {network})",
            link=endpoint.link,
            parent=endpoint.parent,
            mac=endpoint.mac or "of the parent",
            **_addresses(endpoint),
            **self._registry.names.fields(endpoint.endpoint_id, network.network_id),
        )
        return _chosen(endpoint, request)

    async def _make(self, endpoint: Endpoint, network: Network, forgotten: Endpoint | None) -> Endpoint:
        self._registry.add_endpoint(endpoint)
        self._removal.made_anew(endpoint.endpoint_id)
        self._in_creation.add(endpoint.endpoint_id)
        try:
            endpoint = await self._addresses.acquire(endpoint, network, forgotten)
            self._registry.replace_endpoint(endpoint)
            await self._registry.store_endpoint(endpoint)
            await self._macvlan_links.make(endpoint, network, forgotten)
            await self._refuse_noticed(endpoint, network, forgotten)
            if forgotten is not None:
                await self._replace(forgotten, endpoint)
        except BaseException:
            await self._removal.undo(endpoint)
            raise
        finally:
            self._in_creation.discard(endpoint.endpoint_id)
        self._addresses.activate(endpoint, network)
        return endpoint

    async def _refuse_noticed(self, endpoint: Endpoint, network: Network, forgotten: Endpoint | None) -> None:
        try:
            self._addresses.refuse_noticed(endpoint, network, forgotten)
        except BaseException:
            await self._remove_link(endpoint)
            raise

    async def _replace(self, forgotten: Endpoint, endpoint: Endpoint) -> None:
        """The kernel has proven that *forgotten* is dead, for the link of *endpoint* is made."""
        try:
            await self._removal.forget(forgotten)
        except BaseException:
            await self._remove_link(endpoint)
            raise

    async def _remove_link(self, endpoint: Endpoint) -> None:
        """The endpoint is not created after all."""
        with suppress(LinkError):  # the reconciler removes it
            await self._macvlan_links.retire(endpoint, None)
            await self._macvlan_links.deletions_finished()

    async def _make_again(self, endpoint: Endpoint, network: Network) -> None:
        """The same call as before, and no link: it is in a container, or a kill came between its row and its link."""
        if endpoint.mac is not None:
            for other in self._registry.holders_of_mac(endpoint.parent, endpoint.mac):
                # Its link is down, or about to be made: the kernel would not refuse ours.
                is_coming = other.endpoint_id in self._in_creation
                if other != endpoint and (is_coming or self._macvlan_links.exists(other)):
                    raise mac_in_use(other, self._registry.names)
        # Until it has its link, it looks dead to others with its MAC.
        self._in_creation.add(endpoint.endpoint_id)
        try:
            is_made = await self._macvlan_links.make_again(endpoint, network)
        finally:
            self._in_creation.discard(endpoint.endpoint_id)
        if is_made:
            self._addresses.activate(endpoint, network)

    async def _forgotten_holder(self, endpoint: Endpoint) -> Endpoint | None:
        """
        Another endpoint of ours that has the same MAC on the parent, and may have been forgotten by the engine.

        Engines drop endpoints without a word (docs/reference/protocol). Where address management has handed out the same
        address of the same network again, the old endpoint is dead and is removed. Otherwise, if its link is not in the
        host's namespace, the kernel knows whether it is alive in a container.

        :return: an endpoint to be forgotten if the kernel proves the MAC to be free.
        :raises RequestRefused: the MAC is in use.
        """
        for forgotten in self._addresses.on_lan.of_other_mac(endpoint):
            if forgotten.endpoint_id not in self._in_creation and _has_address_of(endpoint, forgotten):
                await self._drop_forgotten(forgotten, endpoint)
        while endpoint.mac is not None:
            holders = self._registry.holders_of_mac(endpoint.parent, endpoint.mac)
            settled = [each for each in holders if each.endpoint_id not in self._in_creation]
            dead = next((each for each in settled if _has_address_of(endpoint, each)), None)
            if dead is not None:
                await self._drop_forgotten(dead, endpoint)
                continue
            for holder in holders:
                if holder not in settled or self._macvlan_links.exists(holder):
                    raise mac_in_use(holder, self._registry.names)
            return holders[-1] if holders else None
        return None

    async def _drop_forgotten(self, forgotten: Endpoint, successor: Endpoint) -> None:
        """
        :raises RequestRefused: the kernel shows the link of *forgotten* in a container.
        """
        if await self._macvlan_links.is_in_container(forgotten):
            raise RequestRefused(
                f"{self._registry.names.endpoint(forgotten.endpoint_id)}, which is still running, uses "
                f"{' and '.join(map(str, forgotten.addresses))}: stop that container, or use another --ip"
            )
        await self._removal.delete(
            requests.EndpointCall(forgotten.network_id, forgotten.endpoint_id),
            f"the engine has forgotten it, and gave its address to {self._registry.names.endpoint(successor.endpoint_id)}",
        )

    async def operational_info(self, request: requests.EndpointCall) -> dict[str, str]:
        """
        What ``docker network inspect --verbose`` shows.

        :raises NotFound: there is no such endpoint.
        """
        endpoint = self._registry.endpoint(request.endpoint_id)
        self._calls.last_seen.note(endpoint.endpoint_id)
        network = self._registry.network(endpoint.network_id)
        info = {
            "parent": endpoint.parent,
            "mode": network.mode,
            "link": endpoint.link,
            "mac": endpoint.mac,
            "address": endpoint.address,
            "address_v6": endpoint.address_v6,
            "vlan_id": network.vlan_id,
            "conflict": self._addresses.on_lan.contested_by(endpoint),
        }
        return {name: str(value) for name, value in info.items() if value is not None}


class EndpointRemoval:
    """
    DeleteEndpoint, the undoing of a failed CreateEndpoint, and the removal of endpoints that the engine has forgotten.

    :param calls: of endpoints.
    """

    def __init__(
        self,
        registry: Registry,
        macvlan_links: MacvlanLinks,
        addresses: EndpointAddresses,
        host_access: HostAccess,
        calls: EngineCalls,
    ) -> None:
        self._registry = registry
        self._macvlan_links = macvlan_links
        self._addresses = addresses
        self._host_access = host_access
        self._calls = calls
        self._rows_left: dict[str, str] = {}
        """By endpoint that was not created: its network. The disk refused to erase their rows."""

    async def delete(self, request: requests.EndpointCall, why: str = "") -> None:
        """
        Remove the endpoint and its link; succeeds when there is nothing.

        :param why: for the log, if the engine has not asked for it.
        """
        async with self._calls.call(request.endpoint_id):
            endpoint = self._registry.endpoints.get(request.endpoint_id)
            if endpoint is None:
                await self._remove_unknown(request.endpoint_id)
            else:
                await self._remove(endpoint, why)

    async def delete_all(self, network_id: str) -> list[str]:
        """
        Remove a network's endpoints, those included of which only a row is left.

        :return: what the kernel refused.
        :raises StateError: the endpoints that are left are still known.
        """
        failures: list[str] = []
        while endpoint_ids := self._ids_of(network_id):  # others may be on their way
            try:
                await self.delete(requests.EndpointCall(network_id, endpoint_ids[0]))
            except LinkError as failure:
                failures.append(str(failure))
        return failures

    def _ids_of(self, network_id: str) -> list[str]:
        known = [endpoint.endpoint_id for endpoint in self._registry.endpoints_of(network_id)]
        return known + [id_ for id_, where in self._rows_left.items() if where == network_id]

    async def drop(self, endpoint: Endpoint, idle: float, why: str) -> bool:
        """
        Remove an endpoint whose container is gone, though the engine has not asked for it.

        :param idle: seconds for which the engine must not have mentioned it.
        :param why: for the log.
        :return: whether it was removed; otherwise it has changed, or the engine mentioned it.
        """
        async with self._calls.locks.acquire(endpoint.endpoint_id):
            is_unchanged = self._registry.endpoints.get(endpoint.endpoint_id) is endpoint
            if not is_unchanged or self._calls.last_seen.idle_for(endpoint.endpoint_id) < idle:
                return False
            await self._remove(endpoint, why)
        return True

    async def _remove(self, endpoint: Endpoint, why: str) -> None:
        removed, failure = False, None
        named = self._registry.names.fields(endpoint.endpoint_id, endpoint.network_id)
        network = self._registry.networks.get(endpoint.network_id)
        try:
            removed = await self._macvlan_links.retire(endpoint, network)
        except LinkError as failed:  # the reconciler removes a link without a row
            failure = failed
        try:
            await self.forget(endpoint, link_removed=removed)
        except StateError:
            # The next call must not take the retired link for the endpoint's.
            await self._macvlan_links.deletions_finished()
            raise
        if failure is not None:
            raise failure
        _log.info(
            "{subject}: link {link} removed from parent {parent}, address {addresses} (network {network}{reason})",
            link=endpoint.link,
            parent=endpoint.parent,
            reason=f"; {why}" if why else "",
            **_addresses(endpoint),
            **named,
        )

    async def _remove_unknown(self, endpoint_id: str) -> None:
        """An endpoint without a row may still have a link, which its name identifies."""
        await self._registry.erase_endpoint(endpoint_id)  # that an earlier error left
        self._rows_left.pop(endpoint_id, None)
        name = await self._macvlan_links.retire_unknown(endpoint_id)
        if name:
            _log.debug(
                "endpoint {endpoint}: link {link} removed, which was not in the state",
                link=name,
                endpoint=endpoint_id[:12],
            )

    def made_anew(self, endpoint_id: str) -> None:
        """The row that a failed CreateEndpoint left is the endpoint's own now."""
        self._rows_left.pop(endpoint_id, None)

    async def undo(self, endpoint: Endpoint) -> None:
        """Forget an endpoint that was not created; the engine will not ask for it."""
        try:
            await self.forget(endpoint)
        except StateError as failure:  # the caller raises the first error
            self._registry.remove_endpoint(endpoint.endpoint_id)
            self._rows_left[endpoint.endpoint_id] = endpoint.network_id
            with suppress(StateError):
                await self._addresses.release(endpoint, self._registry.networks.get(endpoint.network_id))
                await self._host_access.disconnect(endpoint)
            # Cause: writing the state failed. Remedy: free space on the disk of the state directory; the plugin
            # finishes the removal at its next start.
            _log.error(
                "endpoint {endpoint}: cannot be deleted from the state ({reason})",
                endpoint=endpoint.short_id,
                reason=str(failure),
            )

    async def forget(self, endpoint: Endpoint, link_removed: bool = False) -> None:
        """Erase its row, and let go of what it has on the LAN and the host. The caller has seen to its link."""
        await self._registry.erase_endpoint(endpoint.endpoint_id)
        self._registry.remove_endpoint(endpoint.endpoint_id)
        self._calls.last_seen.forget(endpoint.endpoint_id)
        try:
            network = self._registry.networks.get(endpoint.network_id)
            await self._addresses.release(endpoint, network, link_removed)
        finally:
            await self._host_access.disconnect(endpoint)

    def forget_network(self, network: Network) -> None:
        """Let go of what is held on the LAN for the next endpoints of a network that is gone."""
        self._addresses.on_lan.forget_network(network)


def _addresses(endpoint: Endpoint) -> dict[str, str]:
    """For log lines: all of them, and each as a field of its own."""
    v4, v6 = endpoint.address, endpoint.address_v6
    return {
        "addresses": ", ".join(map(str, endpoint.addresses)) or "none",
        **({"address": str(v4.ip)} if v4 is not None else {}),
        **({"address_v6": str(v6.ip)} if v6 is not None else {}),
    }


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
