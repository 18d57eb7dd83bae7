"""What the calls about networks do."""

from __future__ import annotations

from typing import Any, cast

from twisted.logger import ILogObserver, globalLogPublisher

from macvlan_twisted.driver import requests
from macvlan_twisted.driver.contradictions import refuse_what_did_not_take
from macvlan_twisted.driver.network import Subnet
from macvlan_twisted.errors import LinkFailed, Refused
from macvlan_twisted.links.interface import Port
from macvlan_twisted.names import trial_link_name
from macvlan_twisted.state.interface import Kind

from .helpers import (
    ENDPOINT,
    NETWORK,
    OTHER_ENDPOINT,
    OTHER_NETWORK,
    PLAIN_LINKS,
    House,
    HouseTestCase,
    evolve,
    network_request,
    nic,
    plain_kernel,
    subnet,
)


class CreationTests(HouseTestCase):
    def test_a_network_is_kept_and_its_trial_link_removed(self) -> None:
        self.house.create_network(parent="eth1", mode="vepa")
        network = self.house.known.networks[NETWORK]
        self.assertEqual((network.parent, network.mode), ("eth1", "vepa"))
        self.assertEqual(list(self.house.records.kept[Kind.NETWORK]), [NETWORK])
        self.assertIn("add_port", self.house.steps.taken)
        self.assertEqual(self.house.link_names(), PLAIN_LINKS)

    def test_the_row_is_on_disk_before_the_kernel_is_touched(self) -> None:
        self.house.steps.hold.add("add_vlan")
        creation = self.house.start(self.house.networks.create(network_request(parent="eth1.20")))
        self.assertNoResult(creation)
        self.assertEqual(list(self.house.records.kept[Kind.NETWORK]), [NETWORK])

    def test_what_is_not_said_comes_from_the_settings(self) -> None:
        house = House(settings=evolve(self.house.settings, mode="private", mtu=1400))
        house.create_network()
        network = house.known.networks[NETWORK]
        self.assertEqual((network.parent, network.mode, network.mtu), ("eth0", "private", 1400))

    def test_creating_it_again_is_success_and_changes_nothing(self) -> None:
        self.house.create_network(parent="eth1.20")
        before = self.house.records.all_rows(), self.house.kernel.links()
        self.house.create_network(parent="eth1.20")
        self.assertEqual((self.house.records.all_rows(), self.house.kernel.links()), before)

    def test_creating_it_again_in_another_way_is_refused_and_changes_nothing(self) -> None:
        self.house.create_network(parent="eth1")
        before = self.house.records.all_rows(), self.house.kernel.links()
        with self.assert_refused(Refused, NETWORK, "exists with other options"):
            self.house.create_network(parent="eth1", mode="vepa")
        self.assertEqual((self.house.records.all_rows(), self.house.kernel.links()), before)

    def test_wrong_options_touch_nothing(self) -> None:
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
            with self.assert_refused(Refused):
                self.house.create_network(**options)
            self.assert_nothing_left()
            self.assertNotIn("add_port", self.house.steps.taken)
            self.assertEqual(self.house.records.steps.taken, [])

    def test_unfit_parents_are_refused_also_below_a_vlan(self) -> None:
        house = House(plain_kernel(nic("wlan0", 4, is_wireless=True), nic("eth2", 5, bridge="br0")))
        for parent in ("wlan0", "wlan0.20", "eth2", "eth2.20"):
            with self.assert_refused(Refused, parent.partition(".")[0]):
                house.create_network(parent=parent)
        house.create_network(parent="wlan0.20", force_wifi="")
        self.assertEqual(house.known.networks[NETWORK].parent, "wlan0.20")

    def test_options_reach_the_kernel(self) -> None:
        self.house.create_network(
            parent="eth1",
            mode="source",
            mtu="1400",
            bcqueuelen="7",
            bclim="3",
            source_macs="02:00:00:00:00:01",
        )
        self.house.create_endpoint()
        port = self.house.kernel.read_port(
            self.house.known.endpoints[next(iter(self.house.known.endpoints))].link
        )
        assert port is not None
        self.assertEqual(
            (port.parent, port.mode, port.mtu, port.broadcast_queue_length, port.broadcast_limit),
            ("eth1", "source", 1400, 7, 3),
        )
        self.assertEqual(port.source_macs, ("02:00:00:00:00:01",))

    def test_what_the_kernel_did_not_take_is_refused_and_nothing_left(self) -> None:
        def forgetful(port: Port, prove_mac_free: bool = False) -> None:
            add_port(evolve(port, broadcast_queue_length=None), prove_mac_free)

        add_port = self.house.kernel.add_port
        self.patch(self.house.kernel, "add_port", forgetful)
        with self.assert_refused(Refused, "-o bcqueuelen", "77"):
            self.house.create_network(bcqueuelen="77")
        self.assert_nothing_left()


