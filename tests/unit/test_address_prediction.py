"""Addresses that the engine's own IPAM driver is expected to hand out: which are held, how many, and for how long."""

from __future__ import annotations

import errno
from collections.abc import Callable
from itertools import count

from attrs import evolve

from macvlan_twisted.addresses import parse_address
from macvlan_twisted.demand import MAX_READY, REMEMBERED
from macvlan_twisted.errors import LinkError, RequestRefused
from macvlan_twisted.lan.address_monitor import LISTENED
from macvlan_twisted.lan.arp_nd import Probe, decode

from .conflict_cases import POOL, ConflictTestCase, tens
from .helpers import ENDPOINT, NETWORK, subnet

WAIT = 0.5
"""Seconds that a probe takes."""
PAUSE = 0.05
"""Seconds from one CreateEndpoint of an engine to the next."""


class PredictionTestCase(ConflictTestCase):
    subnet = subnet("10.0.0.0/24", "10.0.0.254")

    def setUp(self) -> None:
        super().setUp()
        self.plugin.create_network(subnets=(self.subnet,))
        self.running: dict[str, str] = {}
        """The address of each container by its endpoint."""
        self.last = 0
        self.numbers = count(1)
        self.choose: Callable[[], str] = self.lowest_free

    def lowest_free(self) -> str:
        """What Engine 20.10 to 28.5 hand out."""
        return next(each for each in tens(1, 253) if each not in self.running.values())

    def free_after_last(self) -> str:
        candidates = tens(self.last + 1, 253) + tens(1, self.last)
        return next(each for each in candidates if each not in self.running.values())

    def start(self, address: str) -> bool:
        """:return: whether the container had to wait for a probe."""
        endpoint = f"{next(self.numbers):064x}"
        creation = self.plugin.begin_create_endpoint(endpoint, NETWORK, f"{address}/24")
        waits = not creation.called
        while not creation.called:
            self.pass_time(0.01)
        self.successResultOf(creation)
        self.running[endpoint] = address
        self.last = int(parse_address(address)) & 0xFF
        return waits

    def burst(self, number: int) -> int:
        """
        Start so many containers, as an engine does: one CreateEndpoint after the other.

        :return: how many had to wait for a probe.
        """
        waited = 0
        for _ in range(number):
            waited += self.start(self.choose())
            self.pass_time(PAUSE)
        return waited

    def remove_all(self) -> None:
        for endpoint in list(self.running):
            self.plugin.delete_endpoint(endpoint)
            del self.running[endpoint]

    def held(self) -> list[str]:
        """The addresses that are defended, and that no container has."""
        taken = self.running.values()
        return self.defended(*(each for each in tens(1, 253) if each not in taken))


class BurstTests(PredictionTestCase):
    def test_second_burst_does_not_wait(self) -> None:
        self.burst(50)
        self.plugin.clock.advance(60)
        self.assertEqual(self.burst(50), 0)

    def test_burst_that_replaces_removed_containers_does_not_wait(self) -> None:
        self.burst(20)
        self.pass_time(1)
        self.remove_all()
        self.plugin.clock.advance(LISTENED + 1)
        self.assertEqual(self.burst(20), 0)

    def test_order_after_removals_does_not_matter(self) -> None:
        for choose in ("lowest_free", "free_after_last"):
            self.setUp()
            self.choose = getattr(self, choose)
            self.burst(20)
            for endpoint in list(self.running)[3:7]:
                self.plugin.delete_endpoint(endpoint)
                del self.running[endpoint]
            self.plugin.clock.advance(LISTENED + 1)
            self.assertEqual(self.burst(20), 0, choose)

    def test_first_burst_is_predicted_further_and_further(self) -> None:
        waited = [self.burst(10) for _ in range(6)]
        self.assertLess(sum(waited[:3]), 20)
        self.assertEqual(waited[3:], [0, 0, 0])

    def test_addresses_after_the_first_one_are_probed_with_it(self) -> None:
        self.start("10.0.0.1")
        self.assertEqual(self.held(), tens(2, 5))

    def test_held_addresses_shrink_after_ten_minutes(self) -> None:
        self.burst(20)
        self.pass_time(1)
        self.assertGreater(len(self.held()), 2 * MAX_READY)
        self.plugin.clock.advance(REMEMBERED)
        self.assertEqual(self.held(), tens(21, 20 + MAX_READY))
        self.assertEqual(self.plugin.clock.getDelayedCalls(), [], "nothing runs while idle")

    def test_one_container_after_the_other_holds_no_more(self) -> None:
        for _ in range(20):
            self.burst(1)
            self.pass_time(0.5)
        self.assertEqual(self.held(), tens(21, 24))

    def test_own_probe_does_not_wait_behind_predicted_ones(self) -> None:
        """A LAN has 128 probes at once, then 50 a second."""
        networks = [f"{number:064x}" for number in range(100, 140)]
        for number, network in enumerate(networks):
            self.plugin.create_network(network, subnets=(subnet(f"10.1.{number}.0/24", None),))
        created = [
            self.plugin.begin_create_endpoint(network, network, f"10.1.{number}.1/24")
            for number, network in enumerate(networks)
        ]
        self.pass_time(WAIT + 0.01)
        for each in created:
            self.successResultOf(each)
        messages = [decode(frame) for frame in self.plugin.lan_sockets["eth0"].sent]
        probed = {each.address for each in messages if isinstance(each, Probe)}
        self.assertLess(len(probed), 128 + 50)
        self.pass_time(2)
        self.assertTrue(all(self.answers_for(f"10.1.{number}.5") for number in range(40)))


