"""Parsers of addresses, subnets, ranges and MACs."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from macvlan_twisted.addresses import (
    AddressRange,
    parse_address,
    parse_interface,
    parse_mac,
    parse_network,
    parse_range,
)

ADDRESSES = st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6))


class AddressTests(SynchronousTestCase):
    @given(ADDRESSES)
    def test_every_address_survives_text(self, address: IPv4Address | IPv6Address) -> None:
        self.assertEqual(parse_address(str(address)), address)

    @given(st.text(max_size=60))
    def test_any_text_is_parsed_or_quoted_in_the_error(self, text: str) -> None:
        try:
            parse_address(text)
        except ValueError as error:
            self.assertIn(repr(text), str(error))

    def test_zone_is_refused(self) -> None:
        for parse, text in (
            (parse_address, "fe80::1%eth0"),
            (parse_interface, "fe80::1%eth0/64"),
            (parse_network, "fe80::%eth0/64"),
            (parse_range, "fe80::1%a-fe80::2%a"),
        ):
            with self.assertRaises(ValueError, msg=text):
                parse(text)

    @given(ADDRESSES, st.data())
    def test_subnet_with_host_bits_is_refused_with_a_correction(
        self, address: IPv4Address | IPv6Address, data: st.DataObject
    ) -> None:
        length = data.draw(st.integers(0, address.max_prefixlen))
        text = f"{address}/{length}"
        meant = ip_network(text, strict=False)
        if meant.network_address == address:
            self.assertEqual(parse_network(text), meant)
        else:
            with self.assertRaises(ValueError) as caught:
                parse_network(text)
            self.assertIn(f"write {meant}", str(caught.exception))

    def test_error_has_examples_of_subnets(self) -> None:
        for text in ("", "lan", "192.168.1.0/33", "fd00::/129", "192.168.1/24/8"):
            with self.assertRaises(ValueError) as caught:
                parse_network(text)
            self.assertIn("fd00::/64", str(caught.exception))

    def test_interface_address_needs_a_prefix_length(self) -> None:
        self.assertEqual(str(parse_interface("10.0.0.7/8")), "10.0.0.7/8")
        self.assertEqual(str(parse_interface("fd00::7/64")), "fd00::7/64")
        for text in ("10.0.0.7", "", "10.0.0.7/33", "x/24"):
            with self.assertRaises(ValueError) as caught:
                parse_interface(text)
            self.assertIn(repr(text), str(caught.exception))


class MacTests(SynchronousTestCase):
    @given(st.binary(min_size=6, max_size=6))
    def test_unicast_macs_are_normalised_and_others_refused(self, raw: bytes) -> None:
        text = raw.hex(":").upper()
        if raw[0] & 1 or not any(raw):
            with self.assertRaises(ValueError) as caught:
                parse_mac(text)
            self.assertIn(text, str(caught.exception))
        else:
            self.assertEqual(parse_mac(text), raw.hex(":"))

    def test_other_notations_are_refused_with_an_example(self) -> None:
        for text in (
            "",
            "02-42-c0-a8-01-07",
            "0242c0a80107",
            "02:42:c0:a8:01",
            "02:42:c0:a8:01:07:08",
            "02:42:c0:a8:01:07\n",
        ):
            with self.assertRaises(ValueError) as caught:
                parse_mac(text)
            self.assertIn("02:42:c0:a8:01:07", str(caught.exception))


class RangeTests(SynchronousTestCase):
    @given(st.integers(4, 6).filter(lambda version: version != 5), st.data())
    def test_first_and_last_survive_text(self, version: int, data: st.DataObject) -> None:
        one, two = (data.draw(st.ip_addresses(v=version)) for _ in range(2))  # type: ignore[arg-type]
        first, last = sorted((one, two), key=int)
        expected = AddressRange(first, last)
        self.assertEqual(parse_range(f"{first}-{last}"), expected)
        self.assertEqual(parse_range(f"{first} - {last}"), expected)
        self.assertEqual(parse_range(str(expected)), expected)
        self.assertEqual(expected.version, version)

    def test_subnet_and_address_are_ranges(self) -> None:
        self.assertEqual(
            parse_range("10.0.0.64/26"), AddressRange(ip_address("10.0.0.64"), ip_address("10.0.0.127"))
        )
        self.assertEqual(str(parse_range("fd00::9")), "fd00::9")

    def test_error_has_the_correction(self) -> None:
        for text, remedy in (
            ("10.0.0.9-10.0.0.1", "10.0.0.1-10.0.0.9"),
            ("10.0.0.1-fd00::1", "one family"),
            ("10.0.0.1-", "not an IP address"),
            ("10.0.0.1/24", "10.0.0.0/24"),
        ):
            with self.assertRaises(ValueError) as caught:
                parse_range(text)
            self.assertIn(remedy, str(caught.exception))
