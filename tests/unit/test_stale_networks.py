"""Networks and pools that their engine dropped go, and none goes that an engine may still have."""

from __future__ import annotations

from macvlan_twisted.addresses import parse_address, parse_network
from macvlan_twisted.driver.models import Network
from macvlan_twisted.engine.client import EngineError
from macvlan_twisted.ipam.requests import Purpose, RequestAddress, RequestPool
from macvlan_twisted.state.interfaces import RecordKind
from macvlan_twisted.state.serialize import from_document

from .helpers import ENDPOINT, NETWORK, OTHER_NETWORK, PLAIN_LINKS
from .reconciler_cases import ENOUGH, GRACE_PERIODS, ROUND, RoundsTestCase, listed


class NetworkTests(RoundsTestCase):
    def test_one_that_its_engine_lists_no_more_goes_with_its_pool(self) -> None:
        self.begin()
        self.go_round()
        self.engine.has.clear()
        self.assertIn("was removed in the engine", self.go_round())
        self.assert_networks()
        self.assertEqual(self.plugin.store.open, {})
        self.assertEqual(self.plugin.link_names(), PLAIN_LINKS)
        self.assertEqual(self.reconciler.counts, {"networks removed": 1, "pools released": 1})

    def test_nothing_is_kept_of_when_one_was_heard_of_that_has_gone(self) -> None:
        self.begin()
        self.go_round()
        self.engine.has.clear()
        self.go_round()
        self.assert_networks()
        self.assertEqual(self.plugin.networks.last_seen._last, {})

    def test_after_a_restart_the_engine_is_known_again(self) -> None:
        self.begin()
        self.go_round(ROUND)
        self.engine.has.clear()
        self.start_again()
        self.go_round()
        self.assert_networks()

    def test_one_that_no_engine_was_ever_seen_to_list_stays(self) -> None:
        self.engine.has.clear()
        self.begin()
        self.go_round(2 * ENOUGH)
        self.assert_networks(NETWORK)

    def test_another_engine_proves_nothing(self) -> None:
        self.begin()
        self.go_round()
        self.engine.has.clear()
        self.engine.id = "b" * 64
        self.go_round(2 * ENOUGH)
        self.assert_networks(NETWORK)
        self.assertIn(self.pool_id, self.plugin.store.open)

    def test_an_engine_that_does_not_say_which_one_it_is_proves_nothing(self) -> None:
        """As behind a proxy that shows some networks only, or with Podman."""
        self.begin()
        self.go_round()
        self.engine.has.clear()
        self.engine.id = ""
        self.go_round(2 * ENOUGH)
        self.assert_networks(NETWORK)

    def test_an_engine_that_is_away_or_refuses_proves_nothing(self) -> None:
        self.begin()
        self.go_round()
        self.engine.has.clear()
        self.no_engine()
        self.go_round(ENOUGH)
        self.engine.trouble = EngineError("forbidden")
        self.go_round(ENOUGH)
        self.assert_networks(NETWORK)

    def test_one_that_is_not_listed_once_stays(self) -> None:
        self.begin()
        self.go_round(139)
        self.engine.has.clear()
        self.go_round(2)  # a look is at 140, the next one at 145
        self.engine.has[NETWORK] = listed()
        self.go_round(2 * ENOUGH)
        self.assert_networks(NETWORK)

    def test_one_with_a_container_stays(self) -> None:
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

    def test_a_swarms_stays_for_a_worker_lists_it_only_while_it_has_a_task(self) -> None:
        swarms = "k2v5xj9q8w7e6r5t4y3u2i1o0"
        self.plugin.create_network(swarms, parent="eth0")
        self.engine.has[swarms] = listed(swarms)
        self.begin()
        self.go_round()
        del self.engine.has[swarms]
        self.go_round(2 * ENOUGH)
        self.assert_networks(NETWORK, swarms)

    def test_an_engine_that_got_another_id_is_the_networks_from_then_on(self) -> None:
        self.begin()
        self.go_round()
        self.engine.id = "b" * 64
        self.start_again()
        self.go_round()
        kept = from_document(Network, self.plugin.records.kept[RecordKind.NETWORK][NETWORK])
        self.assertEqual(kept.engine_id, "b" * 64)

    def test_a_network_that_is_created_again_is_the_same_one_to_the_engine_that_lists_it(self) -> None:
        self.begin()
        self.go_round()
        self.create_all()

    def test_a_removal_by_the_engine_meanwhile_is_no_error(self) -> None:
        self.begin()
        self.go_round(ROUND)
        self.engine.has.clear()
        self.plugin.wait(self.plugin.networks.delete(NETWORK))
        self.go_round()
        self.assert_networks()


