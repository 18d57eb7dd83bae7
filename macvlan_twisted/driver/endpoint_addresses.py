"""An endpoint's addresses: acquired, watched over and announced on the LAN, and released."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Protocol

from attrs import evolve

from ..addresses import IPAddress, IPNetwork
from ..dhcp.binding import Binding
from ..dhcp.leases import Leases
from ..dhcp.store import Terms
from ..errors import RequestRefused
from ..lan.announcer import Announcer
from ..lan.conflicts import Conflicts, Holder, Inconclusive, InUse
from ..netlink.links import Links
from ..option_values import ConflictDetection
from .address_prediction import AddressPrediction
from .models import Endpoint, Network
from .registry import Registry

_RESERVE = "reserve it with --aux-address, or give the network an --ip-range that is not used by others"


class AddressOwners(Protocol):
    """Our address management, which gives back addresses that have had no endpoint for a while."""

    def endpoint_requested(
        self, endpoint_id: str, network_id: str, parent: str, addresses: Iterable[tuple[IPNetwork, IPAddress]]
    ) -> None:
        """
        An endpoint is about to be created.

        :param addresses: each with its subnet in the network.
        :raises RequestRefused: an address is not allocated to the endpoint any more.
        """

    def refuse_noticed(self, endpoint_id: str) -> None:
        """
        The endpoint has its link.

        :raises RequestRefused: another host was noticed with one of its addresses since that was allocated.
        """

    def endpoint_found(
        self, endpoint_id: str, network_id: str, parent: str, addresses: Iterable[tuple[IPNetwork, IPAddress]]
    ) -> None:
        """At start: an endpoint was created in an earlier life of the service."""

    def endpoint_created(self, network_id: str, addresses: Iterable[IPAddress]) -> None:
        """An endpoint of the network was created with *addresses*."""

    def endpoint_removed(
        self, endpoint_id: str, network_id: str, addresses: Iterable[IPAddress], may_return: bool = False
    ) -> None:
        """
        The endpoint with *addresses* is gone, or was not created.

        :param may_return: whether its container may have them again at once: it was created, and neighbours know the
            addresses by a MAC that is made of them.
        """


class JoinObserver(Protocol):
    """Is notified of each container that joins."""

    def joined(self, endpoint: Endpoint) -> None: ...


class LanAddresses:
    """Endpoints' addresses on the LANs of their parents: watched over, announced, and let go."""

    def __init__(
        self,
        registry: Registry,
        conflicts: Conflicts,
        announcer: Announcer,
        prediction: AddressPrediction,
    ) -> None:
        self._registry = registry
        self._conflicts = conflicts
        self._announcer = announcer
        self._prediction = prediction

    def load(self) -> None:
        """At start: watch over the addresses of all endpoints."""
        for endpoint in self._registry.endpoints.values():
            self._watch(endpoint)

    async def hold(self, endpoint: Endpoint, network: Network, forgotten: Endpoint | None) -> None:
        """
        Make sure that no other host has the endpoint's addresses. Our own address management has probed an address
        before it handed it out; others do not.

        :param forgotten: addresses of this endpoint, which may be dead, are skipped; its MAC decides.
        :raises RequestRefused: an address is in use.
        """
        for address in endpoint.addresses:
            if not self._is_held(address, network, forgotten):
                continue
            with self._prediction.requested(network, address):
                await refuse_used_by_others(
                    self._conflicts,
                    network,
                    address,
                    "address",
                    _RESERVE,
                    checks_later=True,
                )

    def refuse_noticed(self, endpoint: Endpoint, network: Network, forgotten: Endpoint | None) -> None:
        """
        After :meth:`hold`, when the endpoint has its link.

        :raises RequestRefused: another host has answered for an address meanwhile.
        """
        for address in endpoint.addresses:
            if self._is_held(address, network, forgotten):
                foreign_host = self._conflicts.noticed(network.parent, address)
                if foreign_host is not None:
                    raise _in_use(network, "address", address, foreign_host, _RESERVE)

    @staticmethod
    def _is_held(address: IPAddress, network: Network, forgotten: Endpoint | None) -> bool:
        subnet = network.subnet_of(address)
        return (
            network.conflict_detection != ConflictDetection.OFF
            and (subnet is None or not subnet.managed_here)
            and (forgotten is None or address not in forgotten.addresses)
        )

    def activate(self, endpoint: Endpoint) -> None:
        """The endpoint has its link: from now on conflicts over its addresses are reported."""
        self._watch(endpoint)

    def _watch(self, endpoint: Endpoint) -> None:
        network = self._registry.networks.get(endpoint.network_id)
        for address in endpoint.addresses:
            subnet = None if network is None else network.subnet_of(address)
            is_managed = subnet is not None and subnet.managed_here
            self._conflicts.assign(endpoint.parent, address, endpoint.mac or "", is_managed=is_managed)

    def announce(self, endpoint: Endpoint, network: Network) -> None:
        """Update neighbours that know the endpoint's addresses under another MAC."""
        if network.announce:
            for address in endpoint.addresses:
                self._announcer.begin(endpoint.parent, address, endpoint.mac)

    def move(self, before: Endpoint, after: Endpoint, network: Network) -> None:
        """The container has another IPv4 address now; its IPv6 address stays."""
        assert before.address is not None
        assert after.address is not None
        self._announcer.stop(before.parent, before.address.ip)
        self._conflicts.unassign(before.parent, before.address.ip)
        self._watch(after)
        if network.announce:
            self._announcer.begin(after.parent, after.address.ip, after.mac)

    def release(
        self, endpoint: Endpoint, network: Network | None, other: Endpoint | None, link_removed: bool
    ) -> None:
        """
        The endpoint is gone, or was never created.

        :param other: an endpoint with the same MAC, which keeps its addresses.
        :param link_removed: whether we have just removed its link.
        """
        for address in endpoint.addresses:
            current = self._conflicts.assigned_mac(endpoint.parent, address)
            if (other is not None and address in other.addresses) or current not in (
                None,
                endpoint.mac or "",
            ):
                continue
            if current is None:  # it was never created
                self._conflicts.release(endpoint.parent, address, endpoint.network_id)
                continue
            self._announcer.stop(endpoint.parent, address)
            self._conflicts.unassign(endpoint.parent, address, link_removed)
            if network is not None:
                self._prediction.released(network, address)

    def is_assigned(self, endpoint: Endpoint) -> bool:
        """Whether the endpoint was created with its addresses, and has them still."""
        macs = [self._conflicts.assigned_mac(endpoint.parent, each) for each in endpoint.addresses]
        return bool(macs) and all(mac == endpoint.mac for mac in macs)

    def of_other_mac(self, endpoint: Endpoint) -> list[Endpoint]:
        """Endpoints on the same parent that have an address of *endpoint* under another MAC."""
        macs = {
            mac_of(endpoint.parent, each)
            for each in endpoint.addresses
            for mac_of in (self._conflicts.assigned_mac, self._conflicts.forgotten_mac)
        }
        found = [self._registry.holder_of_mac(endpoint.parent, mac) for mac in macs - {endpoint.mac} if mac]
        return [each for each in found if each is not None]

    def contested_by(self, endpoint: Endpoint) -> str | None:
        """The MAC of another host that uses one of the endpoint's addresses; ``None`` if none was seen."""
        found = [self._conflicts.table.contested_by(endpoint.parent, each) for each in endpoint.addresses]
        return next((each for each in found if each is not None), None)

    def stop(self) -> None:
        """Leave no delayed call behind."""
        self._prediction.stop()

    def forget_network(self, network: Network) -> None:
        self._prediction.forget(network)
        for subnet in network.subnets:
            if not subnet.managed_here and not subnet.null_ipam:
                self._conflicts.table.forget_within(network.parent, subnet.pool)


