"""``--recover``: state rebuilt from the engine and the kernel equals the state that was lost."""

from __future__ import annotations

import json
from typing import Any

from attrs import evolve
from twisted.trial.unittest import SynchronousTestCase

from macvlan_twisted.addresses import parse_address, parse_interface, parse_network
from macvlan_twisted.commands.stale_sandboxes import engine_sandboxes
from macvlan_twisted.engine.blocking_client import (
    BlockingEngineClient,
    FoundEndpoint,
    FoundNetwork,
    FoundSubnet,
    Inspection,
    found_network,
    inspect_networks,
)
from macvlan_twisted.engine.interfaces import EngineError
from macvlan_twisted.errors import NotFound, StartupError, StateError
from macvlan_twisted.ipam.requests import Purpose, ReleaseAddress, RequestAddress, RequestPool
from macvlan_twisted.recovery.link_evidence import instances_of, refuse_unknown_links
from macvlan_twisted.recovery.rebuild import RebuildResult, rebuild
from macvlan_twisted.recovery.snapshot import Snapshot
from macvlan_twisted.state.database import ADDRESSES, Put
from macvlan_twisted.state.interfaces import Allocation, RecordKind
from macvlan_twisted.state.serialize import from_document, to_document
from macvlan_twisted.testing.kernel import FakeKernel, nic

from .database_cases import LedgerTestCase
from .helpers import ENDPOINT, LAN, NETWORK, PluginHarness, PluginTestCase, network_request, subnet

OTHER = "2" * 64
DRIVER = LAN.plugin_name


def listed(
    plugin: PluginHarness, network_id: str = NETWORK, *, ipam: str = "default", **words: Any
) -> FoundNetwork:
    """A network of *plugin* with its endpoints, as an engine lists it."""
    network = plugin.registry.networks[network_id]
    endpoints = tuple(
        FoundEndpoint(
            each.endpoint_id, "box", each.mac, each.reported_address or each.address, each.address_v6
        )
        for each in plugin.registry.endpoints_of(network_id)
    )
    subnets = tuple(FoundSubnet(each.pool, None, each.gateway, each.auxiliary) for each in network.subnets)
    words = {"options": {}, "internal": network.internal, **words}
    return FoundNetwork(
        network_id, "lan", DRIVER, words.pop("options"), words.pop("internal"), ipam, {}, subnets, endpoints
    )


def rebuild_from(
    plugin: PluginHarness, *networks: FoundNetwork, before: Snapshot | None = None
) -> RebuildResult:
    return rebuild(
        before or Snapshot(),
        Inspection(networks, picks_gateways=False),
        plugin.config,
        plugin.kernel,
        plugin.kernel.links(),
        plugin.records.instance,
        1.0e9,
    )


