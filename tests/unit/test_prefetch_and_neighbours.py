"""The prefetch beside neighbours with addresses, with inconclusive probes, and on two hosts with one pool."""

from __future__ import annotations

from attrs import evolve
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.python.failure import Failure

from macvlan_twisted.addresses import IPAddress, parse_address, parse_interface, parse_network
from macvlan_twisted.demand import MAX_READY
from macvlan_twisted.errors import RequestRefused
from macvlan_twisted.ipam.allocator import MAX_CONFLICTS_IN_A_ROW, SAME_MAC_IN_A_ROW
from macvlan_twisted.ipam.requests import RequestAddress, RequestPool
from macvlan_twisted.lan.address_monitor import FRESH, LISTENED
from macvlan_twisted.lan.arp_nd import Probe, announcement_frames, answer_frame, decode
from macvlan_twisted.lan.conflicts import RETRY_SECONDS
from macvlan_twisted.link_names import endpoint_link_name
from macvlan_twisted.state.interfaces import RecordKind

from .conflict_cases import DETECTING, NEIGHBOUR, POOL, ConflictTestCase, log_of, pass_time, tens
from .held_steps import ScriptedRecords
from .helpers import ENDPOINT, PluginHarness, subnet
from .lan_cases import connect


class OccupiedAddressTests(ConflictTestCase):
    def test_addresses_of_neighbours_are_skipped_and_saved(self) -> None:
        self.neighbour_has(*tens(1, 20))
        pool = self.ready()
        self.assertEqual(str(self.successResultOf(self.begin(pool))), "10.0.0.21/24")
        self.assertEqual([self.gets(pool) for _ in range(5)], tens(22, 26))
        self.assertEqual(self.conflicts(), dict.fromkeys(tens(1, 20), NEIGHBOUR))
        self.assertEqual(self.defended(*tens(1, 20)), [])

    def test_many_occupied_addresses_are_probed_in_parallel(self) -> None:
        self.neighbour_has(*tens(1, 100))
        asked = self.begin(self.made())
        self.pass_time(2.5)
        self.assertEqual(str(self.successResultOf(asked)), "10.0.0.101/24")

    def test_address_of_the_host_on_another_link_is_skipped(self) -> None:
        self.plugin.kernel.add_address("eth1", parse_interface("10.0.0.1/24"))
        self.assertEqual(self.gets(self.ready()), "10.0.0.2")

    def test_many_engine_managed_containers_are_skipped(self) -> None:
        for each in tens(1, 40):
            self.plugin.conflicts.assign("eth0", parse_address(each), "7a:42:0a:00:00:01")
        self.assertEqual(self.gets(self.made()), "10.0.0.41")
        self.assertEqual(self.conflicts(), {})

    def test_occupied_address_is_probed_again_later(self) -> None:
        self.neighbour_has("10.0.0.1")
        pool = self.ready("10.0.0.0/30")
        self.assertEqual(self.gets(pool), "10.0.0.2")
        self.release(pool, "10.0.0.2")
        self.taken.clear()
        self.pass_time(RETRY_SECONDS)
        self.assertEqual({self.gets(pool), self.gets(pool)}, set(tens(1, 2)))
        self.assertEqual(self.conflicts(), {})

    def test_occupied_address_is_probed_at_once_if_none_is_left(self) -> None:
        self.neighbour_has(*tens(1, 6))
        pool = self.ready("10.0.0.0/29")
        asked = self.begin(pool)
        self.pass_time(2)
        self.assertIn("6 in use by other hosts on eth0", self.refusal_of(asked))
        self.neighbour_goes("10.0.0.4")
        self.assertEqual(self.gets(pool), "10.0.0.4")

    def test_occupied_address_is_remembered_over_a_restart(self) -> None:
        self.neighbour_has("10.0.0.1")
        self.ready()
        self.taken.clear()
        self.plugin = self.plugin.next_life()
        self.plugin.prefetch.prepare_all()
        self.pass_time()
        self.assertEqual(self.probed(), tens(2, 9))
        rows = self.plugin.records.rows[RecordKind.CONFLICT]
        for key, row in rows.items():
            rows[key] = {**row, "since": row["since"] - RETRY_SECONDS}
        self.plugin = self.plugin.next_life()
        self.plugin.prefetch.prepare_all()
        self.pass_time()
        self.assertEqual(self.probed(), tens(1, 8))
        self.assertEqual(self.conflicts(), {})

    def test_address_lost_in_spite_of_defence_is_not_allocated(self) -> None:
        pool = self.ready()
        for frame in announcement_frames(parse_address("10.0.0.1"), NEIGHBOUR):
            self.plugin.lan_sockets["eth0"].receive(frame)
        self.assertEqual(self.gets(pool), "10.0.0.2")
        self.assertEqual(self.conflicts(), {"10.0.0.1": NEIGHBOUR})


