"""What each call of address management does."""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import ip_interface

from attrs import define, field
from sortedcontainers import SortedList
from twisted.logger import Logger

from ..addresses import IPAddress, IPInterface
from ..errors import NotFound, Refused
from ..records import from_document, to_document
from ..settings import Settings
from ..state.interface import AddressBook, Claim
from .allocation import barred_spans, count_barred, next_free, usable_span
from .pools import Pool, answered_pool, gateway_in_data, plan_pool, refuse_overlap
from .requests import GrantedPool, Purpose, ReleaseAddress, RequestAddress, RequestPool

_log = Logger(namespace="macvlan_twisted.ipam")


@define
class SharedSet:
    """
    The addresses taken in one subnet on one parent, whichever pool took them.

    An endpoint's address has one owner; a gateway is every network's, so it may have several.
    """

    taken: SortedList = field(factory=SortedList)
    owners: dict[int, str] = field(factory=dict)
    gateways: dict[int, set[str]] = field(factory=dict)

    def add(self, pool_id: str, address: int, purpose: Purpose) -> None:
        if address not in self.owners and address not in self.gateways:
            self.taken.add(address)
        if purpose is Purpose.GATEWAY:
            self.gateways.setdefault(address, set()).add(pool_id)
        else:
            self.owners[address] = pool_id

    def remove(self, pool_id: str, address: int) -> bool:
        """``False`` if that pool holds no such address."""
        held = False
        if self.owners.get(address) == pool_id:
            del self.owners[address]
            held = True
        holders = self.gateways.get(address)
        if holders is not None and pool_id in holders:
            holders.discard(pool_id)
            held = True
            if not holders:
                del self.gateways[address]
        if held and address not in self.owners and address not in self.gateways:
            self.taken.remove(address)
        return held

    def of_pool(self, pool_id: str) -> list[int]:
        return [address for address, owner in self.owners.items() if owner == pool_id] + [
            address for address, holders in self.gateways.items() if pool_id in holders
        ]


