"""RequestAddress and ReleaseAddress, except for what the model (:mod:`.test_address_model`) covers."""

from __future__ import annotations

from attrs import evolve

from macvlan_twisted.addresses import parse_address, parse_range
from macvlan_twisted.errors import NotFound, RequestRefused
from macvlan_twisted.ipam.requests import Purpose

from .address_cases import AddressTestCase
from .helpers import LAN


class AllocationTests(AddressTestCase):
    def test_reserved_and_excluded_addresses_are_skipped(self) -> None:
        self.use(evolve(LAN, excluded=(parse_range("192.168.1.4-192.168.1.6"), parse_range("192.168.1.9"))))
        pool = self.open("192.168.1.0/28")
        self.gateway(pool, "192.168.1.2")
        self.ask(pool, "192.168.1.8", Purpose.AUXILIARY)
        found = [self.ask(pool) for _ in range(14 - 7)]
        self.assertEqual(
            [each.split(".")[-1] for each in found],
            ["3/28", "7/28", "10/28", "11/28", "12/28", "13/28", "14/28"],
        )
        with self.assert_refused(RequestRefused):
            self.ask(pool)

    def test_range_limits_only_unnamed_requests(self) -> None:
        pool = self.open("192.168.1.0/24", "192.168.1.64/30")
        self.assertEqual(self.ask(pool, "192.168.1.200"), "192.168.1.200/24")
        self.assertEqual(
            [self.ask(pool) for _ in range(4)], [f"192.168.1.{number}/24" for number in range(64, 68)]
        )
        with self.assert_refused(
            RequestRefused, "192.168.1.0/24", "192.168.1.64/30", "4 of 4 addresses are allocated"
        ):
            self.ask(pool)

    def test_exhaustion_error_names_pool_and_counts(self) -> None:
        self.use(evolve(LAN, excluded=(parse_range("10.0.0.3-10.0.0.4"),)))
        pool = self.open("10.0.0.0/29")
        for _ in range(4):
            self.ask(pool)
        with self.assert_refused(
            RequestRefused,
            "10.0.0.0/29",
            "4 of 6 addresses are allocated",
            "2 excluded",
            "larger --subnet",
        ):
            self.ask(pool)


class NamedAddressTests(AddressTestCase):
    def test_addresses_no_host_can_have_are_refused(self) -> None:
        pool = self.open()
        for address in ("192.168.1.0", "192.168.1.255", "192.168.2.1", "fd00::1"):
            with self.assert_refused(RequestRefused, address, "192.168.1.0/24"):
                self.ask(pool, address)
            with self.assert_refused(RequestRefused, address):
                self.gateway(pool, address)
        self.assertEqual(self.plugin.store.allocated, {})

    def test_unknown_pool_is_refused(self) -> None:
        with self.assert_refused(NotFound, "nowhere", "create it again"):
            self.ask("nowhere")

    def test_release_of_an_unknown_address_or_pool_succeeds(self) -> None:
        self.release("nowhere", "192.168.1.7")
        self.close("nowhere")
        pool = self.open()
        self.release(pool, "192.168.1.7")
        self.release(pool, "10.0.0.1")
        self.release(pool, "fd00::1")
        self.close(pool)
        self.close(pool)
        self.assertEqual(self.plugin.store.open, {})

    def test_release_of_the_other_family_frees_nothing(self) -> None:
        """The addresses are the same number."""
        pool = self.open()
        self.ask(pool, "192.168.1.64")
        for same_number in ("::192.168.1.64", "::c0a8:140"):
            self.release(pool, same_number)
            with self.assert_refused(RequestRefused, "192.168.1.64"):
                self.ask(pool, "192.168.1.64")
        self.assertEqual([str(each) for _, each in self.plugin.store.allocated], ["192.168.1.64"])
        self.release(pool, "192.168.1.64")
        self.assertEqual(self.plugin.store.allocated, {})


class GatewayTests(AddressTestCase):
    def test_default_gateway_is_the_router_if_it_is_in_the_pool(self) -> None:
        self.use(evolve(LAN, gateways=(parse_address("192.168.1.254"),)))
        self.assertEqual(self.gateway(self.open()), "192.168.1.254/24")
        self.assertEqual(self.gateway(self.open("10.0.0.0/8")), "10.0.0.1/8")
