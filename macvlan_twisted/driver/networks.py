"""GwAllocCheck, AllocateNetwork, FreeNetwork, CreateNetwork and DeleteNetwork."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Protocol

from attrs import evolve
from twisted.logger import Logger

from ..addresses import IPAddress, IPNetwork
from ..errors import LinkError, RequestRefused, StateError
from ..last_seen import EngineCalls
from . import requests
from .endpoints import EndpointRemoval
from .host_addresses import HostAddresses
from .macvlan_links import MacvlanLinks
from .models import Network
from .network_plan import NetworkPlanner
from .options import parse_options
from .parent_plan import refuse_sharing
from .parents import Parents
from .registry import Registry

_log = Logger(namespace="macvlan_twisted.driver")


class NetworkPools(Protocol):
    """Our address management, which does not see CreateNetwork by itself."""

    async def network_requested(
        self,
        network_id: str,
        parent: str,
        named_parent: str | None,
        subnets: Iterable[tuple[IPNetwork, Collection[IPAddress]]],
        options: Mapping[str, object],
    ) -> None:
        """
        CreateNetwork has come: an address that is named in the network's pools from now on is a container's, and those named
        before are its auxiliary addresses.

        :param named_parent: the parent as the user named it; *parent* may be a VLAN on it, or have another name.
        :param subnets: those that our address management manages, each with its auxiliary addresses.
        :param options: what the user set with ``-o``, by name. Of what is an option of pools, too, the pool's counts.
        :raises RequestRefused: the user named another parent for the pool of a subnet, or set an option that the pool does
            not have. :raises StateError: the disk refuses.
        """


class NetworkSetup:
    """
    Makes what a network needs on this host, and removes it: its row, the links below its parent, and the host's addresses.

    :param endpoints: removes the endpoints of a network.
    """

    def __init__(
        self,
        registry: Registry,
        parents: Parents,
        macvlan_links: MacvlanLinks,
        host_addresses: HostAddresses,
        endpoints: EndpointRemoval,
    ) -> None:
        self._registry = registry
        self._parents = parents
        self._macvlan_links = macvlan_links
        self._host_addresses = host_addresses
        self._endpoints = endpoints

    async def make(self, network: Network, requested: Sequence[IPAddress]) -> Network:
        """
        Save the network, and make what it needs. A failure undoes all of it.

        :param requested: the host's addresses for its containers, as far as the user named them.
        :return: the network with the host's addresses.
        :raises LinkError: the kernel refuses. :raises StateError: the disk refuses.
        """
        self._registry.in_creation.add(network.network_id)
        self._registry.add_network(network)
        try:
            await self._registry.store_network(evolve(network, is_made=False))
            await self._parents.acquire(network)
            await self._macvlan_links.try_out(network)
            if network.host_access:
                network = await self._host_addresses.enable(network, requested)
            await self._registry.store_network(network)
        except BaseException:
            await self.undo(network)
            raise
        finally:
            self._registry.in_creation.discard(network.network_id)
        return network

    async def undo(self, network: Network) -> None:
        """Remove all that a failed create has made; the engine will not ask for it."""
        try:
            failures = await self._endpoints.delete_all(network.network_id)
        except StateError as failure:
            failures = [str(failure)]
        for each in failures + await self._undo(network):
            # Cause: the kernel refused, or writing the state failed. Remedy: see the reason in the line; the plugin
            # removes the rest at its next start.
            _log.error(
                "network {network}: cannot undo its creation completely ({reason})",
                network=network.short_id,
                reason=each,
            )

    async def _undo(self, network: Network) -> list[str]:
        self._registry.remove_network(network.network_id)
        failures = await self._take_down(network)
        try:
            await self._registry.erase_network(network.network_id)
        except StateError as failure:
            failures.append(str(failure))
        return failures

    async def remove(self, network: Network) -> list[str]:
        """
        Remove the network with all endpoints that are left.

        :return: what failed.
        :raises StateError: the row of an endpoint or of the network cannot be erased; the network is still there.
        """
        failures = await self._endpoints.delete_all(network.network_id)
        self._registry.remove_network(network.network_id)
        # Before its VLANs: after a kill, a network without them could not be used. The next start removes VLANs that no network
        # needs.
        try:
            await self._registry.erase_network(network.network_id)
        except StateError:
            self._registry.add_network(network)
            raise
        return failures + await self._take_down(network)

    async def _take_down(self, network: Network) -> list[str]:
        """Remove what the network needed. Go on after an error, and return what failed."""
        self._endpoints.forget_network(network)
        failures: list[str] = []
        try:
            await self._host_addresses.disable(network)
        except (LinkError, StateError) as failure:
            failures.append(str(failure))
        failures += await self._parents.release(network)
        # Whoever removes the network expects that none of its links is left.
        await self._macvlan_links.deletions_finished()
        return failures


class Networks:
    """
    The calls of the engine about networks.

    :param pools: our address management.
    :param calls: of networks.
    """

    def __init__(
        self,
        registry: Registry,
        planner: NetworkPlanner,
        pools: NetworkPools,
        setup: NetworkSetup,
        calls: EngineCalls,
    ) -> None:
        self._registry = registry
        self._planner = planner
        self._pools = pools
        self._setup = setup
        self._calls = calls

    async def gateway_check(self, request: requests.GatewayCheck) -> bool:
        """
        Always skip: the router of a LAN is there or is not, the engine must not make one up.

        The options are checked already here, so that a wrong one costs no address.
        """
        parse_options(request.options)
        return True

    async def allocate(self, request: requests.AllocateNetwork) -> Mapping[str, str]:
        """A swarm manager's question; engines replace the network's options by the answer."""
        parse_options(request.options)
        return request.options

    async def free(self, network_id: str) -> None:
        """A swarm manager's call: there is nothing to free for networks on other hosts."""

    def parent_of(self, network_id: str) -> str:
        """
        :raises NotFound: there is no such network.
        """
        return self._registry.network(network_id).parent

    async def create(self, request: requests.CreateNetwork) -> None:
        """
        :raises RequestRefused: the options contradict each other, or the host. :raises LinkError: the kernel refuses.
        """
        async with self._calls.call(request.network_id):
            network = await self._planner.network(request)
            options = parse_options(request.options)
            requested = options.host_addresses
            existing = self._registry.networks.get(network.network_id)
            if existing is not None and _is_again(existing, network, requested):
                return
            if existing is not None:
                raise RequestRefused(
                    f"network {network.short_id} already exists with different options: remove it, then create it again"
                )
            refuse_sharing(network, self._registry.others(network.network_id), self._registry.names)
            await self._pools.network_requested(
                network.network_id,
                network.parent,
                options.parent,
                [(each.pool, list(each.auxiliary.values())) for each in network.subnets if each.managed_here],
                options.set_by_user(),
            )
            network = await self._setup.make(network, requested)
            await self._planner.warn(network)
        _log.info(
            "network {network}: created on parent {parent}, mode {mode}, subnet {subnet}{host_addresses}",
            network=network.short_id,
            parent=network.parent,
            mode=network.mode,
            subnet=", ".join(str(each.pool) for each in network.subnets) or "none",
            host_addresses=f", host address {', '.join(map(str, network.host_addresses))}"
            if network.host_addresses
            else "",
        )

    async def undo_half_made(self) -> None:
        """At start: remove networks whose creation a kill interrupted. The engine does not know them."""
        for network in [each for each in self._registry.networks.values() if not each.is_made]:
            _log.info(
                "network {network}: removed, its creation was interrupted when the plugin was killed",
                network=network.short_id,
            )
            await self._setup.undo(network)

    async def delete(self, network_id: str) -> None:
        """Remove a network and whatever still hangs on it; succeeds when there is nothing."""
        async with self._calls.call(network_id):
            network = self._registry.networks.get(network_id)
            if network is None:
                await self._registry.erase_network(network_id)  # a row that an earlier error left
                return
            name = self._registry.names.network(network_id)
            await self._delete(network)
        _log.info("network {network}: removed from parent {parent}", network=name, parent=network.parent)

    async def drop(self, network: Network, idle: float) -> bool:
        """
        Remove a network that its engine has dropped, without having been asked to.

        :param idle: seconds for which the engine must not have mentioned it.
        :return: whether it was removed; else it has changed, was spoken of, or has endpoints.
        """
        async with self._calls.locks.acquire(network.network_id):
            is_unchanged = self._registry.networks.get(network.network_id) is network
            is_empty = not self._registry.endpoints_of(network.network_id)
            if not is_unchanged or not is_empty or self._calls.last_seen.idle_for(network.network_id) < idle:
                return False
            try:
                await self._delete(network)
            finally:
                if network.network_id not in self._registry.networks:
                    self._calls.last_seen.forget(network.network_id)
        return True

    def idle_for(self, network_id: str) -> float:
        """Seconds since the engine last mentioned the network."""
        return self._calls.last_seen.idle_for(network_id)

    async def is_listed_by(self, network_id: str, engine_id: str) -> None:
        """
        Store that an engine lists the network: only that engine can prove that it is gone.

        :raises StateError: the next reconciliation tries again.
        """
        async with self._calls.locks.acquire(network_id):
            network = self._registry.networks.get(network_id)
            if network is not None and network.engine_id != engine_id:
                network = evolve(network, engine_id=engine_id)
                await self._registry.store_network(network)
                self._registry.add_network(network)

    async def _delete(self, network: Network) -> None:
        failures = await self._setup.remove(network)
        if failures:
            # Remedy: none needed at first: the next start of the plugin removes the rest. If it does not, see the
            # reason in the message.
            raise LinkError(f"network {network.short_id} is removed, but: {'; '.join(failures)}")


def _is_again(existing: Network, network: Network, requested: Sequence[IPAddress]) -> bool:
    """Whether the network exists already; the host's addresses were chosen when it was created."""
    return evolve(existing, host_addresses=()) == network and set(requested) <= set(existing.host_addresses)
