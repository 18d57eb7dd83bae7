"""What stays with a container's name (``--ipam-opt identity``): its last address, and its MAC."""

from __future__ import annotations

import re
from random import Random

from sortedcontainers import SortedList
from twisted.logger import Logger

from ..addresses import IPAddress
from ..macs import mac_from_name, random_mac
from ..option_values import IdentitySource
from ..state.interfaces import AddressStore, StickyAddress
from .pool import Pool
from .pool_registry import PoolRegistry

_log = Logger(namespace="macvlan_twisted.ipam")

MAX_NAMES = 10_000
"""Limit per pool: the engine generates a name for each container that has none, so names accumulate."""


_TASK = re.compile(r"(?P<slot>[A-Za-z0-9][A-Za-z0-9_-]*\.(?:[1-9][0-9]*|[0-9a-z]{25}))\.[0-9a-z]{25}")
"""
The name of a swarm task's container: SERVICE.SLOT.TASKID, in a global service SERVICE.NODEID.TASKID (``api/naming`` of swarmkit). An
id has 25 digits of base 36.
"""


def slot_of_task(name: str) -> str:
    """SERVICE.SLOT or SERVICE.NODEID, which the next task inherits, of a swarm task's container; empty if *name* is none's."""
    task = _TASK.fullmatch(name)
    return "" if task is None else task["slot"]


class StickyAddresses:
    """
    Indexed by pool and name, and by pool and address; an address belongs to the name that had it last. The caller stores each
    change on disk.
    """

    def __init__(self, store: AddressStore) -> None:
        self._store = store
        self._by_name: dict[str, dict[str, StickyAddress]] = {}
        self._by_address: dict[tuple[str, IPAddress], str] = {}
        self._numbers: dict[str, SortedList] = {}
        """By pool: the addresses of all names."""

    def load(self) -> None:
        """Read the state at start."""
        for identity in self._store.identities():
            self.note(identity)

    def of_name(self, pool_id: str, name: str) -> StickyAddress | None:
        return self._by_name.get(pool_id, {}).get(name)

    def of_address(self, pool_id: str, address: IPAddress) -> StickyAddress | None:
        name = self._by_address.get((pool_id, address))
        return None if name is None else self.of_name(pool_id, name)

    def numbers_of(self, pool_id: str) -> SortedList | None:
        """The addresses in the pool that belong to names, as numbers; empty or ``None`` if there are none."""
        return self._numbers.get(pool_id)

    def _assign(self, pool_id: str, address: IPAddress, name: str) -> None:
        if (pool_id, address) not in self._by_address:
            self._numbers.setdefault(pool_id, SortedList()).add(int(address))
        self._by_address[pool_id, address] = name

    def _unassign(self, pool_id: str, address: IPAddress) -> str | None:
        name = self._by_address.pop((pool_id, address), None)
        if name is not None:
            self._numbers[pool_id].remove(int(address))
        return name

    def note(self, identity: StickyAddress) -> tuple[str, ...]:
        """
        Record *identity*.

        :return: the names that are forgotten: the previous one of the address, and the oldest if there are too many.
        """
        names = self._by_name.setdefault(identity.pool_id, {})
        forgotten = []
        previous_name = self._by_address.get((identity.pool_id, identity.address))
        if previous_name is not None and previous_name != identity.name:
            forgotten.append(previous_name)
        earlier = names.pop(identity.name, None)  # move it to the end: the newest are last
        if earlier is not None:
            self._unassign(identity.pool_id, earlier.address)
        names[identity.name] = identity
        self._assign(identity.pool_id, identity.address, identity.name)
        if len(names) - len(forgotten) > MAX_NAMES:
            forgotten.append(next(iter(names)))
        for name in forgotten:
            removed = names.pop(name, None)
            if removed is not None and self._by_address.get((removed.pool_id, removed.address)) == name:
                self._unassign(removed.pool_id, removed.address)
        return tuple(forgotten)

    def forget_address(self, pool_id: str, address: IPAddress) -> tuple[str, ...]:
        """
        The new owner of *address* has no name.

        :return: the names that are forgotten.
        """
        name = self._unassign(pool_id, address)
        if name is None:
            return ()
        del self._by_name[pool_id][name]
        return (name,)

    def forget_pool(self, pool_id: str) -> None:
        for identity in self._by_name.pop(pool_id, {}).values():
            self._by_address.pop((pool_id, identity.address), None)
        self._numbers.pop(pool_id, None)


class MacPolicy:
    """
    :param host: identifies this host, so that containers with the same name on two hosts get different MACs.
    """

    def __init__(
        self, host: str, random: Random, pools: PoolRegistry, sticky_addresses: StickyAddresses
    ) -> None:
        self._host = host
        self._random = random
        self._pools = pools
        self._sticky_addresses = sticky_addresses
        self._warned: set[str] = set()

    def mac_for_name(self, pool: Pool, name: str) -> str:
        """
        The MAC to store for the container *name*; empty if the driver makes it from the address.

        It is also empty in a container's second network on the same parent and subnet, because the kernel accepts a MAC only
        once per parent.
        """
        if pool.identity != IdentitySource.NAME:
            return ""
        if name:
            before = self._sticky_addresses.of_name(pool.pool_id, name)
            mac = self._mac_from_name(pool, name) if before is None else before.mac
            others = [
                each
                for each in self._pools.by_id.values()
                if each.lan_parent == pool.lan_parent and each is not pool
            ]
            return "" if any(self._uses_mac(each, name, mac) for each in others) else mac
        if pool.pool_id not in self._warned:
            self._warned.add(pool.pool_id)
            # Cause: engines before 29 do not send a container's name, so MAC addresses are derived from IP addresses.
            # Remedy: use Docker Engine 29 or later, or ``docker run`` with --ip or --mac-address.
            _log.warn(
                "pool {pool}: --ipam-opt identity=name has no effect, because this engine does not send container names "
                "(29 and later do); use docker run --ip or --mac-address",
                pool=pool.described(),
            )
        return ""

    def _mac_from_name(self, pool: Pool, name: str) -> str:
        return mac_from_name(self._host, pool.lan_parent, str(pool.prefix), name)

    def mac_for(self, parent: str, address: IPAddress) -> str | None:
        """The MAC for an allocated address on *parent*; ``None`` if it is made from the address, or no pool allocated that."""
        pool = self._pools.pool_of_endpoint(parent, address)
        if pool is None:
            return None
        if pool.identity == IdentitySource.RANDOM:
            return random_mac(self._random)
        sticky = self._sticky_addresses.of_address(pool.pool_id, address)
        return sticky.mac or None if sticky is not None else None

    def mac_for_lease(self, pool: Pool, name: str) -> str:
        """The MAC for leasing an address, before the container exists."""
        if name and pool.identity != IdentitySource.RANDOM:
            return self._mac_from_name(pool, name)
        return random_mac(self._random)

    def _uses_mac(self, pool: Pool, name: str, mac: str) -> bool:
        """Whether the container *name* has an address with *mac* in this pool."""
        sticky = self._sticky_addresses.of_name(pool.pool_id, name)
        return (
            sticky is not None
            and sticky.mac == mac
            and self._pools.pool_of_endpoint(pool.lan_parent, sticky.address) is pool
        )
