"""
What becomes of a running container whose DHCP server insists on another address.

With ``dhcp_readdress`` it is given that address in its sandbox. The engine cannot be told, so what it shows stays.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable
from ipaddress import IPv4Interface

from attrs import evolve, frozen
from twisted.internet.defer import CancelledError
from twisted.logger import Logger

from ..addresses import IPAddress, IPInterface
from ..dhcp.binding import Binding
from ..dhcp.leases import Leases
from ..engine.client import EngineError, EngineUnavailable, Processes
from ..errors import LinkError, MacvlanError
from ..keyed_lock import KeyedLock
from ..netlink.kernel import Readdress, Sandboxes
from ..netlink.netns import sandbox_of_process
from ..state.interfaces import HostRecords, RecordKind
from ..state.serialize import to_document
from ..worker_threads import RunInThread
from .endpoint_addresses import EndpointAddresses
from .host_access import HostAccess
from .models import Endpoint, Network
from .registry import Registry
from .requests import StaticRoute

_log = Logger(namespace="macvlan_twisted.driver")


@frozen
class Readdressing:
    """
    :param turns: those of all that is done about endpoints, by their ids.
    :param processes: the engine, where sandboxes are not seen in the file system.
    """

    registry: Registry
    records: HostRecords
    endpoint_addresses: EndpointAddresses
    host_access: HostAccess
    leases: Leases
    locks: KeyedLock
    sandboxes: Sandboxes
    run: RunInThread
    processes: Processes

    async def lacking(self) -> str:
        """What the service lacks to give running containers other addresses; empty if nothing."""
        return await self.run(self.sandboxes.lacking)

    async def moved(self, parent: str, old: Binding, new: Binding) -> bool:
        """
        The server has leased *new* to the container that uses *old*.

        :return: whether the container uses it from now on.
        """
        endpoint = self._endpoint_of(parent, old)
        network = None if endpoint is None else self.registry.networks.get(endpoint.network_id)
        if endpoint is None or network is None:
            return False  # on its way, or gone a moment ago
        if not network.dhcp_readdress:
            _log.error(
                "DHCP on {parent}: the container with MAC {mac} (endpoint {endpoint}) keeps {old}, which is not its own any "
                "more, instead of {new}: restart the container, or have the server give {old} to {mac}; containers of "
                "networks with -o dhcp_readdress=true are given the new address while they run",
                parent=parent,
                mac=old.mac,
                endpoint=endpoint.short_id,
                old=old.address,
                new=new.address,
            )
            return False
        # Before its turn: the engine may be waiting for us in a call about this endpoint.
        sandbox = await self._sandbox_of(endpoint)
        async with self.locks.acquire(endpoint.endpoint_id):
            if self.registry.endpoints.get(endpoint.endpoint_id) != endpoint:
                return False
            return await self._readdress(endpoint, network, old, new, sandbox)

    async def begin(self, is_default: bool) -> None:
        """
        At the start, before leases are gone on with: finish what a kill has left half done, and warn of what will fail.

        :param is_default: whether networks that do not say want their containers moved.
        """
        if is_default or any(each.dhcp_readdress for each in self.registry.networks.values()):
            lacking = await self.lacking()
            if lacking:
                _log.warn("dhcp_readdress=true has no effect: {reason}", reason=lacking)
        for record in self.leases.half_moved():
            endpoint = self._endpoint_of(record.parent, record.facts)
            network = None if endpoint is None else self.registry.networks.get(endpoint.network_id)
            if (
                endpoint is None
                or network is None
                or record.pending is None
                or endpoint.address is None
                or endpoint.address.ip != record.pending.address
            ):
                continue  # nothing was done yet: the other address is given back
            try:
                sandbox = await self._sandbox_of(endpoint)
                routes = await self.host_access.move(endpoint, network)
                move = _planned(endpoint, network, record.facts, record.pending, routes)
                lost = await self.run(self.sandboxes.move, sandbox, move)
                # Not before: another kill would leave the container between its addresses for good.
                await self.leases.hold_to_pending(record)
                told = endpoint.reported_address or endpoint.address
                _tell_of_move(endpoint, record.facts.mac, _interface(network, told, record.facts), lost)
            except MacvlanError as failure:
                _log.error(
                    "DHCP on {parent}: whether the container with MAC {mac} (endpoint {endpoint}) has moved from {old} to "
                    "{new} is not known: {reason}; restart it",
                    parent=record.parent,
                    mac=record.facts.mac,
                    endpoint=endpoint.short_id,
                    old=record.facts.address,
                    new=record.pending.address,
                    reason=str(failure),
                )

    def _endpoint_of(self, parent: str, facts: Binding) -> Endpoint | None:
        for endpoint in self.registry.endpoints.values():
            if endpoint.parent == parent:
                lease = self.endpoint_addresses.lease_of(endpoint)
                if lease is not None and lease.mac == facts.mac:
                    return endpoint
        return None

    async def _sandbox_of(self, endpoint: Endpoint) -> str:
        """Where the container's sandbox is as seen from here, else where the engine says that it is."""
        if endpoint.sandbox:
            is_there: bool = await self.run(self.sandboxes.is_there, endpoint.sandbox)
            if is_there:
                return endpoint.sandbox
        try:
            pid = await self.processes.process_of(endpoint.network_id, endpoint.endpoint_id)
        except (EngineUnavailable, EngineError):
            pid = None
        return endpoint.sandbox if pid is None else sandbox_of_process(pid)

    async def _readdress(
        self, endpoint: Endpoint, network: Network, old: Binding, new: Binding, sandbox: str
    ) -> bool:
        told = endpoint.reported_address or endpoint.address
        assert told is not None
        moved = evolve(endpoint, address=_interface(network, told, new), reported_address=told)
        await self._save(moved)  # the intent: after a kill it is finished
        try:
            if not sandbox:
                raise LinkError("the engine did not say where the container's sandbox is", errno.ENOENT)
            routes = await self.host_access.move(moved, network)
            lost = await self.run(self.sandboxes.move, sandbox, _planned(endpoint, network, old, new, routes))
        except CancelledError:
            raise
        except Exception as failure:
            await self._put_back(endpoint, network)
            if not isinstance(failure, LinkError):
                raise
            _log.error(
                "DHCP on {parent}: the container with MAC {mac} (endpoint {endpoint}) cannot be moved from {old} to {new}, "
                "it keeps {old}: {reason}; restart it",
                parent=endpoint.parent,
                mac=old.mac,
                endpoint=endpoint.short_id,
                old=old.address,
                new=new.address,
                reason=str(failure),
            )
            return False
        self.endpoint_addresses.move(endpoint, moved, network)
        _tell_of_move(moved, old.mac, endpoint.address, lost)
        return True

    async def _put_back(self, endpoint: Endpoint, network: Network) -> None:
        """The first error is the one to tell; the next start tries once more what stays."""
        self.registry.replace_endpoint(endpoint)
        for step in (self._save(endpoint), self.host_access.move(endpoint, network)):
            try:
                await step
            except MacvlanError as failure:
                _log.error(
                    "endpoint {id} stays half moved: {reason}", id=endpoint.short_id, reason=str(failure)
                )

    async def _save(self, endpoint: Endpoint) -> None:
        await self.records.save(RecordKind.ENDPOINT, endpoint.endpoint_id, to_document(endpoint))
        self.registry.replace_endpoint(endpoint)