class ReadBackTests(HouseTestCase):
    ASKED = Port("x", "eth0", "bridge", mtu=1400, broadcast_queue_length=5, broadcast_limit=2)

    def test_every_option_that_did_not_take_is_named_with_both_values(self) -> None:
        for change, words in (
            ({"mode": "vepa"}, ("macvlan_mode", "bridge", "vepa")),
            ({"mtu": 1500}, ("mtu", "1400", "1500")),
            ({"broadcast_queue_length": 1000}, ("bcqueuelen", "5", "1000")),
            ({"broadcast_limit": None}, ("bclim", "2", "None")),
        ):
            with self.assert_refused(Refused, *words):
                refuse_what_did_not_take(self.ASKED, evolve(self.ASKED, **change))

    def test_flags_and_lists_that_did_not_take(self) -> None:
        with self.assert_refused(Refused, "nopromisc"):
            refuse_what_did_not_take(evolve(self.ASKED, nopromisc=True), self.ASKED)
        wanted = evolve(self.ASKED, source_macs=("02:00:00:00:00:01", "02:00:00:00:00:02"))
        with self.assert_refused(Refused, "source_macs"):
            refuse_what_did_not_take(wanted, evolve(wanted, source_macs=("02:00:00:00:00:01",)))

    def test_what_was_not_asked_for_may_be_anything_and_order_of_macs_too(self) -> None:
        refuse_what_did_not_take(Port("x", "eth0", "bridge"), self.ASKED)
        wanted = evolve(self.ASKED, source_macs=("02:00:00:00:00:01", "02:00:00:00:00:02"))
        refuse_what_did_not_take(wanted, evolve(wanted, source_macs=wanted.source_macs[::-1]))


class DeletionTests(HouseTestCase):
    def test_everything_goes_with_the_network(self) -> None:
        self.house.create_network(parent="eth1.20")
        self.house.create_endpoint()
        self.house.create_endpoint(OTHER_ENDPOINT, address="192.168.1.8/24")
        self.house.wait(self.house.networks.delete(NETWORK))
        self.assert_nothing_left()

    def test_deleting_what_is_not_there_is_success(self) -> None:
        self.house.wait(self.house.networks.delete(NETWORK))
        self.house.create_network()
        self.house.wait(self.house.networks.delete(NETWORK))
        self.house.wait(self.house.networks.delete(NETWORK))
        self.assert_nothing_left()

    def test_endpoints_of_other_networks_stay(self) -> None:
        self.house.create_network()
        self.house.create_network(OTHER_NETWORK)
        self.house.create_endpoint(OTHER_ENDPOINT, OTHER_NETWORK)
        self.house.wait(self.house.networks.delete(NETWORK))
        self.assertEqual(list(self.house.known.endpoints), [OTHER_ENDPOINT])
        self.assertEqual(len(self.house.foreign_to(PLAIN_LINKS)), 1)

    def test_it_goes_on_after_a_failure_and_reports_it(self) -> None:
        self.house.create_network()
        self.house.create_endpoint()
        self.house.steps.refuse |= {"set_group": 5, "delete": 5}
        with self.assert_refused(LinkFailed, "delete", NETWORK):
            self.house.wait(self.house.networks.delete(NETWORK))
        self.assertNotIn(NETWORK, self.house.known.networks)
        self.assertEqual(self.house.records.kept[Kind.NETWORK], {})


