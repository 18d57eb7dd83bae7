"""Leases of removed containers are released, those of running containers are not."""

from __future__ import annotations

from attrs import evolve

from macvlan_twisted.reconcile.reconciler import GRACE_PERIODS
from macvlan_twisted.state.interfaces import RecordKind

from .dhcp_lan import MAC, RELEASE, REQUEST
from .helpers import ENDPOINT, NETWORK, PluginHarness, endpoint_request, subnet
from .reconciler_cases import ENOUGH, LINK, ROUND, ReconcilerTestCase, listed
from .test_leases import TERMS, LeasesTestCase


class LeftLeasesTests(LeasesTestCase, ReconcilerTestCase):
    """Without address management."""

    def setUp(self) -> None:
        super().setUp()
        self.engine.has = {NETWORK: listed(NETWORK, "0.0.0.0/0")}

    def create_all(self, network_id: str = NETWORK, plugin: PluginHarness | None = None) -> str:
        nobodys = evolve(subnet("0.0.0.0/0"), null_ipam=True)
        self.plugin.create_network(subnets=(nobodys,), parent="eth0", dhcp="true")
        return ""

    def run_leasing_container(self) -> None:
        self.plugin.wait(self.plugin.endpoints.create(endpoint_request(ENDPOINT, NETWORK, None, MAC)))
        self.plugin.kernel.move_away(LINK, up=True)
        self.engine.listed[ENDPOINT] = "web"

    def start_again_with_leases(self) -> None:
        plugin = self.next_life()
        self.resume(plugin)
        self.begin(plugin)

    def test_lease_of_a_running_container_is_kept(self) -> None:
        self.run_leasing_container()
        self.start_again_with_leases()
        for trouble in (False, True):
            if trouble:
                self.no_engine()
            self.go_round()
            self.assert_kept(ENDPOINT)
            self.assertEqual(set(self.kinds), {REQUEST})
            self.assertEqual(len(self.rows()), 1)

    def test_lease_of_a_removed_container_is_released(self) -> None:
        for with_engine in (True, False):
            self.engine.trouble = None
            self.run_leasing_container()
            self.start_again_with_leases()
            if not with_engine:
                self.no_engine()
            self.forget_container()
            self.go_round()
            self.assert_kept()
            self.assertEqual(self.kinds[-1], RELEASE)
            self.assertEqual(self.rows(), [])
            self.assertNotIn(RecordKind.ENDPOINT, self.plugin.records.all_rows())

    def test_lease_without_an_owner_is_released_after_a_while(self) -> None:
        self.begin()
        self.take()
        self.go_round(GRACE_PERIODS.idle)
        self.assertEqual(len(self.rows()), 1)
        self.assertIn("released, no container uses it", self.go_round(2 * ROUND))
        self.assertEqual(self.rows(), [])
        self.assertEqual(self.reconciler.counts, {"leases released": 1})

    def test_new_lease_gets_a_new_grace_period(self) -> None:
        self.begin()
        self.take()
        self.pass_time(141 + ROUND)  # seen at 20, 80, 140, 200; the next look is at 205
        self.give_back()
        self.plugin.wait(self.plugin.leases.acquire(TERMS))
        self.go_round(GRACE_PERIODS.idle - 1)
        self.assertEqual(len(self.rows()), 1)
        self.go_round(ENOUGH)
        self.assertEqual(self.rows(), [])

    def test_lease_being_acquired_is_not_released(self) -> None:
        self.server.away = True
        taken = self.plugin.start(self.plugin.leases.acquire(TERMS))
        self.begin()
        self.pass_time(5)
        self.assertNoResult(taken)
        self.assertEqual(self.reconciler.counts, {})
        self.plugin.leases.close()
        self.failureResultOf(taken)
