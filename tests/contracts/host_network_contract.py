"""What every kernel must do about addresses, routes and settings of the host itself, the real one and the fake alike.

Subclasses give the fixture ``stand`` of :mod:`tests.contracts.kernel_contract`.
"""

import errno
from ipaddress import ip_address, ip_interface
from typing import Protocol

import pytest
from attrs import evolve

from macvlan_twisted.errors import LinkError
from macvlan_twisted.netlink.kernel import HostRoute
from tests.contracts.kernel_contract import OWN_ADDRESS, PLAIN, KernelFixture

PROTOCOL = 142
HOST, HOST_6 = ip_interface("192.168.77.99/32"), ip_interface("fd77::99/128")
OTHER_HOST, OTHER_HOST_6 = ip_interface("192.168.77.98/32"), ip_interface("fd77::98/128")
ROUTE = HostRoute(ip_address("192.168.77.65"), PLAIN.name, HOST.ip, PROTOCOL)
ROUTE_6 = HostRoute(ip_address("fd77::65"), PLAIN.name, HOST_6.ip, PROTOCOL)
OTHER_SOURCE = {ROUTE: OTHER_HOST.ip, ROUTE_6: OTHER_HOST_6.ip}


class HostStand(KernelFixture, Protocol):
    """As for links, and the settings of a link as they are."""

    def setting(self, name: str, key: str) -> str:
        """Read a sysctl of a link, such as ``ipv4/arp_ignore``."""


def linked(stand: HostStand) -> None:
    """Create a link that is up, with two host addresses of each family."""
    stand.kernel.add_macvlan(PLAIN)
    stand.kernel.set_up(PLAIN.name)
    for address in (HOST, HOST_6, OTHER_HOST, OTHER_HOST_6):
        stand.kernel.add_address(PLAIN.name, address)


def routes(stand: HostStand) -> set[HostRoute]:
    """Return the routes of our protocol on our link, each of which must exist once."""
    found = stand.kernel.host_routes(PLAIN.name, PROTOCOL)
    assert len(set(found)) == len(found)
    return set(found)


