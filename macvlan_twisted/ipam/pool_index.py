"""Open pools by id, by subnet and by address, so that a call takes as long with thousands of pools as with one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from ..addresses import IPAddress, IPNetwork
from .pool import Pool, reported_subnet

_Key = tuple[int, int, int]
"""IP version, prefix length, and the prefix as a number."""


class PoolIndex:
    """A pool may be replaced by one with the same id and the same subnet."""

    def __init__(self) -> None:
        self._by_id: dict[str, Pool] = {}
        self._by_prefix: dict[_Key, dict[str, Pool]] = {}
        self._in_use: dict[tuple[int, int], int] = {}
        """By IP version and prefix length: the number of subnets. There are few different lengths."""

    @property
    def by_id(self) -> Mapping[str, Pool]:
        return self._by_id

    def put(self, pool: Pool) -> None:
        """Add or replace a pool."""
        self._by_id[pool.pool_id] = pool
        key = _key(pool.prefix.network_address, pool.prefix.prefixlen)
        if key not in self._by_prefix:
            self._by_prefix[key] = {}
            self._in_use[key[:2]] = self._in_use.get(key[:2], 0) + 1
        self._by_prefix[key][pool.pool_id] = pool

    def remove(self, pool_id: str) -> Pool | None:
        """Succeeds when there is no such pool."""
        pool = self._by_id.pop(pool_id, None)
        if pool is None:
            return None
        key = _key(pool.prefix.network_address, pool.prefix.prefixlen)
        same = self._by_prefix[key]
        del same[pool_id]
        if not same:
            del self._by_prefix[key]
            self._in_use[key[:2]] -= 1
            if not self._in_use[key[:2]]:
                del self._in_use[key[:2]]
        return pool

    def reported_as(self, subnet: IPNetwork) -> list[Pool]:
        """The pools for which RequestPool replied with *subnet*, the oldest first."""
        same = self._by_prefix.get(_key(subnet.network_address, subnet.prefixlen), {})
        # A pool without a subnet of the user's is reported as one of length 0.
        pools = same if subnet.prefixlen else self._by_id
        return [each for each in pools.values() if reported_subnet(each) == subnet]

    def containing(self, address: IPAddress) -> Iterator[Pool]:
        """The pools whose subnet contains *address*."""
        for version, length in self._in_use:
            if version == address.version:
                yield from self._by_prefix.get(_key(address, length), {}).values()

    def overlapping(self, subnet: IPNetwork) -> Iterator[Pool]:
        """The pools whose subnet overlaps *subnet*, or is the same."""
        for version, length in self._in_use:
            if version != subnet.version:
                continue
            if length <= subnet.prefixlen:
                yield from self._by_prefix.get(_key(subnet.network_address, length), {}).values()
            else:
                number = _key(subnet.network_address, subnet.prefixlen)[2]
                for key, pools in self._by_prefix.items():
                    if key[:2] == (version, length) and key[2] >> (length - subnet.prefixlen) == number:
                        yield from pools.values()


def _key(address: IPAddress, length: int) -> _Key:
    return address.version, length, int(address) >> (address.max_prefixlen - length)
