"""What an endpoint will be: decided before anything is touched."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from ..addresses import IPAddress, IPInterface
from ..config import Config
from ..dhcp.leases import Leases
from ..errors import RequestRefused
from ..lan.host_routes import HostRoutes
from ..link_names import endpoint_link_name
from ..macs import mac_from_ip, random_mac
from ..option_values import IdentitySource, MacvlanMode
from . import requests
from .models import Endpoint, Network


class EndpointPlanner:
    """
    :param chosen_mac: the MAC that our address management has chosen for an address on a parent.
    """

    def __init__(
        self,
        config: Config,
        leases: Leases,
        host_routes: HostRoutes,
        chosen_mac: Callable[[str, IPAddress], str | None],
        random: Random,
    ) -> None:
        self._config = config
        self._leases = leases
        self._host_routes = host_routes
        self._chosen_mac = chosen_mac
        self._random = random

    def endpoint(
        self, request: requests.CreateEndpoint, network: Network, existing: Endpoint | None
    ) -> Endpoint:
        """
        :param existing: the endpoint of this id that is there already.
        :raises RequestRefused: its address is the router's, or its MAC cannot be had.
        """
        for address in (request.address, request.address_v6):
            if address is not None:
                self._refuse_router(address, network)
                self._host_routes.refuse_hosts_own(network.parent, address.ip)
        mac = request.mac
        if network.mode == MacvlanMode.PASSTHRU:
            if mac is not None and not network.allow_parent_mac_change:
                raise RequestRefused(
                    f"MAC address {mac} would change that of parent {network.parent} in mode passthru: leave "
                    "--mac-address out, or create the network with -o allow_parent_mac_change=true"
                )
        elif mac is None:
            mac = self._chosen(request, network, existing)
        self._refuse_other_mac_than_leased(request, network, mac)
        address, reported_address = request.address, None
        if existing is not None:
            if address is None and network.dhcp:
                address = existing.reported_address or existing.address
            if address is not None and address == existing.reported_address:
                address, reported_address = existing.address, address
        return Endpoint(
            endpoint_id=request.endpoint_id,
            network_id=network.network_id,
            link=endpoint_link_name(request.endpoint_id),
            parent=network.parent,
            mac=mac,
            mac_generated=request.mac is None and mac is not None,
            address=address,
            address_v6=request.address_v6,
            reported_address=reported_address,
            sandbox="" if existing is None else existing.sandbox,
            static_routes=() if existing is None else existing.static_routes,
        )

    def _chosen(self, request: requests.CreateEndpoint, network: Network, existing: Endpoint | None) -> str:
        """The MAC of a container whose user named none."""
        if existing is not None and existing.mac is not None and existing.mac_generated:
            return existing.mac
        for address in (request.address, request.address_v6):
            if address is not None:
                lease = self._leases.of_address(network.parent, address.ip)
                chosen = self._chosen_mac(network.parent, address.ip) if lease is None else lease.mac
                if chosen is not None:
                    return chosen
        is_ours = any(each.managed_here for each in network.subnets)
        if network.identity == IdentitySource.RANDOM and not is_ours:
            return random_mac(self._random)
        return mac_from_ip(request.address, request.address_v6, request.endpoint_id)

    def _refuse_other_mac_than_leased(
        self, request: requests.CreateEndpoint, network: Network, mac: str | None
    ) -> None:
        if request.address is None:
            return
        lease = self._leases.of_address(network.parent, request.address.ip)
        if lease is None or mac == lease.mac:
            return
        if mac is None:
            raise RequestRefused(
                "--ipam-opt dhcp=true cannot be used in mode passthru: the container gets the MAC of parent "
                f"{network.parent}, but {request.address.ip} was leased under {lease.mac}: use --ipam-driver null and "
                "-o dhcp=true"
            )
        raise RequestRefused(
            f"MAC address {mac} cannot be used, because address {request.address.ip} is already leased under "
            f"{lease.mac}: leave --mac-address out, or create the network with --ipam-driver null and "
            "-o dhcp=true, which leases under --mac-address"
        )

    def _refuse_router(self, address: IPInterface, network: Network) -> None:
        """Other IPAM drivers do not know the LAN's router, and hand out its address."""
        subnet = network.subnet_of(address.ip)
        if subnet is not None and address.ip == subnet.gateway:
            raise RequestRefused(f"address {address.ip} is the gateway of its network: use another --ip")
        if network.on_dummy or address.ip not in self._config.gateways:
            return
        has_gateway = subnet is not None and subnet.gateway is not None
        if has_gateway and self._config.host_interface not in (None, network.parent):
            return  # on another NIC, and with a router of its own
        another = f" (or --aux-address router={address.ip}, if its gateway is to be another one)"
        raise RequestRefused(
            f"address {address.ip} is the address of the LAN's router: use another --ip; to keep Docker's IPAM from "
            f"assigning it, create the network with --gateway {address.ip}{another if has_gateway else ''}"
        )
