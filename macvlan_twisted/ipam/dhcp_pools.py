"""Pools whose addresses are leased from the DHCP server on the LAN."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, ip_interface

from attrs import evolve
from twisted.logger import Logger

from ..addresses import IPAddress, IPInterface
from ..config import Config
from ..dhcp.binding import LanParameters
from ..dhcp.leases import Leases
from ..dhcp.store import Terms
from ..errors import LinkError, MacvlanError, RequestRefused
from .identity import MacPolicy
from .options import parse_options
from .pool import Pool, parent_of, plan_pool
from .requests import RequestAddress, RequestPool

_log = Logger(namespace="macvlan_twisted.ipam")


class DhcpPools:
    """Plans pools and leases addresses for ``--ipam-opt dhcp=true``."""

    def __init__(self, leases: Leases, macs: MacPolicy) -> None:
        self._leases = leases
        self._macs = macs

    async def plan(self, request: RequestPool, config: Config, nonce: str) -> Pool:
        """
        Plan a pool, with the subnet and the router of the DHCP server if the user named no subnet.

        :raises RequestRefused: the request contradicts itself, or omits what neither the configuration nor the server knows.
        """
        options = parse_options(request.options)
        dhcp = config.dhcp if options.dhcp is None else options.dhcp
        if not dhcp or (request.v6 and options.dhcp is None):
            pool = plan_pool(request, config, nonce)
            return evolve(pool, dhcp=False)
        if request.v6:
            raise RequestRefused(
                "--ipam-opt dhcp=true leases IPv4 addresses only: leave --ipv6 out, or create the network without dhcp"
            )
        parent = parent_of(options, config)
        if not parent:
            raise RequestRefused(
                "--ipam-opt dhcp=true needs a NIC: name it with --ipam-opt parent= as well, or start the plugin with "
                "--host-interface"
            )
        if request.sub_pool is not None:
            raise RequestRefused(
                f"--ip-range {request.sub_pool} has no meaning with --ipam-opt dhcp=true, for the DHCP server chooses: "
                "leave one of them out"
            )
        if request.pool is not None:
            return plan_pool(request, config, nonce)
        facts = await self._discover(parent)
        if facts.prefix_length is None:
            raise RequestRefused(
                f"the DHCP server {facts.server_id} on {parent} names no subnet mask: give --subnet and --gateway"
            )
        prefix = IPv4Network((facts.offered, facts.prefix_length), strict=False)
        router = facts.router if facts.router in prefix else None
        pool = plan_pool(evolve(request, pool=prefix), config, nonce)
        return evolve(pool, any_subnet=True, part=None, leased_router=router)

    async def _discover(self, parent: str) -> LanParameters:
        try:
            return await self._leases.discover(parent)
        except LinkError as failure:
            raise RequestRefused(f"no DHCP server can be asked on {parent}: {failure}") from None

    def gateway_in_data(self, pool: Pool) -> IPInterface | None:
        """The server's router, for the reply to RequestPool: without a subnet the user cannot name one."""
        if not pool.any_subnet or pool.leased_router is None:
            return None
        return ip_interface(f"{pool.leased_router}/{pool.prefix.prefixlen}")

    async def router(self, pool: Pool) -> IPAddress | None:
        """The server's router if it is in the pool; ``None`` also if no server answers."""
        try:
            router = (await self._leases.discover(pool.lan_parent)).router
        except MacvlanError:
            return None
        return router if router is not None and router in pool.prefix else None

    async def lease(self, pool: Pool, request: RequestAddress) -> IPInterface:
        """
        Lease an address for a container.

        :raises RequestRefused: no server leases an address, or it leases another one than requested, or one outside the pool.
        """
        terms = Terms(
            pool.lan_parent,
            self._mac(pool, request.endpoint_name),
            hostname=request.endpoint_name,
            vendor_class=pool.dhcp_vendor_class,
            release=pool.dhcp_release,
            conflict_detection=pool.conflict_detection,
        )
        requested = request.address
        facts = await self._leases.acquire(terms, requested if isinstance(requested, IPv4Address) else None)
        if facts.address not in pool.prefix:
            await self._leases.release(pool.lan_parent, facts.mac)
            raise RequestRefused(
                f"the DHCP server {facts.server_id} on {pool.lan_parent} leases {facts.address}, which is not in --subnet "
                f"{pool.prefix}: create the network with the subnet of that LAN, or without --subnet"
            )
        return ip_interface(f"{facts.address}/{pool.prefix.prefixlen}")

    def _mac(self, pool: Pool, name: str) -> str:
        """The MAC made from *name*, or a random one if another lease uses that: a renamed container may still run under it."""
        mac = self._macs.mac_for_lease(pool, name)
        if not self._leases.has(pool.lan_parent, mac):
            return mac
        _log.info(
            "{name} gets another MAC than before: the lease under {mac} is not given back yet",
            name=name,
            mac=mac,
        )
        return self._macs.mac_for_lease(pool, "")

    async def release(self, pool: Pool, address: IPAddress) -> None:
        await self._leases.release_address(pool.lan_parent, address)
