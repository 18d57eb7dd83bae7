"""Our links and packet sockets, when other programs remove links and parents come and go."""

from __future__ import annotations

from attrs import evolve

from macvlan_twisted.addresses import parse_address
from macvlan_twisted.config import Config
from macvlan_twisted.lan.arp_nd import announcement_frames
from macvlan_twisted.link_names import endpoint_link_name
from macvlan_twisted.netlink.events import LinkEvent
from macvlan_twisted.netlink.kernel import HostRoute
from macvlan_twisted.option_values import ConflictDetection
from macvlan_twisted.reconcile.link_monitor import LATEST, SOON
from macvlan_twisted.testing.kernel import nic

from .conflict_cases import log_of
from .helpers import ENDPOINT, LAN, NETWORK, PluginHarness, plain_kernel
from .host_access_cases import HOST, HOST_6, REACHED, HostAccessTestCase

ON = evolve(LAN, conflict_detection=ConflictDetection.ON)
STRANGER = "02:00:00:00:00:99"


class LinkMonitorTestCase(HostAccessTestCase):
    """A plugin whose link monitor gets the events of the test."""

    config: Config = LAN

    def setUp(self) -> None:
        super().setUp()
        self.live(PluginHarness(plain_kernel(), self.config))

    def live(self, plugin: PluginHarness) -> None:
        self.plugin = plugin
        self.link_monitor = plugin.parts.link_monitor

    def live_again(self) -> None:
        """Start again; the link monitor checks all links at its start."""
        self.live(self.plugin.next_life())
        self.link_monitor.start()
        self.pass_time(SOON)

    def pass_time(self, seconds: float) -> None:
        self.plugin.clock.advance(seconds)

    def tell(self, name: str, there: bool = True, up: bool = True) -> None:
        self.link_monitor.handle_event(LinkEvent(name, there, there and up))

    def remove(self, name: str) -> None:
        self.plugin.kernel.delete(name)
        self.tell(name, there=False)