class InconclusiveProbeTests(ConflictTestCase):
    def down(self) -> None:
        self.plugin.lan_sockets["eth0"].down = True

    def used_up(self, **options: str) -> str:
        """A pool without prefetched addresses, on a parent that is down."""
        pool = self.ready(**options)
        for _ in range(8):
            self.ask(pool)
        self.down()  # before the refill
        self.pass_time()
        return pool

    def test_unproven_address_is_allocated_counted_and_logged(self) -> None:
        pool = self.used_up()
        lines = log_of(self)
        self.assertEqual(self.gets(pool), "10.0.0.9")
        self.assertEqual(self.plugin.conflicts.inconclusive, 1)
        (line,) = [each for each in lines if "10.0.0.9" in each and "without knowing" in each]
        self.assertIn("eth0", line)
        self.assertIn("Network is down", line)

    def test_disk_error_for_the_host_link_makes_probes_inconclusive(self) -> None:
        self.plugin.records.steps.refuse["save"] = 28
        pool = self.ready()
        lines = log_of(self)
        address = self.gets(pool)
        self.assertEqual(self.flushLoggedErrors(), [])
        (line,) = [each for each in lines if address in each and "without knowing" in each]
        self.assertIn("a test refuses it", line)
        self.plugin.records.steps.refuse.clear()

    def test_many_inconclusive_requests_finish_together(self) -> None:
        pool = self.used_up()
        asked = [self.begin(pool) for _ in range(24)]
        self.pass_time(2)
        self.assertEqual(len({str(self.successResultOf(each)) for each in asked}), 24)
        self.assertEqual(self.plugin.clock.getDelayedCalls(), [])

    def test_inconclusive_search_of_a_large_pool_is_bounded(self) -> None:
        pool = self.made("fd00::/64")
        self.plugin.wait(self.plugin.conflicts.watch("eth0"))
        self.down()
        self.assertEqual(self.gets(pool), "fd00::1")
        self.assertLessEqual(len(self.plugin.clock.getDelayedCalls()), MAX_READY * 4)

    def test_strict_pool_refuses_with_the_reason(self) -> None:
        pool = self.used_up(conflict_detection="strict")
        asked = [self.begin(pool), self.begin(pool, "10.0.0.77")]
        self.pass_time()
        for each in asked:
            error = self.refusal_of(each)
            for word in ("can be probed on eth0", "eth0", "Network is down", "conflict_detection=on instead"):
                self.assertIn(word, error)
        self.assertEqual(self.plugin.conflicts.inconclusive, 0)
        self.plugin.lan_sockets["eth0"].down = False
        self.assertEqual(self.gets(pool), "10.0.0.9")

    def test_strict_pool_stays_strict_beside_another(self) -> None:
        easy, strict = self.ready(), self.made(conflict_detection="strict")
        self.down()
        for _ in range(8):
            self.ask(easy)
        self.pass_time()
        asked = [self.begin(strict), self.begin(easy), self.begin(strict), self.begin(easy)]
        self.pass_time(2)
        self.assertEqual([isinstance(each.result, Failure) for each in asked], [True, False, True, False])
        for each in asked[::2]:
            self.failureResultOf(each, RequestRefused)

    def test_pool_without_a_parent_is_inconclusive(self) -> None:
        self.use(evolve(DETECTING, host_interface=None))
        self.assertEqual(self.gets(self.open(POOL)), "10.0.0.1")
        strict = self.open("10.1.0.0/24", conflict_detection="strict")
        self.assertIn("no parent is known", self.refusal_of(self.begin(strict)))

    def test_parent_that_is_up_again_is_probed(self) -> None:
        pool = self.used_up()
        self.plugin.lan_sockets["eth0"].down = False
        self.neighbour_has("10.0.0.9")
        self.assertEqual(self.gets(pool), "10.0.0.10")


