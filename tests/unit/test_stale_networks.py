"""Networks and pools that the engine has dropped are removed, and none that an engine may still have."""

from __future__ import annotations

from macvlan_twisted.addresses import parse_address
from macvlan_twisted.driver.models import Network
from macvlan_twisted.engine.interfaces import EngineError
from macvlan_twisted.ipam.requests import Purpose, RequestAddress
from macvlan_twisted.reconcile.reconciler import GRACE_PERIODS
from macvlan_twisted.state.interfaces import RecordKind
from macvlan_twisted.state.serialize import from_document

from .helpers import ENDPOINT, NETWORK, OTHER_NETWORK, PLAIN_LINKS
from .reconciler_cases import ENOUGH, ROUND, ReconcilerTestCase, listed, open_pool


class NetworkTests(ReconcilerTestCase):
    def test_unlisted_network_is_removed_with_its_pool(self) -> None:
        self.begin()
        self.go_round()
        self.engine.has.clear()
        self.assertIn("the engine removed it", self.go_round())
        self.assert_networks()
        self.assertEqual(self.plugin.store.open, {})
        self.assertEqual(self.plugin.link_names(), PLAIN_LINKS)
        self.assertEqual(self.reconciler.counts, {"networks removed": 1, "pools released": 1})
        self.assertEqual(self.plugin.networks._calls.last_seen._last, {})

    def test_engine_is_remembered_over_a_restart(self) -> None:
        self.begin()
        self.go_round(ROUND)
        self.engine.has.clear()
        self.start_again()
        self.go_round()
        self.assert_networks()

    def test_network_never_listed_stays(self) -> None:
        self.engine.has.clear()
        self.begin()
        self.go_round(2 * ENOUGH)
        self.assert_networks(NETWORK)

    def test_list_of_another_engine_proves_nothing(self) -> None:
        """Behind a proxy that hides networks, or with Podman, an engine has no id."""
        self.begin()
        self.go_round()
        self.engine.has.clear()
        for engine_id in ("b" * 64, ""):
            self.engine.id = engine_id
            self.go_round(2 * ENOUGH)
            self.assert_networks(NETWORK)
            self.assertIn(self.pool_id, self.plugin.store.open)

    def test_unavailable_engine_proves_nothing(self) -> None:
        self.begin()
        self.go_round()
        self.engine.has.clear()
        self.no_engine()
        self.go_round(ENOUGH)
        self.engine.trouble = EngineError("forbidden")
        self.go_round(ENOUGH)
        self.assert_networks(NETWORK)

    def test_network_missing_from_one_list_stays(self) -> None:
        self.begin()
        self.go_round(139)
        self.engine.has.clear()
        self.go_round(2)  # one check is at 140, the next one at 145
        self.engine.has[NETWORK] = listed()
        self.go_round(2 * ENOUGH)
        self.assert_networks(NETWORK)

    def test_network_with_a_container_stays(self) -> None:
        self.run_container()
        self.begin()
        self.go_round()
        self.engine.has.clear()
        self.engine.listed.clear()
        self.go_round(2 * ENOUGH)
        self.assert_networks(NETWORK)
        self.assert_kept(ENDPOINT)
        self.plugin.kernel.destroy_away(self.plugin.registry.endpoints[ENDPOINT].link)
        self.go_round(2 * ENOUGH)
        self.assert_networks()

    def test_swarm_network_stays(self) -> None:
        swarms = "k2v5xj9q8w7e6r5t4y3u2i1o0"
        self.plugin.create_network(swarms, parent="eth0")
        self.engine.has[swarms] = listed(swarms)
        self.begin()
        self.go_round()
        del self.engine.has[swarms]
        self.go_round(2 * ENOUGH)
        self.assert_networks(NETWORK, swarms)

    def test_new_engine_id_is_saved(self) -> None:
        self.begin()
        self.go_round()
        self.engine.id = "b" * 64
        self.start_again()
        self.go_round()
        kept = from_document(Network, self.plugin.records.rows[RecordKind.NETWORK][NETWORK])
        self.assertEqual(kept.engine_id, "b" * 64)

    def test_listed_network_can_be_created_again(self) -> None:
        self.begin()
        self.go_round()
        self.create_all()

    def test_removal_by_the_engine_meanwhile_is_no_error(self) -> None:
        self.begin()
        self.go_round(ROUND)
        self.engine.has.clear()
        self.plugin.delete_network()
        self.go_round()
        self.assert_networks()


