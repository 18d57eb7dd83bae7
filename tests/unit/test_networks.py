"""CreateNetwork, DeleteNetwork and the calls of a swarm manager."""

from __future__ import annotations

import errno
from functools import partial
from typing import Any

from attrs import evolve
from twisted.logger import capturedLogs, formatEvent

from macvlan_twisted.driver import requests
from macvlan_twisted.driver.models import Subnet
from macvlan_twisted.driver.validation import refuse_ignored_options
from macvlan_twisted.errors import LinkError, RequestRefused, StateError
from macvlan_twisted.link_names import endpoint_link_name, probe_link_name
from macvlan_twisted.netlink.kernel import MacvlanLink
from macvlan_twisted.option_values import MacvlanMode
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
    plain_kernel,
    subnet,
)


class CreationTests(PluginTestCase):
    def test_network_is_saved_and_its_probe_link_removed(self) -> None:
        self.plugin.create_network(parent="eth1", mode="vepa")
        network = self.plugin.registry.networks[NETWORK]
        self.assertEqual((network.parent, network.mode), ("eth1", "vepa"))
        self.assertEqual(list(self.plugin.records.rows[RecordKind.NETWORK]), [NETWORK])
        self.assertIn("add_macvlan", self.plugin.steps.taken)
        self.assertEqual(self.plugin.link_names(), PLAIN_LINKS)

    def test_row_is_on_disk_before_the_kernel_is_touched(self) -> None:
        self.plugin.steps.hold.add("add_vlan")
        creation = self.plugin.begin_create_network(parent="eth1.20")
        self.assertNoResult(creation)
        self.assertEqual(list(self.plugin.records.rows[RecordKind.NETWORK]), [NETWORK])
        self.assertEqual(list(self.plugin.records.rows[RecordKind.MADE_LINK]), ["eth1.20"])

    def test_defaults_come_from_the_configuration(self) -> None:
        plugin = PluginHarness(config=evolve(self.plugin.config, mode=MacvlanMode.PRIVATE, mtu=1400))
        plugin.create_network()
        network = plugin.registry.networks[NETWORK]
        self.assertEqual((network.parent, network.mode, network.mtu), ("eth0", "private", 1400))

    def test_repeated_creation_changes_nothing(self) -> None:
        self.plugin.create_network(parent="eth1.20")
        before = self.plugin.records.all_rows(), self.plugin.kernel.links()
        self.plugin.create_network(parent="eth1.20")
        with self.assert_refused(RequestRefused, NETWORK[:12], "already exists with different options"):
            self.plugin.create_network(parent="eth1.20", mode="vepa")
        self.assertEqual((self.plugin.records.all_rows(), self.plugin.kernel.links()), before)

    def test_invalid_options_are_refused_before_anything_is_done(self) -> None:
        for options in (
            {"parnet": "eth1"},
            {"mode": "x"},
            {"parent": "eth7"},
            {"parent": "lo"},
            {"parent": "lo.5"},
            {"mtu": "9000"},
            {"mode": "source"},
            {"parent": "eth1.20", "mtu": "9000"},
            {"nopromisc": ""},
        ):
            with self.assert_refused(RequestRefused):
                self.plugin.create_network(**options)
            self.assert_nothing_left()
            self.assertNotIn("add_macvlan", self.plugin.steps.taken)
            self.assertEqual(self.plugin.records.steps.taken, [])

    def test_unusable_parents_are_refused_even_below_a_vlan(self) -> None:
        plugin = PluginHarness(plain_kernel(nic("wlan0", 4, is_wireless=True), nic("eth2", 5, bridge="br0")))
        for parent in ("wlan0", "wlan0.20", "eth2", "eth2.20"):
            with self.assert_refused(RequestRefused, parent.partition(".")[0]):
                plugin.create_network(parent=parent)
        plugin.create_network(parent="wlan0.20", allow_wireless_parent="")
        self.assertEqual(plugin.registry.networks[NETWORK].parent, "wlan0.20")

    def test_options_reach_the_kernel(self) -> None:
        options = {"mode": "source", "mtu": "1400", "bcqueuelen": "7", "bclim": "3"}
        self.plugin.create_network(parent="eth1", source_macs="02:00:00:00:00:01", **options)
        self.plugin.create_endpoint()
        link = self.plugin.kernel.read_macvlan(endpoint_link_name(ENDPOINT))
        assert link is not None
        self.assertEqual(
            (link.parent, link.mode, link.mtu, link.broadcast_queue_length, link.broadcast_limit),
            ("eth1", "source", 1400, 7, 3),
        )
        self.assertEqual(link.source_macs, ("02:00:00:00:00:01",))

    def test_option_that_the_kernel_ignores_is_refused(self) -> None:
        def forgetful(link: MacvlanLink, prove_mac_free: bool = False) -> None:
            add_macvlan(evolve(link, broadcast_queue_length=None), prove_mac_free)

        add_macvlan = self.plugin.kernel.add_macvlan
        self.patch(self.plugin.kernel, "add_macvlan", forgetful)
        with self.assert_refused(RequestRefused, "-o bcqueuelen", "77"):
            self.plugin.create_network(bcqueuelen="77")
        self.assert_nothing_left()


