"""The cursor (the last allocated address) is kept for networks that may return, but not for all."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from macvlan_twisted.addresses import parse_address, parse_network
from macvlan_twisted.ipam.pool import Pool, plan_pool
from macvlan_twisted.ipam.pool_registry import MOST_CURSORS, PoolRegistry
from macvlan_twisted.ipam.requests import RequestPool
from macvlan_twisted.testing.state import MemoryAddressStore

from .helpers import LAN


def planned(subnet: str) -> Pool:
    """A pool."""
    request = RequestPool("MacvlanTwistedLocal", parse_network(subnet), None, {})
    return plan_pool(request, LAN, "0")


class CursorTests(SynchronousTestCase):
    def setUp(self) -> None:
        store = MemoryAddressStore()
        store.last = {f"made up {number}": parse_address("10.0.0.1") for number in range(MOST_CURSORS - 1)}
        self.pools = PoolRegistry(store)

    def test_oldest_cursors_are_forgotten(self) -> None:
        self.assertEqual(self.pools.advance(planned("10.1.0.0/24"), 7), ())
        self.assertEqual(self.pools.advance(planned("10.2.0.0/24"), 7), ("made up 0",))
        self.assertEqual(self.pools.advance(planned("10.2.0.0/24"), 8), ())
        self.assertEqual(self.pools.advance(planned("10.3.0.0/24"), 7), ("made up 1",))
        self.assertEqual(len(self.pools.cursors), MOST_CURSORS)

    def test_cursors_of_open_and_recent_pools_stay(self) -> None:
        open_pool, recent = planned("10.1.0.0/24"), planned("10.2.0.0/24")
        self.pools.add(open_pool)
        self.pools.cursors = {open_pool.cursor_key: 1, recent.cursor_key: 2, **self.pools.cursors}
        self.pools.advance(recent, 3)
        self.assertEqual(self.pools.cursors[open_pool.cursor_key], 1)
        self.assertEqual(self.pools.cursors[recent.cursor_key], 3)
        self.assertNotIn("made up 0", self.pools.cursors)