class NetworkTests(PluginTestCase):
    def assert_rebuilt(self, internal: bool = False, **options: str) -> Snapshot:
        """Create a network, rebuild it from the engine's view, and compare."""
        self.plugin.create_network(internal=internal, **options)
        self.plugin.create_endpoint()
        made = self.plugin.registry
        result = rebuild_from(self.plugin, listed(self.plugin, options=options, internal=internal))
        self.assertEqual(result.missing, [])
        self.assertEqual(result.snapshot.networks, dict(made.networks))
        self.assertEqual(result.snapshot.endpoints, dict(made.endpoints))
        self.assertEqual(result.snapshot.made_links, made.made_links)
        self.assertEqual(result.snapshot.host_links, made.host_links)
        return result.snapshot

    def test_a_network_without_options_is_rebuilt(self) -> None:
        self.assert_rebuilt(parent="eth1")

    def test_options_are_rebuilt(self) -> None:
        self.assert_rebuilt(
            parent="eth1", mode="private", mtu="1400", bcqueuelen="7", identity="random", announce="false"
        )

    def test_our_vlan_stays_ours(self) -> None:
        snapshot = self.assert_rebuilt(parent="eth1.20")
        self.assertEqual(snapshot.made_links["eth1.20"].lower, "eth1")

    def test_a_vlan_that_a_reboot_removed_is_to_be_made_again(self) -> None:
        self.plugin.create_network(parent="eth1", vlan_id="20")
        engines_view = listed(self.plugin, options={"parent": "eth1", "vlan_id": "20"})
        made = dict(self.plugin.registry.made_links)
        self.plugin.kernel.delete("eth1.20")
        self.assertEqual(rebuild_from(self.plugin, engines_view).snapshot.made_links, made)

    def test_a_foreign_vlan_stays_foreign(self) -> None:
        plugin = PluginHarness(
            FakeKernel([nic("eth1", 3), nic("eth1.20", 4, kind="vlan", vlan_id=20, lower_index=3)])
        )
        plugin.create_network(parent="eth1.20")
        self.assertEqual(
            rebuild_from(plugin, listed(plugin, options={"parent": "eth1.20"})).snapshot.made_links, {}
        )

    def test_our_dummy_link_stays_ours(self) -> None:
        self.plugin.create_network(internal=True)
        engines_view = listed(self.plugin, options={}, internal=True)
        snapshot = rebuild_from(self.plugin, engines_view).snapshot
        self.assertTrue(snapshot.networks[NETWORK].on_dummy)
        self.assertEqual(list(snapshot.made_links), [snapshot.networks[NETWORK].parent])

    def test_host_access_is_rebuilt_with_the_hosts_address(self) -> None:
        options = {"parent": "eth1", "host_access": "true", "host_address": "192.168.1.200"}
        self.plugin.create_network(**options)
        made = self.plugin.registry.networks[NETWORK]
        snapshot = rebuild_from(self.plugin, listed(self.plugin, options=options)).snapshot
        self.assertEqual(snapshot.networks[NETWORK].host_addresses, made.host_addresses)
        self.assertEqual(snapshot.host_links, self.plugin.registry.host_links)

    def test_a_network_with_an_absent_parent_is_rebuilt(self) -> None:
        self.plugin.create_network(parent="eth1")
        self.plugin.create_endpoint()
        engines_view = listed(self.plugin, options={"parent": "eth1"})
        self.plugin.kernel = FakeKernel([nic("eth0", 2)])
        result = rebuild_from(self.plugin, engines_view)
        self.assertEqual(result.snapshot.networks[NETWORK].parent, "eth1")
        self.assertEqual(list(result.snapshot.endpoints), [ENDPOINT])

    def test_a_network_with_unknown_options_is_reported_and_skipped(self) -> None:
        self.plugin.create_network(parent="eth1")
        engines_view = listed(self.plugin, options={"parent": "eth1"})
        unknown = evolve(engines_view, network_id=OTHER, name="strange", options={"colour": "blue"})
        result = rebuild_from(self.plugin, unknown, engines_view)
        self.assertEqual(list(result.snapshot.networks), [NETWORK])
        ((missing, reason),) = result.missing
        self.assertEqual(missing, "network strange")
        self.assertIn("colour", reason)

    def test_the_gateway_that_an_old_engine_picked_is_inferred(self) -> None:
        subnets = (FoundSubnet(parse_network("10.0.0.0/24"), parse_network("10.0.0.128/25")),)
        plain = FoundNetwork(NETWORK, "lan", DRIVER, {"parent": "eth1"}, False, "default", {}, subnets)
        shown = evolve(plain, endpoints=(FoundEndpoint(ENDPOINT, "box", gateway=parse_address("10.0.0.9")),))
        for engines_view, expected in ((plain, "10.0.0.128"), (shown, "10.0.0.9")):
            result = rebuild(
                Snapshot(),
                Inspection((engines_view,), picks_gateways=True),
                LAN,
                self.plugin.kernel,
                self.plugin.kernel.links(),
                "0123abcd",
                1.0e9,
            )
            self.assertEqual(str(result.snapshot.networks[NETWORK].subnets[0].gateway), expected)
        self.assertIsNone(rebuild_from(self.plugin, plain).snapshot.networks[NETWORK].subnets[0].gateway)

    def test_sound_rows_stay_and_missing_ones_are_added(self) -> None:
        self.plugin.create_network(parent="eth1")
        self.plugin.create_endpoint()
        engines_view = listed(self.plugin, options={"parent": "eth1"})
        network = evolve(self.plugin.registry.networks[NETWORK], mtu=1234)
        before = Snapshot(networks={NETWORK: network, OTHER: evolve(network, network_id=OTHER)})
        snapshot = rebuild_from(self.plugin, engines_view, before=before).snapshot
        self.assertEqual(snapshot.networks, before.networks)
        self.assertEqual(list(snapshot.endpoints), [ENDPOINT])
        again = rebuild_from(self.plugin, engines_view, before=snapshot).snapshot
        self.assertEqual(again.changes_since(snapshot), [])


