"""A neighbour that answers only after its address was allocated."""

from __future__ import annotations

from attrs import evolve

from macvlan_twisted.addresses import parse_address
from macvlan_twisted.errors import RequestRefused
from macvlan_twisted.lan.arp_nd import Probe, announcement_frames, answer_frame, decode
from macvlan_twisted.state.interfaces import Allocation

from .conflict_cases import NEIGHBOUR, ConflictTestCase, pass_time
from .helpers import ENDPOINT, NETWORK, OTHER_ENDPOINT, PLAIN_LINKS, subnet

LATE = 0.05
"""Seconds, long after the address was allocated."""


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


class AnswersMeanwhileTests(ConflictTestCase):
    """Answers to the last probe arrive while disk and kernel work."""

    def neighbour_answers(self, address: str) -> None:
        socket, found = self.plugin.lan_sockets["eth0"], parse_address(address)
        socket.receive(answer_frame(found, NEIGHBOUR, socket.mac))

    def assert_link_is_refused(self, address: str, remedy: str) -> None:
        """The neighbour answers for *address* while the kernel creates the endpoint's link."""
        self.plugin.steps.hold.add("add_macvlan")
        links = set(self.plugin.link_names())
        creation = self.plugin.begin_create_endpoint(ENDPOINT, NETWORK, f"{address}/24")
        self.neighbour_answers(address)
        self.plugin.steps.let_all_go()
        refusal = self.refusal_of(creation)
        self.assertIn(f"address {address} is in use on eth0 by MAC {NEIGHBOUR}", refusal)
        self.assertIn(remedy, refusal)
        self.assertEqual(dict(self.plugin.registry.endpoints), {})
        self.assertEqual(set(self.plugin.link_names()), links)

    def test_answer_during_the_commit_leads_to_another_address(self) -> None:
        pool = self.ready(part="10.0.0.8/29")
        self.plugin.store.steps.hold.add("save_allocation")
        asked = self.begin(pool)
        self.neighbour_answers("10.0.0.8")
        self.plugin.store.steps.let_all_go()
        self.assertEqual(str(self.successResultOf(asked)), "10.0.0.9/24")
        self.assertEqual(self.conflicts(), {"10.0.0.8": NEIGHBOUR})

    def test_answer_during_the_commit_refuses_a_requested_address(self) -> None:
        pool = self.ready(part="10.0.0.8/29")
        self.plugin.store.steps.hold.add("save_allocation")
        asked = self.begin(pool, "10.0.0.8")
        self.neighbour_answers("10.0.0.8")
        self.plugin.store.steps.let_all_go()
        self.assertIn("use another --ip", self.refusal_of(asked))
        self.assertEqual(self.gets(pool), "10.0.0.9")

    def test_answer_while_the_link_is_created_refuses_the_endpoint(self) -> None:
        self.plugin.create_network(subnets=(evolve(subnet("10.0.0.0/24"), managed_here=True),))
        pool = self.ready(part="10.0.0.8/29")
        self.assertEqual(self.gets(pool), "10.0.0.8")
        self.assert_link_is_refused("10.0.0.8", "start the container again")

    def test_answer_while_the_link_of_a_predicted_address_is_created_refuses_it(self) -> None:
        self.plugin.create_network(subnets=(subnet("10.0.0.0/24", "10.0.0.254"),))
        first = self.plugin.begin_create_endpoint(OTHER_ENDPOINT, NETWORK, "10.0.0.1/24")
        self.pass_time(1)
        self.successResultOf(first)
        self.plugin.delete_endpoint(OTHER_ENDPOINT)
        self.assert_link_is_refused("10.0.0.2", "--ip-range")

    def test_answer_for_the_hosts_address_is_waited_for(self) -> None:
        """The host gets its address at once, so there is no later look."""
        self.ready(part="10.0.0.8/29")
        self.neighbour_has("10.0.0.8")
        self.plugin.begin_create_network(
            subnets=(evolve(subnet("10.0.0.0/24"), managed_here=True),), host_access="true"
        )
        self.pass_time()
        (network,) = self.plugin.registry.networks.values()
        self.assertEqual([str(each) for each in network.host_addresses], ["10.0.0.9"])

    def test_disk_that_refuses_the_release_does_not_end_the_search(self) -> None:
        pool = self.ready(part="10.0.0.8/29")
        self.plugin.store.steps.hold.add("save_allocation")
        asked = self.begin(pool)
        self.neighbour_answers("10.0.0.8")
        self.plugin.store.steps.refuse["erase_allocation"] = 5
        self.plugin.store.steps.let_all_go()
        self.assertEqual(str(self.successResultOf(asked)), "10.0.0.9/24")

    def test_search_ends_if_others_take_each_address(self) -> None:
        pool = self.ready()
        self.plugin.store.steps.hold.add("save_allocation")
        asked = self.begin(pool)
        for _ in range(20):
            if not self.plugin.store.steps.held:
                break
            (step,) = self.plugin.store.steps.held
            (allocation,) = [each for each in step.arguments if isinstance(each, Allocation)]
            self.neighbour_answers(str(allocation.address))
            self.plugin.store.steps.let_go()
            self.pass_time()
        self.assertIn("is in use on eth0", self.refusal_of(asked))
