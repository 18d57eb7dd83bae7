"""Engines before 29 do not send containers' names; what such an engine lists is shown to the fleet."""

from __future__ import annotations

from attrs import evolve
from twisted.internet.defer import ensureDeferred

from macvlan_twisted.addresses import parse_address
from macvlan_twisted.fleet.interfaces import Claim, Host, HostRecord
from macvlan_twisted.fleet.member import FleetMember
from macvlan_twisted.testing.fleet_claims import FakeClaims, FakeStore

from .engines import Engine
from .helpers import PluginHarness
from .test_last_addresses import WatchedTestCase
from .test_sticky_addresses import StickyAddressTestCase


class ListedNameTests(WatchedTestCase):
    def setUp(self) -> None:
        StickyAddressTestCase.setUp(self)
        self.engine, self.fleet = Engine(), FakeStore()
        member = FleetMember(HostRecord(Host("a", "instance"), "session", "boot"), FakeClaims(self.fleet))
        self.plugin = PluginHarness(engine=self.engine, fleet=member)
        session = self.plugin.parts.fleet_session
        assert session is not None
        running = ensureDeferred(session.run())
        running.addErrback(lambda _: None)
        self.addCleanup(running.cancel)
        self.pool = self.network()
        self.addresses = {}
        self.watch()

    def test_container_that_the_engine_lists_is_named_in_its_claim(self) -> None:
        address = self.run_box("web").partition("/")[0]
        (attachment,) = self.engine.runs["web"]
        self.engine.runs["web"] = [evolve(attachment, container="web")]
        self.listed()
        entry = self.fleet.entries["default", parse_address(address)]
        assert isinstance(entry, Claim)
        self.assertEqual(entry.container, "web")
