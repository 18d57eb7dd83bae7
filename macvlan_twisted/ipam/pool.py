"""What a pool is: one engine's grant of a subnet, and the set of addresses that it shares with others."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from ipaddress import IPv4Address, IPv4Interface, IPv6Interface, ip_interface, ip_network
from urllib.parse import quote

from attrs import frozen

from ..addresses import IPAddress, IPInterface, IPNetwork
from ..config import Config
from ..errors import RequestRefused
from ..option_values import ConflictDetection, IdentitySource
from .allocator import Span, usable_span
from .options import PoolOptions, parse_options
from .requests import RequestPool

_ANY = {4: "0.0.0.0/0", 6: "::/0"}


@frozen
class Pool:
    """An open pool; kept in state, so a new member needs a default."""

    pool_id: str
    address_space: str
    prefix: IPNetwork
    """The LAN's subnet: its length goes with every address handed out."""
    part: IPNetwork | None
    """The part of it from which addresses are handed out by themselves."""
    parent: str
    any_subnet: bool = False
    """Whether the engine was told 0.0.0.0/0, because the user named no subnet."""
    is_global: bool = False
    """Whether nodes of a swarm ask for its addresses again: what is in use is for them to find out, where it is used."""
    conflict_detection: ConflictDetection = ConflictDetection.ON
    dhcp: bool = False
    dhcp_release: bool = True
    dhcp_vendor_class: str = ""
    identity: IdentitySource = IdentitySource.ADDRESS
    leased_router: IPv4Address | None = None
    """The router that the DHCP server named, where the user named no subnet."""
    network_parent: str | None = None
    """The parent of the network that has the pool, once it is made: a user need not have named it twice."""
    stands_for: int = 0
    """
    Of a pool that was rebuilt: for how many networks. Under which ids the engine has them is not known; all that say the
    same mean it.
    """
    given_back: tuple[str, ...] = ()
    """The ids among those under which it was released."""

    network_id: str | None = None
    """The network of our driver that has the pool; ``None`` if another driver's has it, or that is not known."""
    engine_id: str = ""
    """Of the engine that was last seen to list a network with such a pool; empty if none was."""

    @property
    def is_left_alone(self) -> bool:
        """Whether it cannot be told whose it is: of a swarm, or rebuilt, so that the engine speaks of it by other ids."""
        return self.is_global or self.stands_for > 0

    @property
    def lan_parent(self) -> str:
        """The parent on whose LAN the addresses are looked for; empty if none is known."""
        return self.network_parent or self.parent

    @cached_property
    def shared_set(self) -> str:
        """Pools that are equal in this share one set of taken addresses."""
        return f"{self.address_space} {self.prefix} {self.parent}"

    @cached_property
    def cursor_key(self) -> str:
        return f"{self.shared_set} {self.part or self.prefix}"

    @cached_property
    def span(self) -> Span:
        """From which addresses are handed out by themselves."""
        return usable_span(self.prefix, self.part)

    @cached_property
    def _described(self) -> str:
        return f"{self.prefix}" + (f" (range {self.part})" if self.part is not None else "")

    def described(self) -> str:
        return self._described

    def with_length(self, address: IPAddress) -> IPInterface:
        """An address as it is answered, with the length of the LAN's subnet."""
        kind = IPv4Interface if address.version == 4 else IPv6Interface
        return kind((int(address), self.prefix.prefixlen))


def pool_id_for(request: RequestPool, nonce: str) -> str:
    """
    An id that says what the pool is: space, pool, sub-pool, options and a nonce.

    Its parts are quoted as in a URL, so that it can be read back by anyone.
    """
    options = "&".join(f"{quote(key)}={quote(value)}" for key, value in sorted(request.options.items()))
    parts = (
        quote(request.address_space, safe=""),
        str(request.pool) if request.pool is not None else ("any6" if request.v6 else "any4"),
        str(request.sub_pool) if request.sub_pool is not None else "",
        options,
        nonce,
    )
    return ";".join(parts)


def said_by(pool_id: str) -> str:
    """What the id says of its pool, without what tells it from other ids."""
    return pool_id.rpartition(";")[0]


def parent_of(options: PoolOptions, config: Config) -> str:
    """The parent on which a pool's addresses are; empty if none is known."""
    return options.parent or config.host_interface or ""


def plan_pool(request: RequestPool, config: Config, nonce: str) -> Pool:
    """
    :raises RequestRefused: the request contradicts itself, or leaves open what the service does not know.
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
    """The gateway that goes with the answer: without a subnet the user cannot have named one."""

    if not pool.any_subnet:
        return None
    gateway = config.gateway_for(pool.prefix)
    return None if gateway is None else ip_interface(f"{gateway}/{pool.prefix.prefixlen}")


def answered_pool(pool: Pool) -> IPNetwork:
    """
    What the engine is told. Its own subnet would overlap the host's route to the LAN, and the engine would
    reject it and ask again for ever; 0.0.0.0/0 overlaps nothing.
    """

    return ip_network(_ANY[pool.prefix.version]) if pool.any_subnet else pool.prefix


def refuse_overlap(pool: Pool, others: Mapping[str, Pool]) -> None:
    """
    :raises RequestRefused: a set of addresses that overlaps another one would hand out addresses twice.
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
