"""Hosts of a fleet without etcd choose addresses from parts of one range (``--fleet-share``)."""

from __future__ import annotations

from itertools import pairwise

from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from macvlan_twisted.addresses import parse_address, parse_network
from macvlan_twisted.config import Config
from macvlan_twisted.errors import RequestRefused, StartupError
from macvlan_twisted.ipam.allocator import Span, part_of_span, usable_span
from macvlan_twisted.ipam.fleet_share import with_share
from macvlan_twisted.ipam.pool_plan import plan_pool
from macvlan_twisted.ipam.requests import Purpose, RequestPool
from macvlan_twisted.option_values import MAX_FLEET_SHARES, FleetShare, parse_fleet_share

from .address_cases import AddressTestCase
from .helpers import LAN

SUBNETS = st.sampled_from(
    ["10.0.0.0/8", "192.168.1.0/24", "192.168.1.0/28", "fd00::/64", "fd00::/120", "10.1.2.0/30"]
).map(parse_network)


def with_text(text: str) -> Config:
    return evolve(LAN, fleet_share=parse_fleet_share(text))


class PartTests(SynchronousTestCase):
    @given(
        st.builds(
            lambda first, size: Span(first, first + size - 1), st.integers(0, 2**128), st.integers(0, 2**64)
        ),
        st.integers(1, MAX_FLEET_SHARES),
    )
    def test_parts_are_equal_contiguous_and_cover_the_range(self, whole: Span, parts: int) -> None:
        spans = [part_of_span(whole, number, parts) for number in range(1, parts + 1)]
        if whole.size < parts:
            self.assertEqual([each.size for each in spans], [0] * parts)
            return
        self.assertEqual((spans[0].first, spans[-1].last), (whole.first, whole.last))
        for one, following in pairwise(spans):
            self.assertEqual(following.first, one.last + 1)
        self.assertEqual({each.size for each in spans[:-1]} - {whole.size // parts}, set())
        self.assertLess(spans[-1].size - whole.size // parts, parts)

    @given(SUBNETS, st.integers(2, 5), st.data())
    def test_each_address_is_in_the_share_of_one_host(self, subnet, parts: int, data: st.DataObject) -> None:  # type: ignore[no-untyped-def]
        request = RequestPool("Local", subnet, None, {"parent": "eth0"}, v6=subnet.version == 6)
        planned = plan_pool(request, LAN, "0a1b2c3d")
        if usable_span(subnet).size < parts:
            with self.assertRaisesRegex(RequestRefused, f"{subnet} has .* addresses, too few for"):
                with_share(planned, FleetShare(1, parts))
            return
        pools = [with_share(planned, FleetShare(number, parts)) for number in range(1, parts + 1)]
        span = usable_span(subnet)
        number = data.draw(st.integers(span.first, span.last))
        self.assertEqual([each.span.contains(number) for each in pools].count(True), 1)
        self.assertEqual([each.is_in_other_share(number) for each in pools].count(False), 1)


class AllocationTests(AddressTestCase):
    def setUp(self) -> None:
        self.use(with_text("2/3"))

    def addresses_of(self, pool_id: str) -> list[str]:
        """All addresses that are left, in the order in which containers get them."""
        found = []
        while True:
            try:
                found.append(self.ask(pool_id).partition("/")[0])
            except RequestRefused as refusal:
                self.error = str(refusal)
                return found

    def test_addresses_come_from_the_own_part_only(self) -> None:
        for subnet, part, first, last in (
            ("192.168.1.0/28", None, "192.168.1.5", "192.168.1.8"),
            ("192.168.1.0/24", "192.168.1.64/28", "192.168.1.69", "192.168.1.73"),
            ("fd00:1::/124", None, "fd00:1::6", "fd00:1::a"),
        ):
            with self.subTest(subnet=subnet, part=part):
                pool_id = self.open(subnet, part)
                numbers = range(int(parse_address(first)), int(parse_address(last)) + 1)
                kind = type(parse_address(first))
                self.assertEqual(self.addresses_of(pool_id), [str(kind(each)) for each in numbers])
                size = len(numbers)
                self.assertIn(
                    f"{size} of {size} addresses of --fleet-share 2/3 are allocated; remove", self.error
                )
                self.close(pool_id)

    def test_last_part_has_the_remainder(self) -> None:
        self.use(with_text("3/3"))
        self.assertEqual(
            self.addresses_of(self.open("192.168.1.0/24", "192.168.1.64/28")),
            [f"192.168.1.{number}" for number in range(74, 80)],
        )

    def test_named_address_of_another_host_is_refused(self) -> None:
        pool_id = self.open("192.168.1.0/24", "192.168.1.64/28")
        with self.assertRaisesRegex(
            RequestRefused,
            r"address 192\.168\.1\.68 .* belongs to another host, because this one has --fleet-share 2/3: use one from "
            r"192\.168\.1\.69 to 192\.168\.1\.73, or one of 192\.168\.1\.0/24 outside 192\.168\.1\.64/28",
        ):
            self.ask(pool_id, "192.168.1.68")
        self.assertEqual(self.ask(pool_id, "192.168.1.70"), "192.168.1.70/24")
        self.assertEqual(self.ask(pool_id, "192.168.1.100"), "192.168.1.100/24")

    def test_gateway_and_auxiliary_addresses_may_lie_anywhere(self) -> None:
        """Engines before 29 send neither a purpose of the auxiliary one nor the names of containers."""
        pool_id = self.open("192.168.1.0/28")
        self.assertEqual(self.gateway(pool_id, "192.168.1.1"), "192.168.1.1/28")
        self.assertEqual(self.ask(pool_id, "192.168.1.14", name=""), "192.168.1.14/28")

    def test_pool_of_a_dhcp_server_has_no_share(self) -> None:
        pool_id = self.open("192.168.1.0/24", parent="eth0", dhcp="true")
        self.assertIsNone(self.plugin.open_pools.by_id[pool_id].fleet_share)

    def test_range_without_an_address_for_each_host_is_refused(self) -> None:
        with self.assertRaisesRegex(
            RequestRefused, r"10\.0\.0\.0/30 has 2 addresses, too few for --fleet-share 2/3: use a larger"
        ):
            self.open("10.0.0.0/30")
        self.assertEqual(self.plugin.store.open, {})


class ChangeTests(AddressTestCase):
    """The service starts with another share than the pools have that it finds."""

    def setUp(self) -> None:
        self.use(LAN)
        self.pool_id = self.open("192.168.1.0/24")
        self.gateway(self.pool_id, "192.168.1.254")
        for address in ("192.168.1.100", "192.168.1.110"):
            self.ask(self.pool_id, address)

    def start_with(self, config: Config) -> None:
        self.plugin = self.plugin.next_life(config)

    def test_share_applies_to_pools_whose_containers_are_in_the_part(self) -> None:
        self.start_with(with_text("1/2"))
        self.start_with(with_text("1/2"))
        self.assertEqual(self.plugin.open_pools.by_id[self.pool_id].fleet_share, FleetShare(1, 2))
        with self.assertRaises(RequestRefused):
            self.ask(self.pool_id, "192.168.1.128")

    def test_share_is_refused_while_containers_are_outside_the_part(self) -> None:
        for text, outside in (
            ("2/2", "192.168.1.100, 192.168.1.110"),
            ("1/3", "192.168.1.100, 192.168.1.110"),
            ("3/7", "192.168.1.110"),
        ):
            with (
                self.subTest(share=text),
                self.assertRaisesRegex(
                    StartupError,
                    f"--fleet-share {text} is not possible .* pool 192.168.1.0/24: {outside}; start the plugin with no "
                    "--fleet-share as before, remove these containers",
                ),
            ):
                self.start_with(with_text(text))
        self.start_with(LAN)
        self.assertEqual(self.ask(self.pool_id, "192.168.1.200"), "192.168.1.200/24")

    def test_error_names_the_earlier_share_and_few_addresses(self) -> None:
        self.start_with(with_text("1/2"))
        for number in range(20, 30):
            self.ask(self.pool_id, f"192.168.1.{number}")
        with self.assertRaisesRegex(
            StartupError,
            r": 192\.168\.1\.20, .*\.24, \.\.\.; start the plugin with --fleet-share 1/2 as before",
        ):
            self.start_with(with_text("2/2"))

    def test_share_is_dropped_with_the_option(self) -> None:
        self.start_with(with_text("1/2"))
        self.start_with(LAN)
        self.assertEqual(self.ask(self.pool_id, "192.168.1.200"), "192.168.1.200/24")

    def test_too_small_a_range_is_reported_at_start(self) -> None:
        self.open("10.0.0.0/30")
        with self.assertRaisesRegex(StartupError, "10.0.0.0/30 has 2 addresses, too few"):
            self.start_with(with_text("2/3"))

    def test_container_does_not_return_to_an_address_of_another_host(self) -> None:
        self.ask(self.pool_id, "192.168.1.200", name="web")
        self.release(self.pool_id, "192.168.1.200")
        self.start_with(with_text("1/2"))
        number = int(self.ask(self.pool_id, name="web").partition("/")[0].rpartition(".")[2])
        self.assertLess(number, 128)

    def test_addresses_outside_the_range_do_not_count(self) -> None:
        pool_id = self.open("192.168.1.0/24", "192.168.1.64/28")
        self.ask(pool_id, "192.168.1.120")
        self.start_with(with_text("1/2"))
        self.assertEqual(self.plugin.open_pools.by_id[pool_id].fleet_share, FleetShare(1, 2))
        self.assertEqual(
            [each.purpose for each in self.plugin.store.allocated.values() if each.pool_id == pool_id],
            [Purpose.ENDPOINT.value],
        )
