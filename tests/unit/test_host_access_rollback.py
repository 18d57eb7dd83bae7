"""Host access leaves nothing where it fails; and the addresses of the host are probed for and defended on the LAN."""

from __future__ import annotations

from attrs import evolve

from macvlan_twisted.addresses import parse_address
from macvlan_twisted.errors import LinkError, RequestRefused, StateError
from macvlan_twisted.lan.arp_nd import AddressClaim, Probe, answer_frame, decode, probe_frame
from macvlan_twisted.option_values import ConflictDetection
from macvlan_twisted.state.interfaces import RecordKind

from .helpers import LAN, NETWORK, OTHER_NETWORK, PLAIN_LINKS, PluginHarness, on_disk, on_kernel, subnet
from .host_access_cases import BOTH, HOST, HOST_6, REACHED, HostAccessTestCase, access_request, join

UNDOING = ("delete", "delete_address")
"""Steps that the next start repeats if they fail."""


class RollbackTests(HostAccessTestCase):
    def open_and_run(self) -> None:
        self.open()
        self.run_container()

    def open_and_create(self) -> None:
        self.open()
        self.plugin.create_endpoint(address_v6="fd00::7/64")

    def join(self) -> None:
        self.plugin.wait(self.plugin.joining.join(join()))

    def test_error_at_any_step_of_network_creation_leaves_nothing(self) -> None:
        def check() -> None:
            self.assert_nothing_left()
            self.assertEqual(self.plugin.kernel.host_addresses(), {})
            self.assertEqual(self.plugin.host_access.addresses_on("eth0"), ())

        for which in (on_kernel, on_disk):
            self.refuse_each_step(which, self.open, check, undoing=UNDOING, least=2)

    def test_failed_second_network_leaves_the_first_ones_access(self) -> None:
        def second() -> None:
            self.open(OTHER_NETWORK, subnets=(subnet("10.1.0.0/24"),), address="10.1.0.99")

        def check() -> None:
            self.assertEqual(self.addresses(), [HOST, HOST_6])
            self.assertEqual(self.routes(), REACHED)
            self.assertEqual(list(self.plugin.registry.networks), [NETWORK])

        for which in (on_kernel, on_disk):
            self.refuse_each_step(which, second, check, self.open_and_run, undoing=UNDOING, least=2)

    def test_kernel_error_in_join_leaves_the_routes_as_they_were(self) -> None:
        for prepare, expected in ((self.open_and_create, []), (self.open_and_run, REACHED)):

            def check(expected: list[str] = expected) -> None:
                self.assertEqual(self.routes(), expected)

            self.refuse_each_step(on_kernel, self.join, check, prepare, undoing=UNDOING, least=2)

    def test_failed_join_leaves_a_missing_link_missing_or_complete(self) -> None:
        def prepare() -> None:
            self.open_and_create()
            self.plugin.kernel.delete(self.link)

        def check() -> None:
            if self.plugin.kernel.exists(self.link):
                self.assertEqual(self.addresses(), [HOST, HOST_6])
            self.assertEqual(self.routes(), [])

        self.refuse_each_step(on_kernel, self.join, check, prepare, undoing=UNDOING, least=2)

    def test_removal_after_a_failed_join_removes_the_routes(self) -> None:
        """The engine sends DeleteEndpoint after a failed Join (docs/reference/protocol)."""
        self.open_and_create()
        self.plugin.records.steps.refuse["save"] = 0
        with self.assert_refused(StateError):
            self.join()
        self.plugin.records.steps.refuse.clear()
        self.plugin.delete_endpoint()
        self.assertEqual(self.routes(), [])

    def test_failed_removal_is_completed_at_the_next_start(self) -> None:
        self.open_and_run()
        self.plugin.steps.refuse["delete_host_route"] = 5
        with self.assert_refused(LinkError, "delete_host_route"):
            self.plugin.delete_endpoint()
        self.assertEqual(dict(self.plugin.registry.endpoints), {})
        self.plugin.steps.refuse.clear()
        self.plugin = self.plugin.next_life()
        self.assertEqual(self.routes(), [])

    def test_network_deletion_continues_after_errors(self) -> None:
        self.open_and_run()
        self.plugin.steps.refuse |= {"delete_host_route": 5, "delete_address": 5}
        with self.assert_refused(LinkError, "delete_host_route", "delete_address"):
            self.plugin.delete_network()
        self.plugin.steps.refuse.clear()
        self.plugin.wait(self.plugin.links.deletions_finished())
        self.assert_nothing_left()

    def test_failed_creation_can_be_repeated(self) -> None:
        for step in ("add_address", "configure", "set_up", "add_macvlan", "host_addresses"):
            self.plugin.steps.refuse[step] = 22
            with self.assert_refused(LinkError):
                self.open()
            self.plugin.steps.refuse.clear()
        self.open()
        self.run_container()
        self.assertEqual(self.routes(), REACHED)


