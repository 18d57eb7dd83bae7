"""
Move a running container to another address when its DHCP server insists on that.

Only with ``dhcp_readdress``. The engine goes on showing the old address: no plugin call changes it.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable
from ipaddress import IPv4Interface

from attrs import evolve
from twisted.internet.defer import CancelledError
from twisted.logger import Logger

from ..addresses import IPAddress, IPInterface
from ..dhcp.binding import Binding
from ..dhcp.leases import Leases
from ..engine.interfaces import EngineError, EngineUnavailable, Processes
from ..errors import LinkError, MacvlanError
from ..keyed_lock import KeyedLock
from ..netlink.kernel import Readdress, Sandboxes
from ..netlink.netns import sandbox_of_process
from ..worker_threads import RunInThread
from .endpoint_addresses import LanAddresses
from .host_access import HostAccess
from .models import Endpoint, Network
from .registry import Registry
from .requests import StaticRoute

_log = Logger(namespace="macvlan_twisted.driver")


class ContainerSandboxes:
    """
    The containers' network namespaces, entered from worker threads.

    :param processes: the engine, which is asked where a sandbox is that the file system does not show.
    """

    def __init__(self, sandboxes: Sandboxes, run: RunInThread, processes: Processes) -> None:
        self._sandboxes = sandboxes
        self._run = run
        self._processes = processes

    async def lacking(self) -> str:
        """What this process lacks to change anything in a sandbox; empty if nothing."""
        return await self._run(self._sandboxes.lacking)

    async def locate(self, endpoint: Endpoint) -> str:
        """The path of the container's sandbox as seen from here; empty if it is unknown."""
        if endpoint.sandbox:
            is_there: bool = await self._run(self._sandboxes.is_there, endpoint.sandbox)
            if is_there:
                return endpoint.sandbox
        try:
            pid = await self._processes.process_of(endpoint.network_id, endpoint.endpoint_id)
        except (EngineUnavailable, EngineError):
            pid = None
        return endpoint.sandbox if pid is None else sandbox_of_process(pid)

    async def move(self, path: str, move: Readdress) -> tuple[str, ...]:
        """
        :return: routes that could not be kept.
        :raises LinkError: nothing has changed.
        """
        return await self._run(self._sandboxes.move, path, move)


