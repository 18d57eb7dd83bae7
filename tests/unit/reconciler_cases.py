"""What tests of the reconciler share: a plugin whose reconciler runs, and an engine beside it."""

from __future__ import annotations

from attrs import evolve
from twisted.logger import capturedLogs, formatEvent

from macvlan_twisted.addresses import parse_address, parse_network
from macvlan_twisted.engine.interfaces import EngineUnavailable, ListedNetwork
from macvlan_twisted.ipam.requests import Purpose, ReleaseAddress, RequestAddress, RequestPool
from macvlan_twisted.link_names import endpoint_link_name
from macvlan_twisted.reconcile.reconciler import GRACE_PERIODS
from macvlan_twisted.state.interfaces import RecordKind

from .helpers import ENDPOINT, NETWORK, PluginHarness, PluginTestCase, subnet

LINK = endpoint_link_name(ENDPOINT)
SUBNET = "192.168.1.0/24"
ROUND = 60.0
ENOUGH = GRACE_PERIODS.idle + 2 * ROUND
"""Seconds after which all that is stale has been removed."""


def listed(network_id: str = NETWORK, *subnets: str, driver: str = "macvlan-twisted") -> ListedNetwork:
    """A network with our address management, as the engine lists it."""
    return ListedNetwork(
        network_id,
        "lan",
        driver,
        "macvlan-twisted",
        tuple(parse_network(each) for each in subnets or (SUBNET,)),
    )


def open_pool(plugin: PluginHarness, text: str = SUBNET) -> str:
    request = RequestPool("Local", parse_network(text), None, {"parent": "eth0"})
    return plugin.wait(plugin.pools.request_pool(request)).pool_id


def make_network(plugin: PluginHarness, *subnets: str, network_id: str = NETWORK) -> None:
    """CreateNetwork on eth0, with subnets of our address management."""
    managed = tuple(evolve(subnet(each), managed_here=True) for each in subnets or (SUBNET,))
    plugin.create_network(network_id, subnets=managed, parent="eth0")
    pools = [(each.pool, ()) for each in managed]
    plugin.wait(plugin.pool_binding.network_created("eth0", pools, network_id))


def request_address(plugin: PluginHarness, pool_id: str, text: str) -> None:
    request = RequestAddress(pool_id, parse_address(text), Purpose.ENDPOINT, f"c{text}")
    plugin.wait(plugin.addresses.request_address(request))


class ReconcilerTestCase(PluginTestCase):
    """A network with our address management, which the engine lists; :meth:`begin` starts the reconciler."""

    def setUp(self) -> None:
        super().setUp()
        self.engine = self.plugin.engine
        self.engine.trouble, self.engine.has = None, {NETWORK: listed()}
        self.pool_id = self.create_all()

    def create_all(self) -> str:
        """RequestPool and CreateNetwork; returns the id of the pool."""
        pool_id = open_pool(self.plugin)
        make_network(self.plugin)
        return pool_id

    def request_address(self, text: str = "192.168.1.7") -> None:
        request_address(self.plugin, self.pool_id, text)

    def release_address(self, text: str = "192.168.1.7") -> None:
        release = ReleaseAddress(self.pool_id, parse_address(text))
        self.plugin.wait(self.plugin.addresses.release_address(release))

    def run_container(self, endpoint_id: str = ENDPOINT, text: str = "192.168.1.7") -> None:
        """RequestAddress and CreateEndpoint; the link is moved into the container."""
        self.request_address(text)
        self.plugin.create_endpoint(endpoint_id, address=f"{text}/24")
        self.plugin.kernel.move_away(endpoint_link_name(endpoint_id), up=True)
        self.engine.listed[endpoint_id] = "web"

    def forget_container(self, endpoint_id: str = ENDPOINT) -> None:
        """The container is gone with its namespace; the engine has sent no call."""
        self.engine.listed.pop(endpoint_id, None)
        self.plugin.kernel.destroy_away(endpoint_link_name(endpoint_id))

    def no_engine(self) -> None:
        self.engine.trouble = EngineUnavailable("no such file")

    def begin(self, plugin: PluginHarness | None = None) -> None:
        self.plugin = plugin or self.plugin
        self.reconciler = self.plugin.parts.reconciler
        self.plugin.parts.reconcile_loop.start()

    def start_again(self) -> None:
        """A kill, and a start."""
        self.begin(self.plugin.next_life())

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
        """The addresses of containers on disk."""
        return sorted(
            str(claim.address)
            for claim in self.plugin.store.allocated.values()
            if claim.purpose == Purpose.ENDPOINT.value
        )

    def assert_kept(self, *endpoint_ids: str) -> None:
        self.assertEqual(set(self.plugin.registry.endpoints), {*endpoint_ids})
        self.assertEqual(set(self.plugin.records.rows[RecordKind.ENDPOINT]), {*endpoint_ids})

    def assert_networks(self, *network_ids: str) -> None:
        self.assertEqual(set(self.plugin.registry.networks), {*network_ids})
        self.assertEqual(set(self.plugin.records.rows[RecordKind.NETWORK]), {*network_ids})
