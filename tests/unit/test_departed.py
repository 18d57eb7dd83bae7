"""After a start: endpoints that went away unseen are let go of, and nothing that may be in use is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from attrs import define, evolve, field
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater

from macvlan_twisted.driver import requests
from macvlan_twisted.driver.departed import NEVER_CAME, SETTLING, Departed
from macvlan_twisted.engine.api import EngineAbsent, EngineRefused
from macvlan_twisted.ipam.requests import Purpose, RequestAddress, RequestPool
from macvlan_twisted.links.interface import LinkFacts
from macvlan_twisted.names import endpoint_link_name
from macvlan_twisted.state.interface import Kind

from .dhcp_lan import MAC, RELEASE, REQUEST
from .helpers import ENDPOINT, NETWORK, OTHER_ENDPOINT, House, endpoint_request, subnet
from .test_leases import LeasesTestCase

LINK = endpoint_link_name(ENDPOINT)


@define
class Engine:
    """Lists what the test says."""

    listed: dict[str, str] = field(factory=dict)
    trouble: Exception | None = None
    asked: int = 0

    async def endpoints_of(self, network_id: str) -> Mapping[str, str]:
        self.asked += 1
        if self.trouble is not None:
            raise self.trouble
        return dict(self.listed)


class DepartedTestCase(LeasesTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.engine = Engine()
        self.stopping = False

    def start_again(self) -> House:
        """A kill, and a start whose background work is under way."""
        house = self.next_life()
        departed = Departed(
            house.known,
            house.links,
            house.presence,
            house.endpoints,
            house.addresses,
            house.leases,
            self.engine,
            lambda seconds: deferLater(cast(Any, house.clock), seconds),
            lambda: self.stopping,
        )
        self.resume(house)
        self.work: list[Deferred[None]] = [
            house.start(departed.release_endpoints()),
            house.start(departed.release_addresses()),
        ]
        return house

    def pass_time(self, house: House, seconds: float) -> None:
        for _ in range(int(seconds)):
            house.clock.advance(1)


class EndpointTests(DepartedTestCase):
    """Without address management."""

    def setUp(self) -> None:
        super().setUp()
        nobodys = evolve(subnet("0.0.0.0/0"), is_nobodys=True)
        self.house.create_network(subnets=(nobodys,), parent="eth0", dhcp="true")
        self.house.wait(self.house.endpoints.create(endpoint_request(ENDPOINT, NETWORK, None, MAC)))
        self.in_container: LinkFacts | None = None

    def run_container(self) -> None:
        self.in_container = self.house.kernel.move_away(LINK, up=True)

    def remove_container_unheard(self) -> None:
        assert self.in_container is not None
        self.house.kernel.move_back(self.in_container)

    def assert_kept(self, house: House) -> None:
        self.assertEqual(list(house.known.endpoints), [ENDPOINT])
        self.assertEqual(set(self.kinds), {REQUEST})
        self.assertEqual(len(self.rows()), 1)

    def assert_gone(self, house: House) -> None:
        self.assertEqual(dict(house.known.endpoints), {})
        self.assertEqual(self.kinds[-1], RELEASE)
        self.assertEqual(self.rows(), [])
        self.assertNotIn(Kind.ENDPOINT, house.records.all_rows())
        for each in self.work:
            self.successResultOf(each)
        self.assertEqual(house.clock.getDelayedCalls(), [])

    def test_a_link_that_came_back_and_stays_is_let_go_with_its_lease_also_without_an_engine(self) -> None:
        self.engine.trouble = EngineAbsent("no such file")
        self.run_container()
        self.remove_container_unheard()
        house = self.start_again()
        self.pass_time(house, SETTLING - 1)
        self.assert_kept(house)
        self.pass_time(house, 2)
        self.assert_gone(house)
        self.assertNotIn(LINK, house.link_names())

    def test_a_link_that_the_engine_had_not_yet_moved_at_the_start_is_kept(self) -> None:
        self.engine.listed = {ENDPOINT: "web"}
        house = self.start_again()
        house.wait(house.endpoints.join(requests.Join(NETWORK, ENDPOINT)))
        self.pass_time(house, 60)
        self.assert_kept(house)

    def test_an_endpoint_that_the_engine_lists_is_kept(self) -> None:
        self.engine.listed = {ENDPOINT: "web"}
        self.run_container()
        house = self.start_again()
        self.pass_time(house, 600)
        self.assert_kept(house)
        self.assertEqual(self.engine.asked, 1)

    def test_an_endpoint_that_the_engine_does_not_list_twice_is_let_go(self) -> None:
        self.run_container()
        house = self.start_again()
        self.pass_time(house, SETTLING + 1)
        self.assert_kept(house)
        self.pass_time(house, 6)
        self.assert_gone(house)
        self.assertEqual(self.engine.asked, 2)

    def test_an_endpoint_that_the_engine_lists_only_the_second_time_is_kept(self) -> None:
        self.run_container()
        house = self.start_again()
        self.pass_time(house, SETTLING + 1)
        self.engine.listed = {ENDPOINT: "web"}
        self.pass_time(house, 600)
        self.assert_kept(house)

    def test_while_no_engine_answers_all_is_kept_and_it_is_asked_ever_more_rarely(self) -> None:
        self.engine.trouble = EngineAbsent("refused")
        self.run_container()
        house = self.start_again()
        self.pass_time(house, 6000)
        self.assert_kept(house)
        self.assertTrue(10 < self.engine.asked < 30, self.engine.asked)
        self.engine.trouble = None
        self.pass_time(house, 600)
        self.assert_gone(house)

    def test_an_engine_that_does_not_know_the_network_says_nothing_of_its_endpoints(self) -> None:
        self.engine.trouble = EngineRefused("network not found")
        self.run_container()
        house = self.start_again()
        self.pass_time(house, 600)
        self.assert_kept(house)

    def test_what_comes_after_the_start_is_not_looked_at(self) -> None:
        self.run_container()
        house = self.start_again()
        house.wait(
            house.endpoints.create(endpoint_request(OTHER_ENDPOINT, NETWORK, None, "7a:42:00:00:00:02"))
        )
        self.pass_time(house, 600)
        self.assertEqual(list(house.known.endpoints), [OTHER_ENDPOINT])

    def test_who_leases_nothing_asks_no_engine_and_sets_no_timer(self) -> None:
        self.house.delete_endpoint()
        house = self.start_again()
        self.assertEqual(house.clock.getDelayedCalls(), [])
        for each in self.work:
            self.successResultOf(each)

    def test_the_end_of_the_service_ends_the_questions(self) -> None:
        self.engine.trouble = EngineAbsent("refused")
        self.run_container()
        house = self.start_again()
        self.pass_time(house, SETTLING + 1)
        self.stopping = True
        self.pass_time(house, 300)
        self.successResultOf(self.work[0])
        self.assert_kept(house)


class AddressTests(DepartedTestCase):
    """With our address management."""

    def setUp(self) -> None:
        super().setUp()
        options = {"dhcp": "true", "parent": "eth0", "conflict_detection": "off"}
        self.pool = self.house.wait(
            self.house.addresses.request_pool(RequestPool("local", None, None, options, False))
        )
        address = self.house.wait(
            self.house.addresses.request_address(RequestAddress(self.pool.pool_id, None, Purpose.ENDPOINT))
        )
        self.address = address

    def create_endpoint(self) -> None:
        ours = evolve(subnet("0.0.0.0/0"), is_ours=True)
        self.house.create_network(subnets=(ours,), parent="eth0")
        self.house.wait(
            self.house.endpoints.create(endpoint_request(ENDPOINT, NETWORK, str(self.address), None))
        )

    def test_the_address_goes_with_its_endpoint(self) -> None:
        self.create_endpoint()
        house = self.start_again()
        self.pass_time(house, SETTLING + 1)
        self.assertEqual(self.kinds, [REQUEST, RELEASE])
        self.assertFalse(house.addresses.is_endpoints("eth0", self.address.ip))
        self.assertEqual(self.rows(), [])

    def test_an_address_for_which_no_endpoint_came_is_given_back_after_a_while(self) -> None:
        house = self.start_again()
        self.pass_time(house, NEVER_CAME - 1)
        self.assertEqual(self.kinds, [REQUEST])
        self.assertTrue(house.addresses.is_endpoints("eth0", self.address.ip))
        self.pass_time(house, 2)
        self.assertEqual(self.kinds, [REQUEST, RELEASE])
        self.assertFalse(house.addresses.is_endpoints("eth0", self.address.ip))

    def test_an_address_whose_lease_was_given_back_before_a_kill_is_freed(self) -> None:
        self.give_back_all(self.house)
        house = self.start_again()
        self.pass_time(house, NEVER_CAME + 1)
        self.assertFalse(house.addresses.is_endpoints("eth0", self.address.ip))

    def test_an_address_that_was_handed_out_anew_meanwhile_stays(self) -> None:
        house = self.start_again()
        self.pass_time(house, 5)
        self.give_back_all(house)
        again = RequestAddress(self.pool.pool_id, None, Purpose.ENDPOINT, "web")
        house.wait(house.addresses.request_address(again))
        self.pass_time(house, NEVER_CAME)
        self.assertTrue(house.addresses.is_endpoints("eth0", self.address.ip))
        self.assertEqual(len(self.rows()), 1)

    def give_back_all(self, house: House) -> None:
        for each in house.leases.known():
            house.wait(house.leases.give_back("eth0", each.facts.mac))