class LostHostLinkTests(LinkMonitorTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.open()
        self.run_container()
        self.plugin.kernel.move_away(endpoint_link_name(ENDPOINT))
        self.pass_time(LATEST)  # its announcements are over: they would restore our link, too

    def test_removed_host_link_returns_with_addresses_and_routes(self) -> None:
        logged = log_of(self)
        self.remove(self.link)
        self.pass_time(SOON)
        self.assertEqual(self.addresses(), [HOST, HOST_6])
        self.assertEqual(self.routes(), REACHED)
        self.assertEqual(self.plugin.kernel.configured[self.link]["ipv4/arp_ignore"], "1")
        self.assertTrue(any(self.link in line and "created again" in line for line in logged), logged)

    def test_repeated_removal_is_repaired_with_backoff(self) -> None:
        pauses = []
        for _ in range(8):
            self.remove(self.link)
            pause = 0.0
            while not self.addresses():
                self.pass_time(SOON)
                pause += SOON
            pauses.append(round(pause))
        self.assertEqual(pauses, sorted(pauses))
        self.assertGreater(pauses[4], 1)
        self.assertLess(pauses[-1], LATEST + 1)

    def test_host_link_returns_with_its_parent(self) -> None:
        self.plugin.kernel.delete("eth0")
        self.tell(self.link, there=False)
        self.tell("eth0", there=False)
        self.pass_time(LATEST)
        self.plugin.kernel.put(nic("eth0", 9))
        self.tell("eth0", up=False)
        self.pass_time(LATEST)
        self.assertEqual(self.addresses(), [HOST, HOST_6])
        self.assertEqual(self.routes(), REACHED)

    def test_parent_that_appears_after_the_start_gets_its_host_link(self) -> None:
        self.plugin.kernel.delete("eth0")
        self.live_again()
        self.assertNotIn(self.link, self.plugin.link_names())
        self.plugin.kernel.put(nic("eth0", 9))
        self.tell("eth0")
        self.pass_time(SOON)
        self.assertEqual(self.routes(), REACHED)

    def test_routes_dropped_while_down_are_restored_when_up(self) -> None:
        self.tell(self.link, up=False)
        for address, host in (("192.168.1.7", HOST), ("fd00::7", HOST_6)):
            self.plugin.kernel.delete_host_route(
                HostRoute(parse_address(address), self.link, parse_address(host), 142)
            )
        self.pass_time(SOON)
        self.tell(self.link)
        self.pass_time(SOON)
        self.assertEqual(self.routes(), REACHED)

    def test_kernel_error_is_retried(self) -> None:
        self.plugin.steps.refuse["add_macvlan"] = 5
        self.remove(self.link)
        self.pass_time(SOON)
        self.assertNotIn(self.link, self.plugin.link_names())
        self.plugin.steps.refuse.clear()
        self.pass_time(LATEST)
        self.assertEqual(self.routes(), REACHED)

    def test_lost_events_trigger_a_full_check(self) -> None:
        self.plugin.kernel.delete(self.link)
        self.tell("")
        self.pass_time(SOON)
        self.assertEqual(self.routes(), REACHED)

    def test_host_link_of_a_deleted_network_is_not_restored(self) -> None:
        self.plugin.delete_endpoint()
        self.plugin.delete_network()
        self.tell(self.link, there=False)
        self.tell("eth0")
        self.pass_time(LATEST)
        self.assert_nothing_left()

    def test_network_deleted_during_a_repair_leaves_nothing(self) -> None:
        self.plugin.delete_endpoint()
        self.plugin.kernel.delete(self.link)
        self.tell(self.link, there=False)
        self.plugin.steps.hold.add("add_macvlan")
        self.pass_time(SOON)
        deleted = self.plugin.begin_delete_network()
        self.plugin.steps.let_all_go()
        self.successResultOf(deleted)
        self.pass_time(LATEST)
        self.assert_nothing_left()

    def test_close_finishes_begun_repairs(self) -> None:
        self.plugin.kernel.delete(self.link)
        self.tell(self.link, there=False)
        self.plugin.steps.hold.add("add_macvlan")
        self.pass_time(SOON)
        closed = self.plugin.start(self.link_monitor.stop())
        self.assertNoResult(closed)
        self.tell("")
        self.plugin.steps.let_all_go()
        self.successResultOf(closed)
        self.assertEqual(self.routes(), REACHED)
        self.assertEqual(self.plugin.clock.getDelayedCalls(), [])


class AddressMonitoringTests(LinkMonitorTestCase):
    config = ON

    def run_one(self, **options: str) -> None:
        self.plugin.create_network(conflict_detection="off")  # no probe delays it
        self.plugin.create_endpoint()
        self.plugin.kernel.move_away(endpoint_link_name(ENDPOINT))
        rows = self.plugin.records.rows
        for kind in rows:
            if NETWORK in rows[kind]:
                rows[kind][NETWORK] = {**rows[kind][NETWORK], "conflict_detection": "on", **options}

    def somebody_takes_it(self) -> list[str]:
        logged = log_of(self)
        for frame in announcement_frames(parse_address("192.168.1.7"), STRANGER):
            if "eth0" in self.plugin.lan_sockets:
                self.plugin.lan_sockets["eth0"].receive(frame)
        return [line for line in logged if STRANGER in line]

    def test_conflict_is_noticed_after_a_restart(self) -> None:
        self.run_one()
        self.live_again()
        (line,) = self.somebody_takes_it()
        self.assertIn("192.168.1.7", line)

    def test_conflict_is_noticed_if_the_parent_comes_late(self) -> None:
        self.run_one()
        parent = self.plugin.link("eth0")
        self.plugin.kernel.delete("eth0")
        self.live_again()
        self.assertEqual(self.somebody_takes_it(), [])
        self.plugin.kernel.put(parent)
        self.tell("eth0")
        self.pass_time(SOON)
        self.assertEqual(len(self.somebody_takes_it()), 1)

    def test_conflict_is_noticed_after_the_parent_returns(self) -> None:
        self.run_one()
        self.live_again()
        self.plugin.lan_sockets["eth0"].broken = True
        self.plugin.lan_sockets["eth0"].close()
        self.tell("eth0")
        self.pass_time(SOON)
        self.assertEqual(len(self.somebody_takes_it()), 1)

    def test_no_socket_is_opened_with_detection_off(self) -> None:
        self.run_one(conflict_detection="off")
        self.live_again()
        self.assertEqual(self.plugin.lan_sockets, {})

    def test_no_socket_is_opened_without_a_container(self) -> None:
        self.run_one()
        self.plugin.delete_endpoint()
        self.live_again()
        self.assertEqual(self.plugin.lan_sockets, {})
