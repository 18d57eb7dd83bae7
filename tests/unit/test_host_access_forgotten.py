"""An engine has forgotten a container, and given its address to one of another network: the host reaches that one."""

from __future__ import annotations

from macvlan_twisted.link_names import endpoint_link_name

from .helpers import ENDPOINT, NETWORK, OTHER_ENDPOINT, OTHER_NETWORK
from .host_access_cases import BOTH, HOST, HostAccessTestCase, join

OTHER_HOST = "192.168.1.98"
IPV4 = BOTH[:1]
FIRST, SECOND = f"192.168.1.7 from {HOST}", f"192.168.1.7 from {OTHER_HOST}"


class ReallocatedAddressTests(HostAccessTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.open(address=HOST, subnets=IPV4)
        self.open(OTHER_NETWORK, address=OTHER_HOST, subnets=IPV4)
        self.run_container(address_v6=None)
        self.plugin.kernel.move_away(endpoint_link_name(ENDPOINT), up=True)
        # With a MAC that the user chose: that of the address is the forgotten one's.
        self.plugin.create_endpoint(OTHER_ENDPOINT, OTHER_NETWORK, mac="02:00:00:00:00:07")
        self.plugin.wait(self.plugin.endpoints.join(join(OTHER_ENDPOINT, OTHER_NETWORK, "/run/netns/other")))
        self.plugin.kernel.move_away(endpoint_link_name(OTHER_ENDPOINT), up=True)

    def test_host_reaches_the_new_container_from_its_own_network(self) -> None:
        self.assertEqual(self.routes(), [SECOND])

    def test_route_of_the_new_container_survives_restarts(self) -> None:
        for _ in range(3):
            self.plugin = self.plugin.next_life()
            self.assertEqual(self.routes(), [SECOND])

    def test_route_returns_to_the_old_container_then_goes(self) -> None:
        for _ in range(2):
            self.plugin.delete_endpoint(OTHER_ENDPOINT, OTHER_NETWORK)
            self.assertEqual(
                self.routes(), [FIRST], "the one that is still there is not reached from its network"
            )
            self.plugin.delete_endpoint(ENDPOINT, NETWORK)
            self.assertEqual(self.routes(), [])
            self.setUp()
            self.plugin = self.plugin.next_life()

    def test_route_survives_the_old_container_and_its_network(self) -> None:
        self.plugin.delete_endpoint(ENDPOINT, NETWORK)
        self.plugin.delete_network()
        self.assertEqual(self.routes(), [SECOND])
        self.plugin.delete_endpoint(OTHER_ENDPOINT, OTHER_NETWORK)
        self.assertEqual(self.routes(), [])
