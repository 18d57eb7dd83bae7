"""Pools: a subnet granted to an engine, and the set of addresses that the pool shares with others."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from functools import cached_property
from hashlib import sha256
from ipaddress import IPv4Address, IPv4Interface, IPv6Interface, ip_interface, ip_network
from urllib.parse import quote, unquote

from attrs import frozen

from ..addresses import IPAddress, IPInterface, IPNetwork, is_link_local, range_without_lan
from ..config import Config
from ..errors import RequestRefused
from ..option_values import ConflictDetection, IdentitySource
from .allocator import Span, usable_span
from .options import OPTIONS, PoolOptions, parse_options
from .requests import RequestPool

MAX_DESCRIPTION = 1024
"""Characters of a PoolID without its nonce. Longer ones would come near what a call may contain."""
_DESCRIBED_PARTS = 4
_OWN_OPTIONS = frozenset(spelling for option in OPTIONS for spelling in option.spellings)
_ANY = {4: "0.0.0.0/0", 6: "::/0"}


@frozen
class Pool:
    """An open pool. It is stored in state, so a new member needs a default."""

    pool_id: str
    address_space: str
    prefix: IPNetwork
    """The subnet of the LAN; replies contain addresses with its prefix length."""
    part: IPNetwork | None
    """The part of it from which we choose addresses (``--ip-range``); ``None`` for all of it."""
    parent: str
    parent_named: bool = False
    """Whether the user named the parent; else it is the service's host interface, and moves to that of the pool's network."""
    any_subnet: bool = False
    """Whether the user named no subnet, so that the reply was 0.0.0.0/0 or ::/0."""
    is_global: bool = False
    """Whether the pool is a swarm manager's. The nodes request its addresses again and detect conflicts on their LANs."""
    conflict_detection: ConflictDetection = ConflictDetection.ON
    dhcp: bool = False
    dhcp_release: bool = True
    dhcp_vendor_class: str = ""
    identity: IdentitySource = IdentitySource.ADDRESS
    leased_router: IPv4Address | None = None
    """The router from the DHCP server, if the user named no subnet."""
    network_parent: str | None = None
    """The parent of the pool's network, once that is created: the user need not name the parent for both."""
    stands_for: int = 0
    """
    The number of networks for which a rebuilt pool stands. The engine's ids for their pools are unknown: all ids that differ
    only in the nonce refer to this pool.
    """
    given_back: tuple[str, ...] = ()
    """Those of the ids under which the engine has released the pool."""

    network_id: str | None = None
    """The network of our driver that uses the pool; ``None`` if that is another driver's network, or unknown."""
    engine_id: str = ""
    """The id of the engine that last listed a network with such a pool; empty if none did."""

    @property
    def is_left_alone(self) -> bool:
        """Whether the pool's network cannot be determined: the pool is a swarm's, or rebuilt, and the engine uses other ids."""
        return self.is_global or self.stands_for > 0

    def fits(self, parents: Collection[str]) -> bool:
        """
        Whether the pool may be that of a network on a parent.

        :param parents: the parent's name, and that which the user gave it.
        """
        return not self.parent_named or self.parent in parents

    @property
    def lan_parent(self) -> str:
        """The parent on whose LAN conflicts are detected; empty if none is known."""
        return self.network_parent or self.parent

    @cached_property
    def shared_set(self) -> str:
        """Key of the set of addresses: pools with the same key share one :class:`~.allocator.AddressSet`."""
        return f"{self.address_space} {self.prefix} {self.parent}"

    @cached_property
    def cursor_key(self) -> str:
        """Key of the last address chosen from this part of the subnet."""
        return f"{self.shared_set} {self.part or self.prefix}"

    @cached_property
    def span(self) -> Span:
        """The range from which we choose addresses."""
        return usable_span(self.prefix, self.part)

    @cached_property
    def _described(self) -> str:
        return f"{self.prefix}" + (f" (range {self.part})" if self.part is not None else "")

    def described(self) -> str:
        return self._described

    def address(self, number: int) -> IPAddress:
        return type(self.prefix.network_address)(number)

    def with_length(self, address: IPAddress) -> IPInterface:
        """*address* with the prefix length of the LAN's subnet, as in the reply to RequestAddress."""
        kind = IPv4Interface if address.version == 4 else IPv6Interface
        return kind((int(address), self.prefix.prefixlen))


