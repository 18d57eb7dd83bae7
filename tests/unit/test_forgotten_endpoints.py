"""Endpoints that the engine dropped without a word, and those that only look so."""

from __future__ import annotations

import errno

from macvlan_twisted.errors import Refused, StateFailed
from macvlan_twisted.names import endpoint_link_name
from macvlan_twisted.state.interface import Kind

from .helpers import ENDPOINT, OTHER_ENDPOINT, OTHER_NETWORK, PLAIN_LINKS, HouseTestCase

LINK = endpoint_link_name(ENDPOINT)


class ForgottenEndpointTests(HouseTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.house.create_network()
        self.house.create_endpoint()

    def test_an_address_that_was_handed_out_again_takes_the_old_endpoints_place(self) -> None:
        self.house.create_endpoint(OTHER_ENDPOINT)
        self.assertEqual(list(self.house.known.endpoints), [OTHER_ENDPOINT])
        self.assertEqual(list(self.house.records.kept[Kind.ENDPOINT]), [OTHER_ENDPOINT])
        self.assertEqual(self.house.link_names(), {*PLAIN_LINKS, endpoint_link_name(OTHER_ENDPOINT)})

    def test_after_a_reboot_a_container_starts_with_its_old_address(self) -> None:
        self.house.kernel.delete(LINK)
        house = self.house.next_life()
        house.create_endpoint(OTHER_ENDPOINT)
        self.assertEqual(list(house.records.kept[Kind.ENDPOINT]), [OTHER_ENDPOINT])
        self.assertEqual(
            house.known.holder_of_mac("eth0", "7a:42:c0:a8:01:07"), house.known.endpoints[OTHER_ENDPOINT]
        )

    def test_a_link_that_is_gone_frees_its_mac_for_another_network(self) -> None:
        self.house.create_network(OTHER_NETWORK)
        self.house.kernel.delete(LINK)
        self.house.create_endpoint(OTHER_ENDPOINT, OTHER_NETWORK)
        self.assertEqual(list(self.house.records.kept[Kind.ENDPOINT]), [OTHER_ENDPOINT])

    def test_if_the_disk_does_not_forget_the_old_one_no_link_of_the_new_one_is_left(self) -> None:
        self.house.create_network(OTHER_NETWORK)
        self.house.kernel.delete(LINK)
        self.house.records.steps.refuse["forget"] = errno.ENOSPC
        with self.assert_refused(StateFailed, "forget"):
            self.house.create_endpoint(OTHER_ENDPOINT, OTHER_NETWORK)
        self.assertEqual(self.house.link_names(), PLAIN_LINKS)
        self.assertEqual(list(self.house.known.endpoints), [ENDPOINT])

    def test_a_living_container_keeps_its_mac_however_often_it_is_asked_for(self) -> None:
        self.house.create_network(OTHER_NETWORK)
        self.house.kernel.move_away(LINK, up=True)
        for _ in range(3):
            with self.assert_refused(Refused, "7a:42:c0:a8:01:07", "eth0"):
                self.house.create_endpoint(OTHER_ENDPOINT, OTHER_NETWORK)
            self.assertEqual(list(self.house.known.endpoints), [ENDPOINT])
            self.assertEqual(list(self.house.records.kept[Kind.ENDPOINT]), [ENDPOINT])
        self.assertEqual(self.house.link_names(), PLAIN_LINKS)

    def test_an_endpoint_whose_row_was_lost_still_takes_its_link_with_it(self) -> None:
        self.house.known.remove_endpoint(ENDPOINT)
        self.house.delete_endpoint()
        self.assertEqual(self.house.link_names(), PLAIN_LINKS)


CHOSEN = "02:00:00:00:00:77"


class SeveralHoldersTests(HouseTestCase):
    """A kill between a new endpoint's link and the end of the old one's row leaves two that have one MAC."""

    def setUp(self) -> None:
        super().setUp()
        self.house.create_network()
        self.house.create_endpoint(address="192.168.1.7/24", mac=CHOSEN)
        self.house.kernel.delete(LINK)
        old = self.house.records.kept[Kind.ENDPOINT][ENDPOINT]
        self.house.create_endpoint(OTHER_ENDPOINT, address="192.168.1.8/24", mac=CHOSEN)
        self.house.records.kept[Kind.ENDPOINT][ENDPOINT] = old
        self.house = self.house.next_life()
        self.assertEqual(set(self.house.known.endpoints), {ENDPOINT, OTHER_ENDPOINT})

    def test_the_old_ones_creation_comes_again_and_both_have_the_mac(self) -> None:
        with self.assert_refused(Refused, CHOSEN, OTHER_ENDPOINT):
            self.house.create_endpoint(address="192.168.1.7/24", mac=CHOSEN)
        self.assertEqual(self.house.link_names(), {*PLAIN_LINKS, endpoint_link_name(OTHER_ENDPOINT)})

    def test_a_third_one_looks_at_the_latest_only_and_gets_the_mac_of_one_whose_link_is_there(self) -> None:
        house = self.house
        latest = house.known.endpoints[ENDPOINT]
        house.known.remove_endpoint(ENDPOINT)
        house.known.add_endpoint(latest)
        with self.assert_refused(Refused, CHOSEN, OTHER_ENDPOINT):
            house.create_endpoint("f" * 64, address="192.168.1.9/24", mac=CHOSEN)
        self.assertEqual(house.link_names(), {*PLAIN_LINKS, endpoint_link_name(OTHER_ENDPOINT)})
