"""What each call of address management does."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from ipaddress import ip_interface

from attrs import evolve
from twisted.logger import Logger

from ..addresses import IPAddress, IPInterface, IPNetwork
from ..errors import NotFound, Refused, StateFailed
from ..lan.conflicts import Conflicts, Taken, Unproven
from ..records import from_document, to_document
from ..settings import Settings
from ..state.interface import AddressBook, Claim, Identity
from ..turns import Turns
from .allocation import barred_spans, count_barred, next_free, usable_span
from .candidates import Candidates, cannot_be_found_out
from .chosen_macs import ChosenMacs
from .identities import Identities
from .leasing import Leasing
from .pools import Pool, answered_pool, gateway_in_data, refuse_overlap
from .requests import GrantedPool, Purpose, ReleaseAddress, RequestAddress, RequestPool
from .shared_set import SharedSet

_log = Logger(namespace="macvlan_twisted.ipam")


class AddressManagement:
    """
    The calls of the engine about pools and addresses.

    :param nonce: makes the part of a PoolID that tells it from all others.
    """

    def __init__(
        self,
        settings: Settings,
        book: AddressBook,
        conflicts: Conflicts,
        leasing: Leasing,
        macs: ChosenMacs,
        nonce: Callable[[], str],
    ) -> None:
        self._settings = settings
        self._book = book
        self._conflicts = conflicts
        self._leasing = leasing
        self._macs = macs
        self._identities = Identities(book.identities())
        self._candidates = Candidates(conflicts)
        conflicts.when_lost = self._candidates.lost
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
        for pool in self._pools.values():
            self._use_wire(pool)

    def _use_wire(self, pool: Pool) -> None:
        if pool.conflict_detection != "off" or pool.dhcp:
            self._conflicts.use(pool.wire, f"pool {pool.pool_id}", pool.prefix)

    def prepare(self) -> None:
        """After a start: find out what the next containers will need."""
        for pool in self._pools.values():
            self._prepare(pool)

    def _prepare(self, pool: Pool) -> None:
        if pool.conflict_detection != "off" and not pool.dhcp and pool.pool_id not in self._being_made:
            self._candidates.prepare(pool, self._sets[pool.shared_set], lambda: self._next_number(pool))

    async def request_pool(self, request: RequestPool) -> GrantedPool:
        pool = await self._leasing.planned(request, self._settings, self._nonce())
        refuse_overlap(pool, self._pools)
        self._pools[pool.pool_id] = pool
        self._join_set(pool)
        try:
            await self._book.open_pool(pool.pool_id, to_document(pool))
        except BaseException:
            self._forget(pool)
            raise
        self._being_made[pool.pool_id] = set()
        self._use_wire(pool)
        _log.info(
            "pool opened: {pool} on parent {parent}", pool=pool.described(), parent=pool.parent or "none"
        )
        gateway = self._leasing.gateway_in_data(pool) if pool.dhcp else gateway_in_data(pool, self._settings)
        if gateway is not None:
            try:
                self._refuse_taken(pool, gateway.ip, Purpose.GATEWAY)
                await self._claim(
                    pool, Claim(pool.pool_id, gateway.ip, Purpose.GATEWAY.value), advances=False
                )
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
            leased = self._sets[pool.shared_set].endpoints.get(pool_id, set()) if pool.dhcp else set()
            for number in sorted(leased):
                await self._leasing.give_back(pool, type(pool.prefix.network_address)(number))
            self._forget(pool)
            await self._conflicts.disuse(f"pool {pool.pool_id}")
        _log.info("pool released: {pool}", pool=pool.described())

    def _join_set(self, pool: Pool) -> None:
        self._sets.setdefault(pool.shared_set, SharedSet()).pools.add(pool.pool_id)

    def _forget(self, pool: Pool) -> None:
        self._pools.pop(pool.pool_id, None)
        self._being_made.pop(pool.pool_id, None)
        self._identities.forget_pool(pool.pool_id)
        others = [each for each in self._pools.values() if each.shared_set == pool.shared_set]
        self._candidates.close(pool, others=any(each.cursor_key == pool.cursor_key for each in others))
        if not others:
            self._conflicts.forget_within(pool.wire, pool.prefix)
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
        if purpose is Purpose.ENDPOINT and pool.dhcp:
            return await self._leased(pool, request)
        address = request.address
        if purpose is Purpose.GATEWAY and address is None:
            address = await self._gateway_to_make_up(pool)
        advances = False
        if address is None:
            address = await self._again(pool, request.endpoint_name)
            if address is None:
                address, advances = await self._next(pool), True
        else:
            self._refuse_outside(pool, address, purpose)
            self._refuse_taken(pool, address, purpose)
            if purpose is Purpose.ENDPOINT:
                await self._refuse_used_by_others(pool, address)
        claim = Claim(pool.pool_id, address, purpose.value)
        if purpose is Purpose.ENDPOINT and pool.identity != "random":
            mac = self._macs.named(pool, request.endpoint_name)
            claim = evolve(claim, name=request.endpoint_name, mac=mac)
        await self._claim(pool, claim, advances)
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

    async def _claim(self, pool: Pool, claim: Claim, advances: bool) -> None:
        """In memory at once, so that no parallel call picks it; the caller goes on when it is on disk."""
        shared, number = self._sets[pool.shared_set], int(claim.address)
        held_before = shared.holds(pool.pool_id, number)
        shared.add(pool.pool_id, number, Purpose(claim.purpose))
        if advances:
            self._cursors[pool.cursor_key] = number
        ended: tuple[str, ...] = ()
        if claim.name:
            ended = self._identities.note(Identity(pool.pool_id, claim.name, claim.address, claim.mac))
        try:
            await self._book.claim(claim, pool.cursor_key, advances, ended)
        except BaseException:
            if not held_before:
                shared.remove(pool.pool_id, number)
            raise

    async def _leased(self, pool: Pool, request: RequestAddress) -> IPInterface:
        """The LAN's own server decides; what it leases is taken here, too, so that it is given back with the pool."""
        address = await self._leasing.take(pool, request)
        try:
            await self._claim(pool, Claim(pool.pool_id, address.ip, Purpose.ENDPOINT.value), advances=False)
        except BaseException:
            await self._leasing.give_back(pool, address.ip)
            raise
        _log.info(
            "address allocated: {address} of pool {pool} by DHCP{name}",
            address=address.ip,
            pool=pool.described(),
            name=f" for {request.endpoint_name}" if request.endpoint_name else "",
        )
        return address

    async def _again(self, pool: Pool, name: str) -> IPAddress | None:
        """The address that the container of this name had before, if nobody else has it."""
        before = self._identities.of_name(pool.pool_id, name) if name and pool.identity != "random" else None
        if before is None:
            return None
        try:
            self._refuse_taken(pool, before.address, Purpose.ENDPOINT)
            await self._refuse_used_by_others(pool, before.address)
        except Refused as refused:
            _log.info("{name} gets another address than before: {reason}", name=name, reason=str(refused))
            return None
        return before.address

    def is_endpoints(self, parent: str, address: IPAddress) -> bool:
        """Whether *address* was handed out on *parent*, and not released."""
        return any(
            pool.wire == parent
            and int(address) in self._sets[pool.shared_set].endpoints.get(pool.pool_id, ())
            for pool in self._pools.values()
        )

    def mac_for(self, parent: str, address: IPAddress) -> str | None:
        """The MAC that goes with an address of ours on *parent*, where it is not made of the address."""
        for pool in self._pools.values():
            shared = self._sets[pool.shared_set]
            if pool.wire == parent and int(address) in shared.endpoints.get(pool.pool_id, ()):
                identity = self._identities.of_address(pool.pool_id, address)
                return self._macs.of(pool, identity.mac if identity is not None else "")
        return None

    async def _next(self, pool: Pool) -> IPAddress:
        if pool.conflict_detection == "off":
            number = self._next_number(pool)
            address = None if number is None else type(pool.prefix.network_address)(number)
        else:
            shared = self._sets[pool.shared_set]
            address = await self._candidates.next(pool, shared, lambda: self._next_number(pool))
        if address is None:
            raise self._exhausted(pool)
        return address

    def _next_number(self, pool: Pool) -> int | None:
        return next_free(
            self._sets[pool.shared_set].taken,
            usable_span(pool.prefix, pool.part),
            self._barred[pool.prefix.version],
            self._cursors.get(pool.cursor_key),
        )

    def _exhausted(self, pool: Pool) -> Refused:
        span = usable_span(pool.prefix, pool.part)
        shared = self._sets[pool.shared_set]
        barred = count_barred(span, self._barred[pool.prefix.version], shared.taken)
        aside = sum(span.first <= each <= span.last for each in shared.aside)
        taken = shared.taken.bisect_right(span.last) - shared.taken.bisect_left(span.first) - aside
        others = f", {aside} are in use by others on the LAN of {pool.wire}" if aside else ""
        return Refused(
            f"no free address in pool {pool.described()}: of {span.size} usable addresses {taken} are taken{others} and "
            f"{barred} more are excluded; remove containers or widen --ip-range"
        )

    async def _refuse_used_by_others(self, pool: Pool, address: IPAddress) -> None:
        """A user named *address*. While the LAN is asked, it may be given to another container."""
        if pool.conflict_detection == "off" or self._candidates.take(pool, address):
            return
        shared = self._sets[pool.shared_set]
        was_aside = int(address) in shared.aside
        shared.set_aside(int(address))
        try:
            verdict = await self._conflicts.hold(pool.wire, address)
        finally:
            if not was_aside:
                shared.give_back(int(address))
        self._candidates.take(pool, address)
        if isinstance(verdict, Taken):
            raise Refused(
                f"address {address} is in use on {pool.wire}: MAC {verdict.mac} {verdict.how.value}; give another --ip, or "
                "take the address from that host"
            )
        self._refuse_taken(pool, address, Purpose.ENDPOINT)
        if isinstance(verdict, Unproven):
            if pool.conflict_detection == "strict":
                raise cannot_be_found_out(pool, verdict.reason)
            self._conflicts.count_unproven(pool.wire, address, verdict.reason)

    async def _gateway_to_make_up(self, pool: Pool) -> IPAddress:
        """Engines before 28 ask for a gateway when the user named none: the LAN's own, else the first."""
        gateway = self._settings.gateway_for(pool.prefix)
        if gateway is None and pool.dhcp:
            gateway = await self._leasing.router(pool)
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

    async def network_made(
        self, parent: str, subnets: Iterable[tuple[IPNetwork, Iterable[IPAddress]]]
    ) -> None:
        """
        A network of our driver is made: from now on a named address of its pools is a container's.

        :param parent: where the network is; a pool that another one was named for is looked after there.
        :param subnets: each with its auxiliary addresses; by both its pool is told from that of another
            network on the same subnet, which is being made in parallel.
        """
        for subnet, auxiliary in subnets:
            asked_for = set(auxiliary)
            for pool_id, reserved in self._being_made.items():
                if answered_pool(self._pools[pool_id]) == subnet and reserved == asked_for:
                    del self._being_made[pool_id]
                    await self._settle(self._pools[pool_id], parent)
                    break

    async def _settle(self, pool: Pool, parent: str) -> None:
        if pool.wire != parent:
            _log.warn(
                "addresses of pool {pool} are those of {other}, and its network is on {parent}: create it with "
                "--ipam-opt parent={parent} as well, so that networks on one parent share their addresses",
                pool=pool.described(),
                other=pool.parent or "no parent",
                parent=parent,
            )
            settled = evolve(pool, network_parent=parent)
            try:
                await self._book.open_pool(pool.pool_id, to_document(settled))
            except StateFailed as failure:  # the network is made, and this is worth no failure of that
                _log.error("the parent of a pool is not kept: {reason}", reason=str(failure))
            await self._conflicts.disuse(f"pool {pool.pool_id}")
            self._pools[pool.pool_id] = pool = settled
            self._use_wire(pool)
        self._prepare(pool)

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
            if pool.dhcp:
                await self._leasing.give_back(pool, request.address)
            await self._book.release(pool.pool_id, request.address)
            shared.remove(pool.pool_id, number)
            self._conflicts.let_go(pool.wire, request.address)
        _log.info(
            "address released: {address} of pool {pool}", address=request.address, pool=pool.described()
        )
