"""A container that returns under its name gets the same address and MAC."""

from __future__ import annotations

import errno

from attrs import evolve
from twisted.logger import LogLevel
from twisted.trial.unittest import SynchronousTestCase

from macvlan_twisted.addresses import parse_address, parse_range
from macvlan_twisted.errors import RequestRefused
from macvlan_twisted.ipam import identity
from macvlan_twisted.ipam.identity import StickyAddresses, slot_of_task
from macvlan_twisted.ipam.requests import Purpose
from macvlan_twisted.link_names import endpoint_link_name
from macvlan_twisted.option_values import IdentitySource
from macvlan_twisted.state.interfaces import StickyAddress
from macvlan_twisted.testing.state import MemoryAddressStore

from .address_cases import AddressTestCase
from .conflict_cases import log_of
from .held_steps import ScriptedRecords
from .helpers import LAN, NETWORK, PluginHarness, network_request, subnet

OURS = "192.168.1.0/24"
TASKS = [letter * 25 for letter in "abc"]
NODE = "wdczig046v2e29xiin8atrpkg"
"""The ids of swarm tasks, and of a node."""


class StickyAddressTestCase(AddressTestCase):
    subnet = OURS

    def network(self, **options: str) -> str:
        """A network with our address management; returns its pool."""
        pool = self.open(self.subnet, **options)
        request = network_request(subnets=(evolve(subnet(self.subnet, "192.168.1.1"), managed_here=True),))
        self.plugin.wait(self.plugin.networks.create(request))
        return pool

    def start(self, pool: str, name: str, address: str | None = None) -> tuple[str, str]:
        """``docker run``: returns the address and the MAC of the container."""
        found = self.ask(pool, address, name=name)
        return found, self.mac_at(found)

    def mac_at(self, address: str) -> str:
        mac = self.plugin.create_endpoint(self.endpoint_of(address), address=address)
        assert mac is not None
        return mac

    @staticmethod
    def endpoint_of(address: str) -> str:
        return address.encode().hex().ljust(64, "0")

    def stop(self, pool: str, address: str) -> None:
        """``docker rm``"""
        self.plugin.delete_endpoint(self.endpoint_of(address))
        self.release(pool, address.partition("/")[0])

    def come_again(self, pool: str, name: str) -> tuple[tuple[str, str], tuple[str, str]]:
        """Address and MAC before ``docker rm`` and after another ``docker run``."""
        before = self.start(pool, name)
        self.stop(pool, before[0])
        return before, self.start(pool, name)


class LogTests(StickyAddressTestCase):
    def test_start_and_stop_log_one_line_each_with_the_name(self) -> None:
        pool = self.network()
        lines = log_of(self, LogLevel.info)
        address, mac = self.start(pool, "web")
        self.stop(pool, address)
        started, stopped = lines
        self.assertRegex(started, r"^container web: link mv\w+ created on parent eth0, address ")
        self.assertIn(mac, started)
        self.assertRegex(stopped, r"^container web: link mv\w+ removed from parent eth0, address ")

    def test_container_without_a_name_has_its_endpoints_id(self) -> None:
        pool = self.network()
        lines = log_of(self, LogLevel.info)
        address, _ = self.start(pool, "")
        self.assertIn(f"endpoint {self.endpoint_of(address)[:12]}: link ", lines[0])

    def test_name_of_a_released_address_is_forgotten(self) -> None:
        """Its endpoint never came."""
        pool = self.network()
        address = self.ask(pool, name="web")
        self.release(pool, address.partition("/")[0])
        again = self.ask(pool, address.partition("/")[0], name="")
        lines = log_of(self, LogLevel.info)
        self.mac_at(again)
        self.assertTrue(lines[0].startswith("endpoint "), lines)


