"""What tests of the rounds share: a house whose background work goes round, and an engine beside it."""

from __future__ import annotations

from typing import Any, cast

from attrs import evolve
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.logger import capturedLogs, formatEvent

from macvlan_twisted.addresses import parse_address, parse_network
from macvlan_twisted.engine.client import EngineUnavailable, ListedNetwork
from macvlan_twisted.ipam.requests import Purpose, RequestAddress, RequestPool
from macvlan_twisted.link_names import endpoint_link_name
from macvlan_twisted.reconcile.reconciler import GRACE_PERIODS, Reconciler
from macvlan_twisted.reconcile.stale_endpoints import StaleEndpoints
from macvlan_twisted.reconcile.stale_networks import StaleNetworks
from macvlan_twisted.state.interfaces import RecordKind

from .engines import Engine
from .helpers import ENDPOINT, NETWORK, PluginHarness, PluginTestCase, subnet

LINK = endpoint_link_name(ENDPOINT)
SUBNET = "192.168.1.0/24"
ROUND = 60.0
ENOUGH = GRACE_PERIODS.silence + 2 * ROUND
"""Seconds after which whatever is to be removed has been."""


def listed(network_id: str = NETWORK, *subnets: str, driver: str = "macvlan-twisted") -> ListedNetwork:
    """A network with our address management, as the engine lists it."""
    return ListedNetwork(
        network_id,
        "lan",
        driver,
        "macvlan-twisted",
        tuple(parse_network(each) for each in subnets or (SUBNET,)),
    )


class ReconcilerTestCase(PluginTestCase):
    """A network with our address management, which the engine lists; rounds that a test begins."""

    every = ROUND

    def setUp(self) -> None:
        super().setUp()
        self.engine = Engine(has={NETWORK: listed()})
        self.stopping = False
        self.pool_id = self.create_all()

    def create_all(self, network_id: str = NETWORK, plugin: PluginHarness | None = None) -> str:
        """As an engine does it."""
        plugin = plugin or self.plugin
        pool_id = self.request_pool(plugin)
        plugin.create_network(network_id, subnets=(evolve(subnet(SUBNET), managed_here=True),), parent="eth0")
        plugin.wait(plugin.pool_binding.network_made("eth0", [(parse_network(SUBNET), ())], network_id))
        return pool_id

    def request_pool(self, plugin: PluginHarness | None = None) -> str:
        plugin = plugin or self.plugin
        request = RequestPool("Local", parse_network(SUBNET), None, {"parent": "eth0"})
        return plugin.wait(plugin.pools.request_pool(request)).pool_id

    def request_address(self, text: str = "192.168.1.7", plugin: PluginHarness | None = None) -> None:
        plugin = plugin or self.plugin
        request = RequestAddress(self.pool_id, parse_address(text), Purpose.ENDPOINT, f"c{text}")
        plugin.wait(plugin.addresses.request_address(request))

    def run_container(self, endpoint_id: str = ENDPOINT, text: str = "192.168.1.7", **words: Any) -> None:
        """RequestAddress, CreateEndpoint, and the link is moved into the container."""
        plugin: PluginHarness = words.pop("house", self.plugin)
        self.request_address(text, plugin)
        plugin.create_endpoint(endpoint_id, address=f"{text}/24", **words)
        plugin.kernel.move_away(endpoint_link_name(endpoint_id), up=True)
        self.engine.listed[endpoint_id] = "web"

    def forget_container(self, endpoint_id: str = ENDPOINT) -> None:
        """The container is gone with its namespace, and the engine has told nobody."""
        self.engine.listed.pop(endpoint_id, None)
        self.plugin.kernel.destroy_away(endpoint_link_name(endpoint_id))

    def no_engine(self) -> None:
        self.engine.trouble = EngineUnavailable("no such file")

    def begin(self, plugin: PluginHarness | None = None) -> Reconciler:
        self.plugin = plugin = plugin or self.plugin
        self.reconciler = Reconciler(
            plugin.registry,
            StaleEndpoints(plugin.registry, plugin.links, plugin.removal, plugin.records.instance),
            StaleNetworks(plugin.registry, plugin.networks, plugin.pools, plugin.owners),
            plugin.orphans,
            self.engine,
            "macvlan-twisted",
            self.every,
            GRACE_PERIODS,
            lambda seconds: deferLater(cast(Any, plugin.clock), seconds),
            plugin.clock.seconds,
        )
        self.work: Deferred[None] = plugin.start(self.reconciler.make(lambda: self.stopping))
        return self.reconciler

    def start_again(self) -> Reconciler:
        """A kill, and a start."""
        return self.begin(self.plugin.next_life())

    def pass_time(self, seconds: float) -> None:
        for _ in range(int(seconds)):
            self.plugin.clock.advance(1)

    def go_round(self, seconds: float = ENOUGH) -> str:
        """Let time pass, and return what was logged."""
        with capturedLogs() as events:
            self.pass_time(seconds)
        for event in events:
            if "log_failure" in event:
                event["log_failure"].raiseException()
        return "\n".join(filter(None, map(formatEvent, events)))

    def claimed(self) -> list[str]:
        """Containers' addresses on disk."""
        return sorted(
            str(claim.address)
            for claim in self.plugin.store.claimed.values()
            if claim.purpose == Purpose.ENDPOINT.value
        )

    def assert_kept(self, *endpoint_ids: str) -> None:
        self.assertEqual(set(self.plugin.registry.endpoints), {*endpoint_ids})
        self.assertEqual(set(self.plugin.records.kept[RecordKind.ENDPOINT]), {*endpoint_ids})

    def assert_networks(self, *network_ids: str) -> None:
        self.assertEqual(set(self.plugin.registry.networks), {*network_ids})
        self.assertEqual(set(self.plugin.records.kept[RecordKind.NETWORK]), {*network_ids})


__all__ = ["ENOUGH", "GRACE_PERIODS", "LINK", "ROUND", "SUBNET", "ReconcilerTestCase", "listed"]
