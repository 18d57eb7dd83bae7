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
    def test_routes_to_the_host(self) -> None:
        one = "192.168.1.10"
        for case, found, expected in (
            ("addresses of the parent are routed via the host address", routes(*OTHERS), [VIA, VIA_6]),
            ("each of them", routes(one, "192.168.1.11"), [VIA, "192.168.1.11/32 via 192.168.1.99"]),
            # A route into the subnet of another network makes the engine refuse that network.
            ("addresses of other subnets are not", routes("10.0.0.1", "fd11::1"), []),
            ("nor are link-local ones", routes("fe80::1", "169.254.3.4"), []),
            ("the host address itself needs no route", routes("192.168.1.99"), []),
            # The kernel takes a gateway for a neighbour on the link.
            ("nor does a host that is the gateway", routes(one, gateway=one), []),
            ("a family of the host without access", routes(*OTHERS, hosts=["fd00::99"]), [VIA_6]),
            ("a family that the container lacks", routes(*OTHERS, addresses=("192.168.1.7/24", None)), [VIA]),
            ("both families", routes(one, addresses=(None, None)), []),
            (
                "a host address outside the subnet is on link",
                routes(one, hosts=["10.9.9.9"]),
                ["10.9.9.9/32", f"{one}/32 via 10.9.9.9"],
            ),
            ("a route that the sandbox has is not repeated", routes(one, present=[f"{one}/32"]), []),
        ):
            self.assertEqual(found, expected, case)
