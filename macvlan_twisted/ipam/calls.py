"""Address management: its calls, put together on one set of open pools."""

from __future__ import annotations

from collections.abc import Callable

from ..heard import Heard
from ..lan.conflicts import Conflicts
from ..settings import Settings
from ..state.interface import AddressBook
from ..turns import Turns
from .address_calls import AddressCalls
from .awaited import Awaited
from .choosing import Choosing
from .chosen_macs import ChosenMacs
from .claims import Claims
from .identities import Identities
from .leasing import Leasing
from .network_pools import NetworkPools
from .open_pools import OpenPools
from .owners import Owners
from .pool_calls import PoolCalls


class AddressManagement:
    """
    :param nonce: makes the part of a PoolID that tells it from all others.
    :param seconds: a clock that never goes back.
    """

    def __init__(
        self,
        settings: Settings,
        book: AddressBook,
        conflicts: Conflicts,
        leasing: Leasing,
        macs: ChosenMacs,
        nonce: Callable[[], str],
        seconds: Callable[[], float],
    ) -> None:
        open_pools, turns, awaited = OpenPools(book), Turns(), Awaited(seconds)
        identities = Identities(book.identities())
        heard = Heard(seconds, open_pools.by_id.__contains__)
        choosing = Choosing(settings, open_pools, conflicts)
        claims = Claims(open_pools, book, turns, conflicts, leasing, choosing, identities, awaited)
        self.owners = Owners(open_pools, book, turns, awaited)
        self.networks = NetworkPools(open_pools, book, turns, claims, choosing, self.owners)
        self.addresses = AddressCalls(
            settings, open_pools, claims, leasing, macs, choosing, identities, awaited, heard
        )
        conflicts.is_handed_out = self.addresses.is_endpoints
        self.pools = PoolCalls(settings, open_pools, book, turns, claims, leasing, choosing, nonce, heard)
