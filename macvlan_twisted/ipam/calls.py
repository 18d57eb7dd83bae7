"""Address management: its calls, put together on one set of open pools."""

from __future__ import annotations

from collections.abc import Callable

from ..config import Config
from ..keyed_lock import KeyedLock
from ..lan.conflicts import Conflicts
from ..last_seen import LastSeen
from ..state.interfaces import AddressStore
from .address_requests import AddressRequests
from .allocations import Allocations
from .dhcp_pools import DhcpPools
from .mac_policy import MacPolicy
from .owners import PoolOwners
from .pending_addresses import PendingAddresses
from .pool_binding import PoolBinding
from .pool_registry import PoolRegistry
from .pool_requests import PoolRequests
from .selection import AddressSelection
from .sticky_addresses import StickyAddresses


class AddressManagement:
    """
    :param nonce: makes the part of a PoolID that tells it from all others.
    :param seconds: a clock that never goes back.
    """

    def __init__(
        self,
        config: Config,
        store: AddressStore,
        conflicts: Conflicts,
        dhcp_pools: DhcpPools,
        macs: MacPolicy,
        nonce: Callable[[], str],
        seconds: Callable[[], float],
    ) -> None:
        open_pools, locks, pending = PoolRegistry(store), KeyedLock(), PendingAddresses(seconds)
        sticky_addresses = StickyAddresses(store.identities())
        last_seen = LastSeen(seconds, open_pools.by_id.__contains__)
        selection = AddressSelection(config, open_pools, conflicts)
        claims = Allocations(
            open_pools, store, locks, conflicts, dhcp_pools, selection, sticky_addresses, pending
        )
        self.owners = PoolOwners(open_pools, store, locks, pending)
        self.networks = PoolBinding(open_pools, store, locks, claims, selection, self.owners)
        self.addresses = AddressRequests(
            config, open_pools, claims, dhcp_pools, macs, selection, sticky_addresses, pending, last_seen
        )
        conflicts.is_handed_out = self.addresses.is_endpoints
        self.pools = PoolRequests(
            config, open_pools, store, locks, claims, dhcp_pools, selection, nonce, last_seen
        )
