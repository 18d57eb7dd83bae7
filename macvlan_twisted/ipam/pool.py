"""Pools: a subnet granted to an engine, and the set of addresses that the pool shares with others."""

from __future__ import annotations

from collections.abc import Collection
from functools import cached_property
from hashlib import sha256
from ipaddress import IPv4Address, IPv4Interface, IPv6Interface, ip_network
from urllib.parse import quote, unquote

from attrs import frozen

from ..addresses import IPAddress, IPInterface, IPNetwork
from ..errors import RequestRefused
from ..option_values import ConflictDetection, FleetShare, IdentitySource
from .allocator import Span, part_of_span, usable_span
from .options import OPTIONS
from .requests import RequestPool

DEFAULT_LAN = "default"
MAX_DESCRIPTION = 1024
"""Characters of a PoolID without its nonce. Longer ones would come near what a call may contain."""
_DESCRIBED_PARTS = 4
_OWN_OPTIONS = frozenset(spelling for option in OPTIONS for spelling in option.spellings)
_ANY = {4: "0.0.0.0/0", 6: "::/0"}


@frozen
class Pool:
    """An open pool. It is stored in the state, so a new member needs a default."""

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
    lan: str = DEFAULT_LAN
    """The LAN in a fleet of hosts: its addresses are unique, whatever the subnets and parents are called."""
    leased_router: IPv4Address | None = None
    """The router from the DHCP server, if the user named no subnet."""
    network_parent: str | None = None
    """The parent of the pool's network, once that is created: the user need not name the parent for both."""
    rebuilt_for: int = 0
    """
    The number of networks of a pool that was rebuilt; else 0. The engine's ids for their pools are unknown: all ids that differ
    only in the nonce refer to this pool.
    """
    released_ids: tuple[str, ...] = ()
    """Those of the ids that the engine has released."""

    network_id: str | None = None
    """The network of our driver that uses the pool; ``None`` if that is another driver's network, or unknown."""
    engine_id: str = ""
    """The id of the engine that last listed a network with such a pool; empty if none did."""

    fleet_share: FleetShare | None = None
    """This host's share of the range, if it shares that with other hosts (:mod:`.fleet_share`)."""

    @property
    def is_untracked(self) -> bool:
        """Whether the pool's network cannot be determined: the pool is a swarm's, or rebuilt, and the engine uses other ids."""
        return self.is_global or self.rebuilt_for > 0

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
    def whole_span(self) -> Span:
        """The range from which all hosts of a fleet choose addresses."""
        return usable_span(self.prefix, self.part)

    @cached_property
    def span(self) -> Span:
        """The range from which we choose addresses."""
        share = self.fleet_share
        return self.whole_span if share is None else part_of_span(self.whole_span, share.number, share.parts)

    def is_in_other_share(self, number: int) -> bool:
        """Whether another host of the fleet may choose the address *number*. One outside the range is in nobody's share."""
        return self.whole_span.contains(number) and not self.span.contains(number)

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


def reported_subnet(pool: Pool) -> IPNetwork:
    """
    The subnet in the reply to RequestPool.

    If the user named no subnet, that of the LAN would overlap the host's route to it, and the engine would reject it and
    request another pool for ever. 0.0.0.0/0 overlaps nothing.
    """
    return ip_network(_ANY[pool.prefix.version]) if pool.any_subnet else pool.prefix


def pool_released_error(pool: Pool) -> RequestRefused:
    return RequestRefused(
        f"pool {pool.described()} was released while this request was running: create the network again"
    )