class AddressManagement:
    """
    The calls of the engine about pools and addresses.

    :param nonce: makes the part of a PoolID that tells it from all others.
    """

    def __init__(self, settings: Settings, book: AddressBook, nonce: Callable[[], str]) -> None:
        self._settings = settings
        self._book = book
        self._nonce = nonce
        self._pools = {key: from_document(Pool, document) for key, document in book.pools().items()}
        self._sets: dict[str, SharedSet] = {}
        self._cursors = {key: int(address) for key, address in book.cursors().items()}
        for pool in self._pools.values():
            self._sets.setdefault(pool.shared_set, SharedSet())
        for claim in book.claims():
            shared = self._sets[self._pools[claim.pool_id].shared_set]
            shared.add(claim.pool_id, int(claim.address), Purpose(claim.purpose))

    async def request_pool(self, request: RequestPool) -> GrantedPool:
        pool = plan_pool(request, self._settings, self._nonce())
        refuse_overlap(pool, self._pools)
        self._pools[pool.pool_id] = pool
        self._sets.setdefault(pool.shared_set, SharedSet())
        try:
            await self._book.open_pool(pool.pool_id, to_document(pool))
        except BaseException:
            self._forget(pool)
            raise
        _log.info(
            "pool opened: {pool} on parent {parent}", pool=pool.described(), parent=pool.parent or "none"
        )
        gateway = gateway_in_data(pool, self._settings)
        if gateway is not None:
            try:
                self._refuse_gateway_in_use(pool, gateway.ip)
                await self._claim(pool, gateway.ip, Purpose.GATEWAY, advances=False)
            except BaseException:
                await self.release_pool(pool.pool_id)
                raise
        return GrantedPool(pool.pool_id, answered_pool(pool), gateway)

    async def release_pool(self, pool_id: str) -> None:
        """Frees all that was taken under this id; the engine leaves addresses behind after some errors."""
        pool = self._pools.get(pool_id)
        if pool is None:
            return
        await self._book.close_pool(pool_id)
        self._forget(pool)
        _log.info("pool released: {pool}", pool=pool.described())

    def _forget(self, pool: Pool) -> None:
        self._pools.pop(pool.pool_id, None)
        shared = self._sets[pool.shared_set]
        for address in shared.of_pool(pool.pool_id):
            shared.remove(pool.pool_id, address)
        if not any(other.shared_set == pool.shared_set for other in self._pools.values()):
            del self._sets[pool.shared_set]

    async def request_address(self, request: RequestAddress) -> IPInterface:
        pool = self._pools.get(request.pool_id)
        if pool is None:
            raise NotFound(
                f"pool {request.pool_id!r} is not known to the plugin: its state was removed; remove the network and "
                "create it again"
            )
        if request.purpose is Purpose.GATEWAY:
            address = request.address or self._gateway_to_make_up(pool)
            self._refuse_outside(pool, address, "gateway")
            self._refuse_gateway_in_use(pool, address)
            advances = False
        elif request.address is not None:
            address = request.address
            self._refuse_outside(pool, address, "address")
            self._refuse_taken(pool, address)
            advances = False
        else:
            address = self._next(pool)
            advances = True
        await self._claim(pool, address, request.purpose, advances)
        _log.info(
            "address allocated: {address} of pool {pool} as {purpose}{name}",
            address=address,
            pool=pool.described(),
            purpose=request.purpose.value,
            name=f" for {request.endpoint_name}" if request.endpoint_name else "",
        )
        return ip_interface(f"{address}/{pool.prefix.prefixlen}")

    async def _claim(self, pool: Pool, address: IPAddress, purpose: Purpose, advances: bool) -> None:
        """In memory at once, so that no parallel call picks it; the caller goes on when it is on disk."""
        shared = self._sets[pool.shared_set]
        shared.add(pool.pool_id, int(address), purpose)
        if advances:
            self._cursors[pool.cursor_key] = int(address)
        try:
            await self._book.claim(Claim(pool.pool_id, address, purpose.value), pool.cursor_key, advances)
        except BaseException:
            shared.remove(pool.pool_id, int(address))
            raise

    def _next(self, pool: Pool) -> IPAddress:
        span = usable_span(pool.prefix, pool.part)
        barred = barred_spans(self._settings.excluded, self._settings.gateways, pool.prefix.version)
        shared = self._sets[pool.shared_set]
        number = next_free(shared.taken, span, barred, self._cursors.get(pool.cursor_key))
        if number is None:
            taken = shared.taken.bisect_right(span.last) - shared.taken.bisect_left(span.first)
            raise Refused(
                f"no free address in pool {pool.described()}: of {span.size} usable addresses {taken} are taken and "
                f"{count_barred(span, barred)} are excluded; remove containers or widen --ip-range"
            )
        return type(pool.prefix.network_address)(number)

    def _gateway_to_make_up(self, pool: Pool) -> IPAddress:
        """Engines before 28 ask for a gateway when the user named none: the LAN's own, else the first."""
        gateway = self._settings.gateway_for(pool.prefix)
        if gateway is not None:
            return gateway
        return type(pool.prefix.network_address)(usable_span(pool.prefix).first)

    def _refuse_outside(self, pool: Pool, address: IPAddress, what: str) -> None:
        span = usable_span(pool.prefix)
        if address not in pool.prefix or not span.first <= int(address) <= span.last:
            raise Refused(
                f"{what} {address} is no host's address in pool {pool.prefix}: give one from "
                f"{type(address)(span.first) if address.version == pool.prefix.version else pool.prefix[0]} on"
            )

    def _refuse_taken(self, pool: Pool, address: IPAddress) -> None:
        shared = self._sets[pool.shared_set]
        if int(address) in shared.gateways:
            raise Refused(f"address {address} is the gateway of pool {pool.prefix}: choose another one")
        if int(address) in shared.owners:
            raise Refused(
                f"address {address} of pool {pool.prefix} is in use by another container or reserved: choose another one"
            )

    def _refuse_gateway_in_use(self, pool: Pool, address: IPAddress) -> None:
        if int(address) in self._sets[pool.shared_set].owners:
            raise Refused(
                f"gateway {address} of pool {pool.prefix} is in use by a container or reserved: name the LAN's router"
            )

    async def release_address(self, request: ReleaseAddress) -> None:
        """Succeeds when there is nothing to release."""
        pool = self._pools.get(request.pool_id)
        if pool is None:
            return
        shared = self._sets[pool.shared_set]
        number = int(request.address)
        if shared.owners.get(number) != pool.pool_id and pool.pool_id not in shared.gateways.get(number, ()):
            return
        await self._book.release(pool.pool_id, request.address)
        shared.remove(pool.pool_id, number)
        _log.info(
            "address released: {address} of pool {pool}", address=request.address, pool=pool.described()
        )
