"""A neighbour that answers only after its address was allocated."""

from __future__ import annotations

from attrs import evolve

from macvlan_twisted.addresses import parse_address
from macvlan_twisted.errors import RequestRefused
from macvlan_twisted.lan.arp_nd import Probe, announcement_frames, answer_frame, decode

from .conflict_cases import NEIGHBOUR, ConflictTestCase, pass_time
from .helpers import ENDPOINT, PLAIN_LINKS, subnet

LATE = 0.05
"""Seconds; the last look before an address is allocated takes a millisecond."""


class LateAnswerTests(ConflictTestCase):
    def network(self, part: str = "10.0.0.8/29", **options: str) -> str:
        self.plugin.create_network(subnets=(evolve(subnet("10.0.0.0/24"), managed_here=True),))
        return self.ready(part=part, **options)

    def sleepy_neighbour_has(self, address: str) -> None:
        tap, late = self.plugin.lan_sockets["eth0"], parse_address(address)

        def answer(frame: bytes) -> list[bytes]:
            message = decode(frame)
            if isinstance(message, Probe) and message.address == late:
                self.plugin.clock.callLater(LATE, tap.receive, answer_frame(late, NEIGHBOUR, message.mac))
            return []

        self.plugin.answerers.append(answer)

    def assert_endpoint_refused(self, address: str) -> None:
        with self.assert_refused(
            RequestRefused, f"{address} is in use on eth0", NEIGHBOUR, "start the container"
        ):
            self.plugin.create_endpoint(address=f"{address}/24")
        self.assertEqual(dict(self.plugin.registry.endpoints), {})
        self.assertTrue(self.plugin.link_names() >= PLAIN_LINKS)
        self.assertFalse([each for each in self.plugin.link_names() if ENDPOINT[:6] in each])

    def test_endpoint_is_refused_and_the_next_try_succeeds(self) -> None:
        pool = self.network()
        self.sleepy_neighbour_has("10.0.0.8")
        self.assertEqual(self.gets(pool), "10.0.0.8")
        pass_time(LATE + 0.01, self.plugin)
        self.assert_endpoint_refused("10.0.0.8")
        self.release(pool, "10.0.0.8")  # as engines do
        self.assertEqual(self.gets(pool), "10.0.0.9")
        self.plugin.create_endpoint(address="10.0.0.9/24")
        self.assertEqual(list(self.plugin.registry.endpoints), [ENDPOINT])

    def test_next_try_in_a_small_range_gets_the_other_address(self) -> None:
        pool = self.network(part="10.0.0.8/31")
        self.assertEqual(self.gets(pool), "10.0.0.8")
        self.pass_time()
        self.sleepy_neighbour_has("10.0.0.9")
        self.assertEqual(self.gets(pool), "10.0.0.9")
        pass_time(LATE + 0.01, self.plugin)
        self.assert_endpoint_refused("10.0.0.9")
        self.release(pool, "10.0.0.8")
        self.release(pool, "10.0.0.9")
        self.assertEqual(self.gets(pool), "10.0.0.8")
        self.plugin.create_endpoint(address="10.0.0.8/24")

    def test_named_address_is_refused_too(self) -> None:
        pool = self.network()
        self.sleepy_neighbour_has("10.0.0.8")
        self.assertEqual(self.gets(pool, "10.0.0.8"), "10.0.0.8")
        pass_time(LATE + 0.01, self.plugin)
        self.assert_endpoint_refused("10.0.0.8")

    def test_claim_counts_where_the_lan_could_not_be_asked(self) -> None:
        pool = self.network()
        self.plugin.lan_sockets["eth0"].down = True
        self.assertEqual(self.gets(pool, "10.0.0.100"), "10.0.0.100")
        self.plugin.lan_sockets["eth0"].down = False
        for frame in announcement_frames(parse_address("10.0.0.100"), NEIGHBOUR):
            self.plugin.lan_sockets["eth0"].receive(frame)
        self.assert_endpoint_refused("10.0.0.100")

    def test_old_evidence_does_not_count_where_the_lan_cannot_be_asked(self) -> None:
        pool = self.network()
        self.neighbour_has("10.0.0.100")
        self.assertIn(NEIGHBOUR, self.refusal_of_request(pool, "10.0.0.100"))
        self.neighbour_goes()
        self.pass_time(60)
        self.plugin.lan_sockets["eth0"].down = True
        self.assertEqual(self.gets(pool, "10.0.0.100"), "10.0.0.100")
        self.plugin.create_endpoint(address="10.0.0.100/24")

    def refusal_of_request(self, pool: str, address: str) -> str:
        asked = self.begin(pool, address)
        self.pass_time()
        return self.refusal_of(asked)

    def test_pool_without_detection_does_not_care(self) -> None:
        detecting = self.network()
        pool = self.open("10.0.0.0/24", "10.0.0.8/29", conflict_detection="off")
        self.sleepy_neighbour_has("10.0.0.8")
        self.gets(detecting)
        self.release(detecting, "10.0.0.8")
        pass_time(LATE + 0.01, self.plugin)
        self.assertEqual(self.gets(pool, "10.0.0.8"), "10.0.0.8")
        self.plugin.create_endpoint(address="10.0.0.8/24")