class SnapshotTests(LedgerTestCase):
    def read(self, purpose: Purpose) -> Snapshot:
        database = self.open(self.make_directory())
        database.commit([Put(ADDRESSES, ("Local;10.0.0.0/29;;;lost", "10.0.0.1", purpose.value))])
        return Snapshot.of(database)

    def test_reserved_addresses_without_a_pool_are_ignored(self) -> None:
        """Reserved addresses of a pool that was never opened are freed by a start."""
        for purpose in (Purpose.GATEWAY, Purpose.AUXILIARY, Purpose.HOST):
            self.assertEqual(self.read(purpose), Snapshot())

    def test_a_containers_address_without_a_pool_is_damage(self) -> None:
        with self.assertRaisesRegex(StateError, "address 10.0.0.1 in the state belongs to pool Local;"):
            self.read(Purpose.ENDPOINT)


class UnexpectedEngine(BlockingEngineClient):
    def __init__(self, answers: dict[str, Any]) -> None:
        super().__init__("unix:///nowhere")
        self._answers = answers

    def get(self, path: str) -> Any:
        return self._answers.get(path, {})


class UnexpectedAnswerTests(SynchronousTestCase):
    def test_an_unexpected_answer_is_an_engine_error(self) -> None:
        """Commands and a start report it in one line."""
        for networks in ("text", [7], None, [{"Driver": DRIVER}], [{"Driver": DRIVER, "Id": "1"}]):
            with self.assertRaisesRegex(EngineError, "cannot be parsed"):
                inspect_networks(UnexpectedEngine({"/networks": networks}), DRIVER)
        unexpected: list[Any] = [{"message": "x"}, [7], None, [{}]]
        for containers in unexpected:
            with self.assertRaisesRegex(EngineError, "cannot be parsed"):
                engine_sandboxes(UnexpectedEngine({"/containers/json?all=1": containers}))