class LinkLocalTests(PluginTestCase):
    def create(self, **more: Any) -> None:
        self.plugin.create_network(subnets=(evolve(subnet("169.254.0.0/16"), managed_here=True),), **more)

    def test_link_local_subnet_is_for_internal_networks_only(self) -> None:
        with self.assert_refused(RequestRefused, "169.254.0.0/16", "link-local", "--internal"):
            self.create(parent="eth0")
        self.assert_nothing_left()
        self.create(internal=True, parent="eth0")
        self.assertIn(NETWORK, self.plugin.registry.networks)


class ReadBackTests(PluginTestCase):
    ASKED = MacvlanLink("x", "eth0", "bridge", mtu=1400, broadcast_queue_length=5, broadcast_limit=2)

    def test_ignored_option_is_named_with_both_values(self) -> None:
        macs = ("02:00:00:00:00:01", "02:00:00:00:00:02")
        for asked, found, words in (
            ({}, {"mode": "vepa"}, ("macvlan_mode", "bridge", "vepa")),
            ({}, {"mtu": 1500}, ("mtu", "1400", "1500")),
            ({}, {"broadcast_queue_length": 1000}, ("bcqueuelen", "5", "1000")),
            ({}, {"broadcast_limit": None}, ("-o bclim=2 is not supported by this kernel: leave",)),
            ({"nopromisc": True}, {}, ("-o nopromisc=true is not supported by this kernel: leave",)),
            (
                {"source_macs": macs},
                {"source_macs": macs[:1]},
                (f"-o source_macs={','.join(macs)} is not", f"which uses {macs[0]}: leave"),
            ),
            ({"source_macs": macs}, {}, (f"-o source_macs={','.join(macs)} is not", "this kernel: leave")),
        ):
            with self.assert_refused(RequestRefused, *words):
                refuse_ignored_options(evolve(self.ASKED, **asked), evolve(self.ASKED, **found))

    def test_unrequested_values_and_the_order_of_macs_are_free(self) -> None:
        refuse_ignored_options(MacvlanLink("x", "eth0", "bridge"), self.ASKED)
        wanted = evolve(self.ASKED, source_macs=("02:00:00:00:00:01", "02:00:00:00:00:02"))
        refuse_ignored_options(wanted, evolve(wanted, source_macs=wanted.source_macs[::-1]))


class DeletionTests(PluginTestCase):
    def test_endpoints_of_other_networks_stay(self) -> None:
        self.plugin.create_network()
        self.plugin.create_network(OTHER_NETWORK)
        self.plugin.create_endpoint(OTHER_ENDPOINT, OTHER_NETWORK)
        self.plugin.delete_network()
        self.assertEqual(list(self.plugin.registry.endpoints), [OTHER_ENDPOINT])
        self.assertEqual(len(self.plugin.foreign_to(PLAIN_LINKS)), 1)

    def test_deletion_continues_after_an_error_and_reports_it(self) -> None:
        self.plugin.create_network()
        self.plugin.create_endpoint()
        self.plugin.steps.refuse |= {"set_group": 5, "delete": 5}
        with self.assert_refused(LinkError, "delete", NETWORK[:12]):
            self.plugin.delete_network()
        self.assertNotIn(NETWORK, self.plugin.registry.networks)
        self.assertEqual(self.plugin.records.rows[RecordKind.NETWORK], {})


