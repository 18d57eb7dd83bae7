"""Endpoints whose container is gone are removed, and none whose container might be there."""

from __future__ import annotations

import errno

from attrs import evolve

from macvlan_twisted.addresses import parse_address
from macvlan_twisted.driver import requests
from macvlan_twisted.engine.client import EngineError
from macvlan_twisted.ipam.requests import ReleaseAddress
from macvlan_twisted.link_names import endpoint_link_name
from macvlan_twisted.netlink.kernel import MacvlanLink
from macvlan_twisted.state.interfaces import RecordKind

from .helpers import ENDPOINT, NETWORK, OTHER_ENDPOINT, OTHER_NETWORK, PLAIN_LINKS, endpoint_request
from .reconciler_cases import ENOUGH, GRACE_PERIODS, LINK, ROUND, RoundsTestCase, listed


class RemovedTests(RoundsTestCase):
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
        self.assertEqual(self.reconciler.counts, {"endpoints removed": 1, "addresses given back": 1})
        # What the engine may still ask.
        self.plugin.delete_endpoint()
        release = ReleaseAddress(self.pool_id, parse_address("192.168.1.7"))
        self.plugin.wait(self.plugin.addresses.release_address(release))

    def test_one_whose_link_came_back_while_the_engine_knows_it_no_more(self) -> None:
        self.engine.listed.clear()
        self.come_back()
        self.start_again()
        self.assert_gone("its link came back")

    def test_one_whose_link_came_back_also_without_an_engine(self) -> None:
        self.no_engine()
        self.come_back()
        self.start_again()
        self.assert_gone("its link came back")

    def come_back(self) -> None:
        self.plugin.kernel.move_back(self.plugin.kernel.away(LINK))

    def test_one_that_the_engine_does_not_list(self) -> None:
        self.forget_container()
        self.begin()
        self.assert_gone("the engine does not know it any more")

    def test_one_that_the_engine_does_not_list_where_the_kernel_shows_no_other_namespaces(self) -> None:
        self.forget_container()
        self.begin()
        self.plugin.steps.refuse["links_elsewhere"] = 95
        self.assert_gone("the engine does not know it any more")

    def test_one_that_the_kernel_has_nowhere_without_an_engine(self) -> None:
        self.no_engine()
        self.forget_container()
        self.begin()
        self.assert_gone("its link is in no network namespace any more")

    def test_one_that_the_kernel_has_nowhere_where_the_engine_is_another_one(self) -> None:
        self.engine.has = {OTHER_NETWORK: listed(OTHER_NETWORK, "10.0.0.0/8", driver="bridge")}
        self.forget_container()
        self.begin()
        self.assert_gone("its link is in no network namespace any more")

    def test_one_whose_row_has_outlived_its_network(self) -> None:
        self.no_engine()
        self.forget_container()
        self.plugin.records.kept[RecordKind.NETWORK].clear()
        self.start_again()
        self.go_round(ENOUGH)
        self.assertEqual(dict(self.plugin.registry.endpoints), {})
        self.assertEqual(self.plugin.records.kept[RecordKind.ENDPOINT], {})

    def test_none_is_looked_at_before_it_has_its_age(self) -> None:
        self.start_again()
        self.plugin.kernel.destroy_away(LINK)
        self.engine.listed.clear()
        self.go_round(GRACE_PERIODS.silence - 1)
        self.assert_kept(ENDPOINT)
        self.assert_gone("the engine does not know it any more")

    def test_those_that_are_gone_go_and_others_stay(self) -> None:
        self.run_container(OTHER_ENDPOINT, "192.168.1.8")
        self.forget_container()
        self.begin()
        self.go_round(2 * ENOUGH)
        self.assert_kept(OTHER_ENDPOINT)
        self.assertEqual(self.claimed(), ["192.168.1.8"])

    def test_one_that_cannot_be_removed_is_tried_again_and_keeps_no_other(self) -> None:
        self.run_container(OTHER_ENDPOINT, "192.168.1.8")
        self.forget_container()
        self.forget_container(OTHER_ENDPOINT)
        self.begin()
        self.plugin.records.steps.refuse["forget"] = 28
        self.assertIn("cannot be removed", self.go_round())
        self.assert_kept(ENDPOINT, OTHER_ENDPOINT)
        self.plugin.records.steps.refuse.clear()
        self.go_round()
        self.assert_kept()


