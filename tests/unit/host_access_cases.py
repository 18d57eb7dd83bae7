"""Networks with host access, and what the kernel shows of them."""

from __future__ import annotations

from typing import Any

from attrs import evolve

from macvlan_twisted.addresses import parse_network
from macvlan_twisted.driver import requests
from macvlan_twisted.driver.models import Subnet
from macvlan_twisted.ipam.requests import RequestPool
from macvlan_twisted.lan.host_routes import ROUTE_PROTOCOL
from macvlan_twisted.link_names import host_link_name

from .helpers import ENDPOINT, NETWORK, PluginHarness, PluginTestCase, network_request, subnet

HOST, HOST_6 = "192.168.1.99", "fd00::99"
BOTH = (subnet("192.168.1.0/24", "192.168.1.1"), subnet("fd00::/64"))
SANDBOX = "/var/run/docker/netns/1f2e3d4c5b6a"


def join(endpoint_id: str = ENDPOINT, network_id: str = NETWORK, sandbox: str = SANDBOX) -> requests.Join:
    return requests.Join(network_id, endpoint_id, sandbox)


def access_request(
    network_id: str = NETWORK,
    subnets: tuple[Subnet, ...] = BOTH,
    address: str = f"{HOST},{HOST_6}",
    **options: str,
) -> requests.CreateNetwork:
    addresses = {"host_address": address} if address else {}
    return network_request(network_id, subnets=subnets, **{"host_access": "true", **addresses, **options})  # type: ignore[arg-type]


class HostAccessTestCase(PluginTestCase):
    """:attr:`link` is the host link on ``eth0``."""

    def setUp(self) -> None:
        super().setUp()
        self.link = host_link_name(self.plugin.records.instance, "eth0")

    def open(self, network_id: str = NETWORK, plugin: PluginHarness | None = None, **about: Any) -> None:
        plugin = plugin or self.plugin
        plugin.wait(plugin.networks.create(access_request(network_id, **about)))

    def pool(self, text: str = "192.168.1.0/24", part: str | None = None, **options: str) -> Subnet:
        """A subnet of our own address management."""
        network, narrow = parse_network(text), None if part is None else parse_network(part)
        request = RequestPool("Local", network, narrow, options, network.version == 6)
        self.pool_id = self.plugin.wait(self.plugin.pools.request_pool(request)).pool_id
        return evolve(subnet(text), managed_here=True)

    def run_container(
        self,
        endpoint_id: str = ENDPOINT,
        network_id: str = NETWORK,
        address: str | None = "192.168.1.7/24",
        address_v6: str | None = "fd00::7/64",
        sandbox: str = SANDBOX,
        plugin: PluginHarness | None = None,
    ) -> list[str]:
        """Create an endpoint and join it; returns the destinations of its static routes."""
        plugin = plugin or self.plugin
        plugin.create_endpoint(endpoint_id, network_id, address, address_v6=address_v6)
        joined = plugin.wait(plugin.joining.join(join(endpoint_id, network_id, sandbox)))
        return [str(each.destination) for each in joined.static_routes]

    def addresses(self, link: str | None = None) -> list[str]:
        return sorted(str(each.ip) for each in self.plugin.kernel.addresses_of(link or self.link))

    def routes(self, link: str | None = None) -> list[str]:
        found = self.plugin.kernel.host_routes(link or self.link, ROUTE_PROTOCOL)
        return sorted(f"{each.destination} from {each.source}" for each in found)


REACHED = [f"192.168.1.7 from {HOST}", f"fd00::7 from {HOST_6}"]
