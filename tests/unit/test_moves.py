"""A DHCP server insists on another address for a running container: who is told, and what is where after it."""

from __future__ import annotations

import errno
from ipaddress import ip_address, ip_interface
from typing import Any, cast

from attrs import evolve
from twisted.internet.defer import ensureDeferred
from twisted.logger import ILogObserver, LogLevel, formatEvent, globalLogPublisher

from macvlan_twisted.driver import requests
from macvlan_twisted.driver.network import Endpoint
from macvlan_twisted.errors import Refused
from macvlan_twisted.records import from_document
from macvlan_twisted.state.interface import Kind
from macvlan_twisted.testing.sandboxes import FakeSandbox

from .dhcp_lan import MAC, RELEASE, Server
from .helpers import ENDPOINT, NETWORK, House, endpoint_request, network_request, subnet
from .test_leases import LeasesTestCase

SANDBOX = "/var/run/docker/netns/1f2e3d4c5b6a"
OLD, NEW, THIRD = "192.168.77.100", "192.168.77.150", "192.168.77.170"
CALL = requests.EndpointCall(NETWORK, ENDPOINT)
NOBODYS = evolve(subnet("0.0.0.0/0"), is_nobodys=True)


class MovesTestCase(LeasesTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.server = Server(t1=10, t2=1800)
        self.told: list[str] = []
        observer = cast(ILogObserver, self.note)
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)
        self.sandbox = FakeSandbox(MAC, [ip_interface(f"{OLD}/24")], ip_address("192.168.77.1"))
        self.house.sandboxes.by_path[SANDBOX] = self.sandbox

    def note(self, event: Any) -> None:
        if event.get("log_level") in (LogLevel.warn, LogLevel.error):
            self.told.append(formatEvent(event))

    def run_container(self, readdress: str = "true", sandbox: str = SANDBOX) -> None:
        self.house.create_network(
            subnets=(NOBODYS,), parent="eth0", dhcp="true", dhcp_readdress=readdress, conflict_detection="off"
        )
        self.house.wait(self.house.endpoints.create(endpoint_request(ENDPOINT, NETWORK, None, MAC)))
        self.house.wait(self.house.endpoints.join(requests.Join(NETWORK, ENDPOINT, sandbox)))
        self.house.clock.advance(5)  # announcements are over

    def insist(self, address: str, house: House | None = None, seconds: int = 30) -> None:
        """The server says no to a renewal, and then offers another address."""
        self.server.address = address
        for _ in range(seconds):
            (house or self.house).clock.advance(1)

    def row(self) -> Endpoint:
        (document,) = self.house.records.kept[Kind.ENDPOINT].values()
        return from_document(Endpoint, document)

    def shown(self, house: House | None = None) -> str:
        house = house or self.house
        return house.wait(house.endpoints.operational_info(CALL))["address"]

    def assert_has(self, address: str, house: House | None = None) -> None:
        self.assertEqual([str(each) for each in self.sandbox.addresses], [f"{address}/24"])
        self.assertEqual(self.shown(house), f"{address}/24")
        self.assertEqual(str(self.row().address), f"{address}/24")
        (lease,) = self.rows()
        self.assertEqual(str(lease.facts.address), address)
        self.assertEqual(str(lease.told_address), OLD)

    def announced(self) -> set[str]:
        """The addresses that are announced in IPv4."""
        frames = [frame for tap in self.house.taps.values() for frame in tap.sent]
        return {str(ip_address(frame[28:32])) for frame in frames if frame[12:14] == b"\x08\x06"}

    def released(self) -> list[str]:
        return [said.ciaddr for said in self.heard if said.kind == RELEASE]


