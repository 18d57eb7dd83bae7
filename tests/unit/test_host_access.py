"""Host access: the host has addresses on our link, and a route for each container."""

from __future__ import annotations

from attrs import evolve

from macvlan_twisted.addresses import parse_address, parse_interface
from macvlan_twisted.driver import requests
from macvlan_twisted.errors import LinkError, RequestRefused
from macvlan_twisted.link_names import endpoint_link_name
from macvlan_twisted.netlink.kernel import HostRoute

from .helpers import (
    ENDPOINT,
    LAN,
    NETWORK,
    OTHER_ENDPOINT,
    OTHER_NETWORK,
    PLAIN_LINKS,
    PluginHarness,
    network_request,
    plain_kernel,
    subnet,
)
from .host_access_cases import BOTH, HOST, HOST_6, REACHED, HostAccessTestCase, access_request, join

LINK = endpoint_link_name(ENDPOINT)


class NetworkTests(HostAccessTestCase):
    def test_host_link_has_its_addresses_and_sysctls(self) -> None:
        self.open()
        self.assertEqual(self.addresses(), [HOST, HOST_6])
        config = self.plugin.kernel.configured[self.link]
        wanted = {
            "ipv4/arp_ignore": "1",
            "ipv4/arp_announce": "2",
            "ipv6/accept_ra": "0",
            "ipv6/autoconf": "0",
            "ipv6/disable_ipv6": "0",
        }
        self.assertEqual({key: config.get(key) for key in wanted}, wanted)
        link = self.plugin.link(self.link)
        self.assertTrue(link.up)

    def test_host_link_without_an_ipv6_subnet_has_ipv6_disabled(self) -> None:
        self.open(subnets=BOTH[:1], address=HOST)
        self.assertEqual(self.plugin.kernel.configured[self.link]["ipv6/disable_ipv6"], "1")

    def test_host_link_goes_with_the_network(self) -> None:
        self.open()
        self.run_container()
        self.plugin.delete_network()
        self.assert_nothing_left()
        self.assertEqual(self.plugin.kernel.host_addresses(), {})

    def test_repeated_creation_makes_one_host_link(self) -> None:
        for _ in range(2):
            self.open()
        self.assertEqual(self.addresses(), [HOST, HOST_6])
        with self.assert_refused(RequestRefused, "already exists with different options"):
            self.open(address="192.168.1.98,fd00::98")
        self.assertEqual(self.addresses(), [HOST, HOST_6])

    def test_networks_on_one_parent_share_the_host_link(self) -> None:
        self.open()
        other = (subnet("10.1.0.0/24"),)
        self.open(OTHER_NETWORK, subnets=other, address="10.1.0.99")
        self.assertEqual(self.addresses(), ["10.1.0.99", HOST, HOST_6])
        self.plugin.delete_network()
        self.assertEqual(self.addresses(), ["10.1.0.99"])
        self.plugin.delete_network(OTHER_NETWORK)
        self.assert_nothing_left()

    def test_shared_host_address_stays_for_the_second_network(self) -> None:
        self.open()
        self.open(OTHER_NETWORK, subnets=BOTH[:1], address=HOST)
        self.plugin.delete_network()
        self.assertEqual(self.addresses(), [HOST])

    def test_each_parent_has_its_own_host_link(self) -> None:
        self.open()
        self.open(OTHER_NETWORK, parent="eth1", subnets=(subnet("10.1.0.0/24"),), address="10.1.0.99")
        self.assertEqual(self.addresses(), [HOST, HOST_6])
        self.assertEqual(len(self.plugin.link_names() - PLAIN_LINKS), 2)

    def test_network_without_access_has_no_host_link(self) -> None:
        self.plugin.create_network()
        self.assertEqual(self.run_container(address_v6=None), [])
        self.assertEqual(self.plugin.link_names(), {*PLAIN_LINKS, LINK})


class RefusalTests(HostAccessTestCase):
    def refuse(self, *words: str, about: requests.CreateNetwork) -> None:
        with self.assert_refused(RequestRefused, *words):
            self.plugin.wait(self.plugin.networks.create(about))
        self.assert_nothing_left()

    def test_modes_other_than_bridge_are_refused(self) -> None:
        for mode in ("private", "vepa", "passthru"):
            self.refuse("host_access", mode, "bridge", about=access_request(mode=mode))
        source = access_request(mode="source", source_macs="02:00:00:00:00:07")
        self.refuse("host_access", "source", about=source)

    def test_host_address_without_host_access_is_refused(self) -> None:
        self.refuse("add -o host_access=true", about=network_request(host_address=HOST))

    def test_address_of_the_router_is_refused(self) -> None:
        self.refuse("192.168.1.1", "router", about=access_request(subnets=BOTH[:1], address="192.168.1.1"))

    def test_address_of_a_container_is_refused(self) -> None:
        self.plugin.create_network()
        self.plugin.create_endpoint(address=f"{HOST}/24")
        with self.assert_refused(RequestRefused, HOST, ENDPOINT[:12], "stop that container"):
            self.open(OTHER_NETWORK)
        self.assertEqual(list(self.plugin.registry.networks), [NETWORK])

    def test_container_with_the_host_address_is_refused(self) -> None:
        self.open()
        with self.assert_refused(RequestRefused, HOST, "the host's own", "--aux-address"):
            self.plugin.create_endpoint(address=f"{HOST}/24")
        self.assertEqual(self.plugin.link_names(), {*PLAIN_LINKS, self.link})

    def test_default_applies_to_bridge_mode_only(self) -> None:
        self.plugin = PluginHarness(config=evolve(LAN, host_access=True))
        with self.assert_refused(RequestRefused, "--aux-address host=ADDRESS", "-o host_access=false"):
            self.plugin.create_network()
        self.plugin.create_network(host_access="false")
        self.plugin.create_network(OTHER_NETWORK, parent="eth1", mode="private")
        self.assertEqual(self.plugin.link_names(), PLAIN_LINKS)


