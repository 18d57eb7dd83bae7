"""The names of containers, which most engines send too late, reach the DHCP server at the next renewal."""

from __future__ import annotations

from attrs import evolve
from twisted.internet.defer import CancelledError, Deferred

from macvlan_twisted.driver import requests
from macvlan_twisted.engine.interfaces import EngineError, EngineUnavailable
from macvlan_twisted.reconcile.container_names import LISTING_DELAY
from macvlan_twisted.service import resume

from .dhcp_lan import MAC
from .helpers import ENDPOINT, NETWORK, subnet
from .test_leases import LeasesTestCase


class ContainerNamesTests(LeasesTestCase):
    def setUp(self) -> None:
        super().setUp()
        nobodys = evolve(subnet("0.0.0.0/0"), null_ipam=True)
        self.plugin.create_network(subnets=(nobodys,), parent="eth0", dhcp="true")
        self.engine = self.plugin.engine
        self.engine.trouble = None
        names = self.plugin.parts.container_names
        self.work: Deferred[None] = self.plugin.start(names.learn())

    def join(self) -> None:
        self.plugin.create_endpoint(ENDPOINT, NETWORK, None, MAC)
        self.plugin.wait(self.plugin.joining.join(requests.Join(NETWORK, ENDPOINT)))

    def pass_time(self, seconds: float) -> None:
        for _ in range(int(seconds)):
            self.plugin.clock.advance(1)

    def names_said(self) -> list[bytes | None]:
        return [message.options.get(12) for message in self.heard]

    def test_idle_service_sets_no_timer(self) -> None:
        self.assertEqual(self.plugin.clock.getDelayedCalls(), [])
        self.assertEqual(self.engine.asked, 0)

    def test_dhcp_server_gets_the_name_at_the_next_renewal(self) -> None:
        self.engine.listed = {ENDPOINT: "my_web.1"}
        self.join()
        self.assertEqual(set(self.names_said()), {None})
        self.heard.clear()
        self.pass_time(LISTING_DELAY + 1)
        self.assertEqual(self.engine.asked, 1)
        self.assertEqual(self.heard, [])
        self.plugin.clock.advance(1800)
        self.assertEqual(self.names_said(), [b"my-web-1"])
        self.pass_time(3600)
        self.assertEqual(self.engine.asked, 1)

    def test_later_container_is_looked_up_again(self) -> None:
        self.engine.listed = {ENDPOINT: "web"}
        self.join()
        self.pass_time(LISTING_DELAY + 1)
        self.plugin.delete_endpoint()
        self.engine.listed = {ENDPOINT: "db"}
        self.join()
        self.pass_time(LISTING_DELAY + 1)
        self.plugin.clock.advance(1800)
        self.assertEqual(self.names_said()[-1], b"db")

    def test_absent_engine_is_asked_with_backoff(self) -> None:
        self.engine.trouble = EngineUnavailable("refused")
        self.join()
        self.pass_time(6000)
        self.assertTrue(10 < self.engine.asked < 30, self.engine.asked)
        self.engine.trouble = None
        self.engine.listed = {ENDPOINT: "web"}
        self.pass_time(2100)
        self.assertEqual(self.names_said()[-1], b"web")

    def test_engine_that_lacks_the_name_is_asked_a_few_times(self) -> None:
        for trouble in (None, EngineError("network not found")):
            self.engine.trouble = trouble
            self.engine.asked = 0
            self.join()
            self.pass_time(6000)
            self.assertTrue(2 <= self.engine.asked <= 5, self.engine.asked)
            self.plugin.delete_endpoint()

    def test_lookup_ends_with_the_service(self) -> None:
        self.engine.trouble = EngineUnavailable("refused")
        self.join()
        self.work.cancel()
        self.failureResultOf(self.work, CancelledError)
        asked = self.engine.asked
        self.pass_time(LISTING_DELAY + 1)
        self.assertEqual(self.engine.asked, asked)

    def test_names_are_looked_up_once_leases_of_an_earlier_life_go_on(self) -> None:
        """Before that no lease waits for a name, however long it takes to open the parent's packet socket."""
        self.join()
        self.work.cancel()
        self.failureResultOf(self.work, CancelledError)
        plugin = self.plugin.next_life()
        plugin.engine.trouble, plugin.engine.listed = None, {ENDPOINT: "web"}
        plugin.steps.hold.add("find")
        work = plugin.start(resume(plugin.parts))
        plugin.clock.advance(LISTING_DELAY + 1)
        plugin.steps.let_all_go()
        for _ in range(int(LISTING_DELAY) + 2):
            plugin.clock.advance(1)
        self.assertEqual(plugin.engine.asked, 1)
        work.cancel()
        self.failureResultOf(work, CancelledError)
