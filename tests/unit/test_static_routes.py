"""Which routes to its host a container gets."""

from __future__ import annotations

from collections.abc import Iterable

from twisted.trial.unittest import SynchronousTestCase

from macvlan_twisted.addresses import parse_address, parse_interface, parse_network
from macvlan_twisted.driver.host_access import routes_to_host
from macvlan_twisted.driver.models import Endpoint, Network
from macvlan_twisted.option_values import MacvlanMode

from .helpers import ENDPOINT, NETWORK, subnet

HOSTS = ("192.168.1.99", "fd00::99")


OTHERS = ("192.168.1.10", "fd00::10")
"""What the host has on the parent itself."""
VIA, VIA_6 = "192.168.1.10/32 via 192.168.1.99", "fd00::10/128 via fd00::99"


def routes(
    *own: str,
    addresses: tuple[str | None, str | None] = ("192.168.1.7/24", "fd00::7/64"),
    hosts: Iterable[str] = HOSTS,
    gateway: str | None = "192.168.1.1",
    present: Iterable[str] = (),
) -> list[str]:
    """
    Each route as ``ip route`` shows it.

    :param own: the addresses of the host on the parent.
    :param addresses: those of the container.
    :param hosts: those of the host for its containers.
    :param present: destinations that the sandbox has a route to already.
    """
    network = Network(
        NETWORK,
        "eth0",
        MacvlanMode.BRIDGE,
        subnets=(subnet("192.168.1.0/24", gateway), subnet("fd00::/64")),
        host_access=True,
        host_addresses=tuple(map(parse_address, hosts)),
    )
    v4, v6 = (None if each is None else parse_interface(each) for each in addresses)
    endpoint = Endpoint(ENDPOINT, NETWORK, "mvt", "eth0", None, False, v4, v6)
    found = routes_to_host(endpoint, network, [*map(parse_address, own)], [*map(parse_network, present)])
    return [
        str(each.destination) + ("" if each.next_hop is None else f" via {each.next_hop}") for each in found
    ]


class RoutesToHostTests(SynchronousTestCase):
    def test_addresses_of_the_parent_are_routed_via_the_host_address(self) -> None:
        self.assertEqual(routes(*OTHERS), [VIA, VIA_6])
        self.assertEqual(routes("192.168.1.10", "192.168.1.11"), [VIA, "192.168.1.11/32 via 192.168.1.99"])

    def test_addresses_of_other_subnets_are_not_routed(self) -> None:
        """A route into the subnet of another network makes the engine refuse that network."""
        self.assertEqual(routes("10.0.0.1", "fd11::1"), [])

    def test_link_local_addresses_are_not_routed(self) -> None:
        self.assertEqual(routes("fe80::1", "169.254.3.4"), [])

    def test_host_address_itself_needs_no_route(self) -> None:
        self.assertEqual(routes("192.168.1.99"), [])

    def test_host_that_is_the_gateway_needs_no_route(self) -> None:
        """The kernel takes a gateway for a neighbour on the link."""
        self.assertEqual(routes("192.168.1.10", gateway="192.168.1.10"), [])

    def test_family_without_access_gets_no_route(self) -> None:
        self.assertEqual(routes(*OTHERS, hosts=["fd00::99"]), [VIA_6])
        self.assertEqual(routes(*OTHERS, addresses=("192.168.1.7/24", None)), [VIA])
        self.assertEqual(routes("192.168.1.10", addresses=(None, None)), [])

    def test_host_address_outside_the_subnet_is_on_link(self) -> None:
        found = routes("192.168.1.10", hosts=["10.9.9.9"])
        self.assertEqual(found, ["10.9.9.9/32", "192.168.1.10/32 via 10.9.9.9"])

    def test_route_present_in_the_sandbox_is_not_repeated(self) -> None:
        self.assertEqual(routes("192.168.1.10", present=["192.168.1.10/32"]), [])
