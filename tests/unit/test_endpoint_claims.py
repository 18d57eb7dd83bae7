"""Which endpoint uses an address: a late CreateEndpoint takes nothing from the container that has the address now."""

from __future__ import annotations

import errno

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from macvlan_twisted.display_names import DisplayNames
from macvlan_twisted.errors import LinkError, RequestRefused
from macvlan_twisted.ipam.endpoint_claims import EndpointClaims
from macvlan_twisted.ipam.pool_registry import PoolRegistry
from macvlan_twisted.link_names import endpoint_link_name
from macvlan_twisted.state.interfaces import RecordKind
from macvlan_twisted.testing.state import MemoryAddressStore

from .helpers import ENDPOINT, OTHER_ENDPOINT, PLAIN_LINKS, PluginTestCase
from .reconciler_cases import ENOUGH, ReconcilerTestCase

LATE, LIVING = ENDPOINT, OTHER_ENDPOINT
ADDRESS = "192.168.1.7/24"


class ClaimTests(ReconcilerTestCase):
    def assert_too_late(self) -> None:
        before = self.plugin.records.all_rows(), self.plugin.link_names()
        with self.assert_refused(
            RequestRefused, "before its endpoint was created", "192.168.1.7", "start the container again"
        ):
            self.plugin.create_endpoint(LATE)
        self.assertEqual((self.plugin.records.all_rows(), self.plugin.link_names()), before)

    def test_late_endpoint_is_refused_once_another_has_its_address(self) -> None:
        self.request_address()
        self.begin()
        self.go_round(ENOUGH)  # no endpoint came: the address is given back
        self.assertEqual(self.claimed(), [])
        self.run_container(LIVING)
        self.assert_too_late()
        self.assert_kept(LIVING)

    def test_late_endpoint_is_refused_before_the_other_one_joins(self) -> None:
        self.request_address()
        self.release_address()
        self.request_address()
        self.plugin.create_endpoint(LIVING)
        self.assert_too_late()
        self.assertIn(endpoint_link_name(LIVING), self.plugin.link_names())

    def test_late_endpoint_is_refused_after_a_restart(self) -> None:
        self.run_container(LIVING)
        self.plugin = self.plugin.next_life()
        self.assert_too_late()
        self.assert_kept(LIVING)

    def test_endpoint_of_a_released_address_is_refused(self) -> None:
        self.request_address()
        self.release_address()
        self.assert_too_late()
        self.assert_kept()

    def test_endpoint_that_failed_leaves_the_address_to_the_next(self) -> None:
        self.request_address()
        for name, number in (("add_macvlan", errno.ENOMEM), ("links", errno.ENOMEM)):
            self.plugin.steps.refuse[name] = number
            with self.subTest(name):
                try:
                    self.plugin.create_endpoint(LATE)
                except LinkError:
                    pass
                else:
                    self.plugin.delete_endpoint(LATE)
            self.plugin.steps.refuse.clear()
        self.plugin.create_endpoint(LIVING)
        self.assert_kept(LIVING)

    def test_two_endpoints_at_once_do_not_share_an_address(self) -> None:
        self.request_address()
        self.plugin.steps.hold.add("add_macvlan")
        first = self.plugin.begin_create_endpoint(LIVING)
        self.assert_too_late_by(LATE)
        self.plugin.steps.let_all_go()
        self.successResultOf(first)
        self.assert_kept(LIVING)

    def assert_too_late_by(self, endpoint_id: str) -> None:
        self.failureResultOf(self.plugin.begin_create_endpoint(endpoint_id), RequestRefused)

    def test_forgotten_endpoint_is_replaced_after_a_new_request(self) -> None:
        self.run_container(LATE)
        self.forget_container(LATE)
        self.release_address()
        self.request_address()
        self.plugin.create_endpoint(LIVING)
        self.assert_kept(LIVING)

    def test_network_without_a_known_pool_takes_any_address(self) -> None:
        """The state was lost, and could not be rebuilt."""
        self.plugin.wait(self.plugin.pools.release_pool(self.pool_id))
        self.plugin.create_endpoint(LIVING)
        self.assert_kept(LIVING)