class EndpointAddresses:
    """
    From CreateEndpoint to DeleteEndpoint.

    :param owners: our address management, which learns which of its addresses have an endpoint.
    :param joins: is notified of each container that joins.
    """

    def __init__(
        self,
        registry: Registry,
        links: Links,
        on_lan: LanAddresses,
        leases: Leases,
        owners: AddressOwners,
        joins: JoinObserver,
    ) -> None:
        self._registry = registry
        self._links = links
        self.on_lan = on_lan
        self._leases = leases
        self._owners = owners
        self._joins = joins

    def load(self) -> None:
        """At start: tell our address management which addresses have an endpoint."""
        for endpoint in self._registry.endpoints.values():
            network = self._registry.networks.get(endpoint.network_id)
            if network is not None:
                self._owners.endpoint_found(
                    endpoint.endpoint_id, endpoint.network_id, endpoint.parent, _managed(endpoint, network)
                )

    @contextmanager
    def requested(self, endpoint: Endpoint, network: Network) -> Iterator[None]:
        """
        Surround the creation of *endpoint*. From now on its addresses are not another endpoint's, unless it fails.

        :raises RequestRefused: our address management has not allocated an address to it, or not any more.
        """
        try:
            self._owners.endpoint_requested(
                endpoint.endpoint_id, endpoint.network_id, endpoint.parent, _managed(endpoint, network)
            )
            yield
        except BaseException:
            self._owners.endpoint_removed(endpoint.endpoint_id, endpoint.network_id, ())
            raise

    async def acquire(self, endpoint: Endpoint, network: Network, forgotten: Endpoint | None) -> Endpoint:
        """
        Make sure that the endpoint's addresses are free, or lease one.

        :param forgotten: an endpoint with the same MAC, which may be dead. The kernel decides.
        :return: the endpoint with its address.
        :raises RequestRefused: an address is in use, or no server leases one.
        """
        if network.dhcp and endpoint.address is None:
            return await self._leased(endpoint, network, forgotten)
        await self.on_lan.hold(endpoint, network, forgotten)
        return endpoint

    def refuse_noticed(self, endpoint: Endpoint, network: Network, forgotten: Endpoint | None) -> None:
        """
        After :meth:`acquire`, when the endpoint has its link: the answers of other hosts are there by now.

        :raises RequestRefused: another host has one of its addresses.
        """
        if not self.is_leased(endpoint):
            self.on_lan.refuse_noticed(endpoint, network, forgotten)
        self._owners.refuse_noticed(endpoint.endpoint_id)

    async def _leased(self, endpoint: Endpoint, network: Network, forgotten: Endpoint | None) -> Endpoint:
        """
        Lease an address under the container's MAC. To the server an endpoint that the engine has forgotten and its
        successor under the same MAC are one client.
        """
        mac = endpoint.mac
        if forgotten is not None and forgotten.network_id == endpoint.network_id:
            inherited = lease_of(forgotten, self._leases)
            if inherited is not None and inherited.mac == mac:
                return evolve(endpoint, address=inherited.interface)
        if mac is None:  # passthru: the NIC's own
            nic = await self._links.find(network.parent)
            mac = "" if nic is None else nic.mac
        terms = Terms(
            network.parent,
            mac,
            vendor_class=network.dhcp_vendor_class,
            release=network.dhcp_release,
            conflict_detection=network.conflict_detection,
        )
        binding = await self._leases.acquire(terms)
        return evolve(endpoint, address=binding.interface)

    def activate(self, endpoint: Endpoint, network: Network) -> None:
        """The endpoint is created: from now on its addresses are its own, whatever other hosts claim."""
        self.on_lan.activate(endpoint)
        self._owners.endpoint_created(
            endpoint.network_id,
            [
                address
                for address in endpoint.addresses
                if (subnet := network.subnet_of(address)) is not None and subnet.managed_here
            ],
        )

    def announce(self, endpoint: Endpoint, network: Network) -> None:
        """The container joins."""
        self._joins.joined(endpoint)
        self.on_lan.announce(endpoint, network)

    async def release(self, endpoint: Endpoint, network: Network | None, link_removed: bool = False) -> None:
        """
        The endpoint is gone, or was never created. An endpoint with the same MAC keeps what it shares with this one.

        :param link_removed: whether we have just removed its link.
        :raises StateError: its lease stays on disk until the next start.
        """
        may_return = self.on_lan.is_assigned(endpoint) and endpoint.has_mac_of_address
        self._owners.endpoint_removed(
            endpoint.endpoint_id, endpoint.network_id, endpoint.known_addresses, may_return
        )
        other = None
        if endpoint.mac is not None:
            other = self._registry.holder_of_mac(endpoint.parent, endpoint.mac)
        self.on_lan.release(endpoint, network, other, link_removed)
        lease = lease_of(endpoint, self._leases)
        if lease is not None and other is None:
            await self._leases.release(endpoint.parent, lease.mac)

    def is_leased(self, endpoint: Endpoint) -> bool:
        return lease_of(endpoint, self._leases) is not None

    def leased_router(self, endpoint: Endpoint, network: Network) -> IPAddress | None:
        lease = lease_of(endpoint, self._leases)
        if lease is None or network.internal or lease.router not in lease.interface.network:
            return None
        return lease.router