class NameIdentityTests(StickyAddressTestCase):
    def test_former_life_keeps_its_address_while_it_may_have_a_link(self) -> None:
        """The kernel never shows the links in containers, or does not this time."""
        for number in (errno.EOPNOTSUPP, errno.EACCES):
            with self.subTest(number=number):
                self.plugin = PluginHarness()
                pool = self.network()
                first, _ = self.start(pool, "web")
                self.plugin.kernel.move_away(endpoint_link_name(self.endpoint_of(first)), up=True)
                self.plugin = self.plugin.next_life()
                self.plugin.steps.refuse["links_elsewhere"] = number
                self.assertNotEqual(self.ask(pool, name="web"), first)

    def test_start_that_is_under_way_keeps_its_address(self) -> None:
        """The link lies in the host, down, until Join was answered, and before CreateEndpoint there is none."""
        for last_call in ("RequestAddress", "CreateEndpoint"):
            with self.subTest(last_call=last_call):
                self.plugin = PluginHarness()
                pool = self.network()
                first = self.ask(pool, name="web")
                if last_call == "CreateEndpoint":
                    self.mac_at(first)
                self.plugin.clock.advance(14)
                self.assertNotEqual(self.ask(pool, name="web"), first)

    def test_address_whose_release_never_came_returns_to_its_name(self) -> None:
        """DeleteEndpoint came, or the reconciler has removed the endpoint."""
        pool = self.network()
        self.plugin.wait(self.plugin.pool_binding.assign_network(pool, NETWORK))
        first, _ = self.start(pool, "web")
        self.plugin.delete_endpoint(self.endpoint_of(first))
        self.assertEqual(self.ask(pool, name="web"), first)

    def test_address_whose_endpoint_never_came_returns_to_its_name(self) -> None:
        pool = self.network()
        first = self.ask(pool, name="web")
        self.plugin.clock.advance(16)
        self.assertEqual(self.ask(pool, name="web"), first)

    def test_excluded_address_is_not_reused(self) -> None:
        """It was requested with --ip."""
        self.plugin = PluginHarness(config=evolve(LAN, excluded=(parse_range("192.168.1.200"),)))
        pool = self.network()
        asked, _ = self.start(pool, "web", "192.168.1.200")
        self.stop(pool, asked)
        self.assertNotEqual(self.ask(pool, name="web"), asked)

    def test_recreated_container_has_its_address_and_mac(self) -> None:
        pool = self.network(identity="name")
        for name, wanted in (("web", None), ("db", "192.168.1.77")):
            before = self.start(pool, name, wanted)
            self.stop(pool, before[0])
            self.assertEqual(self.start(pool, name), before)
            self.assertNotIn("c0:a8", before[1], "made of the address")

    def test_identity_survives_other_containers_and_a_restart(self) -> None:
        pool = self.network(identity="name")
        before = self.start(pool, "web")
        others = [self.start(pool, f"other-{number}") for number in range(5)]
        self.stop(pool, before[0])
        for address, _ in others:
            self.stop(pool, address)
        self.plugin = self.plugin.next_life()
        self.start(pool, "one-more")
        self.assertEqual(self.start(pool, "web"), before)

    def test_container_that_lost_its_address_keeps_its_mac(self) -> None:
        pool = self.network(identity="name")
        address, mac = self.start(pool, "web")
        self.stop(pool, address)
        other = self.start(pool, "other", address.partition("/")[0])
        self.assertEqual(other[0], address)
        self.assertNotEqual(other[1], mac)
        again = self.start(pool, "web")
        self.assertNotEqual(again[0], address)
        self.assertEqual(again[1], mac)
        self.stop(pool, again[0])
        self.assertEqual(self.start(pool, "web"), again, "this is now the address of the name")

    def test_mac_survives_its_network(self) -> None:
        """It is derived from name, parent and subnet; the address goes with the pool."""
        pool = self.network(identity="name")
        self.start(pool, "first")
        address, mac = self.start(pool, "web")
        self.stop(pool, address)
        self.stop(pool, "192.168.1.2/24")
        self.close(pool)
        self.plugin.delete_network()
        self.assertEqual(self.plugin.store.names, {})
        again = self.start(self.network(identity="name"), "web")
        self.assertEqual(again[1], mac)

    def test_name_has_another_mac_on_another_host(self) -> None:
        macs = set()
        for instance in ("0000aaaa", "0000bbbb"):
            self.plugin = PluginHarness(config=LAN, records=ScriptedRecords(instance))
            macs.add(self.start(self.network(identity="name"), "web")[1])
        self.assertEqual(len(macs), 2)

    def test_container_without_a_name_has_the_mac_of_its_address(self) -> None:
        pool = self.network(identity="name")
        lines = log_of(self)
        for number in (2, 3):
            found = self.start(pool, "")
            self.assertEqual(found, (f"192.168.1.{number}/24", f"7a:42:c0:a8:01:0{number}"))
        self.assertEqual(sum("does not send container names" in line for line in lines), 1)

    def test_container_without_a_name_inherits_no_mac(self) -> None:
        """An engine that sends names was replaced by one that does not."""
        pool = self.network(identity="name")
        address, mac = self.start(pool, "web")
        self.stop(pool, address)
        _, other = self.start(pool, "", address.partition("/")[0])
        self.assertEqual(other, "7a:42:c0:a8:01:02")
        self.assertNotEqual(other, mac)

    def test_container_in_two_networks_has_two_macs(self) -> None:
        """The kernel accepts a MAC once per parent."""
        first = self.network(identity="name")
        second = self.open(OURS, identity="name")
        one = self.start(first, "web")
        other = self.start(second, "web")
        self.assertNotEqual(one[0], other[0])
        self.assertNotEqual(one[1], other[1])


