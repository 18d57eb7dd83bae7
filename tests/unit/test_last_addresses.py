"""With the engine's API it is known whose each address is: what its lists and events say decides about the next request."""

from __future__ import annotations

from itertools import count
from typing import cast

from attrs import evolve
from twisted.internet.defer import Deferred
from twisted.logger import ILogObserver, LogEvent, LogLevel, formatEvent, globalLogPublisher

from macvlan_twisted.addresses import parse_address, parse_network
from macvlan_twisted.engine.interfaces import EngineDown, EngineUnavailable, ListedAttachment
from macvlan_twisted.reconcile.container_watch import NO_ANSWER

from .engines import Engine
from .helpers import LAN, NETWORK, PluginHarness
from .test_sticky_addresses import StickyAddressTestCase

_IDS = count(1)


class WatchedTestCase(StickyAddressTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.engine = Engine()
        self.plugin = PluginHarness(engine=self.engine)
        self.pool = self.network()
        self.addresses: dict[str, str] = {}
        self.watch()

    def network(self, **options: str) -> str:
        pool = super().network(**options)
        created = self.plugin.pool_binding.network_created(
            "eth0", [(parse_network(self.subnet), ())], NETWORK
        )
        self.plugin.wait(created)
        return pool

    def watch(self) -> None:
        running = self.plugin.start(self.plugin.parts.container_watch.run())
        running.addErrback(lambda _: None)
        self.addCleanup(running.cancel)

    def listed(self) -> None:
        """Whatever is to be listed again is."""
        self.plugin.clock.advance(1)

    def create(self, name: str, *asked: str) -> str:
        """``docker create``"""
        addresses = tuple(parse_address(each) for each in asked)
        self.engine.runs[name] = [ListedAttachment(NETWORK, "", addresses)]
        self.engine.event("container", "create", name)
        return name

    def up(self, name: str, mac: str | None = None) -> str:
        """``docker start``"""
        (attachment,) = self.engine.runs[name]
        asked = str(attachment.asked[0]) if attachment.asked else None
        address = self.ask(self.pool, asked, name="")
        endpoint_id = f"{next(_IDS):064x}"
        self.plugin.create_endpoint(endpoint_id, address=address, mac=mac)
        self.engine.runs[name] = [ListedAttachment(NETWORK, endpoint_id, attachment.asked)]
        self.engine.event("network", "connect", NETWORK, name)
        self.addresses[name] = address
        return address

    def run_box(self, name: str, *asked: str) -> str:
        """``docker run``"""
        return self.up(self.create(name, *asked))

    def down(self, name: str) -> None:
        """``docker stop``"""
        (attachment,) = self.engine.runs[name]
        self.engine.runs[name] = [evolve(attachment, endpoint_id="")]
        self.plugin.delete_endpoint(attachment.endpoint_id)
        self.release(self.pool, self.addresses[name].partition("/")[0])
        self.engine.event("network", "disconnect", NETWORK)

    def remove(self, name: str) -> None:
        """``docker rm``"""
        del self.engine.runs[name]
        self.engine.event("container", "destroy", name)

    def pass_grace(self) -> None:
        self.plugin.clock.advance(6)
        self.listed()


class OnlyAbsentTests(WatchedTestCase):
    def test_only_absent_container_has_its_address_at_any_age(self) -> None:
        self.run_box("other")
        before = self.run_box("box")
        self.listed()
        self.down("box")
        self.plugin.clock.advance(100_000)
        self.assertEqual(self.up("box"), before)

    def test_one_of_two_absent_containers_gets_an_unused_address(self) -> None:
        first, second = self.run_box("one"), self.run_box("two")
        self.listed()
        self.down("one")
        self.down("two")
        self.pass_grace()
        self.assertEqual(self.up("one"), "192.168.1.4/24")
        self.listed()
        self.assertEqual(self.up("two"), second, "the only one then")
        self.assertNotIn(first, self.addresses.values())

    def test_created_container_leaves_it_open_who_asks(self) -> None:
        before = self.run_box("box")
        self.listed()
        self.down("box")
        self.pass_grace()
        self.assertNotEqual(self.run_box("new"), before)
        self.listed()
        self.assertEqual(self.up("box"), before)

    def test_created_container_that_asks_by_ip_does_not_count(self) -> None:
        before = self.run_box("box")
        self.create("new", "192.168.1.77")
        self.listed()
        self.down("box")
        self.pass_grace()
        self.assertEqual(self.up("box"), before)

    def test_removed_container_does_not_count(self) -> None:
        gone, before = self.run_box("gone"), self.run_box("box")
        self.listed()
        self.down("gone")
        self.down("box")
        self.remove("gone")
        self.pass_grace()
        self.assertEqual(self.up("box"), before)
        self.assertNotEqual(before, gone)

    def test_container_on_its_way_leaves_it_open_who_asks(self) -> None:
        """Its address is allocated, and the engine does not list it yet."""
        before = self.run_box("box")
        self.create("new")
        self.listed()
        self.down("box")
        self.pass_grace()
        self.ask(self.pool, name="")
        self.assertNotEqual(self.up("box"), before)

    def test_address_under_another_mac_is_not_given_back(self) -> None:
        self.create("box")
        before = self.up("box", mac="02:00:00:00:00:17")
        self.listed()
        self.down("box")
        self.pass_grace()
        self.assertNotEqual(self.up("box"), before)

    def test_container_by_ip_has_no_part_in_it(self) -> None:
        asked = self.run_box("asks", "192.168.1.77")
        before = self.run_box("box")
        self.listed()
        self.down("asks")
        self.down("box")
        self.pass_grace()
        self.assertEqual(self.up("box"), before)
        self.assertEqual(self.up("asks"), asked)

    def test_what_is_known_survives_a_reboot(self) -> None:
        """The engine starts its containers before it answers."""
        self.run_box("asks", "192.168.1.77")
        before = self.run_box("box")
        self.listed()
        self.down("asks")
        self.down("box")
        self.plugin = self.plugin.next_life()
        self.engine.starting = Deferred()
        self.watch()
        self.plugin.clock.advance(NO_ANSWER)
        address = self.ask(self.pool, name="")
        self.assertEqual(address, before)

    def after_restart(self, trouble: Exception, seconds: float) -> tuple[str, str]:
        """The address of a container before a restart of the service, and after it if the engine is not to be had."""
        before = self.run_box("box")
        self.listed()
        self.down("box")
        self.plugin.clock.advance(6)
        self.plugin = self.plugin.next_life()
        self.engine.trouble = trouble
        self.watch()
        for _ in range(int(seconds * 10)):
            self.plugin.clock.advance(0.1)
        return before, self.ask(self.pool, name="")

    def test_what_is_known_holds_while_no_engine_runs(self) -> None:
        before, after = self.after_restart(EngineDown("no such file"), 10)
        self.assertEqual(after, before)

    def test_nothing_is_known_of_an_engine_that_was_away_for_long(self) -> None:
        """It is looked for seldom then."""
        before, after = self.after_restart(EngineDown("no such file"), 61)
        self.assertNotEqual(after, before)

    def test_nothing_is_known_of_an_engine_that_must_not_be_asked(self) -> None:
        before, after = self.after_restart(EngineUnavailable("permission denied"), 10)
        self.assertNotEqual(after, before)

    def warnings(self, seconds: int) -> list[str]:
        """That are logged within so many *seconds*."""
        found: list[str] = []

        def note(event: LogEvent) -> None:
            if event["log_level"] is LogLevel.warn:
                found.append(formatEvent(event))

        observer = cast(ILogObserver, note)
        globalLogPublisher.addObserver(observer)
        for _ in range(seconds):
            self.plugin.clock.advance(1)
        globalLogPublisher.removeObserver(observer)
        return found

    def test_engine_that_never_answers_is_warned_of_once(self) -> None:
        """After a minute: a machine that boots starts Docker after the plugin."""
        plugin = self.plugin = PluginHarness(engine=self.engine)
        self.engine.trouble = EngineDown("no such file")
        self.watch()
        self.assertEqual(self.warnings(59), [])
        (warning,) = self.warnings(60)
        self.assertIn(
            f"no answer on {plugin.config.docker_host} since the plugin started (no such file)", warning
        )
        self.assertIn("start Docker, or correct --docker-host", warning)
        self.assertEqual(self.warnings(600), [])

    def test_engine_that_goes_later_is_no_warning(self) -> None:
        ended, self.engine.trouble = self.engine.ended, EngineDown("no such file")
        assert ended is not None
        ended.callback(None)
        self.assertEqual(self.warnings(600), [])

    def test_engine_is_followed_again_after_a_restart(self) -> None:
        before = self.run_box("box")
        self.listed()
        ended, self.engine.trouble = self.engine.ended, EngineUnavailable("no such file")
        assert ended is not None
        ended.callback(None)
        self.plugin.clock.advance(1)
        self.engine.trouble = None
        self.plugin.clock.advance(1)
        self.listed()
        self.down("box")
        self.pass_grace()
        self.assertEqual(self.up("box"), before)


class ReturnTests(WatchedTestCase):
    """The only address that was released within the last seconds."""

    def test_restart_keeps_it_beside_absent_and_created_containers(self) -> None:
        self.run_box("absent")
        self.create("created")
        before = self.run_box("box")
        self.listed()
        self.down("absent")
        self.pass_grace()
        self.down("box")
        self.assertEqual(self.up("box"), before)

    def test_new_container_does_not_get_that_of_an_absent_one(self) -> None:
        """``docker stop box; docker run new``"""
        before = self.run_box("box")
        self.listed()
        self.down("box")
        self.assertNotEqual(self.run_box("new"), before)

    def test_event_tells_at_once_whose_an_address_is(self) -> None:
        """The engine is not asked meanwhile."""
        self.plugin.clock.advance(1)
        lists = self.engine.lists
        self.engine.trouble = EngineUnavailable("busy")
        before = self.run_box("box")
        self.down("box")
        self.assertNotEqual(self.run_box("new"), before)
        self.assertEqual(self.engine.lists, lists)

    def test_container_whose_endpoint_is_known_is_not_waited_for(self) -> None:
        """It was created since, and runs before the next list: the next request cannot be its own."""
        before = self.run_box("box")
        self.listed()
        self.down("box")
        self.assertNotEqual(self.run_box("new"), before)
        self.assertEqual(self.up("box"), before)

    def test_new_container_gets_that_of_a_removed_one(self) -> None:
        """``docker rm -f box; docker run box``"""
        before = self.run_box("box")
        self.listed()
        self.down("box")
        self.remove("box")
        self.assertEqual(self.run_box("box-again"), before)

    def test_successor_that_was_created_before_gets_it(self) -> None:
        """``docker compose up`` creates the new container, then removes the old one, and starts the new one."""
        before = self.run_box("old")
        self.create("new")
        self.listed()
        self.down("old")
        self.remove("old")
        self.assertEqual(self.up("new"), before)


class KeptTests(WatchedTestCase):
    """The address of a container that exists and does not run goes to nobody else before the range is exhausted."""

    def setUp(self) -> None:
        super().setUp()
        self.plugin.delete_network()
        self.close(self.pool)
        self.subnet = "192.168.1.0/29"
        self.pool = self.network()

    def test_absent_containers_address_comes_last(self) -> None:
        box, asked = self.run_box("box"), self.run_box("asks", "192.168.1.4")
        self.listed()
        self.down("box")
        self.down("asks")
        self.create("never-started", "192.168.1.5")
        self.pass_grace()
        self.assertEqual([self.run_box("a"), self.run_box("b")], ["192.168.1.3/29", "192.168.1.6/29"])
        self.listed()
        last = {self.run_box("c"), self.run_box("d"), self.run_box("e")}
        self.assertEqual(last, {box, asked, "192.168.1.5/29"})

    def test_rows_go_with_container_and_pool(self) -> None:
        self.run_box("one")
        self.run_box("two")
        self.listed()
        self.assertEqual(len(self.plugin.store.of_containers), 2)
        self.down("one")
        self.remove("one")
        self.assertEqual(len(self.plugin.store.of_containers), 1)
        self.down("two")
        self.close(self.pool)
        self.listed()
        self.assertEqual(self.plugin.store.of_containers, {})

    def test_engine_is_not_asked_where_nothing_is_watched(self) -> None:
        self.close(self.pool)
        self.listed()
        lists = self.engine.lists
        self.create("somebody-elses")
        self.engine.event("network", "connect", "0" * 64)
        self.listed()
        self.assertEqual(self.engine.lists, lists)

    def test_address_given_away_is_not_its_former_owners(self) -> None:
        box = self.run_box("box")
        self.listed()
        self.down("box")
        self.create("thief", box.partition("/")[0])
        self.assertEqual(self.up("thief"), box)
        self.listed()
        self.assertNotEqual(self.up("box"), box)


class NoEngineTests(StickyAddressTestCase):
    def test_nothing_is_remembered_without_an_engine(self) -> None:
        self.plugin = PluginHarness(config=evolve(LAN, docker_host=""))
        pool = self.network()
        before = self.start(pool, "")
        self.stop(pool, before[0])
        self.plugin.clock.advance(6)
        self.assertNotEqual(self.start(pool, ""), before)
        self.assertEqual(self.plugin.store.of_containers, {})
