"""
Endpoints that the engine no longer knows: it drops them without DeleteEndpoint when it is killed or its host reboots.

A later CreateEndpoint with the same address or MAC replaces them, unless their container may still run.
"""

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

    def assert_sole(self, endpoint_id: str) -> None:
        self.assertEqual(list(self.plugin.registry.endpoints), [endpoint_id])
        self.assertEqual(list(self.plugin.records.kept[RecordKind.ENDPOINT]), [endpoint_id])

    def test_reallocated_address_replaces_the_old_endpoint(self) -> None:
        self.plugin.create_endpoint(OTHER_ENDPOINT)
        self.assert_sole(OTHER_ENDPOINT)
        self.assertEqual(self.plugin.link_names(), {*PLAIN_LINKS, endpoint_link_name(OTHER_ENDPOINT)})

    def test_container_starts_with_its_old_address_after_a_reboot(self) -> None:
        self.plugin.kernel.delete(LINK)
        self.plugin = self.plugin.next_life()
        self.plugin.create_endpoint(OTHER_ENDPOINT)
        self.assert_sole(OTHER_ENDPOINT)
        self.assertEqual(
            self.plugin.registry.holder_of_mac("eth0", "7a:42:c0:a8:01:07"),
            self.plugin.registry.endpoints[OTHER_ENDPOINT],
        )

    def test_missing_link_frees_its_mac_for_another_network(self) -> None:
        self.plugin.create_network(OTHER_NETWORK)
        self.plugin.kernel.delete(LINK)
        self.plugin.create_endpoint(OTHER_ENDPOINT, OTHER_NETWORK)
        self.assert_sole(OTHER_ENDPOINT)

    def test_link_gone_with_its_container_frees_its_mac(self) -> None:
        self.plugin.kernel.move_away(LINK)
        self.plugin.create_endpoint(OTHER_ENDPOINT, address="192.168.1.8/24", mac="7a:42:c0:a8:01:07")
        self.assert_sole(OTHER_ENDPOINT)

    def test_disk_error_removes_the_link_of_the_new_endpoint(self) -> None:
        self.plugin.create_network(OTHER_NETWORK)
        self.plugin.kernel.delete(LINK)
        self.plugin.records.steps.refuse["forget"] = errno.ENOSPC
        with self.assert_refused(StateError, "forget"):
            self.plugin.create_endpoint(OTHER_ENDPOINT, OTHER_NETWORK)
        self.assertEqual(self.plugin.link_names(), PLAIN_LINKS)
        self.assertEqual(list(self.plugin.registry.endpoints), [ENDPOINT])

    def test_running_container_keeps_its_mac(self) -> None:
        self.plugin.create_network(OTHER_NETWORK)
        self.plugin.kernel.move_away(LINK, up=True)
        for _ in range(3):
            with self.assert_refused(RequestRefused, "7a:42:c0:a8:01:07", "eth0"):
                self.plugin.create_endpoint(OTHER_ENDPOINT, OTHER_NETWORK)
            self.assert_sole(ENDPOINT)
        self.assertEqual(self.plugin.link_names(), PLAIN_LINKS)

    def test_link_of_a_lost_row_is_removed(self) -> None:
        self.plugin.registry.remove_endpoint(ENDPOINT)
        self.plugin.delete_endpoint()
        self.assertEqual(self.plugin.link_names(), PLAIN_LINKS)


CHOSEN = "02:00:00:00:00:77"


class SeveralHoldersTests(PluginTestCase):
    """A kill after the link of a new endpoint and before the deletion of the old row: two rows have one MAC."""

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

    def assert_creation_refused(self, endpoint_id: str, address: str) -> None:
        with self.assert_refused(RequestRefused, CHOSEN, OTHER_ENDPOINT):
            self.plugin.create_endpoint(endpoint_id, address=address, mac=CHOSEN)
        self.assertEqual(self.plugin.link_names(), {*PLAIN_LINKS, endpoint_link_name(OTHER_ENDPOINT)})

    def test_repeated_creation_of_the_old_holder_is_refused(self) -> None:
        self.assert_creation_refused(ENDPOINT, "192.168.1.7/24")

    def test_third_endpoint_is_refused_whoever_came_last(self) -> None:
        latest = self.plugin.registry.endpoints[ENDPOINT]
        self.plugin.registry.remove_endpoint(ENDPOINT)
        self.plugin.registry.add_endpoint(latest)
        self.assert_creation_refused("f" * 64, "192.168.1.9/24")