class NewNameTests(StickyAddressTestCase):
    """A name without a record gets the next unused address; one that is remembered for another name comes last."""

    def test_address_of_another_name_comes_last(self) -> None:
        pool = self.open("192.168.1.0/29")
        for name, asked in (("web", "192.168.1.3"), ("db", "192.168.1.5")):
            self.ask(pool, asked, name=name)
            self.release(pool, asked)
        found = [self.ask(pool, name=name) for name in "abcd"]
        self.assertEqual(found, [f"192.168.1.{number}/29" for number in (2, 4, 6, 3)])
        self.assertEqual(self.ask(pool, name="db"), "192.168.1.5/29")

    def test_name_decides_also_right_after_a_release(self) -> None:
        pool = self.network()
        self.stop(pool, self.start(pool, "web")[0])
        self.assertEqual(self.start(pool, "other")[0], "192.168.1.3/24")
        self.assertEqual(self.start(pool, "web")[0], "192.168.1.2/24")

    def test_address_of_a_name_in_another_pool_comes_last(self) -> None:
        """Two networks on one LAN share the addresses."""
        pool, other = self.open("192.168.1.0/29"), self.open("192.168.1.0/29")
        self.gateway(other, "192.168.1.1")
        self.release(pool, self.ask(pool, "192.168.1.4", name="web").partition("/")[0])
        found = [self.ask(other, name=name) for name in "abcde"]
        self.assertEqual(found, [f"192.168.1.{number}/29" for number in (2, 3, 5, 6, 4)])


class AddressIdentityTests(StickyAddressTestCase):
    def test_address_and_mac_return_with_the_name(self) -> None:
        pool = self.network(identity="address")
        before, after = self.come_again(pool, "web")
        self.assertEqual((before, after), (("192.168.1.2/24", "7a:42:c0:a8:01:02"),) * 2)

    def test_mac_follows_the_address(self) -> None:
        pool = self.network()
        address, mac = self.start(pool, "web")
        self.stop(pool, address)
        self.assertEqual(self.start(pool, "other", address.partition("/")[0]), (address, mac))


class RandomIdentityTests(StickyAddressTestCase):
    def test_each_start_has_a_new_address_and_mac(self) -> None:
        pool = self.network(identity="random")
        before, after = self.come_again(pool, "web")
        self.assertEqual((before[0], after[0]), ("192.168.1.2/24", "192.168.1.3/24"))
        self.assertNotEqual(before[1], after[1])
        for _, mac in (before, after):
            self.assertTrue(mac.startswith("7a:42:"))
            self.assertNotIn("c0:a8", mac)

    def test_name_is_not_saved(self) -> None:
        self.start(self.network(identity="random"), "web")
        self.assertEqual(self.plugin.store.names, {})


class OptionTests(StickyAddressTestCase):
    def test_unknown_identity_is_refused(self) -> None:
        with self.assert_refused(RequestRefused, "identity", "mac", "name, address, random"):
            self.open(OURS, identity="mac")

    def test_default_identity_comes_from_the_configuration(self) -> None:
        self.use(evolve(LAN, identity=IdentitySource.RANDOM))
        pool = self.network()
        before, after = self.come_again(pool, "web")
        self.assertNotEqual(before[1], after[1])

    def test_gateway_has_no_name(self) -> None:
        pool = self.open(OURS, identity="name")
        self.gateway(pool, "192.168.1.1")
        self.ask(pool, "192.168.1.9", Purpose.AUXILIARY)
        self.assertEqual(self.plugin.store.names, {})