class ExpectedAddressTests(PredictionTestCase):
    def test_lowest_released_addresses_are_expected(self) -> None:
        self.burst(30)
        self.plugin.clock.advance(REMEMBERED)
        self.remove_all()
        self.assertEqual(self.held(), tens(1, MAX_READY))

    def test_released_address_is_probed_anew_after_it_was_given_back(self) -> None:
        self.burst(1)
        self.remove_all()
        self.plugin.clock.advance(LISTENED + 1)
        self.assertEqual(self.burst(1), 0)

    def test_address_named_by_a_user_leaves_the_others_expected(self) -> None:
        self.burst(5)
        self.pass_time(1)
        self.start("10.0.0.200")
        self.pass_time(1)
        self.assertEqual(self.burst(4), 0)

    def test_address_after_many_running_containers_is_expected(self) -> None:
        self.burst(100)
        (first,) = (each for each, address in self.running.items() if address == "10.0.0.1")
        self.plugin.delete_endpoint(first)
        del self.running[first]
        self.plugin.clock.advance(REMEMBERED)
        self.assertEqual(self.burst(2), 0)

    def test_neighbours_address_is_refused_though_it_was_expected(self) -> None:
        self.neighbour_has("10.0.0.3")
        self.burst(2)
        self.pass_time(1)
        self.assertEqual(self.held(), ["10.0.0.4", "10.0.0.5", "10.0.0.6"])
        refused = self.plugin.begin_create_endpoint("9" * 64, NETWORK, "10.0.0.3/24")
        self.pass_time(1)
        self.failureResultOf(refused, RequestRefused)
        self.assertEqual(self.held(), tens(4, 7))

    def test_container_that_was_not_created_leaves_nothing_held(self) -> None:
        self.burst(1)
        self.pass_time(1)
        self.plugin.steps.refuse["add_macvlan"] = errno.EPERM
        refused = self.plugin.begin_create_endpoint("9" * 64, NETWORK, "10.0.0.2/24")
        self.failureResultOf(refused, LinkError)
        self.assertNotIn("10.0.0.2", self.held())

    def test_removed_network_leaves_nothing(self) -> None:
        self.burst(20)
        self.remove_all()
        self.plugin.delete_network()
        self.pass_time(1)
        self.assertEqual(self.held(), [])
        self.assertEqual(self.plugin.clock.getDelayedCalls(), [])

    def test_stopped_service_leaves_no_timer(self) -> None:
        self.burst(20)
        self.plugin.parts.stop_conflict_detection()
        self.assertEqual(self.plugin.clock.getDelayedCalls(), [])


class OtherSubnetTests(ConflictTestCase):
    def test_ipv6_addresses_are_predicted_too(self) -> None:
        self.plugin.create_network(subnets=(subnet(POOL), subnet("fd00::/64")))
        self.plugin.begin_create_endpoint(ENDPOINT, NETWORK, "10.0.0.2/24", None, "fd00::2/64")
        self.pass_time(1.1)
        following = ["10.0.0.3", "10.0.0.6", "fd00::3", "fd00::6"]
        self.assertEqual(self.defended(*following, "10.0.0.7", "fd00::7"), following)

    def test_addresses_of_our_pools_are_not_predicted(self) -> None:
        self.plugin.create_network(subnets=(evolve(subnet(POOL), managed_here=True),))
        self.gets(self.ready(part="10.0.0.8/29"), "10.0.0.9")
        self.plugin.create_endpoint(ENDPOINT, NETWORK, "10.0.0.9/24")
        self.pass_time(1)
        self.assertEqual(self.defended(*tens(10, 20)), [])


class SmallSubnetTests(PredictionTestCase):
    subnet = subnet("10.0.0.0/27", "10.0.0.30")

    def test_small_subnet_is_not_hoarded(self) -> None:
        """At most a quarter of it and half of what is free; half of that is after the last address."""
        held = []
        for _ in range(2):
            self.burst(12)
            self.pass_time(1)
            held.append(len(self.held()))
        self.assertEqual(held, [4, 2])
