"""What each call about an endpoint does: from CreateEndpoint to DeleteEndpoint."""

from __future__ import annotations

import errno
from collections.abc import Callable
from random import SystemRandom

from attrs import evolve
from twisted.logger import Logger

from ..addresses import IPAddress, IPInterface
from ..errors import LinkFailed, MacvlanError, NotFound, Refused, StateFailed
from ..lan.announcements import Announcements
from ..lan.conflicts import Conflicts, Taken, Unproven
from ..lan.dhcp import LeaseFacts
from ..lan.leases import Leases, Terms
from ..links.interface import Port
from ..links.pool import Links
from ..macs import derived_mac, random_mac
from ..names import alias_of, endpoint_link_name
from ..records import to_document
from ..settings import Settings
from ..state.interface import HostRecords, Kind
from ..turns import Turns
from . import requests
from .explanations import explained
from .known import Known
from .network import Endpoint, Network
from .parents import Parents

_log = Logger(namespace="macvlan_twisted.driver")


class Endpoints:
    """The calls of the engine about endpoints."""

    def __init__(
        self,
        settings: Settings,
        known: Known,
        records: HostRecords,
        links: Links,
        parents: Parents,
        conflicts: Conflicts,
        announcements: Announcements,
        leases: Leases,
        chosen_mac: Callable[[str, IPAddress], str | None],
    ) -> None:
        """:param chosen_mac: the MAC that our address management has chosen for an address on a parent."""
        self._settings = settings
        self._known = known
        self._records = records
        self._links = links
        self._parents = parents
        self._conflicts = conflicts
        self._announcements = announcements
        self._leases = leases
        self._chosen_mac = chosen_mac
        for endpoint in known.endpoints.values():
            self._look_after(endpoint)
        self._turns = Turns()
        self._being_made: set[str] = set()
        self._random = SystemRandom()

    async def create(self, request: requests.CreateEndpoint) -> requests.CreatedEndpoint:
        """
        Make the endpoint's link; its row is on disk before the kernel is touched.

        :return: the MAC and the address that we chose, each ``None`` if the request named one or there is none.
        """
        async with self._turns.of(request.endpoint_id):
            network = self._known.network(request.network_id)
            existing = self._known.endpoints.get(request.endpoint_id)
            endpoint = self._planned(request, network, existing)
            if existing == endpoint:
                return _chosen(endpoint, request)
            if existing is not None:
                raise Refused(f"endpoint {endpoint.endpoint_id} exists with other addresses: remove it first")
            forgotten = await self._forgotten_holder(endpoint)
            self._known.add_endpoint(endpoint)
            self._being_made.add(endpoint.endpoint_id)
            try:
                if network.dhcp and endpoint.address is None:
                    endpoint = await self._leased(endpoint, network)
                else:
                    await self._refuse_used_by_others(endpoint, network, forgotten)
                await self._records.save(Kind.ENDPOINT, endpoint.endpoint_id, to_document(endpoint))
                await self._make_link(endpoint, network, forgotten)
            except BaseException:
                await self._undo(endpoint)
                raise
            finally:
                self._being_made.discard(endpoint.endpoint_id)
            if forgotten is not None:
                await self._forget(forgotten)
            self._look_after(endpoint)
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

    async def _leased(self, endpoint: Endpoint, network: Network) -> Endpoint:
        """Nobody manages addresses: the LAN's own DHCP server leases one, under the container's MAC."""
        mac = endpoint.mac
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
        leased = evolve(endpoint, address=facts.interface)
        self._known.remove_endpoint(endpoint.endpoint_id)
        self._known.add_endpoint(leased)
        return leased

    async def _undo(self, endpoint: Endpoint) -> None:
        """Forget an endpoint that was not made; the engine will not ask for it."""
        try:
            await self._forget(endpoint)
        except StateFailed as failure:  # the first error is the one to tell
            self._known.remove_endpoint(endpoint.endpoint_id)
            _log.error(
                "the row of endpoint {id} stays: {reason}", id=endpoint.endpoint_id, reason=str(failure)
            )

    async def _forget(self, endpoint: Endpoint) -> None:
        await self._records.forget(Kind.ENDPOINT, endpoint.endpoint_id)
        self._known.remove_endpoint(endpoint.endpoint_id)
        for address in endpoint.addresses:
            self._announcements.stop(endpoint.parent, address)
            self._conflicts.gone(endpoint.parent, address)
        lease = self._lease_of(endpoint)
        if lease is not None:
            await self._leases.give_back(endpoint.parent, lease.mac)

    def _lease_of(self, endpoint: Endpoint) -> LeaseFacts | None:
        if endpoint.mac is not None:
            return self._leases.of_mac(endpoint.parent, endpoint.mac)
        return (
            None
            if endpoint.address is None
            else self._leases.of_address(endpoint.parent, endpoint.address.ip)
        )

    def _look_after(self, endpoint: Endpoint) -> None:
        """From now on the endpoint's addresses are its own, whoever else says so on the LAN."""
        if endpoint.mac is not None:
            for address in endpoint.addresses:
                self._conflicts.given(endpoint.parent, address, endpoint.mac)

    async def _refuse_used_by_others(
        self, endpoint: Endpoint, network: Network, forgotten: Endpoint | None
    ) -> None:
        """
        Our own address management has asked the LAN before it handed an address out; others do not.

        What an endpoint has that may be dead is for the kernel to say, by its MAC.
        """
        if network.conflict_detection == "off":
            return
        for address in endpoint.addresses:
            subnet = network.subnet_of(address)
            if (subnet is not None and subnet.is_ours) or (
                forgotten is not None and address in forgotten.addresses
            ):
                continue
            verdict = await self._conflicts.hold(network.parent, address)
            if isinstance(verdict, Taken):
                raise Refused(
                    f"address {address} is in use on {network.parent}: MAC {verdict.mac} {verdict.how.value}; reserve it "
                    "with --aux-address, or give the network an --ip-range that is not used by others"
                )
            if isinstance(verdict, Unproven):
                if network.conflict_detection == "strict":
                    raise Refused(
                        f"it cannot be found out whether address {address} is in use on {network.parent}: {verdict.reason}; "
                        "mend that, or create the network with -o conflict_detection=on"
                    )
                self._conflicts.count_unproven(network.parent, address, verdict.reason)

    def _planned(
        self, request: requests.CreateEndpoint, network: Network, existing: Endpoint | None
    ) -> Endpoint:
        for address in (request.address, request.address_v6):
            if address is not None:
                self._refuse_router(address, network)
        mac = request.mac
        if network.mode == "passthru":
            if mac is not None and not network.force_mac:
                raise Refused(
                    f"MAC address {mac}: in mode passthru the container's MAC is that of parent {network.parent} "
                    "itself, which would be changed: leave --mac-address out, or create the network with "
                    "-o force_mac=true"
                )
        elif mac is None:
            mac = self._chosen(request, network, existing)
        self._refuse_other_mac_than_leased(request, network, mac)
        address = request.address
        if address is None and existing is not None and network.dhcp:
            address = existing.address
        return Endpoint(
            endpoint_id=request.endpoint_id,
            network_id=network.network_id,
            link=endpoint_link_name(request.endpoint_id),
            parent=network.parent,
            mac=mac,
            mac_is_ours=request.mac is None and mac is not None,
            address=address,
            address_v6=request.address_v6,
        )

    def _chosen(self, request: requests.CreateEndpoint, network: Network, existing: Endpoint | None) -> str:
        """The MAC of a container for which the user named none."""
        if existing is not None and existing.mac is not None and existing.mac_is_ours:
            return existing.mac
        for address in (request.address, request.address_v6):
            if address is not None:
                lease = self._leases.of_address(network.parent, address.ip)
                chosen = self._chosen_mac(network.parent, address.ip) if lease is None else lease.mac
                if chosen is not None:
                    return chosen
        is_ours = any(each.is_ours for each in network.subnets)
        if network.identity == "random" and not is_ours:
            return random_mac(self._random)
        return derived_mac(request.address, request.address_v6, request.endpoint_id)

    def _refuse_other_mac_than_leased(
        self, request: requests.CreateEndpoint, network: Network, mac: str | None
    ) -> None:
        if request.address is None:
            return
        lease = self._leases.of_address(network.parent, request.address.ip)
        if lease is None or mac == lease.mac:
            return
        if mac is None:
            raise Refused(
                f"in mode passthru the container's MAC is that of parent {network.parent}, and --ipam-opt dhcp=true has "
                f"leased {request.address.ip} under {lease.mac}: use --ipam-driver null and -o dhcp=true"
            )
        raise Refused(
            f"MAC address {mac} comes too late: address {request.address.ip} was leased under {lease.mac} before the "
            "container was there; leave --mac-address out, or create the network with --ipam-driver null and "
            "-o dhcp=true, which leases under --mac-address"
        )

    def _refuse_router(self, address: IPInterface, network: Network) -> None:
        """Address management that is not ours does not know the LAN's router, and hands its address out."""
        subnet = network.subnet_of(address.ip)
        if subnet is not None and address.ip == subnet.gateway:
            raise Refused(f"address {address.ip} is the gateway of its network: choose another one")
        if network.on_dummy or address.ip not in self._settings.gateways:
            return
        has_gateway = subnet is not None and subnet.gateway is not None
        if has_gateway and self._settings.host_interface not in (None, network.parent):
            return  # on another NIC, and with a router of its own
        another = f" (or --aux-address router={address.ip}, if its gateway is to be another one)"
        raise Refused(
            f"address {address.ip} is that of the LAN's router: create the network with --gateway {address.ip}"
            f"{another if has_gateway else ''}, so that it is never handed out"
        )

    async def _forgotten_holder(self, endpoint: Endpoint) -> Endpoint | None:
        """
        Another endpoint of ours that has the same MAC on the parent, and may have been forgotten by the engine.

        Engines drop endpoints without a word (docs/reference/protocol). Where address management has handed
        out the same address of the same network again, the old endpoint is dead and is removed. Else, if its
        link is not in the host's namespace, the kernel knows whether it is alive in a container.

        :return: an endpoint to be forgotten if the kernel proves the MAC to be free.
        :raises Refused: the MAC is in use.
        """
        while endpoint.mac is not None:
            holder = self._known.holder_of_mac(endpoint.parent, endpoint.mac)
            if holder is None:
                return None
            is_under_way = holder.endpoint_id in self._being_made
            if not is_under_way and _has_address_of(endpoint, holder):
                _log.info(
                    "endpoint {old} is dropped: the engine has forgotten it, and gave its address to {new}",
                    old=holder.short_id,
                    new=endpoint.short_id,
                )
                await self.delete(requests.EndpointCall(holder.network_id, holder.endpoint_id))
                continue
            if not is_under_way and not self._links.exists(holder.link):
                return holder
            raise _mac_in_use(holder)
        return None

    async def _make_link(self, endpoint: Endpoint, network: Network, forgotten: Endpoint | None) -> None:
        if network.mode == "passthru":
            await self._links.reaped()
        port = network.port(
            endpoint.link,
            self._links.group,
            alias_of(self._records.instance, "endpoint", endpoint.endpoint_id),
            # In passthru the engine sets the MAC itself, in the container; here it would be the NIC's at once.
            None if network.mode == "passthru" else endpoint.mac,
        )
        # A MAC that a user chose may be in use by links that we cannot see. One that we derived is so only where
        # the address is, too; proving it would cost every start a grace period of the kernel.
        named_by_user = endpoint.mac is not None and not endpoint.mac_is_ours
        prove = network.mode != "passthru" and (named_by_user or forgotten is not None)
        try:
            await self._add_port(port, network, prove)
        except LinkFailed as failure:
            if failure.errno == errno.EADDRINUSE and forgotten is not None:
                raise _mac_in_use(forgotten) from None  # alive, with its link in a container
            others = [each for each in self._known.endpoints_of(network.network_id) if each != endpoint]
            raise explained(failure, network, endpoint.mac, others) from None

    async def _add_port(self, port: Port, network: Network, prove_mac_free: bool) -> None:
        try:
            await self._links.add_port(port, prove_mac_free)
        except LinkFailed as failure:
            if failure.errno != errno.ENODEV or not network.vlan_steps:
                raise
            # The VLANs that we made go with their NIC, and have to be made again when it is back.
            try:
                await self._parents.restore(network)
            except MacvlanError:
                raise failure from None
            await self._links.add_port(port, prove_mac_free)

    async def operational_info(self, request: requests.EndpointCall) -> dict[str, str]:
        endpoint = self._known.endpoint(request.endpoint_id)
        network = self._known.network(endpoint.network_id)
        told = {
            "parent": endpoint.parent,
            "mode": network.mode,
            "link": endpoint.link,
            "mac": endpoint.mac,
            "address": endpoint.address,
            "address_v6": endpoint.address_v6,
            "vlan_id": network.vlan_id,
        }
        return {name: str(value) for name, value in told.items() if value is not None}

    async def join(self, request: requests.EndpointCall) -> requests.Joined:
        endpoint = self._known.endpoint(request.endpoint_id)
        network = self._known.network(endpoint.network_id)
        if not self._links.exists(endpoint.link):
            raise NotFound(
                f"link {endpoint.link} of endpoint {endpoint.endpoint_id} is gone from the host: start the container "
                "again"
            )
        if network.announce and endpoint.mac is not None:
            for address in endpoint.addresses:
                self._announcements.begin(endpoint.parent, address, endpoint.mac)
        gateway = network.gateway_for(endpoint.address) or self._leased_router(endpoint, network)
        return requests.Joined(endpoint.link, gateway, network.gateway_for(endpoint.address_v6))

    def _leased_router(self, endpoint: Endpoint, network: Network) -> IPAddress | None:
        lease = self._lease_of(endpoint)
        if lease is None or network.internal or lease.router not in lease.interface.network:
            return None
        return lease.router

    async def leave(self, request: requests.EndpointCall) -> None:
        """Nothing: the engine moves the link back and then asks for its removal, or for another Leave."""

    async def delete(self, request: requests.EndpointCall) -> None:
        """Remove the endpoint and its link; succeeds when there is nothing."""
        async with self._turns.of(request.endpoint_id):
            endpoint = self._known.endpoints.get(request.endpoint_id)
            if endpoint is None:
                await self._remove_unknown(request.endpoint_id)
                return
            removed, failure = True, None
            try:
                removed = await self._links.condemn(endpoint.link)
            except LinkFailed as failed:  # without a row it is removed at the next start at the latest
                failure = failed
            network = self._known.networks.get(endpoint.network_id)
            if network is not None and network.mode == "passthru":
                await self._links.reaped()
            await self._forget(endpoint)
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


def _chosen(endpoint: Endpoint, request: requests.CreateEndpoint) -> requests.CreatedEndpoint:
    return requests.CreatedEndpoint(
        endpoint.mac if endpoint.mac_is_ours else None,
        endpoint.address if request.address is None else None,
    )


def _mac_in_use(holder: Endpoint) -> Refused:
    return Refused(
        f"MAC address {holder.mac} is in use on parent {holder.parent} by endpoint {holder.endpoint_id} of network "
        f"{holder.network_id}: give another --mac-address or another address"
    )


def _has_address_of(endpoint: Endpoint, holder: Endpoint) -> bool:
    """Whether an address of one network went from *holder* to *endpoint*."""
    return endpoint.network_id == holder.network_id and (
        (endpoint.address is not None and endpoint.address == holder.address)
        or (endpoint.address_v6 is not None and endpoint.address_v6 == holder.address_v6)
    )