class PassthruTests(PluginTestCase):
    def test_passthru_owns_the_parent(self) -> None:
        self.plugin.create_network(mode="passthru")
        for options in ({}, {"mode": "passthru"}):
            with self.assert_refused(RequestRefused, NETWORK[:12], "eth0"):
                self.plugin.create_network(OTHER_NETWORK, **options)
        self.assertEqual(list(self.plugin.records.rows[RecordKind.NETWORK]), [NETWORK])
        self.plugin.create_network(OTHER_NETWORK, parent="eth1", mode="passthru")

    def test_passthru_is_refused_on_a_parent_in_use(self) -> None:
        self.plugin.create_network()
        with self.assert_refused(RequestRefused, NETWORK[:12], "cannot use mode passthru"):
            self.plugin.create_network(OTHER_NETWORK, mode="passthru")

    def test_passthru_refuses_a_second_container(self) -> None:
        self.plugin.create_network(mode="passthru")
        self.plugin.create_endpoint()
        before = self.plugin.records.all_rows()
        with self.assert_refused(RequestRefused, "passthru", ENDPOINT[:12]):
            self.plugin.create_endpoint(OTHER_ENDPOINT, address="192.168.1.8/24")
        self.assertEqual(self.plugin.records.all_rows(), before)


class GatewayCheckTests(PluginTestCase):
    def test_gateway_check_refuses_invalid_options(self) -> None:
        with self.assert_refused(RequestRefused, "parnet"):
            self.plugin.wait(self.plugin.networks.gateway_check(requests.GatewayCheck({"parnet": "eth0"})))


class RouterWarningTests(PluginTestCase):
    def warnings_of(self, *subnets: Subnet, internal: bool = False) -> list[Any]:
        with capturedLogs() as events:
            self.plugin.create_network(subnets=subnets, internal=internal, parent="eth0")
        return [
            event
            for event in events
            if event["log_level"].name == "warn" and "gateway" in event["log_format"]
        ]

    def test_pool_that_holds_the_router_without_gateway_is_reported(self) -> None:
        (event,) = self.warnings_of(subnet("192.168.1.0/24"))
        self.assertEqual(str(event["router"]), "192.168.1.1")
        self.assertIn("--gateway", event["log_format"])

    def test_network_without_any_gateway_is_said_to_lack_names(self) -> None:
        for subnets, lacks in (
            (("10.0.0.0/8",), True),
            (("192.168.1.0/24",), True),
            (("192.168.1.0/24", "fd00::/64"), True),
            (("0.0.0.0/0",), False),  # the DHCP server names a router
        ):
            with self.subTest(subnets=subnets):
                (event,) = self.warnings_of(*map(subnet, subnets)) or [None]
                self.assertEqual(event is not None, lacks)
                if event is not None:
                    self.assertIn("SERVFAIL", formatEvent(event))
                self.plugin.delete_network()

    def test_no_warning_if_the_router_cannot_be_allocated_or_used(self) -> None:
        self.assertEqual(self.warnings_of(subnet("192.168.1.0/24", "192.168.1.1"), subnet("10.0.0.0/8")), [])
        self.plugin.delete_network()
        self.assertEqual(self.warnings_of(subnet("192.168.1.0/24"), internal=True), [])


class ProbeLinkTests(PluginTestCase):
    def test_foreign_link_of_that_name_is_left_alone(self) -> None:
        foreign = nic(probe_link_name(NETWORK), 9)
        self.plugin.kernel.put(foreign)
        with self.assert_refused(LinkError, "exists"):
            self.plugin.create_network()
        self.assertEqual(self.plugin.kernel.find(foreign.name), foreign)
        self.assert_nothing_left(links={*PLAIN_LINKS, foreign.name})


KINDS: tuple[dict[str, Any], ...] = (
    {},
    {"parent": "eth1.20"},
    {"parent": "eth1.20.30", "mtu": "1400"},
    {"internal": True},
    {"mode": "passthru"},
)


