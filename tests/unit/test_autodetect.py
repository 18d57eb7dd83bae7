"""Interface, subnets and gateways from the default route."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from macvlan_twisted.addresses import parse_address, parse_interface, parse_network, parse_range
from macvlan_twisted.autodetect import Detected, detect_defaults
from macvlan_twisted.config import Config
from macvlan_twisted.errors import RequestRefused
from macvlan_twisted.netlink.kernel import DefaultRoute
from macvlan_twisted.testing.kernel import FakeKernel, nic


def route(link: str, gateway: str | None, metric: int = 0) -> DefaultRoute:
    return DefaultRoute(link, None if gateway is None else parse_address(gateway), metric)


def chosen(
    config: Config, routes: list[DefaultRoute], addresses: dict[str, list[str]], **facts: Any
) -> Detected:
    kernel = FakeKernel(
        [nic("eth0", 2, **facts), nic("eth1", 3)],
        routes,
        {link: [parse_interface(each) for each in texts] for link, texts in addresses.items()},
    )
    return detect_defaults(config, kernel)


def detected(
    config: Config, routes: list[DefaultRoute], addresses: dict[str, list[str]]
) -> tuple[str | None, list[str], list[str]]:
    """The interface, the subnets and the gateways."""
    found = chosen(config, routes, addresses).config
    return found.host_interface, [str(each) for each in found.subnets], [str(each) for each in found.gateways]


V4 = [route("eth0", "192.168.1.1", 100)]
V4_ADDRESSES = {"eth0": ["192.168.1.20/24"]}


class DetectionTests(SynchronousTestCase):
    def test_default_route_gives_interface_subnet_and_gateway(self) -> None:
        found = chosen(Config(), V4, V4_ADDRESSES)
        self.assertEqual(found.config.host_interface, "eth0")
        self.assertEqual(found.config.subnets, (parse_network("192.168.1.0/24"),))
        self.assertEqual(found.config.gateways, (parse_address("192.168.1.1"),))
        for fact in ("eth0", "192.168.1.0/24", "192.168.1.1"):
            self.assertTrue(any(fact in reason for reason in found.reasons), fact)
        self.assertEqual(found.hints, ())

    def test_addresses_of_the_host_are_excluded(self) -> None:
        found = chosen(Config(excluded=(parse_range("10.9.9.9"),)), V4, V4_ADDRESSES)
        self.assertEqual(found.config.excluded, (parse_range("10.9.9.9"), parse_range("192.168.1.20")))
        self.assertTrue(any("192.168.1.20" in reason for reason in found.reasons))

    def test_range_outside_the_detected_subnet_is_refused(self) -> None:
        with self.assertRaisesRegex(RequestRefused, "--ip-range 10.9.0.0/26 .*192.168.1.0/24"):
            chosen(Config(ip_ranges=(parse_network("10.9.0.0/26"),)), V4, V4_ADDRESSES)

    def test_gateway_outside_all_subnets_is_reported(self) -> None:
        found = chosen(Config(gateways=(parse_address("10.9.0.1"),)), V4, V4_ADDRESSES)
        self.assertTrue(
            any(
                "gateway 10.9.0.1: in no subnet of eth0, so no IPv4 subnet" in reason
                for reason in found.reasons
            )
        )

    def test_preferred_default_route_counts(self) -> None:
        routes = [route("eth0", "192.168.1.1", 600), route("eth1", "10.0.0.1", 100)]
        found = detected(Config(), routes, {**V4_ADDRESSES, "eth1": ["10.0.0.20/8"]})
        self.assertEqual(found, ("eth1", ["10.0.0.0/8"], ["10.0.0.1"]))

    def test_link_local_addresses_and_single_addresses_give_no_subnet(self) -> None:
        addresses = {
            "eth0": ["fe80::20/64", "192.168.9.20/32", "192.168.1.20/24", "fd09::1/128", "fd00::20/64"]
        }
        found = detected(Config(), [*V4, route("eth0", "fd00::1", 1024)], addresses)
        self.assertEqual(found, ("eth0", ["192.168.1.0/24", "fd00::/64"], ["192.168.1.1", "fd00::1"]))

    def test_default_route_without_router_gives_no_gateway(self) -> None:
        found = detected(Config(), [route("eth0", None)], V4_ADDRESSES)
        self.assertEqual(found, ("eth0", ["192.168.1.0/24"], []))

    def test_configured_interface_gives_the_rest(self) -> None:
        found = detected(Config(host_interface="eth1"), V4, {**V4_ADDRESSES, "eth1": ["10.9.0.5/16"]})
        self.assertEqual(found, ("eth1", ["10.9.0.0/16"], []))

    def test_configured_gateway_selects_its_subnet(self) -> None:
        config = Config(gateways=(parse_address("10.5.0.9"),))
        found = detected(config, V4, {"eth0": ["192.168.1.20/24", "10.5.0.20/16"]})
        self.assertEqual(found, ("eth0", ["10.5.0.0/16"], ["10.5.0.9"]))

    def test_router_outside_the_subnet_is_no_gateway(self) -> None:
        found = detected(Config(subnets=(parse_network("10.5.0.0/16"),)), V4, V4_ADDRESSES)
        self.assertEqual(found, ("eth0", ["10.5.0.0/16"], []))

    def test_other_family_is_detected(self) -> None:
        found = detected(Config(subnets=(parse_network("fd09::/64"),)), V4, V4_ADDRESSES)
        self.assertEqual(found, ("eth0", ["fd09::/64", "192.168.1.0/24"], ["192.168.1.1"]))

    def test_without_default_route_a_warning_names_the_options(self) -> None:
        found = chosen(Config(), [], V4_ADDRESSES)
        self.assertEqual(found.config, Config())
        (warning,) = found.hints
        for words in ("networks without -o parent= will be internal", "set --host-interface, or -o parent="):
            self.assertIn(words, warning)

    def test_absent_host_interface_is_a_warning(self) -> None:
        found = chosen(Config(host_interface="eht1"), V4, V4_ADDRESSES)
        self.assertEqual(found.config, Config(host_interface="eht1"))
        (warning,) = found.hints
        self.assertIn(
            "host interface eht1: does not exist; did you mean eth1? correct --host-interface", warning
        )

    def test_warning_of_an_absent_host_interface_lists_those_that_exist(self) -> None:
        (warning,) = chosen(Config(host_interface="wlan"), V4, V4_ADDRESSES).hints
        self.assertIn("wlan: does not exist; this host has eth0, eth1: correct --host-interface", warning)

    def test_configured_subnet_and_gateway_win(self) -> None:
        given = Config(subnets=(parse_network("10.5.0.0/16"),), gateways=(parse_address("10.5.0.9"),))
        found = chosen(given, V4, V4_ADDRESSES)
        self.assertEqual((found.config.subnets, found.config.gateways), (given.subnets, given.gateways))
        self.assertIn("subnet 10.5.0.0/16: as configured", found.reasons)
        self.assertIn("gateway 10.5.0.9: as configured", found.reasons)


class HintTests(SynchronousTestCase):
    def test_hints_about_the_nic(self) -> None:
        virtual = ("virtio_net", "vmxnet3", "hv_netvsc", "xen_netfront", "ena", "gve")
        cases: list[tuple[dict[str, Any], str]] = [
            ({"is_wireless": True}, "host interface eth0: a Wi-Fi NIC"),
            ({"bridge": "br0"}, "--host-interface=br0"),
            *(({"driver": driver}, "one MAC") for driver in virtual),
        ]
        for facts, words in cases:
            (hint,) = chosen(Config(), V4, V4_ADDRESSES, **facts).hints
            self.assertIn(words, hint)
        self.assertEqual(chosen(Config(), V4, V4_ADDRESSES, driver="e1000e").hints, ())

    def test_hint_for_a_configured_interface(self) -> None:
        found = chosen(Config(host_interface="eth0"), [], {}, is_wireless=True)
        self.assertEqual(len(found.hints), 1)
