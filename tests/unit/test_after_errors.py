"""What an error or a kill left half done is mended by the next call, or at the next start."""

from __future__ import annotations

import errno

from macvlan_twisted.errors import LinkFailed, Refused, StateFailed
from macvlan_twisted.names import dummy_link_name
from macvlan_twisted.settings import Settings
from macvlan_twisted.state.interface import Kind

from .helpers import (
    ENDPOINT,
    NETWORK,
    OTHER_NETWORK,
    PLAIN_LINKS,
    House,
    HouseTestCase,
    evolve,
    network_request,
    subnet,
)


class NetworkTests(HouseTestCase):
    def test_a_network_that_a_kill_left_half_made_is_removed_at_the_next_start(self) -> None:
        """The engine does not ask for it: it repeats the call without its body, and gives up."""
        self.house.steps.hold.add("read_port")
        self.house.start(self.house.networks.create(network_request(parent="eth1.20", mode="passthru")))
        house = self.house.next_life()
        self.assert_nothing_left(house)
        house.create_network(OTHER_NETWORK, parent="eth1.20")

    def test_a_network_that_was_acknowledged_is_there_at_the_next_start(self) -> None:
        self.house.create_network()
        self.assertEqual(list(self.house.next_life().known.networks), [NETWORK])

    def test_a_removal_that_the_disk_refused_can_be_repeated(self) -> None:
        self.house.create_network()
        self.house.records.steps.refuse["forget"] = errno.ENOSPC
        with self.assert_refused(LinkFailed, NETWORK, "a test refuses it"):
            self.house.wait(self.house.networks.delete(NETWORK))
        self.house.records.steps.refuse.clear()
        self.house.wait(self.house.networks.delete(NETWORK))
        self.assert_nothing_left()

    def test_an_endpoint_whose_row_the_disk_kept_loses_it_with_the_next_removal(self) -> None:
        self.house.create_network()
        self.house.records.steps.refuse["forget"] = errno.ENOSPC
        self.house.steps.refuse["add_port"] = errno.EPERM
        with self.assert_refused(LinkFailed):
            self.house.create_endpoint()
        self.assertEqual(list(self.house.records.kept[Kind.ENDPOINT]), [ENDPOINT])
        self.house.records.steps.refuse.clear()
        self.house.delete_endpoint()
        self.assertEqual(self.house.records.kept[Kind.ENDPOINT], {})

    def test_a_disk_that_refuses_a_removal_is_told(self) -> None:
        self.house.create_network()
        self.house.create_endpoint()
        self.house.records.steps.refuse["forget"] = errno.ENOSPC
        with self.assert_refused(StateFailed):
            self.house.delete_endpoint()
        self.house.records.steps.refuse.clear()
        self.house.delete_endpoint()
        self.assertEqual(self.house.link_names(), PLAIN_LINKS)


class ParentTests(HouseTestCase):
    def reboot(self, **refuse: int) -> House:
        """All links that were made are gone."""
        for link in self.house.kernel.links():
            if link.name not in PLAIN_LINKS:
                self.house.kernel.delete(link.name)
        return self.house.next_life()

    def test_a_vlan_that_could_not_be_made_again_is_still_ours(self) -> None:
        self.house.create_network(parent="eth1.20")
        nic = self.house.kernel.move_away("eth1")
        house = self.reboot()
        self.assertNotIn("eth1.20", house.link_names())
        house.kernel.put(nic)
        house.steps.refuse["add_vlan"] = errno.EOPNOTSUPP
        with self.assert_refused(LinkFailed):
            house.create_endpoint()
        house.steps.refuse.clear()
        house.create_endpoint()
        self.assertIn("eth1.20", house.link_names())
        house.delete_endpoint()
        house.wait(house.networks.delete(NETWORK))
        self.assert_nothing_left(house)

    def test_a_dummy_link_carries_the_mtu_of_its_network(self) -> None:
        house = House(settings=Settings(mtu=9000))
        house.create_network(internal=True)
        link = house.kernel.find(dummy_link_name(NETWORK))
        assert link is not None
        self.assertEqual(link.mtu, 9000)

    def test_a_network_without_any_parent_is_internal_and_has_no_gateway(self) -> None:
        house = House(settings=evolve(self.house.settings, host_interface=None))
        house.create_network()
        self.assertIs(house.known.networks[NETWORK].internal, True)

    def test_a_mtu_that_the_parent_lost_is_named(self) -> None:
        self.house.create_network(mtu="1500")
        link = self.house.kernel.find("eth0")
        assert link is not None
        self.house.kernel.put(evolve(link, mtu=1400))
        with self.assert_refused(LinkFailed, "MTU", "1500"):
            self.house.create_endpoint()


class RouterTests(HouseTestCase):
    def test_the_router_of_another_lan_is_an_address_like_any_other(self) -> None:
        house = House(settings=evolve(self.house.settings, host_interface="eth0"))
        other = subnet("192.168.1.0/24", "192.168.1.254")
        house.wait(house.networks.create(network_request(parent="eth1", subnets=(other,))))
        self.assertIsNotNone(house.create_endpoint(address="192.168.1.1/24"))

    def test_without_a_gateway_of_its_own_the_services_is_kept_free_on_any_parent(self) -> None:
        house = House(settings=evolve(self.house.settings, host_interface="eth0"))
        house.wait(house.networks.create(network_request(parent="eth1", subnets=(subnet("192.168.1.0/24"),))))
        with self.assert_refused(Refused, "--gateway 192.168.1.1"):
            house.create_endpoint(address="192.168.1.1/24")

    def test_a_second_router_is_to_be_kept_free_by_an_auxiliary_address(self) -> None:
        house = House(settings=evolve(self.house.settings, host_interface="eth0"))
        house.wait(
            house.networks.create(network_request(subnets=(subnet("192.168.1.0/24", "192.168.1.254"),)))
        )
        with self.assert_refused(Refused, "--aux-address router=192.168.1.1"):
            house.create_endpoint(address="192.168.1.1/24")