class RollbackTests(PluginTestCase):
    def create(self, kind: dict[str, Any]) -> None:
        self.plugin.create_network(**kind)

    def test_kernel_error_at_any_step_leaves_nothing(self) -> None:
        def retried() -> None:
            """The probe link has been removed in another way."""
            self.assertNotIn(probe_link_name(NETWORK), self.plugin.link_names())
            self.plugin.delete_network()
            self.assert_nothing_left()

        for kind in KINDS:
            create = partial(self.create, kind)
            self.refuse_each_step(on_kernel, create, self.assert_nothing_left, retried=retried, least=3)

    def test_persistent_kernel_error_leaves_nothing(self) -> None:
        for kind in KINDS:
            for step in ("links", "find", "add_vlan", "add_dummy", "add_macvlan", "read_macvlan", "set_up"):
                plugin = PluginHarness()
                plugin.steps.refuse[step] = 1
                try:
                    plugin.create_network(**kind)
                except LinkError:
                    plugin.steps.refuse.clear()
                    if step == "find":  # without it we cannot prove that a link is ours, and delete it
                        plugin = plugin.next_life()
                    self.assert_nothing_left(plugin)

    def test_disk_error_at_any_write_leaves_nothing(self) -> None:
        for kind in KINDS:
            self.refuse_each_step(on_disk, partial(self.create, kind), self.assert_nothing_left)

    def test_first_error_is_reported_if_undo_fails_too(self) -> None:
        self.plugin.steps.refuse["add_macvlan"] = 22
        self.plugin.records.steps.refuse["erase"] = 0
        with self.assert_refused(LinkError):
            self.plugin.create_network()
        self.assertEqual(dict(self.plugin.registry.networks), {})

    def test_failed_creation_keeps_the_vlan_of_another_network(self) -> None:
        self.plugin.create_network(parent="eth1.20")
        self.plugin.steps.refuse["add_macvlan"] = 22
        with self.assert_refused(LinkError):
            self.plugin.create_network(OTHER_NETWORK, parent="eth1.20")
        self.assertEqual(self.plugin.link_names(), {*PLAIN_LINKS, "eth1.20"})
        self.assertEqual(list(self.plugin.registry.networks), [NETWORK])


class RetryTests(PluginTestCase):
    def test_half_made_network_is_removed_at_the_next_start(self) -> None:
        """The engine does not ask for the removal: it repeats the call without its body, and fails."""
        self.plugin.steps.hold.add("read_macvlan")
        self.plugin.begin_create_network(parent="eth1.20", mode="passthru")
        plugin = self.plugin.next_life()
        self.assert_nothing_left(plugin)
        plugin.create_network(OTHER_NETWORK, parent="eth1.20")

    def test_removal_that_a_kill_interrupted_is_finished_at_the_next_start(self) -> None:
        self.plugin.create_network(parent="eth1.20")
        self.plugin.steps.hold.add("delete")
        self.plugin.start(self.plugin.networks.delete(NETWORK))
        self.assertIn("eth1.20", self.plugin.link_names())
        plugin = self.plugin.next_life()
        self.assert_nothing_left(plugin)

    def test_network_removal_can_be_repeated_after_a_disk_error(self) -> None:
        self.plugin.create_network(parent="eth1.20")
        self.plugin.records.steps.refuse["erase"] = errno.ENOSPC
        with self.assert_refused(StateError, "a test refuses it"):
            self.plugin.delete_network()
        self.plugin.records.steps.refuse.clear()
        self.plugin = self.plugin.next_life()
        self.assertIn("eth1.20", self.plugin.link_names())
        self.plugin.delete_network()
        self.assert_nothing_left()

    def test_row_of_a_failed_endpoint_goes_with_the_next_removal(self) -> None:
        self.plugin.create_network()
        self.plugin.records.steps.refuse["erase"] = errno.ENOSPC
        self.plugin.steps.refuse["add_macvlan"] = errno.EPERM
        with self.assert_refused(LinkError):
            self.plugin.create_endpoint()
        self.assertEqual(list(self.plugin.records.rows[RecordKind.ENDPOINT]), [ENDPOINT])
        self.plugin.records.steps.refuse.clear()
        self.plugin.delete_endpoint()
        self.assertEqual(self.plugin.records.rows[RecordKind.ENDPOINT], {})

    def test_disk_error_in_removal_is_reported(self) -> None:
        self.plugin.create_network()
        self.plugin.create_endpoint()
        self.plugin.records.steps.refuse["erase"] = errno.ENOSPC
        with self.assert_refused(StateError):
            self.plugin.delete_endpoint()
        self.plugin.records.steps.refuse.clear()
        self.plugin.delete_endpoint()
        self.assertEqual(self.plugin.link_names(), PLAIN_LINKS)
