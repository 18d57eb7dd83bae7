"""Join, EndpointOperInfo, Leave and DeleteEndpoint."""

from __future__ import annotations

import errno
from ipaddress import ip_address

from macvlan_twisted.driver import requests
from macvlan_twisted.errors import LinkError, NotFound
from macvlan_twisted.link_names import endpoint_link_name

from .helpers import ENDPOINT, NETWORK, OTHER_NETWORK, PLAIN_LINKS, PluginTestCase, subnet

LINK = endpoint_link_name(ENDPOINT)
CALL = requests.EndpointCall(NETWORK, ENDPOINT)
JOIN = requests.Join(NETWORK, ENDPOINT, "/var/run/docker/netns/1f2e3d4c5b6a")


class JoinTests(PluginTestCase):
    def test_gateway_is_that_of_the_subnet_of_the_endpoint(self) -> None:
        subnets = (
            subnet("10.1.0.0/16", "10.1.0.1"),
            subnet("10.2.0.0/16", "10.2.0.1"),
            subnet("10.3.0.0/16"),
            subnet("fd00::/64", "fd00::1"),
        )
        gateways = ip_address("10.2.0.1"), ip_address("fd00::1")
        for address, address_v6, internal, expected in (
            ("10.2.0.7/16", "fd00::7/64", False, gateways),
            ("10.3.0.7/16", None, False, ()),
            (None, None, False, ()),
            ("10.1.0.7/16", "fd00::7/64", True, ()),
        ):
            with self.subTest(address=address, internal=internal):
                self.plugin.create_network(subnets=subnets, internal=internal, parent="eth0")
                self.plugin.create_endpoint(address=address, address_v6=address_v6)
                joined = self.plugin.wait(self.plugin.joining.join(JOIN))
                self.assertEqual(joined, requests.Joined(LINK, *expected))
                self.plugin.delete_network()

    def test_join_without_a_link_is_refused(self) -> None:
        self.plugin.create_network()
        self.plugin.create_endpoint()
        self.plugin.kernel.delete(LINK)
        with self.assert_refused(NotFound, LINK, "start the container again"):
            self.plugin.wait(self.plugin.joining.join(JOIN))

    def test_join_of_an_unknown_endpoint_is_refused(self) -> None:
        with self.assert_refused(NotFound, ENDPOINT[:12]):
            self.plugin.wait(self.plugin.joining.join(JOIN))


class OperationalInfoTests(PluginTestCase):
    def test_all_facts_are_shown(self) -> None:
        self.plugin.create_network(parent="eth1.20", mode="private")
        self.plugin.create_endpoint(address_v6="fd00::7/64")
        expected = {
            "parent": "eth1.20",
            "mode": "private",
            "link": LINK,
            "mac": "7a:42:c0:a8:01:07",
            "address": "192.168.1.7/24",
            "address_v6": "fd00::7/64",
            "vlan_id": "20",
        }
        self.assertEqual(self.plugin.wait(self.plugin.endpoints.operational_info(CALL)), expected)

    def test_missing_facts_are_left_out(self) -> None:
        self.plugin.create_network(mode="passthru")
        self.plugin.create_endpoint(address=None)
        info = self.plugin.wait(self.plugin.endpoints.operational_info(CALL))
        self.assertEqual(info, {"parent": "eth0", "mode": "passthru", "link": LINK})


class RemovalTests(PluginTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.plugin.create_network()
        self.network_only = self.plugin.records.all_rows()

    def test_removal_succeeds_if_the_link_went_with_its_sandbox(self) -> None:
        self.plugin.create_endpoint()
        self.plugin.kernel.move_away(LINK)
        self.plugin.delete_endpoint()
        self.assertEqual(self.plugin.records.all_rows(), self.network_only)

    def test_removal_of_an_unknown_endpoint_succeeds(self) -> None:
        self.plugin.delete_endpoint()
        self.plugin.create_endpoint()
        for _ in range(2):
            self.plugin.delete_endpoint()
            self.assertEqual(self.plugin.link_names(), PLAIN_LINKS)
        self.plugin.delete_endpoint(network_id=OTHER_NETWORK)
        self.assertEqual(self.plugin.records.all_rows(), self.network_only)

    def test_leave_always_succeeds(self) -> None:
        self.plugin.wait(self.plugin.joining.leave(CALL))
        self.plugin.create_endpoint()
        for _ in range(2):
            self.plugin.wait(self.plugin.joining.leave(CALL))
        self.assertIn(ENDPOINT, self.plugin.registry.endpoints)

    def test_reply_waits_until_the_row_is_deleted(self) -> None:
        self.plugin.create_endpoint()
        self.plugin.records.steps.hold.add("erase")
        removal = self.plugin.begin_delete_endpoint()
        self.assertNoResult(removal)
        self.plugin.records.steps.let_all_go()
        self.successResultOf(removal)

    def test_reply_does_not_wait_for_the_kernel_to_free_the_link(self) -> None:
        self.plugin.create_endpoint()
        self.plugin.steps.hold.add("delete_group")
        self.successResultOf(self.plugin.begin_delete_endpoint())
        self.assertIn(LINK, self.plugin.link_names())
        self.plugin.steps.let_all_go()
        self.assertEqual(self.plugin.link_names(), PLAIN_LINKS)

    def test_passthru_reply_waits_until_the_parent_is_free(self) -> None:
        self.plugin.create_network(OTHER_NETWORK, parent="eth1", mode="passthru")
        self.plugin.create_endpoint(network_id=OTHER_NETWORK)
        self.plugin.steps.hold.add("delete_group")
        removal = self.plugin.begin_delete_endpoint(network_id=OTHER_NETWORK)
        self.assertNoResult(removal)
        self.plugin.steps.let_all_go()
        self.successResultOf(removal)

    def test_kernel_error_is_reported(self) -> None:
        self.plugin.create_endpoint()
        self.plugin.steps.refuse |= {"set_group": 5, "delete": 5}
        with self.assert_refused(LinkError, "delete"):
            self.plugin.delete_endpoint()

    def test_link_that_cannot_be_retired_is_deleted_directly(self) -> None:
        self.plugin.create_endpoint()
        self.plugin.steps.refuse["set_group"] = errno.ENOBUFS
        self.plugin.delete_endpoint()
        self.assertEqual(self.plugin.link_names(), PLAIN_LINKS)