class TwoHostsTests(ConflictTestCase):
    @settings(max_examples=25)
    @given(
        st.lists(st.tuples(st.integers(0, 1), st.integers(0, 30)), min_size=8, max_size=24),
        st.integers(1, 40),
    )
    def test_two_hosts_never_allocate_the_same_address(
        self, starts: list[tuple[int, int]], delay: int
    ) -> None:
        hosts = [
            PluginHarness(config=DETECTING, records=ScriptedRecords(instance=instance))
            for instance in ("aaaa0001", "bbbb0002")
        ]
        pools = []
        for plugin in hosts:
            granted = plugin.wait(
                plugin.pools.request_pool(RequestPool("Local", parse_network(POOL), None, {}))
            )
            plugin.wait(plugin.conflicts.watch("eth0"))
            pools.append(granted.pool_id)
        delays = {(0, 1): delay / 10000, (1, 0): delay / 5000}
        connect(hosts[0].clock, [plugin.lan_sockets["eth0"] for plugin in hosts], delays)
        asked = []
        for number, (which, pause) in enumerate(starts):
            request = RequestAddress(pools[which], None, endpoint_name=f"c{number}")
            asked.append(hosts[which].start(hosts[which].addresses.request_address(request)))
            pass_time(pause / 100, *hosts)
        pass_time(15, *hosts)
        found = [str(self.successResultOf(each)) for each in asked]
        self.assertEqual(len(set(found)), len(found))


NAMED = "10.0.0.77"


class ReturningAddressTests(ConflictTestCase):
    """A container releases an address, which is requested again."""

    def setUp(self) -> None:
        super().setUp()
        self.plugin.create_network(subnets=(evolve(subnet("10.0.0.0/24"), managed_here=True),))
        self.pool = self.ready()

    def lives(self, address: str) -> None:
        self.plugin.create_endpoint(address=f"{address}/24")

    def leaves(self, address: str) -> None:
        self.plugin.delete_endpoint(ENDPOINT)
        self.release(self.pool, address)

    def test_restarted_container_gets_its_address_without_a_probe(self) -> None:
        self.assertEqual(self.gets(self.pool, NAMED), NAMED)
        self.lives(NAMED)
        self.leaves(NAMED)
        self.assertTrue(self.begin(self.pool, NAMED).called)
        self.assertEqual(self.defended(NAMED), [NAMED])

    def test_neighbour_that_took_the_address_meanwhile_is_noticed(self) -> None:
        self.gets(self.pool, NAMED)
        self.lives(NAMED)
        self.leaves(NAMED)
        self.neighbour_has(NAMED)
        for frame in announcement_frames(parse_address(NAMED), NEIGHBOUR):
            self.plugin.lan_sockets["eth0"].receive(frame)
        self.assertIn(NEIGHBOUR, self.refusal_of(self.begin(self.pool, NAMED)))

    def test_address_is_probed_again_long_after(self) -> None:
        self.gets(self.pool, NAMED)
        self.lives(NAMED)
        self.leaves(NAMED)
        self.pass_time(LISTENED + 1)
        self.assertFalse(self.begin(self.pool, NAMED).called)

    def test_address_of_a_container_that_may_run_on_is_probed(self) -> None:
        self.gets(self.pool, NAMED)
        self.lives(NAMED)
        self.plugin.kernel.move_away(endpoint_link_name(ENDPOINT))  # into its sandbox, and forgotten there
        self.leaves(NAMED)
        self.assertFalse(self.begin(self.pool, NAMED).called)