class MovingTests(MovesTestCase):
    def test_the_container_has_the_new_address_wherever_one_looks_but_in_the_engine(self) -> None:
        self.run_container()
        self.house.taps["eth0"].sent.clear()
        self.insist(NEW)
        self.assert_has(NEW)
        self.assertEqual(self.announced(), {NEW})
        self.assertTrue(
            any(f"moved from {OLD}/24 to {NEW}/24" in line and MAC in line for line in self.told), self.told
        )
        self.assertEqual(self.released(), [])

    def test_with_the_container_the_lease_of_its_new_address_goes(self) -> None:
        self.run_container()
        self.insist(NEW)
        self.house.delete_endpoint()
        self.assertEqual(self.released(), [NEW])
        self.assertEqual(self.rows(), [])
        self.assertNotIn(Kind.ENDPOINT, self.house.records.all_rows())

    def test_it_may_happen_again_and_the_engine_still_shows_the_first_one(self) -> None:
        self.run_container()
        self.insist(NEW)
        self.insist(THIRD)
        self.assert_has(THIRD)
        self.assertEqual(str(self.row().told_address), f"{OLD}/24")

    def test_a_repeated_call_is_answered_as_the_first_time(self) -> None:
        self.run_container()
        self.insist(NEW)
        again = self.house.wait(self.house.endpoints.create(endpoint_request(ENDPOINT, NETWORK, None, MAC)))
        self.assertEqual(str(again.address), f"{OLD}/24")
        self.assert_has(NEW)

    def test_a_container_stays_where_the_network_does_not_want_it_and_the_log_says_what_to_do(self) -> None:
        self.run_container("false")
        self.assertEqual(self.row().sandbox, "")
        self.insist(NEW)
        self.assert_has(OLD)
        self.assertEqual(self.released(), [NEW])
        (line,) = [each for each in self.told if f"keeps {OLD}" in each]
        for word in (MAC, OLD, NEW, "restart the container", "-o dhcp_readdress=true"):
            self.assertIn(word, line)

    def test_it_is_told_once_that_a_container_stays(self) -> None:
        self.run_container("false")
        self.insist(NEW, seconds=600)
        self.assertEqual(len([each for each in self.told if f"keeps {OLD}" in each]), 1)


class FailingTests(MovesTestCase):
    def assert_stays(self, *words: str) -> None:
        self.insist(NEW)
        self.assert_has(OLD)
        self.assertIsNone(self.row().told_address)
        self.assertEqual(self.released(), [NEW])
        (line,) = [each for each in self.told if "cannot be moved" in each]
        for word in (MAC, OLD, NEW, "restart it", *words):
            self.assertIn(word, line)

    def test_a_sandbox_that_cannot_be_entered_leaves_all_as_it_was(self) -> None:
        self.run_container()
        self.house.sandboxes.lacks = "it needs CAP_SYS_ADMIN"
        self.assert_stays("CAP_SYS_ADMIN")

    def test_a_kernel_that_refuses_leaves_all_as_it_was(self) -> None:
        self.run_container()
        self.house.sandboxes.fails = errno.EIO
        self.assert_stays("a test refuses it")

    def test_a_sandbox_of_somebody_else_is_not_touched(self) -> None:
        self.run_container()
        self.sandbox.mac = "7a:42:00:00:00:99"
        self.assert_stays(MAC)

    def test_a_path_that_is_no_sandbox_is_not_kept(self) -> None:
        self.run_container(sandbox="/etc/passwd")
        self.assertEqual(self.row().sandbox, "")
        self.assert_stays("did not say where")

    def test_a_disk_that_is_full_leaves_the_container_alone(self) -> None:
        self.run_container()
        self.house.records.steps.refuse["save"] = errno.ENOSPC
        self.insist(NEW)
        self.house.records.steps.refuse.clear()
        self.assert_has(OLD)
        self.flushLoggedErrors()

    def test_a_sandbox_that_is_not_visible_is_found_by_the_engines_word(self) -> None:
        self.run_container()
        self.house.sandboxes.by_path = {"/proc/4711/ns/net": self.sandbox}
        self.house.engine.processes[NETWORK, ENDPOINT] = 4711
        self.insist(NEW)
        self.assert_has(NEW)

    def test_a_container_that_goes_meanwhile_is_not_moved(self) -> None:
        self.run_container()
        self.house.steps.hold.add("is_there")
        self.insist(NEW)
        self.house.delete_endpoint()
        self.house.steps.let_all_go()
        self.assertEqual([str(each) for each in self.sandbox.addresses], [f"{OLD}/24"])
        self.assertEqual(self.rows(), [])
        self.assertNotIn(Kind.ENDPOINT, self.house.records.all_rows())


