"""Host addresses out of pools of our own address management."""

from __future__ import annotations

from attrs import evolve

from macvlan_twisted.addresses import parse_address, parse_network
from macvlan_twisted.errors import RequestRefused
from macvlan_twisted.ipam.requests import Purpose, ReleaseAddress, RequestAddress
from macvlan_twisted.state.interfaces import RecordKind

from .helpers import OTHER_NETWORK, PLAIN_LINKS
from .host_access_cases import HOST, HostAccessTestCase


class OurPoolTests(HostAccessTestCase):
    def next(self, address: str | None = None) -> str:
        """The address of the next container."""
        wanted = None if address is None else parse_address(address)
        request = RequestAddress(self.pool_id, wanted, Purpose.ENDPOINT, "")
        return str(self.plugin.wait(self.plugin.addresses.request_address(request)).ip)

    def made(self) -> None:
        """The network is made: from now on a named address belongs to a container."""
        subnets = [(parse_network("192.168.1.0/24"), ())]
        self.plugin.wait(self.plugin.pool_binding.network_created("eth0", subnets))

    def test_host_has_the_first_free_address_for_itself(self) -> None:
        pool = self.pool(part="192.168.1.64/30")
        self.open(subnets=(pool,), address="")
        self.assertEqual(self.addresses(), ["192.168.1.64"])
        self.assertEqual(self.next(), "192.168.1.65")

    def test_container_cannot_ask_for_the_host_address(self) -> None:
        self.open(subnets=(self.pool(),), address=HOST)
        self.made()
        with self.assert_refused(RequestRefused, HOST, "reserved"):
            self.next(HOST)

    def test_host_cannot_get_the_address_of_a_container(self) -> None:
        pool = self.pool()
        self.made()
        address = self.next()
        with self.assert_refused(RequestRefused, address, "in use by a container"):
            self.open(subnets=(pool,), address=address)
        self.assertEqual(self.plugin.link_names(), PLAIN_LINKS)

    def test_late_release_does_not_free_the_host_address(self) -> None:
        self.open(subnets=(self.pool(part="192.168.1.64/30"),), address="")
        late = ReleaseAddress(self.pool_id, parse_address("192.168.1.64"))
        for plugin in (self.plugin, self.plugin.next_life()):
            self.plugin = plugin
            self.plugin.wait(self.plugin.addresses.release_address(late))
            self.assertIn((self.pool_id, late.address), self.plugin.store.allocated)
            self.assertEqual(self.next(), "192.168.1.65")
            self.plugin.wait(self.plugin.addresses.release_address(evolve(late, address=late.address + 1)))

    def test_refused_host_address_leaves_the_gateway_releasable(self) -> None:
        pool = evolve(self.pool(), gateway=parse_address("192.168.1.1"))
        gateway = ReleaseAddress(self.pool_id, parse_address("192.168.1.1"))
        self.plugin.wait(
            self.plugin.addresses.request_address(
                RequestAddress(self.pool_id, gateway.address, Purpose.GATEWAY)
            )
        )
        with self.assertRaises(RequestRefused):
            self.open(subnets=(pool,), address="192.168.1.1")
        self.plugin.wait(self.plugin.addresses.release_address(gateway))
        self.assertNotIn((self.pool_id, gateway.address), self.plugin.store.allocated)

    def test_host_address_is_freed_with_the_pool(self) -> None:
        self.open(subnets=(self.pool(),), address="")
        self.plugin.wait(self.plugin.pools.release_pool(self.pool_id))
        self.plugin.delete_network()
        self.assertEqual(self.plugin.store.allocations(), [])
        self.assertEqual(self.plugin.kernel.host_addresses(), {})

    def test_second_network_keeps_the_shared_host_address(self) -> None:
        first, first_id = self.pool(), self.pool_id
        self.open(subnets=(first,), address="")
        self.open(OTHER_NETWORK, subnets=(self.pool(),), address="")
        self.assertEqual(len(self.addresses()), 1)
        (shared,) = self.addresses()
        self.plugin.wait(self.plugin.pools.release_pool(first_id))
        self.plugin.delete_network()
        self.assertEqual(self.addresses(), [shared])
        self.assertNotEqual(self.next(), shared)

    def test_host_address_stays_reserved_after_a_restart(self) -> None:
        self.open(subnets=(self.pool(part="192.168.1.64/30"),), address="")
        self.plugin = self.plugin.next_life()
        self.assertEqual(self.next(), "192.168.1.65")

    def test_dhcp_pool_needs_an_explicit_host_address(self) -> None:
        pool = self.pool(parent="eth0", dhcp="true")
        with self.assert_refused(
            RequestRefused, "DHCP server", "-o host_address=ADDRESS", "-o host_access=false"
        ):
            self.open(subnets=(pool,), address="")
        self.assertEqual(self.plugin.records.all_rows().get(RecordKind.NETWORK), None)
        self.open(subnets=(pool,), address=HOST)
        self.assertEqual(self.addresses(), [HOST])