class KeptTests(RoundsTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.run_container()

    def assert_still_there(self, seconds: float = 3 * ENOUGH) -> None:
        self.go_round(seconds)
        self.assert_kept(ENDPOINT)
        self.assertEqual(self.claimed(), ["192.168.1.7"])
        self.assertEqual(self.reconciler.counts.get("endpoints removed"), None)

    def test_one_that_the_engine_lists(self) -> None:
        self.start_again()
        self.assert_still_there()

    def test_one_that_the_engine_lists_though_its_link_is_nowhere(self) -> None:
        self.plugin.kernel.destroy_away(LINK)
        self.begin()
        self.assert_still_there()

    def test_one_that_the_engine_does_not_list_while_the_kernel_cannot_show_all_other_namespaces(
        self,
    ) -> None:
        self.engine.listed.clear()
        for number in (errno.EINTR, errno.EMFILE, errno.ENOBUFS):
            self.plugin.steps.refuse["links_elsewhere"] = number
            self.start_again()
            self.plugin.steps.refuse["links_elsewhere"] = number
            self.assert_still_there()

    def test_a_running_one_without_an_engine(self) -> None:
        self.no_engine()
        self.start_again()
        self.assert_still_there()

    def test_one_whose_link_its_own_root_has_set_down(self) -> None:
        self.no_engine()
        self.plugin.kernel.change_away(LINK, up=False)
        self.start_again()
        self.assert_still_there()

    def test_one_whose_link_its_own_root_has_renamed_or_given_another_mac(self) -> None:
        self.no_engine()
        for facts in ({"alias": "mine"}, {"mac": "02:00:00:00:00:99", "alias": self.alias()}):
            self.plugin.kernel.change_away(LINK, up=False, **facts)
            self.start_again()
            self.assert_still_there()

    def alias(self) -> str:
        return self.plugin.kernel.away(LINK).alias

    def test_one_whose_link_is_seen_in_a_container_whatever_the_engine_says(self) -> None:
        self.engine.listed.clear()
        self.start_again()
        self.assert_still_there()

    def test_one_whose_link_was_moved_on_from_its_container_without_an_engine(self) -> None:
        self.no_engine()
        self.plugin.kernel.destroy_away(LINK)  # where we cannot see it, but the kernel knows its MAC
        mac = self.plugin.registry.endpoints[ENDPOINT].mac
        self.plugin.kernel.add_macvlan(MacvlanLink("nested", "eth0", "bridge", mac=mac))
        self.plugin.kernel.set_up("nested")
        self.begin()
        self.assert_still_there()

    def test_one_that_the_kernel_cannot_look_for_without_an_engine(self) -> None:
        self.no_engine()
        self.plugin.kernel.destroy_away(LINK)
        self.begin()
        self.plugin.steps.refuse["links_elsewhere"] = 95
        self.assert_still_there()

    def test_one_whose_parent_is_away_without_an_engine(self) -> None:
        self.no_engine()
        self.plugin.kernel.destroy_away(LINK)
        self.plugin.kernel.delete("eth0")
        self.begin()
        self.assert_still_there()

    def test_one_whose_network_is_lost_and_whose_link_is_in_a_container(self) -> None:
        self.no_engine()
        self.plugin.records.kept[RecordKind.NETWORK].clear()
        self.start_again()
        self.go_round(ENOUGH)
        self.assertEqual(list(self.plugin.registry.endpoints), [ENDPOINT])

    def test_one_whose_network_the_engine_does_not_know_and_whose_link_is_in_a_container(self) -> None:
        self.engine.has = {OTHER_NETWORK: listed(OTHER_NETWORK, "10.0.0.0/8", driver="bridge")}
        self.start_again()
        self.assert_still_there()

    def test_one_of_which_the_engine_says_nothing(self) -> None:
        self.engine.trouble = EngineError("forbidden by a proxy")
        self.start_again()
        self.assert_still_there()

    def test_one_that_is_listed_only_at_the_second_look(self) -> None:
        """As when an engine that is starting answers too early."""
        self.begin()
        self.plugin.kernel.destroy_away(LINK)
        self.pass_time(139)  # the rounds are at 20, 80, 140 ...
        self.engine.listed.clear()
        self.pass_time(2)
        self.engine.listed[ENDPOINT] = "web"
        self.assert_still_there()

    def test_one_whose_engine_goes_away_between_two_looks(self) -> None:
        self.begin()
        self.plugin.kernel.change_away(LINK, alias="", mac="")
        self.engine.listed.clear()
        self.pass_time(141)
        self.no_engine()
        mac = self.plugin.registry.endpoints[ENDPOINT].mac
        self.plugin.kernel.add_macvlan(MacvlanLink("nested", "eth0", "bridge", mac=mac))
        self.plugin.kernel.set_up("nested")
        self.assert_still_there()


class LyingAboutTests(RoundsTestCase):
    """Links in the host's namespace."""

    def setUp(self) -> None:
        super().setUp()
        self.request_address()
        self.plugin.create_endpoint()
        self.no_engine()

    def test_one_that_is_up_is_kept(self) -> None:
        self.plugin.kernel.set_up(LINK)
        self.start_again()
        self.go_round(2 * ENOUGH)
        self.assert_kept(ENDPOINT)

    def test_one_whose_container_is_slow_to_take_it_is_kept_while_the_engine_lists_it(self) -> None:
        self.engine.trouble = None
        self.engine.listed[ENDPOINT] = "web"
        self.begin()
        self.go_round(2 * ENOUGH)
        self.assert_kept(ENDPOINT)

    def test_one_that_somebody_else_has_put_in_its_place_is_not_touched(self) -> None:
        theirs = self.plugin.kernel.find(LINK)
        assert theirs is not None
        self.plugin.kernel.delete(LINK)
        self.plugin.kernel.put(evolve(theirs, alias="someone's", group=7))
        self.begin()
        self.go_round(2 * ENOUGH)
        self.assertIn(LINK, self.plugin.link_names())

    def test_each_call_about_it_gives_it_time(self) -> None:
        self.begin()
        for call in (
            lambda: self.plugin.wait(self.plugin.endpoints.join(requests.Join(NETWORK, ENDPOINT))),
            lambda: self.plugin.wait(self.plugin.endpoints.leave(requests.EndpointCall(NETWORK, ENDPOINT))),
            lambda: self.plugin.wait(
                self.plugin.endpoints.operational_info(requests.EndpointCall(NETWORK, ENDPOINT))
            ),
            lambda: self.plugin.wait(self.plugin.endpoints.create(endpoint_request())),
        ):
            self.go_round(GRACE_PERIODS.silence - 10)
            call()
        self.go_round(GRACE_PERIODS.silence - 1)
        self.assert_kept(ENDPOINT)
        self.go_round(ENOUGH)
        self.assert_kept()

    def test_one_that_is_spoken_of_between_two_looks_is_kept(self) -> None:
        self.begin()
        self.pass_time(141)  # a look was at 140, the next one is at 145
        self.plugin.wait(self.plugin.endpoints.join(requests.Join(NETWORK, ENDPOINT)))
        self.go_round(GRACE_PERIODS.silence - 1)
        self.assert_kept(ENDPOINT)

    def test_one_that_is_spoken_of_while_another_one_is_being_removed_is_kept(self) -> None:
        self.request_address("192.168.1.8")
        self.plugin.create_endpoint(OTHER_ENDPOINT, address="192.168.1.8/24")
        self.begin()
        self.plugin.records.steps.hold.add("forget")
        self.go_round(146)  # the removal of the first one has begun, and waits for the disk
        _, second = sorted(self.plugin.registry.endpoints, key=self.is_retired, reverse=True)
        self.plugin.wait(self.plugin.endpoints.join(requests.Join(NETWORK, second)))
        self.plugin.records.steps.let_all_go()
        self.assert_kept(second)
        self.go_round(GRACE_PERIODS.silence - 1)
        self.assert_kept(second)

    def is_retired(self, endpoint_id: str) -> bool:
        link = self.plugin.kernel.find(endpoint_link_name(endpoint_id))
        return link is None or self.plugin.links.is_retired(link)

    def test_one_that_is_being_made_for_minutes_is_kept(self) -> None:
        self.plugin.delete_endpoint()
        self.plugin.steps.hold.add("add_macvlan")
        made = self.plugin.start(self.plugin.endpoints.create(endpoint_request()))
        self.begin()
        self.go_round(2 * ENOUGH)
        self.plugin.steps.let_all_go()
        self.successResultOf(made)
        self.assert_kept(ENDPOINT)

    def test_a_call_that_waits_for_its_turn_is_heard(self) -> None:
        self.begin()
        self.plugin.steps.hold.add("set_group")
        self.go_round(ENOUGH)  # the removal has begun, and waits for the kernel
        joined = self.plugin.start(self.plugin.endpoints.join(requests.Join(NETWORK, ENDPOINT)))
        self.plugin.steps.let_all_go()
        self.failureResultOf(joined)  # the engine starts the container again
        self.assert_kept()


class SuccessorTests(RoundsTestCase):
    def test_one_with_its_address_is_not_started_while_its_mac_is_asked_for(self) -> None:
        """For a moment the kernel would refuse the container's link: it has that MAC, too."""
        self.run_container()
        self.forget_container()
        self.no_engine()
        self.begin()
        self.go_round(GRACE_PERIODS.silence - 1)
        self.plugin.steps.hold.add("add_macvlan")
        self.go_round(ROUND)
        self.plugin.steps.hold.clear()
        creation = self.plugin.start(
            self.plugin.endpoints.create(endpoint_request(OTHER_ENDPOINT, address="192.168.1.7/24"))
        )
        self.assertNoResult(creation)
        self.plugin.steps.let_all_go()
        self.successResultOf(creation)
        self.assert_kept(OTHER_ENDPOINT)


class PassthruTests(RoundsTestCase):
    def test_one_in_passthru_is_kept_without_an_engine_and_removed_with_one(self) -> None:
        self.plugin.create_network(OTHER_NETWORK, parent="eth1", macvlan_mode="passthru")
        self.plugin.wait(
            self.plugin.endpoints.create(endpoint_request(OTHER_ENDPOINT, OTHER_NETWORK, "192.168.1.9/24"))
        )
        self.no_engine()
        self.plugin.kernel.delete(endpoint_link_name(OTHER_ENDPOINT))
        self.begin()
        self.go_round(2 * ENOUGH)
        self.assert_kept(OTHER_ENDPOINT)
        self.engine.trouble = None
        self.engine.has[OTHER_NETWORK] = listed(OTHER_NETWORK)
        self.go_round()
        self.assert_kept()

    def test_one_in_passthru_with_a_mac_of_its_own_is_kept_without_an_engine(self) -> None:
        self.plugin.create_network(OTHER_NETWORK, parent="eth1", macvlan_mode="passthru", force_mac="true")
        self.plugin.wait(
            self.plugin.endpoints.create(
                endpoint_request(OTHER_ENDPOINT, OTHER_NETWORK, "192.168.1.9/24", "02:00:00:00:00:77")
            )
        )
        self.no_engine()
        self.plugin.kernel.delete(endpoint_link_name(OTHER_ENDPOINT))
        self.begin()
        self.go_round(2 * ENOUGH)
        self.assert_kept(OTHER_ENDPOINT)


class EndTests(RoundsTestCase):
    def test_a_removal_that_has_begun_is_finished_before_the_service_ends(self) -> None:
        self.run_container()
        self.forget_container()
        self.begin()
        self.plugin.records.steps.hold.add("forget")
        self.go_round()
        self.stopping = True
        self.work.addErrback(lambda _: None)
        self.work.cancel()
        closed = self.plugin.start(self.reconciler.close())
        self.assertNoResult(closed)
        self.plugin.records.steps.let_all_go()
        self.successResultOf(closed)
        self.assert_kept()

    def test_a_clock_that_was_set_makes_a_second_look_no_sooner(self) -> None:
        self.run_container()
        self.forget_container()
        reconciler = self.begin()
        waits: list[float] = []

        async def come_early(seconds: float) -> None:
            """As the reactor's timers do when the wall clock is put forward."""
            waits.append(seconds)
            self.plugin.clock.advance(min(seconds, 2))

        self.work.addErrback(lambda _: None)
        self.work.cancel()
        self.plugin.clock.advance(GRACE_PERIODS.silence)
        reconciler._wait = come_early
        self.plugin.wait(reconciler.round(lambda: False))
        self.assertEqual(waits, [5, 3, 1])

    def test_an_idle_service_is_woken_and_asks_the_engine_once_a_round(self) -> None:
        self.run_container()
        self.begin()
        self.go_round(600)
        self.assertEqual(len(self.plugin.clock.getDelayedCalls()), 1)
        self.assertTrue(10 <= self.engine.asked <= 11, self.engine.asked)


class OnceTests(RoundsTestCase):
    every = 0.0

    def test_there_is_one_round_after_the_start_and_no_timer_after_it(self) -> None:
        self.run_container()
        self.forget_container()
        self.start_again()
        self.go_round()
        self.assert_kept()
        self.successResultOf(self.work)
        self.assertEqual(self.plugin.clock.getDelayedCalls(), [])
