"""Which address a container gets, and which one it must not have."""

from __future__ import annotations

from twisted.logger import Logger

from ..addresses import IPAddress
from ..config import Config
from ..errors import RequestRefused
from ..lan.conflicts import Conflicts, Inconclusive, Taken
from ..option_values import ConflictDetection, IdentitySource
from .allocator import barred_spans, count_barred, next_free, usable_span
from .pool import Pool
from .pool_registry import PoolRegistry
from .prefetch import AddressPrefetch, cannot_be_found_out, released_meanwhile
from .requests import Purpose
from .sticky_addresses import StickyAddresses

_log = Logger(namespace="macvlan_twisted.ipam")


class AddressSelection:
    """Asks the sets of addresses taken, and the LAN."""

    def __init__(
        self,
        config: Config,
        pools: PoolRegistry,
        conflicts: Conflicts,
        sticky_addresses: StickyAddresses,
    ) -> None:
        self._config = config
        self._pools = pools
        self._sticky_addresses = sticky_addresses
        self._conflicts = conflicts
        self._candidates = AddressPrefetch(conflicts)
        self._barred = {
            version: barred_spans(config.excluded, config.gateways, version) for version in (4, 6)
        }

    def use_lan(self, pool: Pool) -> None:
        """Have the LAN of *pool*'s parent listened to, where anything is found out there."""
        if pool.conflict_detection != ConflictDetection.OFF or pool.dhcp:
            self._conflicts.use(pool.lan_parent, f"pool {pool.pool_id}", pool.prefix)

    async def disuse_lan(self, pool: Pool) -> None:
        await self._conflicts.disuse(f"pool {pool.pool_id}")

    def prepare(self, pool: Pool) -> None:
        """Begin to find out what the next containers of a network that is made will need."""
        if pool.conflict_detection != ConflictDetection.OFF and not pool.dhcp:
            self._candidates.prepare(pool, self._pools.set_of(pool), lambda: self._next_number(pool))

    def close(self, pool: Pool) -> None:
        """The pool is open no more, but its set of addresses still is."""
        others = self._pools.sharing_with(pool)
        self.forget(pool)
        if not others:
            self._conflicts.table.forget_within(pool.lan_parent, pool.prefix)

    def forget(self, pool: Pool) -> None:
        """Let go of what is held for *pool* on its parent, if no other pool hands it out there."""
        keys = [(each.cursor_key, each.lan_parent) for each in self._pools.sharing_with(pool)]
        self._candidates.close(pool, others=(pool.cursor_key, pool.lan_parent) in keys)

    def reserved(self, pool: Pool, address: IPAddress) -> None:
        """*address* is a gateway's, a host's or an auxiliary one from now on: it was perhaps held for a container."""
        self._candidates.withdraw(pool, address)

    async def next(self, pool: Pool) -> IPAddress:
        """
        :raises RequestRefused: none is left, or it cannot be found out whether one is free.
        """
        if pool.pool_id not in self._pools.by_id:
            raise released_meanwhile(pool)
        if pool.conflict_detection == ConflictDetection.OFF:
            number = self._next_number(pool)
            address = None if number is None else type(pool.prefix.network_address)(number)
        else:
            shared = self._pools.set_of(pool)
            address = await self._candidates.next(pool, shared, lambda: self._next_number(pool))
        if address is None:
            raise self._exhausted(pool)
        return address

    async def previous(self, pool: Pool, name: str) -> IPAddress | None:
        """The address that the container of this name had before, if it is still free."""
        if not name or pool.identity == IdentitySource.RANDOM:
            return None
        before = self._sticky_addresses.of_name(pool.pool_id, name)
        if before is None or not self._hands_out(pool, before.address):
            return None  # a user named it with --ip; it is not handed out on our own account
        try:
            self.refuse_taken(pool, before.address, Purpose.ENDPOINT)
            await self.refuse_used_by_others(pool, before.address)
        except RequestRefused as refused:
            _log.info("{name} gets another address than before: {reason}", name=name, reason=str(refused))
            return None
        return before.address

    def default_gateway(self, pool: Pool) -> IPAddress | None:
        """The router that the service's configuration names for the pool."""
        return self._config.gateway_for(pool.prefix)

    def release(self, pool: Pool, address: IPAddress, holder: str | None = None) -> None:
        """
        Nobody has *address* any more: stop defending it.

        :param holder: only if it is held for this one.
        """
        self._conflicts.release(pool.lan_parent, address, holder)

    def _hands_out(self, pool: Pool, address: IPAddress) -> bool:
        """Whether a container of *pool* may get *address* without having asked for it."""
        span, number = usable_span(pool.prefix, pool.part), int(address)
        return span.first <= number <= span.last and not any(
            barred.first <= number <= barred.last for barred in self._barred[pool.prefix.version]
        )

    def _next_number(self, pool: Pool) -> int | None:
        return next_free(
            self._pools.set_of(pool).taken,
            pool.span,
            self._barred[pool.prefix.version],
            self._pools.cursors.get(pool.cursor_key),
        )

    def _exhausted(self, pool: Pool) -> RequestRefused:
        span = pool.span
        shared = self._pools.set_of(pool)
        barred = count_barred(span, self._barred[pool.prefix.version], shared.taken)
        aside = sum(span.first <= each <= span.last for each in shared.aside)
        taken = shared.taken.bisect_right(span.last) - shared.taken.bisect_left(span.first) - aside
        others = f", {aside} are in use by others on the LAN of {pool.lan_parent}" if aside else ""
        return RequestRefused(
            f"no free address in pool {pool.described()}: of {span.size} usable addresses {taken} are taken{others} and "
            f"{barred} more are excluded; remove containers or widen --ip-range"
        )

    async def refuse_used_by_others(self, pool: Pool, address: IPAddress) -> None:
        """
        :raises RequestRefused: someone on the LAN has *address*, or another container was given it while that was found out.
        """
        if pool.conflict_detection == ConflictDetection.OFF:
            return
        self._candidates.take(pool, address)  # it is held still, and needs but a last look
        shared = self._pools.set_of(pool)
        was_aside = int(address) in shared.aside
        shared.set_aside(int(address))
        try:
            verdict = await self._conflicts.hold(pool.lan_parent, address, pool.shared_set, is_managed=True)
        finally:
            if not was_aside:
                shared.give_back(int(address))
        if pool.pool_id not in self._pools.by_id:
            self._conflicts.release(pool.lan_parent, address)
            raise released_meanwhile(pool)
        self._candidates.take(pool, address)
        if isinstance(verdict, Taken):
            raise RequestRefused(
                f"address {address} is in use on {pool.lan_parent}: MAC {verdict.mac} {verdict.how.value}; give another --ip, or "
                "take the address from that host"
            )
        self.refuse_taken(pool, address, Purpose.ENDPOINT)
        if isinstance(verdict, Inconclusive):
            if pool.conflict_detection == ConflictDetection.STRICT:
                raise cannot_be_found_out(pool, verdict.reason)
            self._conflicts.count_inconclusive(pool.lan_parent, address, verdict.reason)

    def refuse_outside(self, pool: Pool, address: IPAddress, purpose: Purpose) -> None:
        span = usable_span(pool.prefix)
        if address not in pool.prefix or not span.first <= int(address) <= span.last:
            kind = type(pool.prefix.network_address)
            raise RequestRefused(
                f"{purpose.value} address {address} is not a host's address in pool {pool.prefix}: give one of its "
                f"{span.size} from {kind(span.first)} to {kind(span.last)}"
            )

    def refuse_taken(self, pool: Pool, address: IPAddress, purpose: Purpose) -> None:
        """An endpoint's address is its own; what is reserved may be so for several networks."""
        shared = self._pools.set_of(pool)
        number = int(address)
        if shared.is_endpoints(number):
            raise RequestRefused(
                f"{purpose.value} address {address} of pool {pool.prefix} is in use by a container: choose another one"
            )
        # The engine names each auxiliary address once a pool: the second time a user, or a container, does.
        again = purpose is Purpose.AUXILIARY and pool.pool_id in shared.reserved.get(number, ())
        if again or (purpose is Purpose.ENDPOINT and number in shared.reserved):
            raise RequestRefused(
                f"address {address} of pool {pool.prefix} is reserved as a network's gateway or auxiliary address: "
                "choose another one"
            )