class PoolTests(ReconcilerTestCase):
    def test_pool_without_a_network_goes_with_its_addresses(self) -> None:
        self.request_address()
        self.begin()
        self.go_round(ROUND)
        self.plugin.delete_network()
        self.engine.has.clear()
        self.assertIn("has no network in the engine", self.go_round())
        self.assertEqual(self.plugin.store.open, {})
        self.assertEqual(self.claimed(), [])

    def test_pool_of_a_listed_network_stays(self) -> None:
        """State was lost in part; the rest is needed for --recover."""
        self.begin()
        self.go_round(ROUND)
        self.plugin.delete_network()
        self.go_round(2 * ENOUGH)
        self.assertIn(self.pool_id, self.plugin.store.open)

    def test_pool_whose_network_never_came_goes(self) -> None:
        self.begin()
        self.go_round(ROUND)
        abandoned = self.of_other_subnet()
        self.go_round(GRACE_PERIODS.idle - 20)
        self.assertIn(abandoned, self.plugin.store.open)
        self.go_round()
        self.assertEqual(list(self.plugin.store.open), [self.pool_id])

    def of_other_subnet(self) -> str:
        return open_pool(self.plugin, "10.9.0.0/24")

    def test_unlisted_pool_with_containers_stays(self) -> None:
        """It may be the pool of another engine, and of a network of another driver."""
        request = RequestAddress(self.of_other_subnet(), parse_address("10.9.0.7"), Purpose.ENDPOINT, "c")
        self.plugin.wait(self.plugin.addresses.request_address(request))
        self.begin()
        self.go_round(2 * ENOUGH)
        self.assertEqual(set(self.plugin.store.open), {self.pool_id, request.pool_id})
        self.assertEqual(self.claimed(), ["10.9.0.7"])

    def test_pool_of_another_driver_stays_while_listed(self) -> None:
        other = self.of_other_subnet()
        self.engine.has[OTHER_NETWORK] = listed(OTHER_NETWORK, "10.9.0.0/24", driver="bridge")
        self.begin()
        self.go_round(2 * ENOUGH)
        self.assertIn(other, self.plugin.store.open)
        del self.engine.has[OTHER_NETWORK]
        self.go_round()
        self.assertNotIn(other, self.plugin.store.open)

    def test_pools_stay_beside_an_engine_without_our_networks(self) -> None:
        self.engine.has = {OTHER_NETWORK: listed(OTHER_NETWORK, "172.16.0.0/16", driver="bridge")}
        other = self.of_other_subnet()
        self.begin()
        self.go_round(2 * ENOUGH)
        self.assertEqual(set(self.plugin.store.open), {other, self.pool_id})

    def test_pool_stays_if_another_engine_may_have_it(self) -> None:
        other = self.of_other_subnet()
        self.plugin.create_network(OTHER_NETWORK, parent="eth0")  # which this engine does not list
        self.begin()
        self.go_round(2 * ENOUGH)
        self.assertIn(other, self.plugin.store.open)


class UnknownTests(ReconcilerTestCase):
    """Objects of the engine that are not in state."""

    def test_unknown_objects_are_reported_once_and_left_alone(self) -> None:
        self.engine.has[OTHER_NETWORK] = listed(OTHER_NETWORK, "10.9.0.0/24")
        self.engine.listed["f" * 64] = "lost"
        self.begin()
        log = self.go_round(ROUND)
        self.assertEqual(log.count("--recover"), 2)
        self.assertIn(f"network lan ({OTHER_NETWORK[:12]}): in the engine but not in the state", log)
        self.assertIn("container lost: endpoint ffffffffffff on network", log)
        self.assertEqual(self.reconciler.counts, {"unknown networks": 1, "unknown endpoints": 1})
        self.assertNotIn("--recover", self.go_round(600))
        self.assert_networks(NETWORK)

    def test_networks_of_other_drivers_are_ignored(self) -> None:
        for driver in ("bridge", "macvlan", "macvlan-twisted-2"):
            self.engine.has[driver] = listed(driver, "10.9.0.0/24", driver=driver)
        self.begin()
        self.assertNotIn("--recover", self.go_round())

    def test_driver_name_of_a_managed_plugin_is_recognized(self) -> None:
        self.engine.has[OTHER_NETWORK] = listed(OTHER_NETWORK, driver="macvlan-twisted:latest")
        self.begin()
        self.assertIn("--recover", self.go_round())

    def test_network_unknown_for_a_moment_is_not_reported(self) -> None:
        self.engine.has[OTHER_NETWORK] = listed(OTHER_NETWORK)
        self.begin()
        self.pass_time(21)  # one check was at 20, the next one is at 25
        del self.engine.has[OTHER_NETWORK]
        self.assertNotIn("--recover", self.go_round())
