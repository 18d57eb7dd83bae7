"""Overlapping calls: the engine stops containers in parallel, repeats calls, and disconnects in the middle."""

from __future__ import annotations

import errno
from typing import Any

from twisted.internet.defer import Deferred

from macvlan_twisted.driver import requests
from macvlan_twisted.errors import MacvlanError, RequestRefused, StateError
from macvlan_twisted.link_names import endpoint_link_name
from macvlan_twisted.state.interfaces import RecordKind

from .held_steps import Steps, disk_refuses
from .helpers import (
    ENDPOINT,
    NETWORK,
    OTHER_ENDPOINT,
    OTHER_NETWORK,
    PLAIN_LINKS,
    PluginTestCase,
    endpoint_request,
)


class RaceTestCase(PluginTestCase):
    def hold(self, name: str) -> Steps:
        """Hold back the steps called *name*, on the disk or on the kernel."""
        steps = self.plugin.records.steps if name in {"save", "erase"} else self.plugin.steps
        steps.hold.add(name)
        return steps

    def finish(self, *calls: Deferred[Any]) -> list[Any]:
        """Let all steps go, and return the outcome of each call."""
        for _ in range(100):
            for steps in (self.plugin.steps, self.plugin.records.steps):
                if steps.held or steps.hold:
                    steps.let_all_go()
                    break
            else:
                break
        outcomes: list[Any] = []
        for call in calls:
            call.addErrback(lambda failure: failure.value)
            outcomes.append(self.successResultOf(call))
        return outcomes


