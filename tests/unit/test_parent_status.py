"""Parents that appear late, vanish, return, or lose their name to another link, and the links on them."""

from __future__ import annotations

from typing import Any

from macvlan_twisted.driver.models import Network, VlanStep
from macvlan_twisted.driver.parent_plan import lowest_missing
from macvlan_twisted.errors import LinkError, NotFound, RequestRefused
from macvlan_twisted.link_names import dummy_link_name, endpoint_link_name, host_link_name
from macvlan_twisted.option_values import MacvlanMode
from macvlan_twisted.reconcile.link_monitor import LATEST, SOON
from macvlan_twisted.testing.kernel import nic

from .conflict_cases import log_of
from .helpers import ENDPOINT, NETWORK, OTHER_ENDPOINT, OTHER_NETWORK, PLAIN_LINKS, subnet
from .host_access_cases import HOST, HOST_6, REACHED, join
from .test_link_monitor import LinkMonitorTestCase

HOUR = 3600
HOST_ON_ETH1 = "192.168.2.99"
ON_ETH1 = (subnet("192.168.2.0/24", "192.168.2.1"),)


class ParentTestCase(LinkMonitorTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.logged = log_of(self)

    def assert_logged(self, *words: str, times: int = 1) -> None:
        self.assertEqual(len(self.lines_with(*words)), times, self.logged)

    def lines_with(self, *words: str) -> list[str]:
        return [line for line in self.logged if all(word in line for word in words)]

    def remove_nic(self, name: str = "eth0") -> None:
        gone = self.plugin.link_names()
        self.plugin.kernel.delete(name)
        for each in gone - self.plugin.link_names():
            self.tell(each, there=False)

    def add_nic(self, name: str = "eth0", index: int = 90, **facts: Any) -> None:
        self.plugin.kernel.put(nic(name, index, **facts))
        self.tell(name, up=False)

    def rename(self, *names: tuple[str, str]) -> None:
        self.plugin.kernel.rename(*names)
        for old, _ in names:
            self.tell(old, there=False)
        for _, new in names:
            self.tell(new)

    def index(self, name: str) -> int:
        return self.plugin.link(name).index

    def below(self, name: str) -> int:
        return self.plugin.link(name).lower_index

    def replace_nic(self, seconds: float) -> None:
        """Rename eth1, below VLAN eth1.20, and bring another link of that name."""
        self.rename(("eth1", "lan0"))
        self.add_nic("eth1")
        self.pass_time(seconds)

    def start_container(self, endpoint_id: str = ENDPOINT, network_id: str = NETWORK) -> None:
        self.plugin.create_endpoint(endpoint_id, network_id)
        self.plugin.kernel.move_away(endpoint_link_name(endpoint_id))


class AbsentParentTests(ParentTestCase):
    def test_parent_missing_at_start_is_reported_once(self) -> None:
        self.plugin.create_network()
        self.plugin.create_network(OTHER_NETWORK)
        self.plugin.kernel.delete("eth0")
        self.live_again()
        for _ in range(5):
            self.tell("")
            self.pass_time(HOUR)
        (line,) = self.lines_with("eth0: absent")
        self.assertIn("(networks: 2)", line)

    def test_error_says_how_long_the_parent_has_been_absent(self) -> None:
        self.plugin.create_network(conflict_detection="strict")
        self.plugin.kernel.delete("eth0")
        self.live_again()
        self.pass_time(300)
        with self.assert_refused(LinkError, "parent eth0 has been absent for 5 min"):
            self.plugin.create_endpoint()
        with self.assert_refused(RequestRefused, "parent eth0 has been absent for 5 min"):
            self.plugin.create_network(OTHER_NETWORK, parent="eth0")
        self.assertEqual(dict(self.plugin.registry.endpoints), {})

    def test_containers_start_when_the_parent_appears(self) -> None:
        self.plugin.create_network()
        self.plugin.kernel.delete("eth0")
        self.live_again()
        self.pass_time(90)
        self.add_nic()
        self.pass_time(SOON)
        self.assert_logged("parent eth0: present again after 90 s")
        self.plugin.create_endpoint()
        self.assertEqual(self.below(endpoint_link_name(ENDPOINT)), 90)

    def test_containers_start_before_the_event_arrives(self) -> None:
        self.plugin.create_network()
        self.plugin.kernel.delete("eth0")
        self.live_again()
        self.plugin.kernel.put(nic("eth0", 90))
        self.plugin.create_endpoint()
        self.assertIn(endpoint_link_name(ENDPOINT), self.plugin.link_names())

    def test_containers_of_an_absent_parent_can_be_removed(self) -> None:
        self.plugin.create_network()
        self.start_container()
        self.remove_nic()
        self.pass_time(SOON)
        self.assert_logged("parent eth0: absent; containers on it")
        self.plugin.delete_endpoint()
        self.plugin.delete_network()
        self.assert_nothing_left(links=PLAIN_LINKS - {"eth0"})
        self.add_nic()
        self.pass_time(LATEST)
        self.assertEqual(self.lines_with("present again after"), [])

    def test_flapping_parent_is_usable_as_soon_as_it_returns(self) -> None:
        self.open()
        self.run_container()
        for index in range(90, 110):
            self.remove_nic()
            if index % 2:
                self.pass_time(SOON)
            self.add_nic(index=index)
            self.pass_time(SOON)
            self.assertEqual((self.below(self.link), self.routes()), (index, REACHED))

    def test_parent_lost_during_endpoint_creation_leaves_nothing(self) -> None:
        self.plugin.create_network()
        self.plugin.steps.hold.add("add_macvlan")
        creation = self.plugin.begin_create_endpoint()
        self.remove_nic()
        self.plugin.steps.let_all_go()
        failure = self.failureResultOf(creation, LinkError)
        self.assertIn("parent eth0 is absent", str(failure))
        self.assertEqual(dict(self.plugin.registry.endpoints), {})

    def test_parent_lost_before_join_is_named_in_the_error(self) -> None:
        self.open()
        self.plugin.create_endpoint()
        self.remove_nic()
        self.pass_time(SOON)
        with self.assert_refused(NotFound, "parent eth0 has been absent for 0 s"):
            self.plugin.wait(self.plugin.joining.join(join()))
        self.plugin.delete_endpoint()
        self.assertEqual(dict(self.plugin.registry.endpoints), {})

    def test_parent_replaced_during_creation_carries_the_endpoint(self) -> None:
        self.plugin.create_network(parent="eth1.20")
        self.plugin.steps.hold.add("add_macvlan")
        creation = self.plugin.begin_create_endpoint()
        self.remove_nic("eth1")
        self.add_nic("eth1")
        self.plugin.steps.let_all_go()
        self.successResultOf(creation)
        self.assertEqual(self.below(endpoint_link_name(ENDPOINT)), self.index("eth1.20"))
        self.assertEqual(self.below("eth1.20"), 90)

    def test_parent_lost_during_network_creation_leaves_nothing(self) -> None:
        for step in ("add_vlan", "add_macvlan", "read_macvlan"):
            self.plugin.steps.hold.add(step)
            creation = self.plugin.begin_create_network(parent="eth1.20")
            self.remove_nic("eth1")
            self.pass_time(LATEST)
            self.plugin.steps.let_all_go()
            self.failureResultOf(creation, LinkError)
            self.assert_nothing_left(links=PLAIN_LINKS - {"eth1"})
            self.add_nic("eth1", 3)
            self.pass_time(LATEST)
            self.assert_nothing_left()

    def test_parent_of_a_network_in_creation_is_not_reported(self) -> None:
        self.plugin.records.steps.hold.add("save")
        creation = self.plugin.begin_create_network(parent="eth1.20")
        self.tell("eth1")
        self.pass_time(LATEST)
        self.plugin.records.steps.let_all_go()
        self.successResultOf(creation)
        self.assertEqual(self.lines_with("is not there"), [])

    def test_parent_without_networks_is_not_reported(self) -> None:
        self.plugin.create_network(parent="eth1.20")
        self.plugin.steps.hold.add("find")
        self.tell("eth1")
        self.pass_time(SOON)
        self.plugin.steps.let_go()  # for the VLAN
        self.plugin.steps.let_go()  # for its NIC; next is the VLAN as the parent
        look = self.plugin.steps.held.pop()
        self.plugin.steps.hold.clear()
        self.plugin.delete_network()
        look.go()
        self.assertEqual(self.lines_with("is not there"), [])
        self.assertFalse(self.plugin.parents.status.is_in_doubt("eth1.20"))
        self.assert_nothing_left()

    def test_events_of_unrelated_links_cost_nothing(self) -> None:
        self.open()
        self.pass_time(LATEST)
        taken = len(self.plugin.steps.taken)
        for number in range(1000):
            self.tell(f"veth{number}")
            self.tell(f"veth{number}", there=False)
        self.assertEqual(self.plugin.clock.getDelayedCalls(), [])
        self.pass_time(LATEST)
        self.assertEqual(len(self.plugin.steps.taken), taken)

    def test_many_events_of_one_parent_cost_one_check(self) -> None:
        self.open()
        self.pass_time(LATEST)
        for _ in range(1000):
            self.tell("eth0")
        self.assertEqual(len(self.plugin.clock.getDelayedCalls()), 1)

    def test_persistent_kernel_error_is_reported_once(self) -> None:
        self.open()
        self.plugin.steps.refuse["add_macvlan"] = 5
        self.remove(self.link)
        for _ in range(100):
            self.pass_time(LATEST)
        self.assert_logged("tries again within a minute")


class RecreatedLinkTests(ParentTestCase):
    def test_vlans_and_their_links_return_with_the_nic(self) -> None:
        self.open(parent="eth1.20.30")
        self.run_container()
        self.link = host_link_name(self.plugin.records.instance, "eth1.20.30")
        self.remove_nic("eth1")
        self.pass_time(SOON)
        self.assert_logged("parent eth1.20.30: absent, because eth1 is absent")
        with self.assert_refused(LinkError, "because eth1 is absent", "has been absent for"):
            self.plugin.create_endpoint(OTHER_ENDPOINT, address="192.168.1.8/24")
        self.add_nic("eth1", up=False)
        self.pass_time(SOON)
        self.assertEqual(self.below("eth1.20"), 90)
        self.assertEqual(self.below("eth1.20.30"), self.index("eth1.20"))
        self.assertEqual(self.addresses(), [HOST, HOST_6])
        self.assertEqual(self.routes(), REACHED)

    def test_foreign_vlan_is_awaited_not_made(self) -> None:
        self.plugin.kernel.put(nic("eth1.20", 80, kind="vlan", lower_index=3, vlan_id=20))
        self.plugin.create_network(parent="eth1.20")
        self.remove_nic("eth1")
        self.pass_time(SOON)
        self.add_nic("eth1")
        self.pass_time(SOON)
        self.assertNotIn("eth1.20", self.plugin.link_names())
        self.assert_logged("parent eth1.20: absent;")

    def test_removed_dummy_link_is_made_again(self) -> None:
        self.plugin.create_network(internal=True)
        self.remove_nic(dummy_link_name(NETWORK))
        self.pass_time(SOON)
        self.assertIn(dummy_link_name(NETWORK), self.plugin.link_names())

    def test_vlan_goes_if_its_network_goes_while_it_is_made_again(self) -> None:
        self.plugin.create_network(parent="eth1.20")
        self.remove_nic("eth1.20")
        self.plugin.steps.hold.add("add_vlan")
        self.pass_time(SOON)
        deletion = self.plugin.begin_delete_network()
        self.plugin.steps.let_all_go()
        self.successResultOf(deletion)
        self.pass_time(LATEST)
        self.assert_nothing_left()

    def test_vlan_of_a_network_in_deletion_is_not_made_again(self) -> None:
        self.plugin.create_network(parent="eth1.20")
        self.plugin.steps.hold.add("delete")
        deletion = self.plugin.begin_delete_network()
        self.tell("eth1")
        self.pass_time(LATEST)
        self.plugin.steps.let_all_go()
        self.successResultOf(deletion)
        self.pass_time(LATEST)
        self.assert_nothing_left()

    def test_nic_taken_down_by_an_administrator_stays_down(self) -> None:
        self.plugin.create_network(parent="eth1.20")
        self.plugin.kernel.put(nic("eth1", 3, up=False))
        self.tell("eth1", up=False)
        self.pass_time(LATEST)
        link = self.plugin.link("eth1")
        self.assertFalse(link.up)


class RenamedParentTests(ParentTestCase):
    def test_links_of_a_renamed_parent_stay(self) -> None:
        self.open()
        self.run_container()
        before = self.index(self.link)
        self.rename(("eth0", "lan0"))
        self.pass_time(LATEST)
        self.assert_logged("parent eth0: absent; containers on it")
        self.assertEqual((self.index(self.link), self.routes()), (before, REACHED))
        self.rename(("lan0", "eth0"))
        self.pass_time(LATEST)
        self.assertEqual((self.index(self.link), self.routes()), (before, REACHED))
        self.assert_logged("parent eth0: present again")

    def test_host_link_moves_to_the_new_owner_of_the_name(self) -> None:
        self.open()
        self.run_container()
        self.rename(("eth0", "lan0"))
        self.pass_time(SOON)
        self.add_nic(mac="02:00:00:00:01:00")
        self.pass_time(SOON)
        self.assertEqual(self.below(self.link), 90)
        self.assertEqual(self.routes(), REACHED)
        self.assert_logged("which is another NIC now")

    def test_parents_that_swap_names_swap_their_host_links(self) -> None:
        self.open()
        self.run_container()
        self.open(OTHER_NETWORK, parent="eth1", subnets=ON_ETH1, address=HOST_ON_ETH1)
        other = host_link_name(self.plugin.records.instance, "eth1")
        names = self.plugin.link_names()
        self.rename(("eth0", "eth1"), ("eth1", "eth0"))
        self.pass_time(SOON)
        self.assertEqual((self.index("eth0"), self.index("eth1")), (3, 2))
        self.assertEqual((self.below(self.link), self.below(other)), (3, 2))
        self.assertEqual(self.addresses(other), [HOST_ON_ETH1])
        self.assertEqual(self.routes(), REACHED)
        self.assertEqual(self.plugin.link_names(), names)
        self.pass_time(HOUR)
        self.assert_logged("which is another NIC now", times=2)

    def test_names_swapped_while_stopped_are_noticed_at_start(self) -> None:
        self.open()
        self.plugin.kernel.rename(("eth0", "eth1"), ("eth1", "eth0"))
        self.live_again()
        self.assertEqual(self.below(self.link), 3)
        self.assertEqual(self.addresses(), [HOST, HOST_6])

    def test_foreign_link_with_our_name_is_left_alone(self) -> None:
        self.open()
        self.remove_nic(self.link)
        self.plugin.kernel.put(nic(self.link, 77, lower_index=3, alias="theirs"))
        self.tell(self.link)
        self.pass_time(LATEST)
        self.assertEqual(self.index(self.link), 77)

    def test_vlan_is_made_again_on_the_nic_that_has_the_name(self) -> None:
        self.plugin.create_network(parent="eth1.20")
        self.replace_nic(SOON)
        self.assertEqual(self.below("eth1.20"), 90)

    def test_vlan_in_use_is_replaced_by_the_next_container(self) -> None:
        self.plugin.create_network(parent="eth1.20")
        self.start_container()
        self.replace_nic(HOUR)
        self.assertEqual(self.below("eth1.20"), 3)
        self.assert_logged(
            "VLAN eth1.20 is on the wrong NIC, because NICs were renamed and eth1 is another NIC now"
        )
        with self.assert_refused(RequestRefused, "VLAN eth1.20 is on", "stop the containers on it"):
            self.plugin.create_endpoint(OTHER_ENDPOINT, address="192.168.1.8/24")
        self.plugin.delete_endpoint()
        self.plugin.create_endpoint(OTHER_ENDPOINT, address="192.168.1.8/24")
        self.assertEqual(self.below("eth1.20"), 90)
        self.assertEqual(self.below(endpoint_link_name(OTHER_ENDPOINT)), self.index("eth1.20"))

    def test_vlan_is_replaced_when_its_last_container_stops(self) -> None:
        self.plugin.create_network(parent="eth1.20")
        self.start_container()
        self.replace_nic(SOON)
        self.plugin.delete_endpoint()
        self.pass_time(LATEST)
        self.assertEqual(self.below("eth1.20"), 90)
        self.assert_logged("parent eth1.20: usable again")

    def test_vlan_below_foreign_links_stays(self) -> None:
        self.plugin.create_network(parent="eth1.20")
        self.plugin.kernel.put(nic("theirs", 77, lower_index=self.index("eth1.20")))
        self.replace_nic(HOUR)
        self.assertEqual(self.below("eth1.20"), 3)
        self.assertIn("theirs", self.plugin.link_names())


class ReplacedParentTests(ParentTestCase):
    def replace_vlan(self, **facts: Any) -> None:
        self.open(parent="eth1.20")
        self.link = host_link_name(self.plugin.records.instance, "eth1.20")
        self.remove_nic("eth1.20")
        self.add_nic("eth1.20", 91, **facts)
        self.pass_time(SOON)

    def test_same_vlan_made_by_another_program_is_used(self) -> None:
        self.replace_vlan(kind="vlan", lower_index=3, vlan_id=20)
        self.assertEqual(self.below(self.link), 91)
        self.plugin.create_endpoint()
        self.plugin.delete_endpoint()
        self.plugin.wait(self.plugin.links.deletions_finished())
        self.plugin.delete_network()
        self.assert_nothing_left(links={*PLAIN_LINKS, "eth1.20"})

    def test_other_link_with_the_name_of_the_vlan_is_left_alone(self) -> None:
        self.replace_vlan(kind="bridge")
        for _ in range(10):
            self.tell("eth1.20")
            self.pass_time(HOUR)
        self.assertNotIn(self.link, self.plugin.link_names())
        self.assert_logged("eth1.20 exists and is not VLAN 20 of eth1")
        with self.assert_refused(RequestRefused, "eth1.20 exists and is not VLAN 20 of eth1"):
            self.plugin.create_endpoint()
        self.plugin.kernel.delete("eth1.20")
        self.tell("eth1.20", there=False)
        self.pass_time(SOON)
        self.plugin.create_endpoint()
        self.assertIn(self.link, self.plugin.link_names())

    def test_parent_with_a_smaller_mtu_serves_networks_that_fit(self) -> None:
        self.open(mtu="1500")
        self.plugin.create_network(OTHER_NETWORK)
        self.remove_nic()
        self.add_nic(mtu=1400)
        self.pass_time(HOUR)
        (line,) = self.lines_with("mtu 1500 is greater than the MTU of parent eth0, 1400")
        self.assertIn(NETWORK[:12], line)
        with self.assert_refused(RequestRefused, "mtu 1500 is greater than the MTU of parent eth0, 1400"):
            self.plugin.create_endpoint()
        self.plugin.create_endpoint(network_id=OTHER_NETWORK)
        self.assertEqual(self.addresses(), [HOST, HOST_6])

    def test_parent_that_became_a_bridge_port_is_refused(self) -> None:
        self.open()
        self.remove_nic()
        taken = self.plugin.steps.taken.count("add_macvlan")
        self.add_nic(bridge="br0")
        self.pass_time(HOUR)
        self.assert_logged("eth0 is a port of bridge br0")
        self.assertEqual(self.plugin.steps.taken.count("add_macvlan"), taken)
        with self.assert_refused(RequestRefused, "eth0 is a port of bridge br0"):
            self.plugin.create_endpoint()

    def test_parent_that_became_wireless_is_refused_unless_forced(self) -> None:
        self.plugin.create_network()
        self.plugin.create_network(OTHER_NETWORK, allow_wireless_parent="true")
        self.remove_nic()
        self.add_nic(is_wireless=True)
        self.pass_time(SOON)
        with self.assert_refused(RequestRefused, "Wi-Fi"):
            self.plugin.create_endpoint()
        self.plugin.create_endpoint(network_id=OTHER_NETWORK)

    def test_old_network_record_on_a_wireless_parent_still_works(self) -> None:
        self.plugin.kernel.put(nic("eth0", 2, is_wireless=True))
        self.plugin.create_network(allow_wireless_parent="true")
        for rows in self.plugin.records.rows.values():
            for row in rows.values():
                row.pop("force_wifi", None)  # type: ignore[attr-defined]
        self.live_again()
        self.plugin.create_network(allow_wireless_parent="true")  # the engine's second time
        self.plugin.create_endpoint()
        self.assertEqual(self.lines_with("Wi-Fi"), [])


class LowestMissingTests(LinkMonitorTestCase):
    def missing(self, *names: str) -> str:
        steps = (VlanStep("a.1", "a", 1), VlanStep("a.1.2", "a.1", 2))
        return lowest_missing(
            Network("n", "a.1.2", MacvlanMode.BRIDGE, vlan_steps=steps), lambda name: name not in names
        )

    def test_lowest_missing_link_has_to_come_first(self) -> None:
        self.assertEqual(self.missing(), "")
        self.assertEqual(self.missing("a"), "")  # renamed: the links on it are there
        self.assertEqual(self.missing("a.1.2"), "a.1.2")
        self.assertEqual(self.missing("a.1.2", "a.1"), "a.1")
        self.assertEqual(self.missing("a.1.2", "a.1", "a"), "a")
        self.assertEqual(self.missing("a.1.2", "a"), "a.1.2")
