"""Names and aliases of links, and derived MACs."""

from __future__ import annotations

from ipaddress import IPv4Address

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from macvlan_twisted.addresses import parse_interface, parse_mac
from macvlan_twisted.link_names import (
    alias_of,
    dummy_link_name,
    endpoint_link_name,
    instance_prefix,
    probe_link_name,
    vlan_link_name,
)
from macvlan_twisted.macs import mac_from_ip
from macvlan_twisted.option_values import parse_interface_name

IDS = st.text("0123456789abcdef", min_size=64, max_size=64)


def _is_link_name(name: str) -> bool:
    try:
        parse_interface_name(name)
    except ValueError:
        return False
    return True


LINK_NAMES = st.text(st.characters(codec="utf-8"), min_size=1, max_size=15).filter(_is_link_name)


class NameTests(SynchronousTestCase):
    @given(st.sets(IDS, min_size=2, max_size=30))
    def test_names_are_unique(self, ids: set[str]) -> None:
        names = [
            derive(each) for each in ids for derive in (endpoint_link_name, probe_link_name, dummy_link_name)
        ]
        self.assertEqual(len(set(names)), len(names))
        for name in names:
            self.assertEqual(parse_interface_name(name), name)

    def test_names_are_stable_between_releases(self) -> None:
        """A link made by an earlier release is found by its name."""
        self.assertEqual(endpoint_link_name("e" * 64), "mvt7f4a4100cb38")
        self.assertEqual(probe_link_name("e" * 64), "mvx7f4a4100cb38")
        self.assertEqual(dummy_link_name("e" * 64), "mvd7f4a4100cb38")
        self.assertEqual(vlan_link_name("enp134s0f1np1", 4000), "mvv6e4a346.4000")

    @given(LINK_NAMES, st.integers(1, 4094))
    def test_vlan_link_has_a_valid_name(self, lower: str, vlan_id: int) -> None:
        name = vlan_link_name(lower, vlan_id)
        self.assertEqual(parse_interface_name(name), name)
        self.assertTrue(name.endswith(f".{vlan_id}"))
        if len(f"{lower}.{vlan_id}".encode()) <= 15:
            self.assertEqual(name, f"{lower}.{vlan_id}")

    def test_alias_belongs_to_one_instance(self) -> None:
        self.assertTrue(alias_of("12", "endpoint", "e").startswith(instance_prefix("12")))
        self.assertFalse(alias_of("123", "endpoint", "e").startswith(instance_prefix("12")))


class MacTests(SynchronousTestCase):
    @given(st.ip_addresses(v=4), IDS)
    def test_mac_holds_the_ipv4_address(self, address: IPv4Address, identifier: str) -> None:
        mac = mac_from_ip(parse_interface(f"{address}/8"), parse_interface("fd00::1/64"), identifier)
        self.assertEqual(mac, "7a:42:" + address.packed.hex(":"))
        self.assertEqual(parse_mac(mac), mac)

    def test_same_ipv6_address_gives_the_same_mac(self) -> None:
        address = parse_interface("fd00::7/64")
        self.assertEqual(mac_from_ip(None, address, "one"), "7a:42:9a:63:2e:b4")
        self.assertEqual(mac_from_ip(None, address, "one"), mac_from_ip(None, address, "two"))
        self.assertNotEqual(
            mac_from_ip(None, address, "one"), mac_from_ip(None, parse_interface("fd00::8/64"), "one")
        )

    @given(st.sets(IDS, min_size=2, max_size=20))
    def test_endpoints_without_addresses_have_unique_macs(self, ids: set[str]) -> None:
        macs = {mac_from_ip(None, None, each) for each in ids}
        self.assertEqual(len(macs), len(ids))
        for mac in macs:
            self.assertEqual(parse_mac(mac), mac)
