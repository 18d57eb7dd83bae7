"""The address that a container has just left goes to the next one without a name, if it is the only one."""

from __future__ import annotations

import errno

from attrs import evolve

from macvlan_twisted.addresses import parse_range
from macvlan_twisted.errors import LinkError

from .helpers import LAN
from .test_sticky_addresses import StickyAddressTestCase


class ReturnedAddressTestCase(StickyAddressTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.pool = self.network()

    def box(self, address: str | None = None) -> str:
        """``docker run`` with an engine before 29; returns the address."""
        return self.start(self.pool, "", address)[0]

    def ends(self, address: str) -> None:
        self.stop(self.pool, address)


class ReturnTests(ReturnedAddressTestCase):
    def test_restarted_container_keeps_address_and_mac(self) -> None:
        self.box()
        before = self.start(self.pool, "")
        for _ in range(3):
            self.stop(self.pool, before[0])
            self.assertEqual(self.start(self.pool, ""), before)
        self.assertEqual(self.box(), "192.168.1.4/24", "the next unused one")

    def test_address_rests_after_the_grace(self) -> None:
        first = self.box()
        self.ends(first)
        self.plugin.clock.advance(5.1)
        self.assertEqual(self.box(), "192.168.1.3/24")

    def test_grace_of_zero_returns_nothing(self) -> None:
        self.use(evolve(LAN, return_grace=0.0))
        self.pool = self.network()
        self.ends(self.box())
        self.assertEqual(self.box(), "192.168.1.3/24")

    def test_several_released_addresses_all_rest(self) -> None:
        boxes = [self.box() for _ in range(3)]
        self.ends(boxes[0])
        self.ends(boxes[2])
        self.assertEqual([self.box(), self.box()], ["192.168.1.5/24", "192.168.1.6/24"])

    def test_one_after_the_other_keep_their_addresses(self) -> None:
        for address in [self.box() for _ in range(4)]:
            self.ends(address)
            self.assertEqual(self.box(), address)

    def test_each_pool_has_its_own(self) -> None:
        """Of two networks on one LAN."""
        one = self.box()
        self.ends(one)
        other = self.open("192.168.1.0/24")
        self.assertEqual(self.ask(other, name=""), "192.168.1.3/24")
        self.assertEqual(self.box(), one)

    def test_name_takes_no_returned_address(self) -> None:
        one = self.box()
        self.ends(one)
        self.assertNotEqual(self.start(self.pool, "web")[0], one)

    def test_returned_address_survives_a_restart(self) -> None:
        """Each of allocation, release and request may be in another life of the service."""
        one = self.box()
        self.plugin = self.plugin.next_life()
        self.ends(one)
        self.plugin = self.plugin.next_life()
        self.assertEqual(self.box(), one)
        self.plugin = self.plugin.next_life()
        self.assertNotEqual(self.box(), one)
        self.assertEqual(self.plugin.store.came_back, {})

    def test_rows_are_forgotten_when_the_grace_is_over(self) -> None:
        boxes = [self.box() for _ in range(3)]
        for each in boxes:
            self.ends(each)
        self.assertEqual(len(self.plugin.store.came_back), 3)
        self.plugin.clock.advance(6)
        self.box()
        self.assertEqual(self.plugin.store.came_back, {})

    def test_pool_takes_its_rows_along(self) -> None:
        self.ends(self.box())
        self.close(self.pool)
        self.assertEqual(self.plugin.store.came_back, {})


class RestTests(ReturnedAddressTestCase):
    """What is never handed out as returned."""

    def assert_rests(self, address: str) -> None:
        self.assertNotEqual(self.ask(self.pool, name=""), address)

    def test_address_asked_for_rests(self) -> None:
        asked = self.box("192.168.1.77")
        self.ends(asked)
        self.assert_rests(asked)
        again = self.box("192.168.1.77")
        self.plugin = self.plugin.next_life()
        self.ends(again)
        self.assert_rests(again)

    def test_address_without_an_endpoint_rests(self) -> None:
        address = self.ask(self.pool, name="")
        self.release(self.pool, address.partition("/")[0])
        self.assert_rests(address)

    def test_address_whose_endpoint_failed_rests(self) -> None:
        address = self.ask(self.pool, name="")
        self.plugin.steps.refuse["add_macvlan"] = errno.EINVAL
        with self.assert_refused(LinkError):
            self.mac_at(address)
        self.plugin.steps.refuse.clear()
        self.release(self.pool, address.partition("/")[0])
        self.assert_rests(address)

    def test_address_under_another_mac_rests(self) -> None:
        address = self.ask(self.pool, name="")
        self.plugin.create_endpoint(self.endpoint_of(address), address=address, mac="02:00:00:00:00:17")
        self.ends(address)
        self.assert_rests(address)

    def test_address_under_a_random_mac_rests(self) -> None:
        self.pool = self.open("192.168.1.0/24", identity="random")
        address = self.box()
        self.ends(address)
        self.assert_rests(address)

    def test_excluded_address_rests(self) -> None:
        """It was excluded meanwhile."""
        address = self.box()
        self.ends(address)
        excluded = (parse_range(address.partition("/")[0]),)
        self.plugin = self.plugin.next_life(evolve(LAN, excluded=excluded))
        self.assert_rests(address)

    def test_address_that_another_container_asked_for_is_not_returned(self) -> None:
        address = self.box()
        self.ends(address)
        self.assertEqual(self.box(address.partition("/")[0]), address)
        self.assert_rests(address)
