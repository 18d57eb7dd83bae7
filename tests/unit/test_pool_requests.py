"""RequestPool and ReleasePool; pools and addresses after a restart and after disk errors."""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import Any

from attrs import evolve

from macvlan_twisted.addresses import parse_address, parse_network
from macvlan_twisted.config import Config
from macvlan_twisted.errors import RequestRefused, StateError
from macvlan_twisted.option_values import ConflictDetection

from .address_cases import AddressTestCase
from .helpers import LAN


class PoolTests(AddressTestCase):
    def test_pool_without_a_subnet_hides_the_lan(self) -> None:
        granted = self.grant(None)
        self.assertEqual((str(granted.pool), str(granted.gateway)), ("0.0.0.0/0", "192.168.1.1/24"))
        self.assertEqual(self.ask(granted.pool_id), "192.168.1.2/24")
        self.release(granted.pool_id, "192.168.1.1")
        self.close(granted.pool_id)
        self.assertEqual((self.plugin.store.open, self.plugin.store.allocated), ({}, {}))

    def test_ipv6_pool_without_a_subnet_hides_the_lan(self) -> None:
        self.use(evolve(LAN, subnets=(parse_network("fd00::/64"),), gateways=(parse_address("fd00::1"),)))
        granted = self.grant(None, v6=True)
        self.assertEqual((str(granted.pool), str(granted.gateway)), ("::/0", "fd00::1/64"))

    def test_pool_is_refused_if_a_container_has_the_gateway(self) -> None:
        pool = self.open()
        self.ask(pool, "192.168.1.1")
        before = dict(self.plugin.store.open)
        with self.assert_refused(RequestRefused, "192.168.1.1"):
            self.grant(None)
        self.assertEqual(self.plugin.store.open, before)

    def test_overlapping_subnet_is_refused_until_the_release(self) -> None:
        big = self.open("10.0.0.0/8")
        with self.assert_refused(RequestRefused, "10.1.0.0/16", "10.0.0.0/8"):
            self.open("10.1.0.0/16")
        self.close(big)
        self.open("10.1.0.0/16")
        self.assertEqual(len(self.plugin.store.open), 1)

    def test_pools_on_different_parents_are_separate(self) -> None:
        one, two = self.open("10.0.0.0/28"), self.open("10.0.0.0/28", parent="eth1")
        self.assertEqual([self.ask(one), self.ask(two)], ["10.0.0.1/28", "10.0.0.1/28"])


class RestartTests(AddressTestCase):
    def test_pools_addresses_and_cursors_survive_a_restart(self) -> None:
        one, two = self.open("10.0.0.0/28"), self.open("10.0.0.0/28")
        self.gateway(one, "10.0.0.1")
        for pool in (one, two, one):
            self.ask(pool)
        self.release(one, "10.0.0.4")
        self.plugin = self.plugin.next_life()
        self.assertEqual(self.ask(two), "10.0.0.5/28")
        for address in ("10.0.0.1", "10.0.0.2", "10.0.0.3"):
            with self.assert_refused(RequestRefused, address):
                self.ask(one, address)
        self.close(one)
        self.close(two)
        self.assertEqual((self.plugin.store.open, self.plugin.store.allocated), ({}, {}))

    def test_pool_keeps_its_subnet_if_the_configuration_changes(self) -> None:
        pool = self.open(None)
        self.plugin = self.plugin.next_life(
            Config(host_interface="eth1", conflict_detection=ConflictDetection.OFF)
        )
        self.assertEqual(self.ask(pool), "192.168.1.2/24")

    def test_claim_without_a_pool_is_reported_at_start(self) -> None:
        pool = self.open()
        self.ask(pool)
        self.plugin.store.open.clear()
        with self.assert_refused(StateError, pool):
            self.plugin.next_life()


class DiskErrorTests(AddressTestCase):
    """What the disk refuses does not happen."""

    def fails(self, call: Callable[..., object], *arguments: Any) -> None:
        self.plugin.store.failing = True
        with self.assert_refused(StateError):
            call(*arguments)
        self.plugin.store.failing = False

    def test_pool_is_not_opened_after_a_disk_error(self) -> None:
        self.fails(self.open, "10.0.0.0/8")
        self.assertEqual(self.ask(self.open("10.1.0.0/16")), "10.1.0.1/16")

    def test_address_is_free_after_a_disk_error(self) -> None:
        pool = self.open("10.0.0.0/30")
        self.fails(self.ask, pool)
        self.fails(self.ask, pool, "10.0.0.2")
        self.assertEqual({self.ask(pool), self.ask(pool)}, {"10.0.0.1/30", "10.0.0.2/30"})

    def test_address_stays_taken_after_a_failed_release(self) -> None:
        pool = self.open("10.0.0.0/30")
        self.ask(pool, "10.0.0.1")
        self.fails(self.release, pool, "10.0.0.1")
        self.fails(self.close, pool)
        with self.assert_refused(RequestRefused):
            self.ask(pool, "10.0.0.1")

    def test_gateway_stays_reserved_after_a_disk_error(self) -> None:
        pool = self.open()
        self.gateway(pool, "192.168.1.9")
        self.fails(self.gateway, pool, "192.168.1.9")
        with self.assert_refused(RequestRefused):
            self.ask(pool, "192.168.1.9")


class OtherParentTests(AddressTestCase):
    def test_change_of_parent_succeeds_if_the_old_link_stays(self) -> None:
        """An engine does not remove a network whose creation has failed: it would stay for ever."""
        self.use(evolve(LAN, conflict_detection=ConflictDetection.ON))
        pool = self.open()
        self.plugin.wait(self.plugin.wires.ready("eth0"))
        self.plugin.steps.refuse["delete"] = errno.EBUSY
        subnets = [(parse_network("192.168.1.0/24"), ())]
        self.plugin.wait(self.plugin.pool_binding.network_created("eth1", subnets, "n" * 64))
        (found,) = self.plugin.pools.open_pools
        self.assertEqual((found.pool_id, found.lan_parent, found.network_id), (pool, "eth1", "n" * 64))