def _managed(endpoint: Endpoint, network: Network) -> list[tuple[IPNetwork, IPAddress]]:
    """The addresses that our address management has allocated to the endpoint, each with its subnet."""
    reported = endpoint.reported_address or endpoint.address
    addresses = [each.ip for each in (reported, endpoint.address_v6) if each is not None]
    subnets = [(network.subnet_of(each), each) for each in addresses]
    return [(subnet.pool, each) for subnet, each in subnets if subnet is not None and subnet.managed_here]


def lease_of(endpoint: Endpoint, leases: Leases) -> Binding | None:
    """The lease behind the endpoint's address."""
    if endpoint.mac is not None:
        return leases.of_mac(endpoint.parent, endpoint.mac)
    reported = endpoint.reported_address or endpoint.address
    return None if reported is None else leases.of_address(endpoint.parent, reported.ip)


async def refuse_used_by_others(
    conflicts: Conflicts,
    network: Network,
    address: IPAddress,
    kind_of_address: str,
    remedy: str,
    *,
    checks_later: bool = False,
) -> None:
    """
    Hold *address* for *network* if its option asks for conflict detection.

    :param kind_of_address: ``address`` or ``host address``.
    :param remedy: what the user can do if it is in use.
    :param checks_later: see :meth:`~macvlan_twisted.lan.conflicts.Conflicts.hold`.
    :raises RequestRefused: it is in use, or probing failed and the option is ``strict``.
    """
    if network.conflict_detection == ConflictDetection.OFF:
        return
    verdict = await conflicts.hold(
        network.parent, address, Holder(network.network_id), checks_later=checks_later
    )
    if isinstance(verdict, InUse):
        raise _in_use(network, kind_of_address, address, verdict.user, remedy)
    if isinstance(verdict, Inconclusive):
        if network.conflict_detection == ConflictDetection.STRICT:
            # Remedy: bring the parent up, check its cable, or create the network with -o conflict_detection=on instead of
            # strict.
            raise RequestRefused(
                f"{kind_of_address} {address} cannot be probed on {network.parent} ({verdict.reason}): bring the "
                "parent up, or create the network with -o conflict_detection=on instead of strict"
            )
        conflicts.count_inconclusive(network.parent, address, verdict.reason)


def _in_use(
    network: Network, kind_of_address: str, address: IPAddress, foreign_host: str, remedy: str
) -> RequestRefused:
    # Remedy: use another address (the message names the option), or change the address of the host that has this MAC.
    return RequestRefused(
        f"{kind_of_address} {address} is in use on {network.parent} by {foreign_host}: {remedy}"
    )
