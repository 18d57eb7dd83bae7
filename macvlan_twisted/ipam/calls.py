"""What each call of address management does."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from ipaddress import ip_interface

from twisted.logger import Logger

from ..addresses import IPAddress, IPInterface, IPNetwork
from ..errors import NotFound, Refused, StateFailed
from ..records import from_document, to_document
from ..settings import Settings
from ..state.interface import AddressBook, Claim
from ..turns import Turns
from .allocation import barred_spans, count_barred, next_free, usable_span
from .pools import Pool, answered_pool, gateway_in_data, plan_pool, refuse_overlap
from .requests import GrantedPool, Purpose, ReleaseAddress, RequestAddress, RequestPool
from .shared_set import SharedSet

_log = Logger(namespace="macvlan_twisted.ipam")


class AddressManagement:
    """
    The calls of the engine about pools and addresses.

    :param nonce: makes the part of a PoolID that tells it from all others.
    """

    def __init__(self, settings: Settings, book: AddressBook, nonce: Callable[[], str]) -> None:
        self._settings = settings
        self._book = book
        self._nonce = nonce
        self._turns = Turns()
        self._barred = {
            version: barred_spans(settings.excluded, settings.gateways, version) for version in (4, 6)
        }
        self._pools = {key: from_document(Pool, document) for key, document in book.pools().items()}
        self._sets: dict[str, SharedSet] = {}
        self._being_made: dict[str, set[IPAddress]] = {}
        """
        Pools whose network is not made yet, and their auxiliary addresses so far: until it is made, a named
        address is an auxiliary one.
        """
        self._cursors = {key: int(address) for key, address in book.cursors().items()}
        for pool in self._pools.values():
            self._join_set(pool)
        for claim in book.claims():
            owner = self._pools.get(claim.pool_id)
            if owner is None:
                raise StateFailed(
                    f"state holds address {claim.address} of pool {claim.pool_id}, which it does not hold"
                )
            self._sets[owner.shared_set].add(claim.pool_id, int(claim.address), Purpose(claim.purpose))

    async def request_pool(self, request: RequestPool) -> GrantedPool:
        pool = plan_pool(request, self._settings, self._nonce())
        refuse_overlap(pool, self._pools)
        self._pools[pool.pool_id] = pool
        self._join_set(pool)
        try:
            await self._book.open_pool(pool.pool_id, to_document(pool))
        except BaseException:
            self._forget(pool)
            raise
        self._being_made[pool.pool_id] = set()
        _log.info(
            "pool opened: {pool} on parent {parent}", pool=pool.described(), parent=pool.parent or "none"
        )
        gateway = gateway_in_data(pool, self._settings)
        if gateway is not None:
            try:
                self._refuse_taken(pool, gateway.ip, Purpose.GATEWAY)
                await self._claim(pool, gateway.ip, Purpose.GATEWAY, advances=False)
            except BaseException:
                await self.release_pool(pool.pool_id)
                raise
        return GrantedPool(pool.pool_id, answered_pool(pool), gateway)

    async def release_pool(self, pool_id: str) -> None:
        """Frees all that was taken under this id; the engine leaves addresses behind after some errors."""
        async with self._turns.of(pool_id):
            pool = self._pools.pop(pool_id, None)  # no address is taken in it any more
            if pool is None:
                return
            self._being_made.pop(pool_id, None)
            try:
                await self._book.close_pool(pool_id)
            except BaseException:
                self._pools[pool_id] = pool
                raise
            self._forget(pool)
        _log.info("pool released: {pool}", pool=pool.described())

    def _join_set(self, pool: Pool) -> None:
        self._sets.setdefault(pool.shared_set, SharedSet()).pools.add(pool.pool_id)

    def _forget(self, pool: Pool) -> None:
        self._pools.pop(pool.pool_id, None)
        self._being_made.pop(pool.pool_id, None)
        shared = self._sets[pool.shared_set]
        if shared.pools == {pool.pool_id}:  # a million addresses go at once
            del self._sets[pool.shared_set]
        else:
            shared.leave(pool.pool_id)

    async def request_address(self, request: RequestAddress) -> IPInterface:
        pool = self._pools.get(request.pool_id)
        if pool is None:
            raise NotFound(
                f"pool {request.pool_id!r} is not known to the plugin: its state was removed; remove the network and "
                "create it again"
            )
        purpose = self._purpose_of(request, pool)
        if purpose is Purpose.ENDPOINT:
            self._being_made.pop(pool.pool_id, None)
        address = request.address
        if purpose is Purpose.GATEWAY and address is None:
            address = self._gateway_to_make_up(pool)
        if address is None:
            address = self._next(pool)
        else:
            self._refuse_outside(pool, address, purpose)
            self._refuse_taken(pool, address, purpose)
        await self._claim(
            pool, address, purpose, advances=request.address is None and purpose is Purpose.ENDPOINT
        )
        if purpose is Purpose.AUXILIARY and pool.pool_id in self._being_made:
            self._being_made[pool.pool_id].add(address)
        _log.info(
            "address allocated: {address} of pool {pool} as {purpose}{name}",
            address=address,
            pool=pool.described(),
            purpose=purpose.value,
            name=f" for {request.endpoint_name}" if request.endpoint_name else "",
        )
        return ip_interface(f"{address}/{pool.prefix.prefixlen}")

    async def _claim(self, pool: Pool, address: IPAddress, purpose: Purpose, advances: bool) -> None:
        """In memory at once, so that no parallel call picks it; the caller goes on when it is on disk."""
        shared = self._sets[pool.shared_set]
        held_before = shared.holds(pool.pool_id, int(address))
        shared.add(pool.pool_id, int(address), purpose)
        if advances:
            self._cursors[pool.cursor_key] = int(address)
        try:
            await self._book.claim(Claim(pool.pool_id, address, purpose.value), pool.cursor_key, advances)
        except BaseException:
            if not held_before:
                shared.remove(pool.pool_id, int(address))
            raise

    def _next(self, pool: Pool) -> IPAddress:
        span = usable_span(pool.prefix, pool.part)
        barred = self._barred[pool.prefix.version]
        shared = self._sets[pool.shared_set]
        number = next_free(shared.taken, span, barred, self._cursors.get(pool.cursor_key))
        if number is None:
            taken = shared.taken.bisect_right(span.last) - shared.taken.bisect_left(span.first)
            raise Refused(
                f"no free address in pool {pool.described()}: of {span.size} usable addresses {taken} are taken and "
                f"{count_barred(span, barred, shared.taken)} more are excluded; remove containers or widen --ip-range"
            )
        return type(pool.prefix.network_address)(number)

    def _gateway_to_make_up(self, pool: Pool) -> IPAddress:
        """Engines before 28 ask for a gateway when the user named none: the LAN's own, else the first."""
        gateway = self._settings.gateway_for(pool.prefix)
        if gateway is not None:
            return gateway
        return type(pool.prefix.network_address)(usable_span(pool.prefix).first)

    def _purpose_of(self, request: RequestAddress, pool: Pool) -> Purpose:
        """
        The engine does not say of an auxiliary address that it is one. But all of them come before the
        network is made, and none of a container's does.
        """
        if request.purpose is Purpose.GATEWAY:
            return Purpose.GATEWAY
        if request.address is None or request.endpoint_name or pool.pool_id not in self._being_made:
            return Purpose.ENDPOINT
        return Purpose.AUXILIARY

    def network_made(self, subnets: Iterable[tuple[IPNetwork, Iterable[IPAddress]]]) -> None:
        """
        A network of our driver is made: from now on a named address of its pools is a container's.

        :param subnets: each with its auxiliary addresses; by both its pool is told from that of another
            network on the same subnet, which is being made in parallel.
        """
        for subnet, auxiliary in subnets:
            asked_for = set(auxiliary)
            for pool_id, reserved in self._being_made.items():
                if answered_pool(self._pools[pool_id]) == subnet and reserved == asked_for:
                    del self._being_made[pool_id]
                    break

    def _refuse_outside(self, pool: Pool, address: IPAddress, purpose: Purpose) -> None:
        span = usable_span(pool.prefix)
        if address not in pool.prefix or not span.first <= int(address) <= span.last:
            kind = type(pool.prefix.network_address)
            raise Refused(
                f"{purpose.value} address {address} is not a host's address in pool {pool.prefix}: give one of its "
                f"{span.size} from {kind(span.first)} to {kind(span.last)}"
            )

    def _refuse_taken(self, pool: Pool, address: IPAddress, purpose: Purpose) -> None:
        """An endpoint's address is its own; what is reserved may be so for several networks."""
        shared = self._sets[pool.shared_set]
        number = int(address)
        if shared.is_endpoints(number):
            raise Refused(
                f"{purpose.value} address {address} of pool {pool.prefix} is in use by a container: choose another one"
            )
        # The engine names each auxiliary address once a pool: the second time a user, or a container, does.
        again = purpose is Purpose.AUXILIARY and pool.pool_id in shared.reserved.get(number, ())
        if again or (purpose is Purpose.ENDPOINT and number in shared.reserved):
            raise Refused(
                f"address {address} of pool {pool.prefix} is reserved as a network's gateway or auxiliary address: "
                "choose another one"
            )

    async def release_address(self, request: ReleaseAddress) -> None:
        """Succeeds when there is nothing to release."""
        pool = self._pools.get(request.pool_id)
        if pool is None:
            return
        shared = self._sets[pool.shared_set]
        number = int(request.address)
        async with self._turns.of(
            f"{pool.pool_id} {number}"
        ):  # a second release must not free the next owner's
            if not shared.holds(pool.pool_id, number):
                return
            await self._book.release(pool.pool_id, request.address)
            shared.remove(pool.pool_id, number)
        _log.info(
            "address released: {address} of pool {pool}", address=request.address, pool=pool.described()
        )
