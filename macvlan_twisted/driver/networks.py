"""What each call about a network does: GwAllocCheck, Allocate, Free, Create and DeleteNetwork."""

from __future__ import annotations

import errno
from collections.abc import Callable, Mapping, Sequence

from attrs import evolve
from twisted.logger import Logger

from ..addresses import IPAddress
from ..errors import LinkFailed, Refused, StateFailed
from ..heard import Heard
from ..lan.wires import Wires
from ..links.pool import Links
from ..names import alias_of, trial_link_name
from ..records import to_document
from ..settings import Settings
from ..state.interface import HostRecords, Kind
from ..turns import Turns
from . import requests
from .contradictions import readdresses, refuse_what_did_not_take
from .explanations import explained
from .host_ways import HostWays
from .known import Known
from .moves import Moves
from .network import Network
from .network_plans import plan_network
from .options import NetworkOptions, parse_options
from .parent_plans import refuse_sharing
from .parents import Parents
from .presence import Presence
from .removal import Removal

_log = Logger(namespace="macvlan_twisted.driver")


class Networks:
    """
    The calls of the engine about networks.

    :param seconds: a clock that never goes back.
    """

    def __init__(
        self,
        settings: Settings,
        known: Known,
        records: HostRecords,
        links: Links,
        parents: Parents,
        removal: Removal,
        wires: Wires,
        presence: Presence,
        moves: Moves,
        host_ways: HostWays,
        seconds: Callable[[], float],
    ) -> None:
        self._settings = settings
        self._host_ways = host_ways
        self._known = known
        self._records = records
        self._links = links
        self._parents = parents
        self._removal = removal
        self._wires = wires
        self._presence = presence
        self._moves = moves
        for network in known.networks.values():
            wires.use(network.parent, network.network_id, alone=network.mode == "passthru")
            host_ways.remember(network)
        self._turns = Turns()
        self.heard = Heard(seconds, known.networks.__contains__)

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
        return self._known.network(network_id).parent

    async def create(self, request: requests.CreateNetwork) -> None:
        with self.heard.call(request.network_id):
            await self._create(request)

    async def _create(self, request: requests.CreateNetwork) -> None:
        async with self._turns.of(request.network_id):
            network = await self._planned(request)
            given = parse_options(request.options).host_addresses
            existing = self._known.networks.get(network.network_id)
            if existing is not None and _is_again(existing, network, given):
                return
            if existing is not None:
                raise Refused(f"network {network.network_id} exists with other options: remove it first")
            refuse_sharing(network, self._known.others(network.network_id))
            self._warn_of_gateways(network)
            self._known.being_made.add(network.network_id)
            self._known.add_network(network)
            try:
                await self._save(evolve(network, is_made=False))
                await self._parents.ensure(network)
                if network.mode == "passthru":
                    await self._wires.leave_alone(network.parent, network.network_id)
                self._wires.use(network.parent, network.network_id)
                await self._try_on_kernel(network)
                if network.host_access:
                    network = await self._host_ways.opened(network, given)
                await self._save(network)
            except BaseException:
                await self._undo(network)
                raise
            finally:
                self._known.being_made.discard(network.network_id)
        _log.info(
            "network created: {network} on parent {parent} in mode {mode}",
            network=network.short_id,
            parent=network.parent,
            mode=network.mode,
        )

    async def _save(self, network: Network) -> None:
        await self._records.save(Kind.NETWORK, network.network_id, to_document(network))

    async def _planned(self, request: requests.CreateNetwork) -> Network:
        """The network that the request means, validated against the host as it is now."""
        options = parse_options(request.options)
        links = await self._links.all()
        readdress = await self._readdresses(request, options)
        try:
            return plan_network(request, options, self._settings, links, readdress)
        except Refused:
            self._refuse_awaited(options.parent or self._settings.host_interface or "")
            raise

    def _refuse_awaited(self, parent: str) -> None:
        """:raises Refused: others wait for *parent*, too."""
        if self._parents.awaited.is_absent(parent):
            raise Refused(
                f"{self._parents.awaited.why_absent(parent)}; create the network then, for nothing is known of it yet"
            )

    async def _readdresses(self, request: requests.CreateNetwork, options: NetworkOptions) -> bool:
        """
        Whether running containers are given other addresses.

        :raises Refused: it was asked for here, and could not be done.
        """
        readdress = readdresses(request, options, self._settings)
        if options.dhcp_readdress:
            lacking = await self._moves.lacking()
            if lacking:
                raise Refused(f"-o dhcp_readdress=true: {lacking}; or leave that option out")
        return readdress

    def _warn_of_gateways(self, network: Network) -> None:
        for subnet in network.subnets:
            router = self._settings.gateway_for(subnet.pool)
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
            trial_link_name(network.network_id),
            self._links.group,
            alias_of(self._records.instance, "trial", network.network_id),
            None,
        )
        if network.mode == "passthru":
            await self._links.reaped()
        try:
            await self._links.add_port(wanted)
        except LinkFailed as failure:
            if failure.errno == errno.ENODEV:
                raise LinkFailed(
                    f"parent {network.parent} went away just now: create the network again when it is back",
                    errno.ENODEV,
                ) from None
            raise explained(failure, network) from None
        try:
            found = await self._links.read_port(wanted.name)
        finally:
            await self._links.dispose(wanted.name)
        if found is None:
            raise LinkFailed(f"the trial link of network {network.network_id} vanished: try again")
        refuse_what_did_not_take(wanted, found)

    async def _undo(self, network: Network) -> None:
        """Remove all that a failed create has made; the engine will not ask for it."""
        try:
            failures = await self._remove_endpoints(network.network_id)
        except StateFailed as failure:
            failures = [str(failure)]
        for each in failures + await self._remove(network):
            _log.error("undoing network {network}: {reason}", network=network.short_id, reason=each)

    async def _remove_endpoints(self, network_id: str) -> list[str]:
        """
        :return: what failed of the kernel.
        :raises StateFailed: those that are left are known still.
        """
        failures: list[str] = []
        while endpoint_ids := self._removal.ids_of(network_id):  # others may be under way
            try:
                await self._removal.delete(requests.EndpointCall(network_id, endpoint_ids[0]))
            except LinkFailed as failure:
                failures.append(str(failure))
        return failures

    async def _remove(self, network: Network) -> list[str]:
        """Go on after an error, and collect what failed."""
        failures: list[str] = []
        self._known.remove_network(network.network_id)
        self._presence.forget_network(network)
        for step in (
            self._host_ways.close(network),
            self._wires.disuse(network.parent, network.network_id),
            self._parents.drop_unused(network),
            self._records.forget(Kind.NETWORK, network.network_id),
        ):
            try:
                await step
            except (LinkFailed, StateFailed) as failure:
                failures.append(str(failure))
        return failures

    async def undo_half_made(self) -> None:
        """At start: remove networks whose creation was cut off by a kill. The engine does not know them."""
        for network in [each for each in self._known.networks.values() if not each.is_made]:
            _log.info(
                "network {network} was half made when the plugin was killed: removed",
                network=network.short_id,
            )
            await self._undo(network)

    async def delete(self, network_id: str) -> None:
        """Remove a network and whatever still hangs on it; succeeds when there is nothing."""
        with self.heard.call(network_id):
            async with self._turns.of(network_id):
                network = self._known.networks.get(network_id)
                if network is None:
                    await self._records.forget(Kind.NETWORK, network_id)  # a row that an earlier error left
                    return
                await self._delete(network)

    async def drop(self, network: Network, silence: float) -> bool:
        """
        Remove a network that its engine has dropped, without having been asked to.

        :param silence: for how many seconds at least the engine must not have spoken of it.
        :return: whether it was removed; else it has changed, was spoken of, or has endpoints.
        """
        async with self._turns.of(network.network_id):
            is_as_it_was = self._known.networks.get(network.network_id) is network
            is_empty = not self._known.endpoints_of(network.network_id)
            if not is_as_it_was or not is_empty or self.heard.silence(network.network_id) < silence:
                return False
            try:
                await self._delete(network)
            finally:
                if network.network_id not in self._known.networks:
                    self.heard.forget(network.network_id)
        return True

    async def is_listed_by(self, network_id: str, engine_id: str) -> None:
        """
        An engine was seen to list the network, which is kept: that one alone can prove that it is gone.

        :raises StateFailed: it is tried again with the next look.
        """
        async with self._turns.of(network_id):
            network = self._known.networks.get(network_id)
            if network is not None and network.engine_id != engine_id:
                network = evolve(network, engine_id=engine_id)
                await self._save(network)
                self._known.add_network(network)

    async def _delete(self, network: Network) -> None:
        network_id = network.network_id
        failures = await self._remove_endpoints(network_id)
        failures += await self._remove(network)
        _log.info("network removed: {network}", network=network.short_id)
        if failures:
            raise LinkFailed(f"network {network_id} is removed, but: {'; '.join(failures)}")


def _is_again(existing: Network, network: Network, given: Sequence[IPAddress]) -> bool:
    """Whether a network that is to be made is there; the host's addresses for it were chosen then."""
    return evolve(existing, host_addresses=()) == network and set(given) <= set(existing.host_addresses)
