"""Calls that overlap: the engine stops containers in parallel, repeats calls, and gives up in the middle."""

from __future__ import annotations

import errno
from typing import Any

from twisted.internet.defer import Deferred

from macvlan_twisted.driver import requests
from macvlan_twisted.errors import MacvlanError, Refused, StateFailed
from macvlan_twisted.names import endpoint_link_name
from macvlan_twisted.state.interface import Kind
from macvlan_twisted.turns import Turns

from .helpers import (
    ENDPOINT,
    NETWORK,
    OTHER_ENDPOINT,
    OTHER_NETWORK,
    PLAIN_LINKS,
    HouseTestCase,
    disk_refuses,
    endpoint_request,
    network_request,
)

CALL = requests.EndpointCall(NETWORK, ENDPOINT)


class RaceTestCase(HouseTestCase):
    def finish(self, *calls: Deferred[Any]) -> list[Any]:
        """Let everything go; what each call came to."""
        for _ in range(100):
            steps = next(
                (each for each in (self.house.steps, self.house.records.steps) if each.held or each.hold),
                None,
            )
            if steps is None:
                break
            steps.let_all_go()
        outcomes: list[Any] = []
        for call in calls:
            call.addErrback(lambda failure: failure.value)
            outcomes.append(self.successResultOf(call))
        return outcomes