def _tell_of_move(moved: Endpoint, mac: str, old: IPInterface | None, lost: Iterable[str]) -> None:
    _log.warn(
        "DHCP on {parent}: the container with MAC {mac} (endpoint {endpoint}) was moved from {old} to {new}; the engine goes "
        "on showing {told}{lost}",
        parent=moved.parent,
        mac=mac,
        endpoint=moved.short_id,
        old=old,
        new=moved.address,
        told=moved.reported_address,
        lost="".join(f"; its route {each} could not be kept" for each in lost),
    )


def _interface(network: Network, told: IPInterface, facts: Binding) -> IPInterface:
    """An address with the prefix length that counts: of the subnet that the user gave, else of the server."""
    subnet = network.subnet_of(facts.address)
    if subnet is not None and subnet.pool.prefixlen:
        return IPv4Interface((facts.address, subnet.pool.prefixlen))
    if facts.prefix_length is None:
        return IPv4Interface((facts.address, told.network.prefixlen))
    return facts.interface


def _router(network: Network, address: IPInterface, facts: Binding) -> IPAddress | None:
    """Where the default route of a container with *address* leads: as in Join, but what the server says now counts."""
    subnet = network.subnet_of(address.ip)
    if network.internal:
        return None
    if subnet is not None and subnet.pool.prefixlen and subnet.gateway is not None:
        return subnet.gateway
    return facts.router if facts.router in address.network else None


def _planned(
    endpoint: Endpoint,
    network: Network,
    old: Binding,
    new: Binding,
    routes: Iterable[StaticRoute],
) -> Readdress:
    told = endpoint.reported_address or endpoint.address
    assert told is not None
    after = _interface(network, told, new)
    leaving = {old.address, *(each.ip for each in (endpoint.address, told) if each is not None)}
    before = {network.gateway_for(told), old.router}
    return Readdress(
        old.mac,
        tuple(each for each in leaving if each != new.address),
        after,
        tuple(each for each in before if each is not None),
        _router(network, after, new),
        tuple((each.destination, each.next_hop) for each in routes),
    )


__all__ = ["Readdressing"]
