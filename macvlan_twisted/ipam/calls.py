"""What each call of address management does."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence

from attrs import evolve
from twisted.logger import Logger

from ..addresses import IPAddress, IPInterface, IPNetwork
from ..errors import NotFound, Refused, StateFailed
from ..heard import Heard
from ..lan.conflicts import Conflicts
from ..records import to_document
from ..settings import Settings
from ..state.interface import AddressBook, Claim, Identity
from ..turns import Turns
from .allocation import usable_span
from .awaited import Awaited
from .candidates import released_meanwhile
from .choosing import Choosing
from .chosen_macs import ChosenMacs
from .identities import Identities
from .leasing import Leasing
from .open_pools import OpenPools
from .owners import IsInUse, Owners, Unowned
from .pools import Pool, answered_pool, gateway_in_data, refuse_overlap
from .requests import GrantedPool, Purpose, ReleaseAddress, RequestAddress, RequestPool

_log = Logger(namespace="macvlan_twisted.ipam")


class AddressManagement:
    """
    The calls of the engine about pools and addresses.

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
        self._settings = settings
        self._book = book
        self._conflicts = conflicts
        self._leasing = leasing
        self._macs = macs
        self._nonce = nonce
        self._turns = Turns()
        self._pools = OpenPools(book)
        self.heard = Heard(seconds, self._pools.by_id.__contains__)
        self.owners = Owners(self._pools, book, self._turns, Awaited(seconds))
        self._choosing = Choosing(settings, self._pools, conflicts)
        conflicts.is_handed_out = self.is_endpoints
        self._identities = Identities(book.identities())
        self._being_opened: dict[str, Pool] = {}
        """
        Not on disk yet: nothing may be taken in them, by a network on the same subnet either, for it would stay in
        state without its pool if the disk refused that.
        """
        self._being_made: dict[str, set[IPAddress]] = {}
        """
        Pools whose network is not made yet, and their auxiliary addresses so far: until it is made, a named
        address is an auxiliary one.
        """
        for pool_id in sorted(self._pools.lost):
            self._free_lost(pool_id)
        for pool in self._pools.by_id.values():
            self._use_wire(pool)

    def _free_lost(self, pool_id: str) -> None:
        """A start that refused would leave all other containers without us, for addresses that nobody has."""
        _log.error(
            "state holds reserved addresses of pool {pool}, which was never opened: they are free",
            pool=pool_id,
        )
        self._book.close_pool(pool_id).addErrback(
            lambda failure: _log.error(
                "reserved addresses of pool {pool} stay: {reason}",
                pool=pool_id,
                reason=failure.getErrorMessage(),
            )
        )

    def _use_wire(self, pool: Pool) -> None:
        if pool.conflict_detection != "off" or pool.dhcp:
            self._conflicts.use(pool.wire, f"pool {pool.pool_id}", pool.prefix)

    def prepare(self) -> None:
        """After a start: find out what the next containers will need."""
        for pool in self._pools.by_id.values():
            self._choosing.prepare(pool)

    async def request_pool(self, request: RequestPool) -> GrantedPool:
        pool = await self._leasing.planned(request, self._settings, self._nonce())
        refuse_overlap(pool, {**self._pools.by_id, **self._being_opened})
        self._being_opened[pool.pool_id] = pool
        try:
            await self._book.open_pool(pool.pool_id, to_document(pool))
        finally:
            del self._being_opened[pool.pool_id]
        self._pools.add(pool)
        self._being_made[pool.pool_id] = set()
        self.heard.note(pool.pool_id)
        self._use_wire(pool)
        _log.info(
            "pool opened: {pool} on parent {parent}", pool=pool.described(), parent=pool.parent or "none"
        )
        gateway = self._leasing.gateway_in_data(pool) if pool.dhcp else gateway_in_data(pool, self._settings)
        if gateway is not None:
            try:
                self._choosing.refuse_taken(pool, gateway.ip, Purpose.GATEWAY)
                await self._claim(
                    pool, Claim(pool.pool_id, gateway.ip, Purpose.GATEWAY.value), advances=False
                )
            except BaseException:
                await self.release_pool(pool.pool_id)
                raise
        return GrantedPool(pool.pool_id, answered_pool(pool), gateway)

    async def release_pool(self, pool_id: str) -> None:
        """Frees all that was taken under this id; the engine leaves addresses behind after some errors."""
        meant = self._pools.find(pool_id)
        async with self._turns.of(pool_id if meant is None else meant.pool_id):
            meant = self._pools.find(pool_id)
            if meant is None or await self._is_others_yet(meant, pool_id):
                return
            pool_id = meant.pool_id
            pool = self._pools.by_id.pop(pool_id)  # no address is taken in it any more
            self._being_made.pop(pool_id, None)
            try:
                await self._book.close_pool(pool_id)
            except BaseException:
                self._pools.by_id[pool_id] = pool
                raise
            left = sorted(self._pools.set_of(pool).endpoints.get(pool_id, ()))
            self._forget(pool)
            for number in left:  # the engine leaves some behind
                address = type(pool.prefix.network_address)(number)
                self._conflicts.let_go(pool.wire, address)
                if pool.dhcp:
                    await self._give_back(pool, address)
            await self._conflicts.disuse(f"pool {pool.pool_id}")
        _log.info("pool released: {pool}", pool=pool.described())

    async def _is_others_yet(self, pool: Pool, pool_id: str) -> bool:
        """Whether a rebuilt pool, which stands for several networks, is kept for those that are left."""
        given_back = {*pool.given_back, pool_id}
        if len(given_back) >= pool.stands_for:
            return False
        left = evolve(pool, given_back=tuple(sorted(given_back)))
        await self._book.open_pool(pool.pool_id, to_document(left))
        self._pools.by_id[pool.pool_id] = left
        return True

    async def _give_back(self, pool: Pool, address: IPAddress) -> None:
        """The pool is gone, and its other leases are to be given back, too."""
        try:
            await self._leasing.give_back(pool, address)
        except StateFailed as failure:
            _log.error("the lease of {address}: {reason}", address=address, reason=str(failure))

    def _forget(self, pool: Pool) -> None:
        self._being_made.pop(pool.pool_id, None)
        self.heard.forget(pool.pool_id)
        self.owners.awaited.end_pool(pool.pool_id)
        self._identities.forget_pool(pool.pool_id)
        self._choosing.close(pool)
        for address in self._pools.reserved_by(pool):  # the host's, whose network was not made
            self._conflicts.let_go(pool.wire, address)
        self._pools.remove(pool)

    @property
    def open_pools(self) -> list[Pool]:
        return list(self._pools.by_id.values())

    def has_containers(self, pool: Pool) -> bool:
        """Whether addresses of the pool are handed out to containers."""
        return bool(self._pools.set_of(pool).endpoints.get(pool.pool_id))

    async def drop_pool(self, pool: Pool, silence: float) -> bool:
        """
        Release a pool whose network is gone, without having been asked to.

        :param silence: for how many seconds at least the engine must not have spoken of it.
        :return: whether it was released; else it has changed, or was spoken of.
        """
        is_as_it_was = self._pools.by_id.get(pool.pool_id) is pool
        if not is_as_it_was or self.heard.silence(pool.pool_id) < silence:
            return False
        await self.release_pool(pool.pool_id)
        return True

    async def request_address(self, request: RequestAddress) -> IPInterface:
        with self.heard.call(request.pool_id):
            return await self._request_address(request)

    async def _request_address(self, request: RequestAddress) -> IPInterface:
        pool = self._pools.find(request.pool_id)
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
                address, advances = await self._choosing.next(pool), True
        else:
            self._choosing.refuse_outside(pool, address, purpose)
            self._choosing.refuse_taken(pool, address, purpose)
            if purpose is Purpose.ENDPOINT:
                await self._choosing.refuse_used_by_others(pool, address)
        name = mac = ""
        if purpose is Purpose.ENDPOINT and pool.identity != "random":
            name = request.endpoint_name
            mac = self._macs.named(pool, name, self._identities, self._pools)
        claim = Claim(pool.pool_id, address, purpose.value, name, mac)
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
        return pool.with_length(address)

    async def _claim(self, pool: Pool, claim: Claim, advances: bool) -> None:
        if claim.purpose == Purpose.ENDPOINT.value:
            await self._claim_at_once(pool, claim, advances)
            return
        # What is reserved may be asked for again while it is being released, which would then forget what is on disk.
        async with self._turns.of(f"{pool.pool_id} {int(claim.address)}"):
            await self._claim_at_once(pool, claim, advances)

    async def _claim_at_once(self, pool: Pool, claim: Claim, advances: bool) -> None:
        """In memory at once, so that no parallel call picks it; the caller goes on when it is on disk."""
        if pool.pool_id not in self._pools.by_id:
            self._conflicts.let_go(pool.wire, claim.address, pool.shared_set)
            raise released_meanwhile(pool)
        shared, number = self._pools.set_of(pool), int(claim.address)
        held_before = shared.holds(pool.pool_id, number)
        shared.add(pool.pool_id, number, Purpose(claim.purpose))
        if claim.purpose != Purpose.ENDPOINT.value:
            self._choosing.reserved(pool, claim.address)
        forgotten = self._pools.advance(pool, number) if advances else ()
        ended: tuple[str, ...] = ()
        if claim.name:
            ended = self._identities.note(Identity(pool.pool_id, claim.name, claim.address, claim.mac))
        elif claim.purpose == Purpose.ENDPOINT.value:
            ended = self._identities.forget_address(pool.pool_id, claim.address)
        try:
            await self._book.claim(claim, pool.cursor_key, advances, ended, forgotten)
        except BaseException:
            if not held_before:
                shared.remove(pool.pool_id, number)
                self._conflicts.let_go(pool.wire, claim.address)
            raise
        if claim.purpose == Purpose.ENDPOINT.value:
            self.owners.awaited.begin(pool.pool_id, number)

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
        if before is None or not self._choosing.hands_out(pool, before.address):
            return None  # it was asked for with --ip, and is not to be handed out by itself
        try:
            self._choosing.refuse_taken(pool, before.address, Purpose.ENDPOINT)
            await self._choosing.refuse_used_by_others(pool, before.address)
        except Refused as refused:
            _log.info("{name} gets another address than before: {reason}", name=name, reason=str(refused))
            return None
        return before.address

    def is_endpoints(self, parent: str, address: IPAddress) -> bool:
        """Whether *address* was handed out on *parent*, and not released."""
        return self._pools.of_endpoint(parent, address) is not None

    def mac_for(self, parent: str, address: IPAddress) -> str | None:
        """The MAC that goes with an address of ours on *parent*, where it is not made of the address."""
        pool = self._pools.of_endpoint(parent, address)
        if pool is None:
            return None
        identity = self._identities.of_address(pool.pool_id, address)
        return self._macs.of(pool, identity.mac if identity is not None else "")

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
        self,
        parent: str,
        subnets: Iterable[tuple[IPNetwork, Iterable[IPAddress]]],
        network_id: str | None = None,
    ) -> None:
        """
        A network of our driver is made: from now on a named address of its pools is a container's.

        :param parent: where the network is; a pool that another one was named for is looked after there.
        :param subnets: each with its auxiliary addresses; by both its pool is told from that of another
            network on the same subnet, which is being made in parallel.
        :param network_id: whose addresses are given back when nobody has them; without it nobody's are.
        """
        for subnet, auxiliary in subnets:
            asked_for = set(auxiliary)
            sole = None if network_id is None else self.owners.sole(subnet)
            if sole is not None and network_id is not None:
                await self.owners.belongs(sole.pool_id, network_id)
            for pool_id, reserved in self._being_made.items():
                if answered_pool(self._pools.by_id[pool_id]) == subnet and reserved == asked_for:
                    del self._being_made[pool_id]
                    await self._settle(self._pools.by_id[pool_id], parent)
                    break

    async def _settle(self, pool: Pool, parent: str) -> None:
        if pool.wire != parent:
            _log.info(
                "addresses of pool {pool} are looked for on {parent}, where its network is, and not on {other}; networks "
                "on one parent share their addresses if --ipam-opt parent= names it, too",
                pool=pool.described(),
                other=pool.parent or "no parent",
                parent=parent,
            )
            settled = evolve(pool, network_parent=parent)
            try:
                await self._book.open_pool(pool.pool_id, to_document(settled))
            except StateFailed as failure:  # the network is made, and this is worth no failure of that
                _log.error("the parent of a pool is not kept: {reason}", reason=str(failure))
            self._choosing.forget(pool)
            await self._conflicts.disuse(f"pool {pool.pool_id}")
            if pool.pool_id not in self._pools.by_id:  # released meanwhile
                await self._book.close_pool(pool.pool_id)
                return
            # More may have become known of it meanwhile.
            pool = evolve(self._pools.by_id[pool.pool_id], network_parent=parent)
            self._pools.by_id[pool.pool_id] = pool
            self._use_wire(pool)
        self._choosing.prepare(pool)

    async def reserve_for_host(
        self,
        parent: str,
        subnet: IPNetwork,
        auxiliary: Collection[IPAddress],
        wanted: IPAddress | None,
        preferred: Sequence[IPAddress],
    ) -> IPAddress:
        """What :class:`~macvlan_twisted.driver.host_addresses.HostAddresses` says; while its network is being made."""
        pools = self._pools_of_network(parent, subnet, set(auxiliary))
        if not pools:
            raise NotFound(
                f"pool {subnet} is not known to the plugin: remove the network and create it again"
            )
        for each_pool in pools:
            await self._settle(each_pool, parent)
        pools = [
            self._pools.by_id[each_pool.pool_id]
            for each_pool in pools
            if each_pool.pool_id in self._pools.by_id
        ]
        if not pools:
            raise Refused(f"pool {subnet} was released meanwhile")
        address = wanted
        if address is None:
            address = next((each for each in preferred if each in pools[0].prefix), None)
        if address is None and pools[0].dhcp:
            raise Refused(
                f"access from the host needs an address of the host's own in {pools[0].prefix}, where the LAN's DHCP server "
                "hands out the others: choose one that it does not, and give it with -o host_address=ADDRESS, or leave host "
                "access out with -o host_access=false"
            )
        if address is None:
            address = await self._choosing.next(pools[0])
        else:
            self._choosing.refuse_outside(pools[0], address, Purpose.HOST)
            self._choosing.refuse_taken(pools[0], address, Purpose.HOST)
            if wanted is not None:
                await self._choosing.refuse_used_by_others(pools[0], address)
        for pool in pools:
            await self._claim(pool, Claim(pool.pool_id, address, Purpose.HOST.value), advances=False)
        _log.info(
            "address {address} of pool {pool} is the host's", address=address, pool=pools[0].described()
        )
        return address

    def _pools_of_network(self, parent: str, subnet: IPNetwork, auxiliary: set[IPAddress]) -> list[Pool]:
        """
        Those that may be the one of a network that is being made: all in one shared set, for the engine does not say
        which one it is, and networks are made in parallel.
        """
        fitting = [pool for pool in self._pools.by_id.values() if answered_pool(pool) == subnet]
        being_made = [pool for pool in fitting if self._being_made.get(pool.pool_id) == auxiliary]
        found = sorted(being_made or fitting, key=lambda pool: pool.parent != parent)
        return [pool for pool in found if pool.shared_set == found[0].shared_set]

    async def release_address(self, request: ReleaseAddress) -> None:
        """Succeeds when there is nothing to release."""
        self.heard.note(request.pool_id)
        await self._release(request, lambda: True)

    async def release_unowned(self, unowned: Unowned, is_in_use: IsInUse) -> bool:
        """
        Give an address back that nobody has, without having been asked to.

        :return: whether it was; else it has been given back, or handed out anew, meanwhile.
        """

        def is_as_it_was() -> bool:
            since = self.owners.awaited.since(unowned.pool_id, int(unowned.address))
            owner = self._pools.by_id[unowned.pool_id].network_id
            return since == unowned.since and owner is not None and not is_in_use(owner, unowned.address)

        return await self._release(ReleaseAddress(unowned.pool_id, unowned.address), is_as_it_was)

    async def _release(self, request: ReleaseAddress, is_to_be: Callable[[], bool]) -> bool:
        pool = self._pools.find(request.pool_id)
        if pool is None:
            async with self._turns.of(request.pool_id):  # if it is just being released, that may fail yet
                pool = self._pools.by_id.get(request.pool_id)
        if pool is None:
            return False
        shared = self._pools.set_of(pool)
        number = int(request.address)
        if pool.stands_for - len(pool.given_back) > 1 and not shared.is_endpoints(number):
            return False  # each of its networks reserves it, and it goes with the last of them
        async with self._turns.of(
            f"{pool.pool_id} {number}"
        ):  # a second release must not free the next owner's
            if not shared.holds(pool.pool_id, number) or not is_to_be():
                return False
            if pool.dhcp:
                await self._leasing.give_back(pool, request.address)
            await self._book.release(pool.pool_id, request.address)
            shared.remove(pool.pool_id, number)
            self.owners.awaited.end(pool.pool_id, number)
            self._conflicts.let_go(pool.wire, request.address)
        _log.info(
            "address released: {address} of pool {pool}", address=request.address, pool=pool.described()
        )
        return True