def pool_id_for(request: RequestPool, nonce: str) -> str:
    """
    A PoolID that describes the pool: address space, pool, sub-pool, our options and a nonce.

    The parts are percent-encoded, so that the id can be parsed. A description of more than :data:`MAX_DESCRIPTION` characters
    is replaced by its hash: the engine must be able to send the id.
    """
    parts = (
        quote(request.address_space, safe=""),
        str(request.pool) if request.pool is not None else ("any6" if request.v6 else "any4"),
        str(request.sub_pool) if request.sub_pool is not None else "",
        "&".join(
            f"{quote(key)}={quote(value)}"
            for key, value in sorted(request.options.items())
            if key in _OWN_OPTIONS
        ),
    )
    description = ";".join(parts)
    if len(description) > MAX_DESCRIPTION:
        description = sha256(description.encode()).hexdigest()
    return f"{description};{nonce}"


def id_without_nonce(pool_id: str) -> str:
    """The description of the pool in *pool_id*, without the nonce, and without options that earlier versions put there."""
    parts = pool_id.rpartition(";")[0].split(";")
    if len(parts) == _DESCRIBED_PARTS:
        parts[-1] = "&".join(
            each for each in parts[-1].split("&") if unquote(each.partition("=")[0]) in _OWN_OPTIONS
        )
    return ";".join(parts)


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
            f"pool {prefix} is not of IPv{version}, which was asked for: give a subnet of that family"
        )
    barred = range_without_lan(prefix)
    if barred is not None and not is_link_local(
        prefix
    ):  # CreateNetwork refuses that unless the network is internal
        raise RequestRefused(
            f"subnet {prefix} has addresses of {barred}, which no host on a LAN may have: give the LAN's own --subnet"
        )
    part = request.sub_pool
    if part is None and request.pool in (None, config.subnet_of_version(version)):
        part = config.ip_range_in(prefix)
    if part is not None and (part.version != version or not part.subnet_of(prefix)):  # type: ignore[arg-type]
        raise RequestRefused(f"--ip-range {part} is not in --subnet {prefix}: give a part of it")
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
    )


def _default_prefix(config: Config, parent: str, version: int) -> IPNetwork:
    prefix = config.subnet_of_version(version)
    if parent != (config.host_interface or ""):
        raise RequestRefused(
            f"no subnet was given, and the plugin knows that of its host interface {config.host_interface or '(none)'} "
            f"alone, not that of {parent}: give --subnet"
        )
    if prefix is None:
        raise RequestRefused(
            f"no subnet was given, and the plugin knows none for IPv{version} on {parent or 'any parent'}: give --subnet, "
            "or start the plugin with --macvlan-subnet"
        )
    return prefix


def gateway_in_data(pool: Pool, config: Config) -> IPInterface | None:
    """The gateway for the reply to RequestPool: without a subnet the user cannot name one."""
    if not pool.any_subnet:
        return None
    gateway = config.gateway_for(pool.prefix)
    return None if gateway is None else ip_interface(f"{gateway}/{pool.prefix.prefixlen}")


def reported_subnet(pool: Pool) -> IPNetwork:
    """
    The subnet in the reply to RequestPool.

    If the user named no subnet, that of the LAN would overlap the host's route to it, and the engine would reject it and
    request another pool for ever. 0.0.0.0/0 overlaps nothing.
    """
    return ip_network(_ANY[pool.prefix.version]) if pool.any_subnet else pool.prefix


def refuse_overlap(pool: Pool, others: Mapping[str, Pool]) -> None:
    """
    :raises RequestRefused: the pool overlaps another subnet on the parent, so that an address could be allocated twice.
    """
    for other in others.values():
        if (
            other.address_space == pool.address_space
            and other.parent == pool.parent
            and other.prefix != pool.prefix
            and other.prefix.overlaps(pool.prefix)
        ):
            raise RequestRefused(
                f"subnet {pool.prefix} overlaps {other.prefix}, which is in use on parent {pool.parent or 'of no name'}: "
                f"give --subnet {other.prefix} and a part of it as --ip-range"
            )