class Readdressing:
    """
    :param locks: of endpoints, by their ids.
    """

    def __init__(
        self,
        registry: Registry,
        on_lan: LanAddresses,
        host_access: HostAccess,
        locks: KeyedLock,
        sandboxes: ContainerSandboxes,
    ) -> None:
        self._registry = registry
        self._on_lan = on_lan
        self._host_access = host_access
        self._locks = locks
        self._sandboxes = sandboxes

    async def readdress(self, parent: str, old: Binding, new: Binding) -> bool:
        """
        The server has leased *new* to the container that uses *old*.

        :return: whether the container uses it from now on.
        """
        endpoint = self._endpoint_of(parent, old.mac, old.address)
        network = None if endpoint is None else self._registry.networks.get(endpoint.network_id)
        if endpoint is None or network is None:
            return False  # not created yet, or just deleted
        if not network.dhcp_readdress:
            # Cause: the server insists on another address, and the network was created without -o dhcp_readdress=true.
            # Remedy: restart the container, reserve the address for the MAC on the server, or remove the network and
            # create it again with -o dhcp_readdress=true.
            _log.error(
                "DHCP {parent} {mac}: container still uses {old} although the server assigns {new} (endpoint "
                "{endpoint}); restart the container, or reserve {old} for {mac} on the server",
                parent=parent,
                mac=old.mac,
                endpoint=endpoint.short_id,
                old=old.address,
                new=new.address,
            )
            return False
        # Before the lock: the engine may be waiting for us in a call about this endpoint.
        sandbox = await self._sandboxes.locate(endpoint)
        async with self._locks.acquire(endpoint.endpoint_id):
            if self._registry.endpoints.get(endpoint.endpoint_id) != endpoint:
                return False
            return await self._readdress(endpoint, network, old, new, sandbox)

    async def finish(self, leases: Leases, is_default: bool) -> None:
        """
        At start, before leases are resumed: finish what a kill interrupted, and warn of what will fail.

        :param is_default: whether networks whose options do not say so want their containers moved.
        """
        if is_default or any(each.dhcp_readdress for each in self._registry.networks.values()):
            lacking = await self._sandboxes.lacking()
            if lacking:
                # Cause: the plugin lacks the permission to enter the network namespaces of containers. Remedy: grant
                # the permission that the reason names.
                _log.warn("dhcp_readdress=true: no effect ({reason})", reason=lacking)
        for record in leases.half_moved():
            endpoint = self._endpoint_of(
                record.parent, record.binding.mac, record.binding.address, record.reported_address
            )
            network = None if endpoint is None else self._registry.networks.get(endpoint.network_id)
            if (
                endpoint is None
                or network is None
                or record.pending is None
                or endpoint.address is None
                or endpoint.address.ip != record.pending.address
            ):
                continue  # nothing was done yet: the other address is given back
            try:
                sandbox = await self._sandboxes.locate(endpoint)
                routes = await self._host_access.connect(endpoint, network)
                move = _planned(endpoint, network, record.binding, record.pending, routes)
                lost = await self._sandboxes.move(sandbox, move)
                # Not before: another kill would leave the container between its addresses for good.
                await leases.accept_pending(record)
                reported = endpoint.reported_address or endpoint.address
                _log_move(endpoint, record.binding.mac, _interface(network, reported, record.binding), lost)
            except MacvlanError as failure:
                # Cause: the plugin was killed while it changed the address. Remedy: restart the container.
                _log.error(
                    "DHCP {parent} {mac}: unknown whether the container's address changed from {old} to {new} "
                    "({reason}; endpoint {endpoint}); restart the container",
                    parent=record.parent,
                    mac=record.binding.mac,
                    endpoint=endpoint.short_id,
                    old=record.binding.address,
                    new=record.pending.address,
                    reason=str(failure),
                )

    def _endpoint_of(self, parent: str, mac: str, *addresses: IPAddress) -> Endpoint | None:
        """
        The endpoint that has a lease.

        :param addresses: of the lease, by which an endpoint without a MAC of its own (passthru) is recognised.
        """
        for endpoint in self._registry.endpoints.values():
            if endpoint.parent != parent:
                continue
            if endpoint.mac == mac or (
                endpoint.mac is None and any(each in addresses for each in endpoint.known_addresses)
            ):
                return endpoint
        return None

    async def _readdress(
        self, endpoint: Endpoint, network: Network, old: Binding, new: Binding, sandbox: str
    ) -> bool:
        reported = endpoint.reported_address or endpoint.address
        assert reported is not None
        moved = evolve(endpoint, address=_interface(network, reported, new), reported_address=reported)
        await self._save(moved)  # the intent: after a kill it is finished
        try:
            if not sandbox:
                # Remedy: restart the container.
                raise LinkError("the engine did not report the container's sandbox", errno.ENOENT)
            routes = await self._host_access.connect(moved, network)
            lost = await self._sandboxes.move(sandbox, _planned(endpoint, network, old, new, routes))
        except CancelledError:
            raise
        except Exception as failure:
            await self._put_back(endpoint, network)
            if not isinstance(failure, LinkError):
                raise
            # Cause: the kernel refused, or the engine did not report the container's namespace. Remedy:
            # restart the container.
            _log.error(
                "DHCP {parent} {mac}: cannot change the container's address from {old} to {new} ({reason}; "
                "endpoint {endpoint}); restart the container",
                parent=endpoint.parent,
                mac=old.mac,
                endpoint=endpoint.short_id,
                old=old.address,
                new=new.address,
                reason=str(failure),
            )
            return False
        self._on_lan.move(endpoint, moved, network)
        _log_move(moved, old.mac, endpoint.address, lost)
        return True

    async def _put_back(self, endpoint: Endpoint, network: Network) -> None:
        """The first error is the one to tell; the next start tries once more what stays."""
        self._registry.replace_endpoint(endpoint)
        for step in (self._save(endpoint), self._host_access.connect(endpoint, network)):
            try:
                await step
            except MacvlanError as failure:
                # Cause: writing the state failed. Remedy: free space on the disk of the state directory; the plugin
                # finishes the change at its next start.
                _log.error(
                    "endpoint {endpoint}: cannot save its changed address ({reason})",
                    endpoint=endpoint.short_id,
                    reason=str(failure),
                )

    async def _save(self, endpoint: Endpoint) -> None:
        await self._registry.store_endpoint(endpoint)
        self._registry.replace_endpoint(endpoint)


def _log_move(moved: Endpoint, mac: str, old: IPInterface | None, lost: Iterable[str]) -> None:
    # Cause: the server insists on another address, and -o dhcp_readdress=true is set. The part in brackets
    # names the routes that the container lost with its old address. Remedy: none needed, unless the line names lost
    # routes that the container needs: then restart it. Docker shows the new address after a restart, too.
    _log.warn(
        "DHCP {parent} {mac}: container's address changed from {old} to {new}, but Docker still shows "
        "{shown}{lost_routes} (endpoint {endpoint})",
        parent=moved.parent,
        mac=mac,
        endpoint=moved.short_id,
        old=old,
        new=moved.address,
        shown=moved.reported_address,
        lost_routes="".join(f"; its route {each} is lost" for each in lost),
    )


def _interface(network: Network, reported: IPInterface, facts: Binding) -> IPInterface:
    """An address with the prefix length that counts: of the subnet that the user gave, else of the server."""
    subnet = network.subnet_of(facts.address)
    if subnet is not None and subnet.pool.prefixlen:
        return IPv4Interface((facts.address, subnet.pool.prefixlen))
    if facts.prefix_length is None:
        return IPv4Interface((facts.address, reported.network.prefixlen))
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
    reported = endpoint.reported_address or endpoint.address
    assert reported is not None
    after = _interface(network, reported, new)
    leaving = {old.address, *(each.ip for each in (endpoint.address, reported) if each is not None)}
    before = {network.gateway_for(reported), old.router}
    return Readdress(
        old.mac,
        tuple(each for each in leaving if each != new.address),
        after,
        tuple(each for each in before if each is not None),
        _router(network, after, new),
        tuple((each.destination, each.next_hop) for each in routes),
    )


__all__ = ["Readdressing"]
