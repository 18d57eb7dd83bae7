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
        self.assertTrue(any("no IPv4 subnet: gateway 10.9.0.1" in reason for reason in found.reasons))

    def test_preferred_default_route_counts(self) -> None:
        found = chosen(
            Config(),
            [route("eth0", "192.168.1.1", 600), route("eth1", "10.0.0.1", 100)],
            {**V4_ADDRESSES, "eth1": ["10.0.0.20/8"]},
        )
        self.assertEqual(found.config.host_interface, "eth1")
        self.assertEqual(found.config.gateways, (parse_address("10.0.0.1"),))

    def test_link_local_addresses_give_no_subnet(self) -> None:
        found = chosen(
            Config(),
            [*V4, route("eth0", "fd00::1", 1024)],
            {"eth0": ["fe80::20/64", "192.168.1.20/24", "fd00::20/64"]},
        )
        self.assertEqual(found.config.subnets, (parse_network("192.168.1.0/24"), parse_network("fd00::/64")))
        self.assertEqual(found.config.gateways, (parse_address("192.168.1.1"), parse_address("fd00::1")))

    def test_subnet_of_one_address_is_ignored(self) -> None:
        found = chosen(Config(), V4, {"eth0": ["192.168.1.20/32", "fd00::20/128"]})
        self.assertEqual(found.config.subnets, ())

    def test_without_default_route_the_log_names_the_options(self) -> None:
        found = chosen(Config(), [], V4_ADDRESSES)
        self.assertEqual(found.config, Config())
        for words in ("networks without -o parent= are internal", "dummy link", "--host-interface"):
            self.assertIn(words, found.reasons[0])

    def test_default_route_without_router_gives_no_gateway(self) -> None:
        found = chosen(Config(), [route("eth0", None)], V4_ADDRESSES)
        self.assertEqual(found.config.subnets, (parse_network("192.168.1.0/24"),))
        self.assertEqual(found.config.gateways, ())

    def test_configured_interface_gives_the_rest(self) -> None:
        found = chosen(Config(host_interface="eth1"), V4, {**V4_ADDRESSES, "eth1": ["10.9.0.5/16"]})
        self.assertEqual(found.config.host_interface, "eth1")
        self.assertEqual(found.config.subnets, (parse_network("10.9.0.0/16"),))
        self.assertEqual(found.config.gateways, ())
        self.assertIn("host interface eth1: as given", found.reasons)

    def test_missing_configured_interface_is_reported(self) -> None:
        found = chosen(Config(host_interface="eth7"), V4, V4_ADDRESSES)
        self.assertEqual(found.config, Config(host_interface="eth7"))
        (told,) = [reason for reason in found.reasons if "eth7 is not there yet" in reason]
        self.assertIn("stays unknown until the service is restarted", told)

    def test_configured_subnet_and_gateway_win(self) -> None:
        given = Config(subnets=(parse_network("10.5.0.0/16"),), gateways=(parse_address("10.5.0.9"),))
        found = chosen(given, V4, V4_ADDRESSES)
        self.assertEqual((found.config.subnets, found.config.gateways), (given.subnets, given.gateways))
        self.assertIn("subnet 10.5.0.0/16: as given", found.reasons)
        self.assertIn("gateway 10.5.0.9: as given", found.reasons)

    def test_configured_gateway_selects_its_subnet(self) -> None:
        found = chosen(
            Config(gateways=(parse_address("10.5.0.9"),)), V4, {"eth0": ["192.168.1.20/24", "10.5.0.20/16"]}
        )
        self.assertEqual(found.config.subnets, (parse_network("10.5.0.0/16"),))
        self.assertEqual(found.config.gateways, (parse_address("10.5.0.9"),))

    def test_router_outside_the_subnet_is_no_gateway(self) -> None:
        found = chosen(Config(subnets=(parse_network("10.5.0.0/16"),)), V4, V4_ADDRESSES)
        self.assertEqual(found.config.gateways, ())

    def test_other_family_is_detected(self) -> None:
        found = chosen(Config(subnets=(parse_network("fd09::/64"),)), V4, V4_ADDRESSES)
        self.assertEqual(
            set(found.config.subnets), {parse_network("fd09::/64"), parse_network("192.168.1.0/24")}
        )


class HintTests(SynchronousTestCase):
    def hints(self, **facts: Any) -> tuple[str, ...]:
        return chosen(Config(), V4, V4_ADDRESSES, **facts).hints

    def test_hint_for_wifi(self) -> None:
        (hint,) = self.hints(is_wireless=True)
        self.assertIn("eth0 is a Wi-Fi interface", hint)

    def test_hint_for_a_bridge_port_names_the_bridge(self) -> None:
        (hint,) = self.hints(bridge="br0")
        self.assertIn("--host-interface=br0", hint)

    def test_hint_for_virtual_nics(self) -> None:
        for driver in ("virtio_net", "vmxnet3", "hv_netvsc", "xen_netfront", "ena", "gve"):
            (hint,) = self.hints(driver=driver)
            self.assertIn("one MAC", hint)

    def test_no_hint_for_a_wired_nic(self) -> None:
        self.assertEqual(self.hints(driver="e1000e"), ())

    def test_hint_for_a_configured_interface(self) -> None:
        found = chosen(Config(host_interface="eth0"), [], {}, is_wireless=True)
        self.assertEqual(len(found.hints), 1)
