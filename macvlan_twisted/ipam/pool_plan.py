"""
Plans a pool from RequestPool, the service's configuration, and the LAN's DHCP server if that leases the addresses.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from ipaddress import IPv4Network, ip_interface

from attrs import evolve

from ..addresses import IPAddress, IPInterface, IPNetwork, is_link_local, range_without_lan
from ..config import Config
from ..dhcp.binding import LanParameters
from ..dhcp.leases import Leases
from ..errors import LinkError, MacvlanError, RequestRefused
from ..option_values import ConflictDetection
from .allocator import usable_span
from .fleet_share import with_share
from .options import PoolOptions, parse_options
from .pool import DEFAULT_LAN, Pool, pool_id_for
from .requests import RequestPool


class PoolPlanner:
    """:param nonce: returns the part of a PoolID that makes it unique."""

    def __init__(self, config: Config, leases: Leases, nonce: Callable[[], str]) -> None:
        self._config = config
        self._leases = leases
        self._nonce = nonce

    async def plan(self, request: RequestPool) -> Pool:
        """
        Plan a pool, with the subnet and the router of the DHCP server if the user named no subnet.

        :raises RequestRefused: the request contradicts itself, or omits what neither the configuration nor the server knows; or
            the range is too small for the host's share.
        """
        return with_share(await self._plan(request), self._config.fleet_share)

    async def _plan(self, request: RequestPool) -> Pool:
        config, nonce = self._config, self._nonce()
        options = parse_options(request.options)
        dhcp = config.dhcp if options.dhcp is None else options.dhcp
        if not dhcp or (request.v6 and options.dhcp is None):
            pool = plan_pool(request, config, nonce)
            return evolve(pool, dhcp=False)
        if request.v6:
            raise RequestRefused(
                "--ipam-opt dhcp=true leases IPv4 addresses only: leave --ipv6 out, or create the "
                "network without dhcp"
            )
        parent = parent_of(options, config)
        if not parent:
            raise RequestRefused(
                "--ipam-opt dhcp=true needs a parent: name a NIC with --ipam-opt parent=, or start the "
                "plugin with --host-interface"
            )
        if request.sub_pool is not None:
            raise RequestRefused(
                f"--ip-range {request.sub_pool} has no effect with --ipam-opt dhcp=true, because the DHCP server "
                "chooses: leave one of them out"
            )
        if request.pool is not None:
            return plan_pool(request, config, nonce)
        facts = await self._discover(parent)
        if facts.prefix_length is None:
            raise RequestRefused(
                f"DHCP server {facts.server_id} on {parent} sends no subnet mask: specify --subnet and --gateway"
            )
        prefix = IPv4Network((facts.offered, facts.prefix_length), strict=False)
        router = facts.router if facts.router in prefix else None
        pool = plan_pool(evolve(request, pool=prefix), config, nonce)
        return evolve(pool, any_subnet=True, part=None, leased_router=router)

    async def _discover(self, parent: str) -> LanParameters:
        try:
            return await self._leases.discover(parent)
        except LinkError as failure:
            raise RequestRefused(
                f"cannot query DHCP servers on {parent} ({failure}): bring the parent up, or specify "
                "--subnet and --gateway"
            ) from None

    def gateway_in_data(self, pool: Pool) -> IPInterface | None:
        """The gateway for the reply to RequestPool: without a subnet the user cannot name one."""
        if not pool.any_subnet:
            return None
        gateway = pool.leased_router if pool.dhcp else self._config.gateway_for(pool.prefix)
        return None if gateway is None else ip_interface(f"{gateway}/{pool.prefix.prefixlen}")

    async def default_gateway(self, pool: Pool) -> IPAddress:
        """For engines before 28, which request a gateway if the user named none: the LAN's router, else the first address."""
        gateway = self._config.gateway_for(pool.prefix)
        if gateway is None and pool.dhcp:
            gateway = await self._router(pool)
        return pool.address(usable_span(pool.prefix).first) if gateway is None else gateway

    async def _router(self, pool: Pool) -> IPAddress | None:
        """The server's router if it is in the pool; ``None`` also if no server answers."""
        try:
            router = (await self._leases.discover(pool.lan_parent)).router
        except MacvlanError:
            return None
        return router if router is not None and router in pool.prefix else None


