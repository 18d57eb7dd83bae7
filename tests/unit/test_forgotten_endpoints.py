"""Endpoints that the engine dropped without a word, and those that only look so."""

from __future__ import annotations

import errno

from macvlan_twisted.errors import RequestRefused, StateError
from macvlan_twisted.link_names import endpoint_link_name
from macvlan_twisted.state.interfaces import RecordKind

from .helpers import ENDPOINT, OTHER_ENDPOINT, OTHER_NETWORK, PLAIN_LINKS, PluginTestCase

LINK = endpoint_link_name(ENDPOINT)


class ForgottenEndpointTests(PluginTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.plugin.create_network()
        self.plugin.create_endpoint()

    def test_an_address_that_was_handed_out_again_takes_the_old_endpoints_place(self) -> None:
        self.plugin.create_endpoint(OTHER_ENDPOINT)
        self.assertEqual(list(self.plugin.registry.endpoints), [OTHER_ENDPOINT])
        self.assertEqual(list(self.plugin.records.kept[RecordKind.ENDPOINT]), [OTHER_ENDPOINT])
        self.assertEqual(self.plugin.link_names(), {*PLAIN_LINKS, endpoint_link_name(OTHER_ENDPOINT)})

    def test_after_a_reboot_a_container_starts_with_its_old_address(self) -> None:
        self.plugin.kernel.delete(LINK)
        plugin = self.plugin.next_life()
        plugin.create_endpoint(OTHER_ENDPOINT)
        self.assertEqual(list(plugin.records.kept[RecordKind.ENDPOINT]), [OTHER_ENDPOINT])
        self.assertEqual(
            plugin.registry.holder_of_mac("eth0", "7a:42:c0:a8:01:07"),
            plugin.registry.endpoints[OTHER_ENDPOINT],
        )

    def test_a_link_that_is_gone_frees_its_mac_for_another_network(self) -> None:
        self.plugin.create_network(OTHER_NETWORK)
        self.plugin.kernel.delete(LINK)
        self.plugin.create_endpoint(OTHER_ENDPOINT, OTHER_NETWORK)
        self.assertEqual(list(self.plugin.records.kept[RecordKind.ENDPOINT]), [OTHER_ENDPOINT])

    def test_if_the_disk_does_not_forget_the_old_one_no_link_of_the_new_one_is_left(self) -> None:
        self.plugin.create_network(OTHER_NETWORK)
        self.plugin.kernel.delete(LINK)
        self.plugin.records.steps.refuse["forget"] = errno.ENOSPC
        with self.assert_refused(StateError, "forget"):
            self.plugin.create_endpoint(OTHER_ENDPOINT, OTHER_NETWORK)
        self.assertEqual(self.plugin.link_names(), PLAIN_LINKS)
        self.assertEqual(list(self.plugin.registry.endpoints), [ENDPOINT])

    def test_a_living_container_keeps_its_mac_however_often_it_is_asked_for(self) -> None:
        self.plugin.create_network(OTHER_NETWORK)
        self.plugin.kernel.move_away(LINK, up=True)
        for _ in range(3):
            with self.assert_refused(RequestRefused, "7a:42:c0:a8:01:07", "eth0"):
                self.plugin.create_endpoint(OTHER_ENDPOINT, OTHER_NETWORK)
            self.assertEqual(list(self.plugin.registry.endpoints), [ENDPOINT])
            self.assertEqual(list(self.plugin.records.kept[RecordKind.ENDPOINT]), [ENDPOINT])
        self.assertEqual(self.plugin.link_names(), PLAIN_LINKS)

    def test_an_endpoint_whose_row_was_lost_still_takes_its_link_with_it(self) -> None:
        self.plugin.registry.remove_endpoint(ENDPOINT)
        self.plugin.delete_endpoint()
        self.assertEqual(self.plugin.link_names(), PLAIN_LINKS)


CHOSEN = "02:00:00:00:00:77"


class SeveralHoldersTests(PluginTestCase):
    """A kill between a new endpoint's link and the end of the old one's row leaves two that have one MAC."""

    def setUp(self) -> None:
        super().setUp()
        self.plugin.create_network()
        self.plugin.create_endpoint(address="192.168.1.7/24", mac=CHOSEN)
        self.plugin.kernel.delete(LINK)
        old = self.plugin.records.kept[RecordKind.ENDPOINT][ENDPOINT]
        self.plugin.create_endpoint(OTHER_ENDPOINT, address="192.168.1.8/24", mac=CHOSEN)
        self.plugin.records.kept[RecordKind.ENDPOINT][ENDPOINT] = old
        self.plugin = self.plugin.next_life()
        self.assertEqual(set(self.plugin.registry.endpoints), {ENDPOINT, OTHER_ENDPOINT})

    def test_the_old_ones_creation_comes_again_and_both_have_the_mac(self) -> None:
        with self.assert_refused(RequestRefused, CHOSEN, OTHER_ENDPOINT):
            self.plugin.create_endpoint(address="192.168.1.7/24", mac=CHOSEN)
        self.assertEqual(self.plugin.link_names(), {*PLAIN_LINKS, endpoint_link_name(OTHER_ENDPOINT)})

    def test_a_third_one_looks_at_the_latest_only_and_gets_the_mac_of_one_whose_link_is_there(self) -> None:
        plugin = self.plugin
        latest = plugin.registry.endpoints[ENDPOINT]
        plugin.registry.remove_endpoint(ENDPOINT)
        plugin.registry.add_endpoint(latest)
        with self.assert_refused(RequestRefused, CHOSEN, OTHER_ENDPOINT):
            plugin.create_endpoint("f" * 64, address="192.168.1.9/24", mac=CHOSEN)
        self.assertEqual(plugin.link_names(), {*PLAIN_LINKS, endpoint_link_name(OTHER_ENDPOINT)})