class HostNetworkContract:
    """The tests themselves."""

    def test_host_addresses_are_found_on_their_link(self, stand: HostStand) -> None:
        before = stand.kernel.host_addresses()
        assert before[OWN_ADDRESS.ip] == "eth1"
        assert HOST.ip not in before
        linked(stand)
        found = stand.kernel.host_addresses()
        assert {found[each.ip] for each in (HOST, HOST_6)} == {PLAIN.name}
        assert {HOST, HOST_6} <= set(stand.kernel.addresses_of(PLAIN.name))

    def test_adding_an_address_twice_keeps_one(self, stand: HostStand) -> None:
        linked(stand)
        before = stand.kernel.addresses_of(PLAIN.name)
        for address in (HOST, HOST_6):
            stand.kernel.add_address(PLAIN.name, address)
        assert stand.kernel.addresses_of(PLAIN.name) == before

    def test_removing_an_absent_address_succeeds(self, stand: HostStand) -> None:
        linked(stand)
        for address in (HOST, HOST_6):
            assert stand.kernel.delete_address(PLAIN.name, address) is True
            assert address.ip not in stand.kernel.host_addresses()
            assert stand.kernel.delete_address(PLAIN.name, address) is False
            assert stand.kernel.delete_address("nosuch", address) is False

    def test_adding_an_address_to_no_link_is_refused(self, stand: HostStand) -> None:
        for address in (HOST, HOST_6):
            with pytest.raises(LinkError, match="nosuch") as caught:
                stand.kernel.add_address("nosuch", address)
            assert caught.value.errno == errno.ENODEV

    def test_setting_takes_effect(self, stand: HostStand) -> None:
        stand.kernel.add_macvlan(PLAIN)
        wanted = {"ipv4/arp_ignore": "1", "ipv4/rp_filter": "1", "ipv6/accept_ra": "0"}
        stand.kernel.configure(PLAIN.name, wanted)
        assert {key: stand.setting(PLAIN.name, key) for key in wanted} == wanted
        stand.kernel.configure(PLAIN.name, {"ipv4/arp_ignore": "2"})
        assert stand.setting(PLAIN.name, "ipv4/arp_ignore") == "2"
        assert stand.setting(PLAIN.name, "ipv4/rp_filter") == "1"

    @pytest.mark.parametrize("key", ["ipv4/arp_ignore", "ipv6/accept_ra"])
    def test_setting_of_no_link_is_refused(self, stand: HostStand, key: str) -> None:
        with pytest.raises(LinkError, match="nosuch") as caught:
            stand.kernel.configure("nosuch", {key: "1"})
        assert caught.value.errno == errno.ENODEV

    def test_route_is_as_requested(self, stand: HostStand) -> None:
        linked(stand)
        assert routes(stand) == set()
        stand.kernel.add_host_route(ROUTE)
        stand.kernel.add_host_route(ROUTE_6)
        assert routes(stand) == {ROUTE, ROUTE_6}
        assert stand.kernel.host_routes(PLAIN.name, PROTOCOL + 1) == []
        assert stand.kernel.host_routes("eth1", PROTOCOL) == []
        assert stand.kernel.host_routes("nosuch", PROTOCOL) == []

    @pytest.mark.parametrize("route", [ROUTE, ROUTE_6], ids=["v4", "v6"])
    def test_replacing_a_route_updates_its_source(self, stand: HostStand, route: HostRoute) -> None:
        linked(stand)
        for source in (route.source, route.source, OTHER_SOURCE[route], route.source):
            stand.kernel.add_host_route(evolve(route, source=source))
            assert routes(stand) == {evolve(route, source=source)}

    @pytest.mark.parametrize("route", [ROUTE, ROUTE_6], ids=["v4", "v6"])
    def test_removing_an_absent_route_succeeds(self, stand: HostStand, route: HostRoute) -> None:
        linked(stand)
        stand.kernel.add_host_route(route)
        assert stand.kernel.delete_host_route(evolve(route, protocol=PROTOCOL + 1)) is False
        assert routes(stand) == {route}, "somebody else's went"
        if route is ROUTE:
            assert stand.kernel.delete_host_route(evolve(route, source=OTHER_SOURCE[route])) is False
            assert routes(stand) == {route}, "Linux keeps an IPv4 route that has another source address"
        assert stand.kernel.delete_host_route(route) is True
        assert routes(stand) == set()
        assert stand.kernel.delete_host_route(route) is False
        assert stand.kernel.delete_host_route(evolve(route, link="nosuch")) is False

    @pytest.mark.parametrize("route", [ROUTE, ROUTE_6], ids=["v4", "v6"])
    @pytest.mark.parametrize("other", [{"link": "mvttwo"}, {"protocol": PROTOCOL + 1}], ids=["link", "maker"])
    def test_foreign_route_to_the_same_address_stays(
        self, stand: HostStand, route: HostRoute, other: dict[str, str | int]
    ) -> None:
        linked(stand)
        stand.kernel.add_macvlan(evolve(PLAIN, name="mvttwo", parent="eth2"))
        stand.kernel.set_up("mvttwo")
        theirs = evolve(route, source=None, **other)  # type: ignore[arg-type]
        stand.kernel.add_host_route(theirs)
        with pytest.raises(LinkError, match=f"{route.destination} .*has another route") as caught:
            stand.kernel.add_host_route(route)
        assert caught.value.errno == errno.EEXIST
        found = stand.kernel.host_routes(theirs.link, theirs.protocol)
        assert [(each.destination, each.link) for each in found] == [(route.destination, theirs.link)]
        assert routes(stand) == set()

    @pytest.mark.parametrize("route", [ROUTE, ROUTE_6], ids=["v4", "v6"])
    def test_impossible_route_is_refused(self, stand: HostStand, route: HostRoute) -> None:
        stand.kernel.add_macvlan(PLAIN)
        for address in (HOST, HOST_6):
            stand.kernel.add_address(PLAIN.name, address)
        self.refused(stand, route, errno.ENETDOWN)
        stand.kernel.set_up(PLAIN.name)
        self.refused(stand, evolve(route, source=OTHER_SOURCE[route]), errno.EINVAL)
        self.refused(stand, evolve(route, link="nosuch"), errno.ENODEV)
        stand.kernel.add_host_route(route)

    @staticmethod
    def refused(stand: HostStand, route: HostRoute, number: int) -> None:
        """Expect this errno, and no route."""
        with pytest.raises(LinkError, match=f"{route.destination}|{route.link} is not there") as caught:
            stand.kernel.add_host_route(route)
        assert errno.errorcode.get(caught.value.errno) == errno.errorcode[number]
        assert routes(stand) == set()

    def test_ipv4_routes_go_with_their_source_and_ipv6_routes_stay(self, stand: HostStand) -> None:
        linked(stand)
        stand.kernel.add_host_route(ROUTE)
        stand.kernel.add_host_route(ROUTE_6)
        for address in (HOST, HOST_6):
            stand.kernel.delete_address(PLAIN.name, address)
        assert routes(stand) == {evolve(ROUTE_6, source=None)}

    def test_routes_go_with_their_link(self, stand: HostStand) -> None:
        linked(stand)
        stand.kernel.add_host_route(ROUTE)
        stand.kernel.add_host_route(ROUTE_6)
        assert stand.kernel.delete(PLAIN.name)
        assert HOST.ip not in stand.kernel.host_addresses()
        linked(stand)
        assert routes(stand) == set()