def parent_of(options: PoolOptions, config: Config) -> str:
    """The parent of a new pool; empty if none is known."""
    return options.parent or config.host_interface or ""


def plan_pool(request: RequestPool, config: Config, nonce: str) -> Pool:
    """
    Plan a pool from the request and the configuration.

    :raises RequestRefused: the request contradicts itself, or omits what the configuration does not contain.
    """
    options = parse_options(request.options)
    parent = parent_of(options, config)
    version = 6 if request.v6 else 4
    prefix = request.pool
    if prefix is None:
        prefix = _default_prefix(config, parent, version)
    if prefix.version != version:
        raise RequestRefused(
            f"subnet {prefix} is not an IPv{version} subnet, but one was requested: use a subnet of that family"
        )
    barred = range_without_lan(prefix)
    if barred is not None and not is_link_local(
        prefix
    ):  # CreateNetwork refuses that unless the network is internal
        raise RequestRefused(
            f"subnet {prefix} contains {barred}, which no host on a LAN may have: use the LAN's own --subnet"
        )
    part = request.sub_pool
    if part is None and request.pool in (None, config.subnet_of_version(version)):
        part = config.ip_range_in(prefix)
    if part is not None and (part.version != version or not part.subnet_of(prefix)):  # type: ignore[arg-type]
        raise RequestRefused(f"--ip-range {part} is not in --subnet {prefix}: use a part of that subnet")
    return Pool(
        pool_id=pool_id_for(request, nonce),
        address_space=request.address_space,
        prefix=prefix,
        part=None if part == prefix else part,
        parent=parent,
        parent_named=options.parent is not None,
        any_subnet=request.pool is None,
        is_global=request.is_global,
        conflict_detection=(
            ConflictDetection.OFF
            if request.is_global
            else options.conflict_detection or config.conflict_detection
        ),
        dhcp=config.dhcp if options.dhcp is None else options.dhcp,
        dhcp_release=config.dhcp_release if options.dhcp_release is None else options.dhcp_release,
        dhcp_vendor_class=(
            config.dhcp_vendor_class if options.dhcp_vendor_class is None else options.dhcp_vendor_class
        ),
        identity=options.identity or config.identity,
        lan=options.lan or DEFAULT_LAN,
    )


def _default_prefix(config: Config, parent: str, version: int) -> IPNetwork:
    prefix = config.subnet_of_version(version)
    is_host_interface = parent == (config.host_interface or "")
    if not is_host_interface and config.host_interface and prefix is not None:
        raise RequestRefused(
            f"no IPv{version} subnet is known for parent {parent}, only for the host interface {config.host_interface}: "
            "specify --subnet and --gateway"
        )
    if not is_host_interface or prefix is None:
        # Remedy: specify --subnet and --gateway; for the host interface, you can start the plugin with
        # --macvlan-subnet instead.
        raise RequestRefused(
            f"no IPv{version} subnet is known for {f'parent {parent}' if parent else 'any parent'}: specify --subnet and "
            f"--gateway{', or start the plugin with --macvlan-subnet' if is_host_interface else ''}"
        )
    return prefix


def refuse_overlap(pool: Pool, others: Iterable[Pool]) -> None:
    """
    :raises RequestRefused: the pool overlaps another subnet on the parent, so that an address could be allocated twice.
    """
    for other in others:
        if (
            other.address_space == pool.address_space
            and other.parent == pool.parent
            and other.prefix != pool.prefix
            and other.prefix.overlaps(pool.prefix)
        ):
            # Remedy: use --subnet OTHER_SUBNET, and specify a part of it with --ip-range.
            raise RequestRefused(
                f"subnet {pool.prefix} overlaps {other.prefix}, which is in use on parent "
                f"{pool.parent or '(none)'}: specify --subnet {other.prefix}, with a part of it as --ip-range"
            )