class PoolTests(RoundsTestCase):
    def test_one_whose_network_is_gone_goes_also_with_addresses_in_it(self) -> None:
        self.request_address()
        self.begin()
        self.go_round(ROUND)
        self.plugin.wait(self.plugin.networks.delete(NETWORK))
        self.engine.has.clear()
        self.assertIn("has no network in the engine", self.go_round())
        self.assertEqual(self.plugin.store.open, {})
        self.assertEqual(self.claimed(), [])

    def test_one_whose_network_is_gone_here_and_not_in_the_engine_stays(self) -> None:
        """State was lost in part: what is left of it is needed to recover the rest."""
        self.begin()
        self.go_round(ROUND)
        self.plugin.wait(self.plugin.networks.delete(NETWORK))
        self.go_round(2 * ENOUGH)
        self.assertIn(self.pool_id, self.plugin.store.open)

    def test_one_for_which_no_network_came_goes(self) -> None:
        self.begin()
        self.go_round(ROUND)
        abandoned = self.of_other_subnet()
        self.go_round(GRACE_PERIODS.silence - 20)
        self.assertIn(abandoned, self.plugin.store.open)
        self.go_round()
        self.assertEqual(list(self.plugin.store.open), [self.pool_id])

    def of_other_subnet(self) -> str:
        request = RequestPool("Local", parse_network("10.9.0.0/24"), None, {"parent": "eth0"})
        return self.plugin.wait(self.plugin.pools.request_pool(request)).pool_id

    def test_one_with_containers_stays_if_no_engine_was_seen_to_list_it(self) -> None:
        """It is another engine's, perhaps, and of another driver's network."""
        request = RequestAddress(self.of_other_subnet(), parse_address("10.9.0.7"), Purpose.ENDPOINT, "c")
        self.plugin.wait(self.plugin.addresses.request_address(request))
        self.begin()
        self.go_round(2 * ENOUGH)
        self.assertEqual(set(self.plugin.store.open), {self.pool_id, request.pool_id})
        self.assertEqual(self.claimed(), ["10.9.0.7"])

    def test_another_drivers_stays_while_the_engine_lists_its_network(self) -> None:
        other = self.of_other_subnet()
        self.engine.has[OTHER_NETWORK] = listed(OTHER_NETWORK, "10.9.0.0/24", driver="bridge")
        self.begin()
        self.go_round(2 * ENOUGH)
        self.assertIn(other, self.plugin.store.open)
        del self.engine.has[OTHER_NETWORK]
        self.go_round()
        self.assertNotIn(other, self.plugin.store.open)

    def test_without_an_engine_that_is_known_to_use_us_all_stay(self) -> None:
        self.engine.has = {OTHER_NETWORK: listed(OTHER_NETWORK, "172.16.0.0/16", driver="bridge")}
        other = self.of_other_subnet()
        self.begin()
        self.go_round(2 * ENOUGH)
        self.assertEqual(set(self.plugin.store.open), {other, self.pool_id})

    def test_where_there_may_be_another_engine_those_stay_that_may_be_its_own(self) -> None:
        other = self.of_other_subnet()
        self.plugin.create_network(OTHER_NETWORK, parent="eth0")  # which this engine does not list
        self.begin()
        self.go_round(2 * ENOUGH)
        self.assertIn(other, self.plugin.store.open)


class UnknownTests(RoundsTestCase):
    """What the engine has and we do not know."""

    def test_networks_and_endpoints_are_told_once_each_and_nothing_is_done(self) -> None:
        self.engine.has[OTHER_NETWORK] = listed(OTHER_NETWORK, "10.9.0.0/24")
        self.engine.listed["f" * 64] = "lost"
        self.begin()
        log = self.go_round(ROUND)
        self.assertEqual(log.count("--recover"), 2)
        self.assertIn(f"network {OTHER_NETWORK[:12]} (lan) is in the engine and not in state", log)
        self.assertIn("endpoint ffffffffffff of container lost in network", log)
        self.assertEqual(self.reconciler.counts, {"unknown networks": 1, "unknown endpoints": 1})
        self.assertNotIn("--recover", self.go_round(600))
        self.assert_networks(NETWORK)

    def test_other_drivers_networks_are_none_of_ours(self) -> None:
        for driver in ("bridge", "macvlan", "macvlan-twisted-2"):
            self.engine.has[driver] = listed(driver, "10.9.0.0/24", driver=driver)
        self.begin()
        self.assertNotIn("--recover", self.go_round())

    def test_a_managed_plugins_name_has_a_tag(self) -> None:
        self.engine.has[OTHER_NETWORK] = listed(OTHER_NETWORK, driver="macvlan-twisted:latest")
        self.begin()
        self.assertIn("--recover", self.go_round())

    def test_what_is_so_for_a_moment_only_is_not_told(self) -> None:
        self.engine.has[OTHER_NETWORK] = listed(OTHER_NETWORK)
        self.begin()
        self.pass_time(21)  # a look was at 20, the next one is at 25
        del self.engine.has[OTHER_NETWORK]
        self.assertNotIn("--recover", self.go_round())