class EndpointRaceTests(RaceTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.house.create_network()

    def test_the_same_creation_twice_at_once_makes_one_link(self) -> None:
        for held in ("save", "add_port"):
            steps = self.house.records.steps if held == "save" else self.house.steps
            steps.taken.clear()
            steps.hold.add(held)
            calls = [self.house.start(self.house.endpoints.create(endpoint_request())) for _ in range(2)]
            self.assertEqual([each.mac for each in self.finish(*calls)], ["7a:42:c0:a8:01:07"] * 2)
            self.assertEqual(steps.taken.count(held), 1)
            self.house.delete_endpoint()

    def test_a_removal_during_the_creation_wins(self) -> None:
        for held in ("save", "add_port"):
            (self.house.records.steps if held == "save" else self.house.steps).hold.add(held)
            creation = self.house.start(self.house.endpoints.create(endpoint_request()))
            removal = self.house.start(self.house.removal.delete(CALL))
            self.assertNoResult(removal)
            self.finish(creation, removal)
            self.assertEqual(self.house.link_names(), PLAIN_LINKS)
            self.assertEqual(self.house.records.kept[Kind.ENDPOINT], {})

    def test_a_container_does_not_start_because_an_engine_was_seen_to_list_its_network(self) -> None:
        self.house.create_endpoint()
        self.house.records.steps.hold.add("forget")
        creation = self.house.start(self.house.endpoints.create(endpoint_request(OTHER_ENDPOINT)))
        self.assertNoResult(creation)
        self.house.wait(self.house.networks.is_listed_by(NETWORK, "n1"))
        (created,) = self.finish(creation)
        self.assertEqual(created.mac, "7a:42:c0:a8:01:07", created)

    def test_two_endpoints_at_once_never_get_one_mac(self) -> None:
        self.house.records.steps.hold.add("save")
        calls = [
            self.house.start(self.house.endpoints.create(endpoint_request(each, mac="02:00:00:00:00:77")))
            for each in (ENDPOINT, OTHER_ENDPOINT)
        ]
        first, second = self.finish(*calls)
        self.assertEqual(first, requests.CreatedEndpoint(None))
        self.assertIsInstance(second, Refused)

    def test_parallel_removals_of_one_endpoint_all_succeed(self) -> None:
        self.house.create_endpoint()
        self.house.steps.hold.add("set_group")
        calls = [self.house.start(self.house.removal.delete(CALL)) for _ in range(3)]
        self.assertEqual(self.finish(*calls), [None] * 3)
        self.assertEqual(self.house.link_names(), PLAIN_LINKS)

    def test_endpoints_do_not_wait_for_each_other(self) -> None:
        self.house.steps.hold.add("add_port")
        slow = self.house.start(self.house.endpoints.create(endpoint_request()))
        self.house.steps.hold.clear()
        self.house.create_endpoint(OTHER_ENDPOINT, address="192.168.1.8/24")
        self.assertNoResult(slow)
        self.finish(slow)


class NetworkRaceTests(RaceTestCase):
    def test_an_endpoint_that_is_being_made_goes_with_its_network(self) -> None:
        for held in ("save", "add_port"):
            self.house.create_network(parent="eth1.20")
            (self.house.records.steps if held == "save" else self.house.steps).hold.add(held)
            creation = self.house.start(self.house.endpoints.create(endpoint_request()))
            removal = self.house.start(self.house.networks.delete(NETWORK))
            self.finish(creation, removal)
            self.assert_nothing_left()

    def test_an_endpoint_that_comes_while_its_network_goes_leaves_nothing(self) -> None:
        for held in ("set_group", "delete_group", "find", "delete", "forget"):
            self.house.create_network(parent="eth1.20")
            self.house.create_endpoint()
            (self.house.records.steps if held == "forget" else self.house.steps).hold.add(held)
            removal = self.house.start(self.house.networks.delete(NETWORK))
            late = self.house.start(
                self.house.endpoints.create(endpoint_request(OTHER_ENDPOINT, address="192.168.1.8/24"))
            )
            self.finish(removal, late)
            self.assert_nothing_left()

    def test_the_same_creation_twice_at_once(self) -> None:
        for held in ("links", "add_vlan", "add_port"):
            self.house.steps.hold.add(held)
            request = network_request(parent="eth1.20")
            calls = [self.house.start(self.house.networks.create(request)) for _ in range(2)]
            self.assertEqual(self.finish(*calls), [None, None])
            self.assertEqual(self.house.link_names(), {*PLAIN_LINKS, "eth1.20"})
            self.house.wait(self.house.networks.delete(NETWORK))

    def test_a_vlan_is_there_for_the_network_that_comes_while_the_last_one_goes(self) -> None:
        for held in ("set_group", "delete_group", "find", "links", "delete", "forget"):
            self.house.create_network(parent="eth1.20")
            self.house.create_endpoint()
            (self.house.records.steps if held == "forget" else self.house.steps).hold.add(held)
            removal = self.house.start(self.house.networks.delete(NETWORK))
            creation = self.house.start(
                self.house.networks.create(network_request(OTHER_NETWORK, parent="eth1.20"))
            )
            self.assertEqual(self.finish(removal, creation), [None, None], held)
            self.assertEqual(self.house.link_names(), {*PLAIN_LINKS, "eth1.20"}, held)
            self.assertEqual(list(self.house.records.kept[Kind.MADE_LINK]), ["eth1.20"], held)
            self.house.wait(self.house.networks.delete(OTHER_NETWORK))
            self.assert_nothing_left()

    def test_two_networks_make_their_vlan_once(self) -> None:
        self.house.steps.hold.add("add_vlan")
        calls = [
            self.house.start(self.house.networks.create(network_request(each, parent="eth1.20")))
            for each in (NETWORK, OTHER_NETWORK)
        ]
        self.assertEqual(self.finish(*calls), [None, None])
        self.assertEqual(self.house.steps.taken.count("add_vlan"), 1)

    def test_of_two_passthru_networks_at_once_one_gets_the_parent(self) -> None:
        self.house.steps.hold.add("links")
        calls = [
            self.house.start(self.house.networks.create(network_request(each, mode="passthru")))
            for each in (NETWORK, OTHER_NETWORK)
        ]
        first, second = self.finish(*calls)
        self.assertIsNone(first)
        self.assertIsInstance(second, MacvlanError)
        self.assertEqual(list(self.house.known.networks), [NETWORK])

    def test_passthru_waits_until_condemned_links_have_left_the_parent(self) -> None:
        self.house.create_network()
        self.house.create_endpoint()
        self.house.steps.hold.add("delete_group")
        self.house.wait(self.house.networks.delete(NETWORK))
        creation = self.house.start(
            self.house.networks.create(network_request(OTHER_NETWORK, mode="passthru"))
        )
        self.assertNoResult(creation)
        self.assertIn(endpoint_link_name(ENDPOINT), self.house.link_names())
        self.assertEqual(self.finish(creation), [None])


class TurnsTests(HouseTestCase):
    async def take(self, turns: Turns, key: str, said: list[str], name: str, until: Deferred[None]) -> None:
        async with turns.of(key):
            said.append(f"{name} in")
            await until
            said.append(f"{name} out")

    def test_one_at_a_time_for_one_key_and_freely_for_others(self) -> None:
        turns, said = Turns(), list[str]()
        gates: list[Deferred[None]] = [Deferred() for _ in range(3)]
        for key, name, gate in zip("kkx", "abc", gates, strict=True):
            self.house.start(self.take(turns, key, said, name, gate))
        self.assertEqual(said, ["a in", "c in"])
        gates[0].callback(None)
        self.assertEqual(said, ["a in", "c in", "a out", "b in"])

    def test_a_failure_gives_the_turn_to_the_next_and_nothing_is_remembered(self) -> None:
        turns, said = Turns(), list[str]()
        gates: list[Deferred[None]] = [Deferred() for _ in range(2)]
        calls = [
            self.house.start(self.take(turns, "k", said, name, gate))
            for name, gate in zip("ab", gates, strict=True)
        ]
        gates[0].errback(ValueError("a test's own"))
        self.failureResultOf(calls[0], ValueError)
        self.assertEqual(said, ["a in", "b in"])
        gates[1].callback(None)
        self.assertEqual(vars(turns), {"_locks": {}})


class HalfWayTests(RaceTestCase):
    """What the interleavings found (:mod:`.interleaved`)."""

    def test_an_endpoint_of_a_network_whose_creation_fails_outlives_it(self) -> None:
        self.house.records.steps.hold.add("save")
        creation = self.house.start(self.house.networks.create(network_request()))
        self.house.records.steps.let_go()
        self.house.records.steps.hold.clear()
        (last,) = self.house.records.steps.held
        self.house.create_endpoint()
        self.house.records.steps.held.clear()
        last.fail(disk_refuses("full", 0))
        self.assertIsInstance(self.finish(creation)[0], StateFailed)
        self.assert_nothing_left()

    def test_an_endpoint_is_made_for_a_network_that_went_while_its_forgotten_holder_was_dropped(self) -> None:
        self.house.create_network()
        self.house.create_network(OTHER_NETWORK, parent="eth0")
        self.house.create_endpoint()
        self.house.records.steps.hold.add("forget")
        late = self.house.start(self.house.endpoints.create(endpoint_request(OTHER_ENDPOINT)))
        removal = self.house.start(self.house.networks.delete(NETWORK))
        self.finish(late, removal)
        self.house.wait(self.house.networks.delete(OTHER_NETWORK))
        self.assert_nothing_left()

    def test_a_creation_that_is_repeated_after_a_kill_is_acknowledged_without_a_link(self) -> None:
        self.house.create_network()
        self.house.steps.hold.add("add_port")
        self.house.start(self.house.endpoints.create(endpoint_request()))
        self.killed = self.house  # if it were collected, what hangs in it would go on
        self.house = self.house.next_life()
        self.house.create_endpoint()
        self.assertTrue(self.house.kernel.exists(endpoint_link_name(ENDPOINT)))

    def test_a_creation_that_is_repeated_removes_the_endpoint_of_a_living_container(self) -> None:
        self.house.create_network()
        self.house.create_endpoint()
        self.house.kernel.move_away(endpoint_link_name(ENDPOINT), up=True)
        self.house.create_endpoint()
        self.assertIn(ENDPOINT, self.house.known.endpoints)
        self.assertFalse(self.house.kernel.exists(endpoint_link_name(ENDPOINT)))

    def test_a_repeated_creation_that_the_kernel_refuses_forgets_what_may_be_alive(self) -> None:
        self.house.create_network()
        self.house.create_endpoint()
        self.house.kernel.move_away(endpoint_link_name(ENDPOINT), up=True)
        self.house.steps.refuse["add_port"] = errno.ENOBUFS
        with self.assert_refused(MacvlanError):
            self.house.create_endpoint()
        self.assertIn(ENDPOINT, self.house.known.endpoints)
        self.assertIn(ENDPOINT, self.house.records.kept[Kind.ENDPOINT])

    def test_a_creation_that_is_repeated_after_a_refused_removal_has_a_link_that_is_about_to_go(self) -> None:
        self.house.create_network()
        self.house.create_endpoint()
        self.house.steps.hold.add("members_of_group")
        self.house.records.failing = True
        removal = self.house.start(self.house.removal.delete(CALL))
        creation = self.house.start(self.house.endpoints.create(endpoint_request()))
        self.house.records.failing = False
        refused, _made = self.finish(removal, creation)
        self.assertIsInstance(refused, StateFailed)
        self.assertIn(ENDPOINT, self.house.records.kept[Kind.ENDPOINT])
        self.assertTrue(self.house.kernel.exists(endpoint_link_name(ENDPOINT)))

    def test_a_row_that_the_disk_kept_of_an_endpoint_that_was_not_made_outlives_its_network(self) -> None:
        self.house.create_network()
        self.house.steps.refuse["add_port"] = errno.ENOBUFS
        self.house.records.steps.refuse["forget"] = errno.ENOSPC
        with self.assert_refused(MacvlanError):
            self.house.create_endpoint()
        self.assertIn(ENDPOINT, self.house.records.kept[Kind.ENDPOINT])
        self.house.records.steps.refuse.clear()
        self.house.wait(self.house.networks.delete(NETWORK))
        self.assert_nothing_left()


CHOSEN = "02:00:00:00:00:77"


class RepeatedCreationTests(RaceTestCase):
    """A kill came between an endpoint's row and its link; its creation comes again, and others with its MAC come."""

    first = endpoint_request(ENDPOINT, address="192.168.1.7/24", mac=CHOSEN)
    other = endpoint_request(OTHER_ENDPOINT, address="192.168.1.8/24", mac=CHOSEN)

    def setUp(self) -> None:
        super().setUp()
        self.house.create_network()
        self.house.steps.hold.add("add_port")
        self.house.start(self.house.endpoints.create(self.first))
        self.killed = self.house  # if it were collected, what hangs in it would go on
        self.house = self.house.next_life()

    def create_both(self, *wanted: requests.CreateEndpoint, first_step: str) -> list[Any]:
        """:param first_step: where all of them are held back before any goes on."""
        for steps in (self.house.steps, self.house.records.steps):
            steps.hold.add(first_step)
        return self.finish(*(self.house.start(self.house.endpoints.create(each)) for each in wanted))

    def assert_sole(self, endpoint_id: str) -> None:
        self.assertEqual(set(self.house.known.endpoints), {endpoint_id})
        self.assertEqual(set(self.house.records.kept[Kind.ENDPOINT]), {endpoint_id})
        self.assertEqual(self.house.link_names(), {*PLAIN_LINKS, endpoint_link_name(endpoint_id)})

    def test_an_endpoint_that_is_made_again_is_dropped_by_one_that_takes_it_for_dead(self) -> None:
        made, refused = self.create_both(self.first, self.other, first_step="add_port")
        self.assertNotIsInstance(made, Exception)
        self.assertIsInstance(refused, Refused)
        self.assert_sole(ENDPOINT)

    def test_an_endpoint_is_made_again_while_another_one_takes_its_mac(self) -> None:
        made, refused = self.create_both(self.other, self.first, first_step="save")
        self.assertNotIsInstance(made, Exception)
        self.assertIsInstance(refused, Refused)
        self.assert_sole(OTHER_ENDPOINT)