class ContainerTests(HostAccessTestCase):
    def setUp(self) -> None:
        super().setUp()
        kernel = plain_kernel()
        kernel.add_address("eth0", parse_interface("192.168.1.10/24"))
        self.plugin = PluginHarness(kernel)
        self.open()

    def test_host_route_lasts_from_join_to_removal(self) -> None:
        self.plugin.create_endpoint(address_v6="fd00::7/64")
        self.assertEqual(self.routes(), [])
        routes = self.plugin.wait(self.plugin.joining.join(join())).static_routes
        self.assertEqual(
            [(str(each.destination), str(each.next_hop)) for each in routes], [("192.168.1.10/32", HOST)]
        )
        self.assertEqual(self.routes(), REACHED)
        self.plugin.wait(self.plugin.joining.leave(requests.EndpointCall(NETWORK, ENDPOINT)))
        self.plugin.delete_endpoint()
        self.assertEqual(self.routes(), [])
        self.assertEqual(self.addresses(), [HOST, HOST_6])

    def test_repeated_join_adds_no_second_route(self) -> None:
        routes = self.run_container()
        again = self.plugin.wait(self.plugin.joining.join(join()))
        self.assertEqual([str(each.destination) for each in again.static_routes], routes)
        self.assertEqual(self.routes(), REACHED)
        self.plugin.delete_endpoint()
        self.assertEqual(self.routes(), [])

    def test_container_in_two_networks_gets_each_route_once(self) -> None:
        """A second route to the same address would make its start fail."""
        self.open(OTHER_NETWORK, subnets=(subnet("10.1.0.0/24"),), address="10.1.0.99")
        self.assertEqual(self.run_container(), ["192.168.1.10/32"])
        other = self.run_container(OTHER_ENDPOINT, OTHER_NETWORK, "10.1.0.7/24", None)
        self.assertEqual(other, [])
        self.assertEqual(self.routes(), sorted([*REACHED, "10.1.0.7 from 10.1.0.99"]))

    def test_container_that_reconnects_gets_its_route_again(self) -> None:
        self.open(OTHER_NETWORK, subnets=(subnet("10.1.0.0/24"),), address="10.1.0.99")
        self.run_container()
        self.run_container(OTHER_ENDPOINT, OTHER_NETWORK, "10.1.0.7/24", None)
        self.plugin.delete_endpoint()
        plugin = self.plugin = self.plugin.next_life()
        self.assertEqual(self.run_container(plugin=plugin), ["192.168.1.10/32"])

    def test_containers_in_different_sandboxes_get_their_routes(self) -> None:
        self.run_container()
        other = self.run_container(
            OTHER_ENDPOINT, address="192.168.1.8/24", address_v6=None, sandbox="/run/docker/netns/2"
        )
        self.assertEqual(other, ["192.168.1.10/32"])

    def test_reallocated_address_stays_reachable(self) -> None:
        """Engines drop endpoints without DeleteEndpoint (docs/reference/protocol)."""
        self.run_container()
        self.plugin.kernel.delete(LINK)
        self.run_container(OTHER_ENDPOINT)
        self.assertEqual(self.routes(), REACHED)
        self.plugin.delete_endpoint()
        self.assertEqual(self.routes(), REACHED)
        self.plugin.delete_endpoint(OTHER_ENDPOINT)
        self.assertEqual(self.routes(), [])

    def test_foreign_route_to_a_container_is_refused_and_stays(self) -> None:
        stranger = HostRoute(parse_address("fd00::7"), "eth1", None, 4)
        self.plugin.kernel.add_host_route(stranger)
        with self.assert_refused(LinkError, "fd00::7", "another route"):
            self.run_container()
        self.assertEqual(self.routes(), [])
        self.assertEqual(self.plugin.kernel.host_routes("eth1", 4), [stranger])
        self.plugin.delete_endpoint()
        self.assertEqual(self.plugin.kernel.host_routes("eth1", 4), [stranger])

    def test_readdressed_container_is_reached_at_its_new_address(self) -> None:
        self.run_container()
        endpoint = self.plugin.registry.endpoints[ENDPOINT]
        moved = evolve(endpoint, address=parse_interface("192.168.1.8/24"), reported_address=endpoint.address)
        self.plugin.registry.replace_endpoint(moved)
        self.plugin.wait(self.plugin.joining.join(join()))
        self.assertEqual(self.routes(), [f"192.168.1.8 from {HOST}", f"fd00::7 from {HOST_6}"])
        self.plugin.delete_endpoint()
        self.assertEqual(self.routes(), [])
