"""What every kernel must do about addresses, routes and settings of the host itself, the real one and the fake alike.

Subclasses give the fixture ``host`` of :mod:`tests.contracts.kernel_contract`.
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


class HostFixture(KernelFixture, Protocol):
    """As for links, and the settings of a link as they are."""

    def setting(self, name: str, key: str) -> str:
        """Read a sysctl of a link, such as ``ipv4/arp_ignore``."""


def linked(host: HostFixture) -> None:
    """Create a link that is up, with two host addresses of each family."""
    host.kernel.add_macvlan(PLAIN)
    host.kernel.set_up(PLAIN.name)
    for address in (HOST, HOST_6, OTHER_HOST, OTHER_HOST_6):
        host.kernel.add_address(PLAIN.name, address)


def routes(host: HostFixture) -> set[HostRoute]:
    """Return the routes of our protocol on our link, each of which must exist once."""
    found = host.kernel.host_routes(PLAIN.name, PROTOCOL)
    assert len(set(found)) == len(found)
    return set(found)


class HostNetworkContract:
    """The tests themselves."""

    def test_host_addresses_are_found_on_their_link(self, host: HostFixture) -> None:
        before = host.kernel.host_addresses()
        assert before[OWN_ADDRESS.ip] == "eth1"
        assert HOST.ip not in before
        linked(host)
        found = host.kernel.host_addresses()
        assert {found[each.ip] for each in (HOST, HOST_6)} == {PLAIN.name}
        assert {HOST, HOST_6} <= set(host.kernel.addresses_of(PLAIN.name))

    def test_adding_an_address_twice_keeps_one(self, host: HostFixture) -> None:
        linked(host)
        before = host.kernel.addresses_of(PLAIN.name)
        for address in (HOST, HOST_6):
            host.kernel.add_address(PLAIN.name, address)
        assert host.kernel.addresses_of(PLAIN.name) == before

    def test_removing_an_absent_address_succeeds(self, host: HostFixture) -> None:
        linked(host)
        for address in (HOST, HOST_6):
            assert host.kernel.delete_address(PLAIN.name, address) is True
            assert address.ip not in host.kernel.host_addresses()
            assert host.kernel.delete_address(PLAIN.name, address) is False
            assert host.kernel.delete_address("nosuch", address) is False

    def test_adding_an_address_to_no_link_is_refused(self, host: HostFixture) -> None:
        for address in (HOST, HOST_6):
            with pytest.raises(LinkError, match="nosuch") as caught:
                host.kernel.add_address("nosuch", address)
            assert caught.value.errno == errno.ENODEV

    def test_setting_takes_effect(self, host: HostFixture) -> None:
        host.kernel.add_macvlan(PLAIN)
        wanted = {"ipv4/arp_ignore": "1", "ipv4/rp_filter": "1", "ipv6/accept_ra": "0"}
        host.kernel.configure(PLAIN.name, wanted)
        assert {key: host.setting(PLAIN.name, key) for key in wanted} == wanted
        host.kernel.configure(PLAIN.name, {"ipv4/arp_ignore": "2"})
        assert host.setting(PLAIN.name, "ipv4/arp_ignore") == "2"
        assert host.setting(PLAIN.name, "ipv4/rp_filter") == "1"

    @pytest.mark.parametrize("key", ["ipv4/arp_ignore", "ipv6/accept_ra"])
    def test_setting_of_no_link_is_refused(self, host: HostFixture, key: str) -> None:
        with pytest.raises(LinkError, match="nosuch") as caught:
            host.kernel.configure("nosuch", {key: "1"})
        assert caught.value.errno == errno.ENODEV

    def test_route_is_as_requested(self, host: HostFixture) -> None:
        linked(host)
        assert routes(host) == set()
        host.kernel.add_host_route(ROUTE)
        host.kernel.add_host_route(ROUTE_6)
        assert routes(host) == {ROUTE, ROUTE_6}
        assert host.kernel.host_routes(PLAIN.name, PROTOCOL + 1) == []
        assert host.kernel.host_routes("eth1", PROTOCOL) == []
        assert host.kernel.host_routes("nosuch", PROTOCOL) == []

    @pytest.mark.parametrize("route", [ROUTE, ROUTE_6], ids=["v4", "v6"])
    def test_replacing_a_route_updates_its_source(self, host: HostFixture, route: HostRoute) -> None:
        linked(host)
        for source in (route.source, route.source, OTHER_SOURCE[route], route.source):
            host.kernel.add_host_route(evolve(route, source=source))
            assert routes(host) == {evolve(route, source=source)}

    @pytest.mark.parametrize("route", [ROUTE, ROUTE_6], ids=["v4", "v6"])
    def test_removing_an_absent_route_succeeds(self, host: HostFixture, route: HostRoute) -> None:
        linked(host)
        host.kernel.add_host_route(route)
        assert host.kernel.delete_host_route(evolve(route, protocol=PROTOCOL + 1)) is False
        assert routes(host) == {route}, "somebody else's went"
        if route is ROUTE:
            assert host.kernel.delete_host_route(evolve(route, source=OTHER_SOURCE[route])) is False
            assert routes(host) == {route}, "Linux keeps an IPv4 route that has another source address"
        assert host.kernel.delete_host_route(route) is True
        assert routes(host) == set()
        assert host.kernel.delete_host_route(route) is False
        assert host.kernel.delete_host_route(evolve(route, link="nosuch")) is False

    @pytest.mark.parametrize("route", [ROUTE, ROUTE_6], ids=["v4", "v6"])
    @pytest.mark.parametrize("other", [{"link": "mvttwo"}, {"protocol": PROTOCOL + 1}], ids=["link", "maker"])
    def test_foreign_route_to_the_same_address_stays(
        self, host: HostFixture, route: HostRoute, other: dict[str, str | int]
    ) -> None:
        linked(host)
        host.kernel.add_macvlan(evolve(PLAIN, name="mvttwo", parent="eth2"))
        host.kernel.set_up("mvttwo")
        theirs = evolve(route, source=None, **other)  # type: ignore[arg-type]
        host.kernel.add_host_route(theirs)
        with pytest.raises(LinkError, match=f"{route.destination} .*has another route") as caught:
            host.kernel.add_host_route(route)
        assert caught.value.errno == errno.EEXIST
        found = host.kernel.host_routes(theirs.link, theirs.protocol)
        assert [(each.destination, each.link) for each in found] == [(route.destination, theirs.link)]
        assert routes(host) == set()

    @pytest.mark.parametrize("route", [ROUTE, ROUTE_6], ids=["v4", "v6"])
    def test_impossible_route_is_refused(self, host: HostFixture, route: HostRoute) -> None:
        host.kernel.add_macvlan(PLAIN)
        for address in (HOST, HOST_6):
            host.kernel.add_address(PLAIN.name, address)
        self.refused(host, route, errno.ENETDOWN)
        host.kernel.set_up(PLAIN.name)
        self.refused(host, evolve(route, source=OTHER_SOURCE[route]), errno.EINVAL)
        self.refused(host, evolve(route, link="nosuch"), errno.ENODEV)
        host.kernel.add_host_route(route)

    @staticmethod
    def refused(host: HostFixture, route: HostRoute, number: int) -> None:
        """Expect this errno, and no route."""
        with pytest.raises(LinkError, match=f"{route.destination}|{route.link} does not exist") as caught:
            host.kernel.add_host_route(route)
        assert errno.errorcode.get(caught.value.errno) == errno.errorcode[number]
        assert routes(host) == set()

    def test_ipv4_routes_go_with_their_source_and_ipv6_routes_stay(self, host: HostFixture) -> None:
        linked(host)
        host.kernel.add_host_route(ROUTE)
        host.kernel.add_host_route(ROUTE_6)
        for address in (HOST, HOST_6):
            host.kernel.delete_address(PLAIN.name, address)
        assert routes(host) == {evolve(ROUTE_6, source=None)}

    def test_routes_go_with_their_link(self, host: HostFixture) -> None:
        linked(host)
        host.kernel.add_host_route(ROUTE)
        host.kernel.add_host_route(ROUTE_6)
        assert host.kernel.delete(PLAIN.name)
        assert HOST.ip not in host.kernel.host_addresses()
        linked(host)
        assert routes(host) == set()
