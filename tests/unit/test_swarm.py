"""
The pools and addresses of swarm networks: Docker's own macvlan driver with our address management, on each node.

The orders of calls are those of Engine 28.5 in a swarm of two nodes.
"""

from __future__ import annotations

from functools import partial

from macvlan_twisted.addresses import IPAddress, parse_address, parse_network
from macvlan_twisted.ipam.requests import Purpose, ReleaseAddress, RequestAddress, RequestPool
from macvlan_twisted.lan.arp_nd import Probe, answer_frame, decode

from .helpers import OTHER_NETWORK
from .reconciler_cases import ENOUGH, ROUND, ReconcilerTestCase, listed

SWARMS, OTHER_SWARMS = "90y8l2dpna33qrogijvvwn5fq", "k2v5xj9q8w7e6r5t4y3u2i1o0"
"""Ids of networks."""
SUBNET = "10.9.0.0/24"
TASKS_MAC = "02:00:00:00:00:07"


class PoolTests(ReconcilerTestCase):
    """An engine that is killed forgets its pool, releases nothing, and requests another one for the next task."""

    def setUp(self) -> None:
        super().setUp()
        self.alive: set[IPAddress] = set()
        self.plugin.answerers.append(self._answer)
        self.list_network(SWARMS)

    def _answer(self, frame: bytes) -> list[bytes]:
        message = decode(frame)
        if isinstance(message, Probe) and message.address in self.alive:
            return [answer_frame(message.address, TASKS_MAC, message.mac)]
        return []

    def list_network(self, network_id: str) -> None:
        self.engine.has[network_id] = listed(network_id, SUBNET, driver="macvlan")

    def activate(self) -> None:
        async def call() -> None:
            await self.plugin.parts.methods()["Plugin.Activate"](b"")

        self.plugin.wait(call())

    def open(self, conflict_detection: str = "on") -> str:
        options = {"parent": "eth0", "conflict_detection": conflict_detection}
        request = RequestPool("Local", parse_network(SUBNET), None, options)
        pool_id = self.plugin.wait(self.plugin.pools.request_pool(request)).pool_id
        gateway = RequestAddress(pool_id, parse_address("10.9.0.1"), Purpose.GATEWAY)
        self.plugin.wait(self.plugin.addresses.request_address(gateway))
        return pool_id

    def start_task(self, pool_id: str) -> str:
        asked = self.plugin.start(self.plugin.addresses.request_address(RequestAddress(pool_id, None)))
        self.pass_time(5)
        return str(self.successResultOf(asked).ip)

    def release(self, pool_id: str, address: str) -> None:
        release = ReleaseAddress(pool_id, parse_address(address))
        self.plugin.wait(self.plugin.addresses.release_address(release))

    def pools(self) -> set[str]:
        return {*self.plugin.store.open} - {self.pool_id}

    def kill_engine(self, **options: str) -> tuple[tuple[str, str], tuple[str, str]]:
        """:return: pool and address of a task before and after it."""
        self.begin()
        self.activate()
        before = self.open(**options)
        address = self.start_task(before)
        self.go_round()
        self.activate()
        after = self.open(**options)
        return (before, address), (after, self.start_task(after))

    def test_pool_of_an_engine_that_was_killed_is_released(self) -> None:
        _, (after, address) = self.kill_engine()
        self.assertIn("has no network in the engine", self.go_round())
        self.assertEqual((self.pools(), self.claimed()), ({after}, [address]))

    def test_pool_is_released_where_the_lan_is_not_asked(self) -> None:
        _, (after, address) = self.kill_engine(conflict_detection="off")
        self.go_round()
        self.assertEqual((self.pools(), self.claimed()), ({after}, [address]))

    def test_address_that_answers_stays_with_its_pool(self) -> None:
        (before, old), (after, new) = self.kill_engine()
        self.alive.add(parse_address(old))
        self.go_round()
        self.assertEqual((self.pools(), self.claimed()), ({before, after}, sorted([old, new])))

    def test_pool_that_the_engine_still_mentions_stays(self) -> None:
        (before, _), (after, _) = self.kill_engine()
        self.start_task(before)
        self.go_round(2 * ENOUGH)
        self.assertEqual(self.pools(), {before, after})

    def test_pool_without_a_newer_one_stays(self) -> None:
        """Plugin.Activate may come from others than an engine that has started."""
        self.begin()
        pool_id = self.open()
        self.start_task(pool_id)
        self.activate()
        self.go_round(2 * ENOUGH)
        self.assertEqual(self.pools(), {pool_id})

    def test_pool_stays_if_a_further_listed_network_may_have_it(self) -> None:
        """An engine does not request the pools of networks of its own again when it has started."""
        for network_id in (OTHER_SWARMS, OTHER_NETWORK):
            with self.subTest(network=network_id):
                self.list_network(network_id)
                (before, _), (after, _) = self.kill_engine()
                self.go_round(2 * ENOUGH)
                self.assertEqual(self.pools(), {before, after})
                for pool_id in (before, after):
                    self.plugin.wait(self.plugin.pools.release_pool(pool_id))
                del self.engine.has[network_id]
                self.start_again()

    def test_pool_of_an_engines_own_network_stays(self) -> None:
        del self.engine.has[SWARMS]
        self.list_network(OTHER_NETWORK)
        (before, _), (after, _) = self.kill_engine()
        self.go_round(2 * ENOUGH)
        self.assertEqual(self.pools(), {before, after})

    def test_addresses_of_a_vanished_network_stay_while_they_answer(self) -> None:
        self.begin()
        pool_id = self.open()
        first, second = self.start_task(pool_id), self.start_task(pool_id)
        self.go_round(ROUND)
        self.alive.add(parse_address(second))
        del self.engine.has[SWARMS]
        self.go_round()
        self.assertEqual((self.pools(), self.claimed()), ({pool_id}, [second]))
        self.assertNotEqual(first, second)
        self.alive.clear()
        self.go_round()
        self.assertEqual((self.pools(), self.claimed()), (set(), []))

    def test_release_of_pool_and_addresses_succeeds_in_any_order(self) -> None:
        for is_pool_first in (True, False):
            with self.subTest(is_pool_first=is_pool_first):
                pool_id = self.open()
                addresses = [self.start_task(pool_id), self.start_task(pool_id), "10.9.0.1"]
                release_pool = partial(self.plugin.pools.release_pool, pool_id)
                if is_pool_first:
                    self.plugin.wait(release_pool())
                for address in addresses:
                    self.release(pool_id, address)
                if not is_pool_first:
                    self.plugin.wait(release_pool())
                self.assertEqual((self.pools(), self.claimed()), (set(), []))
                self.assertEqual(self.plugin.open_pools.by_id.keys(), {self.pool_id})
                self.assertEqual(self.plugin.conflicts._holders, {})
