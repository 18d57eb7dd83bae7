"""An option of pools that came with -o alone: the engine's client has dropped it from the pool's."""

from __future__ import annotations

from typing import Any

from attrs import evolve

from macvlan_twisted.errors import RequestRefused
from macvlan_twisted.option_values import IdentitySource

from .address_cases import AddressTestCase
from .helpers import LAN, PluginHarness, network_request, subnet

OURS = "192.168.1.0/24"


class LostPoolOptionTests(AddressTestCase):
    def create(self, **options: Any) -> None:
        request = network_request(
            subnets=(evolve(subnet(OURS, "192.168.1.1"), managed_here=True),), **options
        )
        self.plugin.wait(self.plugin.networks.create(request))

    def test_option_that_the_pool_lacks_is_refused(self) -> None:
        for name, value in (
            ("dhcp", "true"),
            ("identity", "name"),
            ("identity", "random"),
            ("conflict_detection", "strict"),
            ("dhcp_release", "false"),
            ("dhcp_vendor_class", "dolphins"),
        ):
            with self.subTest(name=name, value=value):
                pool = self.open(OURS)
                error = self.assertRaises(RequestRefused, self.create, **{name: value})
                for word in (
                    f"-o {name}={value} ",
                    f"--ipam-opt {name}={value}",
                    "Compose drops ipam.options",
                    f"--{name.replace('_', '-')} {value}",
                ):
                    self.assertIn(word, str(error))
                self.assertEqual(self.plugin.registry.networks, {})
                self.plugin.wait(self.plugin.pools.release_pool(pool))

    def test_option_that_the_pool_has_is_accepted(self) -> None:
        for name, value in (("identity", "name"), ("conflict_detection", "off"), ("dhcp", "true")):
            with self.subTest(name=name, value=value):
                pool = self.open(OURS, **{name: value})
                self.create(**{name: value})
                self.plugin.delete_network()
                self.plugin.wait(self.plugin.pools.release_pool(pool))

    def test_option_that_the_service_has_is_accepted(self) -> None:
        self.plugin = PluginHarness(config=evolve(LAN, identity=IdentitySource.NAME))
        self.open(OURS)
        self.create(identity="name")

    def test_one_fitting_pool_of_several_is_enough(self) -> None:
        self.open(OURS)
        self.open(OURS, identity="random")
        self.create(identity="random")