class EndpointRaceTests(RaceTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.plugin.create_network()

    def test_two_equal_creations_at_once_make_one_link(self) -> None:
        for held in ("save", "add_macvlan"):
            steps = self.hold(held)
            steps.taken.clear()
            calls = [self.plugin.begin_create_endpoint() for _ in range(2)]
            self.assertEqual([each.mac for each in self.finish(*calls)], ["7a:42:c0:a8:01:07"] * 2)
            self.assertEqual(steps.taken.count(held), 1)
            self.plugin.delete_endpoint()

    def test_removal_during_the_creation_wins(self) -> None:
        for held in ("save", "add_macvlan"):
            self.hold(held)
            creation, removal = self.plugin.begin_create_endpoint(), self.plugin.begin_delete_endpoint()
            self.assertNoResult(removal)
            self.finish(creation, removal)
            self.assertEqual(self.plugin.link_names(), PLAIN_LINKS)
            self.assertEqual(self.plugin.records.rows[RecordKind.ENDPOINT], {})

    def test_endpoint_is_made_while_its_network_is_marked_as_listed(self) -> None:
        self.plugin.create_endpoint()
        self.hold("erase")
        creation = self.plugin.begin_create_endpoint(OTHER_ENDPOINT)
        self.assertNoResult(creation)
        self.plugin.wait(self.plugin.networks.is_listed_by(NETWORK, "n1"))
        (created,) = self.finish(creation)
        self.assertEqual(created.mac, "7a:42:c0:a8:01:07", created)

    def test_two_endpoints_at_once_never_get_the_same_mac(self) -> None:
        self.hold("save")
        calls = [
            self.plugin.begin_create_endpoint(each, mac="02:00:00:00:00:77")
            for each in (ENDPOINT, OTHER_ENDPOINT)
        ]
        first, second = self.finish(*calls)
        self.assertEqual(first, requests.CreatedEndpoint(None))
        self.assertIsInstance(second, RequestRefused)

    def test_parallel_removals_of_one_endpoint_succeed(self) -> None:
        self.plugin.create_endpoint()
        self.hold("set_group")
        calls = [self.plugin.begin_delete_endpoint() for _ in range(3)]
        self.assertEqual(self.finish(*calls), [None] * 3)
        self.assertEqual(self.plugin.link_names(), PLAIN_LINKS)

    def test_endpoints_do_not_wait_for_each_other(self) -> None:
        self.hold("add_macvlan")
        slow = self.plugin.begin_create_endpoint()
        self.plugin.steps.hold.clear()
        self.plugin.create_endpoint(OTHER_ENDPOINT, address="192.168.1.8/24")
        self.assertNoResult(slow)
        self.finish(slow)


class NetworkRaceTests(RaceTestCase):
    def test_endpoint_in_creation_is_removed_with_its_network(self) -> None:
        for held in ("save", "add_macvlan"):
            self.plugin.create_network(parent="eth1.20")
            self.hold(held)
            creation = self.plugin.begin_create_endpoint()
            removal = self.plugin.begin_delete_network()
            self.finish(creation, removal)
            self.assert_nothing_left()

    def test_endpoint_of_a_network_in_deletion_leaves_nothing(self) -> None:
        for held in ("set_group", "delete_group", "find", "delete", "erase"):
            self.plugin.create_network(parent="eth1.20")
            self.plugin.create_endpoint()
            self.hold(held)
            removal = self.plugin.begin_delete_network()
            late = self.plugin.begin_create_endpoint(OTHER_ENDPOINT, address="192.168.1.8/24")
            self.finish(removal, late)
            self.assert_nothing_left()

    def test_two_equal_creations_at_once_succeed(self) -> None:
        for held in ("links", "add_vlan", "add_macvlan"):
            self.hold(held)
            calls = [self.plugin.begin_create_network(parent="eth1.20") for _ in range(2)]
            self.assertEqual(self.finish(*calls), [None, None])
            self.assertEqual(self.plugin.link_names(), {*PLAIN_LINKS, "eth1.20"})
            self.plugin.delete_network()

    def test_vlan_survives_if_a_network_follows_the_last_one(self) -> None:
        for held in ("set_group", "delete_group", "find", "links", "delete", "erase"):
            self.plugin.create_network(parent="eth1.20")
            self.plugin.create_endpoint()
            self.hold(held)
            removal = self.plugin.begin_delete_network()
            creation = self.plugin.begin_create_network(OTHER_NETWORK, parent="eth1.20")
            self.assertEqual(self.finish(removal, creation), [None, None], held)
            self.assertEqual(self.plugin.link_names(), {*PLAIN_LINKS, "eth1.20"}, held)
            self.assertEqual(list(self.plugin.records.rows[RecordKind.MADE_LINK]), ["eth1.20"], held)
            self.plugin.delete_network(OTHER_NETWORK)
            self.assert_nothing_left()

    def test_two_networks_at_once_make_one_vlan(self) -> None:
        self.hold("add_vlan")
        calls = [
            self.plugin.begin_create_network(each, parent="eth1.20") for each in (NETWORK, OTHER_NETWORK)
        ]
        self.assertEqual(self.finish(*calls), [None, None])
        self.assertEqual(self.plugin.steps.taken.count("add_vlan"), 1)

    def test_one_of_two_passthru_networks_gets_the_parent(self) -> None:
        self.hold("links")
        calls = [self.plugin.begin_create_network(each, mode="passthru") for each in (NETWORK, OTHER_NETWORK)]
        first, second = self.finish(*calls)
        self.assertIsNone(first)
        self.assertIsInstance(second, MacvlanError)
        self.assertEqual(list(self.plugin.registry.networks), [NETWORK])

    def test_no_link_is_left_when_a_removed_network_is_reported(self) -> None:
        self.plugin.create_network()
        self.plugin.create_endpoint()
        self.hold("delete_group")
        self.plugin.delete_endpoint()
        removal = self.plugin.begin_delete_network()
        self.assertNoResult(removal)
        self.plugin.steps.let_go("delete_group")
        self.successResultOf(removal)
        self.assertNotIn(endpoint_link_name(ENDPOINT), self.plugin.link_names())

    def test_passthru_waits_until_retired_links_are_deleted(self) -> None:
        self.plugin.create_network()
        self.plugin.create_endpoint()
        self.hold("delete_group")
        removal = self.plugin.begin_delete_network()
        creation = self.plugin.begin_create_network(OTHER_NETWORK, mode="passthru")
        self.assertNoResult(creation)
        self.assertIn(endpoint_link_name(ENDPOINT), self.plugin.link_names())
        self.assertEqual(self.finish(removal, creation), [None, None])

    def test_failed_network_creation_removes_its_endpoints(self) -> None:
        self.hold("save")
        creation = self.plugin.begin_create_network()
        self.plugin.records.steps.let_go()
        self.plugin.records.steps.hold.clear()
        (last,) = self.plugin.records.steps.held
        self.plugin.create_endpoint()
        self.plugin.records.steps.held.clear()
        last.fail(disk_refuses("full", 0))
        self.assertIsInstance(self.finish(creation)[0], StateError)
        self.assert_nothing_left()


class HalfDoneTests(RaceTestCase):
    """Faults that the interleavings (:mod:`.interleavings`) have found."""

    def setUp(self) -> None:
        super().setUp()
        self.plugin.create_network()

    def test_no_endpoint_is_made_for_a_network_deleted_meanwhile(self) -> None:
        self.plugin.create_network(OTHER_NETWORK, parent="eth0")
        self.plugin.create_endpoint()
        self.hold("erase")
        late = self.plugin.begin_create_endpoint(OTHER_ENDPOINT)
        removal = self.plugin.begin_delete_network()
        self.finish(late, removal)
        self.plugin.delete_network(OTHER_NETWORK)
        self.assert_nothing_left()

    def test_creation_repeated_after_a_kill_makes_the_link(self) -> None:
        self.hold("add_macvlan")
        self.plugin.begin_create_endpoint()
        self.killed = self.plugin  # if collected, its waiting calls would go on
        self.plugin = self.plugin.next_life()
        self.plugin.create_endpoint()
        self.assertTrue(self.plugin.kernel.exists(endpoint_link_name(ENDPOINT)))

    def test_repeated_creation_keeps_a_running_container(self) -> None:
        self.plugin.create_endpoint()
        self.plugin.kernel.move_away(endpoint_link_name(ENDPOINT), up=True)
        self.plugin.create_endpoint()
        self.assertIn(ENDPOINT, self.plugin.registry.endpoints)
        self.assertFalse(self.plugin.kernel.exists(endpoint_link_name(ENDPOINT)))

    def test_failed_repeated_creation_keeps_the_endpoint(self) -> None:
        self.plugin.create_endpoint()
        self.plugin.kernel.move_away(endpoint_link_name(ENDPOINT), up=True)
        self.plugin.steps.refuse["add_macvlan"] = errno.ENOBUFS
        with self.assert_refused(MacvlanError):
            self.plugin.create_endpoint()
        self.assertIn(ENDPOINT, self.plugin.registry.endpoints)
        self.assertIn(ENDPOINT, self.plugin.records.rows[RecordKind.ENDPOINT])

    def test_creation_repeated_after_a_failed_removal_has_a_link(self) -> None:
        self.plugin.create_endpoint()
        self.hold("_list_members")
        self.plugin.records.failing = True
        removal = self.plugin.begin_delete_endpoint()
        creation = self.plugin.begin_create_endpoint()
        self.plugin.records.failing = False
        refused, _made = self.finish(removal, creation)
        self.assertIsInstance(refused, StateError)
        self.assertIn(ENDPOINT, self.plugin.records.rows[RecordKind.ENDPOINT])
        self.assertTrue(self.plugin.kernel.exists(endpoint_link_name(ENDPOINT)))

    def test_row_of_a_failed_endpoint_goes_with_its_network(self) -> None:
        self.plugin.steps.refuse["add_macvlan"] = errno.ENOBUFS
        self.plugin.records.steps.refuse["erase"] = errno.ENOSPC
        with self.assert_refused(MacvlanError):
            self.plugin.create_endpoint()
        self.assertIn(ENDPOINT, self.plugin.records.rows[RecordKind.ENDPOINT])
        self.plugin.records.steps.refuse.clear()
        self.plugin.delete_network()
        self.assert_nothing_left()


CHOSEN = "02:00:00:00:00:77"


class RepeatedCreationTests(RaceTestCase):
    """A kill between row and link of an endpoint: its creation is repeated, and another one with its MAC comes."""

    first = endpoint_request(ENDPOINT, address="192.168.1.7/24", mac=CHOSEN)
    other = endpoint_request(OTHER_ENDPOINT, address="192.168.1.8/24", mac=CHOSEN)

    def setUp(self) -> None:
        super().setUp()
        self.plugin.create_network()
        self.hold("add_macvlan")
        self.plugin.start(self.plugin.endpoints.create(self.first))
        self.killed = self.plugin  # if collected, its waiting calls would go on
        self.plugin = self.plugin.next_life()

    def create_both(self, *wanted: requests.CreateEndpoint, first_step: str) -> list[Any]:
        """:param first_step: where all of them are held back before any goes on."""
        for steps in (self.plugin.steps, self.plugin.records.steps):
            steps.hold.add(first_step)
        return self.finish(*(self.plugin.start(self.plugin.endpoints.create(each)) for each in wanted))

    def assert_sole(self, endpoint_id: str) -> None:
        self.assertEqual(set(self.plugin.registry.endpoints), {endpoint_id})
        self.assertEqual(set(self.plugin.records.rows[RecordKind.ENDPOINT]), {endpoint_id})
        self.assertEqual(self.plugin.link_names(), {*PLAIN_LINKS, endpoint_link_name(endpoint_id)})

    def test_repeated_creation_wins_over_a_later_one_with_its_mac(self) -> None:
        made, refused = self.create_both(self.first, self.other, first_step="add_macvlan")
        self.assertNotIsInstance(made, Exception)
        self.assertIsInstance(refused, RequestRefused)
        self.assert_sole(ENDPOINT)

    def test_repeated_creation_is_refused_if_its_mac_is_taken(self) -> None:
        made, refused = self.create_both(self.other, self.first, first_step="save")
        self.assertNotIsInstance(made, Exception)
        self.assertIsInstance(refused, RequestRefused)
        self.assert_sole(OTHER_ENDPOINT)
