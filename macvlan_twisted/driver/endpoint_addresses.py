"""What an endpoint is to the LAN: its addresses are asked for, leased, watched over and announced there."""

from __future__ import annotations

from collections.abc import Callable

from attrs import evolve

from ..addresses import IPAddress
from ..dhcp.binding import Binding
from ..dhcp.leases import Leases
from ..dhcp.store import Terms
from ..lan.announcer import Announcer
from ..lan.conflicts import Conflicts
from ..netlink.links import Links
from .address_prediction import AddressPrediction
from .free_addresses import refuse_used_by_others
from .models import Endpoint, Network
from .registry import Registry


class EndpointAddresses:
    """Endpoints on the LANs of their parents."""

    def __init__(
        self, registry: Registry, links: Links, conflicts: Conflicts, announcements: Announcer, leases: Leases
    ) -> None:
        self._registry = registry
        self._links = links
        self._conflicts = conflicts
        self._announcements = announcements
        self._leases = leases
        self._foresight = AddressPrediction(conflicts, registry)
        self.when_joined: list[Callable[[Endpoint], None]] = []
        """Told of each container that joins."""
        for endpoint in registry.endpoints.values():
            self._look_after(endpoint)

    async def secure(self, endpoint: Endpoint, network: Network, forgotten: Endpoint | None) -> Endpoint:
        """
        Make sure that the endpoint's addresses are free, or lease one.

        :param forgotten: what it has of this endpoint, which may be dead, is for the kernel to say, by its MAC.
        :return: the endpoint with its address.
        :raises Refused: an address is in use, or no server leases one.
        """
        if network.dhcp and endpoint.address is None:
            return await self._leased(endpoint, network, forgotten)
        await self._refuse_used_by_others(endpoint, network, forgotten)
        return endpoint

    async def _leased(self, endpoint: Endpoint, network: Network, forgotten: Endpoint | None) -> Endpoint:
        """
        Nobody manages addresses: the LAN's own DHCP server leases one, under the container's MAC. To the server
        one that the engine has forgotten and its successor under the same MAC are one client.
        """
        mac = endpoint.mac
        if forgotten is not None and forgotten.network_id == endpoint.network_id:
            inherited = self.lease_of(forgotten)
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
        facts = await self._leases.take(terms)
        return evolve(endpoint, address=facts.interface)

    async def _refuse_used_by_others(
        self, endpoint: Endpoint, network: Network, forgotten: Endpoint | None
    ) -> None:
        """Our own address management has asked the LAN before it handed an address out; others do not."""
        for address in endpoint.addresses:
            subnet = network.subnet_of(address)
            if (subnet is not None and subnet.managed_here) or (
                forgotten is not None and address in forgotten.addresses
            ):
                continue
            await refuse_used_by_others(
                self._conflicts,
                network,
                address,
                "address",
                "reserve it with --aux-address, or give the network an --ip-range that is not used by others",
            )

    def settle(self, endpoint: Endpoint, network: Network) -> None:
        """The endpoint is made: from now on its addresses are its own, whoever else says so on the LAN."""
        self._look_after(endpoint)
        for address in endpoint.addresses:
            self._foresight.given(network, address)

    def _look_after(self, endpoint: Endpoint) -> None:
        network = self._registry.networks.get(endpoint.network_id)
        for address in endpoint.addresses:
            subnet = None if network is None else network.subnet_of(address)
            is_managed = subnet is not None and subnet.managed_here
            self._conflicts.given(endpoint.parent, address, endpoint.mac or "", is_managed=is_managed)

    def announce(self, endpoint: Endpoint, network: Network) -> None:
        """The container joins: neighbours that knew its addresses under other MACs are told."""
        for tell in self.when_joined:
            tell(endpoint)
        if network.announce:
            for address in endpoint.addresses:
                self._announcements.begin(endpoint.parent, address, endpoint.mac)

    def move(self, before: Endpoint, after: Endpoint, network: Network) -> None:
        """The container has another IPv4 address now; its other one stays as it is."""
        assert before.address is not None
        assert after.address is not None
        self._announcements.stop(before.parent, before.address.ip)
        self._conflicts.gone(before.parent, before.address.ip)
        self._look_after(after)
        if network.announce:
            self._announcements.begin(after.parent, after.address.ip, after.mac)

    async def leave(self, endpoint: Endpoint, network: Network | None, link_removed: bool = False) -> None:
        """
        The endpoint is gone, or was never made. What another one under the same MAC has stays that one's.

        :param link_removed: its link was there, and was taken away.
        """
        other = None
        if endpoint.mac is not None:
            other = self._registry.holder_of_mac(endpoint.parent, endpoint.mac)
        for address in endpoint.addresses:
            given = self._conflicts.mac_given(endpoint.parent, address)
            if (other is not None and address in other.addresses) or given not in (None, endpoint.mac or ""):
                continue
            if given is None:  # it was never made
                self._conflicts.let_go(endpoint.parent, address, endpoint.network_id)
                continue
            self._announcements.stop(endpoint.parent, address)
            self._conflicts.gone(endpoint.parent, address, link_removed)
            if network is not None:
                self._foresight.returned(network, address)
        lease = self.lease_of(endpoint)
        if lease is not None and other is None:
            await self._leases.give_back(endpoint.parent, lease.mac)

    def of_other_mac(self, endpoint: Endpoint) -> list[Endpoint]:
        """Endpoints on the same parent that have an address of *endpoint* under another MAC."""
        macs = {
            tell(endpoint.parent, each)
            for each in endpoint.addresses
            for tell in (self._conflicts.mac_given, self._conflicts.mac_forgotten)
        }
        found = [self._registry.holder_of_mac(endpoint.parent, mac) for mac in macs - {endpoint.mac} if mac]
        return [each for each in found if each is not None]

    def contested_by(self, endpoint: Endpoint) -> str | None:
        """The MAC of somebody else who uses one of its addresses, ``None`` if nobody was seen."""
        found = [self._conflicts.others.contested_by(endpoint.parent, each) for each in endpoint.addresses]
        return next((each for each in found if each is not None), None)

    def forget_network(self, network: Network) -> None:
        self._foresight.forget(network)
        for subnet in network.subnets:
            if not subnet.managed_here and not subnet.null_ipam:
                self._conflicts.others.forget_within(network.parent, subnet.pool)

    def lease_of(self, endpoint: Endpoint) -> Binding | None:
        if endpoint.mac is not None:
            return self._leases.of_mac(endpoint.parent, endpoint.mac)
        told = endpoint.reported_address or endpoint.address
        return None if told is None else self._leases.of_address(endpoint.parent, told.ip)

    def leased_router(self, endpoint: Endpoint, network: Network) -> IPAddress | None:
        lease = self.lease_of(endpoint)
        if lease is None or network.internal or lease.router not in lease.interface.network:
            return None
        return lease.router