class HostAddressConflictTests(HostAccessTestCase):
    """A neighbour has :data:`HOST_6`; :data:`HOST` is free."""

    def setUp(self) -> None:
        super().setUp()
        self.plugin = PluginHarness(config=evolve(LAN, conflict_detection=ConflictDetection.ON))
        self.plugin.answerers.append(self.answer)

    def answer(self, frame: bytes) -> list[bytes]:
        message = decode(frame)
        if isinstance(message, Probe) and str(message.address) == HOST_6:
            return [answer_frame(message.address, "02:00:00:00:00:02", message.mac)]
        return []

    def pass_time(self) -> None:
        for _ in range(60):
            self.plugin.clock.advance(0.01)

    def open_ipv4(self) -> None:
        made = self.plugin.start(self.plugin.networks.create(access_request(subnets=BOTH[:1], address=HOST)))
        self.pass_time()
        self.assertIsNone(self.successResultOf(made))

    def answers_for(self, address: str) -> bool:
        tap = self.plugin.lan_sockets["eth0"]
        before = len(tap.sent)
        tap.receive(probe_frame(parse_address(address), "02:00:00:00:00:03"))
        messages = [decode(frame) for frame in tap.sent[before:]]
        return any(isinstance(each, AddressClaim) and str(each.address) == address for each in messages)

    def test_address_of_a_neighbour_is_refused_with_its_mac(self) -> None:
        self.plugin.create_network(OTHER_NETWORK)  # it keeps the socket open
        made = self.plugin.start(self.plugin.networks.create(access_request()))
        self.pass_time()
        error = str(self.failureResultOf(made, RequestRefused).getErrorMessage())
        self.assertIn(f"host address {HOST_6} is in use on eth0 by MAC 02:00:00:00:00:02", error)
        self.assertFalse(self.answers_for(HOST))
        self.assertEqual(list(self.plugin.registry.networks), [OTHER_NETWORK])
        self.assertEqual(self.plugin.host_access.addresses_on("eth0"), ())

    def test_reply_of_the_parent_is_no_conflict(self) -> None:
        """Linux answers ARP on all links unless ``arp_ignore`` is set."""
        self.open_ipv4()
        parent = self.plugin.link("eth0")
        for mac, seen in ((parent.mac, []), ("02:00:00:00:00:09", [HOST])):
            frame = answer_frame(parse_address(HOST), mac, "02:00:00:00:00:03")
            self.plugin.lan_sockets["eth0"].receive(frame)
            rows = self.plugin.records.all_rows().get(RecordKind.CONFLICT, {})
            self.assertEqual([row["address"] for row in rows.values()], seen)

    def test_host_address_is_defended_while_the_network_exists(self) -> None:
        self.plugin.create_network(OTHER_NETWORK)
        self.open_ipv4()
        self.assertTrue(self.answers_for(HOST))
        self.plugin.delete_network()
        self.assertFalse(self.answers_for(HOST))
        self.assertEqual(self.plugin.link_names() - PLAIN_LINKS - {self.link}, set())
