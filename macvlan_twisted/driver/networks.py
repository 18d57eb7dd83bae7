"""What each call about a network does: GwAllocCheck, Allocate, Free, Create and DeleteNetwork."""

from __future__ import annotations

import errno
from collections.abc import Callable, Mapping, Sequence

from attrs import evolve
from twisted.logger import Logger

from ..addresses import IPAddress
from ..config import Config
from ..errors import LinkError, RequestRefused, StateError
from ..keyed_lock import KeyedLock
from ..lan.packet_sockets import PacketSockets
from ..last_seen import LastSeen
from ..link_names import alias_of, probe_link_name
from ..netlink.links import Links
from ..option_values import MacvlanMode
from ..state.interfaces import HostRecords, RecordKind
from ..state.serialize import to_document
from . import requests
from .endpoint_addresses import EndpointAddresses
from .host_access import HostAccess
from .kernel_errors import explained
from .models import Network
from .network_plan import plan_network
from .options import NetworkOptions, parse_options
from .parent_plan import refuse_sharing
from .parents import Parents
from .readdress import Readdressing
from .registry import Registry
from .removal import EndpointRemoval
from .validation import readdresses, refuse_what_did_not_take

_log = Logger(namespace="macvlan_twisted.driver")


class Networks:
    """
    The calls of the engine about networks.

    :param seconds: a clock that never goes back.
    """

    def __init__(
        self,
        config: Config,
        registry: Registry,
        records: HostRecords,
        links: Links,
        parents: Parents,
        removal: EndpointRemoval,
        wires: PacketSockets,
        endpoint_addresses: EndpointAddresses,
        moves: Readdressing,
        host_access: HostAccess,
        seconds: Callable[[], float],
    ) -> None:
        self._config = config
        self._host_access = host_access
        self._registry = registry
        self._records = records
        self._links = links
        self._parents = parents
        self._removal = removal
        self._wires = wires
        self._endpoint_addresses = endpoint_addresses
        self._moves = moves
        for network in registry.networks.values():
            wires.use(network.parent, network.network_id, alone=network.mode == MacvlanMode.PASSTHRU)
            host_access.remember(network)
        self._locks = KeyedLock()
        self.last_seen = LastSeen(seconds, registry.networks.__contains__)

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
        """A swarm manager's call: nothing is kept for networks that live on other hosts."""

    def parent_of(self, network_id: str) -> str:
        """
        :raises NotFound: there is no such network.
        """
        return self._registry.network(network_id).parent

    async def create(self, request: requests.CreateNetwork) -> None:
        with self.last_seen.call(request.network_id):
            await self._create(request)

    async def _create(self, request: requests.CreateNetwork) -> None:
        async with self._locks.acquire(request.network_id):
            network = await self._planned(request)
            given = parse_options(request.options).host_addresses
            existing = self._registry.networks.get(network.network_id)
            if existing is not None and _is_again(existing, network, given):
                return
            if existing is not None:
                raise RequestRefused(
                    f"network {network.network_id} exists with other options: remove it first"
                )
            refuse_sharing(network, self._registry.others(network.network_id))
            self._warn_of_gateways(network)
            self._registry.being_made.add(network.network_id)
            self._registry.add_network(network)
            try:
                await self._save(evolve(network, is_made=False))
                await self._parents.ensure(network)
                if network.mode == MacvlanMode.PASSTHRU:
                    await self._wires.leave_alone(network.parent, network.network_id)
                self._wires.use(network.parent, network.network_id)
                await self._try_on_kernel(network)
                if network.host_access:
                    network = await self._host_access.opened(network, given)
                await self._save(network)
            except BaseException:
                await self._undo(network)
                raise
            finally:
                self._registry.being_made.discard(network.network_id)
        _log.info(
            "network created: {network} on parent {parent} in mode {mode}",
            network=network.short_id,
            parent=network.parent,
            mode=network.mode,
        )

    async def _save(self, network: Network) -> None:
        await self._records.save(RecordKind.NETWORK, network.network_id, to_document(network))

    async def _planned(self, request: requests.CreateNetwork) -> Network:
        """The network that the request means, validated against the host as it is now."""
        options = parse_options(request.options)
        links = await self._links.all()
        readdress = await self._readdresses(request, options)
        try:
            return plan_network(request, options, self._config, links, readdress)
        except RequestRefused:
            self._refuse_awaited(options.parent or self._config.host_interface or "")
            raise

    def _refuse_awaited(self, parent: str) -> None:
        """:raises Refused: others wait for *parent*, too."""
        if self._parents.parent_status.is_absent(parent):
            raise RequestRefused(
                f"{self._parents.parent_status.why_absent(parent)}; create the network then, for nothing is known of it yet"
            )

    async def _readdresses(self, request: requests.CreateNetwork, options: NetworkOptions) -> bool:
        """
        Whether running containers are given other addresses.

        :raises Refused: it was asked for here, and could not be done.
        """
        readdress = readdresses(request, options, self._config)
        if options.dhcp_readdress:
            lacking = await self._moves.lacking()
            if lacking:
                raise RequestRefused(f"-o dhcp_readdress=true: {lacking}; or leave that option out")
        return readdress

    def _warn_of_gateways(self, network: Network) -> None:
        for subnet in network.subnets:
            router = self._config.gateway_for(subnet.pool)
            if (
                subnet.gateway is None
                and router is not None
                and not network.internal
                and subnet.pool.prefixlen
            ):
                _log.warn(
                    "network {network} on {pool} was created without a gateway, its containers have no default "
                    "route, and address management that is not ours may hand out the router's address {router}: "
                    "create it with --gateway {router}",
                    network=network.short_id,
                    pool=subnet.pool,
                    router=router,
                )

    async def _try_on_kernel(self, network: Network) -> None:
        """
        Make one link as the network's containers will have it, read it back, and remove it.

        The kernel ignores attributes that it does not know, and so does pyroute2: what did not take is
        refused now and not found out in production.
        """
        wanted = network.port(
            probe_link_name(network.network_id),
            self._links.group,
            alias_of(self._records.instance, "trial", network.network_id),
            None,
        )
        if network.mode == MacvlanMode.PASSTHRU:
            await self._links.deletions_finished()
        try:
            await self._links.add_macvlan(wanted)
        except LinkError as failure:
            if failure.errno == errno.ENODEV:
                raise LinkError(
                    f"parent {network.parent} went away just now: create the network again when it is back",
                    errno.ENODEV,
                ) from None
            raise explained(failure, network) from None
        try:
            found = await self._links.read_macvlan(wanted.name)
        finally:
            await self._links.dispose(wanted.name)
        if found is None:
            raise LinkError(f"the trial link of network {network.network_id} vanished: try again")
        refuse_what_did_not_take(wanted, found)

    async def _undo(self, network: Network) -> None:
        """Remove all that a failed create has made; the engine will not ask for it."""
        try:
            failures = await self._remove_endpoints(network.network_id)
        except StateError as failure:
            failures = [str(failure)]
        for each in failures + await self._remove(network):
            _log.error("undoing network {network}: {reason}", network=network.short_id, reason=each)

    async def _remove_endpoints(self, network_id: str) -> list[str]:
        """
        :return: what failed of the kernel.
        :raises StateError: those that are left are known still.
        """
        failures: list[str] = []
        while endpoint_ids := self._removal.ids_of(network_id):  # others may be under way
            try:
                await self._removal.delete(requests.EndpointCall(network_id, endpoint_ids[0]))
            except LinkError as failure:
                failures.append(str(failure))
        return failures

    async def _remove(self, network: Network) -> list[str]:
        """Go on after an error, and collect what failed."""
        failures: list[str] = []
        self._registry.remove_network(network.network_id)
        self._endpoint_addresses.forget_network(network)
        for step in (
            self._host_access.close(network),
            self._wires.disuse(network.parent, network.network_id),
            self._parents.drop_unused(network),
            self._records.forget(RecordKind.NETWORK, network.network_id),
        ):
            try:
                await step
            except (LinkError, StateError) as failure:
                failures.append(str(failure))
        return failures

    async def undo_half_made(self) -> None:
        """At start: remove networks whose creation was cut off by a kill. The engine does not know them."""
        for network in [each for each in self._registry.networks.values() if not each.is_made]:
            _log.info(
                "network {network} was half made when the plugin was killed: removed",
                network=network.short_id,
            )
            await self._undo(network)

    async def delete(self, network_id: str) -> None:
        """Remove a network and whatever still hangs on it; succeeds when there is nothing."""
        with self.last_seen.call(network_id):
            async with self._locks.acquire(network_id):
                network = self._registry.networks.get(network_id)
                if network is None:
                    await self._records.forget(
                        RecordKind.NETWORK, network_id
                    )  # a row that an earlier error left
                    return
                await self._delete(network)

    async def drop(self, network: Network, silence: float) -> bool:
        """
        Remove a network that its engine has dropped, without having been asked to.

        :param silence: for how many seconds at least the engine must not have spoken of it.
        :return: whether it was removed; else it has changed, was spoken of, or has endpoints.
        """
        async with self._locks.acquire(network.network_id):
            is_as_it_was = self._registry.networks.get(network.network_id) is network
            is_empty = not self._registry.endpoints_of(network.network_id)
            if not is_as_it_was or not is_empty or self.last_seen.idle_for(network.network_id) < silence:
                return False
            try:
                await self._delete(network)
            finally:
                if network.network_id not in self._registry.networks:
                    self.last_seen.forget(network.network_id)
        return True

    async def is_listed_by(self, network_id: str, engine_id: str) -> None:
        """
        An engine was seen to list the network, which is kept: that one alone can prove that it is gone.

        :raises StateError: it is tried again with the next look.
        """
        async with self._locks.acquire(network_id):
            network = self._registry.networks.get(network_id)
            if network is not None and network.engine_id != engine_id:
                network = evolve(network, engine_id=engine_id)
                await self._save(network)
                self._registry.add_network(network)

    async def _delete(self, network: Network) -> None:
        network_id = network.network_id
        failures = await self._remove_endpoints(network_id)
        failures += await self._remove(network)
        _log.info("network removed: {network}", network=network.short_id)
        if failures:
            raise LinkError(f"network {network_id} is removed, but: {'; '.join(failures)}")


def _is_again(existing: Network, network: Network, given: Sequence[IPAddress]) -> bool:
    """Whether a network that is to be made is there; the host's addresses for it were chosen then."""
    return evolve(existing, host_addresses=()) == network and set(given) <= set(existing.host_addresses)
