"""Which endpoint uses each address that is allocated to a container, and since when none does."""

from __future__ import annotations

from collections.abc import Callable

from ..addresses import IPAddress, IPNetwork
from ..display_names import DisplayNames
from ..errors import RequestRefused
from .pool import Pool
from .pool_registry import PoolRegistry


class EndpointClaims:
    """
    An allocation is for one endpoint. A CreateEndpoint that comes late, when its address was released and allocated again, must
    not take the address of the next container. It is in memory only: after a start, an address is used by the endpoint that
    has it.

    An address of a pool whose network is known is pending while it has no endpoint.

    :param seconds: a monotonic clock.
    :param names: learns which container has which endpoint.
    """

    def __init__(self, pools: PoolRegistry, seconds: Callable[[], float], names: DisplayNames) -> None:
        self._pools = pools
        self._seconds = seconds
        self._names = names
        self._users: dict[tuple[str, int], str] = {}
        """By pool id and number: the endpoint."""
        self._used: dict[str, set[tuple[str, int]]] = {}
        self._pending_since: dict[tuple[str, int], float] = {}
        """By pool id and number; the oldest are first."""
        self._had_endpoint: set[tuple[str, int]] = set()
        """Those of them whose endpoint was removed."""

    def allocated(self, pool_id: str, number: int) -> None:
        """The address is allocated anew, at age zero."""
        self.begin_pending(pool_id, number)
        self._end_use(pool_id, number)

    def released(self, pool_id: str, number: int) -> None:
        """Succeeds when no endpoint uses the address, and when it is not pending."""
        self.end_pending(pool_id, number)
        self._end_use(pool_id, number)
        self._names.address_released(pool_id, number)

    def pool_released(self, pool_id: str) -> None:
        for key in [each for each in (*self._pending_since, *self._users) if each[0] == pool_id]:
            self.released(*key)
        self._names.forget_pool(pool_id)

    def use(
        self, endpoint_id: str, network_id: str, parent: str, subnet: IPNetwork, address: IPAddress
    ) -> Pool | None:
        """
        The endpoint uses the allocation of *address*. Succeeds when it does already, and when no pool of the network is known.

        :param subnet: that of the network. :param parent: that of the network.
        :return: the pool that allocated the address.
        :raises RequestRefused: the address is not allocated any more, or another endpoint uses it.
        """
        pools = [
            pool for pool in self._pools.index.reported_as(subnet) if pool.network_id in (None, network_id)
        ]
        if not pools:
            return None
        allocated = [pool for pool in pools if self._is_allocated(pool, address)]
        free = [
            pool
            for pool in allocated
            if self._users.get((pool.pool_id, int(address)), endpoint_id) == endpoint_id
        ]
        if free:
            pool = min(free, key=lambda each: (each.network_id is None, each.lan_parent != parent))
            self._note(endpoint_id, pool, address)
            return pool
        if allocated:
            user = self._users[allocated[0].pool_id, int(address)]
            raise RequestRefused(
                f"address {address} was released before its endpoint was created, and endpoint "
                f"{user[:12]} has it now: start the container again"
            )
        raise RequestRefused(
            f"address {address} of pool {subnet} was released before its endpoint was created: start "
            "the container again"
        )

    def _is_allocated(self, pool: Pool, address: IPAddress) -> bool:
        return address in pool.prefix and self._pools.set_of(pool).holds(pool.pool_id, int(address))

    def _note(self, endpoint_id: str, pool: Pool, address: IPAddress) -> None:
        key = (pool.pool_id, int(address))
        self._users[key] = endpoint_id
        self._used.setdefault(endpoint_id, set()).add(key)
        self._names.endpoint_requested(endpoint_id, *key)

    def user(self, pool_id: str, number: int) -> str | None:
        """The endpoint that uses an allocation; ``None`` if none does."""
        return self._users.get((pool_id, number))

    def of_endpoint(self, endpoint_id: str) -> list[tuple[str, int]]:
        """Pool id and number of each address that the endpoint uses."""
        return list(self._used.get(endpoint_id, ()))

    def has(self, endpoint_id: str) -> bool:
        """Whether the endpoint uses an address of any pool."""
        return endpoint_id in self._used

    def number_of(self, endpoint_id: str, pool_id: str) -> int | None:
        """The address of the pool that the endpoint uses; ``None`` if it uses none."""
        return next((number for pool, number in self._used.get(endpoint_id, ()) if pool == pool_id), None)

    def endpoint_removed(self, endpoint_id: str) -> list[tuple[str, int]]:
        """:return: pool id and number of each address that it used."""
        used = [key for key in self._used.pop(endpoint_id, ()) if self._users.get(key) == endpoint_id]
        for key in used:
            del self._users[key]
        return used

    def _end_use(self, pool_id: str, number: int) -> None:
        user = self._users.pop((pool_id, number), None)
        if user is not None:
            used = self._used[user]
            used.discard((pool_id, number))
            if not used:
                del self._used[user]

    def begin_pending(self, pool_id: str, number: int, had_endpoint: bool = False) -> None:
        """:param had_endpoint: whether its endpoint was removed; else CreateEndpoint may be about to come."""
        self.end_pending(pool_id, number)
        self._pending_since[pool_id, number] = self._seconds()
        if had_endpoint:
            self._had_endpoint.add((pool_id, number))

    def end_pending(self, pool_id: str, number: int) -> None:
        """The address has an endpoint, or is no container's. Succeeds when it is not pending."""
        self._pending_since.pop((pool_id, number), None)
        self._had_endpoint.discard((pool_id, number))

    def pending_since(self, pool_id: str, number: int) -> float | None:
        return self._pending_since.get((pool_id, number))

    def is_abandoned(self, pool_id: str, number: int, seconds: float) -> bool:
        """Whether the endpoint of an address was removed, or none came for it in so many *seconds*."""
        key = (pool_id, number)
        since = self._pending_since.get(key)
        return since is not None and (key in self._had_endpoint or self._seconds() - since >= seconds)

    def pending_for(self, seconds: float) -> list[tuple[str, int]]:
        """The addresses that have been pending for at least *seconds*, the oldest first."""
        latest, found = self._seconds() - seconds, []
        for key, since in self._pending_since.items():
            if since > latest:
                break
            found.append(key)
        return found
