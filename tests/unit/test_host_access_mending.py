"""What becomes of access from the host when others are at work on the host, too, or come and go at one moment."""

from __future__ import annotations

from .helpers import NETWORK, OTHER_ENDPOINT, OTHER_NETWORK
from .host_access_cases import HOST, HOST_6, REACHED, HostAccessTestCase, access_request


class ComingAndGoingTests(HostAccessTestCase):
    """Networks that come while the last one of their parent goes."""

    def test_a_network_that_comes_while_the_last_one_goes_has_the_link_and_its_addresses(self) -> None:
        house = self.house
        house.create_network(mode="bridge")
        house.wait(house.wires.ready("eth0"))
        house.taps["eth0"].broken = True
        house.steps.hold.add("find")
        ready = house.start(house.wires.ready("eth0"))  # which has its turn on the parent
        deleted = house.start(house.networks.delete(NETWORK))
        house.steps.hold.clear()
        created = house.start(house.networks.create(access_request(OTHER_NETWORK)))
        house.steps.let_all_go()
        for each in (ready, deleted, created):
            self.successResultOf(each)
        self.assertEqual(self.addresses(), [HOST, HOST_6])
        self.run_container(network_id=OTHER_NETWORK)
        self.assertEqual(self.routes(), REACHED)
        house.delete_endpoint(network_id=OTHER_NETWORK)
        house.wait(house.networks.delete(OTHER_NETWORK))
        self.assert_nothing_left()

    def test_who_comes_after_a_passthru_network_speaks_by_our_own_link(self) -> None:
        house = self.house
        house.create_network(mode="passthru")
        house.wait(house.wires.ready("eth0"))
        self.assertEqual(house.taps["eth0"].mac, "02:00:00:00:00:02")
        house.taps["eth0"].broken = True
        house.steps.hold.add("find")
        house.start(house.wires.ready("eth0"))
        deleted = house.start(house.networks.delete(NETWORK))
        house.steps.hold.clear()
        created = house.start(house.networks.create(access_request(OTHER_NETWORK)))
        house.steps.let_all_go()
        self.successResultOf(deleted)
        self.successResultOf(created)
        house.wait(house.wires.ready("eth0"))
        self.assertEqual(house.taps["eth0"].mac, house.known.host_links["eth0"].mac)

    def test_a_container_that_joins_gives_a_link_without_addresses_those_that_it_lacks(self) -> None:
        self.open()
        self.house.wait(self.house.host_links.remove("eth0"))
        self.house.wait(self.house.host_links.ensure("eth0"))
        self.assertEqual(self.addresses(), [])
        self.run_container(OTHER_ENDPOINT)
        self.assertEqual(self.addresses(), [HOST, HOST_6])
        self.assertEqual(self.routes(), REACHED)