class OccupiedLanTests(ConflictTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.answers_for_everything = ""
        """The MAC of a host that does so."""
        self.plugin.answerers.append(self._answer_for_everything)

    def _answer_for_everything(self, frame: bytes) -> list[bytes]:
        message = decode(frame)
        if self.answers_for_everything and isinstance(message, Probe):
            return [answer_frame(message.address, self.answers_for_everything, message.mac)]
        return []

    def refused(self, pool: str) -> str:
        asked = self.begin(pool)
        self.pass_time(3)
        return self.refusal_of(asked)

    def test_host_that_answers_for_everything_is_named(self) -> None:
        pool = self.made("10.0.0.0/16")
        self.answers_for_everything = NEIGHBOUR
        refusal = self.refused(pool)
        for word in ("eth0", "proxy ARP", NEIGHBOUR, "conflict_detection=off"):
            self.assertIn(word, refusal)
        self.assertLess(len(self.conflicts()), 2 * SAME_MAC_IN_A_ROW)

    def test_search_moves_on_from_call_to_call(self) -> None:
        pool = self.made("10.0.0.0/16")
        self.answers_for_everything = NEIGHBOUR
        self.refused(pool)
        for _ in range(5):
            before = set(self.probed())
            self.refused(pool)
            self.assertGreater(len(set(self.probed()) - before), 8)

    def test_addresses_come_back_at_once_when_the_host_is_silent(self) -> None:
        for prefix in ("10.0.0.0/16", "10.1.0.0/28"):
            pool = self.made(prefix)
            self.answers_for_everything = NEIGHBOUR
            for _ in range(3):
                self.refused(pool)
            self.answers_for_everything = ""
            self.pass_time(FRESH + 1)
            self.gets(pool)

    def test_addresses_heard_minutes_ago_are_asked_for_before_a_refusal(self) -> None:
        """A host has announced all of the range, so that every address might be asleep."""
        pool = self.made("10.0.0.0/22")
        self.plugin.wait(self.plugin.conflicts.watch("eth0"))
        for number in range(1, 1023):
            for frame in announcement_frames(parse_address("10.0.0.0") + number, NEIGHBOUR):
                self.plugin.lan_sockets["eth0"].receive(frame)
        self.refused(pool)
        self.pass_time(FRESH + 1)
        self.gets(pool)

    def test_many_addresses_of_one_host_are_jumped_over(self) -> None:
        pool = self.made("10.0.0.0/16")
        self.neighbour_has(*[f"10.0.{high}.{low}" for high in range(4) for low in range(256)])
        asked = self.begin(pool)
        self.pass_time(3)
        self.assertNotIn(str(self.successResultOf(asked).ip), self.conflicts())
        self.assertLess(len(self.conflicts()), 2 * SAME_MAC_IN_A_ROW)

    def test_search_among_many_hosts_is_bounded_and_continues(self) -> None:
        pool = self.made("10.0.0.0/16")
        for number in range(512):
            self.neighbour_has(
                f"10.0.{number // 256}.{number % 256}", mac=f"02:00:00:00:0{number // 256}:{number % 256:02x}"
            )
        self.assertIn("proxy ARP", self.refused(pool))
        self.assertLess(len(self.conflicts()), MAX_CONFLICTS_IN_A_ROW + 2 * MAX_READY)
        asked = self.begin(pool)
        self.pass_time(3)
        self.assertEqual(str(self.successResultOf(asked)), "10.0.2.0/16")

    def test_refused_call_does_not_look_at_each_address_in_use(self) -> None:
        pool = self.made("10.0.0.0/16")
        self.answers_for_everything = NEIGHBOUR
        table, looks = self.plugin.conflicts.table, 0
        may_retry = table.may_retry

        def count(parent: str, address: IPAddress) -> bool:
            nonlocal looks
            looks += 1
            return may_retry(parent, address)

        self.patch(table, "may_retry", count)
        for _ in range(12):
            looks = 0
            self.refused(pool)
        self.assertGreater(len(self.conflicts()), 150)
        self.assertLess(looks, 100)
