"""Endpoints whose container is gone are removed, and none whose container may exist."""

from __future__ import annotations

import errno

from attrs import evolve

from macvlan_twisted.driver import requests
from macvlan_twisted.engine.interfaces import EngineError, EngineUnavailable
from macvlan_twisted.link_names import endpoint_link_name
from macvlan_twisted.netlink.kernel import MacvlanLink
from macvlan_twisted.reconcile.reconciler import GRACE_PERIODS
from macvlan_twisted.state.interfaces import RecordKind

from .helpers import ENDPOINT, LAN, NETWORK, OTHER_ENDPOINT, OTHER_NETWORK, PLAIN_LINKS
from .reconciler_cases import ENOUGH, LINK, ROUND, ReconcilerTestCase, listed


class StaleEndpointTests(ReconcilerTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.run_container()

    def assert_gone(self, why: str, seconds: float = ENOUGH) -> None:
        log = self.go_round(seconds)
        self.assert_kept()
        self.assertIn(why, log)
        self.assertEqual(self.plugin.link_names(), PLAIN_LINKS)
        self.go_round()
        self.assertEqual(self.claimed(), [])
        self.assertEqual(self.reconciler.counts, {"endpoints removed": 1, "addresses released": 1})
        # The engine may still send these calls.
        self.plugin.delete_endpoint()
        self.release_address()

    def test_endpoint_unlisted_and_with_its_link_back_is_removed(self) -> None:
        self.engine.listed.clear()
        self.come_back()
        self.start_again()
        self.assert_gone("its link came back")

    def test_ghost_that_the_engine_does_not_list_goes_in_thirty_seconds(self) -> None:
        """Its link came back, or died with the container."""
        for is_back in (True, False):
            with self.subTest(is_back=is_back):
                self.setUp()
                self.engine.listed.clear()
                if is_back:
                    self.come_back()
                else:
                    self.forget_container()
                self.start_again()
                self.go_round(GRACE_PERIODS.unlisted + GRACE_PERIODS.between_checks - 1)
                self.assert_kept(ENDPOINT)
                self.go_round(30 - GRACE_PERIODS.unlisted)
                self.assert_kept()

    def test_ghost_that_is_not_proved_waits_for_the_grace_period(self) -> None:
        """No engine answers, or it does not have the network, or the kernel does not show the links in containers."""
        for proof_lacks in ("engine", "network", "namespaces"):
            with self.subTest(proof_lacks=proof_lacks):
                self.setUp()
                self.engine.listed.clear()
                if proof_lacks == "namespaces":
                    self.forget_container()
                else:
                    self.come_back()
                if proof_lacks == "engine":
                    self.no_engine()
                elif proof_lacks == "network":
                    self.engine.has = {OTHER_NETWORK: listed(OTHER_NETWORK, "10.0.0.0/8", driver="bridge")}
                self.start_again()
                if proof_lacks == "namespaces":
                    self.plugin.steps.refuse["links_elsewhere"] = errno.EOPNOTSUPP
                self.go_round(GRACE_PERIODS.idle - 1)
                self.assert_kept(ENDPOINT)
                self.go_round(ROUND + 10)
                self.assert_kept()

    def test_endpoint_with_its_link_back_is_removed_without_engine(self) -> None:
        self.no_engine()
        self.come_back()
        self.start_again()
        self.assert_gone("its link came back")

    def come_back(self) -> None:
        self.plugin.kernel.move_back(self.plugin.kernel.away(LINK))

    def test_unlisted_endpoint_is_removed(self) -> None:
        self.forget_container()
        self.begin()
        self.assert_gone("the engine does not know it any more")

    def test_unlisted_endpoint_is_removed_if_namespaces_are_unknown(self) -> None:
        self.forget_container()
        self.begin()
        self.plugin.steps.refuse["links_elsewhere"] = 95
        self.assert_gone("the engine does not know it any more")

    def test_endpoint_without_a_link_is_removed_without_engine(self) -> None:
        self.no_engine()
        self.forget_container()
        self.begin()
        self.assert_gone("its link is in no network namespace any more")

    def test_endpoint_without_a_link_goes_beside_another_engine(self) -> None:
        self.engine.has = {OTHER_NETWORK: listed(OTHER_NETWORK, "10.0.0.0/8", driver="bridge")}
        self.forget_container()
        self.begin()
        self.assert_gone("its link is in no network namespace any more")

    def test_row_without_a_network_is_removed(self) -> None:
        self.no_engine()
        self.forget_container()
        self.plugin.records.rows[RecordKind.NETWORK].clear()
        self.start_again()
        self.go_round(ENOUGH)
        self.assertEqual(dict(self.plugin.registry.endpoints), {})
        self.assertEqual(self.plugin.records.rows[RecordKind.ENDPOINT], {})

    def test_endpoint_stays_during_the_grace_period(self) -> None:
        self.start_again()
        self.plugin.kernel.destroy_away(LINK)
        self.engine.listed.clear()
        self.go_round(GRACE_PERIODS.unlisted + GRACE_PERIODS.between_checks - 1)
        self.assert_kept(ENDPOINT)
        self.assert_gone("the engine does not know it any more")

    def test_only_stale_endpoints_are_removed(self) -> None:
        self.run_container(OTHER_ENDPOINT, "192.168.1.8")
        self.forget_container()
        self.begin()
        self.go_round(2 * ENOUGH)
        self.assert_kept(OTHER_ENDPOINT)
        self.assertEqual(self.claimed(), ["192.168.1.8"])

    def test_failed_removal_is_retried(self) -> None:
        self.run_container(OTHER_ENDPOINT, "192.168.1.8")
        self.forget_container()
        self.forget_container(OTHER_ENDPOINT)
        self.begin()
        self.plugin.records.steps.refuse["erase"] = 28
        self.assertIn("cannot remove", self.go_round())
        self.assert_kept(ENDPOINT, OTHER_ENDPOINT)
        self.plugin.records.steps.refuse.clear()
        self.go_round()
        self.assert_kept()


class LiveEndpointTests(ReconcilerTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.run_container()

    def assert_still_there(self, seconds: float = 3 * ENOUGH) -> None:
        self.go_round(seconds)
        self.assert_kept(ENDPOINT)
        self.assertEqual(self.claimed(), ["192.168.1.7"])
        self.assertEqual(self.reconciler.counts.get("endpoints removed"), None)

    def test_listed_endpoint_stays(self) -> None:
        self.start_again()
        self.assert_still_there()

    def test_listed_endpoint_without_a_link_stays(self) -> None:
        self.plugin.kernel.destroy_away(LINK)
        self.begin()
        self.assert_still_there()

    def test_unlisted_endpoint_stays_if_the_namespace_dump_fails(self) -> None:
        self.engine.listed.clear()
        for number in (errno.EINTR, errno.EMFILE, errno.ENOBUFS):
            self.plugin.steps.refuse["links_elsewhere"] = number
            self.start_again()
            self.plugin.steps.refuse["links_elsewhere"] = number
            self.assert_still_there()

    def test_running_endpoint_stays_if_no_engine_answers(self) -> None:
        for trouble in (EngineUnavailable("no such file"), EngineError("forbidden by a proxy")):
            self.engine.trouble = trouble
            self.start_again()
            self.assert_still_there()

    def test_endpoint_with_a_changed_link_stays(self) -> None:
        """Root in the container may set it down, rename it, or change its alias and MAC."""
        self.no_engine()
        alias = self.plugin.kernel.away(LINK).alias
        for facts in ({}, {"alias": "mine"}, {"mac": "02:00:00:00:00:99", "alias": alias}):
            self.plugin.kernel.change_away(LINK, up=False, **facts)
            self.start_again()
            self.assert_still_there()

    def test_unlisted_endpoint_with_its_link_in_a_container_stays(self) -> None:
        self.engine.listed.clear()
        self.start_again()
        self.assert_still_there()

    def test_endpoint_whose_mac_is_in_use_stays_without_engine(self) -> None:
        self.no_engine()
        self.plugin.kernel.destroy_away(LINK)  # it is where we cannot see it, but the kernel knows its MAC
        mac = self.plugin.registry.endpoints[ENDPOINT].mac
        self.plugin.kernel.add_macvlan(MacvlanLink("nested", "eth0", "bridge", mac=mac))
        self.plugin.kernel.set_up("nested")
        self.begin()
        self.assert_still_there()

    def test_endpoint_stays_if_neither_kernel_nor_engine_tell(self) -> None:
        self.no_engine()
        self.plugin.kernel.destroy_away(LINK)
        self.begin()
        self.plugin.steps.refuse["links_elsewhere"] = 95
        self.assert_still_there()

    def test_endpoint_of_an_absent_parent_stays_without_engine(self) -> None:
        self.no_engine()
        self.plugin.kernel.destroy_away(LINK)
        self.plugin.kernel.delete("eth0")
        self.begin()
        self.assert_still_there()

    def test_endpoint_of_a_lost_network_stays_with_its_link(self) -> None:
        self.no_engine()
        self.plugin.records.rows[RecordKind.NETWORK].clear()
        self.start_again()
        self.go_round(ENOUGH)
        self.assertEqual(list(self.plugin.registry.endpoints), [ENDPOINT])

    def test_endpoint_of_an_unlisted_network_stays_with_its_link(self) -> None:
        self.engine.has = {OTHER_NETWORK: listed(OTHER_NETWORK, "10.0.0.0/8", driver="bridge")}
        self.start_again()
        self.assert_still_there()

    def test_endpoint_listed_at_the_second_check_stays(self) -> None:
        """As when an engine answers before it has started completely."""
        self.begin()
        self.plugin.kernel.destroy_away(LINK)
        self.pass_time(139)  # the rounds are at 20, 80, 140 ...
        self.engine.listed.clear()
        self.pass_time(2)
        self.engine.listed[ENDPOINT] = "web"
        self.assert_still_there()

    def test_endpoint_stays_if_the_engine_goes_between_checks(self) -> None:
        self.begin()
        self.plugin.kernel.change_away(LINK, alias="", mac="")
        self.engine.listed.clear()
        self.pass_time(21)  # one check was at 20, the next one is at 25
        self.no_engine()
        mac = self.plugin.registry.endpoints[ENDPOINT].mac
        self.plugin.kernel.add_macvlan(MacvlanLink("nested", "eth0", "bridge", mac=mac))
        self.plugin.kernel.set_up("nested")
        self.assert_still_there()


class IdleLinkTests(ReconcilerTestCase):
    """Endpoints whose link is still in the namespace of the host."""

    def setUp(self) -> None:
        super().setUp()
        self.request_address()
        self.plugin.create_endpoint()
        self.no_engine()

    def test_endpoint_with_its_link_up_stays(self) -> None:
        self.plugin.kernel.set_up(LINK)
        self.start_again()
        self.go_round(2 * ENOUGH)
        self.assert_kept(ENDPOINT)

    def test_call_restarts_the_short_grace_period(self) -> None:
        """The engine lists an endpoint from Join on; a moment before it does not."""
        self.engine.trouble = None
        self.begin()
        self.pass_time(19)
        self.plugin.wait(self.plugin.joining.join(requests.Join(NETWORK, ENDPOINT)))
        self.go_round(GRACE_PERIODS.unlisted)
        self.assert_kept(ENDPOINT)

    def test_listed_endpoint_with_an_idle_link_stays(self) -> None:
        self.engine.trouble = None
        self.engine.listed[ENDPOINT] = "web"
        self.begin()
        self.go_round(2 * ENOUGH)
        self.assert_kept(ENDPOINT)
        self.assertEqual(self.plugin.link_names(), {*PLAIN_LINKS, LINK})

    def test_foreign_link_in_its_place_is_not_touched(self) -> None:
        theirs = self.plugin.link(LINK)
        self.plugin.kernel.delete(LINK)
        self.plugin.kernel.put(evolve(theirs, alias="someone's", group=7))
        self.begin()
        self.go_round(2 * ENOUGH)
        self.assertIn(LINK, self.plugin.link_names())

    def test_each_call_restarts_the_grace_period(self) -> None:
        self.begin()
        for call in (
            lambda: self.plugin.wait(self.plugin.joining.join(requests.Join(NETWORK, ENDPOINT))),
            lambda: self.plugin.wait(self.plugin.joining.leave(requests.EndpointCall(NETWORK, ENDPOINT))),
            lambda: self.plugin.wait(
                self.plugin.endpoints.operational_info(requests.EndpointCall(NETWORK, ENDPOINT))
            ),
            self.plugin.create_endpoint,
        ):
            self.go_round(GRACE_PERIODS.idle - 10)
            call()
        self.go_round(GRACE_PERIODS.idle - 1)
        self.assert_kept(ENDPOINT)
        self.go_round(ENOUGH)
        self.assert_kept()

    def test_call_between_two_checks_keeps_the_endpoint(self) -> None:
        self.begin()
        self.pass_time(141)  # one check was at 140, the next one is at 145
        self.plugin.wait(self.plugin.joining.join(requests.Join(NETWORK, ENDPOINT)))
        self.go_round(GRACE_PERIODS.idle - 1)
        self.assert_kept(ENDPOINT)

    def test_call_during_another_removal_keeps_the_endpoint(self) -> None:
        self.request_address("192.168.1.8")
        self.plugin.create_endpoint(OTHER_ENDPOINT, address="192.168.1.8/24")
        self.begin()
        self.plugin.records.steps.hold.add("erase")
        self.go_round(146)  # the first removal waits for the disk
        _, second = sorted(self.plugin.registry.endpoints, key=self.is_retired, reverse=True)
        self.plugin.wait(self.plugin.joining.join(requests.Join(NETWORK, second)))
        self.plugin.records.steps.let_all_go()
        self.assert_kept(second)
        self.go_round(GRACE_PERIODS.idle - 1)
        self.assert_kept(second)

    def is_retired(self, endpoint_id: str) -> bool:
        link = self.plugin.kernel.find(endpoint_link_name(endpoint_id))
        return link is None or self.plugin.links.is_retired(link)

    def test_endpoint_in_slow_creation_stays(self) -> None:
        self.plugin.delete_endpoint()
        self.plugin.steps.hold.add("add_macvlan")
        made = self.plugin.begin_create_endpoint()
        self.begin()
        self.go_round(2 * ENOUGH)
        self.plugin.steps.let_all_go()
        self.successResultOf(made)
        self.assert_kept(ENDPOINT)

    def test_join_that_waits_for_a_removal_is_refused(self) -> None:
        self.begin()
        self.plugin.steps.hold.add("set_group")
        self.go_round(ENOUGH)  # the removal waits for the kernel
        joined = self.plugin.start(self.plugin.joining.join(requests.Join(NETWORK, ENDPOINT)))
        self.plugin.steps.let_all_go()
        self.failureResultOf(joined)  # the engine starts the container again
        self.assert_kept()


class SuccessorTests(ReconcilerTestCase):
    def test_successor_waits_while_the_mac_is_probed(self) -> None:
        """The probe for the MAC is a link with that MAC: the kernel would refuse the one of the container."""
        self.run_container()
        self.forget_container()
        self.no_engine()
        self.begin()
        self.go_round(GRACE_PERIODS.idle - 1)
        self.plugin.steps.hold.add("add_macvlan")
        self.go_round(ROUND)
        self.plugin.steps.hold.clear()
        self.release_address()
        self.request_address()
        creation = self.plugin.begin_create_endpoint(OTHER_ENDPOINT, address="192.168.1.7/24")
        self.assertNoResult(creation)
        self.plugin.steps.let_all_go()
        self.successResultOf(creation)
        self.assert_kept(OTHER_ENDPOINT)


class PassthruTests(ReconcilerTestCase):
    def test_passthru_endpoint_is_removed_only_with_an_engine(self) -> None:
        """Its MAC is that of the parent, or changes it: it proves nothing."""
        other = {"parent": "eth1", "macvlan_mode": "passthru"}
        for options, mac in (({}, None), ({"allow_parent_mac_change": "true"}, "02:00:00:00:00:77")):
            self.plugin.create_network(OTHER_NETWORK, **other, **options)
            self.plugin.create_endpoint(OTHER_ENDPOINT, OTHER_NETWORK, "192.168.1.9/24", mac)
            self.no_engine()
            self.plugin.kernel.delete(endpoint_link_name(OTHER_ENDPOINT))
            self.start_again()
            self.go_round(2 * ENOUGH)
            self.assert_kept(OTHER_ENDPOINT)
            self.engine.trouble = None
            self.engine.has[OTHER_NETWORK] = listed(OTHER_NETWORK)
            self.go_round()
            self.assert_kept()
            self.plugin.delete_network(OTHER_NETWORK)


class ReconcilerTests(ReconcilerTestCase):
    def test_begun_removal_is_finished_at_stop(self) -> None:
        self.run_container()
        self.forget_container()
        self.begin()
        self.plugin.records.steps.hold.add("erase")
        self.go_round()
        closed = self.plugin.start(self.plugin.parts.reconcile_loop.stop())
        self.assertNoResult(closed)
        self.plugin.records.steps.let_all_go()
        self.successResultOf(closed)
        self.assert_kept()

    def test_suspended_time_is_no_silence_of_the_engine(self) -> None:
        """It stands still, too. The rounds go on as soon as the machine resumes."""
        self.run_container()
        self.forget_container()
        self.begin()
        asked = self.engine.asked
        self.plugin.suspend(86400)
        self.assertGreater(self.engine.asked, asked)
        self.go_round(30)
        self.assert_kept(ENDPOINT)
        self.go_round(ENOUGH)
        self.assert_kept()

    def test_idle_service_wakes_once_a_round(self) -> None:
        self.run_container()
        self.begin()
        self.go_round(600)
        self.assertEqual(len(self.plugin.clock.getDelayedCalls()), 1)
        self.assertTrue(10 <= self.engine.asked <= 11, self.engine.asked)


class SingleRoundTests(ReconcilerTestCase):
    config = evolve(LAN, reconcile_interval=0.0)

    def test_interval_zero_means_one_round(self) -> None:
        self.run_container()
        self.forget_container()
        self.start_again()
        self.go_round()
        self.assert_kept()
        self.assertEqual(self.plugin.clock.getDelayedCalls(), [])