class BoundedNamesTests(SynchronousTestCase):
    """The table of names alone."""

    def setUp(self) -> None:
        self.patch(identity, "MAX_NAMES", 3)
        self.kept = StickyAddresses(MemoryAddressStore())

    def note(self, name: str, number: int, pool: str = "lan") -> tuple[str, ...]:
        return self.kept.note(StickyAddress(pool, name, parse_address(f"10.0.0.{number}"), ""))

    def address_of(self, name: str) -> str | None:
        found = self.kept.of_name("lan", name)
        return None if found is None else str(found.address)

    def test_oldest_name_is_forgotten_first(self) -> None:
        for number, name in enumerate("abc", 1):
            self.assertEqual(self.note(name, number), ())
        self.assertEqual(self.note("a", 1), (), "is the newest again")
        self.assertEqual(self.note("d", 4), ("b",))
        self.assertEqual(
            [self.address_of(each) for each in "abcd"], ["10.0.0.1", None, "10.0.0.3", "10.0.0.4"]
        )

    def test_previous_owner_of_the_address_is_forgotten(self) -> None:
        for number, name in enumerate("abc", 1):
            self.note(name, number)
        self.assertEqual(self.note("d", 2), ("b",))
        self.assertEqual(self.note("b", 4), ("a",))

    def test_name_that_moved_frees_its_old_address(self) -> None:
        self.note("a", 1)
        self.note("a", 2)
        self.assertIsNone(self.kept.of_address("lan", parse_address("10.0.0.1")))
        self.assertEqual(self.note("b", 1), ())
        self.assertEqual(self.address_of("a"), "10.0.0.2")

    def test_each_pool_has_its_own_names(self) -> None:
        for pool in ("lan", "other"):
            self.assertEqual(self.note("a", 1, pool), ())
        self.kept.forget_pool("other")
        self.assertIsNone(self.kept.of_name("other", "a"))
        self.assertEqual(self.address_of("a"), "10.0.0.1")

    def test_excess_names_are_dropped_at_start(self) -> None:
        many = [
            StickyAddress("lan", f"c{number}", parse_address(f"10.0.0.{number}"), "")
            for number in range(1, 7)
        ]
        store = MemoryAddressStore()
        store.names = {(each.pool_id, each.name): each for each in many}
        kept = StickyAddresses(store)
        kept.load()
        self.assertEqual(sum(kept.of_name("lan", each.name) is not None for each in many), 3)


class TaskNameTests(StickyAddressTestCase):
    """Engine 29 sends SERVICE.SLOT.TASKID as the name of a swarm task's container."""

    def test_slot_is_what_the_next_task_inherits(self) -> None:
        for name, slot in (
            (f"web.2.{TASKS[0]}", "web.2"),
            (f"my_stack-web.12.{TASKS[0]}", "my_stack-web.12"),
            (f"web.{NODE}.{TASKS[0]}", f"web.{NODE}"),
            ("web", ""),
            ("web.2", ""),
            (f"web.{TASKS[0]}", ""),
            (f"web.0.{TASKS[0]}", ""),
            (f"web.two.{TASKS[0]}", ""),
            (f"web.2.{TASKS[0]}a", ""),
            (f"web.2.{TASKS[0][1:]}", ""),
            (f"web.2.{TASKS[0].upper()}", ""),
            (f"web.2.{TASKS[0]}\n", ""),
        ):
            self.assertEqual(slot_of_task(name), slot, name)

    def test_task_inherits_the_address_and_mac_of_its_slot(self) -> None:
        for slot in ("web.2", f"web.{NODE}"):
            for source in ("name", "address"):
                with self.subTest(slot=slot, identity=source):
                    pool = self.network(identity=source)
                    self.start(pool, f"other.1.{TASKS[0]}")
                    before = self.start(pool, f"{slot}.{TASKS[0]}")
                    self.stop(pool, before[0])
                    self.assertEqual(self.start(pool, f"{slot}.{TASKS[1]}"), before)
                    self.setUp()

    def test_tasks_of_other_slots_have_addresses_of_their_own(self) -> None:
        pool = self.network(identity="name")
        found = {self.start(pool, f"web.{slot}.{TASKS[slot]}") for slot in (1, 2)}
        self.assertEqual([len({*each}) for each in zip(*found, strict=True)], [2, 2])

    def test_task_that_starts_before_its_predecessor_ends_has_its_own(self) -> None:
        """``docker service update --update-order start-first``"""
        pool = self.network(identity="name")
        first = self.start(pool, f"web.1.{TASKS[0]}")
        second = self.start(pool, f"web.1.{TASKS[1]}")
        self.assertEqual([len({*each}) for each in zip(first, second, strict=True)], [2, 2])
        self.plugin.clock.advance(60)
        self.stop(pool, first[0])
        self.assertEqual(self.start(pool, f"web.1.{TASKS[2]}"), first)
