"""A DHCP server insists on another address for a running container: the driver moves it there, or explains why not."""

from __future__ import annotations

import errno
from ipaddress import ip_address, ip_interface
from typing import Any

from attrs import evolve
from twisted.internet.defer import ensureDeferred
from twisted.logger import LogLevel

from macvlan_twisted.driver import requests
from macvlan_twisted.driver.models import Endpoint
from macvlan_twisted.errors import RequestRefused
from macvlan_twisted.state.interfaces import RecordKind
from macvlan_twisted.state.serialize import from_document
from macvlan_twisted.testing.sandboxes import FakeSandbox

from .conflict_cases import log_of
from .dhcp_lan import MAC, RELEASE, Server
from .helpers import ENDPOINT, NETWORK, PluginHarness, network_request, subnet
from .test_leases import LeasesTestCase

SANDBOX = "/var/run/docker/netns/1f2e3d4c5b6a"
OLD, NEW, THIRD = "192.168.77.100", "192.168.77.150", "192.168.77.170"
CALL = requests.EndpointCall(NETWORK, ENDPOINT)
NOBODYS = evolve(subnet("0.0.0.0/0"), null_ipam=True)


class ReaddressTestCase(LeasesTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.server = Server(t1=10, t2=1800)
        self.logged = log_of(self, LogLevel.warn)
        self.sandbox = FakeSandbox(MAC, [ip_interface(f"{OLD}/24")], ip_address("192.168.77.1"))
        self.plugin.sandboxes.by_path[SANDBOX] = self.sandbox

    def run_container(self, readdress: str = "true", sandbox: str = SANDBOX) -> None:
        self.plugin.create_network(
            subnets=(NOBODYS,), parent="eth0", dhcp="true", dhcp_readdress=readdress, conflict_detection="off"
        )
        self.plugin.create_endpoint(ENDPOINT, NETWORK, None, MAC)
        self.plugin.wait(self.plugin.joining.join(requests.Join(NETWORK, ENDPOINT, sandbox)))
        self.plugin.clock.advance(5)  # announcements are over

    def insist(self, address: str, plugin: PluginHarness | None = None, seconds: int = 30) -> None:
        """The server refuses a renewal and offers another address."""
        self.server.address = address
        for _ in range(seconds):
            (plugin or self.plugin).clock.advance(1)

    def row(self) -> Endpoint:
        (document,) = self.plugin.records.rows[RecordKind.ENDPOINT].values()
        return from_document(Endpoint, document)

    def shown(self, plugin: PluginHarness | None = None) -> str:
        plugin = plugin or self.plugin
        return plugin.wait(plugin.endpoints.operational_info(CALL))["address"]

    def assert_has(self, address: str, plugin: PluginHarness | None = None) -> None:
        self.assertEqual([str(each) for each in self.sandbox.addresses], [f"{address}/24"])
        self.assertEqual(self.shown(plugin), f"{address}/24")
        self.assertEqual(str(self.row().address), f"{address}/24")
        (lease,) = self.rows()
        self.assertEqual(str(lease.binding.address), address)
        self.assertEqual(str(lease.reported_address), OLD)

    def announced(self) -> set[str]:
        """The IPv4 addresses that are announced."""
        frames = [frame for tap in self.plugin.lan_sockets.values() for frame in tap.sent]
        return {str(ip_address(frame[28:32])) for frame in frames if frame[12:14] == b"\x08\x06"}

    def released(self) -> list[str]:
        return [message.ciaddr for message in self.heard if message.kind == RELEASE]


class ReaddressTests(ReaddressTestCase):
    def test_new_address_is_everywhere_but_in_the_engine(self) -> None:
        self.run_container()
        self.plugin.lan_sockets["eth0"].sent.clear()
        self.insist(NEW)
        self.assert_has(NEW)
        self.assertEqual(self.announced(), {NEW})
        self.assertTrue(
            any(f"changed from {OLD}/24 to {NEW}/24" in line and MAC in line for line in self.logged),
            self.logged,
        )
        self.assertEqual(self.released(), [])

    def test_lease_of_the_new_address_is_released_with_the_container(self) -> None:
        self.run_container()
        self.insist(NEW)
        self.plugin.delete_endpoint()
        self.assertEqual(self.released(), [NEW])
        self.assertEqual(self.rows(), [])
        self.assertNotIn(RecordKind.ENDPOINT, self.plugin.records.all_rows())

    def test_second_readdress_keeps_the_first_reported_address(self) -> None:
        self.run_container()
        self.insist(NEW)
        self.insist(THIRD)
        self.assert_has(THIRD)
        self.assertEqual(str(self.row().reported_address), f"{OLD}/24")

    def test_repeated_creation_reports_the_first_address(self) -> None:
        self.run_container()
        self.insist(NEW)
        again = self.plugin.begin_create_endpoint(address=None, mac=MAC)
        self.assertEqual(str(self.successResultOf(again).address), f"{OLD}/24")
        self.assert_has(NEW)

    def test_container_keeps_its_address_without_the_option(self) -> None:
        self.run_container("false")
        self.assertEqual(self.row().sandbox, "")
        self.insist(NEW)
        self.assert_has(OLD)
        self.assertEqual(self.released(), [NEW])
        (line,) = [each for each in self.logged if f"still uses {OLD}" in each]
        for word in (MAC, OLD, NEW, "restart the container", f"reserve {OLD} for {MAC}"):
            self.assertIn(word, line)

    def test_kept_address_is_logged_once(self) -> None:
        self.run_container("false")
        self.insist(NEW, seconds=600)
        self.assertEqual(len([each for each in self.logged if f"still uses {OLD}" in each]), 1)


class FailedReaddressTests(ReaddressTestCase):
    def assert_stays(self, *words: str) -> None:
        self.insist(NEW)
        self.assert_has(OLD)
        self.assertIsNone(self.row().reported_address)
        self.assertEqual(self.released(), [NEW])
        (line,) = [each for each in self.logged if "cannot change" in each]
        for word in (MAC, OLD, NEW, "restart the container", *words):
            self.assertIn(word, line)

    def test_missing_capability_leaves_the_old_address(self) -> None:
        self.run_container()
        self.plugin.sandboxes.lacks = "it needs CAP_SYS_ADMIN"
        self.assert_stays("CAP_SYS_ADMIN")

    def test_kernel_error_leaves_the_old_address(self) -> None:
        self.run_container()
        self.plugin.sandboxes.fails = errno.EIO
        self.assert_stays("a test refuses it")

    def test_sandbox_with_another_mac_is_not_touched(self) -> None:
        self.run_container()
        self.sandbox.mac = "7a:42:00:00:00:99"
        self.assert_stays(MAC)

    def test_path_that_is_no_sandbox_is_not_saved(self) -> None:
        self.run_container(sandbox="/etc/passwd")
        self.assertEqual(self.row().sandbox, "")
        self.assert_stays("did not report the container's sandbox")

    def test_full_disk_leaves_the_old_address(self) -> None:
        self.run_container()
        self.plugin.records.steps.refuse["save"] = errno.ENOSPC
        self.insist(NEW)
        self.plugin.records.steps.refuse.clear()
        self.assert_has(OLD)
        self.flushLoggedErrors()

    def test_invisible_sandbox_is_found_by_asking_the_engine(self) -> None:
        self.run_container()
        self.plugin.sandboxes.by_path = {"/proc/4711/ns/net": self.sandbox}
        self.plugin.engine.processes[NETWORK, ENDPOINT] = 4711
        self.insist(NEW)
        self.assert_has(NEW)

    def test_container_removed_meanwhile_is_left_alone(self) -> None:
        self.run_container()
        self.plugin.steps.hold.add("is_there")
        self.insist(NEW)
        self.plugin.delete_endpoint()
        self.plugin.steps.let_all_go()
        self.assertEqual([str(each) for each in self.sandbox.addresses], [f"{OLD}/24"])
        self.assertEqual(self.rows(), [])
        self.assertNotIn(RecordKind.ENDPOINT, self.plugin.records.all_rows())


class KilledReaddressTests(ReaddressTestCase):
    """A kill in the middle, and the next start."""

    def start_again(self) -> PluginHarness:
        plugin = self.next_life()
        plugin.wait(plugin.moves.finish(plugin.leases, False))
        self.resume(plugin)
        return plugin

    def insist_and_kill(self, when: str) -> None:
        """A kill ``before`` or ``after`` the change in the sandbox."""
        self.plugin.steps.hold.add("move")
        self.insist(NEW)
        (step,) = self.plugin.steps.held
        if when == "after":
            step.do()

    def test_readdress_survives_a_second_kill(self) -> None:
        self.run_container()
        self.insist_and_kill("before")
        second = self.next_life()
        second.steps.hold.add("move")
        ensureDeferred(second.moves.finish(second.leases, False))
        self.assertEqual(len(second.steps.held), 1)
        third = self.start_again()
        self.assert_has(NEW, third)
        self.assertEqual(self.released(), [])
        self.assertTrue(
            any(f"changed from {OLD}/24 to {NEW}/24" in line for line in self.logged), self.logged
        )

    def test_finished_readdress_is_noticed_at_the_next_start(self) -> None:
        self.run_container()
        self.insist_and_kill("after")
        plugin = self.start_again()
        self.assert_has(NEW, plugin)
        self.assertEqual(self.released(), [])
        self.insist(THIRD, plugin)
        self.assert_has(THIRD, plugin)

    def test_readdress_not_begun_is_repeated_later(self) -> None:
        self.run_container()
        self.plugin.steps.hold.add("is_there")
        self.insist(NEW)
        plugin = self.start_again()
        self.assertEqual(self.released(), [NEW])
        self.insist(NEW, plugin)
        self.assert_has(NEW, plugin)

    def test_readdressed_container_keeps_its_lease_over_a_restart(self) -> None:
        self.run_container()
        self.insist(NEW)
        plugin = self.start_again()
        self.insist(NEW, plugin)
        self.assert_has(NEW, plugin)
        self.assertEqual(self.released(), [])


class CreationTests(ReaddressTestCase):
    def create(self, **options: Any) -> None:
        request = network_request(subnets=(NOBODYS,), parent="eth0", dhcp="true", **options)
        self.plugin.wait(self.plugin.networks.create(request))

    def test_option_is_refused_without_the_capability(self) -> None:
        self.plugin.sandboxes.lacks = "it needs CAP_SYS_ADMIN"
        with self.assert_refused(
            RequestRefused, "-o dhcp_readdress=true", "CAP_SYS_ADMIN", "leave the option out"
        ):
            self.create(dhcp_readdress="true")
        self.create()

    def test_option_is_refused_without_dhcp(self) -> None:
        with self.assert_refused(RequestRefused, "-o dhcp_readdress=true", "--ipam-driver null"):
            self.plugin.create_network(dhcp_readdress="true")

    def test_default_without_the_capability_is_logged_at_start(self) -> None:
        self.plugin.sandboxes.lacks = "it needs CAP_SYS_ADMIN"
        self.plugin.wait(self.plugin.moves.finish(self.plugin.leases, True))
        self.assertEqual(self.logged, ["dhcp_readdress=true: no effect (it needs CAP_SYS_ADMIN)"])