class PoolTests(PluginTestCase):
    """The engine still uses the PoolIDs from before the loss."""

    def setUp(self) -> None:
        super().setUp()
        self.ids: list[str] = []
        for network in (NETWORK, OTHER):
            request = RequestPool(
                "MacvlanTwistedLocal", parse_network("10.0.0.0/24"), None, {"parent": "eth1"}
            )
            pool_id = self.plugin.wait(self.plugin.pools.request_pool(request)).pool_id
            gateway = parse_address("10.0.0.1")
            self.plugin.wait(
                self.plugin.addresses.request_address(RequestAddress(pool_id, gateway, Purpose.GATEWAY))
            )
            ours = evolve(subnet("10.0.0.0/24", "10.0.0.1"), managed_here=True)
            self.plugin.wait(
                self.plugin.networks.create(network_request(network, subnets=(ours,), parent="eth1"))
            )
            self.plugin.wait(self.plugin.pool_binding.network_created("eth1", [(ours.pool, ())]))
            address = self.plugin.wait(self.plugin.addresses.request_address(RequestAddress(pool_id, None)))
            self.plugin.create_endpoint(network[:1] * 63 + "e", network, str(address))
            self.ids.append(pool_id)
        self.plugin = self.recovered(NETWORK, OTHER)

    def recovered(self, *networks: str) -> PluginHarness:
        engines_view = [
            evolve(
                listed(self.plugin, each, ipam=DRIVER, options={"parent": "eth1"}),
                ipam_options={"parent": "eth1"},
            )
            for each in networks
        ]
        snapshot = rebuild_from(self.plugin, *engines_view).snapshot
        plugin = PluginHarness(self.plugin.kernel)
        for key, pool in snapshot.pools.items():
            plugin.wait(_done(plugin.store.save_pool(key, to_document(pool))))
        for (pool_id, address), purpose in snapshot.allocations.items():
            plugin.wait(
                _done(plugin.store.save_allocation(Allocation(pool_id, address, purpose.value), "x", False))
            )
        for network in snapshot.networks.values():
            plugin.wait(
                _done(plugin.records.save(RecordKind.NETWORK, network.network_id, to_document(network)))
            )
        return plugin.next_life()

    def address(self, pool_id: str, wanted: str | None = None) -> str:
        request = RequestAddress(pool_id, None if wanted is None else parse_address(wanted))
        return str(self.plugin.wait(self.plugin.addresses.request_address(request)).ip)

    def test_no_address_in_use_is_allocated_under_an_earlier_pool_id(self) -> None:
        for pool_id in self.ids:
            self.assertNotIn(self.address(pool_id), ("10.0.0.1", "10.0.0.2", "10.0.0.3"))

    def test_a_released_address_is_free(self) -> None:
        self.plugin.wait(
            self.plugin.addresses.release_address(ReleaseAddress(self.ids[1], parse_address("10.0.0.3")))
        )
        self.assertEqual(self.address(self.ids[0], "10.0.0.3"), "10.0.0.3")

    def test_the_pool_is_closed_with_the_last_of_its_networks(self) -> None:
        gateway = ReleaseAddress(self.ids[0], parse_address("10.0.0.1"))
        self.plugin.wait(self.plugin.addresses.release_address(gateway))
        self.plugin.wait(self.plugin.pools.release_pool(self.ids[0]))
        self.plugin.wait(self.plugin.pools.release_pool(self.ids[0]))  # again: nothing to release
        self.plugin = self.plugin.next_life()
        self.assertNotEqual(
            self.address(self.ids[1]), "10.0.0.1", "the gateway of the other one was handed out"
        )
        self.plugin.wait(self.plugin.pools.release_pool(self.ids[1]))
        self.assertEqual(self.plugin.store.pools(), {})
        self.assertEqual(self.plugin.store.allocations(), [])

    def test_the_id_of_another_pool_is_unknown(self) -> None:
        for unknown in (
            "",
            "x",
            self.ids[0].replace("10.0.0.0", "10.0.9.0"),
            self.ids[0].replace("eth1", "eth0"),
        ):
            with self.assertRaises(NotFound):
                self.address(unknown)

    def test_a_pool_requested_later_is_separate(self) -> None:
        request = RequestPool("MacvlanTwistedLocal", parse_network("10.0.0.0/24"), None, {"parent": "eth1"})
        later = self.plugin.wait(self.plugin.pools.request_pool(request)).pool_id
        self.plugin.wait(self.plugin.pools.release_pool(later))
        self.assertEqual(len(self.plugin.store.pools()), 1)
        self.assertNotIn(self.address(self.ids[0]), ("10.0.0.1", "10.0.0.2", "10.0.0.3"))


def _done(deferred: Any) -> Any:
    async def wait() -> None:
        await deferred

    return wait()


class LinkEvidenceTests(PluginTestCase):
    def test_a_link_unknown_to_the_state_proves_it_outdated(self) -> None:
        self.plugin.create_network(parent="eth1.20")
        links, instance = self.plugin.kernel.links(), self.plugin.records.instance
        refuse_unknown_links(instance, links, self.plugin.registry)
        self.plugin.registry.made_links.clear()
        refuse_unknown_links("another", links, self.plugin.registry)
        with self.assertRaisesRegex(StateError, r"older than link eth1\.20"):
            refuse_unknown_links(instance, links, self.plugin.registry)

    def test_a_renamed_vlan_is_refused_with_the_remedy(self) -> None:
        self.plugin.create_network(parent="eth1.20")
        vlan = self.plugin.kernel.find("eth1.20")
        assert vlan is not None
        renamed = [evolve(vlan, name="lab20")]
        for registry in ({"eth1.20"}, {"eth1.20", "lab20"}):  # as before, and as --recover finds it
            made = dict.fromkeys(registry, self.plugin.registry.made_links["eth1.20"])
            self.plugin.registry.made_links.update(made)
            with self.assert_refused(StartupError, "ip link set lab20 name eth1.20"):
                refuse_unknown_links(self.plugin.records.instance, renamed, self.plugin.registry)

    def test_a_containers_link_needs_no_row(self) -> None:
        """Its row is removed before the link is."""
        self.plugin.create_network(parent="eth1")
        self.plugin.create_endpoint()
        refuse_unknown_links(
            self.plugin.records.instance, self.plugin.kernel.links(), PluginHarness().registry
        )

    def test_instance_and_link_group_are_read_from_links(self) -> None:
        self.plugin.create_network(parent="eth1")
        self.plugin.create_endpoint()
        group = self.plugin.records.link_group
        instances = instances_of(self.plugin.kernel.links())
        self.assertEqual(list(instances), [self.plugin.records.instance])
        self.assertEqual((group - instances[self.plugin.records.instance]) % 32, (group - 2**16) % 32)