class ShownInContainerTests(PluginTestCase):
    """Docker's own address management: we do not see when it releases an address."""

    def setUp(self) -> None:
        super().setUp()
        self.plugin.create_network()
        self.plugin.create_endpoint(LIVING, address=ADDRESS)
        self.plugin.kernel.move_away(endpoint_link_name(LIVING), up=True)

    def test_endpoint_shown_in_a_container_is_not_dropped(self) -> None:
        for mac in (None, "02:00:00:00:00:77"):
            with self.assert_refused(RequestRefused, "192.168.1.7", LIVING[:12], "still running"):
                self.plugin.create_endpoint(LATE, address=ADDRESS, mac=mac)
        self.assertEqual(list(self.plugin.records.rows[RecordKind.ENDPOINT]), [LIVING])
        self.assertEqual(self.plugin.link_names(), PLAIN_LINKS)

    def test_endpoint_is_replaced_once_its_container_is_gone(self) -> None:
        self.plugin.kernel.destroy_away(endpoint_link_name(LIVING))
        self.plugin.create_endpoint(LATE, address=ADDRESS)
        self.assertEqual(list(self.plugin.records.rows[RecordKind.ENDPOINT]), [LATE])

    def test_nothing_is_dropped_if_the_kernel_does_not_answer(self) -> None:
        self.plugin.steps.refuse["links_elsewhere"] = errno.EINTR
        with self.assert_refused(LinkError):
            self.plugin.create_endpoint(LATE, address=ADDRESS)
        self.assertEqual(list(self.plugin.records.rows[RecordKind.ENDPOINT]), [LIVING])

    def test_old_kernel_shows_nothing(self) -> None:
        self.plugin.kernel.destroy_away(endpoint_link_name(LIVING))
        self.plugin.steps.refuse["links_elsewhere"] = errno.EOPNOTSUPP
        self.plugin.create_endpoint(LATE, address=ADDRESS)
        self.assertEqual(list(self.plugin.records.rows[RecordKind.ENDPOINT]), [LATE])


class PendingTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.names = DisplayNames()
        self.claims = EndpointClaims(PoolRegistry(MemoryAddressStore()), self.clock.seconds, self.names)

    def test_longest_pending_come_first(self) -> None:
        for number in range(5):
            self.claims.begin_pending("pool", number)
            self.clock.advance(10)
        self.assertEqual(self.claims.pending_for(30), [("pool", 0), ("pool", 1), ("pool", 2)])

    def test_new_allocation_restarts_the_wait(self) -> None:
        self.claims.allocated("pool", 1)
        self.claims.allocated("pool", 2)
        self.clock.advance(10)
        self.claims.allocated("pool", 1)
        self.clock.advance(10)
        self.assertEqual(self.claims.pending_for(15), [("pool", 2)])
        self.assertEqual(self.claims.pending_since("pool", 1), 10)

    def test_released_addresses_are_not_pending(self) -> None:
        for pool in ("one", "other"):
            for number in range(3):
                self.claims.allocated(pool, number)
        self.claims.released("one", 1)
        self.claims.released("one", 7)
        self.claims.pool_released("other")
        self.assertEqual(self.claims.pending_for(0), [("one", 0), ("one", 2)])

    def test_name_of_a_released_address_is_forgotten(self) -> None:
        """A container that failed to start leaves no name to the next endpoint with its address, and takes no memory."""
        for pool, end in (
            ("one", lambda: self.claims.released("one", 1)),
            ("other", lambda: self.claims.pool_released("other")),
        ):
            self.claims.allocated(pool, 1)
            self.names.address_requested(pool, 1, "web")
            end()
            self.names.endpoint_requested(ENDPOINT, pool, 1)
            self.assertEqual(self.names.endpoint(ENDPOINT), f"endpoint {ENDPOINT[:12]}")