class KilledTests(MovesTestCase):
    """A kill in the middle, and the next start."""

    def start_again(self) -> House:
        house = self.next_life()
        house.wait(house.moves.begin(False))
        self.resume(house)
        return house

    def insist_and_kill(self, function: str) -> None:
        """A kill when *function* is called in the sandbox, or was called there and its answer is not heard."""
        self.house.steps.hold.add("move")
        self.insist(NEW)
        (step,) = self.house.steps.held
        if function == "after":
            step.do()

    def test_a_move_that_was_only_intended_is_made(self) -> None:
        self.run_container()
        self.insist_and_kill("before")
        house = self.start_again()
        self.assert_has(NEW, house)
        self.assertEqual(self.released(), [])

    def test_a_kill_while_a_move_is_finished_leaves_the_container_between_its_addresses(self) -> None:
        self.run_container()
        self.insist_and_kill("before")
        second = self.next_life()
        second.steps.hold.add("move")
        ensureDeferred(second.moves.begin(False))
        self.assertEqual(len(second.steps.held), 1)
        third = self.start_again()
        self.assert_has(NEW, third)
        self.assertEqual(self.released(), [])
        self.assertTrue(any(f"moved from {OLD}/24 to {NEW}/24" in line for line in self.told), self.told)

    def test_a_move_that_was_made_is_known(self) -> None:
        self.run_container()
        self.insist_and_kill("after")
        house = self.start_again()
        self.assert_has(NEW, house)
        self.assertEqual(self.released(), [])
        self.insist(THIRD, house)
        self.assert_has(THIRD, house)

    def test_a_move_that_was_not_begun_is_given_up_and_comes_again(self) -> None:
        self.run_container()
        self.house.steps.hold.add("is_there")
        self.insist(NEW)
        house = self.start_again()
        self.assertEqual(self.released(), [NEW])
        self.insist(NEW, house)
        self.assert_has(NEW, house)

    def test_a_moved_container_keeps_its_lease_over_a_restart(self) -> None:
        self.run_container()
        self.insist(NEW)
        house = self.start_again()
        self.insist(NEW, house)
        self.assert_has(NEW, house)
        self.assertEqual(self.released(), [])


class CreationTests(MovesTestCase):
    def create(self, **options: Any) -> None:
        request = network_request(subnets=(NOBODYS,), parent="eth0", dhcp="true", **options)
        self.house.wait(self.house.networks.create(request))

    def test_what_cannot_be_done_is_refused_where_it_is_asked_for(self) -> None:
        self.house.sandboxes.lacks = "it needs CAP_SYS_ADMIN"
        with self.assert_refused(Refused, "-o dhcp_readdress=true", "CAP_SYS_ADMIN", "leave that option out"):
            self.create(dhcp_readdress="true")
        self.create()

    def test_where_nothing_is_leased_it_is_refused(self) -> None:
        with self.assert_refused(Refused, "-o dhcp_readdress=true", "--ipam-driver null"):
            self.house.create_network(dhcp_readdress="true")

    def test_a_default_that_cannot_be_kept_is_told_at_the_start_and_keeps_nobody_from_starting(self) -> None:
        self.house.sandboxes.lacks = "it needs CAP_SYS_ADMIN"
        self.house.wait(self.house.moves.begin(True))
        self.assertEqual(self.told, ["dhcp_readdress=true has no effect: it needs CAP_SYS_ADMIN"])
