"""
Which container had which address last, as far as the engine's API tells.

Engines before 29 do not name the container in RequestAddress, and nothing may ask the engine while a call waits. So its lists and
events are followed in the background (:mod:`macvlan_twisted.reconcile.container_watch`), and what they reported last is
known here when a request comes.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from typing import Any

from attrs import define, evolve, field, frozen
from sortedcontainers import SortedList

from ..addresses import IPAddress
from ..state.interfaces import AddressStore, LastAddress
from .endpoint_claims import EndpointClaims
from .pool import Pool
from .pool_registry import PoolRegistry


@frozen
class ListedContainer:
    """A container on one network, as the engine lists it."""

    container_id: str
    network_id: str
    endpoint_id: str = ""
    """Empty while it does not run."""
    asked: tuple[IPAddress, ...] = ()
    """What the user gave it by ``--ip`` and ``--ip6``."""
    has_mac_of_address: bool = False


@define(eq=False)
class _PoolContainers:
    """The containers of one pool."""

    rows: dict[str, LastAddress] = field(factory=dict)
    """By container id."""
    running: set[str] = field(factory=set)
    """Ids of containers that have an endpoint."""
    unknown: set[int] = field(factory=set)
    """Addresses that were allocated to containers that the engine has not listed with them yet."""
    numbers: SortedList = field(factory=SortedList)
    """Of all rows, each once."""

    def absent(self) -> list[LastAddress]:
        """Those that may request an address next, and name none."""
        return [row for id_, row in self.rows.items() if id_ not in self.running and not row.is_asked]

    def replace(self, rows: dict[str, LastAddress]) -> None:
        self.rows = rows
        self.numbers = SortedList({int(row.address) for row in rows.values() if row.address is not None})


class LastAddresses:
    """:param clock: ``IReactorTime`` of a clock that is never set."""

    def __init__(self, pools: PoolRegistry, claims: EndpointClaims, store: AddressStore, clock: Any) -> None:
        self._pools = pools
        self._claims = claims
        self._store = store
        self._clock = clock
        self._containers: dict[str, _PoolContainers] = {}
        """By pool id."""
        self._created: dict[str, float] = {}
        """By container id: when the engine reported its creation."""
        self._listed: set[str] = set()
        """Ids of all containers that the engine listed last, on whatever networks."""
        self.is_current = False
        """Whether the engine's last list holds: nothing has happened since, or the engine is still starting, so that nothing can."""

    def load(self) -> None:
        """Read the state at start. Not called if no engine is to be asked."""
        by_pool: dict[str, dict[str, LastAddress]] = {}
        for row in self._store.last_addresses():
            by_pool.setdefault(row.pool_id, {})[row.container_id] = row
            self._listed.add(row.container_id)
        for pool_id, pool in self._pools.by_id.items():
            here = self._of(pool_id)
            here.replace(by_pool.get(pool_id, {}))
            shared = self._pools.set_of(pool)
            here.running = {
                row.container_id
                for row in here.rows.values()
                if row.address is not None and shared.holds(pool_id, int(row.address))
            }
            here.unknown = {number for number in shared.chosen.get(pool_id, ()) if number not in here.numbers}

    def _of(self, pool_id: str) -> _PoolContainers:
        here = self._containers.get(pool_id)
        if here is None:
            here = self._containers[pool_id] = _PoolContainers()
        return here

    @property
    def has_pools(self) -> bool:
        """Whether there is any pool whose containers matter."""
        return any(_is_watched(pool) for pool in self._pools.by_id.values())

    # What is asked when an address is requested.

    def of_only_absent(self, pool_id: str) -> IPAddress | None:
        """The last address of the only container that can have requested one without naming it, if it may have it back."""
        here = self._containers.get(pool_id)
        if here is None or not self.is_current or here.unknown or not self._listed.issuperset(self._created):
            return None
        absent = here.absent()
        return absent[0].address if len(absent) == 1 and absent[0].returns else None

    def is_for_another(self, pool_id: str, address: IPAddress, released_at: float) -> bool:
        """
        Whether *address* belongs to a container that does not run, and the request may be that of another one, which was
        created since.
        """
        here = self._containers.get(pool_id)
        if here is None or int(address) not in here.numbers:
            return False
        absent = {row.container_id for row in here.absent()}
        return any(
            created_at >= released_at
            and (id_ in absent or id_ not in self._listed)
            and id_ not in here.running  # it is connected, although the engine has not listed it yet
            for id_, created_at in self._created.items()
        )

    def numbers_of(self, pool_id: str) -> SortedList | None:
        """The addresses in the pool that belong to containers, as numbers; empty or ``None`` if there are none."""
        here = self._containers.get(pool_id)
        return None if here is None else here.numbers

    # What happens to addresses.

    def allocated(self, pool_id: str, address: IPAddress, had_before: bool) -> None:
        """*address* is allocated to a container that did not ask for it."""
        here, owners = self._of(pool_id), self._owners(pool_id, address)
        if had_before and owners:
            here.running.update(owners)
        else:
            here.unknown.add(int(address))

    def released(self, pool_id: str, address: IPAddress) -> None:
        here = self._of(pool_id)
        here.unknown.discard(int(address))
        here.running.difference_update(self._owners(pool_id, address))

    def _owners(self, pool_id: str, address: IPAddress) -> list[str]:
        here = self._of(pool_id)
        if int(address) not in here.numbers:
            return []
        return [row.container_id for row in here.rows.values() if row.address == address]

    def forget_pool(self, pool_id: str) -> None:
        self._containers.pop(pool_id, None)

    # What the engine reports.

    def created(self, container_id: str) -> None:
        self._created[container_id] = self._clock.seconds()

    async def connected(
        self, network_id: str, container_id: str, has_mac_of_address: Callable[[str], bool]
    ) -> None:
        """
        A container has an endpoint on a network. If exactly one address there has an unknown owner, it is that one.

        :param has_mac_of_address: of an endpoint by its id.
        :raises StateError: the next list corrects it.
        """
        saved = []
        for pool in self._pools.by_id.values():
            here = self._of(pool.pool_id)
            row = here.rows.get(container_id) or LastAddress(pool.pool_id, container_id)
            if pool.network_id != network_id or len(here.unknown) != 1 or row.is_asked:
                continue
            number = here.unknown.pop()
            endpoint_id = self._claims.user(pool.pool_id, number) or ""
            address = pool.address(number)
            saved.append(evolve(row, address=address, returns=has_mac_of_address(endpoint_id)))
            here.running.add(container_id)
            here.replace({**here.rows, container_id: saved[-1]})
        if saved:
            await self._store.save_last_addresses(saved, ())

    async def destroyed(self, container_id: str) -> None:
        """
        :raises StateError: it is tried again with the next list.
        """
        self._created.pop(container_id, None)
        self._listed.discard(container_id)
        forgotten = []
        for pool_id, here in self._containers.items():
            if container_id in here.rows:
                here.replace({id_: row for id_, row in here.rows.items() if id_ != container_id})
                here.running.discard(container_id)
                forgotten.append((pool_id, container_id))
        if forgotten:
            await self._store.save_last_addresses((), forgotten)

    async def listed(
        self, container_ids: Collection[str], containers: Iterable[ListedContainer], since: float
    ) -> None:
        """
        The engine has listed its containers.

        :param container_ids: of all. :param containers: those on our networks, once a network.
        :param since: when it was asked.
        :raises StateError: it is tried again with the next list.
        """
        self._listed = set(container_ids)
        self._created = {id_: at for id_, at in self._created.items() if id_ in self._listed or at >= since}
        by_network: dict[str, list[ListedContainer]] = {}
        for each in containers:
            by_network.setdefault(each.network_id, []).append(each)
        saved: list[LastAddress] = []
        forgotten: list[tuple[str, str]] = []
        for pool in self._pools.by_id.values():
            if _is_watched(pool):
                here, before = self._of(pool.pool_id), self._of(pool.pool_id).rows
                self._note(pool, here, by_network)
                saved += [row for id_, row in here.rows.items() if before.get(id_) != row]
                forgotten += [(pool.pool_id, id_) for id_ in before if id_ not in here.rows]
        if saved or forgotten:
            await self._store.save_last_addresses(saved, forgotten)

    def _note(self, pool: Pool, here: _PoolContainers, by_network: dict[str, list[ListedContainer]]) -> None:
        rows: dict[str, LastAddress] = {}
        here.running = set()
        users: dict[IPAddress, str] = {}
        for each in by_network.get(pool.network_id or "", ()):
            row = here.rows.get(each.container_id) or LastAddress(pool.pool_id, each.container_id)
            asked = next((address for address in each.asked if address in pool.prefix), None)
            is_asked = any(address.version == pool.prefix.version for address in each.asked)
            number = self._claims.number_of(each.endpoint_id, pool.pool_id)
            if self._claims.has(each.endpoint_id):  # an endpoint that is gone may be listed a while longer
                here.running.add(each.container_id)
            if number is not None:
                here.unknown.discard(number)
                address = pool.address(number)
                users[address] = each.container_id
                is_chosen = number in self._pools.set_of(pool).chosen.get(pool.pool_id, ())
                row = evolve(row, address=address, returns=is_chosen and each.has_mac_of_address)
            if is_asked:
                row = evolve(row, address=asked or row.address, returns=False)
            rows[each.container_id] = evolve(row, is_asked=is_asked)
        for id_, row in rows.items():
            if row.address in users and users[row.address] != id_ and not row.is_asked:
                rows[id_] = evolve(row, address=None, returns=False)
        here.replace(rows)


def _is_watched(pool: Pool) -> bool:
    return not pool.dhcp and not pool.is_untracked