class PassthruTests(HouseTestCase):
    def test_the_parent_is_taken_alone(self) -> None:
        self.house.create_network(mode="passthru")
        for options in ({}, {"mode": "passthru"}):
            with self.assert_refused(Refused, NETWORK, "eth0"):
                self.house.create_network(OTHER_NETWORK, **options)
        self.assertEqual(list(self.house.records.kept[Kind.NETWORK]), [NETWORK])
        self.house.create_network(OTHER_NETWORK, parent="eth1", mode="passthru")

    def test_it_is_refused_where_another_network_is(self) -> None:
        self.house.create_network()
        with self.assert_refused(Refused, NETWORK, "cannot use mode passthru"):
            self.house.create_network(OTHER_NETWORK, mode="passthru")

    def test_it_may_follow_a_network_that_went(self) -> None:
        self.house.create_network()
        self.house.create_endpoint()
        self.house.wait(self.house.networks.delete(NETWORK))
        self.house.create_network(OTHER_NETWORK, mode="passthru")
        self.assertIn(OTHER_NETWORK, self.house.known.networks)

    def test_a_second_container_is_refused_and_leaves_nothing(self) -> None:
        self.house.create_network(mode="passthru")
        self.house.create_endpoint()
        before = self.house.records.all_rows()
        with self.assert_refused(Refused, "passthru", ENDPOINT):
            self.house.create_endpoint(OTHER_ENDPOINT, address="192.168.1.8/24")
        self.assertEqual(self.house.records.all_rows(), before)


class QuestionTests(HouseTestCase):
    def test_gateways_are_never_to_be_made_up(self) -> None:
        check = requests.GatewayCheck({"parent": "eth0"})
        self.assertIs(self.house.wait(self.house.networks.gateway_check(check)), True)

    def test_wrong_options_are_told_before_addresses_are_taken(self) -> None:
        with self.assert_refused(Refused, "parnet"):
            self.house.wait(self.house.networks.gateway_check(requests.GatewayCheck({"parnet": "eth0"})))

    def test_a_swarm_managers_options_come_back_as_they_were(self) -> None:
        options = {"parent": "eth5", "com.docker.network.x": "y"}
        request = requests.AllocateNetwork(NETWORK, options)
        self.assertEqual(self.house.wait(self.house.networks.allocate(request)), options)
        self.house.wait(self.house.networks.free(NETWORK))
        self.assert_nothing_left()


class RouterWarningTests(HouseTestCase):
    def warnings_of(self, *subnets: Subnet, internal: bool = False) -> list[Any]:
        events: list[Any] = []
        observe = cast(ILogObserver, events.append)
        globalLogPublisher.addObserver(observe)
        self.addCleanup(globalLogPublisher.removeObserver, observe)
        request = network_request(subnets=subnets, internal=internal, parent="eth0")
        self.house.wait(self.house.networks.create(request))
        return [event for event in events if event["log_level"].name == "warn"]

    def test_a_pool_that_holds_the_router_without_a_gateway_is_warned_of(self) -> None:
        (event,) = self.warnings_of(subnet("192.168.1.0/24"))
        self.assertEqual(str(event["router"]), "192.168.1.1")
        self.assertIn("--gateway", event["log_format"])

    def test_no_warning_where_no_router_can_be_handed_out(self) -> None:
        self.assertEqual(self.warnings_of(subnet("192.168.1.0/24", "192.168.1.1"), subnet("10.0.0.0/8")), [])

    def test_no_warning_for_an_internal_network(self) -> None:
        self.assertEqual(self.warnings_of(subnet("192.168.1.0/24"), internal=True), [])


class TrialLinkTests(HouseTestCase):
    def test_a_link_of_that_name_which_is_not_ours_is_never_adopted_nor_removed(self) -> None:
        foreign = nic(trial_link_name(NETWORK), 9)
        self.house.kernel.put(foreign)
        with self.assert_refused(LinkFailed, "exists"):
            self.house.create_network()
        self.assertEqual(self.house.kernel.find(foreign.name), foreign)
        self.assert_nothing_left(links={*PLAIN_LINKS, foreign.name})
