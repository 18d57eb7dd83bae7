"""CreateEndpoint: the link, its MAC, its address, and what a failed creation leaves."""

from __future__ import annotations

import errno

from attrs import evolve

from macvlan_twisted.errors import LinkError, NotFound, RequestRefused, StateError
from macvlan_twisted.link_names import endpoint_link_name
from macvlan_twisted.state.interfaces import RecordKind
from macvlan_twisted.testing.kernel import nic

from .helpers import (
    ENDPOINT,
    NETWORK,
    OTHER_ENDPOINT,
    OTHER_NETWORK,
    PLAIN_LINKS,
    PluginHarness,
    PluginTestCase,
    on_disk,
    on_kernel,
    subnet,
)

LINK = endpoint_link_name(ENDPOINT)
MAC = "02:00:00:00:00:77"


class CreationTests(PluginTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.plugin.create_network()

    def test_link_has_the_mac_of_the_reply(self) -> None:
        mac = self.plugin.create_endpoint()
        self.assertEqual(mac, "7a:42:c0:a8:01:07")
        link = self.plugin.link(LINK)
        self.assertEqual((link.mac, link.group), (mac, self.plugin.records.link_group))
        self.assertIn(self.plugin.records.instance, link.alias)
        self.assertIn(ENDPOINT, link.alias)

    def test_requested_mac_is_used_and_not_repeated_in_the_reply(self) -> None:
        self.assertIsNone(self.plugin.create_endpoint(mac=MAC))
        self.assertEqual(self.plugin.link(LINK).mac, MAC)

    def test_row_is_on_disk_before_the_link_and_the_reply(self) -> None:
        self.plugin.records.steps.hold.add("save")
        self.plugin.steps.hold.add("add_macvlan")
        creation = self.plugin.begin_create_endpoint()
        self.assertEqual(self.plugin.steps.held, [])
        self.plugin.records.steps.let_all_go()
        self.assertNoResult(creation)
        self.assertIn(ENDPOINT, self.plugin.records.rows[RecordKind.ENDPOINT])
        self.assertEqual(self.plugin.link_names(), PLAIN_LINKS)
        self.plugin.steps.let_all_go()
        self.successResultOf(creation)

    def test_repeated_creation_gets_the_same_reply(self) -> None:
        for mac in (None, MAC):
            first = self.plugin.create_endpoint(mac=mac)
            before = self.plugin.kernel.links(), self.plugin.records.all_rows()
            self.assertEqual(self.plugin.create_endpoint(mac=mac), first)
            with self.assert_refused(
                RequestRefused, ENDPOINT[:12], "already exists with different addresses"
            ):
                self.plugin.create_endpoint(address="192.168.1.8/24", mac=mac)
            self.assertEqual((self.plugin.kernel.links(), self.plugin.records.all_rows()), before)
            self.plugin.delete_endpoint()

    def test_unknown_network_is_refused_with_an_explanation(self) -> None:
        with self.assert_refused(NotFound, OTHER_NETWORK[:12], "create it again"):
            self.plugin.create_endpoint(network_id=OTHER_NETWORK)
        self.assertEqual(dict(self.plugin.registry.endpoints), {})

    def test_foreign_link_of_that_name_is_left_alone(self) -> None:
        foreign = nic(LINK, 99)
        self.plugin.kernel.put(foreign)
        with self.assert_refused(LinkError, "exists"):
            self.plugin.create_endpoint()
        self.assertEqual(self.plugin.kernel.find(LINK), foreign)
        self.assertEqual(self.plugin.records.rows[RecordKind.ENDPOINT], {})


class RollbackTests(PluginTestCase):
    def test_failure_at_any_step_leaves_nothing(self) -> None:
        for mode in ("bridge", "passthru"):

            def prepare(mode: str = mode) -> None:
                self.plugin.create_network(mode=mode)
                self.rows = self.plugin.records.all_rows()

            def act(mac: str | None = MAC if mode == "bridge" else None) -> None:
                self.plugin.create_endpoint(mac=mac)

            for which in (on_kernel, on_disk):
                with self.subTest(mode=mode, steps=which.__name__):
                    self.refuse_each_step(which, act, self.check, prepare)

    def check(self) -> None:
        self.assertEqual(self.plugin.records.all_rows(), self.rows)
        self.assertEqual(dict(self.plugin.registry.endpoints), {})
        self.assertEqual(self.plugin.link_names(), PLAIN_LINKS)
        self.assertIsNone(self.plugin.registry.holder_of_mac("eth0", MAC))

    def test_first_error_is_reported_if_undo_fails_too(self) -> None:
        self.plugin.create_network()
        self.plugin.steps.refuse["add_macvlan"] = 12
        self.plugin.records.steps.refuse["erase"] = 0
        with self.assert_refused(LinkError):
            self.plugin.create_endpoint()


class MacTests(PluginTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.plugin.create_network()

    def test_mac_in_use_on_the_parent_is_refused_with_its_holder(self) -> None:
        self.plugin.create_network(OTHER_NETWORK)
        self.plugin.create_endpoint(mac=MAC)
        with self.assert_refused(RequestRefused, MAC, "eth0", ENDPOINT[:12], NETWORK[:12]):
            self.plugin.create_endpoint(OTHER_ENDPOINT, OTHER_NETWORK, "192.168.1.8/24", mac=MAC)
        self.assertEqual(list(self.plugin.registry.endpoints), [ENDPOINT])

    def test_same_mac_is_allowed_on_another_parent(self) -> None:
        self.plugin.create_network(OTHER_NETWORK, parent="eth1")
        self.plugin.create_endpoint(mac=MAC)
        self.plugin.create_endpoint(OTHER_ENDPOINT, OTHER_NETWORK, mac=MAC)
        self.assertEqual(len(self.plugin.registry.endpoints), 2)

    def test_freed_mac_can_be_used_again(self) -> None:
        self.plugin.create_endpoint(mac=MAC)
        self.plugin.delete_endpoint()
        self.plugin.create_endpoint(OTHER_ENDPOINT, mac=MAC)
        self.assertEqual(list(self.plugin.registry.endpoints), [OTHER_ENDPOINT])

    def test_mac_of_the_parent_is_refused(self) -> None:
        with self.assert_refused(RequestRefused, "02:00:00:00:00:02", "eth0"):
            self.plugin.create_endpoint(mac="02:00:00:00:00:02")
        self.assertEqual(self.plugin.records.rows[RecordKind.ENDPOINT], {})

    def test_endpoint_without_addresses_has_a_mac_of_its_own(self) -> None:
        first = self.plugin.create_endpoint(address=None)
        self.assertNotEqual(self.plugin.create_endpoint(OTHER_ENDPOINT, address=None), first)

    def test_passthru_keeps_the_mac_of_the_parent(self) -> None:
        self.plugin.create_network(OTHER_NETWORK, parent="eth1", mode="passthru")
        self.assertIsNone(self.plugin.create_endpoint(network_id=OTHER_NETWORK))
        for name in (LINK, "eth1"):
            self.assertEqual(self.plugin.link(name).mac, "02:00:00:00:00:03")

    def test_passthru_refuses_a_mac_unless_forced(self) -> None:
        self.plugin.create_network(OTHER_NETWORK, parent="eth1", mode="passthru")
        with self.assert_refused(RequestRefused, MAC, "eth1", "-o allow_parent_mac_change=true"):
            self.plugin.create_endpoint(network_id=OTHER_NETWORK, mac=MAC)
        self.plugin.delete_network(OTHER_NETWORK)
        self.plugin.create_network(OTHER_NETWORK, parent="eth1", mode="passthru", allow_parent_mac_change="")
        self.assertIsNone(self.plugin.create_endpoint(network_id=OTHER_NETWORK, mac=MAC))


class RouterTests(PluginTestCase):
    def test_gateway_of_the_network_is_refused_in_both_families(self) -> None:
        self.plugin.create_network(subnets=(subnet("10.0.0.0/8", "10.0.0.9"), subnet("fd00::/64", "fd00::9")))
        with self.assert_refused(RequestRefused, "10.0.0.9"):
            self.plugin.create_endpoint(address="10.0.0.9/8")
        with self.assert_refused(RequestRefused, "fd00::9"):
            self.plugin.create_endpoint(address=None, address_v6="fd00::9/64")

    def test_internal_network_may_use_the_address_of_the_router(self) -> None:
        self.plugin.create_network(internal=True, subnets=(subnet("192.168.1.0/24"),))
        self.plugin.create_endpoint(address="192.168.1.1/24")
        self.assertIn(ENDPOINT, self.plugin.registry.endpoints)

    def create_with(self, gateway: str | None, **options: str) -> None:
        self.plugin = PluginHarness(config=evolve(self.plugin.config, host_interface="eth0"))
        self.plugin.create_network(subnets=(subnet("192.168.1.0/24", gateway),), **options)

    def test_router_of_another_lan_is_an_ordinary_address(self) -> None:
        self.create_with("192.168.1.254", parent="eth1")
        self.assertIsNotNone(self.plugin.create_endpoint(address="192.168.1.1/24"))

    def test_router_is_refused_with_the_remedy(self) -> None:
        for gateway, options, remedy in (
            (None, {}, "--gateway 192.168.1.1"),
            (None, {"parent": "eth1"}, "--gateway 192.168.1.1"),
            ("192.168.1.254", {}, "--aux-address router=192.168.1.1"),
        ):
            self.create_with(gateway, **options)
            with self.assert_refused(RequestRefused, "192.168.1.1", remedy):
                self.plugin.create_endpoint(address="192.168.1.1/24")
            self.assertEqual(self.plugin.records.rows[RecordKind.ENDPOINT], {})


class ForgottenEndpointTests(PluginTestCase):
    """
    The engine drops endpoints without DeleteEndpoint when it is killed or its host reboots. A later CreateEndpoint with
    the same address or MAC replaces them, unless their container may still run.
    """

    def setUp(self) -> None:
        super().setUp()
        self.plugin.create_network()
        self.plugin.create_endpoint()

    def assert_sole(self, endpoint_id: str) -> None:
        self.assertEqual(list(self.plugin.registry.endpoints), [endpoint_id])
        self.assertEqual(list(self.plugin.records.rows[RecordKind.ENDPOINT]), [endpoint_id])

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
        self.plugin.records.steps.refuse["erase"] = errno.ENOSPC
        with self.assert_refused(StateError, "erase"):
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


class SeveralHoldersTests(PluginTestCase):
    """A kill after the link of a new endpoint and before the deletion of the old row: two rows have one MAC."""

    def setUp(self) -> None:
        super().setUp()
        self.plugin.create_network()
        self.plugin.create_endpoint(address="192.168.1.7/24", mac=MAC)
        self.plugin.kernel.delete(LINK)
        old = self.plugin.records.rows[RecordKind.ENDPOINT][ENDPOINT]
        self.plugin.create_endpoint(OTHER_ENDPOINT, address="192.168.1.8/24", mac=MAC)
        self.plugin.records.rows[RecordKind.ENDPOINT][ENDPOINT] = old
        self.plugin = self.plugin.next_life()
        self.assertEqual(set(self.plugin.registry.endpoints), {ENDPOINT, OTHER_ENDPOINT})

    def assert_creation_refused(self, endpoint_id: str, address: str) -> None:
        with self.assert_refused(RequestRefused, MAC, OTHER_ENDPOINT[:12]):
            self.plugin.create_endpoint(endpoint_id, address=address, mac=MAC)
        self.assertEqual(self.plugin.link_names(), {*PLAIN_LINKS, endpoint_link_name(OTHER_ENDPOINT)})

    def test_repeated_creation_of_the_old_holder_is_refused(self) -> None:
        self.assert_creation_refused(ENDPOINT, "192.168.1.7/24")

    def test_third_endpoint_is_refused_whoever_came_last(self) -> None:
        latest = self.plugin.registry.endpoints[ENDPOINT]
        self.plugin.registry.remove_endpoint(ENDPOINT)
        self.plugin.registry.add_endpoint(latest)
        self.assert_creation_refused("f" * 64, "192.168.1.9/24")
