"""What a container is told of the ways to its host."""

from __future__ import annotations

from collections.abc import Iterable

from twisted.trial.unittest import SynchronousTestCase

from macvlan_twisted.addresses import parse_address, parse_interface, parse_network
from macvlan_twisted.driver.models import Endpoint, Network
from macvlan_twisted.driver.static_routes import routes_to_host

from .helpers import ENDPOINT, NETWORK, subnet

HOSTS = ("192.168.1.99", "fd00::99")


class RoutesToHostTests(SynchronousTestCase):
    def told(
        self,
        *own: str,
        addresses: tuple[str | None, str | None] = ("192.168.1.7/24", "fd00::7/64"),
        hosts: Iterable[str] = HOSTS,
        gateway: str | None = "192.168.1.1",
        present: Iterable[str] = (),
    ) -> list[str]:
        """Each route as ``ip route`` would show it."""
        network = Network(
            NETWORK,
            "eth0",
            "bridge",
            subnets=(subnet("192.168.1.0/24", gateway), subnet("fd00::/64")),
            host_access=True,
            host_addresses=tuple(parse_address(each) for each in hosts),
        )
        v4, v6 = (None if each is None else parse_interface(each) for each in addresses)
        endpoint = Endpoint(ENDPOINT, NETWORK, "mvt", "eth0", None, False, v4, v6)
        routes = routes_to_host(
            endpoint,
            network,
            [parse_address(each) for each in own],
            [parse_network(each) for each in present],
        )
        return [
            str(each.destination) + ("" if each.next_hop is None else f" via {each.next_hop}")
            for each in routes
        ]

    def test_addresses_of_the_parent_are_routed_via_the_host_address(self) -> None:
        self.assertEqual(
            self.told("192.168.1.10", "fd00::10"),
            ["192.168.1.10/32 via 192.168.1.99", "fd00::10/128 via fd00::99"],
        )

    def test_all_addresses_of_the_parent_are_routed(self) -> None:
        self.assertEqual(
            self.told("192.168.1.10", "192.168.1.11"),
            ["192.168.1.10/32 via 192.168.1.99", "192.168.1.11/32 via 192.168.1.99"],
        )

    def test_addresses_of_other_subnets_are_not_routed(
        self,
    ) -> None:
        self.assertEqual(self.told("10.0.0.1", "fd11::1"), [])

    def test_link_local_addresses_are_not_routed(self) -> None:
        self.assertEqual(self.told("fe80::1", "169.254.3.4"), [])

    def test_host_address_itself_needs_no_route(self) -> None:
        self.assertEqual(self.told("192.168.1.99"), [])

    def test_host_that_is_the_gateway_needs_no_route(self) -> None:
        self.assertEqual(self.told("192.168.1.10", gateway="192.168.1.10"), [])

    def test_family_without_access_gets_no_route(self) -> None:
        self.assertEqual(
            self.told("192.168.1.10", "fd00::10", hosts=["fd00::99"]), ["fd00::10/128 via fd00::99"]
        )
        self.assertEqual(
            self.told("192.168.1.10", "fd00::10", addresses=("192.168.1.7/24", None)),
            ["192.168.1.10/32 via 192.168.1.99"],
        )
        self.assertEqual(self.told("192.168.1.10", addresses=(None, None)), [])

    def test_host_address_outside_the_subnet_is_on_link(self) -> None:
        self.assertEqual(
            self.told("192.168.1.10", hosts=["10.9.9.9"]), ["10.9.9.9/32", "192.168.1.10/32 via 10.9.9.9"]
        )

    def test_route_present_in_the_sandbox_is_not_repeated(self) -> None:
        self.assertEqual(self.told("192.168.1.10", present=["192.168.1.10/32"]), [])