NETWORK_OF_20_10 = f"""
{{"Name": "lan", "Id": "{NETWORK}", "Driver": "{DRIVER}", "Internal": false, "Options": {{"parent": "eth1"}},
 "IPAM": {{"Driver": "{DRIVER}", "Options": null, "Config": [
   {{"Subnet": "192.168.77.9/24", "IPRange": "192.168.77.128/25", "Gateway": "192.168.77.1",
     "AuxiliaryAddresses": {{"x": "192.168.77.9"}}}}, {{}}]}},
 "Containers": {{"c1": {{"Name": "ca", "EndpointID": "{ENDPOINT}", "MacAddress": "7a:42:c0:a8:4d:81",
   "IPv4Address": "192.168.77.129/24", "IPv6Address": ""}}}}}}
"""
CONTAINERS_OF_20_10 = f"""
{{"c1": {{"State": {{"Pid": 77}}, "NetworkSettings": {{"SandboxKey": "/var/run/docker/netns/58991c558dcb",
  "Networks": {{"lan": {{"NetworkID": "{NETWORK}", "Gateway": "192.168.77.1", "IPv6Gateway": ""}}}}}}}}}}
"""


class FoundNetworkTests(PluginTestCase):
    def test_answers_of_docker_20_10_are_read(self) -> None:
        engines_view = found_network(json.loads(NETWORK_OF_20_10), json.loads(CONTAINERS_OF_20_10))
        subnet = FoundSubnet(
            parse_network("192.168.77.0/24"),
            parse_network("192.168.77.128/25"),
            parse_address("192.168.77.1"),
            {"x": parse_address("192.168.77.9")},
        )
        endpoint = FoundEndpoint(
            ENDPOINT,
            "ca",
            "7a:42:c0:a8:4d:81",
            parse_interface("192.168.77.129/24"),
            gateway=parse_address("192.168.77.1"),
            sandbox="/var/run/docker/netns/58991c558dcb",
            process=77,
        )
        options = {"parent": "eth1"}
        expected = FoundNetwork(NETWORK, "lan", DRIVER, options, False, DRIVER, {}, (subnet,), (endpoint,))
        self.assertEqual(engines_view, expected)

    def test_absent_members_are_empty(self) -> None:
        engines_view = found_network({"Id": NETWORK, "IPAM": None, "Containers": None, "Options": None}, {})
        self.assertEqual((engines_view.subnets, engines_view.endpoints, engines_view.options), ((), (), {}))

    def test_a_lease_is_rebuilt_from_address_and_mac(self) -> None:
        options = {"parent": "eth1", "dhcp": "true", "dhcp_release": "false"}
        subnets = (FoundSubnet(parse_network("0.0.0.0/0")),)
        box = FoundEndpoint(ENDPOINT, "box", "7a:42:00:00:00:01", parse_interface("192.168.1.50/24"))
        engines_view = FoundNetwork(NETWORK, "lan", DRIVER, options, False, "null", {}, subnets, (box,))
        result = rebuild_from(self.plugin, engines_view)
        ((key, lease),) = result.snapshot.leases.items()
        self.assertEqual(key, "eth1 7a:42:00:00:00:01")
        self.assertEqual(str(lease.binding.interface), "192.168.1.50/24")
        self.assertTrue(lease.granted)
        self.assertFalse(lease.release)
        self.assertEqual(from_document(type(lease), to_document(lease)), lease)
